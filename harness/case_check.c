/* Can this model be cut and run as the case says?  Every refusal is one line: cause, then the values that
 * would work. */
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

int64_t case_layer(const struct check_case *c, const struct model *model) {
    if (c->layer >= 0) return c->layer;
    if (c->part == PART_FFN)
        for (int64_t layer = 0; layer < model->n_layers; layer++)
            if (model_layer(model, layer).moe) return layer;
    return 0;
}

/* Leaves room for the rest of the line; the end of a path says more than its start. */
static const char *short_name(const struct model *model) {
    enum { ROOM = 100 };
    const size_t length = strlen(model->name);
    return length > ROOM ? model->name + length - ROOM : model->name;
}

static bool attention_fits(const struct layer_spec *spec, int64_t tp) {
    const int64_t n_kv = spec->n_kv_heads;
    return spec->n_heads % tp == 0 && (n_kv % tp == 0 || tp % n_kv == 0);
}

static bool ffn_fits(const struct layer_spec *spec, int64_t tp, int64_t ep) {
    if (spec->shared_width % tp != 0) return false;
    if (!spec->moe) return ep == 1;
    return tp % ep == 0 && spec->n_experts % ep == 0 && spec->expert_width % (tp / ep) == 0;
}

static bool fits(const struct layer_spec *spec, enum part part, int64_t tp, int64_t ep) {
    return part == PART_ATTENTION ? ep == 1 && attention_fits(spec, tp) : ffn_fits(spec, tp, ep);
}

static void legal_tp(struct choices *out, const struct layer_spec *spec, enum part part, int64_t ep) {
    for (int64_t tp = 1; tp <= MAX_RANKS; tp++)
        if (fits(spec, part, tp, ep)) choices_add(out, "%lld", (long long)tp);
}

/* tp 0: legal with any number of ranks. */
static void legal_ep(struct choices *out, const struct layer_spec *spec, enum part part, int64_t tp) {
    for (int64_t ep = 1; ep <= MAX_RANKS; ep++) {
        bool legal = false;
        for (int64_t ranks = tp ? tp : 1; ranks <= (tp ? tp : MAX_RANKS) && !legal; ranks++)
            legal = fits(spec, part, ranks, ep);
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

/* Blames ep where some other ep would do at this tp (or none does at any), else tp. */
static struct status check_ranks(const struct check_case *c, const struct model *model,
                                 const struct layer_spec *spec, int64_t layer) {
    if (fits(spec, c->part, c->tp, c->ep)) return status_ok();
    if (c->ep > 1 && (c->part == PART_ATTENTION || !spec->moe))
        return status_error("--ep %lld: ep cuts routed experts, %s of layer %lld of %s has none; use 1%s",
                            (long long)c->ep, part_name(c->part), (long long)layer, short_name(model),
                            c->part == PART_ATTENTION ? ", or --part ffn" : "");
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
            return status_error("--ep %lld: %s has %s; with --tp %lld use %s", (long long)c->ep,
                                short_name(model), sizes, (long long)c->tp, text);
        return status_error("--ep %lld: %s has %s; use %s", (long long)c->ep, short_name(model), sizes, text);
    }
    choices_text(&tps, NULL, text, sizeof text);
    if (c->ep > 1)
        return status_error("--tp %lld: %s has %s; with --ep %lld use %s", (long long)c->tp,
                            short_name(model), sizes, (long long)c->ep, text);
    return status_error("--tp %lld: %s has %s; use %s", (long long)c->tp, short_name(model), sizes, text);
}

static struct status check_tokens(const struct check_case *finished) {
    struct check_case c = *finished;
    case_finish(&c);
    const bool decode = c.phase == PHASE_DECODE;
    if (c.phase == PHASE_PREFILL && c.cached > 0)
        return status_error("--cached %lld: prefill has nothing cached; use 0, or --phase chunked or decode",
                            (long long)c.cached);
    if (decode && c.seqs > 1)
        return status_error("--seqs %lld: in decode --tokens is the number of sequences; use --seqs 1",
                            (long long)c.seqs);
    const int64_t seqs = decode ? c.tokens : c.seqs, new_tokens = decode ? 1 : c.tokens;
    if (seqs * new_tokens > MAX_NEW_TOKENS)
        return status_error("--seqs %lld: %lld tokens each are too many; use at most %d tokens in all",
                            (long long)c.seqs, (long long)c.tokens, MAX_NEW_TOKENS);
    if (seqs * (c.cached + new_tokens) > MAX_KEYS)
        return status_error(
            "--cached %lld: %lld sequences of %lld keys are too many; use at most %d keys in all",
            (long long)c.cached, (long long)seqs, (long long)(c.cached + new_tokens), MAX_KEYS);
    return status_ok();
}

/* A kernel of the table that this build cannot launch on the case's device. Where the device has no kernel at all, opening
 * it says why. */
static struct status check_launch(const struct check_case *c, const struct stage_row *stage,
                                  const struct kernel *kernel) {
    struct choices choices = {0};
    char text[300];
    if (kernel->launch[c->device]) return status_ok();
    for (const struct kernel *k = kernel_table; k->name; k++)
        if (k->op == stage->op && k->launch[c->device]) choices_add(&choices, "%s", k->name);
    if (!choices.n) return status_ok();
    choices_text(&choices, kernel->name, text, sizeof text);
    return status_error("--kernel %s=%s: does not run on device %s in this build; use %s", stage->name,
                        kernel->name, device_kind_name(c->device), text);
}

static struct status check_kernels(const struct check_case *c, const struct model *model,
                                   const struct layer_spec *spec, int64_t layer) {
    for (int s = 0; s < S_COUNT; s++) {
        const struct stage_row *stage = &stage_table[s];
        if (!c->kernel[s]) continue;
        if (stage->part != c->part)
            return status_error("--kernel %s=%s: %s is a stage of part %s, the case checks %s; leave it out",
                                stage->name, c->kernel[s]->name, stage->name, part_name(stage->part),
                                part_name(c->part));
        if (stage->present && !stage->present(spec))
            return status_error("--kernel %s=%s: layer %lld of %s has no such stage; leave it out",
                                stage->name, c->kernel[s]->name, (long long)layer, short_name(model));
        TRY(check_launch(c, stage, c->kernel[s]));
    }
    return status_ok();
}

struct status case_check(const struct check_case *c, const struct model *model) {
    const int64_t layer = case_layer(c, model);
    if (layer >= model->n_layers)
        return status_error("--layer %lld: %s has %lld layers; use 0 to %lld", (long long)layer,
                            short_name(model), (long long)model->n_layers, (long long)model->n_layers - 1);
    if (!model_layer_has_part(model, layer, c->part))
        return status_error("--part %s: layer %lld of %s has none; use another --layer", part_name(c->part),
                            (long long)layer, short_name(model));
    const struct layer_spec spec = model_layer(model, layer);
    TRY(check_tokens(c));
    TRY(check_kernels(c, model, &spec, layer));
    TRY(check_ranks(c, model, &spec, layer));
    const size_t length = case_line_length(c);
    if (length >= CASE_LINE)
        return status_error("%s: the case line would have %zu characters, at most %d fit; use a shorter path",
                            short_name(model), length, CASE_LINE - 1);
    return status_ok();
}
