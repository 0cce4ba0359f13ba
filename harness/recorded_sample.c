/* Which tokens are enough, where all would take too long? */
/* SPDX-License-Identifier: MIT */
#include "harness/recorded_sample.h"

#include <stdlib.h>
#include <string.h>

#include "fixtures/fill.h"
#include "harness/memory.h"
#include "layer/copy.h"

enum { RUN = 4, FEWEST = 64 };

/* ---- drawing ---- */

static double work_of_step(const struct recorded_run *r) {
    double work = 0;
    for (int stage = 0; stage < S_COUNT; stage++) {
        struct call call;
        if (!stage_applies(stage, r->crew.part, &r->crew.spec) || op_table[stage_table[stage].op].by_world)
            continue;
        call_sketch(&call, &(struct setting){stage, 0, &r->crew.spec, &r->crew.plan, &r->batch}, DTYPE_BF16);
        work += call_work(&call) * (double)r->crew.plan.tp;
    }
    return work;
}

static void take(struct recorded_run *r, int64_t token) {
    r->sample.n += !r->sample.token[token];
    r->sample.token[token] = true;
}

void recorded_sample_draw(struct recorded_run *r) {
    const int64_t tokens = r->batch.n_tokens;
    const double work = work_of_step(r);
    if (work <= r->source->most_work) return;
    int64_t wanted = (int64_t)((double)tokens * r->source->most_work / work);
    if (wanted < FEWEST) wanted = FEWEST;
    if (wanted >= tokens) return;
    r->sample.token = memory_zeroed((size_t)tokens, sizeof *r->sample.token);
    for (int64_t seq = 0; seq < r->batch.n_seqs; seq++) {
        take(r, r->batch.query_start[seq]);
        take(r, r->batch.query_start[seq + 1] - 1);
    }
    const int64_t runs = (tokens + RUN - 1) / RUN;
    const struct fill fill = {.spec = &r->crew.spec};
    int32_t *const run = memory_zeroed((size_t)runs, sizeof *run);
    fill_permutation(&fill, runs, run);
    for (int64_t i = 0; i < wanted / RUN; i++)
        for (int64_t t = run[i] * RUN; t < (run[i] + 1) * RUN && t < tokens; t++) take(r, t);
    free(run);
}

void recorded_sample_experts(struct recorded_run *r) {
    const int64_t k = r->crew.spec.top_k;
    const struct stored *const ids = &r->own[0].of[T_IDS];
    if (!r->sample.token || !ids->count) return;
    bool *const met = memory_zeroed((size_t)r->crew.spec.n_experts, sizeof *met);
    for (int pass = 0; pass < 2; pass++) /* those of the sample; then the first token of every other one */
        for (int64_t i = 0; i < ids->count; i++) {
            const int32_t expert = ((const int32_t *)ids->memory.data)[i];
            if (expert < 0 || expert >= r->crew.spec.n_experts || met[expert]) continue;
            if (pass) take(r, i / k);
            met[expert] = pass || r->sample.token[i / k];
        }
    free(met);
}

void recorded_sample_free(struct recorded_run *r) {
    free(r->sample.token);
    r->sample = (struct recorded_sample){0};
}

/* ---- rows ---- */

static bool is_recorded(const struct recorded_run *r, const struct placed *at, enum tensor_id id) {
    const struct recorded what = {r->step, r->layer, r->crew.part, at->stage, id, at->rank};
    return recording_has(r->source->recording, &what);
}

bool recorded_is_sampled(const struct recorded_run *r, const struct placed *at) {
    const enum op op = placed_row(at)->op;
    if (!r->sample.token || at->stage == S_ROUTER) return false;
    if (at->stage == S_QKV_PROJ) return is_recorded(r, at, T_QKV);
    return op == OP_LINEAR || op == OP_GATED_LINEAR || op == OP_ATTENTION;
}

static int64_t token_of(const struct recorded_run *r, const struct placed *at, int64_t row) {
    const struct stored *const slots = &r->own[at->rank].of[T_ROW_SLOT];
    const bool sorted = tensor_table[placed_row(at)->out[0]].axes[0] != 't';
    return sorted ? ((const int32_t *)slots->memory.data)[row] / r->crew.spec.top_k : row;
}

/* ---- products of some rows ---- */

/* A product's operands whose rows are few of its own. */
struct few {
    struct call call;
    const double *radius[MAX_PARTS];
    double *x, *x_radius;
    int32_t *offsets;
    int64_t *row; /* [n] which they are */
    int64_t n;
};

static struct view rows_view(double *data, int64_t n, int64_t width) {
    return (struct view){data, DTYPE_F64, {width, 1}, 0, n * width};
}

static void take_row(const struct view *x, const double *radius, int64_t row, int64_t width, double *values,
                     double *radii) {
    for (int64_t i = 0; i < width; i++) {
        const int64_t at = row * x->stride[0] + i;
        values[i] = dtype_load(x->data, x->dtype, at);
        if (radius) radii[i] = radius[at];
    }
}

