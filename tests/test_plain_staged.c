/* Do the plain layer and the staged reference, composed op by op as the harness does it (fused q,
 * k, v; a
 * paged cache; sorted experts), say the same?  And would a mistake of one of them be seen? */
/* SPDX-License-Identifier: MIT */
#include "reference/plain.h"
#include "reference/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { T = 9, CACHED = 14, SEQS = 4, PAGE = 4, PAGES = 12, MAX_PAGES = 3, POSITIONS = 10 };
static const struct plain_sequence sequences[SEQS] = {{3, 5}, {1, 9}, {0, 0}, {5, 0}};
static int32_t page_table[SEQS * MAX_PAGES] = {7, 2, -1, 11, 0, 5, -1, -1, -1, 3, 9, -1};
static int32_t query_start[SEQS + 1] = {0, 3, 4, 4, 9}, kv_len[SEQS] = {8, 10, 0, 5};
static int32_t position[T] = {5, 6, 7, 9, 0, 1, 2, 3, 4};

/* ---- the staged reference on one layer ---- */

static double *new_array(int64_t n) { return calloc((size_t)n + 1, sizeof(double)); }

static struct view f64(const double *p, int64_t s0, int64_t s1, int64_t s2) {
    return (struct view){(double *)p, DTYPE_F64, {s0, s1, s2}, 0, INT32_MAX};
}
static struct view i32(int32_t *p, int64_t s0) { return (struct view){p, DTYPE_I32, {s0}, 0, INT32_MAX}; }

static double *compute(const struct call *call, int output) {
    const struct contract contract = contract_hf64(call->op);
    omp_set_num_threads(1); /* rows are too few to wait for a team */
    struct ref_out out[MAX_REF_OUT] = {{NULL, NULL, NULL}};
    out[output].y = new_array(ref_n_rows(call) * ref_row_size(call, output));
    ref_compute(call, &contract, NULL, 0, ref_n_rows(call), out);
    return out[output].y;
}

static double *norm(const struct plain_layer *l) {
    const int64_t M = l->spec->hidden;
    struct call c = {.op = OP_NORM};
    c.u.norm = (struct norm_args){.x = f64(l->x, M, 0, 0),
                                  .w = f64(l->norm_w, 1, 0, 0),
                                  .n_tokens = T,
                                  .width = M,
                                  .eps = l->spec->norm_eps};
    return compute(&c, 0);
}

/* [rows, N] = x [rows, K] w^T + b; with offsets [groups + 1], w is [groups, N, K] */
static double *linear(const double *x, const double *w, const double *b, int64_t rows, int64_t N, int64_t K,
                      int32_t *offsets, int64_t groups) {
    struct call c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_args){.x = f64(x, K, 0, 0),
                                      .w = f64(w, N * K, K, 0),
                                      .n_rows = rows,
                                      .n_cols = N,
                                      .n_inner = K,
                                      .n_groups = groups};
    if (b) c.u.linear.bias = f64(b, 1, 0, 0);
    if (offsets) c.u.linear.offsets = i32(offsets, 1);
    return compute(&c, 0);
}

static double *residual(const struct plain_layer *l, const double *add) {
    const int64_t M = l->spec->hidden;
    struct call c = {.op = OP_RESIDUAL};
    c.u.residual =
        (struct residual_args){.x = f64(l->x, M, 0, 0), .add = f64(add, M, 0, 0), .n_tokens = T, .width = M};
    return compute(&c, 0);
}

/* Blocks of the arrays one after another, n times: [n, sizes added up] */
static double *joined(int64_t n, const double *const *part, const int64_t *size, int parts) {
    int64_t width = 0, at = 0;
    for (int p = 0; p < parts; p++) width += size[p];
    double *out = new_array(n * width);
    for (int64_t i = 0; i < n; i++)
        for (int p = 0; p < parts; at += size[p++])
            memcpy(out + at, part[p] + i * size[p], (size_t)size[p] * sizeof *out);
    return out;
}

/* The cached keys of every sequence in their pages, then the new ones; NaN elsewhere. */
static double *paged(const double *cached, const double *fresh, int64_t GD) {
    double *cache = new_array(PAGES * PAGE * GD);
    for (int64_t i = 0; i < PAGES * PAGE * GD; i++) cache[i] = NAN;
    for (int b = 0, c = 0, t = 0; b < SEQS; b++)
        for (int j = 0; j < kv_len[b]; j++) {
            const bool old = j < sequences[b].n_cached;
            const int at = page_table[b * MAX_PAGES + j / PAGE] * PAGE + j % PAGE;
            memcpy(cache + at * GD, old ? cached + c++ * GD : fresh + t++ * GD, (size_t)GD * sizeof *cache);
        }
    return cache;
}

