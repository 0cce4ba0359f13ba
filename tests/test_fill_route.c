/* Where does the fill send tokens? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fixtures/fill.h"
#include "fixtures/model.h"
#include "reference/reference.h"

enum { T = 33 };

/* As stored in d. */
static double *stored(const struct fill *fill, enum tensor_id id, enum dtype d, int64_t n) {
    double *const data = malloc((size_t)n * sizeof *data), *const bits = malloc((size_t)n * sizeof *bits);
    cr_assert(data && bits);
    fill_tensor(fill, id, d, 0, n, bits);
    dtype_load_row(data, bits, d, 0, n);
    free(bits);
    return data;
}
static double *filled(const struct fill *fill, enum tensor_id id, int64_t n) {
    return stored(fill, id, DTYPE_F64, n);
}

/* Rows [first, first + n) of a weight [.., hidden] on x behind its norm: [T, n]. */
static double *project_rows(const struct fill *fill, enum tensor_id id, enum dtype d, int64_t first,
                            int64_t n) {
    const int64_t m = fill->spec->hidden;
    double *const x = stored(fill, T_X, d, T * m), *const norm = stored(fill, T_NORM_W, d, m),
                  *const all = stored(fill, id, d, (first + n) * m), *const w = all + first * m;
    double *const out = calloc((size_t)(T * n), sizeof *out);
    for (int64_t t = 0; t < T; t++) {
        double squares = 0;
        for (int64_t i = 0; i < m; i++) squares += x[t * m + i] * x[t * m + i];
        for (int64_t i = 0; i < n * m; i++)
            out[t * n + i / m] += x[t * m + i % m] / sqrt(squares / (double)m) * norm[i % m] * w[i];
    }
    free(x), free(norm), free(all);
    return out;
}
static double *project(const struct fill *fill, enum tensor_id id, int64_t n) {
    return project_rows(fill, id, DTYPE_F64, 0, n);
}

static double *logits_of(const struct fill *fill) { return project(fill, T_W_ROUTER, fill->spec->n_experts); }

static struct call route_call(const struct layer_spec *s, double *logits, double *bias, int32_t *ids) {
    struct call call = {.op = OP_ROUTE};
    call.u.route = (struct route_args){.logits = {logits, DTYPE_F64, {s->n_experts}, 0, T * s->n_experts},
                                       .bias = {bias, DTYPE_F64, {1}, 0, s->n_experts},
                                       .ids = {ids, DTYPE_I32, {s->top_k}, 0, T * s->top_k},
                                       .n_tokens = T,
                                       .n_experts = s->n_experts,
                                       .top_k = s->top_k,
                                       .n_group = s->n_group,
                                       .topk_group = s->topk_group,
                                       .score = s->score,
                                       .renormalise = true,
                                       .routed_scale = 1};
    return call;
}

/* ids [T, K], with or without a bias [E]. */
static void choose(const struct layer_spec *s, double *logits, double *bias, int32_t *ids) {
    const struct call call = route_call(s, logits, bias, ids);
    ref_route_ids(&call, 0, T, ids);
}

static int64_t count_read(const int32_t *ids, const struct layer_spec *s) {
    bool read[1024] = {false};
    int64_t n = 0;
    for (int64_t i = 0; i < T * s->top_k; i++) read[ids[i]] = true;
    for (int64_t e = 0; e < s->n_experts; e++) n += read[e];
    return n;
}

static bool contains(const int32_t *ids, int64_t k, int32_t id) {
    for (int64_t i = 0; i < k; i++)
        if (ids[i] == id) return true;
    return false;
}

static int64_t count_changed(const int32_t *a, const int32_t *b, int64_t k) {
    int64_t n = 0;
    for (int64_t t = 0; t < T; t++) {
        bool same = true;
        for (int64_t i = 0; i < k; i++) same &= contains(a + t * k, k, b[t * k + i]);
        n += !same;
    }
    return n;
}

/* A bias that hides experts would leave their weights unread; one that moves nothing could be
 * forgotten. */
Test(fill, the_selection_bias_moves_choices_and_hides_no_expert) {
    static const char *const names[] = {"param2-17b", "qwen3-30b-a3b", "tiny"};
    for (int n = 0; n < 3; n++)
        for (int score = SCORE_SOFTMAX; score <= SCORE_SIGMOID; score++)
            for (uint64_t seed = 1; seed <= 3; seed++) {
                struct model model;
                int32_t with[T * 64], without[T * 64];
                cr_assert(!model_load(names[n], &model).code);
                struct layer_spec spec = model_layer(&model, 1);
                spec.score = (enum score_function)score;
                const struct fill fill = {.seed = seed, .layer = 1, .spec = &spec};
                double *const logits = logits_of(&fill), *const bias =
                                                             filled(&fill, T_SELECT_BIAS, spec.n_experts);
                choose(&spec, logits, bias, with);
                choose(&spec, logits, NULL, without);
                const int64_t read = count_read(with, &spec), reach = count_read(without, &spec),
                              changed = count_changed(with, without, spec.top_k);
                cr_expect(10 * read >= 9 * reach, "%s, score %d: %lld experts read, %lld without a bias",
                          names[n], score, (long long)read, (long long)reach);
                cr_expect(10 * read >= 8 * spec.n_experts, "%s", names[n]);
                cr_expect(4 * changed >= T, "%s, score %d: the bias moves %lld tokens", names[n], score,
                          (long long)changed);
                free(logits), free(bias);
            }
}

