/* Which tensors are the answers about, and what has each op of its own around them? */
/* SPDX-License-Identifier: MIT */
#include "harness/answer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/summer.h"

#define BEAT_WORK 4e9 /* multiply-adds of the reference between two beats */
/* The same where a summer adds up: each piece of a call costs a way there, and pinned room for its
 * sums, which is slow to come by. */
#define SUMMER_WORK 3.2e10
#define SUMMER_ELEMENTS 2e7

/* ---- the ops' own ---- */

static double linear_work(const struct call *call) {
    return (double)ref_row_size(call, 0) * (double)call->u.linear.n_inner;
}
static double gated_linear_work(const struct call *call) {
    return 2 * (double)ref_row_size(call, 0) * (double)call->u.gated_linear.n_inner;
}
static double attention_work(const struct call *call) {
    return (double)ref_row_size(call, 0) * (double)call->u.attention.max_kv;
}

static void choose_experts(const struct call *call) {
    ref_route_ids(call, 0, call->u.route.n_tokens, call->u.route.ids.data);
}
static void choose_rows(const struct call *call) {
    const struct permute_args *const a = &call->u.permute;
    ref_permute(call, a->offsets.data, a->row_slot.data, a->slot_row.data);
}

/* kv_write: the token rows that the call moved, in and out of the paged cache. */
struct cache_rows {
    enum tensor_id cache;
    int64_t row; /* elements */
};
static struct cache_rows cache_rows(const struct placed *at, int i) {
    const struct layer_spec local = placed_local(at);
    return (struct cache_rows){placed_row(at)->out[i], local.n_kv_heads * local.head_dim};
}
static void gather_rows(const struct placed *at, const struct store *got, int i, void *dst) {
    const struct cache_rows c = cache_rows(at, i);
    const struct stored *const cache = &got->of[c.cache];
    const size_t bytes = (size_t)c.row * dtype_bytes(cache->dtype);
    for (int64_t t = 0; t < at->crew->batch->n_tokens; t++)
        memcpy((char *)dst + (size_t)t * bytes,
               (const char *)cache->memory.data + (size_t)at->crew->batch->slots[t] * bytes, bytes);
}
static void scatter_rows(const struct placed *at, struct store *got, int i, const double *rows) {
    const struct cache_rows c = cache_rows(at, i);
    const struct stored *const cache = &got->of[c.cache];
    for (int64_t t = 0; t < at->crew->batch->n_tokens; t++)
        for (int64_t n = 0; n < c.row; n++)
            dtype_store(cache->memory.data, cache->dtype, at->crew->batch->slots[t] * c.row + n,
                        rows[t * c.row + n]);
}

const struct op_row op_table[OP_COUNT] = {
    [OP_LINEAR] = {.row_work = linear_work},
    [OP_SPLIT] = {.by_world = true},
    [OP_KV_WRITE] = {.answers_inputs = true, .collect = gather_rows, .spread = scatter_rows},
    [OP_ATTENTION] = {.row_work = attention_work},
    [OP_ROUTE] = {.first = 1, .choose = choose_experts},
    [OP_PERMUTE] = {.first = 3, .choose = choose_rows},
    [OP_GATED_LINEAR] = {.row_work = gated_linear_work},
    [OP_SUM] = {.by_world = true},
};

enum tensor_id answer_tensor(int stage, int i) {
    const struct stage_row *const row = &stage_table[stage];
    const struct op_row *const op = &op_table[row->op];
    return op->answers_inputs ? row->in[i] : row->out[op->first + i];
}

const void *answer_stored(const struct placed *at, const struct store *got, const struct answer *a, int i,
                          void **owned) {
    *owned = NULL;
    if (!placed_op(at)->collect) return got->of[a->id[i]].memory.data;
    *owned = memory_zeroed((size_t)a->count[i], dtype_bytes(placed_dtype(at, a->id[i])));
    placed_op(at)->collect(at, got, i, *owned);
    return *owned;
}

void answer_put(const struct placed *at, struct store *got, const struct answer *a, int i,
                const double *values) {
    const struct stored *const s = &got->of[a->id[i]];
    if (placed_op(at)->spread)
        placed_op(at)->spread(at, got, i, values);
    else
        for (int64_t n = 0; n < a->count[i]; n++) dtype_store(s->memory.data, s->dtype, n, values[n]);
}

