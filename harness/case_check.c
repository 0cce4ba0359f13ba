/* Can this model be cut and run as the case says?  Every refusal is one line: cause, then the
 * values that would work. */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "harness/case.h"
#include "layer/choices.h"
#include "layer/plan.h"

enum {
    MAX_NEW_TOKENS = 65536, /* over all sequences */
    MAX_KEYS = 1 << 20      /* over all sequences: 2 GiB of k and v for Param2 */
};

/* Leaves room for the rest of the line; the end of a path says more than its start. */
static const char *short_name(const struct model *model) {
    enum { ROOM = 100 };
    const size_t length = strlen(model->name);
    return length > ROOM ? model->name + length - ROOM : model->name;
}

static void legal_tp(struct choices *out, const struct layer_spec *spec, enum part part, int64_t ep) {
    for (int64_t tp = 1; tp <= MAX_RANKS; tp++)
        if (plan_fits(spec, part, tp, ep)) choices_add(out, "%lld", (long long)tp);
}

/* tp 0: legal with any number of ranks. */
static void legal_ep(struct choices *out, const struct layer_spec *spec, enum part part, int64_t tp) {
    for (int64_t ep = 1; ep <= MAX_RANKS; ep++) {
        bool legal = false;
        for (int64_t ranks = tp ? tp : 1; ranks <= (tp ? tp : MAX_RANKS) && !legal; ranks++)
            legal = plan_fits(spec, part, ranks, ep);
        if (legal) choices_add(out, "%lld", (long long)ep);
    }
}

/* "32 heads and 8 kv heads": what the ranks have to divide. */
static void describe_sizes(const struct layer_spec *spec, enum part part, char *text, size_t size) {
    if (part == PART_ATTENTION)
        snprintf(text, size, "%lld heads and %lld kv heads", (long long)spec->n_heads,
                 (long long)spec->n_kv_heads);
    else if (!spec->moe)
        snprintf(text, size, "a dense ffn of width %lld", (long long)spec->shared_width);
    else if (spec->shared_width)
        snprintf(text, size, "%lld experts of width %lld and a shared one of width %lld",
                 (long long)spec->n_experts, (long long)spec->expert_width, (long long)spec->shared_width);
    else
        snprintf(text, size, "%lld experts of width %lld", (long long)spec->n_experts,
                 (long long)spec->expert_width);
}

/* What is checked, and how the keys are called. */
struct check {
    const struct check_case *c;
    const struct case_given *given;
    const struct model *model;
    struct layer_spec spec;
    int64_t layer;
};

#define LABEL(check, field) (case_label((check)->given, CASE_KEY(field)).text)

/* Blames ep where some other ep would do at this tp (or none does at any), else tp. */
static struct status check_ranks(const struct check *k) {
    const struct check_case *const c = k->c;
    const struct layer_spec *const spec = &k->spec;
    const char *const name = short_name(k->model);
    if (plan_fits(spec, c->part, c->tp, c->ep)) return status_ok();
    char sizes[128], text[220];
    describe_sizes(spec, c->part, sizes, sizeof sizes);
    struct choices tps = {0}, eps = {0};
    legal_tp(&tps, spec, c->part, c->ep);
    legal_ep(&eps, spec, c->part, c->tp);
    if (c->ep > 1 && (eps.n > 0 || tps.n == 0)) {
        const bool at_tp = eps.n > 0;
        if (!at_tp) legal_ep(&eps, spec, c->part, 0);
        choices_text(&eps, NULL, text, sizeof text);
        if (at_tp)
            return status_error("%s%lld: %s has %s; with %s%lld use %s", LABEL(k, ep), (long long)c->ep, name,
                                sizes, LABEL(k, tp), (long long)c->tp, text);
        return status_error("%s%lld: %s has %s; use %s", LABEL(k, ep), (long long)c->ep, name, sizes, text);
    }
    choices_text(&tps, NULL, text, sizeof text);
    if (c->ep > 1)
        return status_error("%s%lld: %s has %s; with %s%lld use %s", LABEL(k, tp), (long long)c->tp, name,
                            sizes, LABEL(k, ep), (long long)c->ep, text);
    return status_error("%s%lld: %s has %s; use %s", LABEL(k, tp), (long long)c->tp, name, sizes, text);
}

/* Within the window every key is seen: there, and only there, it makes no difference. */
static struct status check_window(const struct check *k, int64_t n_keys) {
    const int64_t window = k->model->window;
    if (k->c->part != PART_ATTENTION || !window || n_keys <= window) return status_ok();
    const bool cached = k->c->cached > 0;
    return status_error("%s%lld: the last token has %lld keys, and %s sees the last %lld only "
                        "(sliding_window), which is not supported; use at most %lld keys",
                        cached ? LABEL(k, cached) : LABEL(k, tokens),
                        (long long)(cached ? k->c->cached : k->c->tokens), (long long)n_keys,
                        short_name(k->model), (long long)window, (long long)window);
}

