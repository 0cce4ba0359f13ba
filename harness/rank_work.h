/* rank_work - one rank at one stage, with what it is compared to. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RANK_WORK_H
#define HARNESS_RANK_WORK_H

#include "harness/ranks.h"
#include "harness/stage.h"

struct rank_work {
    struct ranks *ranks;
    struct trunk *trunk;
    struct placed at;
    struct outcome outcome;
    struct answer answer; /* of the rank's own call for partial outputs, otherwise its slice of the trunk's */
    bool same_call;       /* prepared: the call is the trunk's, on the same bits */
};

static inline bool is_partial(enum tensor_id id) { return tensor_table[id].role == ROLE_PARTIAL; }
static inline struct verdict verdict_on(const struct rank_work *w, enum edge edge) {
    return (struct verdict){&w->ranks->edge[edge], &w->ranks->findings};
}

/* Rows of the rank's own call, as the reference has them, have the bits of w->answer: all of them,
 * or, where that would take long, some and one of every expert. */
void plan_edge(struct rank_work *w);
/* y of a partial answer, on unrounded values, is added to *sum [of the whole] (NULL: zeros so far;
 * block_free it), and kept where another stage goes on from it. */
void partial_add(struct rank_work *w, double **sum);
/* Of all ranks: the sum is the whole's, within what double summation allows. */
void partial_edge(struct ranks *r, const struct trunk *t, int stage, const double *sum);

#endif
