/* Did every rank of somebody's run store what the layer says? The files sit in the seats of all
 * ranks. */
/* SPDX-License-Identifier: MIT */
#include "harness/recorded_stage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/answer_seat.h"
#include "harness/explain.h"
#include "harness/recorded_sample.h"
#include "harness/relate.h"
#include "harness/stage.h"

/* ---- operands ---- */

/* The first name counts; the others are copies of it, but for the parts of a sum. */
static struct status load_input(struct recorded_run *r, const struct placed *at, enum tensor_id id) {
    struct record record, first = {0};
    bool *const asked = &r->asked[at->rank * T_COUNT + (int)id];
    bool more = !r->own[at->rank].of[id].count && !*asked;
    struct status s = status_ok();
    if (more)
        recorded_unknown(r, at->rank, id, "%s of rank %d is not in the dump", tensor_table[id].name,
                         at->rank);
    *asked = true;
    for (int i = 0; more && !s.code; i++) {
        const struct recorded what = {r->step, r->layer, r->crew.part, AS_INPUT, id, at->rank};
        s = recording_read(r->source->recording, &what, i, &r->crew.plan, &record, &more);
        if (!s.code && record.values && !first.values) {
            recorded_put(r, at->rank, id, record.values, record.count);
            r->summed[at->rank] = record.summed;
            more = !record.summed;
            first = record;
            continue;
        }
        if (!s.code && record.values && r->wanted)
            recorded_judge_copy(r, at, id, &record, first.name, first.values);
        if (!s.code && record.odd[0] && !first.values)
            recorded_unknown(r, at->rank, id, "%.100s %.100s", record.name, record.odd);
        record_free(&record);
    }
    record_free(&first);
    return s;
}

/* Whole, as the checkpoint stores it; what it needs is said where it cannot be had. */
static struct status read_weight(struct recorded_run *r, enum tensor_id id) {
    struct weights *const w = r->source->weights;
    const int64_t count = slice_count(&r->crew.plan, id, -1);
    enum dtype d;
    if (!w || !weights_bring(id)) return status_error("no weights; add --model DIR");
    TRY(weights_dtype(w, r->layer, r->crew.part, id, &d));
    return weights_fill(w, r->layer, r->crew.part, id, d, 0, count, store_renew(&r->whole, id, d, count));
}

/* It is alive for one stage. */
static void load_weight(struct recorded_run *r, enum tensor_id id) {
    if (r->whole.of[id].count) return;
    const struct status s = read_weight(r, id);
    if (s.code) store_drop(&r->whole, id);
    for (int rank = 0; rank < r->crew.plan.tp; rank++)
        s.code ? recorded_unknown(r, rank, id, "%.110s", s.message)
               : (void)(recorded_why(r, rank, id)[0] = 0);
}

static struct status load_operands(struct recorded_run *r, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
        if (!tensor_present(*id, &r->crew.spec)) continue;
        if (tensor_table[*id].role == ROLE_WEIGHT) load_weight(r, *id);
        for (int rank = 0; rank < r->crew.plan.tp && tensor_table[*id].role == ROLE_INPUT; rank++)
            TRY(load_input(r, &(struct placed){&r->crew, stage, rank}, *id));
    }
    return status_ok();
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
            if (tensor_present(*id, &r->crew.spec) && recorded_why(r, at, *id)[0])
                return recorded_why(r, at, *id);
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

/* ---- one stage ---- */

static bool reads_any(const bool *of_tensor, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (of_tensor[*id]) return true;
    return false;
}
bool recorded_reads_doubted(const struct recorded_run *r, int stage) { return reads_any(r->doubted, stage); }