static struct status check_tokens(const struct check *k) {
    struct check_case c = *k->c;
    case_finish(&c);
    const bool decode = c.phase == PHASE_DECODE;
    if (c.phase == PHASE_PREFILL && c.cached > 0)
        return status_error("%s%lld: prefill has nothing cached; use 0, or %schunked or decode",
                            LABEL(k, cached), (long long)c.cached, LABEL(k, phase));
    if (decode && c.seqs > 1)
        return status_error("%s%lld: in decode tokens is the number of sequences; use %s1", LABEL(k, seqs),
                            (long long)c.seqs, LABEL(k, seqs));
    const int64_t seqs = decode ? c.tokens : c.seqs, new_tokens = decode ? 1 : c.tokens;
    if (seqs * new_tokens > MAX_NEW_TOKENS)
        return status_error("%s%lld: %lld tokens each are too many; use at most %d tokens in all",
                            LABEL(k, seqs), (long long)c.seqs, (long long)c.tokens, MAX_NEW_TOKENS);
    if (seqs * (c.cached + new_tokens) > MAX_KEYS)
        return status_error("%s%lld: %lld sequences of %lld keys are too many; use at most %d keys in all",
                            LABEL(k, cached), (long long)c.cached, (long long)seqs,
                            (long long)(c.cached + new_tokens), MAX_KEYS);
    return check_window(k, c.cached + new_tokens);
}

/* A kernel of the table that this build cannot launch on the case's device. Where the device has no
 * kernel at all, opening it says why. */
static struct status check_launch(const struct check *k, int stage) {
    const struct kernel *const kernel = k->c->kernel[stage];
    struct choices choices = {0};
    char text[300];
    if (kernel->launch[k->c->device]) return status_ok();
    for (const struct kernel *other = kernel_table; other->name; other++)
        if (other->op == kernel->op && other->launch[k->c->device]) choices_add(&choices, "%s", other->name);
    if (!choices.n) return status_ok();
    choices_text(&choices, kernel->name, text, sizeof text);
    return status_error("%s%s: does not run on device %s in this build; use %s",
                        case_kernel_label(k->given, stage).text, kernel->name, device_kind_name(k->c->device),
                        text);
}

/* A kernel for a step that a named fused one does as well: it would never run, and the report would
 * name it. */
static struct status check_fused(const struct check *k, int fused) {
    const int last = fused + stage_table[fused].fuses;
    for (int s = fused + 1; s <= last; s++)
        if (k->c->kernel[s])
            return status_error("%s%s: never runs, %s of stage %s does its step too; leave one of them out",
                                case_kernel_label(k->given, s).text, k->c->kernel[s]->name,
                                k->c->kernel[fused]->name, stage_table[fused].name);
    return status_ok();
}

static struct status check_kernels(const struct check *k) {
    for (int s = 0; s < S_COUNT; s++) {
        const struct stage_row *const stage = &stage_table[s];
        const struct kernel *const kernel = k->c->kernel[s];
        const struct case_label label = case_kernel_label(k->given, s);
        if (!kernel) continue;
        if (stage->part != k->c->part)
            return status_error("%s%s: %s is a stage of part %s, the case checks %s; leave it out",
                                label.text, kernel->name, stage->name, part_name(stage->part),
                                part_name(k->c->part));
        if (stage->present && !stage->present(&k->spec))
            return status_error("%s%s: layer %lld of %s has no such stage; leave it out", label.text,
                                kernel->name, (long long)k->layer, short_name(k->model));
        TRY(check_launch(k, s));
        TRY(check_fused(k, s));
    }
    return status_ok();
}

static struct status check_scope(const struct check *k) {
    for (int key = 0; case_keys[key].name; key++) {
        const enum case_scope scope = case_keys[key].scope;
        char value[32];
        if (scope == SCOPE_ALL || !case_key_is_set(key, k->c)) continue;
        const struct case_label label = case_label(k->given, key);
        case_key_text(key, k->c, value, sizeof value);
        if (!case_key_in_part(key, k->c->part))
            return status_error("%s%s: is a key of part %s, the case checks %s; leave it out", label.text,
                                value, part_name(scope == SCOPE_ATTENTION ? PART_ATTENTION : PART_FFN),
                                part_name(k->c->part));
        if (scope == SCOPE_EXPERTS && !k->spec.moe)
            return status_error("%s%s: layer %lld of %s has no routed experts; leave it out", label.text,
                                value, (long long)k->layer, short_name(k->model));
    }
    return status_ok();
}

struct status case_check(const struct check_case *c, const struct model *model,
                         const struct case_given *given) {
    struct check k = {.c = c, .given = given, .model = model, .layer = case_layer(c, model)};
    if (k.layer >= model->n_layers)
        return status_error("%s%lld: %s has %lld layers; use 0 to %lld", LABEL(&k, layer), (long long)k.layer,
                            short_name(model), (long long)model->n_layers, (long long)model->n_layers - 1);
    if (!model_layer_has_part(model, k.layer, c->part))
        return status_error("part %s: layer %lld of %s has none; use another layer", part_name(c->part),
                            (long long)k.layer, short_name(model));
    k.spec = case_spec(c, model);
    TRY(check_scope(&k));
    TRY(case_spec_check(c, &k.spec, given));
    TRY(check_tokens(&k));
    TRY(check_kernels(&k));
    TRY(check_ranks(&k));
    const size_t length = case_line_length(c);
    if (length >= CASE_LINE)
        return status_error("%s: the case line would have %zu characters, at most %d fit; use a shorter path",
                            short_name(model), length, CASE_LINE - 1);
    return status_ok();
}
