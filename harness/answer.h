/* answer - the right values of one call, and what else the ops have of their own once a stage's
 * outputs are stored: which tensors the answers are about, how they are found among what was
 * stored, and what they leave unjudged. One row an op. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_ANSWER_H
#define HARNESS_ANSWER_H

#include "harness/seat.h"
#include "harness/watch.h"
#include "reference/reference.h"

/* Per output of the op (reference.h), dense, all rows of the call. */
struct answer {
    int n;
    enum tensor_id id[MAX_REF_OUT]; /* whose placement gives the coordinates */
    int64_t count[MAX_REF_OUT], row_size[MAX_REF_OUT];
    double *y[MAX_REF_OUT], *e[MAX_REF_OUT];
    double *s1[MAX_REF_OUT]; /* of partial outputs where they are wanted; NULL otherwise */
    bool borrowed;           /* they are another answer's */
};
/* Room for all of it but s1, with anything in it; then for s1. */
void answer_begin(struct answer *a, int stage, const struct outcome *o);
void answer_sizes(struct answer *a);
/* watch: hears that rows are done; may be NULL. */
void answer_fill(struct answer *a, const struct outcome *o, struct watch *watch);
/* Begun and filled, without s1. */
void answer_compute(struct answer *a, int stage, const struct outcome *o, struct watch *watch);
void answer_free(struct answer *a);
double call_row_work(const struct call *call); /* multiply-adds of one row of an answer */
double call_work(const struct call *call);     /* of all of them */

/* y on the unrounded values (double, by tensor) of the stage's partial operands, dense, for
 * block_free: what ranks add up to. NULL where it has none: the answer's own y is that. */
double *answer_exact(const struct placed *at, const struct outcome *o, const struct store *exact);

struct op_row {
    bool by_world; /* no kernel does it: the world, or nobody, as a view */
    bool
        answers_inputs; /* answer i is about in[i], rows that the stage only moves; otherwise about out[first + i] */
    int first;
    /* Multiply-adds of one row of the answer, beyond one an element. NULL: none. */
    double (*row_work)(const struct call *call);
    /* The reference's own choice of the integer outputs, into the call's outputs. NULL: it has
     * none. */
    void (*choose)(const struct call *call);
    /* Rows of answer i among the stored outputs, into dst; NULL: the tensor itself. */
    void (*collect)(const struct placed *at, const struct store *got, int i, void *dst);
    /* And back: answer i, as double rows, into the stored outputs. NULL: the tensor itself. */
    void (*spread)(const struct placed *at, struct store *got, int i, const double *rows);
};
extern const struct op_row op_table[OP_COUNT];
static inline const struct op_row *placed_op(const struct placed *at) {
    return &op_table[placed_row(at)->op];
}

enum tensor_id answer_tensor(int stage, int i);
/* What was stored as answer i: dense rows; *owned is the caller's to free, or NULL. */
const void *answer_stored(const struct placed *at, const struct store *got, const struct answer *a, int i,
                          void **owned);
/* And back: values, rounded, in the place of what was stored. */
void answer_put(const struct placed *at, struct store *got, const struct answer *a, int i,
                const double *values);

#endif
