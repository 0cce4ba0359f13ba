/* Is what a rank recorded of a tensor right? The first of its names is held against the
 * reference, or against what another rank has shown; the others are copies. */
/* SPDX-License-Identifier: MIT */
#include "harness/recorded_stage.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/sharpness.h"

/* What keeps a tensor of the rank from being known; empty: nothing. */
char *recorded_why(const struct recorded_run *r, int rank, enum tensor_id id) {
    return r->unknown[rank * T_COUNT + (int)id].text;
}

__attribute__((format(printf, 4, 5))) void recorded_unknown(struct recorded_run *r, int rank,
                                                            enum tensor_id id, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(recorded_why(r, rank, id), sizeof r->unknown->text, format, args);
    va_end(args);
}

/* The exact values of a tensor of the rank, from now on. */
void recorded_put(struct recorded_run *r, int rank, enum tensor_id id, const double *values, int64_t count) {
    double *const data = store_renew(&r->own[rank], id, DTYPE_F64, count);
    memcpy(data, values, (size_t)count * sizeof *values);
    store_drop(&r->radius[rank], id);
    recorded_why(r, rank, id)[0] = 0;
}

/* ---- one output ---- */

/* A row of what follows from another choice than the producer may have made, or from keys of a
 * step that is not in the dump, nobody can judge; nor one that was not computed. */
bool recorded_is_open(const struct recorded_run *r, enum tensor_id id, int64_t token) {
    return (r->doubted[id] && r->masked[token]) || (r->thin[id] && !r->sample.token[token]);
}

static void judge_rows(const struct recorded_run *r, enum tensor_id id, const struct judged *all,
                       int64_t row) {
    const int64_t tokens = r->batch.n_tokens;
    const size_t size = dtype_bytes(all->dtype);
    for (int64_t t = 0, end; t < tokens; t = end) {
        for (end = t; end < tokens && !recorded_is_open(r, id, end);) end++;
        if (end > t) {
            struct judged j = *all;
            j.first = t * row, j.count = (end - t) * row;
            j.got = (const char *)all->got + (size_t)j.first * size;
            j.y = all->y + j.first, j.e = all->e + j.first;
            judge_set(&j, r->verdict.edge, r->verdict.findings);
        }
        if (end == t) end++;
    }
}

/* The stages whose outputs nobody recorded, up to this one, are judged together with it. */
int recorded_span_start(const struct recorded_run *r, int stage) {
    int start = stage;
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (tensor_present(*id, &r->crew.spec)) start = r->since[*id] < start ? r->since[*id] : start;
    return start;
}

static void note_span(struct recorded_run *r, int stage) {
    const int start = recorded_span_start(r, stage);
    for (int s = start; s < stage; s++) r->span_to[s] = stage;
    if (start == stage)
        snprintf(r->row->kernel, sizeof r->row->kernel, "recorded");
    else
        snprintf(r->row->kernel, sizeof r->row->kernel, "span since %s", stage_table[start].name);
}

/* The first name of a tensor: in its acceptance set. */
static void judge_record(struct recorded_run *r, const struct placed *at, enum tensor_id id,
                         const struct record *record, double *y, double *e) {
    void *const got = store_rounded(record->values, record->count, record->dtype);
    struct judged j = placed_judged(at, id, got, record->count);
    j.dtype = producer_rounds(&r->source->producer, at->stage, record->dtype);
    j.y = y;
    j.e = e;
    if (placed_row(at)->op == OP_SUM) j.to_rank = (int)r->crew.plan.tp - 1;
    if (r->doubted[id] && r->trial) {
        recorded_note_fit(r, id, &j, record->count / r->batch.n_tokens);
    } else if (r->doubted[id] || r->thin[id]) {
        judge_rows(r, id, &j, record->count / r->batch.n_tokens);
    } else {
        const struct answer one = {.n = 1, .y = {y}, .e = {e}, .count = {record->count}};
        const struct sharpness sharpness = sharpness_of(&one);
        judge_set(&j, r->verdict.edge, r->verdict.findings);
        sharpness_record(&sharpness, r->verdict.edge);
    }
    note_span(r, at->stage);
    free(got);
}

