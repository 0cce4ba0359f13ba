/* score_problem - an attention call, an emulated kernel in fp32 with the mistakes that one asks for,
 * and what the statistical test says of it. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SCORE_PROBLEM_H
#define TESTS_SCORE_PROBLEM_H

#include "reference/score.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- emulated attention: one sequence, keys in order, the last token sees all of them ---- */

enum rounding { NEAREST, TRUNCATED };
struct honest {
    int tile, splits;
    enum dtype p_type; /* DTYPE_F32: P is not rounded */
    bool tensor;       /* 16 products enter a sum at once, which is truncated: a tensor core */
};
struct mistake {
    double gain, scale, offset; /* 1 + gain */
    double bias;                /* added to the scores of keys 64 to 127 of kv head 0 */
    int64_t dropped;            /* a key of kv head 0; -1: none */
    bool last_dropped;          /* everybody's own key */
    enum rounding p, out;
};
static const struct mistake none = {.dropped = -1};

struct problem {
    int64_t tokens, heads, kv_heads, dim, keys;
    bool causal;
    enum dtype storage;
    double *q, *k, *v; /* [tokens, heads, dim], [keys, kv_heads, dim] */
    int32_t page, start[2], length;
    struct call call;
    double *y, *e;
    void *stored;
};

static inline double cut(enum rounding r, enum dtype d, double x) {
    const double near = dtype_round(d, x);
    if (r == NEAREST || d == DTYPE_F32 || fabs(near) <= fabs(x)) return near;
    float f = (float)near; /* bf16: one step towards 0 */
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits -= 0x10000u;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static inline float toward_zero(double x) {
    const float near = (float)x;
    return fabs((double)near) > fabs(x) ? nextafterf(near, 0) : near;
}

/* sum + x.y with products [k] at x[k], y[k * stride]. */
static inline float add_products(float sum, const double *x, const double *y, int64_t stride, int64_t n,
                                 bool tensor) {
    for (int64_t k = 0; k < n; k += 16) {
        double block = (double)sum;
        for (int64_t i = k; i < n && i < k + 16; i++)
            if (tensor)
                block += x[i] * y[i * stride];
            else
                sum = fmaf((float)x[i], (float)y[i * stride], sum);
        if (tensor) sum = toward_zero(block);
    }
    return sum;
}

/* One row in fp32: slices of tiles, an online softmax in each, merged at the end. */
static inline void attend(const struct problem *p, const struct honest *by, const struct mistake *m,
                          int64_t token, int64_t head, double *out) {
    const int64_t D = p->dim, g = head / (p->heads / p->kv_heads);
    const int64_t seen = p->causal ? p->keys - p->tokens + token + 1 : p->keys;
    const double *const q = p->q + (token * p->heads + head) * D;
    const float scale = (float)(p->call.u.attention.scale * (1 + m->scale));
    const int64_t slice = (seen + by->splits - 1) / by->splits;
    float *const sum = calloc((size_t)D, sizeof *sum), *const part = calloc((size_t)D, sizeof *part);
    double *const weight = calloc((size_t)by->tile, sizeof *weight);
    float *const score = calloc((size_t)by->tile, sizeof *score), top = -INFINITY, total = 0;
    for (int64_t s0 = 0; s0 < seen; s0 += slice) {
        const int64_t s1 = s0 + slice < seen ? s0 + slice : seen;
        float high = -INFINITY, l = 0;
        for (int64_t d = 0; d < D; d++) part[d] = 0;
        for (int64_t j0 = s0; j0 < s1; j0 += by->tile) {
            const int64_t n = j0 + by->tile < s1 ? by->tile : s1 - j0;
            float next = high;
            for (int64_t j = 0; j < n; j++) {
                const float dot =
                    add_products(0, q, p->k + ((j0 + j) * p->kv_heads + g) * D, 1, D, by->tensor);
                const bool gone = (g == 0 && j0 + j == m->dropped) || (m->last_dropped && j0 + j == seen - 1);
                const bool biased = g == 0 && (j0 + j) / 64 == 1;
                score[j] = gone ? -INFINITY : dot * scale + (biased ? (float)m->bias : 0);
                next = fmaxf(next, score[j]);
            }
            if (next == -INFINITY) continue;
            const float again = high == -INFINITY ? 0 : expf(high - next);
            l *= again, high = next;
            for (int64_t j = 0; j < n; j++) {
                const float w = expf(score[j] - high);
                l += w;
                weight[j] = cut(m->p, by->p_type, (double)w);
            }
            for (int64_t d = 0; d < D; d++)
                part[d] = add_products(part[d] * again, weight, p->v + (j0 * p->kv_heads + g) * D + d,
                                       p->kv_heads * D, n, by->tensor);
        }
        if (high == -INFINITY) continue;
        const float lse = high + logf(l), least = fmaxf(top, lse);
        const float old = top == -INFINITY ? 0 : expf(top - least), new = expf(lse - least);
        total = total * old + new;
        for (int64_t d = 0; d < D; d++) sum[d] = sum[d] * old + part[d] / l * new;
        top = least;
    }
    for (int64_t d = 0; d < D; d++)
        out[d] = (double)sum[d] / (double)total * (1 + m->gain) + (double)(float)m->offset;
    free(sum), free(part), free(score), free(weight);
}

static inline double uniform(void) { return (drand48() * 2 - 1) * 1.7320508; }

static inline void problem_make(struct problem *p, double (*draw)(void)) {
    const size_t n_q = (size_t)(p->tokens * p->heads * p->dim),
                 n_k = (size_t)(p->keys * p->kv_heads * p->dim);
    p->q = calloc(n_q, 8), p->k = calloc(n_k, 8), p->v = calloc(n_k, 8);
    p->y = calloc(n_q, 8), p->e = calloc(n_q, 8), p->stored = calloc(n_q, 8);
    for (size_t i = 0; i < n_q; i++) p->q[i] = dtype_round(DTYPE_BF16, draw());
    for (size_t i = 0; i < n_k; i++) p->k[i] = dtype_round(DTYPE_BF16, draw());
    for (size_t i = 0; i < n_k; i++) p->v[i] = dtype_round(DTYPE_BF16, draw());
    p->start[1] = (int32_t)p->tokens, p->length = (int32_t)p->keys;
    const struct view cache = {
        p->k, DTYPE_F64, {(int64_t)n_k, p->kv_heads * p->dim, p->dim}, 0, (int64_t)n_k};
    p->call = (struct call){.op = OP_ATTENTION};
    p->call.u.attention =
        (struct attention_args){.q = {p->q, DTYPE_F64, {p->heads * p->dim, p->dim}, 0, (int64_t)n_q},
                                .k_cache = cache,
                                .v_cache = cache,
                                .page_table = {&p->page, DTYPE_I32, {1}, 0, 1},
                                .query_start = {p->start, DTYPE_I32, {1}, 0, 2},
                                .kv_len = {&p->length, DTYPE_I32, {1}, 0, 1},
                                .n_tokens = p->tokens,
                                .n_seqs = 1,
                                .n_heads = p->heads,
                                .n_kv_heads = p->kv_heads,
                                .head_dim = p->dim,
                                .page_size = p->keys,
                                .n_pages = 1,
                                .max_queries = p->tokens,
                                .max_kv = p->keys,
                                .scale = 1 / sqrt((double)p->dim),
                                .causal = p->causal};
    p->call.u.attention.v_cache.data = p->v;
}

static inline void problem_free(struct problem *p) {
    free(p->q), free(p->k), free(p->v), free(p->y), free(p->e), free(p->stored);
}

static inline struct contract contract_of(const struct problem *p, const struct honest *by) {
    struct contract c = contract_exact(OP_ATTENTION);
    c.u.attention.block = by->tile;
    c.u.attention.splits = by->splits;
    c.u.attention.l_depth = p->keys + by->splits;
    if (by->tensor)
        c.u.attention.qk = c.u.attention.pv = (struct accumulator){.block = 16, .fraction = 25, .keep = 24};
    c.u.attention.p_unit = by->p_type == DTYPE_BF16 ? UNIT_BF16 : 0;
    return c;
}

/* Runs the kernel and the test; *outside: elements that level D rejects. */
static inline struct score_report examine(struct problem *p, const struct honest *by, const struct mistake *m,
                                          int64_t *outside) {
    const struct contract contract = contract_of(p, by);
    const int64_t rows = p->tokens * p->heads;
    struct ref_out out[MAX_REF_OUT] = {{p->y, p->e, NULL}};
    ref_compute(&p->call, &contract, NULL, 0, p->tokens, out);
#pragma omp parallel for schedule(dynamic)
    for (int64_t r = 0; r < rows; r++) {
        double o[256];
        attend(p, by, m, r / p->heads, r % p->heads, o);
        for (int64_t d = 0; d < p->dim; d++)
            dtype_store(p->stored, p->storage, r * p->dim + d, cut(m->out, p->storage, o[d]));
    }
    *outside = 0;
    for (int64_t i = 0; i < rows * p->dim; i++)
        *outside += element_judge(p->storage, dtype_load(p->stored, p->storage, i), p->y[i], p->e[i]).kind !=
                    ELEMENT_OK;
    const struct score_case c = {.call = &p->call,
                                 .contract = &contract,
                                 .dtype = p->storage,
                                 .stored = p->stored,
                                 .y = p->y,
                                 .e = p->e};
    struct score_report report;
    ref_score(&c, &report);
    return report;
}

static inline void show(const char *what, const struct score_report *r, int64_t outside) {
    fprintf(stderr,
            "%-28s gain %+.1e (%.1e), scale %+.1e (%.1e), worst %.2f %s %+.2e (%.1e) head %lld keys %lld key "
            "%lld; %lld tests, outside %lld%s\n",
            what, r->gain.estimate, r->gain.resolution, r->scale.estimate, r->scale.resolution,
            r->worst.ratio, score_direction_name(r->worst.direction), r->worst.estimate, r->worst.resolution,
            (long long)r->worst.head, (long long)r->worst.keys, (long long)r->worst.key, (long long)r->tests,
            (long long)outside, score_silence_reason(r->gain.silence));
}

static inline struct problem grid_problem(void) {
    return (struct problem){.tokens = 33,
                            .heads = 32,
                            .kv_heads = 8,
                            .dim = 64,
                            .keys = 33,
                            .causal = true,
                            .storage = DTYPE_BF16};
}

#endif
