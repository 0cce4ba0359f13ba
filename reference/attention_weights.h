/* attention_weights - what attention does before it meets the values: tasks of queries that share
 * keys, the keys and values they see in lanes, and the weights with the bounds of their errors. For
 * the files of the reference that answer or test attention. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_ATTENTION_WEIGHTS_H
#define REFERENCE_ATTENTION_WEIGHTS_H

#include "reference/internal.h"

/* Query rows [first, end) of one sequence against one kv head. */
struct attention_task {
    int64_t seq, kv_head, first, end;
};

/* Cuts rows [row0, row1) into tasks, or only counts them when `tasks` is NULL. */
int64_t attention_tasks(struct attention_task *tasks, const struct attention_args *a, int64_t row0,
                        int64_t row1);
int64_t attention_group(const struct attention_args *a); /* query heads a kv head */
int64_t attention_visible(const struct attention_args *a, int64_t seq, int64_t token); /* keys seen */
int64_t attention_most_keys(const struct attention_args *a, const struct attention_task *tasks, int64_t n);

/* One thread's memory; n is the number of keys gathered, stride that number in whole lanes. */
struct attention_keys {
    int64_t n, stride;
    double *row;  /* [D] */
    lanes *k, *v; /* [n / LANES][D] lanes of keys, [D / LANES][n] lanes of dims */
    lanes *size;  /* [D / LANES] sum |v| over the first n_sized keys */
    int64_t n_sized;
    double *k_norm; /* [n] |k_j| */
    double *q;      /* [COLUMNS][D] */
    double *w, *r;  /* [COLUMNS][stride] weights; bounds of their log error, then w h */
};
struct attention_keys keys_make(int64_t most_keys, int64_t head_dim);
void keys_free(struct attention_keys *s);
/* Keys and values 0..n of the task's sequence and head; unused lanes are 0. norms: k_norm, too. */
void keys_gather(struct attention_keys *s, const struct attention_args *a, const struct attention_task *task,
                 int64_t n, bool norms);

/* The way of one key's term through the kernel. */
struct attention_path {
    int64_t slice;   /* keys summed in one go */
    double rescaled; /* how often, after its own block */
    double merged;   /* exponentials in the merge of the slices */
    double n_slices; /* with keys in them */
};
struct attention_path attention_path(const struct attention_contract *c, int64_t n);

/* s->size up to n keys; the queries of a task see more and more of them. */
void keys_extend_sizes(struct attention_keys *s, int64_t head_dim, int64_t n);

struct head_sums {
    double m, l;  /* largest score; sum exp(s - m) */
    double least; /* D = sum w exp(-r) */
    double h_max; /* largest h_j */
    double
        p_off; /* equal keys have all the weight: how far their P may be from a power of two; else infinite */
};
/* One query, heads [head, head + n_heads) of the task's kv head, keys 0..n: q, w and, with bounds,
 * w h. */
void keys_weigh(struct attention_keys *s, const struct attention_args *a, const struct attention_contract *c,
                const double *const *radius, const struct attention_task *task, int64_t token, int64_t head,
                int n_heads, int64_t n, bool bounds, struct head_sums sums[COLUMNS]);

/* An accumulator's bound is linear in W and S1, but for `tiny`, which counts where anything was
 * added. */
struct slopes {
    double w, s1, tiny;
};
struct slopes bound_slopes(const struct accumulator *acc, int64_t n);

/* E is linear in its sums, with one set of factors for a head: sum w h |v - o|; of w v the sum of the
 * slices' W, the W of all and S1; |o|, sum |v|; `tiny` where S1 > 0. `accumulated`: what s1 has of
 * accumulating, P's own rounding left out. (attention.c) */
struct output_factors {
    double centred, spans, w, s1, accumulated, o, magnitude, tiny;
};
struct output_factors output_factors(const struct attention_contract *c, const struct head_sums *h,
                                     int64_t n);

#endif
