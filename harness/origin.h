/* origin - where do neighbouring values come from? fill=tags gives a stage's operands values that
 * hardly repeat: some of them in a row stand in one place only, and what has stored them has read
 * that place. Ops that change what they read are for tags_products.c. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_ORIGIN_H
#define HARNESS_ORIGIN_H

#include "harness/seat.h"

struct origin {
    enum tensor_id id;
    int rank;      /* whose part `index` counts in; -1: the whole tensor */
    int64_t index; /* flat */
};
/* Fewer values in a row stand in several places; of longer rows this many are looked for. */
enum { ORIGIN_FEWEST = 4, ORIGIN_RUN = 16 };

/* run[0..n) among the operands of the stage, of all ranks where the trunk stored them; n >=
 * ORIGIN_FEWEST. `like`: where it is looked for first, in every operand (keys of one position are
 * alike); may be NULL. */
bool origin_find(const struct placed *at, const struct outcome *o, const double *run, int64_t n,
                 const struct origin *like, struct origin *out);
/* Is x the value v, but for what an honest fp32 kernel does to it? */
bool origin_near(double x, double v);

/* "head 3 of token 5 (rank 1's) for head 1 of token 5". */
void origin_tell(const struct placed *at, const struct origin *read, const struct origin *want, char *text,
                 size_t size);
/* "head 3 of token 5" */
void origin_name(const struct placed *at, const struct origin *of, char *text, size_t size);
/* Its outermost axis alone: "token 5", "row 17 (token 5, expert 2)". */
void origin_name_row(const struct placed *at, const struct origin *of, char *text, size_t size);

#endif
