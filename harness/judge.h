/* judge - compares what was stored with what is right, element by element, and says where it
 * differs. Every verdict of the product is made here. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_JUDGE_H
#define HARNESS_JUDGE_H

#include "layer/plan.h"
#include "layer/contract.h"
#include "reports/result.h"

/* The wrong elements of one stage, over ranks. */
struct findings {
    int stage;  /* enum stage_id of the first failing stage; -1: nothing found yet */
    bool named; /* first and worst are filled */
    bool twin;  /* of the whole layer's small twin, not of a stage of the case */
    struct mismatch first, worst;
    int first_rank, last_rank;
    int64_t low[AXIS_COUNT], high[AXIS_COUNT]; /* extent of the wrong elements along the cut axes they have */
    bool seen[AXIS_COUNT];
};
void findings_init(struct findings *f);
/* "stage attention, ranks 1-3 of 4, tokens 1-32, heads 8-31" */
void findings_where(const struct findings *f, int64_t n_ranks, char *text, size_t size);
/* More to say about the first and the worst element, where they are of this stage and rank (-1: the
 * unsharded run). */
void findings_remark(struct findings *f, int stage, int rank, const char *remark);
/* A failure without an element (a kernel error, a damaged guard). */
void findings_note(struct findings *f, int stage, int rank, const char *note);

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
};
/* Each stored value in [round(y - E), round(y + E)]. */
void judge_set(const struct judged *j, struct edge_result *edge, struct findings *findings);
/* Each stored value has the bits of expected[]; y and e (may be NULL) only explain a difference. */
void judge_identical(const struct judged *j, const void *expected, struct edge_result *edge,
                     struct findings *findings);
/* Each value of a second run of the same call has the bits of first[]; `note` says what the runs
 * had apart. */
void judge_repeated(const struct judged *j, const void *first, const char *note, struct edge_result *edge,
                    struct findings *findings);
/* Routing: ids [rows, k] as sets against score intervals lo, hi [rows, n_experts]. */
void judge_topk(const struct judged *j, const double *lo, const double *hi, int64_t n_experts, int64_t k,
                struct edge_result *edge, struct findings *findings);
/* The same, with the intervals from the reference of a route call; j->got are its ids. */
void judge_route(const struct judged *j, const struct call *call, const struct contract *contract,
                 struct edge_result *edge, struct findings *findings);
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

void edge_merge(struct edge_result *into, const struct edge_result *from);
void edge_fail(struct edge_result *edge);

#endif
