/* chain - the stages composed, rank by rank, against a second, plain implementation of the whole layer
 * (reference/plain.h). On a small twin of the layer, in double, the reference in every seat: what the
 * stage edges cannot see because reference and kernel share the argument, or because nobody looks at
 * how stages follow each other. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CHAIN_H
#define HARNESS_CHAIN_H

#include "harness/crew.h"
#include "harness/judge.h"

/* The twin of a layer: the same flags, heads, kv heads, experts and choices; hidden, head dim, widths
 * and tokens small. Its widths can be cut for every one of the cases. */
struct chain;
struct chain *chain_open(const struct layer_spec *spec, int64_t layer, const struct check_case *cases,
                         int64_t n_cases);
void chain_close(struct chain *chain);

/* The composition for the case's tp and ep, every rank's y. `fault`: a mistake that all of it makes
 * (NULL: none); plain.c never makes it. Returns NULL, or the name of what plain.c does not know: then
 * the edge has not run. */
const char *chain_edge(struct chain *chain, const struct check_case *c, const struct mutant *fault,
                       struct edge_result *edge, struct findings *findings);

#endif
