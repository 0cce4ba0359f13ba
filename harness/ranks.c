/* Does every rank compute its part of the unsharded layer? What it stored against the trunk (shard
 * edge); the plan edge is plan_edge.c. */
/* SPDX-License-Identifier: MIT */
#include "harness/rank_work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/coverage.h"
#include "harness/dump.h"
#include "harness/explain.h"
#include "harness/mistake.h"
#include "harness/order.h"
#include "harness/relate.h"
#include "harness/replica.h"
#include "harness/stage.h"
#include "harness/tags.h"
#include "layer/copy.h"

void ranks_open(struct ranks *r, const struct check_case *c, const struct mutant *mutant,
                struct trunk *trunk) {
    *r = (struct ranks){.c = c, .mutant = mutant};
    r->own = memory_zeroed((size_t)c->tp, sizeof *r->own);
    r->exact = memory_zeroed((size_t)c->tp, sizeof *r->exact);
    r->crew = (struct crew){.storage = c->dtype,
                            .layout = c->layout,
                            .whole = &trunk->store,
                            .own = r->own,
                            .fault = trunk->crew.fault};
    crew_open(&r->crew, &trunk->crew.spec, c->part, &trunk->batch, c->tp, c->ep);
    findings_init(&r->findings);
}

void ranks_close(struct ranks *r) {
    for (int64_t i = 0; i < r->crew.plan.tp; i++) {
        store_free(&r->own[i]);
        store_free(&r->exact[i]);
    }
    free(r->own);
    free(r->exact);
}

static void borrow_answer(struct rank_work *w) {
    w->answer = w->trunk->answer;
    w->answer.borrowed = true;
}

static void slice_answer(struct rank_work *w) {
    const struct answer *const whole = &w->trunk->answer;
    struct answer *const a = &w->answer;
    borrow_answer(w);
    if (w->same_call) return;
    a->borrowed = false;
    for (int i = 0; i < a->n; i++) {
        a->s1[i] = NULL;
        a->count[i] = placed_count(&w->at, a->id[i]);
        a->row_size[i] = ref_row_size(&w->outcome.call, i);
        a->y[i] = block_new((size_t)a->count[i], sizeof(double));
        a->e[i] = block_new((size_t)a->count[i], sizeof(double));
        slice_copy(&w->at.crew->plan, a->id[i], w->at.rank, sizeof(double), a->y[i], whole->y[i]);
        slice_copy(&w->at.crew->plan, a->id[i], w->at.rank, sizeof(double), a->e[i], whole->e[i]);
    }
}

/* ---- shard edge ---- */

/* Trunk and rank ran the same kernel, and it says that what it stores does not depend on the
 * shard. */
static bool must_be_identical(const struct rank_work *w) {
    const struct kernel *const kernel = w->outcome.kernel;
    return placed_row(&w->at)->exact ||
           (kernel && kernel == w->trunk->outcome.kernel && kernel->shard_invariant);
}

/* The bits of the trunk's slice; the answer, where it is about this tensor, only explains a
 * difference. */
static void shard_identical(struct rank_work *w, enum tensor_id id) {
    const struct stored *const got = &w->outcome.got.of[id];
    const struct verdict v = verdict_on(w, EDGE_SHARD);
    struct judged j = placed_judged(&w->at, id, got->memory.data, got->count);
    for (int i = 0; i < w->answer.n; i++)
        if (w->answer.id[i] == id) j.y = w->answer.y[i], j.e = w->answer.e[i];
    if (!placed_row(&w->at)->exact) j.promised_by = w->outcome.kernel->name;
    const struct stored *const whole = &w->trunk->outcome.got.of[id];
    void *const slice =
        whole->count == got->count ? NULL : memory_zeroed((size_t)got->count, dtype_bytes(got->dtype));
    if (slice)
        slice_copy(&w->at.crew->plan, id, w->at.rank, dtype_bytes(got->dtype), slice, whole->memory.data);
    judge_identical(&j, slice ? slice : whole->memory.data, v.edge, v.findings);
    free(slice);
}

