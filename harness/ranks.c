/* SPDX-License-Identifier: MIT */
#include "harness/ranks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/explain.h"
#include "harness/schedules.h"

#define PLAN_WORK 3e8 /* multiply-adds up to which every row is recomputed; above, PLAN_ROWS rows */
#define PLAN_ROWS 4

void ranks_open(struct ranks *r, const struct check_case *c, const struct mutant *mutant,
                struct trunk *trunk) {
    *r = (struct ranks){.c = c, .mutant = mutant};
    plan_build(&r->plan, &trunk->spec, c->tp, c->ep);
    for (enum axis_name a = 0; a < AXIS_COUNT; a++) r->plan.size[a] = trunk->plan.size[a];
    r->own = memory_zeroed((size_t)c->tp, sizeof *r->own);
    r->exact_down = memory_zeroed((size_t)c->tp, sizeof *r->exact_down);
    r->seat = &trunk->seat;
    findings_init(&r->findings);
}

void ranks_close(struct ranks *r) {
    for (int64_t i = 0; i < r->plan.tp; i++) {
        store_free(&r->own[i]);
        free(r->exact_down[i]);
    }
    free(r->own);
    free(r->exact_down);
}

/* One rank at one stage, with what it is compared to. */
struct rank_work {
    struct ranks *ranks;
    const struct trunk *trunk;
    int stage, rank;
    struct seat_result result;
    struct contract contract;
    struct answer own;                       /* partial stages: the reference of the rank's own call */
    double *y[MAX_REF_OUT], *e[MAX_REF_OUT]; /* the rank's slices of the trunk's answer; NULL for partials */
    int64_t count[MAX_REF_OUT];
};

static bool is_partial(enum tensor_id id) { return tensor_table[id].role == ROLE_PARTIAL; }

static struct judged rank_judged(const struct rank_work *w, enum tensor_id id, const void *got,
                                 int64_t count) {
    return (struct judged){.stage = w->stage,
                           .id = id,
                           .plan = &w->ranks->plan,
                           .rank = w->rank,
                           .dtype = store_dtype(id, w->trunk->c.dtype),
                           .got = got,
                           .count = count};
}

static void slice_answer(struct rank_work *w) {
    const struct answer *const a = &w->trunk->answer;
    for (int i = 0; i < a->n; i++) {
        if (is_partial(a->id[i])) continue;
        w->count[i] = slice_count(&w->ranks->plan, a->id[i], w->rank);
        w->y[i] = memory_zeroed((size_t)w->count[i], sizeof(double));
        w->e[i] = memory_zeroed((size_t)w->count[i], sizeof(double));
        slice_copy(&w->ranks->plan, a->id[i], w->rank, sizeof(double), w->y[i], a->y[i]);
        slice_copy(&w->ranks->plan, a->id[i], w->rank, sizeof(double), w->e[i], a->e[i]);
    }
}

/* ---- plan edge ---- */

static double row_work(const struct call *call) {
    double work = 0;
    for (int i = 0; i < ref_n_outputs(call->op); i++) work += (double)ref_row_size(call, i);
    if (call->op == OP_LINEAR) work *= (double)call->u.linear.n_inner;
    if (call->op == OP_GATED_LINEAR) work *= 2 * (double)call->u.gated_linear.n_inner;
    if (call->op == OP_ATTENTION) work *= (double)call->u.attention.max_kv;
    return work;
}

/* The reference on the rank's own operands must give the very bits of its slice of the whole answer. */
static void plan_rows(struct rank_work *w, int64_t row0, int64_t row1, const int64_t row_size[MAX_REF_OUT]) {
    struct edge_result *const edge = &w->ranks->edge[EDGE_PLAN];
    struct ref_out out[MAX_REF_OUT] = {0};
    const struct answer *const a = &w->trunk->answer;
    for (int i = 0; i < a->n; i++)
        out[i].y = memory_zeroed((size_t)((row1 - row0) * row_size[i]), sizeof(double));
    ref_compute(&w->result.reference_call, &w->contract, row0, row1, out);
    for (int i = 0; i < a->n; i++) {
        struct judged j = rank_judged(w, a->id[i], NULL, (row1 - row0) * row_size[i]);
        j.first = row0 * row_size[i];
        judge_plan(&j, out[i].y, w->y[i] + row0 * row_size[i], NULL, edge, &w->ranks->findings);
        free(out[i].y);
    }
    edge->sampled_rows += row1 - row0;
}

