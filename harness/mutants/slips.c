/* Slips of arithmetic and of an index that nobody reports, because they are found at once or never:
 * what a kernel under development gets wrong, named when it does. */
/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "harness/mistake.h"
#include "harness/mutants/mutants.h"
#include "reference/plain.h"

/* ---- norm, rope, cache ---- */

static bool add_one(struct mistake *m) {
    struct norm_args *const a = &m->call.u.norm;
    if (m->call.op != OP_NORM || !mistake_copy(m, &a->w, a->width)) return false;
    for (int64_t c = 0; c < a->width; c++)
        dtype_store(a->w.data, a->w.dtype, c, 1 + dtype_load(a->w.data, a->w.dtype, c));
    return true;
}

static bool in_wide_norm(struct mistake *m) { return m->call.op == OP_NORM && m->call.u.norm.width > 1; }

/* sqrt(mean + eps) becomes sqrt(sum + eps). */
static void divide_by_sum(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct norm_args *const a = &m->call.u.norm;
    for (int64_t t = row0; t < row1; t++) {
        double sum = 0;
        for (int64_t c = 0; c < a->width; c++) {
            const double x = dtype_load(a->x.data, a->x.dtype, t * a->x.stride[0] + c);
            sum += x * x;
        }
        const double factor = sqrt((sum / (double)a->width + a->eps) / (sum + a->eps));
        for (int64_t c = 0; c < a->width; c++) out->y[(t - row0) * a->width + c] *= factor;
    }
}

/* Every sequence's first new token has position 0. */
static bool restart_positions(struct mistake *m) {
    const struct batch *const b = m->at->crew->batch;
    struct view *const positions = &m->call.u.rope.positions;
    bool changed = false;
    if (m->call.op != OP_ROPE || !mistake_copy(m, positions, b->n_tokens)) return false;
    int32_t *const p = positions->data;
    for (int64_t s = 0; s < b->n_seqs; s++) {
        const int32_t cached = b->kv_len[s] - (b->query_start[s + 1] - b->query_start[s]);
        changed |= cached > 0;
        for (int64_t t = b->query_start[s]; t < b->query_start[s + 1]; t++) p[t] -= cached;
    }
    return changed;
}

static bool swap_keys_and_values(struct mistake *m) {
    struct kv_write_args *const a = &m->call.u.kv_write;
    if (m->call.op != OP_KV_WRITE) return false;
    const struct view k = a->k;
    a->k = a->v;
    a->v = k;
    return true;
}

/* ---- attention ---- */

static struct attention_args *attention_of(struct mistake *m) {
    return m->call.op == OP_ATTENTION ? &m->call.u.attention : NULL;
}

static bool see_all(struct mistake *m) {
    struct attention_args *const a = attention_of(m);
    if (!a || !a->causal || a->max_queries == 1) return false;
    a->causal = false;
    return true;
}

static bool pages_of_sequence_0(struct mistake *m) {
    struct attention_args *const a = attention_of(m);
    if (!a || a->n_seqs == 1) return false;
    a->page_table.stride[0] = 0;
    return true;
}

/* 2^x for e^x. */
static bool exponent_base_2(struct mistake *m) {
    struct attention_args *const a = attention_of(m);
    if (a) a->scale *= log(2);
    return a;
}

static bool scale_squared(struct mistake *m) {
    struct attention_args *const a = attention_of(m);
    if (a) a->scale *= a->scale;
    return a;
}

static bool values_of_keys(struct mistake *m) {
    struct attention_args *const a = attention_of(m);
    if (a) a->v_cache = a->k_cache;
    return a;
}

/* ---- products ---- */

static bool lose_inner_tail(struct mistake *m) {
    enum { STEP = 32 };
    struct linear_args *const a = &m->call.u.linear;
    if (m->call.op != OP_LINEAR || a->n_inner % STEP == 0 || a->n_inner < STEP) return false;
    a->n_inner -= a->n_inner % STEP;
    return true;
}

static bool lose_bias(struct mistake *m) {
    struct linear_args *const a = &m->call.u.linear;
    if (m->call.op != OP_LINEAR || !a->bias.data) return false;
    a->bias = (struct view){0};
    return true;
}

static bool at_activation(struct mistake *m) { return m->call.op == OP_ACTIVATION; }