/* A rank may sort its experts' rows, or sum, in an order of its own, and is held to that. */
static void answer_again(struct rank_work *w) {
    answer_free(&w->answer);
    answer_compute(&w->answer, w->at.stage, &w->outcome, w->trunk->watch);
}

/* What follows has the rows of the trunk, in the trunk's order. */
static void follow_trunk_order(struct rank_work *w) {
    struct permute_args *const a = &w->outcome.call.u.permute;
    const struct span rows = w->at.crew->plan.rank[w->at.rank][AXIS_N];
    const int64_t n_slots = a->n_tokens * a->top_k;
    int32_t *const row_slot = memory_zeroed((size_t)n_slots + 1, sizeof *row_slot);
    int32_t *const slot_row = w->outcome.got.of[T_SLOT_ROW].memory.data;
    const struct stored *const of_trunk = &w->trunk->outcome.got.of[T_ROW_SLOT];
    struct call whole = w->outcome.call; /* of all experts, sorted as the trunk did */
    whole.u.permute.expert_first = 0;
    whole.u.permute.expert_count = w->at.crew->plan.size[AXIS_E];
    whole.u.permute.row_slot = (struct view){of_trunk->memory.data, DTYPE_I32, {1}, 0, of_trunk->count};
    ref_permute(&whole, NULL, row_slot, slot_row);
    for (int64_t s = 0; s < n_slots; s++) {
        const int64_t row = slot_row[s] - rows.first;
        slot_row[s] = slot_row[s] >= 0 && row >= 0 && row < rows.count ? (int32_t)row : -1;
    }
    memcpy(w->outcome.got.of[T_ROW_SLOT].memory.data, row_slot + rows.first,
           (size_t)rows.count * sizeof *row_slot);
    memcpy(a->row_slot.data, row_slot + rows.first, (size_t)rows.count * sizeof *row_slot);
    free(row_slot);
    answer_free(&w->answer);
    slice_answer(w);
}

/* Partial and moved rows are judged by their own answers; whatever else the stage stored is the
 * trunk's, bit for bit where that is promised. */
static bool judged_by_answer(const struct rank_work *w) {
    return is_partial(w->trunk->answer.id[0]) || placed_op(&w->at)->collect || !must_be_identical(w) ||
           w->outcome.call.op == OP_PERMUTE;
}

static void shard_edge(struct rank_work *w) {
    const struct verdict v = verdict_on(w, EDGE_SHARD);
    const bool by_answer = judged_by_answer(w);
    const int64_t before = v.edge->outside;
    judge_running(&w->at, &w->outcome, v);
    judge_own(&w->at, &w->outcome, v);
    if (by_answer) judge_answer(&w->at, &w->outcome, &w->answer, v);
    for (const enum tensor_id *id = placed_row(&w->at)->out; *id != T_NONE; id++) {
        const enum tensor_role role = tensor_table[*id].role;
        if (!by_answer && role != ROLE_LOCAL && role != ROLE_PARTIAL) shard_identical(w, *id);
    }
    judge_schedule(&w->at, &w->outcome, &w->answer, v.edge->outside == before, v);
    if (by_answer) judge_order(&w->at, &w->outcome, &w->answer, v);
    if (by_answer) judge_trend(&w->at, &w->outcome, &w->answer, w->trunk->spread, v);
}

/* ---- one stage ---- */

/* Ranks are judged as what filled the trunk promises. */
static struct contract contract_of(const struct outcome *trunk, const struct call *call) {
    return trunk->kernel ? trunk->kernel->contract(call) : trunk->contract;
}

/* Do the bounds of a slice of the trunk's answer hold for the rank, another kernel maybe or another order
 * that its sums were found to have? */
static bool sums_as_trunk(const struct rank_work *w) {
    if (w->outcome.call.op != OP_LINEAR || !w->trunk->outcome.kernel) return true;
    const struct accumulator *const rank = &w->outcome.contract.u.linear.acc, *const trunk =
                                                                                  &w->trunk->outcome.contract
                                                                                       .u.linear.acc;
    const int64_t n = w->outcome.call.u.linear.n_inner;
    return rank->order == trunk->order && rank->slice == trunk->slice &&
           accumulator_factor(rank, n) == accumulator_factor(trunk, n);
}