static void plan_edge(struct rank_work *w) {
    const struct call *const call = &w->result.reference_call;
    const int64_t rows = ref_n_rows(call);
    int64_t row_size[MAX_REF_OUT] = {0};
    for (int i = 0; i < w->trunk->answer.n; i++) row_size[i] = ref_row_size(call, i);
    w->ranks->edge[EDGE_PLAN].rows += rows;
    if (rows <= PLAN_ROWS || row_work(call) * (double)rows <= PLAN_WORK) {
        plan_rows(w, 0, rows, row_size);
        return;
    }
    const uint64_t mix = (w->ranks->c->seed * 0x9e3779b97f4a7c15u) ^ ((uint64_t)w->rank << 32);
    const int64_t picks[PLAN_ROWS] = {0, 1 + (int64_t)((mix >> 7) % (uint64_t)(rows / 2)),
                                      rows / 2 + (int64_t)((mix >> 29) % (uint64_t)(rows / 2)), rows - 1};
    for (int i = 0; i < PLAN_ROWS; i++)
        if (!i || picks[i] > picks[i - 1]) plan_rows(w, picks[i], picks[i] + 1, row_size);
}

/* Partial sums: the ranks' references must add up to the whole's, within what double summation allows. */
struct partial_sum {
    double *sum[MAX_REF_OUT];
};

static void partial_add(struct partial_sum *p, struct rank_work *w) {
    const struct answer *const a = &w->own;
    double **const exact_down = &w->ranks->exact_down[w->rank];
    double *const combined = w->stage == S_COMBINE
                                 ? answer_exact_combine(&w->result.reference_call, &w->contract, *exact_down)
                                 : NULL;
    const int64_t first_row = a->id[0] == T_DOWN ? w->ranks->plan.rank[w->rank][AXIS_N].first : 0;
    for (int i = 0; i < a->n; i++) {
        if (!p->sum[i]) p->sum[i] = memory_zeroed((size_t)w->trunk->answer.count[i], sizeof(double));
        for (int64_t n = 0; n < a->count[i]; n++)
            p->sum[i][first_row * a->row_size[i] + n] += (combined ? combined : a->y[i])[n];
    }
    free(combined);
    if (w->stage == S_DOWN) {
        free(*exact_down);
        *exact_down = memory_zeroed((size_t)a->count[0], sizeof(double));
        memcpy(*exact_down, a->y[0], (size_t)a->count[0] * sizeof(double));
    }
}

static double term_count(const struct trunk *t, int stage) {
    switch (stage) {
    case S_O_PROJ: return (double)(t->spec.n_heads * t->spec.head_dim);
    case S_DOWN: return (double)t->spec.expert_width;
    case S_SHARED_DOWN: return (double)t->spec.shared_width;
    default: return (double)(t->spec.expert_width + t->spec.top_k); /* combine, on unrounded `down` */
    }
}

static void partial_edge(struct ranks *r, const struct trunk *t, int stage, struct partial_sum *p) {
    const struct answer *const a = &t->answer;
    for (int i = 0; i < a->n && p->sum[i]; i++) {
        double *const slack = memory_zeroed((size_t)a->count[i], sizeof(double));
        const double *const s1 = stage == S_COMBINE ? t->exact_combined_s1 : a->s1[i];
        for (int64_t n = 0; n < a->count[i]; n++)
            slack[n] = 2 * (term_count(t, stage) + (double)r->plan.tp) * UNIT_F64 * s1[n];
        const struct judged j = {
            .stage = stage, .id = a->id[i], .plan = &t->plan, .trunk = true, .count = a->count[i]};
        const double *const whole = stage == S_COMBINE ? t->exact_combined : a->y[i];
        judge_plan(&j, p->sum[i], whole, slack, &r->edge[EDGE_PLAN], &r->findings);
        free(slack);
        free(p->sum[i]);
    }
}

/* ---- shard edge ---- */

/* Trunk and rank ran the same kernel, and it says that what it stores does not depend on the shard. */
static bool must_be_identical(const struct rank_work *w) {
    return stage_table[w->stage].exact ||
           (w->result.kernel == w->trunk->kernel && w->result.kernel->shard_invariant);
}

