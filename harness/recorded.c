/* Did every rank of somebody's run store what the layer says? The files sit in the seats of all
 * ranks. */
/* SPDX-License-Identifier: MIT */
#include "harness/recorded.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/facts.h"
#include "harness/oracle.h"
#include "harness/recorded_keys.h"
#include "harness/recorded_sample.h"
#include "harness/where.h"

/* ---- opening ---- */

static void close_run(struct recorded_run *r) {
    for (int rank = 0; rank < r->crew.plan.tp; rank++) {
        store_free(&r->own[rank]);
        store_free(&r->radius[rank]);
    }
    store_free(&r->whole);
    recorded_ties_free(r);
    recorded_sample_free(r);
    desk_free(&r->desk);
    batch_free(&r->batch);
    recorded_batch_free(&r->of_step);
    free(r->own), free(r->radius), free(r->unknown), free(r->asked), free(r->summed), free(r->masked);
    *r = (struct recorded_run){0};
}

static struct status open_run(struct recorded_run *r, const struct recorded_source *source,
                              const struct check_case *c, const struct layer_spec *spec, int64_t layer,
                              int step) {
    struct recorded_batch step_batch;
    TRY(recording_step(source->recording, step, &step_batch));
    if (!step_batch.n_tokens)
        return status_error(
            "step %d of the dump: no positions among its tensors, or no tokens, so its sequences "
            "are not known; record a pass with tokens, and the layer's inputs, too",
            step);
    *r = (struct recorded_run){.source = source, .step = step, .layer = layer, .of_step = step_batch};
    recorded_keys_batch(&r->of_step, &r->batch);
    const size_t tp = (size_t)c->tp;
    r->own = memory_zeroed(tp, sizeof *r->own);
    r->radius = memory_zeroed(tp, sizeof *r->radius);
    r->unknown = memory_zeroed(tp * T_COUNT, sizeof *r->unknown);
    r->asked = memory_zeroed(tp * T_COUNT, sizeof *r->asked);
    r->summed = memory_zeroed(tp, sizeof *r->summed);
    r->masked = memory_zeroed((size_t)r->batch.n_tokens, sizeof *r->masked);
    r->crew = (struct crew){.storage = DTYPE_F64, .whole = &r->whole, .own = r->own, .radius = r->radius};
    crew_open(&r->crew, spec, c->part, &r->batch, c->tp, c->ep);
    for (int id = 0; id < T_COUNT; id++) r->since[id] = S_COUNT;
    recorded_sample_draw(r);
    if (c->part != PART_ATTENTION) return status_ok();
    crew_indices(&r->crew, DTYPE_F64);
    return status_ok();
}

/* ---- a case ---- */

static struct stage_result *row_of(struct case_result *result, int stage) {
    for (int i = 0; i < result->n_stages; i++)
        if (!strcmp(result->stage[i].stage, stage_table[stage].name)) return &result->stage[i];
    struct stage_result *const row = &result->stage[result->n_stages++];
    snprintf(row->stage, sizeof row->stage, "%s", stage_table[stage].name);
    snprintf(row->kernel, sizeof row->kernel, "%s", ONLY_COPIES);
    return row;
}

/* A stage of which nothing was judged: another is judged for it, or it says why. */
static void note_silent(const struct recorded_run *r, struct stage_result *row) {
    const int stage = stage_by_name(row->stage);
    if (row->edge[EDGE_ORACLE].elements || row->unjudged[0]) return;
    row->kernel[0] = 0;
    if (r->span_to[stage])
        snprintf(row->kernel, sizeof row->kernel, "in the span to %s", stage_table[r->span_to[stage]].name);
    else if (r->source->only && !r->source->only[stage])
        snprintf(row->kernel, sizeof row->kernel, "not asked for");
    else
        snprintf(row->unjudged, sizeof row->unjudged,
                 "nothing of it, and nothing it leads to, is in the dump");
}

/* Their keys nobody knows; the other tokens are judged. */
static void note_masked(const struct recorded_run *r) {
    if (r->n_masked && !r->row->unjudged[0])
        snprintf(
            r->row->unjudged, sizeof r->row->unjudged,
            "%lld of %lld tokens of step %d begin behind keys that are not in the dump, or may be those of "
            "several sequences, or are padding",
            (long long)r->n_masked, (long long)r->batch.n_tokens, r->step);
}

/* How many of the step's tokens, and where: said once the part is through, for routing adds some. */
static void note_sample(const struct recorded_run *r, struct case_result *result) {
    const size_t used = strlen(result->sampled), size = sizeof result->sampled;
    if (!r->sample.token) return;
    snprintf(result->sampled + used, size - used, "%s%lld of %lld tokens", used ? ", " : "",
             (long long)r->sample.n, (long long)r->batch.n_tokens);
}

