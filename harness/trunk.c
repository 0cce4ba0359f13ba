/* Is the unsharded layer right, stage by stage? Inputs are made, a seat fills the outputs, the
 * reference answers, the kernel edge judges; then the outputs are the inputs of what follows. */
/* SPDX-License-Identifier: MIT */
#include "harness/trunk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/coverage.h"
#include "harness/explain.h"
#include "harness/inputs.h"
#include "harness/mistake.h"
#include "harness/order.h"
#include "harness/relate.h"
#include "harness/stage.h"
#include "harness/tags.h"
#include "layer/copy.h"

void trunk_open(struct trunk *t, const struct check_case *c, const struct model *model,
                const struct fixture *fixture, struct device *device, const struct mutant *fault) {
    *t = (struct trunk){.c = *c, .fixture = fixture, .fused_end = -1};
    t->c.tp = t->c.ep = 1;
    t->layer = case_layer(c, model);
    const struct layer_spec spec = case_spec(c, model);
    t->fill = (struct fill){.kind = c->fill, .seed = c->seed, .layer = t->layer, .spec = &t->crew.spec};
    t->spread = (struct spread){.lattice = !fixture && c->fill != FILL_RANDOM && c->fill != FILL_OUTLIERS,
                                .random_signs = !fixture && c->fill == FILL_RANDOM};
    kernel_seat_open(&t->kernels, device, t->c.kernel, 1);
    world_seat_open(&t->world, &world_sim);
    findings_init(&t->findings);
    batch_build(&t->batch, c, &t->fill);
    t->fill.positions = t->batch.positions;
    t->crew = (struct crew){.storage = c->dtype,
                            .layout = c->layout,
                            .whole = &t->store,
                            .own = &t->store,
                            .unsharded = true,
                            .fault = fault};
    crew_open(&t->crew, &spec, c->part, &t->batch, 1, 1);
    if (c->part != PART_ATTENTION) return;
    crew_indices(&t->crew, DTYPE_F32);
    inputs_caches(&t->crew, &t->fill);
}

void trunk_use_weights(struct trunk *t, struct weights *weights) {
    t->weights = weights;
    if (weights) t->spread.random_signs = t->spread.lattice = false;
}

void trunk_close(struct trunk *t) {
    kernel_seat_close(&t->kernels);
    world_seat_close(&t->world);
    store_free(&t->store);
    batch_free(&t->batch);
    answer_free(&t->answer);
    outcome_free(&t->outcome);
    store_free(&t->exact);
    store_free(&t->exact_s1);
    block_free(t->sum_y);
    block_free(t->sum_s1);
}

/* A fused kernel runs when it is named, or when the device has one and nobody named a kernel for
 * what it stands for. */
static bool fused_wanted(const struct trunk *t, int stage) {
    const struct stage_row *const row = &stage_table[stage];
    const char *why;
    if (t->c.kernel[stage]) return true;
    for (int covered = stage + 1; covered <= stage + row->fuses; covered++)
        if (t->c.kernel[covered]) return false;
    return kernel_pick(row->op, t->c.device, NULL, &why) != NULL;
}

bool trunk_has_stage(const struct trunk *t, int stage) {
    const struct stage_row *const row = &stage_table[stage];
    if (stage <= t->fused_end) return false;
    if (!row->fuses) return stage_applies(stage, t->c.part, &t->crew.spec);
    return row->part == t->c.part && row->present(&t->crew.spec) && fused_wanted(t, stage);
}

struct seat *trunk_seat(struct trunk *t, int stage) {
    return op_table[stage_table[stage].op].by_world ? &t->world.seat : &t->kernels.seat;
}

/* Partial sums: y and magnitudes on the unrounded values of what was partial before. Gates are
 * positive, so of magnitudes a combine makes the magnitudes of the whole chain. */
static void sum_exactly(struct trunk *t, const struct placed *at) {
    t->sum_y = answer_exact(at, &t->outcome, &t->exact);
    t->sum_s1 = answer_exact(at, &t->outcome, &t->exact_s1);
}

static void trunk_trend(struct trunk *t, const struct placed *at, struct verdict verdict) {
    const double start = clock_seconds();
    watch_beat(t->watch);
    judge_order(at, &t->outcome, &t->answer, verdict);
    judge_trend(at, &t->outcome, &t->answer, t->spread, verdict);
    watch_beat(t->watch);
    t->seconds_reference += clock_seconds() - start;
}

/* A local fill: which sets are one value; where the fill says all and they are not, its precondition
 * does not hold (a contract or a size it does not fit), and agreement would prove less than it
 * says. */
static void count_single(struct trunk *t, const struct placed *at) {
    const struct answer *const a = &t->answer;
    bool promised = true;
    for (int i = 0; i < a->n; i++) {
        const enum dtype dtype = placed_dtype(at, a->id[i]);
        promised &= fill_is_exact(&t->fill, dtype);
        for (int64_t n = 0; n < a->count[i]; n++)
            t->edge.single += element_is_single(dtype, a->y[i][n], a->e[i][n]);
        t->edge.sets += a->count[i];
    }
    if (!promised || t->edge.single == t->edge.sets || t->inexact[0]) return;
    snprintf(t->inexact, sizeof t->inexact,
             "fill %s: at stage %s only %lld of %lld elements have one right value, as %s declares its "
             "arithmetic; use fill=random",
             fill_name(t->fill.kind), placed_row(at)->name, (long long)t->edge.single,
             (long long)t->edge.sets, t->outcome.by);
}

