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

static double *filled(const struct fill *fill, enum tensor_id id, int64_t n) {
    double *const data = malloc((size_t)n * sizeof *data);
    cr_assert(data);
    fill_tensor(fill, id, DTYPE_F64, 0, n, data);
    return data;
}

/* logits [T, E] of the layer, from x and its norm on. */
static double *logits_of(const struct fill *fill) {
    const int64_t m = fill->spec->hidden, e = fill->spec->n_experts;
    double *const x = filled(fill, T_X, T * m), *const norm = filled(fill, T_NORM_W, m),
                  *const w = filled(fill, T_W_ROUTER, e * m);
    double *const logits = calloc((size_t)(T * e), sizeof *logits);
    for (int64_t t = 0; t < T; t++) {
        double squares = 0;
        for (int64_t i = 0; i < m; i++) squares += x[t * m + i] * x[t * m + i];
        for (int64_t i = 0; i < e * m; i++)
            logits[t * e + i / m] += x[t * m + i % m] / sqrt(squares / (double)m) * norm[i % m] * w[i];
    }
    free(x), free(norm), free(w);
    return logits;
}

static struct call route_call(const struct layer_spec *s, double *logits, double *bias, int32_t *ids) {
    struct call call = {.op = OP_ROUTE};
    call.u.route = (struct route_args){.logits = {logits, DTYPE_F64, {s->n_experts}, 0, T * s->n_experts},
                                       .bias = {bias, DTYPE_F64, {1}, 0, s->n_experts},
                                       .ids = {ids, DTYPE_I32, {s->top_k}, 0, T * s->top_k},
                                       .n_tokens = T,
                                       .n_experts = s->n_experts,
                                       .top_k = s->top_k,
                                       .n_group = 1,
                                       .topk_group = 1,
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
