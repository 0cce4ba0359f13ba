/* Attention with the keys cut into slices: are honest merges inside, and does a declared slice make
 * the bound sharper without making it wrong? */
/* SPDX-License-Identifier: MIT */
#include "reference/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define F64(a, s0, s1)                                                                                       \
    { a, DTYPE_F64, {s0, s1, 0}, 0, sizeof(a) / sizeof(double) }
#define I32(a, s0)                                                                                           \
    { a, DTYPE_I32, {s0, 0, 0}, 0, sizeof(a) / sizeof(int32_t) }

struct answer {
    double y, e;
};

static struct answer answer_of(const struct call *call, const struct contract *contract) {
    struct answer a;
    ref_compute(call, contract, NULL, 0, 1, (struct ref_out[MAX_REF_OUT]){{&a.y, &a.e, NULL}});
    return a;
}

static void fill(double *x, int64_t n, enum dtype d) {
    for (int64_t i = 0; i < n; i++) x[i] = dtype_round(d, drand48() * 2 - 1);
}

enum { SPLIT_KEYS = 6144 };

/* One query q = 1 of one dim: the keys are the scores. */
static struct call split_case(double *scores, double *values, int n) {
    static double one[] = {1};
    static int32_t page[] = {0}, start[] = {0, 1}, length[1];
    length[0] = n;
    struct call c = {.op = OP_ATTENTION};
    c.u.attention = (struct attention_args){.q = F64(one, 1, 1),
                                            .k_cache = {scores, DTYPE_F64, {n, 1, 1}, 0, n},
                                            .v_cache = {values, DTYPE_F64, {n, 1, 1}, 0, n},
                                            .page_table = I32(page, 1),
                                            .query_start = I32(start, 1),
                                            .kv_len = I32(length, 1),
                                            .n_tokens = 1,
                                            .n_seqs = 1,
                                            .n_heads = 1,
                                            .n_kv_heads = 1,
                                            .head_dim = 1,
                                            .page_size = n,
                                            .n_pages = 1,
                                            .max_queries = 1,
                                            .max_kv = n,
                                            .scale = 1,
                                            .causal = true};
    return c;
}

/* The float next to log n on one side: what a logarithm to one place may return. */
static float log_beside(int n, bool above) {
    const double exact = log(n);
    const float near = (float)exact;
    if (((double)near > exact) == above) return near;
    return nextafterf(near, above ? INFINITY : 0);
}

/* The slice length in [2981, 3072), where an ulp is largest beside log n, with the worst such
 * logarithm. */
static int worst_length(bool above) {
    int worst = 2981;
    for (int n = worst; n < SPLIT_KEYS / 2; n++)
        if (fabs((double)log_beside(n, above) - log(n)) > fabs((double)log_beside(worst, above) - log(worst)))
            worst = n;
    return worst;
}

/* Two slices of equal scores -log n, so that both lse cancel to almost 0 and half the output comes
 * from each; they take turns in the keys, so that the prefix sums are small. Everything is exact
 * but the logarithm, one place high in the first slice and low in the second. What splitting adds
 * to E must cover that by itself: the
 * errors of large scores, which E holds anyway, are other errors. 2 u |lse| would not do. */
Test(slices, a_split_merge_pays_for_its_logarithm_where_the_log_sum_exp_cancels) {
    static double scores[SPLIT_KEYS], values[SPLIT_KEYS];
    const int length[] = {worst_length(true), worst_length(false)}, n = length[0] + length[1];
    struct contract c = contract_exact(OP_ATTENTION);
    c.u.attention.qk = c.u.attention.pv = (struct accumulator){.unit = UNIT_F64, .block = 1};
    c.u.attention.exp_error = 0x1p-50;
    c.u.attention.splits = 2;
    double weight[2];
    for (int i = 0; i < 2; i++) {
        const float m = -(float)log(length[i]);
        weight[i] = exp((double)(m + log_beside(length[i], i == 0)));
        for (int j = 0; j < length[i]; j++) { /* in turn, then what is left of the longer slice */
            const int shorter = length[0] < length[1] ? length[0] : length[1];
            const int at = j < shorter ? 2 * j + i : shorter + j;
            scores[at] = (double)m, values[at] = i ? -1 : 1;
        }
    }
    const double got = (weight[0] - weight[1]) / (weight[0] + weight[1]);
    const struct call call = split_case(scores, values, n);
    const struct answer split = answer_of(&call, &c);
    c.u.attention.splits = 1;
    const double off = fabs(got - split.y) / UNIT_F32;
    const double share = (split.e - answer_of(&call, &c).e) / UNIT_F32;
    cr_assert_gt(off, 15.5, "the attack moved the output by %g u only", off);
    cr_assert_leq(off, share, "off by %g u, splitting adds %g u", off, share);
}

/* fp32 attention as kernels split it: slices, in each an online softmax in steps of `block` keys, then
 * the merge by the slices' lse, relative to the largest (`at_once`) or one slice after the other. */
