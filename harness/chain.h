/* chain - the stages composed, rank by rank, against a second, plain implementation of the whole
 * layer (reference/plain.h). On a small twin of the layer, in double, the reference in every seat:
 * what the stage edges cannot see because reference and kernel share the argument, or because
 * nobody looks at how stages follow each other. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CHAIN_H
#define HARNESS_CHAIN_H

#include "harness/crew.h"
#include "harness/judge.h"

/* The case's part, phase, tp and ep on the twin of a layer: the same flags, heads, kv heads,
 * experts and choices; hidden, head dim, widths and tokens small. Every rank's y is compared.
 * `fault`: a mistake that all of the composition makes (NULL: none); plain.c never makes it.
 * `likely` [size]: where the edge fails, the known mistake with which plain.c agrees with the stages in
 * every element; otherwise empty. Returns NULL, or the name of what plain.c does not know: then the
 * edge has not run. */
const char *chain_edge(const struct layer_spec *spec, int64_t layer, const struct check_case *c,
                       const struct mutant *fault, struct edge_result *edge, struct findings *findings,
                       char *likely, size_t size);

#endif