static double *staged_attention(const struct plain_layer *l) {
    const struct layer_spec *s = l->spec;
    const int64_t M = s->hidden, H = s->n_heads, G = s->n_kv_heads, D = s->head_dim, W = (H + 2 * G) * D;
    const double *w[] = {l->w_q, l->w_k, l->w_v}, *b[] = {l->b_q, l->b_k, l->b_v};
    const double *w_qkv = joined(1, w, (int64_t[]){H * D * M, G * D * M, G * D * M}, 3);
    const double *b_qkv = joined(1, b, (int64_t[]){H * D, G * D, G * D}, 3);
    const double *qkv = linear(norm(l), w_qkv, s->qkv_bias ? b_qkv : NULL, T, W, M, NULL, 1);
    struct view q = f64(qkv, W, D, 0), k = f64(qkv + H * D, W, D, 0), v = f64(qkv + (H + G) * D, W, D, 0);

    struct call c = {.op = OP_QK_NORM};
    c.u.qk_norm = (struct qk_norm_args){.q = q,
                                        .k = k,
                                        .w_q = f64(l->q_norm_w, 1, 0, 0),
                                        .w_k = f64(l->k_norm_w, 1, 0, 0),
                                        .n_tokens = T,
                                        .n_heads = H,
                                        .n_kv_heads = G,
                                        .head_dim = D,
                                        .eps = s->norm_eps};
    if (s->qk_norm) q = f64(compute(&c, 0), H * D, D, 0), k = f64(compute(&c, 1), G * D, D, 0);

    double *table = new_array(POSITIONS * s->rot_dim), *cosine = table;
    for (int p = 0; p < POSITIONS; p++, cosine += s->rot_dim)
        for (int i = 0; i < s->rot_dim / 2; i++) {
            const double angle = p / pow(s->rope_theta, 2.0 * i / (double)s->rot_dim);
            cosine[i] = cos(angle), cosine[s->rot_dim / 2 + i] = sin(angle);
        }
    c.op = OP_ROPE;
    c.u.rope = (struct rope_args){.q = q,
                                  .k = k,
                                  .table = f64(table, s->rot_dim, 0, 0),
                                  .positions = i32(position, 1),
                                  .n_tokens = T,
                                  .n_heads = H,
                                  .n_kv_heads = G,
                                  .head_dim = D,
                                  .rot_dim = s->rot_dim,
                                  .pairing = s->rope_pairing};
    if (s->rot_dim) q = f64(compute(&c, 0), H * D, D, 0), k = f64(compute(&c, 1), G * D, D, 0);

    c.op = OP_KV_WRITE;
    c.u.kv_write = (struct kv_write_args){.k = k, .v = v, .n_tokens = T, .n_kv_heads = G, .head_dim = D};
    const double *k_cache = paged(l->cached_k, compute(&c, 0), G * D);
    const double *v_cache = paged(l->cached_v, compute(&c, 1), G * D);

    c.op = OP_ATTENTION;
    c.u.attention = (struct attention_args){.q = q,
                                            .k_cache = f64(k_cache, PAGE * G * D, G * D, D),
                                            .v_cache = f64(v_cache, PAGE * G * D, G * D, D),
                                            .page_table = i32(page_table, MAX_PAGES),
                                            .query_start = i32(query_start, 1),
                                            .kv_len = i32(kv_len, 1),
                                            .n_tokens = T,
                                            .n_seqs = SEQS,
                                            .n_heads = H,
                                            .n_kv_heads = G,
                                            .head_dim = D,
                                            .page_size = PAGE,
                                            .n_pages = PAGES,
                                            .max_queries = 5,
                                            .max_kv = 10,
                                            .scale = s->attn_scale,
                                            .causal = s->causal};
    return residual(l, linear(compute(&c, 0), l->w_o, s->o_bias ? l->b_o : NULL, T, M, H * D, NULL, 1));
}

/* gate_up and activation in one stage. w [groups, 2, F, M] */
static double *gated(const double *x, const double *w, int64_t rows, int64_t F, int64_t M, int32_t *offsets,
                     int64_t groups) {
    struct call c = {.op = OP_GATED_LINEAR};
    c.u.gated_linear = (struct gated_linear_args){.x = f64(x, M, 0, 0),
                                                  .w = f64(w, 2 * F * M, F * M, M),
                                                  .n_rows = rows,
                                                  .width = F,
                                                  .n_inner = M,
                                                  .n_groups = groups};
    if (offsets) c.u.gated_linear.offsets = i32(offsets, 1);
    return compute(&c, 0);
}

