/* Which two values meet in some case? Few axes, each of a layer's or a batch's choices that code
 * branches on; the sizes are the facts' business. */
/* SPDX-License-Identifier: MIT */
#include "harness/grid.h"

static int log2_of(int64_t n) { return n >= 8 ? 3 : n >= 4 ? 2 : n >= 2 ? 1 : 0; }
static int tp(const struct check_case *c, const struct layer_spec *s) { return (void)s, log2_of(c->tp); }
static int ep(const struct check_case *c, const struct layer_spec *s) { return (void)s, log2_of(c->ep); }
static int phase(const struct check_case *c, const struct layer_spec *s) { return (void)s, (int)c->phase; }
static int storage(const struct check_case *c, const struct layer_spec *s) {
    return (void)s, c->dtype == DTYPE_F32 ? 1 : c->dtype == DTYPE_F16 ? 2 : 0;
}
static int layout(const struct check_case *c, const struct layer_spec *s) { return (void)s, (int)c->layout; }
static int sequences(const struct check_case *c, const struct layer_spec *s) {
    (void)s;
    return (c->phase == PHASE_DECODE ? c->tokens : c->seqs) > 1 ? 1 + (int)c->lengths : 0;
}
static int fill(const struct check_case *c, const struct layer_spec *s) { return (void)s, (int)c->fill; }
static int bias(const struct check_case *c, const struct layer_spec *s) {
    return (void)c, s->o_bias ? 2 : s->qkv_bias;
}
static int qk_norm(const struct check_case *c, const struct layer_spec *s) { return (void)c, s->qk_norm; }
static int rope(const struct check_case *c, const struct layer_spec *s) {
    return (void)c, s->rot_dim < s->head_dim;
}
static int score(const struct check_case *c, const struct layer_spec *s) { return (void)c, (int)s->score; }
static int select_bias(const struct check_case *c, const struct layer_spec *s) {
    return (void)c, s->select_bias;
}
static int renorm(const struct check_case *c, const struct layer_spec *s) { return (void)c, s->renormalise; }
static int shared(const struct check_case *c, const struct layer_spec *s) {
    return (void)c, s->shared_width > 0;
}
static int groups(const struct check_case *c, const struct layer_spec *s) {
    return (void)c, s->topk_group < s->n_group;
}

const struct grid_axis grid_axes[GRID_AXES] = {
    {"tp", PART_ATTENTION, tp, {"1", "2", "4", "8"}},
    {"phase", PART_ATTENTION, phase, {"prefill", "chunked", "decode"}},
    {"sequences", PART_ATTENTION, sequences, {"one", "ragged", "equal", "spread"}},
    {"dtype", PART_ATTENTION, storage, {"bf16", "fp32", "fp16"}},
    {"layout", PART_ATTENTION, layout, {"packed", "contig"}},
    {"bias", PART_ATTENTION, bias, {"none", "qkv", "qkvo"}},
    {"qk_norm", PART_ATTENTION, qk_norm, {"off", "on"}},
    {"partial rope", PART_ATTENTION, rope, {"off", "on"}},
    {"fill", PART_ATTENTION, fill, {"random", "outliers", "ties", "exact", "tags"}},
    {"tp", PART_FFN, tp, {"1", "2", "4", "8"}},
    {"ep", PART_FFN, ep, {"1", "2", "4", "8"}},
    {"dtype", PART_FFN, storage, {"bf16", "fp32", "fp16"}},
    {"score", PART_FFN, score, {"softmax", "sigmoid"}},
    {"select_bias", PART_FFN, select_bias, {"off", "on"}},
    {"renorm", PART_FFN, renorm, {"off", "on"}},
    {"shared", PART_FFN, shared, {"off", "on"}},
    {"group limit", PART_FFN, groups, {"off", "on"}},
    {"fill", PART_FFN, fill, {"random", "outliers", "ties", "exact", "tags"}},
};

bool grid_can_meet(int a, int va, int b, int vb) {
    const struct grid_axis *const x = &grid_axes[a], *const y = &grid_axes[b];
    if (x->part != y->part) return false;
    return !(x->value == tp && y->value == ep && va < vb); /* ep divides tp */
}

int64_t grid_pairs_add(struct grid_pairs *pairs, const struct check_case *c, const struct layer_spec *spec) {
    int64_t n_new = 0;
    if (c->part == PART_FFN && !spec->moe) return 0;
    for (int a = 0; a < GRID_AXES; a++)
        for (int b = a + 1; b < GRID_AXES; b++) {
            if (grid_axes[a].part != c->part || grid_axes[b].part != c->part) continue;
            bool *const met = &pairs->met[a][grid_axes[a].value(c, spec)][b][grid_axes[b].value(c, spec)];
            n_new += !*met;
            *met = true;
        }
    return n_new;
}