struct status trunk_stage(struct trunk *t, int stage) {
    const struct placed at = {&t->crew, stage, 0};
    const struct mutant *const seeded = t->mutant && t->mutant->unsharded ? t->mutant : NULL;
    struct seat *const seat = trunk_seat(t, stage);
    t->edge = (struct edge_result){0};
    t->declined = false;
    t->seconds_reference = 0;
    t->outcome.kernel = NULL;
    TRY(watch_step(t->watch, t->fixture ? DOING_FILE : DOING_REFERENCE, stage, -1, 0, t->c.model));
    TRY(inputs_prepare(t, stage));
    TRY(seat->prepare(seat, &at, &t->outcome));
    TRY(mistake_fill(seat, &at, seeded, &t->outcome));
    t->mistaken |= t->outcome.mistaken;
    if (!t->outcome.by && stage_table[stage].fuses && !t->c.kernel[stage]) {
        t->declined = true;
        return status_ok();
    }
    if (!t->outcome.by) {
        snprintf(t->unsupported, sizeof t->unsupported, "%s", t->outcome.problem);
        return status_ok();
    }
    if (stage_table[stage].fuses) t->fused_end = stage + stage_table[stage].fuses;
    const struct verdict verdict = {&t->edge, &t->findings};
    judge_running(&at, &t->outcome, verdict);
    const double start = clock_seconds();
    order_learn(&at, &t->outcome, verdict);
    answer_begin(&t->answer, stage, &t->outcome);
    answer_sizes(&t->answer); /* what ranks add up to is held against them */
    answer_fill(&t->answer, &t->outcome, t->watch);
    if (fill_is_local(t->fill.kind)) count_single(t, &at);
    t->seconds_reference = clock_seconds() - start;
    judge_choice(&at, &t->outcome, verdict); /* the choice before the gates, which follow from it */
    judge_own(&at, &t->outcome, verdict);    /* and the order before the rows */
    judge_answer(&at, &t->outcome, &t->answer, verdict);
    coverage_see(&t->facts, &at, &t->outcome, &t->edge);
    inspect(t->print, &at, &t->outcome, &t->answer);
    judge_schedule(&at, &t->outcome, &t->answer, t->edge.state != EDGE_FAIL, verdict);
    if (t->edge.state == EDGE_FAIL && t->findings.stage == stage) {
        t->findings.tiles = outcome_tiles(&t->outcome);
        if (t->c.fill == FILL_TAGS) tags_read(&at, &t->outcome, &t->answer, t->read, sizeof t->read);
        explain(&at, &t->outcome, &t->answer, t->likely, sizeof t->likely);
        if (!t->likely[0]) relate(&at, &t->outcome, &t->answer, NULL, t->resembles, sizeof t->resembles);
    }
    trunk_trend(t, &at, verdict);
    sum_exactly(t, &at);
    return status_ok();
}

static void keep_exact(struct store *store, enum tensor_id id, int64_t count, const double *values) {
    copy_bytes(store_new(store, id, DTYPE_F64, count), values, (size_t)count * sizeof *values);
}

/* Of a stage that failed, NaN, infinity and poison go on as the reference's values: what one kernel
 * left is no defect of the stages that read it, nor of the ranks. */
static void mend(struct trunk *t, int stage) {
    const struct placed at = {&t->crew, stage, 0};
    const struct answer *const a = &t->answer;
    for (int i = 0; i < a->n && t->edge.state == EDGE_FAIL; i++) {
        const enum dtype dtype = placed_dtype(&at, a->id[i]);
        double *const values = memory_zeroed((size_t)a->count[i], sizeof *values);
        void *owned;
        const void *const got = answer_stored(&at, &t->outcome.got, a, i, &owned);
        for (int64_t n = 0; n < a->count[i]; n++) {
            const double stored = dtype_load(got, dtype, n);
            values[n] = fabs(stored) < dtype_huge(dtype) || !isfinite(a->y[i][n]) ? stored : a->y[i][n];
        }
        answer_put(&at, &t->outcome.got, a, i, values);
        free(owned);
        free(values);
    }
}

void trunk_stage_done(struct trunk *t, int stage) {
    const struct answer *const a = &t->answer;
    mend(t, stage);
    for (int i = 0; i < a->n; i++) {
        if (!tensor_continues(a->id[i])) continue;
        keep_exact(&t->exact, a->id[i], a->count[i], t->sum_y ? t->sum_y : a->y[i]);
        keep_exact(&t->exact_s1, a->id[i], a->count[i], t->sum_s1 ? t->sum_s1 : a->s1[i]);
    }
    block_free(t->sum_y);
    block_free(t->sum_s1);
    t->sum_y = t->sum_s1 = NULL;
    answer_free(&t->answer);
    crew_keep(&t->crew, stage, 0, &t->outcome.got, true);
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (tensor_table[*id].role == ROLE_WEIGHT) store_drop(&t->store, *id);
}