/* x [n, K] and offsets [groups + 1] of the rows that are wanted. */
static void gather(struct few *few, const struct outcome *o, const struct view *x, const struct view *offsets,
                   int64_t n_inner, int64_t n_groups) {
    const double *const radius = o->fuzzy ? o->radius[0] : NULL;
    few->x = memory_zeroed((size_t)(few->n * n_inner), sizeof *few->x);
    few->x_radius = radius ? memory_zeroed((size_t)(few->n * n_inner), sizeof *few->x_radius) : NULL;
    few->offsets = memory_zeroed((size_t)n_groups + 1, sizeof *few->offsets);
    for (int64_t i = 0; i < few->n; i++)
        take_row(x, radius, few->row[i], n_inner, few->x + i * n_inner,
                 radius ? few->x_radius + i * n_inner : NULL);
    for (int64_t g = 0, i = 0; g <= n_groups && offsets->data; g++) {
        while (i < few->n && few->row[i] < ((const int32_t *)offsets->data)[g * offsets->stride[0]]) i++;
        few->offsets[g] = (int32_t)i;
    }
    memcpy(few->radius, o->radius, sizeof few->radius);
    few->radius[0] = few->x_radius;
}

static void bind_few(struct few *few, const struct outcome *o) {
    struct linear_args *const l = &few->call.u.linear;
    struct gated_linear_args *const g = &few->call.u.gated_linear;
    const bool gated = few->call.op == OP_GATED_LINEAR;
    struct view *const x = gated ? &g->x : &l->x, *const offsets = gated ? &g->offsets : &l->offsets;
    const int64_t n_inner = gated ? g->n_inner : l->n_inner, n_groups = gated ? g->n_groups : l->n_groups;
    gather(few, o, x, offsets, n_inner, n_groups);
    *x = rows_view(few->x, few->n, n_inner);
    if (offsets->data) *offsets = (struct view){few->offsets, DTYPE_I32, {1}, 0, n_groups + 1};
    *(gated ? &g->n_rows : &l->n_rows) = few->n;
}

/* Row i of `some` is row few->row[i] of the answer. */
static void compute_few(struct few *few, const struct outcome *o, struct answer *a) {
    const int64_t size = a->row_size[0];
    double *const some = memory_zeroed((size_t)(3 * few->n * size), sizeof *some);
    struct ref_out out[MAX_REF_OUT] = {
        {some, some + few->n * size, a->s1[0] ? some + 2 * few->n * size : NULL}};
    few->call = o->call;
    bind_few(few, o);
    ref_compute(&few->call, &o->contract, o->fuzzy ? few->radius : NULL, 0, few->n, out);
    for (int64_t i = 0; i < few->n; i++) {
        const size_t bytes = (size_t)size * sizeof *some;
        memcpy(a->y[0] + few->row[i] * size, out[0].y + i * size, bytes);
        memcpy(a->e[0] + few->row[i] * size, out[0].e + i * size, bytes);
        if (a->s1[0]) memcpy(a->s1[0] + few->row[i] * size, out[0].s1 + i * size, bytes);
    }
    free(few->x), free(few->x_radius), free(few->offsets), free(some);
}

/* ---- an answer ---- */

static void compute_runs(const struct few *few, const struct outcome *o, struct answer *a) {
    for (int64_t i = 0, end; i < few->n; i = end) {
        for (end = i + 1; end < few->n && few->row[end] == few->row[end - 1] + 1;) end++;
        const int64_t at = few->row[i] * a->row_size[0];
        struct ref_out out[MAX_REF_OUT] = {{a->y[0] + at, a->e[0] + at, a->s1[0] ? a->s1[0] + at : NULL}};
        ref_compute(&o->call, &o->contract, o->fuzzy ? o->radius : NULL, few->row[i], few->row[end - 1] + 1,
                    out);
    }
}

void recorded_sample_compute(const struct recorded_run *r, const struct placed *at, const struct outcome *o,
                             struct answer *a) {
    const int64_t rows = ref_n_rows(&o->call);
    struct few few = {.row = memory_zeroed((size_t)rows, sizeof *few.row)};
    answer_begin(a, at->stage, o);
    for (int i = 0; i < a->n; i++) {
        set_bytes(a->y[i], 0, (size_t)a->count[i] * sizeof(double));
        set_bytes(a->e[i], 0, (size_t)a->count[i] * sizeof(double));
    }
    for (int64_t row = 0; row < rows; row++)
        if (r->sample.token[token_of(r, at, row)]) few.row[few.n++] = row;
    if (o->call.op == OP_ATTENTION)
        compute_runs(&few, o, a);
    else if (few.n)
        compute_few(&few, o, a);
    watch_beat(r->source->watch);
    free(few.row);
}

void recorded_sample_fill(const struct recorded_run *r, const double *values, int64_t count, double *y) {
    const int64_t row = count / r->batch.n_tokens;
    for (int64_t t = 0; t < r->batch.n_tokens; t++)
        if (!r->sample.token[t]) memcpy(y + t * row, values + t * row, (size_t)row * sizeof *y);
}
