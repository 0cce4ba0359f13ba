/* Everything a run measured, for programs. Schema shardcheck-result/1; keys are only ever added.
 * JSON has no infinity and no NaN: such numbers are the strings "inf", "-inf" and "nan". */
/* SPDX-License-Identifier: MIT */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/json_values.h"
#include "reports/report.h"

static void set_figure(json_t *object, const char *key, struct figure f, bool *failed) {
    if (f.resolution == 0) return;
    json_t *o = json_object();
    set(o, "estimate", number(f.estimate), failed);
    set(o, "resolution", number(f.resolution), failed);
    set(object, key, o, failed);
}

static json_t *trend_object(const struct trend *t, bool *failed) {
    json_t *o = json_object();
    set(o, "state", string(trend_state_name(t->state)), failed);
    set_figure(o, "gain", t->gain, failed);
    set_figure(o, "scale", t->scale, failed);
    set_figure(o, "worst", t->worst, failed);
    set(o, "statistic", number(t->statistic), failed);
    if (t->about[0]) set(o, "about", string(t->about), failed);
    if (t->reason[0]) set(o, "reason", string(t->reason), failed);
    set(o, "elements", integer(t->elements), failed);
    set(o, "tests", integer(t->tests), failed);
    return o;
}

static json_t *edge_object(const struct edge_result *r, bool *failed) {
    json_t *o = json_object();
    set(o, "state", string(edge_state_name(r->state)), failed);
    set(o, "margin", number(r->margin), failed);
    set(o, "elements", integer(r->elements), failed);
    set(o, "outside", integer(r->outside), failed);
    set(o, "ambiguous", integer(r->ambiguous), failed);
    set(o, "sampled_rows", integer(r->sampled_rows), failed);
    set(o, "rows", integer(r->rows), failed);
    if (r->sets) set(o, "single", integer(r->single), failed);
    if (r->sets) set(o, "sets", integer(r->sets), failed);
    if (r->other_bits) set(o, "other_bits", integer(r->other_bits), failed);
    if (r->sharpness > 0) set(o, "sharpness", number(r->sharpness), failed);
    if (r->in_order) set(o, "in_order", integer(r->in_order), failed);
    if (r->order[0]) set(o, "order", string(r->order), failed);
    if (r->vacuous) set(o, "vacuous", integer(r->vacuous), failed);
    if (r->trend.state != TREND_NONE) set(o, "statistical", trend_object(&r->trend, failed), failed);
    return o;
}

static json_t *edges_object(const struct edge_result *edges, bool *failed) {
    json_t *o = json_object();
    for (int e = 0; e < EDGE_COUNT; e++)
        if (edges[e].state != EDGE_NOT_RUN)
            set(o, edge_name((enum edge)e), edge_object(&edges[e], failed), failed);
    return o;
}

static json_t *stages_array(const struct case_result *r, bool *failed) {
    json_t *stages = json_array();
    for (int i = 0; i < r->n_stages; i++) {
        const struct stage_result *s = &r->stage[i];
        json_t *o = json_object();
        set(o, "stage", string(s->stage), failed);
        set(o, "kernel", string(s->kernel), failed);
        set(o, "edges", edges_object(s->edge, failed), failed);
        if (s->unjudged[0]) set(o, "unjudged", string(s->unjudged), failed);
        set(o, "seconds_kernel", number(s->seconds_kernel), failed);
        set(o, "seconds_reference", number(s->seconds_reference), failed);
        if (json_array_append_new(stages, o)) *failed = true;
    }
    return stages;
}

/* rank: null is the unsharded run, and where `ranks` were added up none of them. */
static json_t *mismatch_object(const struct mismatch *m, bool *failed) {
    json_t *o = json_object();
    set(o, "stage", string(m->stage), failed);
    set(o, "tensor", string(m->tensor), failed);
    const bool several = m->to_rank > m->rank && m->rank >= 0;
    set(o, "rank", m->rank < 0 || several ? json_null() : integer(m->rank), failed);
    if (several) set(o, "ranks", json_pack("[i, i]", m->rank, m->to_rank), failed);
    set(o, "where", string(m->where), failed);
    set(o, "got", number(m->got), failed);
    set(o, "expected", number(m->expected), failed);
    set(o, "bound", number(m->bound), failed);
    set(o, "margin", number(m->margin), failed);
    set(o, "note", string(m->note), failed);
    return o;
}

static json_t *map_axis_object(const struct map_axis *a, bool *failed) {
    json_t *o = json_object(), *borders = json_array();
    for (int i = 0; i < a->n_borders; i++)
        if (json_array_append_new(borders, integer(a->border[i]))) *failed = true;
    set(o, "axis", string(a->name), failed);
    set(o, "size", integer(a->size), failed);
    set(o, "cells", integer(a->cells), failed);
    set(o, "borders", borders, failed);
    return o;
}

static json_t *map_object(const struct heat_map *m, bool *failed) {
    json_t *o = json_object(), *cells = json_array();
    for (int r = 0; r < m->rows.cells; r++)
        if (json_array_append_new(cells, string(m->cell[r]))) *failed = true;
    set(o, "tensor", string(m->tensor), failed);
    set(o, "rows", map_axis_object(&m->rows, failed), failed);
    set(o, "columns", map_axis_object(&m->cols, failed), failed);
    set(o, "cells", cells, failed);
    set(o, "ranks", string(m->rank), failed);
    return o;
}

/* Numbers of the run's facts. */
static json_t *facts_array(const struct fact_set *set, bool *failed) {
    json_t *facts = json_array();
    for (int f = 0; f < MAX_FACTS; f++)
        if (fact_is_in(set, f) && json_array_append_new(facts, integer(f))) *failed = true;
    return facts;
}

