/* Mistakes of the router: which experts a token goes to, and with which gates. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>

#include "harness/mistake.h"
#include "harness/mutants/mutants.h"
#include "reference/plain.h"

static struct route_args *route_of(struct mistake *m) {
    return m->call.op == OP_ROUTE ? &m->call.u.route : NULL;
}

/* ---- gates: another call ---- */

static bool renorm_missing(struct mistake *m) {
    struct route_args *const a = route_of(m);
    if (!a || !a->renormalise) return false;
    a->renormalise = false;
    return true;
}

/* exp(l) / sum of the selected: what renormalising makes of a softmax. */
static bool softmax_of_selected(struct mistake *m) {
    struct route_args *const a = route_of(m);
    if (!a || a->renormalise || a->score != SCORE_SOFTMAX) return false;
    a->renormalise = true;
    a->renorm_eps = 0;
    return true;
}

static bool rescale(struct mistake *m, double scale) {
    struct route_args *const a = route_of(m);
    if (!a || a->routed_scale == scale) return false;
    a->routed_scale = scale;
    return true;
}
static bool scale_twice(struct mistake *m) {
    const double scale = mistake_spec(m)->routed_scale;
    return rescale(m, scale * scale);
}
static bool scale_missing(struct mistake *m) { return rescale(m, 1); }
static bool scale_nested(struct mistake *m) { return !mistake_spec(m)->renormalise && rescale(m, 1); }

/* ---- gates of choices ---- */

/* score [E] of token t, in double. */
static void scores(const struct route_args *a, int64_t t, double *score) {
    double most = -INFINITY, sum = 0;
    for (int64_t e = 0; e < a->n_experts; e++) {
        score[e] = dtype_load(a->logits.data, a->logits.dtype, t * a->logits.stride[0] + e);
        if (score[e] > most) most = score[e];
    }
    for (int64_t e = 0; e < a->n_experts; e++)
        sum += score[e] = a->score == SCORE_SIGMOID ? 1 / (1 + exp(-score[e])) : exp(score[e] - most);
    for (int64_t e = 0; e < a->n_experts && a->score == SCORE_SOFTMAX; e++) score[e] /= sum;
}

static double bias_of(const struct route_args *a, int64_t e) {
    return a->bias.data ? dtype_load(a->bias.data, a->bias.dtype, e) : 0;
}

static bool has_bias(struct mistake *m) { return route_of(m) && route_of(m)->bias.data; }

static void gates_of_choices(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct route_args *const a = &m->call.u.route;
    double *const score = memory_zeroed((size_t)a->n_experts, sizeof *score);
    for (int64_t t = row0; t < row1; t++) {
        const int32_t *const id = (const int32_t *)a->ids.data + t * a->ids.stride[0];
        double *const gate = out->y + (t - row0) * a->top_k, sum = 0;
        scores(a, t, score);
        for (int64_t j = 0; j < a->top_k; j++) sum += gate[j] = score[id[j]] + bias_of(a, id[j]);
        for (int64_t j = 0; j < a->top_k; j++)
            gate[j] *= a->routed_scale / (a->renormalise ? sum + a->renorm_eps : 1);
    }
    free(score);
}

/* ---- choices ---- */

static bool group_max(struct mistake *m) {
    struct route_args *const a = route_of(m);
    if (!a || a->n_group == 1 || a->group_score == GROUP_MAX) return false;
    a->group_score = GROUP_MAX;
    return true;
}
static void as_the_call_says(const struct mistake *m) { (void)m; }

/* Is the group among those that stay?  The right ones, ties to the lower. */
static bool group_stays(const struct route_args *a, const double *value, int64_t g) {
    int64_t ahead = 0;
    for (int64_t o = 0; o < a->n_group; o++) ahead += value[o] > value[g] || (value[o] == value[g] && o < g);
    return ahead < a->topk_group;
}

