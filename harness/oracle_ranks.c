/* Did every rank of a file store its part of the layer? A stage that moves data must have the bits of
 * the whole tensor, another lies in the acceptance set of the rank's own call. */
/* SPDX-License-Identifier: MIT */
#include "harness/oracle_ranks.h"

#include <stdlib.h>
#include <string.h>

struct status oracle_ranks_open(struct oracle_ranks *r, const struct fixture *fixture,
                                const struct trunk *trunk, struct store *whole) {
    int64_t tp, ep;
    const struct crew *const c = &trunk->crew;
    *r = (struct oracle_ranks){.fixture = fixture, .trunk = trunk};
    fixture_ranks(fixture, &tp, &ep);
    if (c->part != PART_FFN || !c->spec.moe) ep = 1;
    if (!tp) return status_ok();
    if (!plan_fits(&c->spec, c->part, tp, ep))
        return status_error(
            "%.200s: attribute \"ranks_tp\": %lld ranks cannot hold the %s of layer %lld; store "
            "the layout that ran",
            fixture_model(fixture)->name, (long long)tp, part_name(c->part), (long long)trunk->layer);
    r->own = memory_zeroed((size_t)tp, sizeof *r->own);
    r->crew = (struct crew){.storage = DTYPE_F64, .whole = whole, .own = r->own};
    crew_open(&r->crew, &c->spec, c->part, c->batch, tp, ep);
    return status_ok();
}

void oracle_ranks_close(struct oracle_ranks *r) {
    for (int64_t i = 0; i < r->crew.plan.tp; i++) store_free(&r->own[i]);
    free(r->own);
    desk_free(&r->desk);
}

/* The rank's tensor of the file; NULL: it shows none. To be freed. */
static struct status read_rank(const struct oracle_ranks *r, const struct placed *at, enum tensor_id id,
                               double **out) {
    const int64_t count = placed_count(at, id);
    bool found = false;
    *out = memory_zeroed((size_t)count, sizeof **out);
    const struct status s =
        fixture_read_rank(r->fixture, r->trunk->layer, r->crew.part, id, at->rank, count, *out, &found);
    if (!s.code && found) return s;
    free(*out);
    *out = NULL;
    return s;
}

/* The bits of its slice of what the file shows whole; nothing where it does not. */
static struct status judge_moved(const struct oracle_ranks *r, const struct placed *at, enum tensor_id id,
                                 const double *values, const struct oracle_step *step) {
    const enum dtype dtype = tensor_dtype(id, step->stored);
    const int64_t count = placed_count(at, id), n = slice_count(&at->crew->plan, id, -1);
    double *const whole = memory_zeroed((size_t)n, sizeof *whole);
    double *const slice = memory_zeroed((size_t)count, sizeof *slice);
    bool found = false;
    const struct status s = fixture_read(r->fixture, r->trunk->layer, r->crew.part, id, n, whole, &found);
    if (!s.code && found) {
        slice_copy(&at->crew->plan, id, at->rank, sizeof *slice, slice, whole);
        void *const got = store_rounded(values, count, dtype), *const want =
                                                                   store_rounded(slice, count, dtype);
        struct judged j = placed_judged(at, id, got, count);
        j.dtype = dtype;
        judge_identical(&j, want, step->verdict.edge, step->verdict.findings);
        free(got);
        free(want);
    }
    free(whole);
    free(slice);
    return s;
}

/* In the acceptance set of the rank's own call; from a file's partial sum its rank goes on. */
static struct status judge_made(struct oracle_ranks *r, const struct placed *at, const struct answer *a,
                                int i, const struct oracle_step *step, struct outcome *outcome) {
    const enum tensor_id id = a->id[i];
    const enum dtype dtype = tensor_dtype(id, step->stored);
    double *values;
    answer_put(at, &outcome->got, a, i, a->y[i]);
    if (!step->shows_qk && (id == T_Q || id == T_K)) return status_ok();
    TRY(read_rank(r, at, id, &values));
    if (!values) return status_ok();
    if (step->judgeable) {
        void *const got = store_rounded(values, a->count[i], dtype);
        struct judged j = placed_judged(at, id, got, a->count[i]);
        j.dtype = dtype;
        j.y = a->y[i];
        j.e = a->e[i];
        if (placed_row(at)->op == OP_SUM) j.to_rank = (int)r->crew.plan.tp - 1;
        judge_set(&j, step->verdict.edge, step->verdict.findings);
        free(got);
    }
    answer_put(at, &outcome->got, a, i, values);
    free(values);
    return status_ok();
}

static struct status moved_stage(struct oracle_ranks *r, const struct placed *at,
                                 const struct oracle_step *step) {
    struct status s = status_ok();
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE && !s.code; id++) {
        double *values = NULL;
        if (tensor_table[*id].role == ROLE_LOCAL || seat_in_place(*id)) continue;
        if (!step->shows_qk && (*id == T_Q || *id == T_K)) continue;
        s = read_rank(r, at, *id, &values);
        if (!s.code && values) s = judge_moved(r, at, *id, values, step);
        free(values);
    }
    return s;
}

static struct status rank_stage(struct oracle_ranks *r, const struct placed *at,
                                const struct oracle_step *step) {
    struct outcome outcome = {.by = "file", .contract = step->contract};
    struct status s = desk_prepare(&r->desk, at, &outcome);
    if (!s.code && placed_op(at)->choose) placed_op(at)->choose(&outcome.call);
    if (!s.code && placed_row(at)->exact) {
        s = moved_stage(r, at, step);
    } else if (!s.code) {
        struct answer a;
        answer_compute(&a, at->stage, &outcome, r->trunk->watch);
        for (int i = 0; i < a.n && !s.code; i++) s = judge_made(r, at, &a, i, step, &outcome);
        answer_free(&a);
    }
    crew_keep(&r->crew, at->stage, at->rank, &outcome.got, false);
    outcome_free(&outcome);
    return s;
}

struct status oracle_ranks_stage(struct oracle_ranks *r, const struct oracle_step *step) {
    /* What ranks brought is added up once, for all of them. */
    const int64_t n = stage_table[step->stage].op == OP_SUM && r->crew.plan.tp ? 1 : r->crew.plan.tp;
    struct status s = status_ok();
    if (n && r->crew.whole->of[T_IDS].count) {
        const struct stored *const ids = &r->crew.whole->of[T_IDS];
        crew_count_rows(&r->crew, ids->memory.data);
    }
    for (int rank = 0; rank < n && !s.code; rank++)
        s = rank_stage(r, &(struct placed){&r->crew, step->stage, rank}, step);
    return s;
}