static double *staged_experts(const struct plain_layer *l, const double *normed) {
    const struct layer_spec *s = l->spec;
    const int64_t M = s->hidden, E = s->n_experts, K = s->top_k, F = s->expert_width;
    int32_t *ids = calloc((size_t)(3 * T * K + E + 1), sizeof *ids), *slot_row = ids + T * K;
    int32_t *row_slot = slot_row + T * K, *offsets = row_slot + T * K;

    struct call c = {.op = OP_ROUTE};
    c.u.route =
        (struct route_args){.logits = f64(linear(normed, l->router_w, NULL, T, E, M, NULL, 1), E, 0, 0),
                            .ids = i32(ids, K),
                            .n_tokens = T,
                            .n_experts = E,
                            .top_k = K,
                            .n_group = s->n_group,
                            .topk_group = s->topk_group,
                            .score = s->score,
                            .group_score = s->group_score,
                            .group_fill = s->group_fill,
                            .renormalise = s->renormalise,
                            .renorm_eps = s->renorm_eps,
                            .routed_scale = s->routed_scale};
    if (s->select_bias) c.u.route.bias = f64(l->select_bias, 1, 0, 0);
    ref_route_ids(&c, 0, T, ids);
    const double *gates = compute(&c, 0);

    c.op = OP_PERMUTE;
    c.u.permute = (struct permute_args){.x = f64(normed, M, 0, 0),
                                        .ids = i32(ids, K),
                                        .n_tokens = T,
                                        .top_k = K,
                                        .width = M,
                                        .expert_count = E,
                                        .n_rows = T * K};
    cr_assert_eq(ref_permute(&c, offsets, row_slot, slot_row), T * K);
    const double *halves[] = {l->w_gate, l->w_up};
    const double *w_gate_up = joined(E, halves, (int64_t[]){F * M, F * M}, 2);
    const double *act = gated(compute(&c, 0), w_gate_up, T * K, F, M, offsets, E);
    const double *down = linear(act, l->w_down, NULL, T * K, M, F, offsets, E);

    c.op = OP_COMBINE;
    c.u.combine = (struct combine_args){.down = f64(down, M, 0, 0),
                                        .slot_row = i32(slot_row, K),
                                        .gates = f64(gates, K, 0, 0),
                                        .n_tokens = T,
                                        .top_k = K,
                                        .width = M,
                                        .n_rows = T * K};
    return compute(&c, 0);
}

/* gate_up and activation in two stages. */
static double *staged_shared(const struct plain_layer *l, const double *normed) {
    const int64_t M = l->spec->hidden, S = l->spec->shared_width;
    const double *halves[] = {l->shared_gate, l->shared_up};
    const double *w_gate_up = joined(1, halves, (int64_t[]){S * M, S * M}, 2);
    const double *gate_up = linear(normed, w_gate_up, NULL, T, 2 * S, M, NULL, 1);
    struct call c = {.op = OP_ACTIVATION};
    c.u.activation = (struct activation_args){.gate_up = f64(gate_up, 2 * S, S, 0), .n_rows = T, .width = S};
    return linear(compute(&c, 0), l->shared_down, NULL, T, M, S, NULL, 1);
}

static double *staged_ffn(const struct plain_layer *l) {
    const int64_t M = l->spec->hidden;
    const double *normed = norm(l);
    struct view part[2];
    struct call c = {.op = OP_SUM};
    c.u.sum = (struct sum_args){.part = part, .n_tokens = T, .width = M};
    if (l->spec->moe) part[c.u.sum.n_parts++] = f64(staged_experts(l, normed), M, 0, 0);
    if (l->spec->shared_width > 0) part[c.u.sum.n_parts++] = f64(staged_shared(l, normed), M, 0, 0);
    return residual(l, compute(&c, 0));
}

/* ---- random layers ---- */

static double *random_array(int64_t n, double center) {
    double *p = new_array(n);
    for (int64_t i = 0; i < n; i++) p[i] = center + drand48() * 2 - 1;
    return p;
}