static struct status run_step(struct recorded_run *r, struct case_result *result, struct findings *findings) {
    struct status s = status_ok();
    for (int stage = 0; stage < S_COUNT && !s.code; stage++) {
        if (!stage_applies(stage, r->crew.part, &r->crew.spec)) continue;
        r->row = row_of(result, stage);
        r->wanted = !r->source->only || r->source->only[stage];
        r->verdict = (struct verdict){&r->row->edge[EDGE_ORACLE], findings};
        s = recorded_stage(r, stage);
        if (stage == S_ATTENTION) note_masked(r);
        if (stage == S_ROUTE && !s.code) s = recorded_settle_ties(r);
    }
    for (int i = 0; i < result->n_stages && !s.code; i++) note_silent(r, &result->stage[i]);
    return s;
}

/* Copies that agree say nothing of the layer. */
bool recorded_any_judged(const struct case_result *result) {
    for (int i = 0; i < result->n_stages; i++)
        if (result->stage[i].edge[EDGE_ORACLE].elements && strcmp(result->stage[i].kernel, ONLY_COPIES) != 0)
            return true;
    return false;
}

static void conclude(const struct crew *crew, int64_t layer, int64_t n_ranks, const struct findings *f,
                     struct case_result *result) {
    for (int i = 0; i < result->n_stages; i++)
        edge_merge(&result->edge[EDGE_ORACLE], &result->stage[i].edge[EDGE_ORACLE]);
    if (result->edge[EDGE_ORACLE].state == EDGE_FAIL) {
        result->verdict = CASE_FAILED;
        where_describe(f, n_ranks, crew, result->where, sizeof result->where);
        result->first = f->first;
        result->worst = f->worst;
        heat_draw(&f->heats, &result->map);
    } else if (result->reason[0]) {
        result->verdict = CASE_SKIPPED;
    } else if (!recorded_any_judged(result)) {
        result->verdict = CASE_SKIPPED;
        snprintf(result->reason, sizeof result->reason, "nothing of layer %lld's %s could be judged",
                 (long long)layer, part_name(crew->part));
    } else {
        result_skip_loose(result);
    }
}

struct status recorded_case(const struct recorded_source *source, const struct check_case *c,
                            struct case_result *result) {
    const struct model *const model = recording_model(source->recording);
    const struct layer_spec spec = case_spec(c, model);
    const int64_t layer = case_layer(c, model);
    struct recorded_run *const r = memory_zeroed(1, sizeof *r);
    struct findings *const findings = memory_zeroed(1, sizeof *findings);
    struct recorded_keys keys = {0};
    struct status s = status_ok();
    findings_init(findings);
    bool explained = false;
    result->likely[0] = result->resembles[0] = result->reason[0] = 0;
    for (int step = 0; step < recording_steps(source->recording) && !s.code; step++) {
        if (step) close_run(r);
        s = open_run(r, source, c, &spec, layer, step);
        r->result = result;
        r->explained = &explained;
        if (!s.code) recorded_keys_put(&keys, r);
        if (!s.code) s = run_step(r, result, findings);
        if (!s.code) recorded_keys_take(&keys, r, c->tp);
        if (!s.code) note_sample(r, result);
    }
    if (!s.code) conclude(&r->crew, r->layer, r->crew.plan.tp, findings, result);
    recorded_keys_free(&keys, c->tp);
    close_run(r);
    free(findings);
    free(r);
    return s;
}

/* ---- of an HDF5 file ---- */

/* The reference goes on through what a file does not show, to the next stage that it does. */
static void note_span_of_file(struct case_result *result, int i) {
    struct stage_result *const row = &result->stage[i];
    int end = i + 1;
    while (end < result->n_stages && !result->stage[end].edge[EDGE_ORACLE].elements) end++;
    if (end < result->n_stages)
        snprintf(row->kernel, sizeof row->kernel, "in the span to %.20s", result->stage[end].stage);
    else
        snprintf(row->unjudged, sizeof row->unjudged,
                 "nothing of it, and nothing it leads to, is in the file");
}