static void partial_answer(struct rank_work *w, double **sum) {
    answer_compute(&w->answer, w->at.stage, &w->outcome, w->trunk->watch);
    partial_add(w, sum);
}

/* Once the rank has run, and not as the trunk did. */
static void own_answer(struct rank_work *w, double **partial) {
    const double start = clock_seconds();
    order_learn(&w->at, &w->outcome, verdict_on(w, EDGE_SHARD));
    if (is_partial(w->trunk->answer.id[0]))
        partial_answer(w, partial);
    else if (w->outcome.call.op == OP_PERMUTE || !sums_as_trunk(w))
        answer_again(w);
    w->ranks->seconds_reference += clock_seconds() - start;
}

/* The same was stored by the same call: what was found of the trunk is true of the rank. */
static bool is_replica(const struct rank_work *w) {
    return w->same_call && judged_by_answer(w) && w->trunk->edge.state != EDGE_FAIL &&
           replica_stores(&w->at, &w->outcome, &w->trunk->outcome);
}

static void replica_judged(const struct rank_work *w, enum tensor_id id) {
    const struct judged j = placed_judged(&w->at, id, NULL, placed_count(&w->at, id));
    findings_judged(&w->ranks->findings, &j);
}

static void replica_edge(struct rank_work *w, double **partial) {
    struct edge_result found = w->trunk->edge;
    found.single = found.sets = 0; /* counted of the trunk only */
    edge_merge(verdict_on(w, EDGE_SHARD).edge, &found);
    w->outcome.contract = w->trunk->outcome.contract;
    borrow_answer(w);
    for (int i = 0; i < placed_op(&w->at)->first; i++) replica_judged(w, placed_row(&w->at)->out[i]);
    for (int i = 0; i < w->answer.n; i++) replica_judged(w, w->answer.id[i]);
    if (is_partial(w->answer.id[0])) partial_add(w, partial);
}

static struct status rank_stage(struct rank_work *w, double **partial) {
    struct ranks *const r = w->ranks;
    struct seat *const seat = trunk_seat(w->trunk, w->at.stage);
    const bool routes = placed_row(&w->at)->op == OP_ROUTE;  /* gates are of the ids that the rank chose */
    const bool sorts = placed_row(&w->at)->op == OP_PERMUTE; /* and rows in the order that it did */
    const bool partial_sum = is_partial(w->trunk->answer.id[0]), own = sorts || partial_sum; /* no slice */
    const double start = clock_seconds();
    TRY(seat->prepare(seat, &w->at, &w->outcome));
    w->outcome.contract = contract_of(&w->trunk->outcome, &w->outcome.call);
    w->same_call =
        !routes && replica_calls(&w->at, &w->outcome, &(struct placed){&w->trunk->crew, w->at.stage, 0},
                                 &w->trunk->outcome);
    if (!partial_sum) {
        slice_answer(w);
        if (!routes && !sorts) plan_edge(w);
    }
    r->seconds_reference += clock_seconds() - start;
    const enum edge_state before = r->edge[EDGE_SHARD].state;
    TRY(mistake_fill(seat, &w->at, r->mutant, &w->outcome));
    r->mistaken |= w->outcome.mistaken;
    r->seconds_kernel += w->outcome.seconds;
    if (!w->outcome.by) {
        snprintf(r->unsupported, sizeof r->unsupported, "rank %d of %lld: %.440s", w->at.rank,
                 (long long)r->crew.plan.tp, w->outcome.problem);
        return status_ok();
    }
    if (routes) plan_edge(w);
    const bool replica = is_replica(w);
    if (replica) {
        replica_edge(w, partial);
    } else {
        own_answer(w, partial);
        shard_edge(w);
    }
    coverage_see(&r->facts, &w->at, &w->outcome, &r->edge[EDGE_SHARD]);
    inspect(w->trunk->print, &w->at, &w->outcome, &w->answer);
    if (r->edge[EDGE_SHARD].state == EDGE_FAIL && before != EDGE_FAIL && r->findings.stage == w->at.stage) {
        r->findings.tiles = outcome_tiles(&w->outcome);
        if (w->trunk->c.fill == FILL_TAGS)
            tags_read(&w->at, &w->outcome, &w->answer, r->read, sizeof r->read);
        explain(&w->at, &w->outcome, &w->answer, r->likely, sizeof r->likely);
        if (!r->likely[0])
            relate(&w->at, &w->outcome, &w->answer, own ? NULL : &w->trunk->answer, r->resembles,
                   sizeof r->resembles);
    }
    if (sorts && !replica) follow_trunk_order(w);
    if (sorts) plan_edge(w);
    TRY(dump_rank(r->dump, w->trunk, &w->at, &w->outcome.got));
    crew_keep(&r->crew, w->at.stage, w->at.rank, &w->outcome.got, false);
    return status_ok();
}