/* ---- answers ---- */

static const double *const *radii_of(const struct outcome *o) { return o->fuzzy ? o->radius : NULL; }

double call_row_work(const struct call *call) {
    double work = 0;
    for (int i = 0; i < ref_n_outputs(call->op); i++) work += (double)ref_row_size(call, i);
    return op_table[call->op].row_work ? op_table[call->op].row_work(call) : work;
}

double call_work(const struct call *call) { return call_row_work(call) * (double)ref_n_rows(call); }

/* As many rows at once as take about a second: the time from one beat to the next. */
static void compute_rows(const struct answer *a, const struct outcome *o, int64_t rows, struct watch *watch) {
    const double work = call_row_work(&o->call), elements = (double)(a->n ? a->row_size[0] : 1);
    const double fit = ref_summer() ? fmin(SUMMER_WORK / work, SUMMER_ELEMENTS / elements) : BEAT_WORK / work;
    const int64_t step = fit < 1 ? 1 : fit < (double)rows ? (int64_t)fit : rows;
    for (int64_t row = 0; row < rows; row += step) {
        struct ref_out out[MAX_REF_OUT] = {0};
        for (int i = 0; i < a->n; i++) {
            const int64_t at = row * a->row_size[i];
            out[i] = (struct ref_out){a->y[i] + at, a->e[i] + at, a->s1[i] ? a->s1[i] + at : NULL};
        }
        ref_compute(&o->call, &o->contract, radii_of(o), row, row + step < rows ? row + step : rows, out);
        watch_beat(watch);
    }
}

void answer_begin(struct answer *a, int stage, const struct outcome *o) {
    const int64_t rows = ref_n_rows(&o->call);
    *a = (struct answer){.n = ref_n_outputs(o->call.op)};
    for (int i = 0; i < a->n; i++) {
        a->id[i] = answer_tensor(stage, i);
        a->row_size[i] = ref_row_size(&o->call, i);
        a->count[i] = rows * a->row_size[i];
        a->y[i] = block_new((size_t)a->count[i], sizeof(double));
        a->e[i] = block_new((size_t)a->count[i], sizeof(double));
    }
}

void answer_sizes(struct answer *a) {
    for (int i = 0; i < a->n; i++)
        if (tensor_table[a->id[i]].role == ROLE_PARTIAL)
            a->s1[i] = block_new((size_t)a->count[i], sizeof(double));
}

void answer_fill(struct answer *a, const struct outcome *o, struct watch *watch) {
    compute_rows(a, o, ref_n_rows(&o->call), watch);
}

void answer_compute(struct answer *a, int stage, const struct outcome *o, struct watch *watch) {
    answer_begin(a, stage, o);
    answer_fill(a, o, watch);
}

void answer_free(struct answer *a) {
    for (int i = 0; i < a->n && !a->borrowed; i++) {
        block_free(a->y[i]);
        block_free(a->e[i]);
        block_free(a->s1[i]);
    }
    *a = (struct answer){0};
}

double *answer_exact(const struct placed *at, const struct outcome *o, const struct store *exact) {
    const struct stage_row *const row = placed_row(at);
    struct operands operands = o->operands;
    bool any = false;
    for (int i = 0; row->in[i] != T_NONE && row->op != OP_SUM; i++) {
        if (tensor_table[row->in[i]].role != ROLE_PARTIAL) continue;
        operands.in[i] =
            view_dense(&at->crew->plan, row->in[i], at->rank, exact->of[row->in[i]].memory.data, DTYPE_F64);
        any = true;
    }
    if (!any) return NULL;
    struct call call;
    struct ref_out out[MAX_REF_OUT] = {0};
    placed_bind(at, NULL, &operands, &call);
    const int64_t rows = ref_n_rows(&call);
    out[0].y = block_zeroed((size_t)(rows * ref_row_size(&call, 0)), sizeof(double));
    ref_compute(&call, &o->contract, NULL, 0, rows, out);
    return out[0].y;
}
