/* Is what one rank stored at one stage right? */
/* SPDX-License-Identifier: MIT */
#include "harness/stage.h"

#include <stdio.h>
#include <stdlib.h>

#include "harness/judge_route.h"
#include "harness/schedules.h"
#include "harness/sharpness.h"

struct judged placed_judged(const struct placed *at, enum tensor_id id, const void *got, int64_t count) {
    return (struct judged){.stage = at->stage,
                           .id = id,
                           .plan = &at->crew->plan,
                           .rank = at->rank,
                           .trunk = at->crew->unsharded,
                           .dtype = placed_dtype(at, id),
                           .got = got,
                           .count = count};
}

void judge_running(const struct placed *at, const struct outcome *o, struct verdict v) {
    if (o->problem[0]) {
        edge_fail(v.edge);
        v.edge->outside++;
        findings_note(v.findings, at->stage, at->crew->unsharded ? -1 : at->rank, o->problem);
    }
}

static void judge_by(const struct placed *at, int to_rank, const struct store *stored, const struct answer *a,
                     struct verdict v) {
    for (int i = 0; i < a->n; i++) {
        void *owned;
        const void *const got = answer_stored(at, stored, a, i, &owned);
        struct judged j = placed_judged(at, a->id[i], got, a->count[i]);
        j.y = a->y[i];
        j.e = a->e[i];
        j.to_rank = to_rank;
        judge_set(&j, v.edge, v.findings);
        free(owned);
    }
    const struct sharpness sharpness = sharpness_of(a);
    sharpness_record(&sharpness, v.edge);
}

void judge_answer(const struct placed *at, const struct outcome *o, const struct answer *a,
                  struct verdict v) {
    judge_by(at, at->rank, &o->got, a, v);
}

void judge_sum(const struct placed *at, const struct outcome *o, const struct answer *a, struct verdict v) {
    judge_by(at, (int)at->crew->plan.tp - 1, &o->got, a, v);
}

void judge_choice(const struct placed *at, const struct outcome *o, struct verdict v) {
    if (o->call.op != OP_ROUTE) return;
    const enum tensor_id id = placed_row(at)->out[0];
    const struct stored *const ids = &o->got.of[id];
    const struct judged j = placed_judged(at, id, ids->memory.data, ids->count);
    judge_route(&j, &o->call, &o->contract, v.edge, v.findings);
}

/* The integer outputs of permute against the reference's, of the call's own rows and in the order
 * that the call stored. */
static void judge_indices(const struct placed *at, const struct call *call, const struct store *got,
                          struct verdict v) {
    static const char *const notes[3] = {"counting the ids, the rows of an expert begin elsewhere",
                                         "not each slot of the row's expert once",
                                         "not the row whose slot this is"};
    const enum tensor_id *const id = placed_row(at)->out;
    int32_t *want[3];
    for (int i = 0; i < 3; i++) want[i] = memory_zeroed((size_t)placed_count(at, id[i]) + 1, sizeof *want[i]);
    ref_permute(call, want[0], want[1], want[2]);
    for (int i = 0; i < 3; i++) {
        const struct judged j = placed_judged(at, id[i], got->of[id[i]].memory.data, placed_count(at, id[i]));
        judge_repeated(&j, want[i], notes[i], v.edge, v.findings);
        free(want[i]);
    }
}

static void judge_caches(const struct placed *at, const struct outcome *o, struct verdict v) {
    const struct batch *const batch = at->crew->batch;
    const int64_t slots = batch->n_pages * PAGE_SIZE;
    unsigned char *const owned = memory_zeroed((size_t)slots, 1);
    for (int64_t i = 0; i < batch->n_tokens; i++) owned[batch->slots[i]] = 1;
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE; id++) {
        const struct stored *const got = &o->got.of[*id];
        const size_t size = dtype_bytes(got->dtype);
        void *const before = memory_zeroed((size_t)got->count, size);
        placed_dense(at, *id, before);
        const struct judged j = placed_judged(at, *id, got->memory.data, got->count);
        judge_untouched(&j, before, got->memory.data, owned, slots, (size_t)(got->count / slots) * size,
                        v.edge, v.findings);
        free(before);
    }
    free(owned);
}

void judge_own(const struct placed *at, const struct outcome *o, struct verdict v) {
    if (o->call.op == OP_PERMUTE) judge_indices(at, &o->call, &o->got, v);
    if (o->call.op == OP_KV_WRITE) judge_caches(at, o, v);
}

/* ---- under another schedule ---- */

/* Rows of an expert in another order are as right, where all that was stored follows it. */
static bool is_another_order(const struct placed *at, const struct outcome *o) {
    if (o->call.op != OP_PERMUTE) return false;
    const struct stored *const row_slot = &o->other.of[T_ROW_SLOT];
    struct edge_result edge = {0};
    struct findings unused;
    const struct verdict v = {&edge, &unused};
    struct outcome of = {.call = o->call, .contract = o->contract};
    struct answer a;
    findings_init(&unused);
    of.call.u.permute.row_slot = (struct view){row_slot->memory.data, DTYPE_I32, {1}, 0, row_slot->count};
    answer_compute(&a, at->stage, &of, NULL);
    judge_indices(at, &of.call, &o->other, v);
    judge_by(at, at->rank, &o->other, &a, v);
    answer_free(&a);
    return edge.state != EDGE_FAIL;
}

void judge_schedule(const struct placed *at, const struct outcome *o, const struct answer *a, bool right,
                    struct verdict v) {
    if (!o->schedule || (right && is_another_order(at, o))) return;
    if (right) {
        const struct judged judged = placed_judged(at, placed_row(at)->out[0], NULL, 0);
        schedule_judge(o, &judged, v.edge, v.findings);
        return;
    }
    const bool whole = !placed_op(at)->choose && !placed_op(at)->collect; /* the answer is about all of it */
    struct edge_result other = {0};
    struct findings unused;
    char text[64], remark[140];
    findings_init(&unused);
    judge_by(at, at->rank, &o->other, a, (struct verdict){&other, &unused});
    schedule_describe(o->schedule, text, sizeof text);
    snprintf(remark, sizeof remark, "; depends on the schedule: %s under (%s)",
             other.state == EDGE_FAIL ? "other values, not all right either,"
             : whole                  ? "all right"
                                      : "other values",
             text);
    findings_remark(v.findings, at->stage, at->crew->unsharded ? -1 : at->rank, remark);
}
