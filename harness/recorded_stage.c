/* Did every rank of somebody's run store what the layer says?  The files sit in the seats of all ranks. */
/* SPDX-License-Identifier: MIT */
#include "harness/recorded_stage.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/answer_seat.h"
#include "harness/explain.h"
#include "harness/sharpness.h"
#include "harness/stage.h"

/* ---- operands ---- */

/* What keeps a tensor of the rank from being known; empty: nothing. */
static char *why(const struct recorded_run *r, int rank, enum tensor_id id) {
    return r->unknown[rank * T_COUNT + (int)id].text;
}

__attribute__((format(printf, 4, 5))) static void set_unknown(struct recorded_run *r, int rank,
                                                              enum tensor_id id, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(why(r, rank, id), sizeof r->unknown->text, format, args);
    va_end(args);
}

/* The exact values of a tensor of the rank, from now on. */
static void put_known(struct recorded_run *r, int rank, enum tensor_id id, const double *values,
                      int64_t count) {
    double *const data = store_renew(&r->own[rank], id, DTYPE_F64, count);
    memcpy(data, values, (size_t)count * sizeof *values);
    store_drop(&r->radius[rank], id);
    why(r, rank, id)[0] = 0;
}

static void drop_weights(struct recorded_run *r, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (tensor_table[*id].role == ROLE_WEIGHT) store_drop(&r->whole, *id);
}

/* The first operand that is not known, of the rank or, for a sum, of any; NULL: all are. */
static const char *missing_operand(const struct recorded_run *r, int stage, int rank) {
    const bool sum = stage_table[stage].op == OP_SUM;
    for (int at = sum ? 0 : rank; at < (sum ? (int)r->crew.plan.tp : rank + 1); at++)
        for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
            if (tensor_present(*id, &r->crew.spec) && why(r, at, *id)[0]) return why(r, at, *id);
    return NULL;
}

/* ---- contracts ---- */

static struct contract contract_of(const struct recorded_run *r, int stage, int rank) {
    const struct stored *const logits = &r->own[rank].of[T_LOGITS];
    const struct layer_spec *const spec = &r->crew.spec;
    struct hf64_range range = {.n_positions = r->batch.n_positions, .top_k = spec->top_k, .spec = spec};
    for (int64_t i = 0; i < logits->count; i++)
        range.logit = fmax(range.logit, fabs(dtype_load(logits->memory.data, DTYPE_F64, i)));
    range.span = 2 * range.logit;
    range.n_experts = spec->renormalise ? 0 : spec->n_experts;
    struct contract c = producer_contract(&r->source->producer, stage, &range);
    /* The sum of two tensors is rounded to fp32 before it is normalised. */
    if (c.op == OP_NORM && r->summed[rank]) c.u.norm.input_unit = UNIT_F32;
    return c;
}

/* ---- one output ---- */

/* A row of what follows from another choice than the producer may have made, or from keys of a step that is
 * not in the dump, nobody can judge. */