Test(fill, a_bias_that_weighs_the_gates_is_seen) {
    struct model model;
    int32_t ids[T * 64];
    double gate[T * 64], e[T * 64];
    cr_assert(!model_load("param2-17b", &model).code);
    const struct layer_spec spec = model_layer(&model, 1);
    const struct fill fill = {.seed = 1, .layer = 1, .spec = &spec};
    double *const logits = logits_of(&fill), *const bias = filled(&fill, T_SELECT_BIAS, spec.n_experts);
    choose(&spec, logits, bias, ids);
    const struct call call = route_call(&spec, logits, bias, ids);
    const struct contract contract = contract_exact(OP_ROUTE);
    ref_compute(&call, &contract, NULL, 0, T, (struct ref_out[MAX_REF_OUT]){{gate, e, NULL}});
    int64_t outside = 0;
    const int64_t k = spec.top_k;
    for (int64_t t = 0; t < T; t++) {
        double weight[64], sum = 0;
        for (int64_t i = 0; i < k; i++) {
            const int32_t id = ids[t * k + i];
            sum += weight[i] = 1 / (1 + exp(-logits[t * spec.n_experts + id])) + bias[id];
        }
        for (int64_t i = 0; i < k; i++) outside += !(fabs(weight[i] / sum - gate[t * k + i]) <= e[t * k + i]);
    }
    cr_expect(10 * outside >= 9 * T * k, "%lld of %lld gates outside", (long long)outside,
              (long long)(T * k));
    free(logits), free(bias);
}

/* ---- outliers ---- */

static int64_t count_beyond(const double *values, int64_t n, double limit) {
    int64_t beyond = 0;
    for (int64_t i = 0; i < n; i++) beyond += limit < 0 ? values[i] < limit : values[i] > limit;
    return beyond;
}

Test(fill, outliers_saturate_gates_and_scores_and_most_values_stay_small) {
    struct model model;
    cr_assert(!model_load("param2-17b", &model).code);
    const struct layer_spec spec = model_layer(&model, 1);
    const struct fill fill = {.kind = FILL_OUTLIERS, .seed = 1, .layer = 1, .spec = &spec};
    enum { ROWS = 512 };
    double *const x = filled(&fill, T_X, T * spec.hidden), *const gates = project(&fill, T_W_GATE_UP, ROWS),
                  *const logits = logits_of(&fill);
    const int64_t n_x = T * spec.hidden, n_logits = T * spec.n_experts;
    const int64_t large = count_beyond(x, n_x, 100) + count_beyond(x, n_x, -100);
    cr_expect(large > n_x / 100 && large < n_x / 10, "%lld of %lld", (long long)large, (long long)n_x);
    cr_expect(count_beyond(x, n_x, 2048) == 0 && count_beyond(x, n_x, -2048) == 0);
    cr_expect(count_beyond(gates, T * ROWS, 88) > 50 && count_beyond(gates, T * ROWS, -88) > 50);
    cr_expect(count_beyond(gates, T * ROWS, 0.5) > T * ROWS / 4);
    cr_expect(count_beyond(logits, n_logits, 17) > 20 && count_beyond(logits, n_logits, -88) > 20);
    free(x), free(gates), free(logits);
}

/* silu(gate) up of an expert. What bf16 holds, 2^4 times as large in each, fp16 would not. */
static double largest_activation(const struct fill *fill, enum dtype d, int64_t *saturated) {
    const int64_t width = fill->spec->expert_width, n = T * width;
    double *const gate = project_rows(fill, T_W_GATE_UP, d, 0, width), *const up =
                                                                           project_rows(fill, T_W_GATE_UP, d,
                                                                                        width, width);
    double largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(gate[i] / (1 + exp(-gate[i])) * up[i]));
    *saturated = count_beyond(gate, n, 17) + count_beyond(gate, n, -17);
    free(gate), free(up);
    return largest;
}

Test(fill, outliers_saturate_gates_in_fp16_too_and_stay_finite_as_they_would_not_with_those_of_bf16) {
    struct model model;
    int64_t saturated;
    cr_assert(!model_load("tiny", &model).code);
    struct layer_spec spec = model_layer(&model, 1);
    spec.hidden = 512, spec.expert_width = 512;
    const struct fill fill = {.kind = FILL_OUTLIERS, .seed = 1, .layer = 1, .spec = &spec};
    const double half = largest_activation(&fill, DTYPE_F16, &saturated);
    cr_expect(half < dtype_max(DTYPE_F16) / 4, "%g", half);
    cr_expect(saturated > 50, "%lld", (long long)saturated);
    cr_expect(largest_activation(&fill, DTYPE_BF16, &saturated) > dtype_max(DTYPE_F16));
}