static struct status fixture_case(const struct recorded_source *source, const struct check_case *c,
                                  struct case_result *result) {
    struct check_case whole = *c;
    struct trunk *const trunk = memory_zeroed(1, sizeof *trunk);
    struct findings *const findings = memory_zeroed(1, sizeof *findings);
    struct edge_result edges[S_COUNT] = {0};
    int64_t tp, ep;
    whole.tp = whole.ep = 1;
    findings_init(findings);
    trunk_open(trunk, &whole, fixture_model(source->fixture), source->fixture, NULL, NULL);
    trunk->watch = source->watch;
    fixture_ranks(source->fixture, &tp, &ep);
    const struct status s = oracle_edge_run(source->fixture, trunk, edges, findings, NULL);
    for (int stage = 0; stage < S_COUNT && !s.code; stage++) {
        if (!stage_applies(stage, c->part, &trunk->crew.spec)) continue;
        struct stage_result *const row = row_of(result, stage);
        row->edge[EDGE_ORACLE] = edges[stage];
        snprintf(row->kernel, sizeof row->kernel, "recorded");
    }
    for (int i = 0; i < result->n_stages && !s.code; i++)
        if (!result->stage[i].edge[EDGE_ORACLE].elements) note_span_of_file(result, i);
    if (!s.code) conclude(&trunk->crew, trunk->layer, findings->first.rank >= 0 ? tp : 1, findings, result);
    trunk_close(trunk);
    free(findings);
    free(trunk);
    return s;
}

/* ---- all of them ---- */

static struct status open_source(const struct run_request *o, struct recorded_source *source) {
    const struct judge_wish *const j = &o->judge;
    const struct recording_source from = {j->dump, j->n_dumps, j->model};
    *source = (struct recorded_source){.most_work = j->most_work > 0 ? j->most_work : RECORDED_WORK,
                                       .watch = o->watch};
    if (judge_is_fixture(j)) return fixture_open(j->dump[0], &source->fixture);
    for (int stage = 0; stage < S_COUNT; stage++)
        if (j->only[stage]) source->only = j->only;
    TRY(recording_open(&from, &source->recording));
    const struct model *const model = recording_model(source->recording);
    const char *const contract = j->contract ? j->contract : recording_contract(source->recording);
    TRY(producer_find(contract, &source->producer));
    if (source->producer.storage == DTYPE_BF16) /* the same code, in another dtype */
        source->producer.storage = recording_dtype(source->recording);
    source->producer.model_type = model->model_type;
    source->producer.router_fp32 = model->router_fp32;
    return j->model && model_is_folder(j->model) ? weights_open(model, &source->weights) : status_ok();
}

static void close_source(struct recorded_source *source) {
    weights_close(source->weights);
    recording_close(source->recording);
    fixture_close(source->fixture);
}

static void describe_source(const struct recorded_source *source, struct run_output *out) {
    const struct recording *const r = source->recording;
    const int missing = r ? recording_missing_rank(r) : -1;
    const enum dtype storage = source->producer.storage;
    char without[40] = "";
    if (missing >= 0) snprintf(without, sizeof without, " (of rank %d is nothing)", missing);
    if (source->fixture)
        snprintf(out->device_label, sizeof out->device_label, "no device: recorded by %.120s",
                 fixture_source(source->fixture)[0] ? fixture_source(source->fixture)
                                                    : "whoever wrote the file");
    else
        snprintf(out->device_label, sizeof out->device_label,
                 "no device: recorded by %s on %lld rank%s%s, judged as %s%s", recording_names(r)->name,
                 (long long)recording_tp(r), recording_tp(r) > 1 ? "s" : "", without,
                 source->producer.row->name,
                 storage == DTYPE_F16   ? " in fp16"
                 : storage == DTYPE_F32 ? " in fp32"
                                        : "");
}

struct status recorded_cases(const struct run_request *o, struct run_output *out) {
    struct recorded_source source;
    const double start = clock_seconds();
    *out = (struct run_output){0};
    struct status s = open_source(o, &source);
    if (!s.code) {
        run_output_open(out, o);
        describe_source(&source, out);
        if (o->watch && o->watch->device) o->watch->device(o->watch, out->device_label);
        for (int64_t i = 0; i < o->n_cases; i++) {
            const double begin = clock_seconds();
            struct case_result *const r = &out->cases[i];
            if (o->watch) o->watch->case_index = i;
            r->stage = memory_zeroed(S_COUNT, sizeof *r->stage);
            if (!s.code)
                s = source.fixture ? fixture_case(&source, &o->cases[i], r)
                                   : recorded_case(&source, &o->cases[i], r);
            r->seconds = clock_seconds() - begin;
            if (s.code) result_not_run(r, s.message);
            if (o->watch && o->watch->result) o->watch->result(o->watch, i, r);
        }
        if (s.code != STATUS_STOPPED) out->trouble = s;
        run_output_count(out, o, clock_seconds() - start);
    }
    close_source(&source);
    return out->cases ? status_ok() : s;
}