static struct plain_layer random_layer(const struct layer_spec *s, enum part part) {
    const int64_t M = s->hidden, HD = s->n_heads * s->head_dim, GD = s->n_kv_heads * s->head_dim;
    const int64_t experts = s->n_experts * s->expert_width * M, shared = s->shared_width * M;
    srand48(17);
    struct plain_layer l = {.spec = s, .part = part, .n_seqs = SEQS, .seq = sequences};
    l.x = random_array(T * M, 0), l.norm_w = random_array(M, 1);
    l.cached_k = random_array(CACHED * GD, 0), l.cached_v = random_array(CACHED * GD, 0);
    l.w_q = random_array(HD * M, 0), l.w_k = random_array(GD * M, 0), l.w_v = random_array(GD * M, 0);
    l.b_q = random_array(HD, 0), l.b_k = random_array(GD, 0), l.b_v = random_array(GD, 0);
    l.q_norm_w = random_array(s->head_dim, 1), l.k_norm_w = random_array(s->head_dim, 1);
    l.w_o = random_array(M * HD, 0), l.b_o = random_array(M, 0);
    l.router_w = random_array(s->n_experts * M, 0), l.select_bias = random_array(s->n_experts, 0);
    l.w_gate = random_array(experts, 0), l.w_up = random_array(experts, 0);
    l.w_down = random_array(experts, 0), l.shared_gate = random_array(shared, 0);
    l.shared_up = random_array(shared, 0), l.shared_down = random_array(shared, 0);
    return l;
}

/* The largest difference, relative to the largest element; infinite if anything is not a number. */
static double difference(const struct plain_layer *l, const double *staged) {
    const int64_t n = T * l->spec->hidden;
    double *y = new_array(n), largest = 0, off = 0;
    cr_assert_null(plain_compute(l, y));
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(y[i]) || !isfinite(staged[i])) return INFINITY;
        largest = fmax(largest, fabs(staged[i])), off = fmax(off, fabs(y[i] - staged[i]));
    }
    return off / largest;
}

/* ---- agreement ---- */

static struct layer_spec base_spec(void) {
    struct layer_spec s = layer_defaults();
    s.hidden = 20, s.n_heads = 6, s.n_kv_heads = 2, s.head_dim = 8, s.attn_scale = 0.35, s.norm_eps = 1e-3;
    s.qk_norm = s.qkv_bias = s.o_bias = true, s.rot_dim = 4, s.rope_theta = 1e6;
    s.moe = s.select_bias = true, s.n_experts = 16, s.top_k = 3, s.expert_width = 7, s.shared_width = 5;
    s.score = SCORE_SIGMOID, s.n_group = 4, s.topk_group = 2, s.renorm_eps = 1e-2, s.routed_scale = 2.5;
    return s;
}

Test(plain, agrees_with_the_stages_on_every_kind_of_attention) {
    const int64_t kv_heads[] = {1, 2, 6}, rot_dim[] = {0, 4, 8};
    for (int bits = 0; bits < 32; bits++)
        for (int i = 0; i < 9; i++) {
            struct layer_spec s = base_spec();
            s.n_kv_heads = kv_heads[i % 3], s.rot_dim = rot_dim[i / 3];
            s.qk_norm = bits & 1, s.qkv_bias = bits & 2, s.o_bias = bits & 4, s.causal = bits & 8;
            s.rope_pairing = bits & 16 ? ROPE_GPTJ : ROPE_NEOX;
            const struct plain_layer l = random_layer(&s, PART_ATTENTION);
            const double off = difference(&l, staged_attention(&l));
            cr_assert(off <= 1e-12, "switches %d, kv heads %d, rot %d: off by %g", bits, (int)s.n_kv_heads,
                      (int)s.rot_dim, off);
        }
}

Test(plain, agrees_with_the_stages_on_every_kind_of_ffn) {
    const struct {
        int64_t n_group, topk_group;
        enum group_score score;
        enum group_fill fill;
    } limit[] = {{1, 1, GROUP_TOP2_SUM, GROUP_FILL_INF},  {4, 2, GROUP_TOP2_SUM, GROUP_FILL_INF},
                 {4, 1, GROUP_MAX, GROUP_FILL_INF},       {8, 3, GROUP_MAX, GROUP_FILL_INF},
                 {16, 5, GROUP_TOP2_SUM, GROUP_FILL_INF}, {4, 1, GROUP_TOP2_SUM, GROUP_FILL_ZERO}};
    for (int bits = 0; bits < 32; bits++)
        for (size_t i = 0; i < sizeof limit / sizeof *limit; i++) {
            struct layer_spec s = base_spec();
            s.n_group = limit[i].n_group, s.topk_group = limit[i].topk_group, s.group_score = limit[i].score;
            s.group_fill = limit[i].fill;
            s.score = bits & 1 ? SCORE_SIGMOID : SCORE_SOFTMAX, s.select_bias = bits & 2;
            s.renormalise = bits & 4, s.shared_width = bits & 8 ? 5 : 0, s.moe = !(bits & 16);
            const struct plain_layer l = random_layer(&s, PART_FFN);
            if (!s.moe && !s.shared_width) continue;
            const double off = difference(&l, staged_ffn(&l));
            cr_assert(off <= 1e-12, "switches %d, group limit %zu: off by %g", bits, i, off);
        }
}

