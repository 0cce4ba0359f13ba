/* Routing in fp32 as kernels and tensor code have it: what underflows kept or flushed, sigmoids by
 * exp or tanh, every step rounded to bf16 or none, group limits. */
/* SPDX-License-Identifier: MIT */
#include "tests/campaign/campaign.h"

#include <math.h>
#include <stdio.h>

enum { MAX_EXPERTS = 128, MAX_TOP_K = 8 };
enum style { PLAIN, FLUSHED, BY_TANH, IN_BF16, STYLES };

static float settle(float x, enum style how) {
    if (how == IN_BF16) return (float)dtype_round(DTYPE_BF16, (double)x);
    return how == FLUSHED && fabsf(x) < 0x1p-126f ? 0 : x;
}

static void make_scores(float *s, const float *logit, const struct route_args *a, enum style how) {
    const int64_t n = a->n_experts;
    float top = -INFINITY, sum = 0;
    for (int64_t e = 0; e < n; e++) s[e] = how == IN_BF16 ? settle(logit[e], how) : logit[e];
    if (a->score == SCORE_SIGMOID) {
        for (int64_t e = 0; e < n; e++)
            s[e] = settle(how == BY_TANH ? 0.5f * tanhf(0.5f * s[e]) + 0.5f : 1 / (1 + expf(-s[e])), how);
        return;
    }
    for (int64_t e = 0; e < n; e++) top = fmaxf(top, s[e]);
    for (int64_t e = n; e-- > 0;) {
        s[e] = expf(s[e] - top);
        if (how == FLUSHED) s[e] = settle(s[e], how);
        sum += s[e];
    }
    for (int64_t e = 0; e < n; e++) s[e] = settle(s[e] / sum, how);
}

static void limit(float *choice, const struct route_args *a, enum style how) {
    float value[MAX_EXPERTS];
    const int64_t size = a->n_experts / a->n_group;
    for (int64_t g = 0; g < a->n_group; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            second = fmaxf(second, fminf(first, choice[e]));
            first = fmaxf(first, choice[e]);
        }
        value[g] = a->group_score == GROUP_MAX || size < 2 ? first : settle(first + second, how);
    }
    for (int64_t g = 0; g < a->n_group; g++) {
        int64_t ahead = 0;
        for (int64_t o = 0; o < a->n_group; o++)
            ahead += value[o] > value[g] || (value[o] == value[g] && o < g);
        for (int64_t e = g * size; e < (g + 1) * size && ahead >= a->topk_group; e++)
            choice[e] = a->group_fill == GROUP_FILL_ZERO ? 0 : -INFINITY;
    }
}

static void choose(int32_t *ids, float *choice, const struct route_args *a, bool dishonest) {
    for (int64_t j = 0; j < a->top_k; j++) {
        int32_t best = -1;
        for (int32_t e = 0; e < a->n_experts; e++) {
            bool taken = false;
            for (int64_t i = 0; i < j; i++) taken |= ids[i] == e;
            const bool wins = best < 0 || (dishonest ? choice[e] < choice[best] : choice[e] > choice[best]);
            if (!taken && wins) best = e;
        }
        ids[j] = best;
    }
}

/* One token; false: a gate is no number, as 0 / 0 is. */
static bool route(int32_t *ids, float *gates, const float *logit, const float *bias,
                  const struct route_args *a, enum style how, bool dishonest) {
    float s[MAX_EXPERTS], choice[MAX_EXPERTS], sum = 0;
    make_scores(s, logit, a, how);
    for (int64_t e = 0; e < a->n_experts; e++) {
        choice[e] = s[e];
        if (a->bias.data) choice[e] = settle(s[e] + (how == IN_BF16 ? settle(bias[e], how) : bias[e]), how);
    }
    if (a->n_group > 1) limit(choice, a, how);
    choose(ids, choice, a, dishonest);
    for (int64_t j = 0; j < a->top_k; j++) sum += s[ids[j]];
    sum = settle(sum, how);
    bool numbers = true;
    for (int64_t j = 0; j < a->top_k; j++) {
        const float share = a->renormalise ? settle(s[ids[j]] / sum, how) : s[ids[j]];
        gates[j] = settle(share * (float)a->routed_scale, how);
        numbers &= !isnan(gates[j]);
    }
    return numbers;
}