/* ---- ties ---- */

enum { N_TIES = 12, TIE_GROUPS = 4, TIE_TOP = 3 };

static struct layer_spec tie_spec(int64_t n_group) {
    struct model model;
    cr_assert(!model_load("tiny", &model).code);
    struct layer_spec spec = model_layer(&model, 1);
    spec.n_experts = N_TIES * TIE_GROUPS;
    spec.top_k = TIE_TOP;
    spec.n_group = n_group;
    spec.topk_group = n_group > 1 ? 2 : 1;
    return spec;
}

/* Another expert, chosen or not, in the place of the last one of a token: of its equals every one is as
 * good. */
Test(fill, every_choice_among_equals_is_legal_and_counted_as_ambiguous) {
    for (int64_t n_group = 1; n_group <= TIE_GROUPS; n_group += TIE_GROUPS - 1) {
        const struct layer_spec spec = tie_spec(n_group);
        const struct fill fill = {.kind = FILL_TIES, .seed = 1, .layer = 1, .spec = &spec};
        const int64_t e = spec.n_experts, size = e / n_group;
        double *const logits = logits_of(&fill), *const bias = filled(&fill, T_SELECT_BIAS, e);
        double *const lo = calloc((size_t)(T * e), sizeof *lo), *const hi =
                                                                    calloc((size_t)(T * e), sizeof *hi);
        int32_t ids[T * TIE_TOP];
        choose(&spec, logits, bias, ids);
        const struct call call = route_call(&spec, logits, bias, ids);
        const struct contract contract = contract_exact(OP_ROUTE);
        const struct route_args *const a = &call.u.route;
        const struct route_contract *const c = &contract.u.route;
        ref_route_choices(&call, &contract, NULL, 0, T, lo, hi);
        int64_t ambiguous = 0, swapped = 0;
        for (int64_t t = 0; t < T; t++) {
            int32_t *const set = ids + t * TIE_TOP;
            const double *const l = lo + t * e, *const h = hi + t * e;
            const enum route_verdict v = ref_route_judge(a, c, l, h, set);
            cr_expect(v != ROUTE_REJECTED, "%lld groups, token %lld", (long long)n_group, (long long)t);
            ambiguous += v == ROUTE_AMBIGUOUS;
            const int32_t last = set[TIE_TOP - 1];
            for (int32_t o = 0; o < e; o++) {
                if (o / size != last / size || contains(set, TIE_TOP, o)) continue;
                const bool equal = logits[t * e + o] == logits[t * e + last] && bias[o] == bias[last];
                set[TIE_TOP - 1] = o;
                if (equal) cr_expect_eq(ref_route_judge(a, c, l, h, set), ROUTE_AMBIGUOUS);
                if (equal) swapped++;
                if (l[last] > h[o]) cr_expect_eq(ref_route_judge(a, c, l, h, set), ROUTE_REJECTED);
                set[TIE_TOP - 1] = last;
            }
        }
        cr_expect(ambiguous > T / 4, "%lld groups: %lld", (long long)n_group, (long long)ambiguous);
        cr_expect(swapped > T / 4, "%lld groups: %lld", (long long)n_group, (long long)swapped);
        free(lo), free(hi), free(logits), free(bias);
    }
}

/* Whether rows a and b are the same, and otherwise how far apart at most. */
static double apart(const double *rows, int64_t size, int64_t a, int64_t b) {
    double most = 0;
    for (int64_t i = 0; i < size; i++) most = fmax(most, fabs(rows[a * size + i] - rows[b * size + i]));
    return most;
}

Test(fill, ties_are_copies_of_rows_and_some_experts_only_nearly) {
    const struct layer_spec spec = tie_spec(TIE_GROUPS);
    const struct fill fill = {.kind = FILL_TIES, .seed = 1, .layer = 1, .spec = &spec};
    const int64_t m = spec.hidden, kv = spec.n_kv_heads * spec.head_dim;
    double *const x = filled(&fill, T_X, 12 * m), *const k = filled(&fill, T_K_CACHE, 12 * kv),
                  *const v = filled(&fill, T_V_CACHE, 12 * kv),
                  *const w = filled(&fill, T_W_ROUTER, spec.n_experts * m);
    cr_expect(apart(x, m, 1, 2) == 0 && apart(k, kv, 3, 5) == 0 && apart(k, kv, 9, 10) == 0);
    cr_expect(apart(x, m, 0, 1) > 1 && apart(k, kv, 2, 3) > 1);
    cr_expect(apart(v, kv, 3, 5) > 1, "equal keys bring values of their own");
    cr_expect_eq(apart(w, m, 1, 2), 0);
    cr_expect_eq(apart(w, m, 3, 5), 0);
    cr_expect_eq(apart(w, m, N_TIES + 1, 2 * N_TIES + 1), 0, "groups 1 and 2 are equal");
    cr_expect(apart(w, m, 0, N_TIES) > 0.1, "groups 0 and 1 are not");
    const double near = apart(w, m, 7, 8);
    cr_expect(near > 0 && near < 1e-5, "%g", near);
    free(x), free(k), free(v), free(w);
}
