/* findings - the wrong elements of the first stage that failed, over its ranks: the first, the
 * worst, and where they stand. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_FINDINGS_H
#define HARNESS_FINDINGS_H

#include "harness/heat.h"
#include "harness/pattern.h"
#include "kernels/kernels.h"
#include "layer/plan.h"
#include "reports/result.h"

/* One tensor of one rank. */
struct judged {
    int stage;
    enum tensor_id id; /* coordinates follow its placement */
    const struct shard_plan *plan;
    int rank;    /* whose slice */
    int to_rank; /* > rank: nobody's, what the ranks from `rank` to here brought is added up; whole */
    bool trunk;  /* the unsharded run itself, not rank 0 of a tp=1 case */
    enum dtype dtype;
    const void *got;     /* dense, `count` elements */
    const double *y, *e; /* dense, as got; NULL e: exact */
    int64_t count;
    const char *promised_by; /* the kernel whose word it is that bits are the unsharded run's; NULL: none's */
    int64_t first;           /* where in the slice element 0 stands; for coordinates */
    bool in_order; /* y and e are what the declared order of the sum gives; the elements are judged already */
};

/* The wrong elements of one stage, over ranks. */
struct findings {
    int stage;  /* enum stage_id of the first failing stage; -1: nothing found yet */
    bool named; /* first and worst are filled */
    bool twin;  /* of the whole layer's small twin, not of a stage of the case */
    struct mismatch first, worst;
    int judging; /* the stage whose elements are below: the failing one, or the last that was judged */
    struct index_set rank, axis[AXIS_COUNT]; /* by global index */
    uint64_t judged_tensors, wrong_tensors;  /* a bit an enum tensor_id; for fused rows also of q, k, v */
    struct tile_sizes tiles;                 /* of the kernel that stored them */
    int64_t n_wrong, n_wrong_plan;           /* elements; of the reference against itself */
    struct heats heats; /* the last member: what is judged and wrong counted, for a picture */
};
/* "token 3 head 5 dim 7" */
void place_text(const struct place *place, char *text, size_t size);
void findings_init(struct findings *f);
/* More to say about the first and the worst element, where they are of this stage and rank (-1: the
 * unsharded run). */
void findings_remark(struct findings *f, int stage, int rank, const char *remark);
/* A failure without an element (a kernel error, a damaged guard). */
void findings_note(struct findings *f, int stage, int rank, const char *note);
/* What is going to be judged: right, unless it is added. */
void findings_judged(struct findings *f, const struct judged *j);
/* One more wrong element: `index` of what was judged. */
void findings_add(struct findings *f, const struct judged *j, int64_t index, double got, double expected,
                  double bound, double margin, const char *note);
/* The same of an element that has nothing to say of its own. */
void findings_blame(struct findings *f, const struct judged *j, int64_t index);

#endif
