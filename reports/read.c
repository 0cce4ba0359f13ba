/* How does a result come back from its JSON? The counterpart of json.c, key by key; a key that is
 * absent leaves the field empty. */
/* SPDX-License-Identifier: MIT */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/json_values.h"
#include "reports/report.h"

static bool read_state(const json_t *object, enum edge_state *out) {
    const char *const text = json_string_value(json_object_get(object, "state"));
    for (int s = EDGE_NOT_RUN; text && s <= EDGE_FAIL; s++)
        if (!strcmp(text, edge_state_name((enum edge_state)s))) return *out = (enum edge_state)s, true;
    return false;
}

static bool read_figure(const json_t *object, const char *key, struct figure *f) {
    const json_t *const o = json_object_get(object, key);
    return !o || (read_number(o, "estimate", &f->estimate) && read_number(o, "resolution", &f->resolution));
}

static bool read_trend(const json_t *object, struct trend *t) {
    const json_t *const o = json_object_get(object, "statistical");
    const char *const text = json_string_value(json_object_get(o, "state"));
    if (!o) return true;
    for (int s = TREND_NONE; text && s <= TREND_WRONG; s++)
        if (!strcmp(text, trend_state_name((enum trend_state)s))) t->state = (enum trend_state)s;
    return t->state != TREND_NONE && read_figure(o, "gain", &t->gain) && read_figure(o, "scale", &t->scale) &&
           read_figure(o, "worst", &t->worst) && read_number(o, "statistic", &t->statistic) &&
           read_string(o, "about", t->about, sizeof t->about) &&
           read_string(o, "reason", t->reason, sizeof t->reason) &&
           read_integer(o, "elements", &t->elements) && read_integer(o, "tests", &t->tests);
}

static bool read_edges(const json_t *object, struct edge_result *edges) {
    const json_t *const all = json_object_get(object, "edges");
    for (int e = 0; e < EDGE_COUNT; e++) {
        const json_t *const o = json_object_get(all, edge_name((enum edge)e));
        if (!o) continue;
        struct edge_result *const r = &edges[e];
        if (!read_state(o, &r->state) || !read_number(o, "margin", &r->margin) ||
            !read_integer(o, "elements", &r->elements) || !read_integer(o, "outside", &r->outside) ||
            !read_integer(o, "ambiguous", &r->ambiguous) ||
            !read_integer(o, "sampled_rows", &r->sampled_rows) || !read_integer(o, "rows", &r->rows) ||
            !read_integer(o, "other_bits", &r->other_bits) || !read_integer(o, "vacuous", &r->vacuous) ||
            !read_integer(o, "in_order", &r->in_order) ||
            !read_string(o, "order", r->order, sizeof r->order) ||
            !read_number(o, "sharpness", &r->sharpness) || !read_trend(o, &r->trend) ||
            !read_integer(o, "single", &r->single) || !read_integer(o, "sets", &r->sets))
            return false;
    }
    return true;
}

static bool read_stages(const json_t *object, struct case_result *r) {
    const json_t *const all = json_object_get(object, "stages");
    const size_t n = json_array_size(all);
    if (!n) return true;
    r->stage = calloc(n, sizeof *r->stage);
    if (!r->stage) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *const o = json_array_get(all, i);
        struct stage_result *const s = &r->stage[r->n_stages++];
        if (!read_string(o, "stage", s->stage, sizeof s->stage) ||
            !read_string(o, "kernel", s->kernel, sizeof s->kernel) ||
            !read_string(o, "unjudged", s->unjudged, sizeof s->unjudged) || !read_edges(o, s->edge) ||
            !read_number(o, "seconds_kernel", &s->seconds_kernel) ||
            !read_number(o, "seconds_reference", &s->seconds_reference))
            return false;
    }
    return true;
}

/* One rank, several that were added up, or none: the unsharded run. */
static bool read_ranks(const json_t *o, struct mismatch *m) {
    const json_t *const several = json_object_get(o, "ranks");
    int64_t rank = -1;
    if (several) {
        m->rank = (int)json_integer_value(json_array_get(several, 0));
        m->to_rank = (int)json_integer_value(json_array_get(several, 1));
        return json_array_size(several) == 2;
    }
    if (!json_is_null(json_object_get(o, "rank")) && !read_integer(o, "rank", &rank)) return false;
    m->rank = (int)rank;
    return true;
}

