/* Does every rank compute its part of the unsharded layer? The reference on a rank's operands
 * against the reference on the whole (plan edge), and what the rank stored against the trunk (shard
 * edge). */
/* SPDX-License-Identifier: MIT */
#include "harness/ranks.h"

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
#include "harness/stage.h"
#include "harness/tags.h"
#include "layer/copy.h"

/* Multiply-adds up to which every row is recomputed; above, PLAN_ROWS rows, and one of every
 * expert. */
#define PLAN_WORK 3e8
#define PLAN_ROWS 4

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

/* One rank at one stage, with what it is compared to. */
struct rank_work {
    struct ranks *ranks;
    struct trunk *trunk;
    struct placed at;
    struct outcome outcome;
    struct answer answer; /* of the rank's own call for partial outputs, otherwise its slice of the trunk's */
};

static bool is_partial(enum tensor_id id) { return tensor_table[id].role == ROLE_PARTIAL; }

static struct verdict verdict_on(const struct rank_work *w, enum edge edge) {
    return (struct verdict){&w->ranks->edge[edge], &w->ranks->findings};
}

static void slice_answer(struct rank_work *w) {
    const struct answer *const whole = &w->trunk->answer;
    struct answer *const a = &w->answer;
    a->n = whole->n;
    for (int i = 0; i < a->n; i++) {
        a->id[i] = whole->id[i];
        a->count[i] = placed_count(&w->at, a->id[i]);
        a->row_size[i] = ref_row_size(&w->outcome.call, i);
        a->y[i] = memory_zeroed((size_t)a->count[i], sizeof(double));
        a->e[i] = memory_zeroed((size_t)a->count[i], sizeof(double));
        slice_copy(&w->at.crew->plan, a->id[i], w->at.rank, sizeof(double), a->y[i], whole->y[i]);
        slice_copy(&w->at.crew->plan, a->id[i], w->at.rank, sizeof(double), a->e[i], whole->e[i]);
    }
}

/* ---- plan edge ---- */

/* Rows [row0, row1) as the reference has them on the rank's own operands. */
struct plan_piece {
    int64_t row0, row1;
    double *y[MAX_REF_OUT];
};

static void plan_compute(const struct rank_work *w, struct plan_piece *p) {
    struct ref_out out[MAX_REF_OUT] = {0};
    for (int i = 0; i < w->answer.n; i++)
        out[i].y = p->y[i] =
            memory_zeroed((size_t)((p->row1 - p->row0) * w->answer.row_size[i]), sizeof(double));
    ref_compute(&w->outcome.call, &w->outcome.contract, NULL, p->row0, p->row1, out);
}

/* They must have the very bits of the slice of the whole answer. */
static void plan_judge(struct rank_work *w, struct plan_piece *p) {
    const struct answer *const a = &w->answer;
    const struct verdict v = verdict_on(w, EDGE_PLAN);
    for (int i = 0; i < a->n; i++) {
        struct judged j = placed_judged(&w->at, a->id[i], NULL, (p->row1 - p->row0) * a->row_size[i]);
        j.first = p->row0 * a->row_size[i];
        judge_plan(&j, p->y[i], a->y[i] + j.first, NULL, v.edge, v.findings);
        free(p->y[i]);
    }
    v.edge->sampled_rows += p->row1 - p->row0;
}

/* Single rows, a thread each: a team for every one of them would cost more than its sums. */
static void plan_pieces(struct rank_work *w, struct plan_piece *piece, int64_t n) {
    enum { FEW = 16 };
#pragma omp parallel for schedule(dynamic) if (n > FEW)
    for (int64_t i = 0; i < n; i++) plan_compute(w, &piece[i]);
    for (int64_t i = 0; i < n; i++) plan_judge(w, &piece[i]);
}

/* The first sorted row of every group, and where the last one ends. NULL: the stage's rows are in
 * no groups. */
static const struct view *group_offsets(const struct call *call, int64_t *n_groups) {
    const bool linear = call->op == OP_LINEAR, gated = call->op == OP_GATED_LINEAR;
    const struct view *const offsets = linear ? &call->u.linear.offsets : &call->u.gated_linear.offsets;
    if ((!linear && !gated) || !offsets->data) return NULL;
    *n_groups = linear ? call->u.linear.n_groups : call->u.gated_linear.n_groups;
    return offsets;
}

/* Every expert that has rows is a weight matrix of its own, with a slice of its own: one row of
 * each. */
static void pick_experts(const struct call *call, uint64_t mix, int64_t rows, bool *picked) {
    int64_t n_groups;
    const struct view *const offsets = group_offsets(call, &n_groups);
    for (int64_t g = 0; offsets && g < n_groups; g++) {
        const int64_t first = (int64_t)dtype_load(offsets->data, DTYPE_I32, g),
                      count = (int64_t)dtype_load(offsets->data, DTYPE_I32, g + 1) - first;
        if (first >= 0 && count > 0 && first + count <= rows)
            picked[first + (int64_t)((mix >> 17) % (uint64_t)count)] = true;
    }
}