/* Every fact in the order of their numbers, with the cases that met it. */
static json_t *coverage_object(const struct run_result *run, bool *failed) {
    int met, all;
    json_t *o = json_object(), *facts = json_array();
    report_count_facts(run, &met, &all);
    for (int f = 0; f < run->n_facts; f++) {
        json_t *const fact = json_object();
        set(fact, "fact", string(run->fact[f].name), failed);
        set(fact, "cases", integer(run->fact[f].n_cases), failed);
        if (!run->fact[f].applies) set(fact, "applies", json_false(), failed);
        if (json_array_append_new(facts, fact)) *failed = true;
    }
    set(o, "met", integer(met), failed);
    set(o, "of", integer(all), failed);
    set(o, "facts", facts, failed);
    return o;
}

static json_t *case_object(const struct case_result *r, bool *failed) {
    json_t *o = json_object();
    set(o, "case", string(r->line), failed);
    set(o, "verdict", string(verdict_word(r->verdict)), failed);
    set(o, "seconds", number(r->seconds), failed);
    if (r->device_bytes) set(o, "device_bytes", integer(r->device_bytes), failed);
    set(o, "edges", edges_object(r->edge, failed), failed);
    set(o, "stages", stages_array(r, failed), failed);
    set(o, "facts", facts_array(&r->facts, failed), failed);
    if (r->mutant[0]) {
        set(o, "mutant", string(r->mutant), failed);
        set(o, "mutant_changed_calls", json_boolean(r->mutant_made), failed);
    }
    if (r->unchained[0]) set(o, "unchained", string(r->unchained), failed);
    if (r->sums[0]) set(o, "reference", string(r->sums), failed);
    if (r->same_as) set(o, "same_as", string(r->same_as), failed);
    if (r->of_grid) set(o, "grid", json_true(), failed);
    if (r->crashed) set(o, "crashed", json_true(), failed);
    if (r->reason[0]) set(o, "reason", string(r->reason), failed);
    if (r->sampled[0]) set(o, "sampled", string(r->sampled), failed);
    if (r->waived[0]) set(o, "waived", string(r->waived), failed);
    if (r->verdict != CASE_FAILED && r->verdict != CASE_WAIVED) return o;
    set(o, "where", string(r->where), failed);
    if (r->first.stage[0]) set(o, "first", mismatch_object(&r->first, failed), failed);
    if (r->worst.stage[0]) set(o, "worst", mismatch_object(&r->worst, failed), failed);
    if (r->map.tensor[0]) set(o, "map", map_object(&r->map, failed), failed);
    if (r->likely[0]) set(o, "likely", string(r->likely), failed);
    if (r->resembles[0]) set(o, "resembles", string(r->resembles), failed);
    if (r->read[0]) set(o, "read", string(r->read), failed);
    if (r->repro) set(o, "repro", string(r->repro), failed);
    return o;
}

char *report_case_json(const struct case_result *result) {
    bool failed = false;
    json_t *const o = case_object(result, &failed);
    char *const text = failed ? NULL : json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

/* Where in the report the first case stands that failed in the same way. */
static int64_t cause_of(const struct run_result *run, int64_t i) {
    for (int64_t k = 0; k < i; k++)
        if (report_same_cause(&run->cases[k], &run->cases[i])) return k;
    return i;
}

static json_t *stale_array(const struct run_result *run, bool *failed) {
    json_t *lines = json_array();
    for (int i = 0; i < run->n_stale; i++)
        if (json_array_append_new(lines, string(run->stale[i]))) *failed = true;
    return lines;
}

void report_json(FILE *file, const struct run_result *run, int verbosity) {
    (void)verbosity; /* programs get everything */
    bool failed = false;
    json_t *root = json_object(), *cases = json_array();
    for (int64_t i = 0; i < run->n_cases; i++) {
        json_t *const o = case_object(&run->cases[i], &failed);
        if (run->cases[i].verdict == CASE_FAILED) set(o, "cause", integer(cause_of(run, i)), &failed);
        if (json_array_append_new(cases, o)) failed = true;
    }
    set(root, "schema", string("shardcheck-result/1"), &failed);
    set(root, "version", string(run->version), &failed);
    set(root, "device", string(run->device), &failed);
    set(root, "command", string(run->command), &failed);
    if (run->in_process) set(root, "in_process", json_true(), &failed);
    set(root, "passed", integer(run->n_passed), &failed);
    set(root, "failed", integer(run->n_failed), &failed);
    set(root, "skipped", integer(run->n_skipped), &failed);
    if (run->n_waived) set(root, "waived", integer(run->n_waived), &failed);
    if (run->n_stale) set(root, "stale_waivers", stale_array(run, &failed), &failed);
    if (run->unread && run->unread[0]) set(root, "unread", string(run->unread), &failed);
    set(root, "seconds", number(run->seconds), &failed);
    if (run->host_bytes) set(root, "host_bytes", integer(run->host_bytes), &failed);
    if (run->device_bytes) set(root, "device_bytes", integer(run->device_bytes), &failed);
    if (run->n_grid) set(root, "seconds_grid", number(run->seconds_grid), &failed);
    if (run->fact) set(root, "coverage", coverage_object(run, &failed), &failed);
    set(root, "cases", cases, &failed);
    if (failed || json_dumpf(root, file, JSON_INDENT(2)))
        fputs("{\"schema\": \"shardcheck-result/1\", \"error\": \"out of memory\"}", file);
    fputc('\n', file);
    json_decref(root);
}