static bool read_mismatch(const json_t *object, const char *key, struct mismatch *m) {
    const json_t *const o = json_object_get(object, key);
    if (!o) return true;
    return read_ranks(o, m) && read_string(o, "stage", m->stage, sizeof m->stage) &&
           read_string(o, "tensor", m->tensor, sizeof m->tensor) &&
           read_string(o, "where", m->where, sizeof m->where) && read_number(o, "got", &m->got) &&
           read_number(o, "expected", &m->expected) && read_number(o, "bound", &m->bound) &&
           read_number(o, "margin", &m->margin) && read_string(o, "note", m->note, sizeof m->note);
}

static bool read_map_axis(const json_t *o, struct map_axis *a) {
    int64_t cells = 0;
    const json_t *const borders = json_object_get(o, "borders");
    if (!read_string(o, "axis", a->name, sizeof a->name) || !read_integer(o, "size", &a->size) ||
        !read_integer(o, "cells", &cells) || cells < 1 || cells > MAP_CELLS || cells > a->size)
        return false;
    a->cells = (int)cells;
    if (json_array_size(borders) > MAP_BORDERS) return false;
    for (size_t i = 0; i < json_array_size(borders); i++) {
        const int64_t at = json_integer_value(json_array_get(borders, i));
        if (at <= 0 || at >= a->size) return false;
        a->border[a->n_borders++] = at;
    }
    return true;
}

/* Nothing but the characters of a map. */
static bool is_map_text(const char *text) { return text && !text[strspn(text, ".0123456789")]; }

static bool read_map(const json_t *object, struct heat_map *m) {
    const json_t *const o = json_object_get(object, "map"), *const cells = json_object_get(o, "cells");
    if (!o) return true;
    if (!read_string(o, "tensor", m->tensor, sizeof m->tensor) || !m->tensor[0] ||
        !read_map_axis(json_object_get(o, "rows"), &m->rows) ||
        !read_map_axis(json_object_get(o, "columns"), &m->cols) ||
        !read_string(o, "ranks", m->rank, sizeof m->rank) || !is_map_text(m->rank) ||
        json_array_size(cells) != (size_t)m->rows.cells)
        return false;
    for (int r = 0; r < m->rows.cells; r++) {
        const char *const row = json_string_value(json_array_get(cells, (size_t)r));
        if (!is_map_text(row) || strlen(row) != (size_t)m->cols.cells) return false;
        strcpy(m->cell[r], row);
    }
    return true;
}

static bool read_facts(const json_t *object, struct fact_set *set) {
    const json_t *const all = json_object_get(object, "facts");
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *const fact = json_array_get(all, i);
        const json_int_t f = json_integer_value(fact);
        if (!json_is_integer(fact) || f < 0 || f >= MAX_FACTS) return false;
        fact_add(set, (int)f);
    }
    return true;
}

static bool read_verdict(const json_t *object, enum case_verdict *out) {
    const char *const text = json_string_value(json_object_get(object, "verdict"));
    for (int v = CASE_PASSED; text && v < CASE_VERDICTS; v++)
        if (!strcmp(text, verdict_word((enum case_verdict)v))) return *out = (enum case_verdict)v, true;
    return false;
}

static bool read_repro(const json_t *object, struct case_result *r) {
    const char *const text = json_string_value(json_object_get(object, "repro"));
    return !text || (r->repro = strdup(text));
}

static bool read_case(const json_t *o, struct case_result *r) {
    r->crashed = json_is_true(json_object_get(o, "crashed"));
    r->of_grid = json_is_true(json_object_get(o, "grid"));
    r->mutant_made = json_is_true(json_object_get(o, "mutant_changed_calls"));
    return json_is_object(o) && read_verdict(o, &r->verdict) && read_number(o, "seconds", &r->seconds) &&
           read_integer(o, "device_bytes", &r->device_bytes) &&
           read_string(o, "case", r->line, sizeof r->line) &&
           read_string(o, "mutant", r->mutant, sizeof r->mutant) && read_repro(o, r) &&
           read_edges(o, r->edge) && read_stages(o, r) && read_facts(o, &r->facts) &&
           read_string(o, "unchained", r->unchained, sizeof r->unchained) &&
           read_string(o, "reference", r->sums, sizeof r->sums) &&
           read_string(o, "reason", r->reason, sizeof r->reason) &&
           read_string(o, "sampled", r->sampled, sizeof r->sampled) &&
           read_string(o, "waived", r->waived, sizeof r->waived) &&
           read_string(o, "where", r->where, sizeof r->where) && read_mismatch(o, "first", &r->first) &&
           read_mismatch(o, "worst", &r->worst) && read_map(o, &r->map) &&
           read_string(o, "likely", r->likely, sizeof r->likely) &&
           read_string(o, "resembles", r->resembles, sizeof r->resembles) &&
           read_string(o, "read", r->read, sizeof r->read);
}

