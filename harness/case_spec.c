/* Which layer does a case check, with which sizes and switches of its own, and do they fit each
 * other? Most rules have no key to themselves: the first given of those that could mend it is
 * blamed. */
/* SPDX-License-Identifier: MIT */
#include "harness/case.h"

#include <stdio.h>

#include "layer/choices.h"

int64_t case_layer(const struct check_case *c, const struct model *model) {
    if (c->layer >= 0) return c->layer;
    if (c->part == PART_FFN)
        for (int64_t layer = 0; layer < model->n_layers; layer++)
            if (model_layer(model, layer).moe) return layer;
    return 0;
}

void case_override(struct layer_spec *spec, const struct check_case *c) {
    for (int k = 0; case_keys[k].name; k++)
        if (case_keys[k].override && case_key_is_set(k, c))
            case_keys[k].override(spec, (int64_t)case_key_get(k, c));
}

struct layer_spec case_spec(const struct check_case *c, const struct model *model) {
    struct layer_spec spec = model_layer(model, case_layer(c, model));
    case_override(&spec, c);
    return spec;
}

int case_spec_key(const struct check_case *c) {
    for (int k = 0; case_keys[k].name; k++)
        if (case_keys[k].override && case_key_is_set(k, c)) return k;
    return -1;
}

bool case_has_weights(const struct check_case *c) {
    return case_spec_key(c) < 0 && !fill_is_local(c->fill) && model_is_folder(c->model);
}

/* ---- rules: each writes what is wrong and what would do; false: it holds ---- */

static const char *divisors(int64_t of, int64_t most, char *text, size_t size) {
    struct choices choices = {0};
    for (int64_t n = 1; n <= most; n++)
        if (of % n == 0) choices_add(&choices, "%lld", (long long)n);
    choices_text(&choices, NULL, text, size);
    return text;
}

static bool heads_are_uneven(const struct layer_spec *s, char *text, size_t size) {
    char legal[120];
    if (s->n_heads % s->n_kv_heads == 0) return false;
    snprintf(text, size, "%lld kv heads do not divide %lld heads; use kv %s", (long long)s->n_kv_heads,
             (long long)s->n_heads, divisors(s->n_heads, s->n_heads, legal, sizeof legal));
    return true;
}

static bool qkv_is_wide(const struct layer_spec *s, char *text, size_t size) {
    const int64_t row = (s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
    if (row <= CONFIG_MAX_WIDTH) return false;
    snprintf(text, size, "the fused qkv row has %lld elements; use sizes that make at most %lld",
             (long long)row, (long long)CONFIG_MAX_WIDTH);
    return true;
}

static bool rotation_is_wrong(const struct layer_spec *s, char *text, size_t size) {
    if (s->rot_dim % 2 == 0 && s->rot_dim <= s->head_dim) return false;
    snprintf(text, size, "%lld of %lld head dims would rotate; use an even rot from 0 to %lld",
             (long long)s->rot_dim, (long long)s->head_dim, (long long)s->head_dim);
    return true;
}

static bool dense_is_empty(const struct layer_spec *s, char *text, size_t size) {
    if (s->moe || s->shared_width > 0) return false;
    snprintf(text, size, "an ffn without experts has a width; use 1 or more");
    return true;
}

static bool top_is_large(const struct layer_spec *s, char *text, size_t size) {
    if (s->top_k <= s->n_experts) return false;
    snprintf(text, size, "%lld experts per token of only %lld; use top 1 to %lld", (long long)s->top_k,
             (long long)s->n_experts, (long long)s->n_experts);
    return true;
}

/* A group's score is the sum of its two best experts. */
static bool groups_are_uneven(const struct layer_spec *s, char *text, size_t size) {
    char legal[120];
    if (s->n_group == 1 || (s->n_experts % s->n_group == 0 && s->n_experts >= 2 * s->n_group)) return false;
    snprintf(text, size, "%lld experts do not make %lld groups of two or more; use groups %s",
             (long long)s->n_experts, (long long)s->n_group,
             divisors(s->n_experts, s->n_experts > 1 ? s->n_experts / 2 : 1, legal, sizeof legal));
    return true;
}

static bool groups_are_few(const struct layer_spec *s, char *text, size_t size) {
    if (s->topk_group <= s->n_group) return false;
    snprintf(text, size, "%lld groups per token of only %lld; use topk_groups 1 to %lld",
             (long long)s->topk_group, (long long)s->n_group, (long long)s->n_group);
    return true;
}

static bool groups_are_small(const struct layer_spec *s, char *text, size_t size) {
    const int64_t in_group = s->n_experts / s->n_group, held = s->topk_group * in_group;
    if (s->top_k <= held) return false;
    snprintf(text, size,
             "%lld of %lld groups hold %lld experts, fewer than %lld per token; use topk_groups %lld to "
             "%lld, or top 1 to %lld",
             (long long)s->topk_group, (long long)s->n_group, (long long)held, (long long)s->top_k,
             (long long)((s->top_k + in_group - 1) / in_group), (long long)s->n_group, (long long)held);
    return true;
}

static bool weight_is_large(const struct layer_spec *s, char *text, size_t size) {
    int64_t rows;
    if (!spec_too_large(s, &rows)) return false;
    snprintf(text, size, "a tensor of %lld x %lld elements; use sizes that make at most 2^40",
             (long long)rows, (long long)s->hidden);
    return true;
}

#define KEY(field) offsetof(struct check_case, field)
static const struct {
    bool (*broken)(const struct layer_spec *s, char *text, size_t size);
    size_t blamed[6]; /* fields of keys, the first given one; ended by 0 */
} rules[] = {
    {heads_are_uneven, {KEY(kv), KEY(heads)}},
    {qkv_is_wide, {KEY(heads), KEY(kv), KEY(dim)}},
    {rotation_is_wrong, {KEY(rot), KEY(dim)}},
    {dense_is_empty, {KEY(shared)}},
    {top_is_large, {KEY(top), KEY(experts)}},
    {groups_are_uneven, {KEY(groups), KEY(experts)}},
    {groups_are_few, {KEY(topk_groups), KEY(groups)}},
    {groups_are_small, {KEY(topk_groups), KEY(top), KEY(groups), KEY(experts)}},
    {weight_is_large, {KEY(hidden), KEY(experts), KEY(width), KEY(shared), KEY(heads)}},
};
#undef KEY

struct status case_spec_check(const struct check_case *c, const struct layer_spec *spec,
                              const struct case_given *given) {
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
        char text[300], value[32];
        if (!rules[r].broken(spec, text, sizeof text)) continue;
        int key = case_key_at(rules[r].blamed[0]);
        for (const size_t *at = rules[r].blamed; *at; at++)
            if (case_key_is_set(case_key_at(*at), c)) {
                key = case_key_at(*at);
                break;
            }
        case_key_text(key, c, value, sizeof value);
        return status_error("%s%s: %s", case_label(given, key).text, value, text);
    }
    return status_ok();
}
