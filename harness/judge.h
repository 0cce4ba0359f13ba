/* judge - compares what was stored with what is right, element by element. Every verdict of the
 * product is made here, but for the choice of experts (judge_route.h). */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_JUDGE_H
#define HARNESS_JUDGE_H

#include "harness/findings.h"
#include "layer/contract.h"

/* Each stored value in [round(y - E), round(y + E)]. */
void judge_set(const struct judged *j, struct edge_result *edge, struct findings *findings);
/* Each stored value has the bits of expected[]; y and e (may be NULL) only explain a difference. */
void judge_identical(const struct judged *j, const void *expected, struct edge_result *edge,
                     struct findings *findings);
/* Each value of a second run of the same call has the bits of first[]; `note` says what the runs
 * had apart. */
void judge_repeated(const struct judged *j, const void *first, const char *note, struct edge_result *edge,
                    struct findings *findings);
/* The reference twice: bit for bit (slack == NULL), or within slack[i]. */
void judge_plan(const struct judged *j, const double *a, const double *b, const double *slack,
                struct edge_result *edge, struct findings *findings);
/* The stages composed against plain.c, within slack[i]. */
void judge_chain(const struct judged *j, const double *composed, const double *plain, const double *slack,
                 struct edge_result *edge, struct findings *findings);
/* Cache bytes that the call may not touch: before and after agree wherever owned[row] is 0; rows of
 * row_bytes. */
void judge_untouched(const struct judged *j, const void *before, const void *after,
                     const unsigned char *owned, int64_t rows, size_t row_bytes, struct edge_result *edge,
                     struct findings *findings);

/* Into the worse of two. */
void trend_merge(struct trend *into, const struct trend *from);
void edge_merge(struct edge_result *into, const struct edge_result *from);
void edge_fail(struct edge_result *edge);
/* So many more are looked at. */
void edge_begin(struct edge_result *edge, const struct judged *j, struct findings *findings);

#endif