struct splitting {
    int slice, block;
    bool at_once;
};

struct piece {
    float lse, out;
};

static struct piece slice_attention(const double *scores, const double *values, int n, int block) {
    float m = -INFINITY, l = 0, o = 0;
    for (int b = 0; b < n; b += block) {
        const int end = b + block < n ? b + block : n;
        float top = m;
        for (int j = b; j < end; j++) top = fmaxf(top, (float)scores[j]);
        const float again = expf(m - top);
        l *= again, o *= again, m = top;
        for (int j = b; j < end; j++) {
            const float p = expf((float)scores[j] - m);
            l += p, o = fmaf(p, (float)values[j], o);
        }
    }
    return (struct piece){m + logf(l), o / l};
}

static float split_attention(const double *scores, const double *values, int n, struct splitting by) {
    struct piece piece[SPLIT_KEYS];
    float top = -INFINITY, sum = 0, out = 0;
    int slices = 0;
    for (int j = 0; j < n; j += by.slice, slices++) {
        piece[slices] =
            slice_attention(scores + j, values + j, by.slice < n - j ? by.slice : n - j, by.block);
        top = fmaxf(top, piece[slices].lse);
    }
    float running = by.at_once ? top : -INFINITY;
    for (int i = 0; i < slices; i++) {
        const float next = fmaxf(running, piece[i].lse), old = expf(running - next);
        const float weight = expf(piece[i].lse - next);
        sum = sum * old + weight;
        out = out * old + weight * piece[i].out;
        running = next;
    }
    return out / sum;
}

static struct contract split_contract(int n, struct splitting by) {
    struct contract c = contract_exact(OP_ATTENTION);
    c.u.attention.block = by.block;
    c.u.attention.splits = (n + by.slice - 1) / by.slice;
    c.u.attention.l_depth = by.slice + by.slice / by.block + 1 + c.u.attention.splits;
    c.u.attention.slice = by.slice;
    c.u.attention.merges = by.at_once;
    return c;
}

/* Scores whose log-sum-exp is about 0, about log 64, or large. */
static void scores_of(double *scores, int n, double spread, int kind) {
    double l = 0;
    fill(scores, n, DTYPE_F32);
    for (int j = 0; j < n; j++) l += exp(spread * scores[j]);
    const double shifts[] = {-log(l), -log(64), 0, 50};
    for (int j = 0; j < n; j++) scores[j] = dtype_round(DTYPE_F32, spread * scores[j] + shifts[kind]);
}

Test(slices, honest_kernels_stay_inside_whatever_their_slices_blocks_and_merges) {
    static double scores[SPLIT_KEYS], values[SPLIT_KEYS];
    srand48(11);
    for (int trial = 0; trial < 200; trial++) {
        const int n = 65 + (int)(drand48() * 2000), block = 16 << trial % 3;
        const struct splitting by = {block * (1 + trial % 5), block, trial / 3 % 2};
        scores_of(scores, n, trial % 2 ? 8 : 0x1p-10, trial / 2 % 4);
        fill(values, n, DTYPE_BF16);
        const struct call call = split_case(scores, values, n);
        const struct contract c = split_contract(n, by);
        const struct answer a = answer_of(&call, &c);
        const double got = (double)split_attention(scores, values, n, by);
        cr_assert_eq(element_judge(DTYPE_F32, got, a.y, a.e).kind, ELEMENT_OK,
                     "trial %d, %d keys: got %g y %g e %g", trial, n, got, a.y, a.e);
    }
}

/* How often the set tells that the last key was not read. */
static int noticed(const struct call *call, const struct contract *c, float got) {
    const struct answer a = answer_of(call, c);
    return element_judge(DTYPE_F32, (double)got, a.y, a.e).kind == ELEMENT_OUTSIDE;
}

Test(slices, a_dropped_key_of_4000_shows_more_often_where_the_slices_are_declared) {
    enum { KEYS = 4000, ROWS = 100 };
    static double scores[KEYS], values[KEYS];
    const struct splitting by = {64, 64, true};
    int declared = 0, undeclared = 0;
    srand48(5);
    for (int row = 0; row < ROWS; row++) {
        scores_of(scores, KEYS, 4, 2);
        fill(values, KEYS, DTYPE_BF16);
        const struct call call = split_case(scores, values, KEYS);
        const struct contract c = split_contract(KEYS, by);
        struct contract unknown = c;
        unknown.u.attention.slice = unknown.u.attention.merges = 0;
        const float got = split_attention(scores, values, KEYS - 1, by);
        declared += noticed(&call, &c, got);
        undeclared += noticed(&call, &unknown, got);
    }
    printf("of %d: %d with declared slices, %d without\n", ROWS, declared, undeclared);
    cr_expect_gt(2 * declared, 3 * undeclared);
    cr_expect_gt(declared, ROWS / 2);
}