static struct contract declare(enum style how) {
    struct contract c = contract_exact(OP_ROUTE);
    if (how == BY_TANH) c.u.route.tanh_error = 0x1p-22;
    if (how != IN_BF16) return c;
    c.u.route.logits = c.u.route.scores = c.u.route.choices = DTYPE_BF16;
    c.u.route.gate_unit = UNIT_BF16;
    return c;
}

static void judge_sets(struct trial *t, const struct call *call, const struct contract *contract) {
    const struct route_args *const a = &call->u.route;
    const int64_t n = a->n_experts;
    double *const lo = trial_array(t, a->n_tokens * n, sizeof *lo), *const hi = trial_array(
                                                                        t, a->n_tokens * n, sizeof *hi);
    ref_route_choices(call, contract, NULL, 0, a->n_tokens, lo, hi);
    for (int64_t r = 0; r < a->n_tokens; r++) {
        const int32_t *const ids = (const int32_t *)a->ids.data + r * a->top_k;
        char text[60];
        snprintf(text, sizeof text, "the set of token %lld is rejected", (long long)r);
        if (ref_route_judge(a, &contract->u.route, lo + r * n, hi + r * n, ids) == ROUTE_REJECTED)
            trial_alarm(t, text);
    }
    t->elements += a->n_tokens * a->top_k;
}

void emulate_route(struct trial *t) {
    const int64_t groups = trial_flip(t) ? 1 : trial_draw(t, 2, 8),
                  size = trial_draw(t, 2, MAX_EXPERTS / groups), n = groups * size,
                  kept = trial_draw(t, 1, groups),
                  k = trial_draw(t, 1, kept * size < MAX_TOP_K ? kept * size : MAX_TOP_K), tokens = 64;
    const enum style how = (enum style)trial_draw(t, 0, STYLES - 1);
    const bool sigmoid = how == BY_TANH || trial_flip(t), biased = trial_flip(t);
    const double scale = exp(trial_real(t, 0, log(sigmoid ? 60 : 200)));
    float *const logits = trial_values(t, tokens * n, DTYPE_F32, scale),
                 *const bias = trial_values(t, n, DTYPE_F32, 0.2),
                 *const gates = trial_array(t, tokens * k, 4);
    int32_t *const ids = trial_array(t, tokens * k, sizeof *ids);
    struct call c = {.op = OP_ROUTE};
    c.u.route = (struct route_args){.logits = {logits, DTYPE_F32, {n}, 0, tokens * n},
                                    .ids = {ids, DTYPE_I32, {k}, 0, tokens * k},
                                    .n_tokens = tokens,
                                    .n_experts = n,
                                    .top_k = k,
                                    .n_group = groups,
                                    .topk_group = kept,
                                    .score = sigmoid ? SCORE_SIGMOID : SCORE_SOFTMAX,
                                    .group_score = trial_flip(t) ? GROUP_MAX : GROUP_TOP2_SUM,
                                    .group_fill = trial_flip(t) ? GROUP_FILL_ZERO : GROUP_FILL_INF,
                                    .renormalise = trial_flip(t),
                                    .routed_scale = trial_flip(t) ? 1 : 2.5};
    if (biased) c.u.route.bias = (struct view){bias, DTYPE_F32, {1}, 0, n};
    snprintf(t->made_of, sizeof t->made_of,
             "%lld of %lld experts, %lld of %lld groups%s, %s, logits to %g, style %d", (long long)k,
             (long long)n, (long long)kept, (long long)groups,
             c.u.route.group_fill == GROUP_FILL_ZERO ? " (the others 0)" : "",
             sigmoid ? "sigmoid" : "softmax", scale, (int)how);
    for (int64_t r = 0; r < tokens; r++)
        if (!route(ids + r * k, gates + r * k, logits + r * n, bias, &c.u.route, how, t->dishonest)) return;
    const struct contract contract = declare(how);
    judge_sets(t, &c, &contract);
    trial_judge(t, &c, &contract, gates, 0);
}
