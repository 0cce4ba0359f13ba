/* Which cases does the grid add? The lines of fixtures/gallery, and a template over the model. */
/* SPDX-License-Identifier: MIT */
#include "harness/grid.h"

#include <stdio.h>
#include <string.h>

#include "fixtures/gallery.h"

struct status grid_gallery(struct grid_taker *taker) {
    for (const char *const *line = gallery; *line; line++) {
        struct check_case c;
        struct model model;
        bool has_part;
        TRY(case_parse(*line, &c, &has_part));
        TRY(model_load(c.model, &model));
        TRY(taker->take(taker, &c, &model));
    }
    return status_ok();
}

/* ---- twins ---- */

enum layer_kind { KIND_ATTENTION, KIND_EXPERTS, KIND_DENSE };

/* What a twin is run with, beside its sizes: keys of the case line. */
static const struct {
    enum layer_kind kind;
    const char *keys;
} template[] = {
    {KIND_ATTENTION, "tp=2,tokens=65,seqs=2"},
    {KIND_ATTENTION, "tp=1,tokens=17,dtype=fp32,layout=contig"},
    {KIND_ATTENTION, "tp=4,phase=chunked,tokens=9,cached=70,seqs=3,lengths=spread,dtype=fp16"},
    {KIND_ATTENTION, "tp=8,phase=decode,tokens=3,cached=200"},
    {KIND_ATTENTION, "tp=2,phase=decode,tokens=4,cached=15,lengths=equal,layout=contig"},
    {KIND_EXPERTS, "tp=2,tokens=33"},
    {KIND_EXPERTS, "tp=1,tokens=129"},
    {KIND_EXPERTS, "tp=4,ep=2,tokens=17,dtype=fp32"},
    {KIND_EXPERTS, "tp=8,ep=4,tokens=5"},
    {KIND_EXPERTS, "tp=4,ep=4,tokens=1,dtype=fp16"},
    {KIND_DENSE, "tp=4,tokens=17,dtype=fp16"},
    {KIND_DENSE, "tp=2,tokens=65,dtype=fp32"},
};

static int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

/* Channels and widths that 8 ranks can cut. */
static void shrink(struct check_case *c, enum layer_kind kind, const struct layer_spec *s) {
    c->hidden = 64;
    if (kind == KIND_ATTENTION) {
        c->kv = at_most(s->n_kv_heads, 4);
        c->heads = s->n_heads / s->n_kv_heads * c->kv;
        c->dim = at_most(s->head_dim, 32);
        return;
    }
    if (kind == KIND_EXPERTS) c->width = 32;
    if (s->shared_width) c->shared = 64;
}

static struct status set_keys(struct check_case *c, const char *keys) {
    char text[120], *rest = text;
    snprintf(text, sizeof text, "%s", keys);
    for (char *key; (key = strsep(&rest, ","));) {
        char *const value = strchr(key, '=');
        *value = 0;
        TRY(case_set(c, key, key, value + 1));
    }
    return status_ok();
}

/* The first layer of the kind; -1: the model has none. */
static int64_t layer_of(const struct model *model, enum layer_kind kind) {
    const enum part part = kind == KIND_ATTENTION ? PART_ATTENTION : PART_FFN;
    for (int64_t layer = 0; layer < model->n_layers; layer++)
        if (model_layer_has_part(model, layer, part) &&
            (kind == KIND_ATTENTION || model_layer(model, layer).moe == (kind == KIND_EXPERTS)))
            return layer;
    return -1;
}

struct status grid_twins(const char *name, struct grid_taker *taker) {
    struct model model;
    TRY(model_load(name, &model));
    for (size_t i = 0; i < sizeof template / sizeof *template; i++) {
        const enum layer_kind kind = template[i].kind;
        const int64_t layer = layer_of(&model, kind);
        struct check_case c = case_defaults();
        if (layer < 0) continue;
        const struct layer_spec spec = model_layer(&model, layer);
        TRY(case_set_model(&c, name, strlen(name)));
        c.part = kind == KIND_ATTENTION ? PART_ATTENTION : PART_FFN;
        if (layer != case_layer(&c, &model)) c.layer = layer;
        shrink(&c, kind, &spec);
        TRY(set_keys(&c, template[i].keys));
        case_finish(&c);
        if (case_check(&c, &model, NULL).code) continue;
        TRY(taker->take(taker, &c, &model));
    }
    return status_ok();
}
