/* summer - somebody else who adds up the large products of the reference: a GPU. Only the sums, with the
 * very operations in the very order of the loops here (linear_sums.c), so that every bit is theirs, and
 * the bounds that follow from them: of each answer a few rows are added up again, and one bit that differs
 * ends the summer's work. Verdicts are made here, whoever added up. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_SUMMER_H
#define REFERENCE_SUMMER_H

#include "layer/contract.h"
#include "layer/ops.h"
#include "reference/bound.h"

/* Rows [first, first + n) of a linear call, which use one group. */
struct ref_run {
    int64_t group, first, n;
};

/* What is wanted of an element beyond its sums; a summer may leave it to the loops here. */
struct ref_finish {
    struct linear_bounds bounds;
    const double *bias;     /* [n_cols of args] */
    const double *row_grid; /* [n_rows] of all inputs of a row; NULL: no sum is taken for exact */
    bool sizes;             /* s1 is wanted, too */
};

/* Without an order, of row r of the runs, one run after the other, and column c, in double, separately
 * multiplied and added:
 *   term[k] = w[group][c][k] x[row][k]     prefix[k] = prefix[k - 1] + term[k], from 0, k rising
 *   y = the last prefix     s1 = sum over k of |term[k]|, from 0, k rising
 *   span = sum over the slices [0, slice), [slice, 2 slice).. of the largest minus the smallest prefix in
 *          and before it; one that is NaN is neither
 * With an order: y is the fp32 number that it gives (reference/replay.h), and that is all.
 * Operands are read through the spans of their views, NaN outside. */
struct ref_sums {
    /* wanted */
    const struct linear_args *args;  /* only x, w, n_cols and n_inner count */
    const struct ref_run *run;       /* [n_runs], none empty */
    int64_t n_runs, n_rows;          /* rows of all runs */
    int64_t slice;                   /* terms, > 0 */
    const struct accumulator *order; /* NULL: none */
    int64_t each, n_cols;            /* of every run: ref_column; each is 1: all columns */
    const struct ref_finish *finish; /* NULL: nothing; not with an order */
    /* given: [n_rows, n_cols], the summer's until its next call */
    const double *y, *span, *s1;
    /* Or, of a `finish`: y + bias, e = linear_bound, with |bias| s1 where it is wanted (else NULL),
     * and of each column of a run the least linear_need of its rows, [n_runs, n_cols]. */
    const double *e, *need;
};
/* Which one is column j < n_cols of those wanted of a run: a panel in so many, another one in every group.
 * args->n_cols or more: there is none, and what is given does not count. */
enum { REF_PANEL = 8 };
static inline int64_t ref_column(const struct ref_sums *s, const struct ref_run *run, int64_t j) {
    const int64_t first = (s->each - run->group % s->each) % s->each;
    return (first + j / REF_PANEL * s->each) * REF_PANEL + j % REF_PANEL;
}

struct ref_summer {
    /* False: it cannot, and `why` says so; the loops here do it. */
    bool (*sum)(struct ref_summer *self, struct ref_sums *sums);
    double least_work; /* multiply-adds; calls of fewer are not given to it, */
    double least_rows; /* nor those with fewer rows a run: weights must travel to be used a few times only */
    char why[200];
    /* the reference's */
    int64_t answers, rows, recomputed; /* answers of it, their rows, and those added up again */
    /* Where it differed; the summer's own: it has broken down. Then it is not asked again, and the run
     * cannot be trusted. "": neither. */
    char wrong[520];
};

/* From now on; NULL: nobody. Not while the reference computes. */
void ref_use_summer(struct ref_summer *summer);
struct ref_summer *ref_summer(void); /* who is in use; NULL: nobody */

#endif