static void rank_work_free(struct rank_work *w) {
    answer_free(&w->answer);
    outcome_free(&w->outcome);
}

/* What the ranks brought, added up once for all of them. */
static struct status sum_stage(struct ranks *r, struct trunk *t, int stage) {
    struct rank_work w = {.ranks = r, .trunk = t, .at = {&r->crew, stage, 0}};
    struct seat *const seat = trunk_seat(t, stage);
    TRY(seat->prepare(seat, &w.at, &w.outcome));
    TRY(mistake_fill(seat, &w.at, r->mutant, &w.outcome));
    r->mistaken |= w.outcome.mistaken;
    answer_compute(&w.answer, stage, &w.outcome, t->watch);
    judge_sum(&w.at, &w.outcome, &w.answer, verdict_on(&w, EDGE_SHARD));
    coverage_see(&r->facts, &w.at, &w.outcome, &r->edge[EDGE_SHARD]);
    inspect(t->print, &w.at, &w.outcome, &w.answer);
    if (r->edge[EDGE_SHARD].state == EDGE_FAIL && r->findings.stage == stage) {
        if (t->c.fill == FILL_TAGS) tags_read(&w.at, &w.outcome, &w.answer, r->read, sizeof r->read);
        explain(&w.at, &w.outcome, &w.answer, r->likely, sizeof r->likely);
        if (!r->likely[0]) relate(&w.at, &w.outcome, &w.answer, NULL, r->resembles, sizeof r->resembles);
    }
    const struct status s = dump_rank(r->dump, t, &w.at, &w.outcome.got);
    rank_work_free(&w);
    return s;
}

static void follow_rows(struct ranks *r, const struct trunk *t) {
    const struct stored *const ids = &t->store.of[T_IDS];
    if (ids->count) crew_count_rows(&r->crew, ids->memory.data);
}

bool ranks_accept(struct ranks *r, const struct trunk *t, int stage) {
    const char *why;
    follow_rows(r, t);
    for (int rank = 0; rank < r->crew.plan.tp; rank++) {
        struct call call;
        call_sketch(&call, &(struct setting){stage, rank, &r->crew.spec, &r->crew.plan, r->crew.batch},
                    r->crew.storage);
        if (!kernel_pick(call.op, r->c->device, &call, &why)) return false;
    }
    return true;
}

struct status ranks_stage(struct ranks *r, struct trunk *t, int stage) {
    double *partial = NULL;
    struct status s = status_ok();
    memset(r->edge, 0, sizeof r->edge);
    r->seconds_kernel = r->seconds_reference = 0;
    follow_rows(r, t);
    if (stage_table[stage].op == OP_SUM) return sum_stage(r, t, stage);
    for (int rank = 0; rank < r->crew.plan.tp && !s.code && !r->unsupported[0]; rank++) {
        struct rank_work w = {.ranks = r, .trunk = t, .at = {&r->crew, stage, rank}};
        s = rank_stage(&w, &partial);
        rank_work_free(&w);
    }
    if (partial && !s.code && !r->unsupported[0]) partial_edge(r, t, stage, partial);
    block_free(partial);
    return s;
}
