/* where - the place of a failure in words: the pattern of the wrong elements along every axis that
 * has one. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WHERE_H
#define HARNESS_WHERE_H

#include "harness/crew.h"
#include "harness/findings.h"

/* "stage attention, ranks 1-3 of 4, heads h % 8 >= 4 (16 of 32; a group has 8), every token but the first of a
 * sequence". Silent about axes on which everything is wrong. `crew`: whose ranks they are, for
 * sequences, experts and heads; NULL: bare indices. */
void where_describe(const struct findings *f, int64_t n_ranks, const struct crew *crew, char *text,
                    size_t size);

#endif