/* The sum of the two best, or the best. */
static double group_value(const struct route_args *a, const double *choice) {
    double first = -INFINITY, second = -INFINITY;
    for (int64_t e = 0; e < a->n_experts / a->n_group; e++) {
        if (choice[e] > first)
            second = first, first = choice[e];
        else if (choice[e] > second)
            second = choice[e];
    }
    return a->group_score == GROUP_MAX ? first : first + second;
}

static bool has_groups(struct mistake *m) {
    const struct route_args *const a = route_of(m);
    return a && a->n_group > 1 && a->topk_group < a->n_group;
}

static bool fill_changes(struct mistake *m, enum group_fill fill) {
    if (!has_groups(m) || route_of(m)->group_fill == fill) return false;
    route_of(m)->group_fill = fill;
    return true;
}
static bool fill_with_zero(struct mistake *m) { return fill_changes(m, GROUP_FILL_ZERO); }
static bool fill_with_inf(struct mistake *m) { return fill_changes(m, GROUP_FILL_INF); }

static bool in_route(struct mistake *m) { return route_of(m); }

/* The choice of every token made again: of equal ones the higher wins. */
static void choose_higher(const struct mistake *m) {
    const struct route_args *const a = &m->call.u.route;
    const int64_t n = a->n_experts, size = n / a->n_group;
    const double lost = a->group_fill == GROUP_FILL_ZERO ? 0 : -INFINITY;
    double *const choice = memory_zeroed((size_t)(n + a->n_group), sizeof *choice), *const value = choice + n;
    for (int64_t t = 0; t < a->n_tokens; t++) {
        int32_t *const ids = (int32_t *)a->ids.data + t * a->ids.stride[0];
        scores(a, t, choice);
        for (int64_t e = 0; e < n; e++) choice[e] += bias_of(a, e);
        for (int64_t g = 0; g < a->n_group; g++) value[g] = group_value(a, choice + g * size);
        for (int64_t e = 0; e < n; e++)
            if (!group_stays(a, value, e / size)) choice[e] = lost;
        for (int64_t j = 0; j < a->top_k; j++) {
            int64_t best = 0;
            for (int64_t e = 1; e < n; e++)
                if (choice[e] >= choice[best]) best = e;
            ids[j] = (int32_t)best;
            choice[best] = -INFINITY;
        }
    }
    free(choice);
}

static bool several(struct mistake *m) { return route_of(m) && route_of(m)->top_k > 1; }

static void best_twice(const struct mistake *m) {
    const struct route_args *const a = &m->call.u.route;
    int32_t *const ids = a->ids.data;
    for (int64_t t = 0; t < a->n_tokens; t++) ids[t * a->ids.stride[0] + 1] = ids[t * a->ids.stride[0]];
}

/* ---- of the layer ---- */

static void plain_without_renorm(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->renormalise = false;
}
static void plain_of_selected(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    if (spec->score != SCORE_SOFTMAX || spec->renormalise) return;
    spec->renormalise = true;
    spec->renorm_eps = 0;
}
static void scale_plain_twice(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->routed_scale *= spec->routed_scale;
}
static void plain_unscaled(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->routed_scale = 1;
}
static void plain_scale_nested(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    if (!spec->renormalise) spec->routed_scale = 1;
}
static void plain_group_max(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->group_score = GROUP_MAX;
}
static void plain_filled_with_zero(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->group_fill = GROUP_FILL_ZERO;
}
static void plain_filled_with_inf(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->group_fill = GROUP_FILL_INF;
}

/* ---- the table ---- */