static void activate_gelu(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct activation_args *const a = &m->call.u.activation;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t c = 0; c < a->width; c++) {
            const int64_t at = r * a->gate_up.stride[0] + c;
            const double gate = dtype_load(a->gate_up.data, a->gate_up.dtype, at),
                         up = dtype_load(a->gate_up.data, a->gate_up.dtype, at + a->gate_up.stride[1]);
            out->y[(r - row0) * a->width + c] = gate * (1 + erf(gate / sqrt(2))) / 2 * up;
        }
}

/* ---- experts ---- */

static bool select_without_bias(struct mistake *m) {
    if (m->call.op != OP_ROUTE || !m->call.u.route.bias.data) return false;
    m->call.u.route.bias = (struct view){0};
    return true;
}

static bool other_score(struct mistake *m) {
    struct route_args *const a = &m->call.u.route;
    if (m->call.op != OP_ROUTE) return false;
    a->score = a->score == SCORE_SOFTMAX ? SCORE_SIGMOID : SCORE_SOFTMAX;
    return true;
}
static void as_the_call_says(const struct mistake *m) { (void)m; }

static bool lose_last_choice(struct mistake *m) {
    struct combine_args *const a = &m->call.u.combine;
    const int64_t n = a->n_tokens * a->top_k;
    if (m->call.op != OP_COMBINE || a->top_k == 1 || !mistake_copy(m, &a->slot_row, n)) return false;
    for (int64_t t = 1; t <= a->n_tokens; t++) dtype_store(a->slot_row.data, DTYPE_I32, t * a->top_k - 1, -1);
    return true;
}

static bool several_choices(struct mistake *m) {
    return m->call.op == OP_PERMUTE && m->call.u.permute.top_k > 1;
}

/* The slot, not slot / K, is taken for the token; there is nothing behind the last one. */
static void rows_of_slots(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct permute_args *const a = &m->call.u.permute;
    const int32_t *const slot = a->row_slot.data;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t c = 0; c < a->width; c++)
            out->y[(r - row0) * a->width + c] =
                slot[r] < a->n_tokens ? dtype_load(a->x.data, a->x.dtype, slot[r] * a->x.stride[0] + c)
                                      : (double)NAN;
}

/* ---- of the layer ---- */

static void see_all_in_plain(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->causal = false;
}
static void plain_of_base_2(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->attn_scale *= log(2);
}
static void square_plain_scale(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->attn_scale *= spec->attn_scale;
}
static void lose_plain_bias(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->qkv_bias = spec->o_bias = false;
}
static void select_plain_without_bias(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->select_bias = false;
}
static void score_plain_otherwise(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->score = spec->score == SCORE_SOFTMAX ? SCORE_SIGMOID : SCORE_SOFTMAX;
}

/* ---- sums ---- */

static bool lose_last_rank(const struct placed *at, struct view *parts, int64_t *n_parts) {
    (void)parts;
    if (at->crew->plan.tp < 2) return false;
    *n_parts -= *n_parts / at->crew->plan.tp;
    return true;
}

static bool several_ranks(struct mistake *m) { return m->call.op == OP_SUM && mistake_plan(m)->tp > 1; }

static void average(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    for (int64_t i = 0; i < (row1 - row0) * m->call.u.sum.width; i++)
        out->y[i] /= (double)mistake_plan(m)->tp;
}

static bool lose_residual(struct mistake *m) {
    struct residual_args *const a = &m->call.u.residual;
    const int64_t n = a->n_tokens * a->width;
    if (m->call.op != OP_RESIDUAL || !mistake_copy(m, &a->x, n)) return false;
    for (int64_t i = 0; i < n; i++) dtype_store(a->x.data, a->x.dtype, i, 0);
    return true;
}

/* ---- the table ---- */