/* x as it was stored, where the norm took the unrounded sum: the residual goes on from it. */
static struct status settle_x(struct recorded_run *r, const struct placed *at) {
    const struct stored *const x = &r->own[at->rank].of[T_X];
    const int64_t n = x->count;
    struct settled settled;
    if (!n) return status_ok();
    double *const y = memory_zeroed((size_t)n, sizeof *y), *const e = memory_zeroed((size_t)n, sizeof *e);
    memcpy(y, x->memory.data, (size_t)n * sizeof *y);
    for (int64_t i = 0; i < n && r->summed[at->rank]; i++) e[i] = UNIT_F32 * fabs(y[i]);
    const struct status s = recorded_settle(r, at, T_X, y, e, "", &settled);
    if (settled.values) {
        recorded_put_settled(r, at->rank, T_X, &settled);
    } else if (!s.code && r->summed[at->rank]) {
        image_of(y, e, n, producer_between(&r->source->producer, T_X));
        recorded_put(r, at->rank, T_X, y, n);
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
    recorded_why(r, at->rank, id)[0] = 0;
    if (from->count)
        memcpy(store_renew(&r->own[at->rank], id, from->dtype, from->count), from->memory.data,
               (size_t)from->count * dtype_bytes(from->dtype));
}

/* What a stage that works in place began with, in the dtype of what it stored. */
static struct stored before_in_place(struct store *kept, const struct stored *old, enum tensor_id id,
                                     enum dtype dtype) {
    if (!old->count) return (struct stored){0};
    void *const data = store_renew(kept, id, dtype, old->count);
    for (int64_t n = 0; n < old->count; n++)
        dtype_store(data, dtype, n, dtype_load(old->memory.data, old->dtype, n));
    return kept->of[id];
}

/* The known mistake that reproduces what the ranks recorded of the first stage that failed, or
 * what the wrong values of the first of them look like. */
static void explain_records(struct recorded_run *r, const struct placed *at, const struct answer *a,
                            const struct settled *settled, struct outcome *outcome) {
    struct crew crew = r->crew;
    struct store *const own = memory_zeroed((size_t)crew.plan.tp, sizeof *own);
    const struct placed as_stored = {&crew, at->stage, at->rank};
    struct store kept = {0};
    memcpy(own, r->crew.own, (size_t)crew.plan.tp * sizeof *own);
    crew.own = own;
    crew.storage = producer_rounds(&r->source->producer, at->stage, settled[0].dtype);
    for (int i = 0; i < a->n; i++) {
        const enum dtype dtype = tensor_dtype(a->id[i], crew.storage);
        void *const got = store_renew(&outcome->got, a->id[i], dtype, a->count[i]);
        for (int64_t n = 0; n < a->count[i]; n++) dtype_store(got, dtype, n, settled[i].values[n]);
        struct stored *const old = &own[at->rank].of[a->id[i]];
        *old = before_in_place(&kept, old, a->id[i], dtype);
    }
    if (*r->explained) { /* one that fits this rank and not another is not the mistake */
        if (!explains_too(&as_stored, outcome, a, r->result->likely)) r->result->likely[0] = 0;
    } else {
        explain(&as_stored, outcome, a, r->result->likely, sizeof r->result->likely);
        if (!r->result->likely[0])
            relate(&as_stored, outcome, a, NULL, r->result->resembles, sizeof r->result->resembles);
    }
    *r->explained = true;
    store_free(&kept);
    free(own);
}

static bool is_explicable(const struct recorded_run *r, const struct placed *at, const struct answer *a,
                          const struct settled *settled) {
    const bool hopeless = *r->explained && !r->result->likely[0];
    if (r->verdict.findings->stage != at->stage || hopeless || placed_op(at)->first) return false;
    for (int i = 0; i < a->n; i++)
        if (!settled[i].values) return false;
    return true;
}

static struct status settle_answer(struct recorded_run *r, const struct placed *at, const struct answer *a,
                                   struct outcome *outcome) {
    const bool doubted = r->n_masked && (recorded_reads_doubted(r, at->stage) ||
                                         outcome->call.op == OP_ROUTE || outcome->call.op == OP_ATTENTION);
    const bool thin = recorded_is_sampled(r, at) || reads_any(r->thin, at->stage);
    struct settled settled[MAX_REF_OUT] = {{0}};
    bool recorded[T_COUNT] = {false}, was_doubted[T_COUNT] = {false}, was_thin[T_COUNT] = {false};
    const int64_t outside = r->verdict.edge->outside;
    const int start = recorded_span_start(r, at->stage);
    struct status s = status_ok();
    for (int id = 0; id < T_COUNT && at->rank > 0; id++) /* what a rank before left open, stays so */
        was_doubted[id] = r->doubted[id], was_thin[id] = r->thin[id];
    for (int i = 0; i < a->n && !s.code && !placed_op(at)->answers_inputs; i++) {
        r->doubted[a->id[i]] = doubted;
        r->thin[a->id[i]] = thin;
        s = recorded_settle(r, at, a->id[i], a->y[i], a->e[i], "", &settled[i]);
        if (thin && settled[i].values) recorded_sample_fill(r, settled[i].values, a->count[i], a->y[i]);
        recorded[a->id[i]] = settled[i].values != NULL;
    }
    if (!s.code && r->verdict.edge->outside > outside && is_explicable(r, at, a, settled))
        explain_records(r, at, a, settled, outcome);
    for (int i = 0; i < a->n && !s.code; i++)
        if (!settled[i].values) put_unseen(r, at, a, i, &outcome->got);
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE && !s.code; id++) {
        r->since[*id] = recorded[*id] ? S_COUNT : start;
        r->doubted[*id] = was_doubted[*id] || (doubted && !recorded[*id]);
        r->thin[*id] = was_thin[*id] || (thin && !recorded[*id]);
        if (!recorded[*id]) keep(r, at, &outcome->got, *id);
    }
    for (int i = 0; i < a->n; i++)
        if (settled[i].values) recorded_put_settled(r, at->rank, a->id[i], &settled[i]);
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
    if (recorded_is_sampled(r, at))
        recorded_sample_compute(r, at, &outcome, &a);
    else
        answer_compute(&a, at->stage, &outcome, r->source->watch);
    for (int i = 0; i < n_ranks && !s.code; i++)
        s = settle_answer(r, &(struct placed){at->crew, at->stage, at->rank + i}, &a, &outcome);
    if (!s.code && outcome.call.op == OP_ROUTE)
        crew_count_rows(&r->crew, r->own[at->rank].of[T_IDS].memory.data);
    if (!s.code && outcome.call.op == OP_ROUTE) recorded_sample_experts(r);
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
        if (!at->rank) r->doubted[*id] = r->thin[*id] = false;
        if (tensor_table[*id].dtype != DTYPE_I32)
            TRY(recorded_settle(r, at, *id, NULL, NULL, reason, &settled));
        if (settled.values)
            recorded_put_settled(r, at->rank, *id, &settled);
        else
            recorded_unknown(r, at->rank, *id, "%.90s", reason);
        r->since[*id] = S_COUNT;
    }
    return status_ok();
}

/* Done once for all ranks: the sum of what they bring, and the choice of experts, which they
 * share. */
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