static void judge_rows(const struct recorded_run *r, const struct judged *all, int64_t row) {
    const int64_t tokens = r->batch.n_tokens;
    const size_t size = dtype_bytes(all->dtype);
    for (int64_t t = 0, end; t < tokens; t = end) {
        for (end = t; end < tokens && !r->masked[end];) end++;
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

static void *rounded(const double *values, int64_t count, enum dtype dtype) {
    void *const out = memory_zeroed((size_t)count, dtype_bytes(dtype));
    for (int64_t i = 0; i < count; i++) dtype_store(out, dtype, i, values[i]);
    return out;
}

/* The stages whose outputs nobody recorded, up to this one, are judged together with it. */
static int span_start(const struct recorded_run *r, int stage) {
    int start = stage;
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (tensor_present(*id, &r->crew.spec)) start = r->since[*id] < start ? r->since[*id] : start;
    return start;
}

static void note_span(struct recorded_run *r, int stage) {
    const int start = span_start(r, stage);
    for (int s = start; s < stage; s++) r->span_to[s] = stage;
    if (start == stage)
        snprintf(r->row->kernel, sizeof r->row->kernel, "recorded");
    else
        snprintf(r->row->kernel, sizeof r->row->kernel, "span since %s", stage_table[start].name);
}

/* The first name of a tensor: in its acceptance set. */
static void judge_record(struct recorded_run *r, const struct placed *at, enum tensor_id id,
                         const struct record *record, double *y, double *e) {
    void *const got = rounded(record->values, record->count, record->dtype);
    struct judged j = placed_judged(at, id, got, record->count);
    j.dtype = producer_rounds(&r->source->producer, at->stage, record->dtype);
    j.y = y;
    j.e = e;
    if (placed_row(at)->op == OP_SUM) j.to_rank = (int)r->crew.plan.tp - 1;
    if (r->doubted[id] && r->trial) {
        recorded_note_fit(r, &j, record->count / r->batch.n_tokens);
    } else if (r->doubted[id]) {
        judge_rows(r, &j, record->count / r->batch.n_tokens);
    } else {
        const struct answer one = {.n = 1, .y = {y}, .e = {e}, .count = {record->count}};
        const struct sharpness sharpness = sharpness_of(&one);
        judge_set(&j, r->verdict.edge, r->verdict.findings);
        sharpness_record(&sharpness, r->verdict.edge);
    }
    note_span(r, at->stage);
    free(got);
}

/* Another name of it: a copy, or in a narrower dtype a cast. */
static void judge_copy(struct recorded_run *r, const struct placed *at, enum tensor_id id,
                       const struct record *copy, const char *of, const double *values) {
    char note[300];
    void *const got = rounded(copy->values, copy->count, copy->dtype);
    void *const want = rounded(values, copy->count, copy->dtype);
    struct judged j = placed_judged(at, id, got, copy->count);
    j.dtype = copy->dtype;
    snprintf(note, sizeof note, "%.120s is not what %.120s holds", copy->name, of);
    judge_repeated(&j, want, note, r->verdict.edge, r->verdict.findings);
    free(got), free(want);
}

/* The first name counts; the others are copies of it, but for the parts of a sum. */
static struct status load_input(struct recorded_run *r, const struct placed *at, enum tensor_id id) {
    struct record record, first = {0};
    bool *const asked = &r->asked[at->rank * T_COUNT + (int)id];
    bool more = !r->own[at->rank].of[id].count && !*asked;
    struct status s = status_ok();
    if (more)
        set_unknown(r, at->rank, id, "%s of rank %d is not in the dump", tensor_table[id].name, at->rank);
    *asked = true;
    for (int i = 0; more && !s.code; i++) {
        const struct recorded what = {r->step, r->layer, r->crew.part, AS_INPUT, id, at->rank};
        s = recording_read(r->source->recording, &what, i, &r->crew.plan, &record, &more);
        if (!s.code && record.values && !first.values) {
            put_known(r, at->rank, id, record.values, record.count);
            r->summed[at->rank] = record.summed;
            more = !record.summed;
            first = record;
            continue;
        }
        if (!s.code && record.values && r->wanted) judge_copy(r, at, id, &record, first.name, first.values);
        if (!s.code && record.odd[0] && !first.values)
            set_unknown(r, at->rank, id, "%.100s %.100s", record.name, record.odd);
        record_free(&record);
    }
    record_free(&first);
    return s;
}

/* Weights are whole, and alive for one stage. */
static struct status load_weight(struct recorded_run *r, enum tensor_id id) {
    bool found = false;
    if (r->whole.of[id].count) return status_ok();
    char reason[sizeof r->unknown->text] = "no weights; add --model DIR";
    if (r->source->weights) {
        const int64_t count = slice_count(&r->crew.plan, id, -1);
        double *const data = store_renew(&r->whole, id, DTYPE_F64, count);
        const struct status s =
            weights_read(r->source->weights, r->layer, r->crew.part, id, count, data, &found);
        if (s.code) snprintf(reason, sizeof reason, "%.110s", s.message);
        found &= !s.code;
    }
    if (!found) store_drop(&r->whole, id);
    for (int rank = 0; rank < r->crew.plan.tp; rank++)
        found ? (void)(why(r, rank, id)[0] = 0) : set_unknown(r, rank, id, "%s", reason);
    return status_ok();
}

static struct status load_operands(struct recorded_run *r, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
        if (!tensor_present(*id, &r->crew.spec)) continue;
        if (tensor_table[*id].role == ROLE_WEIGHT) TRY(load_weight(r, *id));
        for (int rank = 0; rank < r->crew.plan.tp && tensor_table[*id].role == ROLE_INPUT; rank++)
            TRY(load_input(r, &(struct placed){&r->crew, stage, rank}, *id));
    }
    return status_ok();
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
    void *const got = rounded(record->values, record->count, record->dtype);
    void *const want = rounded(first->values, record->count, record->dtype);
    struct judged j = placed_judged(at, id, got, record->count);
    j.dtype = record->dtype;
    snprintf(note, sizeof note, "%.120s: every rank should hold the same, and rank %d does not", record->name,
             first->rank);
    judge_repeated(&j, want, note, r->verdict.edge, r->verdict.findings);
    free(got), free(want);
    return true;
}

/* The first reason of a stage is said. */
static void note_unjudged(struct recorded_run *r, const char *what, const char *reason) {
    char *const text = r->row->unjudged;
    if (!text[0]) snprintf(text, sizeof r->row->unjudged, "%.100s: %.120s", what, reason);
}

/* What is recorded of a version of a tensor: the values of its last name go on. */
struct settled {
    double *values; /* NULL: nothing */
    int64_t count;
    enum dtype dtype;
};

/* The first name is held against y and e, or, of a tensor that another rank has shown, against that; the
 * others against the first. y, e NULL: nothing to hold it against; `reason` says why. */
static struct status settle_records(struct recorded_run *r, const struct placed *at, enum tensor_id id,
                                    double *y, double *e, const char *reason, struct settled *out) {
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
        if (out->values && r->wanted) judge_copy(r, at, id, &record, first, out->values);
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
    if (!out->values && odd.odd[0]) note_unjudged(r, odd.name, odd.odd);
    return s;
}

static void put_settled(struct recorded_run *r, int rank, enum tensor_id id, struct settled *settled) {
    put_known(r, rank, id, settled->values, settled->count);
    free(settled->values);
    settled->values = NULL;
}

/* ---- one stage ---- */

bool recorded_reads_doubted(const struct recorded_run *r, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (r->doubted[*id]) return true;
    return false;
}

/* x as it was stored, where the norm took the unrounded sum: the residual goes on from it. */
static struct status settle_x(struct recorded_run *r, const struct placed *at) {
    const struct stored *const x = &r->own[at->rank].of[T_X];
    const int64_t n = x->count;
    struct settled settled;
    if (!n) return status_ok();
    double *const y = memory_zeroed((size_t)n, sizeof *y), *const e = memory_zeroed((size_t)n, sizeof *e);
    memcpy(y, x->memory.data, (size_t)n * sizeof *y);
    for (int64_t i = 0; i < n && r->summed[at->rank]; i++) e[i] = UNIT_F32 * fabs(y[i]);
    const struct status s = settle_records(r, at, T_X, y, e, "", &settled);
    if (settled.values) {
        put_settled(r, at->rank, T_X, &settled);
    } else if (!s.code && r->summed[at->rank]) {
        image_of(y, e, n, producer_between(&r->source->producer, T_X));
        put_known(r, at->rank, T_X, y, n);
        memcpy(store_renew(&r->radius[at->rank], T_X, DTYPE_F64, n), e, (size_t)n * sizeof *e);
    }
    free(y), free(e);
    return s;
}

/* What nobody recorded: as its producer rounds it unseen, with what that leaves open. */
static void put_unseen(struct recorded_run *r, const struct placed *at, const struct answer *a, int i,
                       struct store *got) {
    const size_t bytes = (size_t)a->count[i] * sizeof(double);
    double *const y = memory_zeroed((size_t)a->count[i], sizeof *y);
    double *const e = memory_zeroed((size_t)a->count[i], sizeof *e);
    struct store *const radius = &r->radius[at->rank];
    const struct producer *const p = &r->source->producer;
    memcpy(y, a->y[i], bytes);
    memcpy(e, a->e[i], bytes);
    if (!placed_op(at)->answers_inputs)
        image_of(y, e, a->count[i], producer_rounds(p, at->stage, producer_between(p, a->id[i])));
    answer_put(at, got, a, i, y);
    const enum tensor_id out = placed_op(at)->answers_inputs ? placed_row(at)->out[i] : a->id[i];
    store_renew(radius, out, DTYPE_F64, placed_count(at, out));
    answer_spread(at, radius, a->id[i], i, e, a->count[i]);
    free(y), free(e);
}

/* A copy of what the stage made, which may serve other ranks, too. */
static void keep(struct recorded_run *r, const struct placed *at, const struct store *got,
                 enum tensor_id id) {
    const struct stored *const from = &got->of[id];
    why(r, at->rank, id)[0] = 0;
    if (from->count)
        memcpy(store_renew(&r->own[at->rank], id, from->dtype, from->count), from->memory.data,
               (size_t)from->count * dtype_bytes(from->dtype));
}

/* The known mistake that reproduces what the rank recorded of the first stage that failed. */
static void explain_records(struct recorded_run *r, const struct placed *at, const struct answer *a,
                            const struct settled *settled, struct outcome *outcome) {
    struct crew crew = r->crew;
    struct store *const own = memory_zeroed((size_t)crew.plan.tp, sizeof *own);
    const struct placed as_stored = {&crew, at->stage, at->rank};
    memcpy(own, r->crew.own, (size_t)crew.plan.tp * sizeof *own);
    crew.own = own;
    crew.storage = settled[0].dtype;
    for (int i = 0; i < a->n; i++) {
        const enum dtype dtype = tensor_dtype(a->id[i], crew.storage);
        void *const got = store_renew(&outcome->got, a->id[i], dtype, a->count[i]);
        for (int64_t n = 0; n < a->count[i]; n++) dtype_store(got, dtype, n, settled[i].values[n]);
        own[at->rank].of[a->id[i]] = (struct stored){0};
    }
    explain(&as_stored, outcome, a, r->likely, r->likely_size);
    free(own);
}

static bool is_explicable(const struct recorded_run *r, const struct placed *at, const struct answer *a,
                          const struct settled *settled) {
    if (r->verdict.findings->stage != at->stage || r->likely[0] || placed_op(at)->first) return false;
    for (int i = 0; i < a->n; i++)
        if (!settled[i].values) return false;
    return true;
}

static struct status settle_answer(struct recorded_run *r, const struct placed *at, const struct answer *a,
                                   struct outcome *outcome) {
    const bool doubted = r->n_masked && (recorded_reads_doubted(r, at->stage) ||
                                         outcome->call.op == OP_ROUTE || outcome->call.op == OP_ATTENTION);
    struct settled settled[MAX_REF_OUT] = {{0}};
    bool recorded[T_COUNT] = {false};
    const int64_t outside = r->verdict.edge->outside;
    const int start = span_start(r, at->stage);
    struct status s = status_ok();
    for (int i = 0; i < a->n && !s.code && !placed_op(at)->answers_inputs; i++) {
        r->doubted[a->id[i]] = doubted;
        s = settle_records(r, at, a->id[i], a->y[i], a->e[i], "", &settled[i]);
        recorded[a->id[i]] = settled[i].values != NULL;
    }
    if (!s.code && r->verdict.edge->outside > outside && is_explicable(r, at, a, settled))
        explain_records(r, at, a, settled, outcome);
    for (int i = 0; i < a->n && !s.code; i++)
        if (!settled[i].values) put_unseen(r, at, a, i, &outcome->got);
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE && !s.code; id++) {
        r->since[*id] = recorded[*id] ? S_COUNT : start;
        r->doubted[*id] = doubted && !recorded[*id];
        if (!recorded[*id]) keep(r, at, &outcome->got, *id);
    }
    for (int i = 0; i < a->n; i++)
        if (settled[i].values) put_settled(r, at->rank, a->id[i], &settled[i]);
    return s;
}