#define IN_ROUTER .edge = EDGE_KERNEL, .part = PART_FFN, .unsharded = true
#define SCALE_1 "qwen3-30b-a3b/ffn:tp=1,tokens=5,hidden=64,experts=16,top=4,width=32"
const struct mutant mutants_of_router[] = {
    {.name = "bias-in-gates",
     .source = "vLLM PR #12002",
     .describes = "the bias of the selection is in the gates, too",
     IN_ROUTER,
     .hooks.inside = has_bias,
     .hooks.stores = gates_of_choices,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,select_bias=off"},
    {.name = "group-by-max",
     .source = "vLLM PR #13474",
     .describes = "a group's score is its best choice, not the sum of its two best",
     IN_ROUTER,
     .hooks.inside = group_max,
     .hooks.chooses = as_the_call_says,
     .hooks.plain = plain_group_max,
     .exposes = "tiny/ffn:tp=1,groups=4,topk_groups=2",
     .clean = "tiny/ffn:tp=1,groups=4,topk_groups=4"},
    {.name = "groups-filled-with-0",
     .source = "sglang PR #3705",
     .describes = "experts of groups that lose have choice 0, not -inf",
     IN_ROUTER,
     .hooks.inside = fill_with_zero,
     .hooks.chooses = as_the_call_says,
     .hooks.plain = plain_filled_with_zero,
     .exposes = "tiny/ffn:tp=1,groups=4,topk_groups=1,score=softmax",
     .clean = "tiny/ffn:tp=1,groups=4,topk_groups=1,select_bias=off"},
    {.name = "groups-filled-with-inf",
     .source = "transformers issue #45440",
     .describes = "experts of groups that lose have choice -inf where the layer says 0",
     IN_ROUTER,
     .hooks.inside = fill_with_inf,
     .hooks.chooses = as_the_call_says,
     .hooks.plain = plain_filled_with_inf,
     .exposes = "tiny/ffn:tp=1,groups=4,topk_groups=1,score=softmax,group_fill=0",
     .clean = "tiny/ffn:tp=1,groups=4,topk_groups=1,score=softmax,select_bias=off,group_fill=0"},
    {.name = "softmax-of-selected",
     .source = "mlxcel PR #391",
     .describes = "the softmax is taken over the selected logits only",
     IN_ROUTER,
     .hooks.inside = softmax_of_selected,
     .hooks.plain = plain_of_selected,
     .exposes = "tiny/ffn:tp=1,tokens=9,score=softmax,renorm=off",
     .clean = "tiny/ffn:tp=1,tokens=9,score=softmax,renorm=on"},
    {.name = "renorm-missing",
     .source = "torchtitan issue #1418",
     .describes = "the gates are not divided by their sum",
     IN_ROUTER,
     .hooks.inside = renorm_missing,
     .hooks.plain = plain_without_renorm,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,renorm=off"},
    {.name = "routed-scale-twice",
     .source = "vLLM PR #24119, vLLM PR #45037",
     .describes = "the gates are multiplied by the factor of the routed experts twice",
     IN_ROUTER,
     .hooks.inside = scale_twice,
     .hooks.plain = scale_plain_twice,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = SCALE_1},
    {.name = "routed-scale-missing",
     .source = "sglang PR #8333",
     .describes = "the gates are not multiplied by the factor of the routed experts",
     IN_ROUTER,
     .hooks.inside = scale_missing,
     .hooks.plain = plain_unscaled,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = SCALE_1},
    {.name = "routed-scale-nested",
     .source = "sglang-jax PR #1282",
     .describes = "the factor of the routed experts is applied only where gates are renormalised",
     IN_ROUTER,
     .hooks.inside = scale_nested,
     .hooks.plain = plain_scale_nested,
     .exposes = "tiny/ffn:tp=1,tokens=9,renorm=off",
     .clean = "tiny/ffn:tp=1,tokens=9,renorm=on",
     .same_as = "routed-scale-missing"},
    {.name = "tie-to-higher-expert",
     .source = "vLLM PR #54403",
     .describes = "of experts with the same choice the higher number wins, not the lower",
     IN_ROUTER,
     .hooks.inside = in_route,
     .hooks.chooses = choose_higher,
     .exposes = "tiny/ffn:tp=1,fill=ties",
     .clean = "tiny/ffn:tp=1,tokens=9"},
    {.name = "expert-twice",
     .source = "vLLM PR #39391",
     .describes = "a token's best expert is also its second one",
     IN_ROUTER,
     .hooks.inside = several,
     .hooks.chooses = best_twice,
     .exposes = "tiny/ffn:tp=1,tokens=9",
     .clean = "tiny/ffn:tp=1,tokens=9,top=1"},
    {0},
};