/* The bits of these values in the record's dtype, or the note says what is wrong. */
static void judge_same(struct recorded_run *r, const struct placed *at, enum tensor_id id,
                       const struct record *record, const double *values, const char *note) {
    void *const got = store_rounded(record->values, record->count, record->dtype);
    void *const want = store_rounded(values, record->count, record->dtype);
    struct judged j = placed_judged(at, id, got, record->count);
    j.dtype = record->dtype;
    judge_repeated(&j, want, note, r->verdict.edge, r->verdict.findings);
    free(got), free(want);
}

/* Another name of it: a copy, or in a narrower dtype a cast. */
void recorded_judge_copy(struct recorded_run *r, const struct placed *at, enum tensor_id id,
                         const struct record *copy, const char *of, const double *values) {
    char note[300];
    snprintf(note, sizeof note, "%.120s is not what %.120s holds", copy->name, of);
    judge_same(r, at, id, copy, values, note);
}

/* Does every rank hold the same of it? */
static bool is_replica(enum tensor_id id) {
    return tensor_table[id].role != ROLE_PARTIAL && !strchr(tensor_table[id].axes, '/');
}

/* False: no rank has shown it before. */
static bool judge_replica(struct recorded_run *r, const struct placed *at, enum tensor_id id,
                          const struct record *record) {
    struct recorded_first *const first = &r->first[id];
    if (!is_replica(id)) return false;
    if (!first->values) {
        *first = (struct recorded_first){memory_zeroed((size_t)record->count, sizeof(double)), at->rank};
        memcpy(first->values, record->values, (size_t)record->count * sizeof(double));
        return false;
    }
    char note[200];
    snprintf(note, sizeof note, "%.120s: every rank should hold the same, and rank %d does not", record->name,
             first->rank);
    judge_same(r, at, id, record, first->values, note);
    return true;
}

/* The first reason of a stage is said. */
static void note_unjudged(struct recorded_run *r, const char *what, const char *reason) {
    char *const text = r->row->unjudged;
    if (!text[0]) snprintf(text, sizeof r->row->unjudged, "%.100s: %.120s", what, reason);
}

/* Where no name of a tensor has its shape, the run was cut otherwise than the case says: that is no pass. The
 * norm after the last layer may get those tokens alone that are sampled from. */
static void note_odd(struct recorded_run *r, const struct record *odd) {
    note_unjudged(r, odd->name, odd->odd);
    if (r->wanted && strncmp(odd->name, "model.norm", strlen("model.norm")) != 0 && !r->result->reason[0])
        snprintf(r->result->reason, sizeof r->result->reason,
                 "%.100s %.80s: other heads, tokens or ranks than the model and tp %lld make", odd->name,
                 odd->odd, (long long)r->crew.plan.tp);
}

/* The first name is held against y and e, or, of a tensor that another rank has shown, against
 * that; the others against the first. y, e NULL: nothing to hold it against; `reason` says why. */
struct status recorded_settle(struct recorded_run *r, const struct placed *at, enum tensor_id id, double *y,
                              double *e, const char *reason, struct settled *out) {
    struct record record;
    struct record odd = {0};
    char first[200] = "";
    bool more = true;
    struct status s = status_ok();
    *out = (struct settled){0};
    for (int i = 0; more && !s.code; i++) {
        const struct recorded what = {r->step, r->layer, r->crew.part, at->stage, id, at->rank};
        s = recording_read(r->source->recording, &what, i, &r->crew.plan, &record, &more);
        if (!s.code && record.odd[0]) odd = record;
        if (s.code || !record.values) {
            record_free(&record);
            continue;
        }
        if (out->values && r->wanted) recorded_judge_copy(r, at, id, &record, first, out->values);
        if (!out->values) {
            snprintf(first, sizeof first, "%s", record.name);
            if (!y) note_unjudged(r, tensor_table[id].name, reason);
            if (record.quantised[0]) note_unjudged(r, "quantised", record.quantised);
            if (r->wanted && !judge_replica(r, at, id, &record) && y && !record.quantised[0])
                judge_record(r, at, id, &record, y, e);
        }
        free(out->values);
        *out = (struct settled){record.values, record.count, record.dtype};
        record.values = NULL;
        record_free(&record);
    }
    if (!out->values && odd.odd[0]) note_odd(r, &odd);
    return s;
}

void recorded_put_settled(struct recorded_run *r, int rank, enum tensor_id id, struct settled *settled) {
    recorded_put(r, rank, id, settled->values, settled->count);
    free(settled->values);
    settled->values = NULL;
}
