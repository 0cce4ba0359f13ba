/* Online softmax in fp32 as kernels have it: keys in tiles, forwards or backwards, cut into slices
 * that are merged through their log-sum-exp; P in fp32 or 16 bits, added up by FMA or a tensor core. */
/* SPDX-License-Identifier: MIT */
#include "tests/campaign/campaign.h"

#include <math.h>
#include <stdio.h>

enum { MAX_DIM = 64, MAX_TILE = 128 };

struct habits {
    int64_t n, d, tile, slice; /* keys, dims, keys of a tile and of a slice */
    enum dtype half;           /* of P and pieces, where they are rounded */
    bool backwards, prescaled; /* the last tile first; scale q rounded to bf16 */
    bool rounds_p, p_in_l, tensor_core, rounds_pieces;
    struct adding qk, pv;
    float scale;
};

/* One slice of one query: softmax(q.k) v of keys [first, end), and its log-sum-exp. */
struct piece {
    float lse, o[MAX_DIM];
};

static float score(const struct habits *h, const float *q, const float *k) {
    float scaled[MAX_DIM];
    if (!h->prescaled) return adding_dot(&h->qk, q, k, h->d) * h->scale;
    for (int64_t i = 0; i < h->d; i++) scaled[i] = (float)dtype_round(DTYPE_BF16, (double)(q[i] * h->scale));
    return adding_dot(&h->qk, scaled, k, h->d);
}

/* o += P V of one tile; the tile's keys are the terms of a sum that goes on. */
static float add_tile(const struct habits *h, float o, const float *p, const float *v, int64_t n) {
    float column[MAX_TILE];
    for (int64_t j = 0; j < n; j++) column[j] = v[j * h->d];
    if (!h->tensor_core) {
        for (int64_t j = 0; j < n; j++) o = h->pv.fma ? fmaf(p[j], column[j], o) : o + p[j] * column[j];
        return o;
    }
    return adding_go_on(o, p, column, n);
}

static struct piece attend(const struct habits *h, const float *q, const float *k, const float *v,
                           int64_t first, int64_t end) {
    const int64_t tiles = (end - first + h->tile - 1) / h->tile;
    float m = -INFINITY, l = 0, p[MAX_TILE];
    struct piece a = {0};
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t j0 = first + (h->backwards ? tiles - 1 - i : i) * h->tile,
                      n = end - j0 < h->tile ? end - j0 : h->tile;
        float top = m;
        for (int64_t j = 0; j < n; j++) top = fmaxf(top, p[j] = score(h, q, k + (j0 + j) * h->d));
        const float rescale = expf(m - top);
        l *= rescale, m = top;
        for (int64_t j = 0; j < n; j++) {
            const float exact = expf(p[j] - m);
            p[j] = h->rounds_p ? (float)dtype_round(h->half, (double)exact) : exact;
            l += h->p_in_l ? p[j] : exact;
        }
        for (int64_t d = 0; d < h->d; d++) a.o[d] = add_tile(h, a.o[d] * rescale, p, v + j0 * h->d + d, n);
    }
    for (int64_t d = 0; d < h->d; d++) a.o[d] /= l;
    a.lse = m + logf(l);
    return a;
}

static void attend_all(const struct habits *h, const float *q, const float *k, const float *v,
                       struct piece *piece, float *out) {
    int64_t n = 0;
    float top = -INFINITY, sum = 0;
    for (int64_t first = 0; first < h->n; first += h->slice, n++) {
        const int64_t end = first + h->slice < h->n ? first + h->slice : h->n;
        piece[n] = attend(h, q, k, v, first, end);
        top = fmaxf(top, piece[n].lse);
    }
    for (int64_t i = 0; i < n && n > 1 && h->rounds_pieces; i++)
        for (int64_t d = 0; d < h->d; d++) piece[i].o[d] = (float)dtype_round(h->half, (double)piece[i].o[d]);
    for (int64_t d = 0; d < h->d; d++) out[d] = n == 1 ? piece[0].o[d] : 0;
    for (int64_t i = 0; i < n && n > 1; i++) {
        const float weight = expf(piece[i].lse - top);
        sum += weight;
        for (int64_t d = 0; d < h->d; d++) out[d] = fmaf(weight, piece[i].o[d], out[d]);
    }
    for (int64_t d = 0; d < h->d && n > 1; d++) out[d] /= sum;
}