/* From the rank's operands; what they give serves so many ranks from it on. */
static struct status compute_stage(struct recorded_run *r, const struct placed *at, int n_ranks) {
    struct outcome outcome = {.by = "recorded"};
    struct answer a;
    struct status s = desk_prepare(&r->desk, at, &outcome);
    outcome.contract = contract_of(r, at->stage, at->rank);
    if (placed_op(at)->choose) placed_op(at)->choose(&outcome.call);
    if (outcome.call.op == OP_ROUTE) {
        recorded_mask_ties(r, &outcome);
        recorded_put_sets(r, outcome.call.u.route.top_k, outcome.call.u.route.ids.data);
    }
    answer_compute(&a, at->stage, &outcome, r->source->watch);
    for (int i = 0; i < n_ranks && !s.code; i++)
        s = settle_answer(r, &(struct placed){at->crew, at->stage, at->rank + i}, &a, &outcome);
    if (!s.code && outcome.call.op == OP_ROUTE)
        crew_count_rows(&r->crew, r->own[at->rank].of[T_IDS].memory.data);
    answer_free(&a);
    outcome_free(&outcome);
    return s;
}

/* Nothing to compute from: what was recorded goes on unjudged, the rest is as unknown. */
static struct status adopt_stage(struct recorded_run *r, const struct placed *at, const char *missing) {
    char reason[160];
    snprintf(reason, sizeof reason, "%s", missing);
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE; id++) {
        struct settled settled = {0};
        r->doubted[*id] = false;
        if (tensor_table[*id].dtype != DTYPE_I32)
            TRY(settle_records(r, at, *id, NULL, NULL, reason, &settled));
        if (settled.values)
            put_settled(r, at->rank, *id, &settled);
        else
            set_unknown(r, at->rank, *id, "%.90s", reason);
        r->since[*id] = S_COUNT;
    }
    return status_ok();
}

/* Done once for all ranks: the sum of what they bring, and the choice of experts, which they share. */
static bool is_once(enum op op) { return op == OP_SUM || op == OP_ROUTE; }

static void forget_first(struct recorded_run *r) {
    for (int id = 0; id < T_COUNT; id++) {
        free(r->first[id].values);
        r->first[id] = (struct recorded_first){0};
    }
}

struct status recorded_stage(struct recorded_run *r, int stage) {
    const enum op op = stage_table[stage].op;
    const int tp = (int)r->crew.plan.tp, step = is_once(op) ? tp : 1;
    struct status s = load_operands(r, stage);
    for (int rank = 0; rank < tp && !s.code; rank += step) {
        const struct placed at = {&r->crew, stage, rank};
        const char *const missing = missing_operand(r, stage, rank);
        s = watch_step(r->source->watch, DOING_FILE, stage, rank, 0, "recorded");
        if (!s.code && !missing) s = compute_stage(r, &at, step);
        for (int i = 0; i < step && missing && !s.code; i++)
            s = adopt_stage(r, &(struct placed){&r->crew, stage, rank + i}, missing);
        if (op == OP_NORM && !s.code) s = settle_x(r, &at);
    }
    forget_first(r);
    drop_weights(r, stage);
    return s;
}
