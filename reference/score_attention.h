/* score_attention - what the sums of the statistical test are made of in attention, one row at a
 * time: a query of a head with all the keys it sees. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_SCORE_ATTENTION_H
#define REFERENCE_SCORE_ATTENTION_H

#include "reference/attention_weights.h"
#include "reference/score_sums.h"

/* Directions of one pass. The first few take a product with all values each; SCORE_OFFSET, whose dy is
 * the same for all dims, comes behind them and takes none. A scan ranks keys, in the last column. */
enum { PRODUCTS = COLUMNS - 1 };
struct pass {
    int n_products;
    enum score_direction direction[PRODUCTS + 1];
    int64_t key, n_keys; /* SCORE_KEYS */
    double offset;       /* mean |y|; 0: SCORE_OFFSET is not among them */
    bool scan;
};

struct row_sums {
    int64_t head, keys, equal_weights;  /* keys that the query sees */
    struct score_sums of[PRODUCTS + 1]; /* by direction of the pass */
};

/* What a task leaves behind. */
struct task_sums {
    struct attention_task task;
    int64_t n, n_rows;    /* keys; queries times heads of the group */
    struct row_sums *row; /* [n_rows] */
    double *pull, *noise; /* [n] T_j of every key, and about its variance */
};

/* One thread's memory. */
struct bench {
    struct attention_keys keys;
    lanes *values;                /* [n / LANES][D] lanes of keys */
    double *square, *total;       /* [n] |v|^2, sum of v */
    double *moment;               /* [COLUMNS][stride] w log w */
    double *o, *accumulated, *by; /* [COLUMNS][D] o, E_acc, sum w log w v */
    double *c, *dy;               /* [COLUMNS + 1][D] directions, one a column; the scan's; the offset's */
    struct score_cell *cell;      /* [D] */
};
struct bench bench_make(int64_t most_keys, int64_t head_dim);
void bench_free(struct bench *b);

/* The gathered values once more, as lanes of keys. */
void bench_turn_values(struct bench *b, int64_t head_dim);
/* After keys_weigh: what n_heads heads make of the values. */
void bench_meet_values(struct bench *b, const struct output_factors *f, int64_t slice, int n_heads,
                       int64_t head_dim, int64_t n);

struct row {
    const struct head_sums *head;
    int64_t n, index; /* visible keys; a number of its own, for the maxima */
    int h;            /* column of the bench */
    /* filled by bench_row */
    double omega, co[COLUMNS + 1]; /* 1 / |o|^2, c.o */
    double spread;                 /* about the variance of an element */
};
/* at: where the row's values begin in stored, y and e. */
void bench_row(struct row_sums *out, struct bench *b, const struct score_case *c, const struct pass *pass,
               const struct output_factors *f, struct row *r, int64_t at, struct task_sums *task);

#endif