static struct habits draw_habits(struct trial *t, enum dtype d) {
    struct habits h = {.d = trial_size(t, MAX_DIM)};
    h.n = trial_size(t, h.d < 16 ? 6000 : 1500);
    h.half = d;
    h.rounds_p = d != DTYPE_F32 && trial_flip(t);
    h.tensor_core = h.rounds_p && trial_flip(t);
    h.p_in_l = h.rounds_p && trial_flip(t);
    h.prescaled = d == DTYPE_BF16 && !trial_draw(t, 0, 3);
    h.tile = h.tensor_core ? 16 * trial_draw(t, 1, MAX_TILE / 16) : trial_size(t, MAX_TILE);
    h.slice = trial_flip(t) ? h.n : (h.n + trial_draw(t, 1, 40)) / trial_draw(t, 1, 40) + 1;
    if (h.tensor_core) h.slice = (h.slice + 15) / 16 * 16;
    h.backwards = trial_flip(t);
    h.qk = adding_draw(t, d != DTYPE_F32);
    h.pv = (struct adding){.fma = trial_flip(t)};
    if (h.tensor_core) h.pv.order = TENSOR_CORE;
    h.scale = (float)trial_real(t, 0.01, 1);
    h.rounds_pieces = d != DTYPE_F32 && trial_flip(t);
    return h;
}

static struct contract declare(const struct habits *h, struct trial *t) {
    struct contract c = contract_exact(OP_ATTENTION);
    const int64_t slices = (h->n + h->slice - 1) / h->slice;
    c.u.attention.qk = adding_accumulator(&h->qk);
    c.u.attention.pv = adding_accumulator(&h->pv);
    c.u.attention.q_unit = h->prescaled ? UNIT_BF16 : 0;
    c.u.attention.p_unit = h->rounds_p ? dtype_unit(h->half) : 0;
    c.u.attention.p_in_l = h->p_in_l;
    c.u.attention.p_in_order = !h->backwards;
    c.u.attention.block = h->tile;
    if (slices < 2) return c;
    c.u.attention.splits = (int)slices;
    c.u.attention.slice = trial_flip(t) ? h->slice : 0; /* known, or not */
    c.u.attention.merges = trial_flip(t);
    if (h->rounds_pieces) c.u.attention.piece = h->half;
    return c;
}

void emulate_attention(struct trial *t) {
    const enum dtype d = trial_dtype(t);
    const struct habits h = draw_habits(t, d);
    const struct contract contract = declare(&h, t);
    const int64_t rows = 1 + 20000 / (h.n * h.d), keys = t->dishonest ? h.n - 1 : h.n;
    const double offset = trial_draw(t, 0, 2) ? 0 : 8;
    float *const q = trial_values(t, rows * h.d, d, trial_real(t, 0, 8)),
                 *const k = trial_values(t, h.n * h.d, d, 1), *const v = trial_values(t, h.n * h.d, d, 1),
                 *const got = trial_array(t, rows * h.d, sizeof *got);
    struct piece *const piece = trial_array(t, h.n / h.slice + 1, sizeof *piece);
    int32_t page = 0, start[2] = {0, (int32_t)rows}, length = (int32_t)h.n;
    const struct view cache = {k, DTYPE_F32, {h.n * h.d, h.d, h.d}, 0, h.n * h.d};
    struct call c = {.op = OP_ATTENTION};
    c.u.attention = (struct attention_args){.q = {q, DTYPE_F32, {h.d, h.d}, 0, rows * h.d},
                                            .k_cache = cache,
                                            .v_cache = cache,
                                            .page_table = {&page, DTYPE_I32, {1}, 0, 1},
                                            .query_start = {start, DTYPE_I32, {1}, 0, 2},
                                            .kv_len = {&length, DTYPE_I32, {1}, 0, 1},
                                            .n_tokens = rows,
                                            .n_seqs = 1,
                                            .n_heads = 1,
                                            .n_kv_heads = 1,
                                            .head_dim = h.d,
                                            .page_size = h.n,
                                            .n_pages = 1,
                                            .max_queries = rows,
                                            .max_kv = h.n,
                                            .scale = (double)h.scale};
    c.u.attention.v_cache.data = v;
    for (int64_t i = 0; i < h.n * h.d; i++) v[i] = (float)dtype_round(d, (double)v[i] + offset);
    snprintf(t->made_of, sizeof t->made_of,
             "%lld keys of %lld in tiles of %lld%s, slices of %lld%s, q.k %s%s%s%s%s", (long long)h.n,
             (long long)h.d, (long long)h.tile, h.backwards ? " backwards" : "", (long long)h.slice,
             h.rounds_pieces ? " in 16 bits" : "", adding_name(&h.qk), h.prescaled ? ", bf16 scale q" : "",
             h.rounds_p ? h.half == DTYPE_F16 ? ", fp16 P" : ", bf16 P" : "", h.p_in_l ? " in l" : "",
             h.tensor_core ? ", tensor core" : "");
    struct habits made = h;
    made.n = keys;
    for (int64_t r = 0; r < rows; r++) attend_all(&made, q + r * h.d, k, v, piece, got + r * h.d);
    trial_judge(t, &c, &contract, got, 0);
}