static void shard_caches(struct rank_work *w) {
    const struct trunk *const t = w->trunk;
    const struct shard_plan *const plan = &w->ranks->plan;
    struct edge_result *const edge = &w->ranks->edge[EDGE_SHARD];
    unsigned char *const owned = cache_owned(t);
    const size_t size = dtype_bytes(t->c.dtype);
    const size_t row = (size_t)(plan->rank[w->rank][AXIS_G].count * t->spec.head_dim) * size;
    for (int i = 0; i < 2; i++) {
        const enum tensor_id cache = i ? T_V_CACHE : T_K_CACHE;
        const struct stored *const got = &w->result.got.of[cache];
        void *const rows = memory_zeroed((size_t)t->batch.n_tokens, row);
        void *const slice = memory_zeroed((size_t)got->count, size);
        cache_gather(t, got->memory.data, row, rows);
        struct judged j = rank_judged(w, t->answer.id[i], rows, w->count[i]);
        j.y = w->y[i];
        judge_set(&j, edge, &w->ranks->findings);
        slice_copy(plan, cache, w->rank, size, slice, t->store.of[cache].memory.data);
        const struct judged whole = rank_judged(w, cache, got->memory.data, got->count);
        judge_untouched(&whole, slice, got->memory.data, owned, t->batch.n_pages * PAGE_SIZE, row, edge,
                        &w->ranks->findings);
        free(slice);
        free(rows);
    }
    free(owned);
}

static void shard_indices(struct rank_work *w, enum tensor_id id, const struct stored *got) {
    int32_t *const want = memory_zeroed((size_t)got->count, sizeof *want);
    ref_permute(&w->result.reference_call, id == T_OFFSETS ? want : NULL, id == T_ROW_SLOT ? want : NULL,
                id == T_SLOT_ROW ? want : NULL);
    const struct judged j = rank_judged(w, id, got->memory.data, got->count);
    judge_identical(&j, want, &w->ranks->edge[EDGE_SHARD], &w->ranks->findings);
    free(want);
}

static int answer_index(const struct answer *a, enum tensor_id id) {
    for (int i = 0; i < a->n; i++)
        if (a->id[i] == id) return i;
    return -1;
}

static void shard_output(struct rank_work *w, enum tensor_id id) {
    const struct stored *const got = &w->result.got.of[id];
    struct edge_result *const edge = &w->ranks->edge[EDGE_SHARD];
    if (tensor_table[id].role == ROLE_LOCAL) {
        shard_indices(w, id, got);
        return;
    }
    struct judged j = rank_judged(w, id, got->memory.data, got->count);
    const int i = answer_index(&w->trunk->answer, id);
    if (is_partial(id)) {
        j.y = w->own.y[i];
        j.e = w->own.e[i];
        judge_set(&j, edge, &w->ranks->findings);
        return;
    }
    if (i >= 0) {
        j.y = w->y[i];
        j.e = w->e[i];
    }
    if (i >= 0 && !must_be_identical(w)) {
        judge_set(&j, edge, &w->ranks->findings);
        return;
    }
    void *const slice = memory_zeroed((size_t)got->count, dtype_bytes(got->dtype));
    slice_copy(&w->ranks->plan, id, w->rank, dtype_bytes(got->dtype), slice,
               w->trunk->fresh.of[id].memory.data);
    judge_identical(&j, slice, edge, &w->ranks->findings);
    free(slice);
}

static void shard_edge(struct rank_work *w) {
    if (w->result.problem[0]) {
        edge_fail(&w->ranks->edge[EDGE_SHARD]);
        w->ranks->edge[EDGE_SHARD].outside++;
        findings_note(&w->ranks->findings, w->stage, w->rank, w->result.problem);
    }
    const struct judged judged = {.stage = w->stage, .plan = &w->ranks->plan, .rank = w->rank};
    schedule_judge(&w->result, &judged, &w->ranks->edge[EDGE_SHARD], &w->ranks->findings);
    if (stage_table[w->stage].op == OP_KV_WRITE) {
        shard_caches(w);
        return;
    }
    for (const enum tensor_id *id = stage_table[w->stage].out; *id != T_NONE; id++) shard_output(w, *id);
}

/* ---- one stage ---- */