static void case_free(struct case_result *r) {
    free(r->stage);
    free(r->repro);
    *r = (struct case_result){0};
}

bool report_read_case(const char *text, size_t length, struct case_result *out) {
    json_t *const o = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    *out = (struct case_result){0};
    const bool ok = o && read_case(o, out);
    json_decref(o);
    if (ok) return true;
    case_free(out);
    return false;
}

/* ---- a whole report ---- */

static bool read_coverage(const json_t *root, struct report_read *r) {
    const json_t *const facts = json_object_get(json_object_get(root, "coverage"), "facts");
    const size_t n = json_array_size(facts);
    if (n > MAX_FACTS) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *const o = json_array_get(facts, i);
        struct fact_count *const f = &r->fact[i];
        f->applies = !json_is_false(json_object_get(o, "applies"));
        if (!read_string(o, "fact", f->name, sizeof f->name) || !f->name[0] ||
            !read_integer(o, "cases", &f->n_cases))
            return false;
    }
    r->run.fact = n ? r->fact : NULL;
    r->run.n_facts = (int)n;
    return true;
}

static bool read_head(const json_t *root, struct report_read *r) {
    struct run_result *const run = &r->run;
    run->version = r->version, run->device = r->device, run->command = r->command;
    run->in_process = json_is_true(json_object_get(root, "in_process"));
    return read_string(root, "version", r->version, sizeof r->version) &&
           read_string(root, "device", r->device, sizeof r->device) &&
           read_string(root, "command", r->command, sizeof r->command) &&
           read_integer(root, "host_bytes", &run->host_bytes) &&
           read_integer(root, "device_bytes", &run->device_bytes) &&
           read_number(root, "seconds", &run->seconds) && read_integer(root, "passed", &run->n_passed) &&
           read_integer(root, "failed", &run->n_failed) && read_integer(root, "skipped", &run->n_skipped) &&
           read_integer(root, "waived", &run->n_waived) && read_coverage(root, r);
}

/* The counts that stand in the report are those of its cases, or some were cut out. */
static bool read_cases(const json_t *all, struct report_read *r) {
    const size_t n = json_array_size(all);
    int64_t count[CASE_VERDICTS] = {0};
    if (!json_is_array(all)) return false;
    r->cases = calloc(n ? n : 1, sizeof *r->cases);
    if (!r->cases) return false;
    r->run.cases = r->cases;
    for (size_t i = 0; i < n; i++) {
        struct case_result *const c = &r->cases[r->run.n_cases++];
        if (!read_case(json_array_get(all, i), c) || !c->line[0]) return false;
        count[c->verdict]++;
    }
    return count[CASE_PASSED] == r->run.n_passed && count[CASE_FAILED] == r->run.n_failed &&
           count[CASE_SKIPPED] == r->run.n_skipped && count[CASE_WAIVED] == r->run.n_waived;
}

const char *report_read(const char *text, size_t length, struct report_read *out) {
    *out = (struct report_read){0};
    json_t *const root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    const char *const schema = json_string_value(json_object_get(root, "schema"));
    const char *problem = NULL;
    if (!schema || strncmp(schema, "shardcheck-result/", 18) != 0)
        problem = "no report of shardcheck; give what --report json:FILE wrote";
    else if (strcmp(schema, "shardcheck-result/1") != 0)
        problem = "a report of another version, whose schema is not shardcheck-result/1; write it again";
    else if (!read_head(root, out) || !read_cases(json_object_get(root, "cases"), out))
        problem = "a damaged report of shardcheck; write it again";
    json_decref(root);
    if (problem) report_read_free(out);
    return problem;
}

void report_read_free(struct report_read *r) {
    for (int64_t i = 0; i < r->run.n_cases; i++) case_free(&r->cases[i]);
    free(r->cases);
    *r = (struct report_read){0};
}