static void plan_edge(struct rank_work *w) {
    const struct call *const call = &w->outcome.call;
    const int64_t rows = ref_n_rows(call);
    w->ranks->edge[EDGE_PLAN].rows += rows;
    if (rows <= PLAN_ROWS || call_row_work(call) * (double)rows <= PLAN_WORK) {
        plan_pieces(w, &(struct plan_piece){0, rows, {0}}, 1);
        return;
    }
    const uint64_t mix = (w->ranks->c->seed * 0x9e3779b97f4a7c15u) ^ ((uint64_t)w->at.rank << 32);
    const int64_t picks[PLAN_ROWS] = {0, 1 + (int64_t)((mix >> 7) % (uint64_t)(rows / 2)),
                                      rows / 2 + (int64_t)((mix >> 29) % (uint64_t)(rows / 2)), rows - 1};
    bool *const picked = memory_zeroed((size_t)rows, sizeof *picked);
    for (int i = 0; i < PLAN_ROWS; i++) picked[picks[i]] = true;
    pick_experts(call, mix, rows, picked);
    struct plan_piece *const piece = memory_zeroed((size_t)rows, sizeof *piece);
    int64_t n = 0;
    for (int64_t row = 0, end; row < rows; row = end + 1) {
        for (end = row; end < rows && picked[end];) end++;
        if (end > row) piece[n++] = (struct plan_piece){row, end, {0}};
    }
    plan_pieces(w, piece, n);
    free(piece);
    free(picked);
}

/* Partial sums: the ranks' references must add up to the whole's, within what double summation
 * allows. A partial tensor is cut along its first axis, if at all. */
static void partial_add(struct rank_work *w, double *sum) {
    const struct answer *const a = &w->answer;
    const struct axis_block rows = tensor_axes(a->id[0]).axis[0].block[0];
    const int64_t first =
        rows.group == GROUP_NONE ? 0 : w->at.crew->plan.rank[w->at.rank][rows.name].first * a->row_size[0];
    double *const unrounded = answer_exact(&w->at, &w->outcome, &w->ranks->exact[w->at.rank]);
    const double *const y = unrounded ? unrounded : a->y[0];
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->count[0]; n++) sum[first + n] += y[n];
    if (tensor_continues(a->id[0]))
        copy_bytes(store_renew(&w->ranks->exact[w->at.rank], a->id[0], DTYPE_F64, a->count[0]), y,
                   (size_t)a->count[0] * sizeof *y);
    free(unrounded);
}

/* The ranks from `rank` on that hold the same rows of it, and these rows. */
static int sharing(const struct ranks *r, const struct answer *a, int rank, struct span *rows) {
    const struct axis_block axis = tensor_axes(a->id[0]).axis[0].block[0];
    const int tp = (int)r->crew.plan.tp;
    int last = rank;
    *rows = (struct span){0, a->count[0] / a->row_size[0]};
    if (axis.group == GROUP_NONE) return tp - 1;
    *rows = r->crew.plan.rank[rank][axis.name];
    while (last + 1 < tp && r->crew.plan.rank[last + 1][axis.name].first == rows->first &&
           r->crew.plan.rank[last + 1][axis.name].count == rows->count)
        last++;
    return last;
}

/* Which of the ranks that share a row is wrong, its sum cannot tell. */
static void partial_edge(struct ranks *r, const struct trunk *t, int stage, const double *sum) {
    const struct answer *const a = &t->answer;
    const double terms = (double)stage_terms(stage, t->crew.plan.size) + (double)r->crew.plan.tp;
    const double *const y = t->sum_y ? t->sum_y : a->y[0], *const s1 = t->sum_s1 ? t->sum_s1 : a->s1[0];
    double *const slack = memory_zeroed((size_t)a->count[0], sizeof(double));
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->count[0]; n++) slack[n] = 2 * terms * UNIT_F64 * s1[n];
    for (int rank = 0, last; rank < r->crew.plan.tp; rank = last + 1) {
        struct span rows;
        last = sharing(r, a, rank, &rows);
        const int64_t first = rows.first * a->row_size[0];
        const struct placed at = {&r->crew, stage, rank};
        struct judged j = placed_judged(&at, a->id[0], NULL, rows.count * a->row_size[0]);
        j.to_rank = last;
        if (last > rank) j.first = first;
        judge_plan(&j, sum + first, y + first, slack + first, &r->edge[EDGE_PLAN], &r->findings);
    }
    free(slack);
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
    void *const slice = memory_zeroed((size_t)got->count, dtype_bytes(got->dtype));
    slice_copy(&w->at.crew->plan, id, w->at.rank, dtype_bytes(got->dtype), slice,
               w->trunk->outcome.got.of[id].memory.data);
    judge_identical(&j, slice, v.edge, v.findings);
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
static void shard_edge(struct rank_work *w) {
    const struct verdict v = verdict_on(w, EDGE_SHARD);
    const bool by_answer = is_partial(w->answer.id[0]) || placed_op(&w->at)->collect ||
                           !must_be_identical(w) || w->outcome.call.op == OP_PERMUTE;
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
    if (!*sum) *sum = memory_zeroed((size_t)w->trunk->answer.count[0], sizeof **sum);
    partial_add(w, *sum);
}

/* Once the rank has run. */
static void own_answer(struct rank_work *w, double **partial) {
    const double start = clock_seconds();
    order_learn(&w->at, &w->outcome, verdict_on(w, EDGE_SHARD));
    if (is_partial(w->trunk->answer.id[0]))
        partial_answer(w, partial);
    else if (w->outcome.call.op == OP_PERMUTE || !sums_as_trunk(w))
        answer_again(w);
    w->ranks->seconds_reference += clock_seconds() - start;
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
    own_answer(w, partial);
    shard_edge(w);
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
    if (sorts) {
        follow_trunk_order(w);
        plan_edge(w);
    }
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
    free(partial);
    return s;
}
