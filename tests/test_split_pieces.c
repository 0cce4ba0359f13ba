/* Split-KV kernels that store the outputs of their pieces in 16 bits before they merge them: inside the sets of
 * a contract that says so, outside of one that does not. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "reference/reference.h"

enum { KEYS = 96, DIM = 8, PIECE = 32, ROWS = 40 };

static float q[ROWS * DIM], k[KEYS * DIM], v[KEYS * DIM];

static void fill(float *x, int n, double size, double offset) {
    for (int i = 0; i < n; i++) x[i] = (float)dtype_round(DTYPE_BF16, (2 * drand48() - 1) * size + offset);
}

/* Query t in fp32, its pieces rounded to `kept`, without key `skip`. */
static void split_attention(int t, enum dtype kept, int skip, float *out) {
    float lse[KEYS / PIECE], o[KEYS / PIECE][DIM], top = -INFINITY, sum = 0;
    for (int i = 0; i < KEYS / PIECE; i++) {
        float s[PIECE], m = -INFINITY, l = 0, total[DIM] = {0};
        for (int j = 0; j < PIECE; j++) {
            s[j] = 0;
            for (int d = 0; d < DIM; d++) s[j] = fmaf(q[t * DIM + d], k[(i * PIECE + j) * DIM + d], s[j]);
            m = fmaxf(m, s[j]);
        }
        for (int j = 0; j < PIECE; j++) {
            const float p = i * PIECE + j == skip ? 0 : expf(s[j] - m);
            l += p;
            for (int d = 0; d < DIM; d++) total[d] = fmaf(p, v[(i * PIECE + j) * DIM + d], total[d]);
        }
        for (int d = 0; d < DIM; d++) o[i][d] = (float)dtype_round(kept, (double)(total[d] / l));
        lse[i] = m + logf(l);
        top = fmaxf(top, lse[i]);
    }
    for (int d = 0; d < DIM; d++) out[d] = 0;
    for (int i = 0; i < KEYS / PIECE; i++) {
        const float weight = expf(lse[i] - top);
        sum += weight;
        for (int d = 0; d < DIM; d++) out[d] = fmaf(weight, o[i][d], out[d]);
    }
    for (int d = 0; d < DIM; d++) out[d] /= sum;
}

static struct call all_queries(void) {
    static int32_t page, start[2] = {0, ROWS}, length = KEYS;
    const struct view cache = {k, DTYPE_F32, {KEYS * DIM, DIM, DIM}, 0, KEYS * DIM};
    struct call c = {.op = OP_ATTENTION};
    c.u.attention = (struct attention_args){.q = {q, DTYPE_F32, {DIM, DIM}, 0, ROWS * DIM},
                                            .k_cache = cache,
                                            .v_cache = cache,
                                            .page_table = {&page, DTYPE_I32, {1}, 0, 1},
                                            .query_start = {start, DTYPE_I32, {1}, 0, 2},
                                            .kv_len = {&length, DTYPE_I32, {1}, 0, 1},
                                            .n_tokens = ROWS,
                                            .n_seqs = 1,
                                            .n_heads = 1,
                                            .n_kv_heads = 1,
                                            .head_dim = DIM,
                                            .page_size = KEYS,
                                            .n_pages = 1,
                                            .max_queries = ROWS,
                                            .max_kv = KEYS,
                                            .scale = 1};
    c.u.attention.v_cache.data = v;
    return c;
}

struct counts {
    int rounded, dropped;
};

/* How many elements of a kernel whose pieces are bf16, and of one that drops a key, are outside. */
static struct counts outside(const struct call *call, enum dtype declared, int64_t slice) {
    struct contract c = contract_exact(OP_ATTENTION);
    double y[ROWS * DIM], e[ROWS * DIM];
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    struct counts n = {0};
    c.u.attention.splits = KEYS / PIECE;
    c.u.attention.slice = slice;
    c.u.attention.piece = declared;
    ref_compute(call, &c, NULL, 0, ROWS, out);
    for (int t = 0; t < ROWS; t++) {
        float honest[DIM], plain[DIM], less[DIM];
        split_attention(t, DTYPE_BF16, -1, honest);
        split_attention(t, DTYPE_F32, -1, plain);
        split_attention(t, DTYPE_BF16, t % KEYS, less);
        for (int d = 0; d < DIM; d++) {
            const double at_y = y[t * DIM + d], at_e = e[t * DIM + d];
            cr_expect_eq(element_judge(DTYPE_F32, (double)plain[d], at_y, at_e).kind, ELEMENT_OK);
            n.rounded += element_judge(DTYPE_F32, (double)honest[d], at_y, at_e).kind != ELEMENT_OK;
            n.dropped += element_judge(DTYPE_F32, (double)less[d], at_y, at_e).kind != ELEMENT_OK;
        }
    }
    return n;
}

Test(split_pieces, rounded_pieces_are_inside_where_they_are_declared_only) {
    srand48(11);
    for (int trial = 0; trial < 12; trial++) {
        fill(q, ROWS * DIM, trial % 3 ? 2 : 0.2, 0);
        fill(k, KEYS * DIM, 1, 0);
        fill(v, KEYS * DIM, 1, trial % 2 ? 4 : 0);
        const struct call call = all_queries();
        const int64_t slice = trial % 4 < 2 ? PIECE : 0;
        const struct counts declared = outside(&call, DTYPE_BF16, slice),
                            not = outside(&call, DTYPE_F64, slice);
        cr_expect_eq(declared.rounded, 0, "trial %d: %d outside", trial, declared.rounded);
        cr_expect_gt(not .rounded, ROWS * DIM / 2, "trial %d: %d outside", trial, not .rounded);
        cr_expect_gt(declared.dropped, 0, "trial %d: %d of %d", trial, declared.dropped, ROWS * DIM);
    }
}