/* ---- mistakes ---- */

static void swap(const double **a, const double **b) {
    const double *old = *a;
    *a = *b, *b = old;
}
static void k_and_v_swapped(struct plain_layer *l, struct layer_spec *s) { (void)s, swap(&l->w_k, &l->w_v); }
static void other_theta(struct plain_layer *l, struct layer_spec *s) { (void)l, s->rope_theta = 1e4; }
static void other_pairs(struct plain_layer *l, struct layer_spec *s) { (void)l, s->rope_pairing = ROPE_GPTJ; }
static void all_dims_turned(struct plain_layer *l, struct layer_spec *s) { (void)l, s->rot_dim = 8; }
static void heads_not_normed(struct plain_layer *l, struct layer_spec *s) { (void)l, s->qk_norm = false; }
static void future_seen(struct plain_layer *l, struct layer_spec *s) { (void)l, s->causal = false; }
static void bias_forgotten(struct plain_layer *l, struct layer_spec *s) { (void)l, s->o_bias = false; }
static void cache_forgotten(struct plain_layer *l, struct layer_spec *s) {
    static const struct plain_sequence uncached[SEQS] = {{3, 0}, {1, 0}, {0, 0}, {5, 0}};
    (void)s, l->seq = uncached;
}
static void groups_ignored(struct plain_layer *l, struct layer_spec *s) { (void)l, s->n_group = 1; }
static void group_maximum(struct plain_layer *l, struct layer_spec *s) {
    (void)l, s->group_score = GROUP_MAX;
}
static void softmax(struct plain_layer *l, struct layer_spec *s) { (void)l, s->score = SCORE_SOFTMAX; }
static void choice_unbiased(struct plain_layer *l, struct layer_spec *s) { (void)l, s->select_bias = false; }
static void not_renormalised(struct plain_layer *l, struct layer_spec *s) { (void)l, s->renormalise = false; }
static void not_scaled(struct plain_layer *l, struct layer_spec *s) { (void)l, s->routed_scale = 1; }
static void gate_and_up_swapped(struct plain_layer *l, struct layer_spec *s) {
    (void)s, swap(&l->w_gate, &l->w_up);
}
static void shared_forgotten(struct plain_layer *l, struct layer_spec *s) { (void)l, s->shared_width = 0; }

static const struct {
    const char *name;
    enum part part;
    void (*make)(struct plain_layer *layer, struct layer_spec *spec);
} mistakes[] = {
    {"k and v swapped", PART_ATTENTION, k_and_v_swapped},
    {"another theta", PART_ATTENTION, other_theta},
    {"other pairs", PART_ATTENTION, other_pairs},
    {"all dims turned", PART_ATTENTION, all_dims_turned},
    {"heads not normed", PART_ATTENTION, heads_not_normed},
    {"the future seen", PART_ATTENTION, future_seen},
    {"bias forgotten", PART_ATTENTION, bias_forgotten},
    {"cache forgotten", PART_ATTENTION, cache_forgotten},
    {"groups ignored", PART_FFN, groups_ignored},
    {"groups by their maximum", PART_FFN, group_maximum},
    {"softmax", PART_FFN, softmax},
    {"choice without the bias", PART_FFN, choice_unbiased},
    {"not renormalised", PART_FFN, not_renormalised},
    {"not scaled", PART_FFN, not_scaled},
    {"gate and up swapped", PART_FFN, gate_and_up_swapped},
    {"shared experts forgotten", PART_FFN, shared_forgotten},
};

Test(plain, a_mistake_on_either_side_is_visible) {
    const struct layer_spec right = base_spec();
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        struct layer_spec wrong = right;
        struct plain_layer l = random_layer(&right, mistakes[i].part);
        const double *staged = (l.part == PART_ATTENTION ? staged_attention : staged_ffn)(&l);
        cr_assert(difference(&l, staged) <= 1e-12);
        l.spec = &wrong;
        mistakes[i].make(&l, &wrong);
        const double off = difference(&l, staged);
        cr_assert(off > 1e-3 && off < INFINITY, "%s: off by %g", mistakes[i].name, off);
    }
}