#define IN_ATTENTION .source = A_SLIP, .edge = EDGE_KERNEL, .part = PART_ATTENTION, .unsharded = true
#define IN_FFN .source = A_SLIP, .edge = EDGE_KERNEL, .part = PART_FFN, .unsharded = true
#define OF_SUM .source = A_SLIP, .edge = EDGE_SHARD, .part = PART_ATTENTION
const struct mutant mutants_of_slips[] = {
    {.name = "norm-weight-plus-1",
     .describes = "rows are multiplied by 1 + w",
     IN_ATTENTION,
     .hooks.inside = add_one,
     .exposes = "tiny/attention:tp=1,tokens=5"},
    {.name = "norm-by-sum",
     .describes = "rows are divided by the root of the sum of the squares, not of their mean",
     IN_ATTENTION,
     .hooks.inside = in_wide_norm,
     .hooks.stores = divide_by_sum,
     .exposes = "tiny/attention:tp=1,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=5,hidden=1"},
    {.name = "positions-restart",
     .describes = "the first new token has position 0, whatever is cached",
     IN_ATTENTION,
     .hooks.inside = restart_positions,
     .exposes = "tiny/attention:tp=1,phase=chunked,tokens=3,cached=20",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "keys-are-values",
     .describes = "keys are cached as values and values as keys",
     IN_ATTENTION,
     .hooks.inside = swap_keys_and_values,
     .exposes = "tiny/attention:tp=1,tokens=5"},
    {.name = "causal-dropped",
     .describes = "a query sees the keys behind it",
     IN_ATTENTION,
     .hooks.inside = see_all,
     .hooks.plain = see_all_in_plain,
     .exposes = "tiny/attention:tp=1,tokens=5",
     .clean = "tiny/attention:tp=1,phase=decode,tokens=3,cached=9"},
    {.name = "pages-of-sequence-0",
     .describes = "the pages of the first sequence serve all",
     IN_ATTENTION,
     .hooks.inside = pages_of_sequence_0,
     .exposes = "tiny/attention:tp=1,tokens=5,seqs=3",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "exp-base-2",
     .describes = "the weights are powers of 2, not of e",
     IN_ATTENTION,
     .hooks.inside = exponent_base_2,
     .hooks.plain = plain_of_base_2,
     .exposes = "tiny/attention:tp=1,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=1"},
    {.name = "scale-twice",
     .describes = "q.k is multiplied by the scale twice",
     IN_ATTENTION,
     .hooks.inside = scale_squared,
     .hooks.plain = square_plain_scale,
     .exposes = "tiny/attention:tp=1,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=1"},
    {.name = "values-of-keys",
     .describes = "the keys are added up, not the values",
     IN_ATTENTION,
     .hooks.inside = values_of_keys,
     .exposes = "tiny/attention:tp=1,tokens=5"},
    {.name = "inner-tail-lost",
     .describes = "terms of a product behind the last whole step of 32 are left out",
     IN_ATTENTION,
     .hooks.inside = lose_inner_tail,
     .exposes = "tiny/attention:tp=1,tokens=5,hidden=72",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "bias-lost",
     .describes = "the bias of a projection is left out",
     IN_ATTENTION,
     .hooks.inside = lose_bias,
     .hooks.plain = lose_plain_bias,
     .exposes = "tiny/attention:tp=1,tokens=5,bias=qkv",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "gelu-for-silu",
     .describes = "the gate goes through gelu",
     IN_FFN,
     .hooks.inside = at_activation,
     .hooks.stores = activate_gelu,
     .exposes = "tiny/ffn:tp=1,tokens=9"},
    {.name = "selection-without-bias",
     .describes = "experts are chosen by their scores alone",
     IN_FFN,
     .hooks.inside = select_without_bias,
     .hooks.chooses = as_the_call_says,
     .hooks.plain = select_plain_without_bias,
     .exposes = "tiny/ffn:tp=1",
     .clean = "tiny/ffn:tp=1,select_bias=off"},
    {.name = "other-score",
     .describes = "softmax is taken for sigmoid, or sigmoid for softmax",
     IN_FFN,
     .hooks.inside = other_score,
     .hooks.chooses = as_the_call_says,
     .hooks.plain = score_plain_otherwise,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,top=1,select_bias=off"},
    {.name = "last-choice-lost",
     .describes = "a token's last expert is not added up",
     IN_FFN,
     .hooks.inside = lose_last_choice,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,top=1"},
    {.name = "rows-of-slots",
     .describes = "the number of a slot is taken for that of its token",
     IN_FFN,
     .hooks.inside = several_choices,
     .hooks.stores = rows_of_slots,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,top=1"},
    {.name = "last-rank-lost",
     .describes = "what the last rank brings to the sum is left out",
     OF_SUM,
     .hooks.sum = lose_last_rank,
     .exposes = "tiny/attention:tp=4,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "sum-averaged",
     .describes = "the sum is divided by the number of ranks",
     OF_SUM,
     .hooks.inside = several_ranks,
     .hooks.stores = average,
     .exposes = "tiny/attention:tp=2,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=5"},
    {.name = "residual-lost",
     .describes = "the residual is not added",
     IN_ATTENTION,
     .hooks.inside = lose_residual,
     .exposes = "tiny/attention:tp=1,tokens=5"},
    {0},
};