static struct status rank_stage(struct rank_work *w, struct partial_sum *partial) {
    struct ranks *const r = w->ranks;
    const struct trunk *const t = w->trunk;
    const struct rank_stage at = {.stage = w->stage,
                                  .c = r->c,
                                  .spec = &t->spec,
                                  .plan = &r->plan,
                                  .rank = w->rank,
                                  .batch = &t->batch,
                                  .whole = &t->store,
                                  .own = &r->own[w->rank],
                                  .mutant = r->mutant};
    const double start = clock_seconds();
    TRY(seat_load(r->seat, &at, &w->result));
    w->contract = t->kernel->contract(&w->result.reference_call);
    slice_answer(w);
    if (is_partial(t->answer.id[0])) {
        answer_compute(&w->own, w->stage, &w->result.reference_call, &w->contract);
        partial_add(partial, w);
    } else if (stage_table[w->stage].op != OP_ROUTE) { /* ids are needed first */
        plan_edge(w);
    }
    r->seconds_reference += clock_seconds() - start;
    const enum edge_state before = r->edge[EDGE_SHARD].state;
    TRY(seat_run(r->seat, &at, &w->result));
    r->seconds_kernel += w->result.seconds;
    if (!w->result.kernel) {
        snprintf(r->unsupported, sizeof r->unsupported, "rank %d of %lld: %.440s", w->rank,
                 (long long)r->plan.tp, w->result.problem);
        return status_ok();
    }
    if (stage_table[w->stage].op == OP_ROUTE) plan_edge(w);
    shard_edge(w);
    if (r->edge[EDGE_SHARD].state == EDGE_FAIL && before != EDGE_FAIL && r->findings.stage == w->stage) {
        const struct layer_spec local = plan_local_spec(&r->plan, &t->spec, w->rank);
        explain(&(struct explained){t, r->c->layout, &local, w->stage, &w->result.reference_call,
                                    &w->contract, &w->result.got},
                r->likely, sizeof r->likely);
    }
    for (const enum tensor_id *id = stage_table[w->stage].out; *id != T_NONE; id++) {
        const enum tensor_role role = tensor_table[*id].role;
        if (role != ROLE_LOCAL && role != ROLE_PARTIAL) continue;
        store_drop(&r->own[w->rank], *id);
        r->own[w->rank].of[*id] = w->result.got.of[*id];
        w->result.got.of[*id] = (struct stored){0};
    }
    return status_ok();
}

static void rank_work_free(struct rank_work *w) {
    for (int i = 0; i < MAX_REF_OUT; i++) {
        free(w->y[i]);
        free(w->e[i]);
    }
    answer_free(&w->own);
    seat_result_free(&w->result);
}

static void sum_stage(struct ranks *r, const struct trunk *t, int stage) {
    void *parts[MAX_SUM_PARTS];
    int64_t n = 0;
    for (int64_t rank = 0; rank < r->plan.tp; rank++)
        for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
            if (tensor_present(*id, &t->spec)) parts[n++] = r->own[rank].of[*id].memory.data;
    const enum tensor_id out = stage_table[stage].out[0];
    struct store got = {0};
    struct call call =
        trunk_sum_call(t, parts, n, store_renew(&got, out, t->c.dtype, t->fresh.of[out].count));
    t->world->sum(&call.u.sum);
    const struct contract contract = t->world->contract(&call.u.sum);
    struct answer a;
    answer_compute(&a, stage, &call, &contract);
    const struct judged j = {.stage = stage,
                             .id = out,
                             .plan = &r->plan,
                             .dtype = t->c.dtype,
                             .got = got.of[out].memory.data,
                             .y = a.y[0],
                             .e = a.e[0],
                             .count = a.count[0]};
    judge_set(&j, &r->edge[EDGE_SHARD], &r->findings);
    answer_free(&a);
    store_free(&got);
}

bool ranks_accept(struct ranks *r, const struct trunk *t, int stage) {
    void *const anywhere = (void *)(uintptr_t)4096; /* only its alignment is looked at */
    const char *why;
    if (t->offsets) plan_set_rows(&r->plan, t->offsets);
    for (int rank = 0; rank < r->plan.tp; rank++) {
        const struct layer_spec local = plan_local_spec(&r->plan, &t->spec, rank);
        struct operands operands = {0};
        struct call call;
        for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
            operands.in[*id] = view_dense(&r->plan, *id, rank, anywhere, store_dtype(*id, r->c->dtype));
        for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++)
            operands.out[*id] = view_dense(&r->plan, *id, rank, anywhere, store_dtype(*id, r->c->dtype));
        call_bind(&call, &stage_table[stage], &local, &r->plan, rank, &t->batch, &operands);
        if (!kernel_pick(call.op, r->c->device, &call, &why)) return false;
    }
    return true;
}

struct status ranks_stage(struct ranks *r, const struct trunk *t, int stage) {
    struct partial_sum partial = {0};
    memset(r->edge, 0, sizeof r->edge);
    r->seconds_kernel = r->seconds_reference = 0;
    if (t->offsets) plan_set_rows(&r->plan, t->offsets);
    if (stage_table[stage].op == OP_SUM) {
        sum_stage(r, t, stage);
        return status_ok();
    }
    for (int rank = 0; rank < r->plan.tp; rank++) {
        struct rank_work w = {.ranks = r, .trunk = t, .stage = stage, .rank = rank};
        const struct status s = rank_stage(&w, &partial);
        rank_work_free(&w);
        if (s.code || r->unsupported[0]) return s;
    }
    partial_edge(r, t, stage, &partial);
    return status_ok();
}
