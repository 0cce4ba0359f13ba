/* SPDX-License-Identifier: MIT */
#include "harness/trunk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/inputs.h"
#include "harness/schedules.h"

/* Which of a stage's outputs the reference's outputs are. kv_write is judged by the rows it moved. */
static enum tensor_id answer_tensor(int stage, int i) {
    switch (stage_table[stage].op) {
    case OP_KV_WRITE: return i ? T_V : T_K;
    case OP_ROUTE: return T_GATES;
    case OP_PERMUTE: return T_ROWS;
    default: return stage_table[stage].out[i];
    }
}

void answer_compute(struct answer *a, int stage, const struct call *call, const struct contract *contract) {
    struct ref_out out[MAX_REF_OUT] = {0};
    const int64_t rows = ref_n_rows(call);
    *a = (struct answer){.n = ref_n_outputs(call->op)};
    for (int i = 0; i < a->n; i++) {
        a->id[i] = answer_tensor(stage, i);
        a->row_size[i] = ref_row_size(call, i);
        a->count[i] = rows * a->row_size[i];
        a->y[i] = memory_zeroed((size_t)a->count[i], sizeof(double));
        a->e[i] = memory_zeroed((size_t)a->count[i], sizeof(double));
        if (tensor_table[a->id[i]].role == ROLE_PARTIAL)
            a->s1[i] = memory_zeroed((size_t)a->count[i], sizeof(double));
        out[i] = (struct ref_out){a->y[i], a->e[i], a->s1[i]};
    }
    ref_compute(call, contract, 0, rows, out);
}

void answer_free(struct answer *a) {
    for (int i = 0; i < a->n; i++) {
        free(a->y[i]);
        free(a->e[i]);
        free(a->s1[i]);
    }
    *a = (struct answer){0};
}

double *answer_exact_combine(const struct call *call, const struct contract *contract, double *exact_down) {
    struct call exact = *call;
    struct ref_out out[MAX_REF_OUT] = {0};
    const int64_t rows = ref_n_rows(call);
    exact.u.combine.down.data = exact_down;
    exact.u.combine.down.dtype = DTYPE_F64;
    out[0].y = memory_zeroed((size_t)(rows * ref_row_size(call, 0)), sizeof(double));
    ref_compute(&exact, contract, 0, rows, out);
    return out[0].y;
}

struct status trunk_open(struct trunk *t, const struct check_case *c, const struct model *model,
                         const struct fixture *fixture, struct device *device) {
    *t = (struct trunk){.c = *c, .fixture = fixture, .world = &world_sim, .fused_end = -1};
    t->c.tp = t->c.ep = 1;
    t->layer = case_layer(c, model);
    t->spec = model_layer(model, t->layer);
    t->fill = (struct fill){.kind = c->fill, .seed = c->seed, .layer = t->layer, .spec = &t->spec};
    t->seat.device = device;
    findings_init(&t->findings);
    batch_build(&t->batch, c, &t->fill);
    plan_build(&t->plan, &t->spec, 1, 1);
    t->plan.size[AXIS_T] = t->batch.n_tokens;
    t->plan.size[AXIS_P] = t->batch.n_positions;
    t->plan.size[AXIS_PAGE] = t->batch.n_pages;
    t->plan.size[AXIS_SLOT] = PAGE_SIZE;
    if (c->part != PART_ATTENTION) return status_ok();
    inputs_caches(t);
    if (t->spec.rot_dim > 0)
        ref_rope_table(
            store_renew(&t->store, T_ROPE_TABLE, DTYPE_F32, t->batch.n_positions * t->spec.rot_dim),
            t->batch.n_positions, t->spec.rot_dim, t->spec.rope_theta);
    return status_ok();
}

void trunk_close(struct trunk *t) {
    seat_free(&t->seat);
    store_free(&t->store);
    batch_free(&t->batch);
    answer_free(&t->answer);
    free(t->offsets);
    free(t->exact_down);
    free(t->exact_down_s1);
    free(t->exact_combined);
    free(t->exact_combined_s1);
    store_free(&t->fresh);
}

/* A fused kernel runs when it is named, or when the device has one and nobody named a kernel for what it stands for. */
static bool fused_wanted(const struct trunk *t, int stage) {
    const struct stage_row *const row = &stage_table[stage];
    const char *why;
    if (t->c.kernel[stage]) return true;
    for (int covered = stage + 1; covered <= stage + row->fuses; covered++)
        if (t->c.kernel[covered]) return false;
    return kernel_pick(row->op, t->c.device, NULL, &why) != NULL;
}

bool trunk_has_stage(const struct trunk *t, int stage) {
    const struct stage_row *const row = &stage_table[stage];
    if (stage <= t->fused_end) return false;
    if (!row->fuses) return stage_applies(stage, t->c.part, &t->spec);
    return row->part == t->c.part && row->present(&t->spec) && fused_wanted(t, stage);
}

void cache_gather(const struct trunk *t, const void *cache, size_t row_bytes, void *rows) {
    for (int64_t i = 0; i < t->batch.n_tokens; i++)
        memcpy((char *)rows + (size_t)i * row_bytes,
               (const char *)cache + (size_t)t->batch.slots[i] * row_bytes, row_bytes);
}

unsigned char *cache_owned(const struct trunk *t) {
    unsigned char *const owned = memory_zeroed((size_t)(t->batch.n_pages * PAGE_SIZE), 1);
    for (int64_t i = 0; i < t->batch.n_tokens; i++) owned[t->batch.slots[i]] = 1;
    return owned;
}

struct call trunk_sum_call(const struct trunk *t, void *const *parts, int64_t n_parts, void *out) {
    struct call call = {.op = OP_SUM};
    struct sum_args *const a = &call.u.sum;
    const int64_t width = t->spec.hidden;
    *a = (struct sum_args){.n_parts = n_parts, .n_tokens = t->batch.n_tokens, .width = width};
    a->out =
        (struct view){.data = out, .dtype = t->c.dtype, .stride = {width}, .hi = t->batch.n_tokens * width};
    for (int64_t i = 0; i < n_parts; i++) {
        a->part[i] = a->out;
        a->part[i].data = parts[i];
    }
    return call;
}

/* ---- one stage ---- */

static struct judged trunk_judged(const struct trunk *t, int stage, enum tensor_id id, const void *got,
                                  int64_t count) {
    return (struct judged){.stage = stage,
                           .id = id,
                           .plan = &t->plan,
                           .trunk = true,
                           .dtype = store_dtype(id, t->c.dtype),
                           .got = got,
                           .count = count};
}

static void judge_indices(struct trunk *t, int stage, const struct call *call, const struct store *got) {
    struct store want = {0};
    static const enum tensor_id ids[] = {T_OFFSETS, T_ROW_SLOT, T_SLOT_ROW};
    int32_t *data[3];
    for (int i = 0; i < 3; i++) data[i] = store_renew(&want, ids[i], DTYPE_I32, got->of[ids[i]].count);
    ref_permute(call, data[0], data[1], data[2]);
    for (int i = 0; i < 3; i++) {
        const struct judged j =
            trunk_judged(t, stage, ids[i], got->of[ids[i]].memory.data, want.of[ids[i]].count);
        judge_identical(&j, data[i], &t->edge, &t->findings);
    }
    store_free(&want);
}

static void judge_caches(struct trunk *t, int stage, const struct store *got) {
    unsigned char *const owned = cache_owned(t);
    const size_t row = (size_t)(t->spec.n_kv_heads * t->spec.head_dim) * dtype_bytes(t->c.dtype);
    for (int i = 0; i < 2; i++) {
        const enum tensor_id cache = i ? T_V_CACHE : T_K_CACHE;
        void *const rows = memory_zeroed((size_t)t->batch.n_tokens, row);
        cache_gather(t, got->of[cache].memory.data, row, rows);
        struct judged j = trunk_judged(t, stage, t->answer.id[i], rows, t->answer.count[i]);
        j.y = t->answer.y[i];
        judge_set(&j, &t->edge, &t->findings);
        const struct judged whole =
            trunk_judged(t, stage, cache, got->of[cache].memory.data, got->of[cache].count);
        judge_untouched(&whole, t->store.of[cache].memory.data, got->of[cache].memory.data, owned,
                        t->batch.n_pages * PAGE_SIZE, row, &t->edge, &t->findings);
        free(rows);
    }
    free(owned);
}

static void judge_trunk(struct trunk *t, int stage, const struct call *call, const struct contract *contract,
                        const struct store *got) {
    if (call->op == OP_KV_WRITE) {
        judge_caches(t, stage, got);
        return;
    }
    for (int i = 0; i < t->answer.n; i++) {
        struct judged j =
            trunk_judged(t, stage, t->answer.id[i], got->of[t->answer.id[i]].memory.data, t->answer.count[i]);
        j.y = t->answer.y[i];
        j.e = t->answer.e[i];
        judge_set(&j, &t->edge, &t->findings);
    }
    if (call->op == OP_ROUTE) {
        const struct stored *const ids = &got->of[T_IDS];
        const struct judged j = trunk_judged(t, stage, T_IDS, ids->memory.data, ids->count);
        judge_route(&j, call, contract, &t->edge, &t->findings);
    }
    if (call->op == OP_PERMUTE) judge_indices(t, stage, call, got);
}

/* q, k and v are cut out of the fused rows; how they lie in memory is the layout's business (seat.c). */
static void split_qkv(struct trunk *t) {
    const int64_t d = t->spec.head_dim, rows = t->batch.n_tokens;
    const int64_t width[3] = {t->spec.n_heads * d, t->spec.n_kv_heads * d, t->spec.n_kv_heads * d};
    const size_t size = dtype_bytes(t->c.dtype);
    const int64_t fused = width[0] + width[1] + width[2];
    const char *const qkv = t->store.of[T_QKV].memory.data;
    for (int64_t i = 0, column = 0; i < 3; column += width[i++]) {
        char *const part = store_renew(&t->store, (enum tensor_id)(T_Q + i), t->c.dtype, rows * width[i]);
        for (int64_t r = 0; r < rows; r++)
            memcpy(part + (size_t)(r * width[i]) * size, qkv + (size_t)(r * fused + column) * size,
                   (size_t)width[i] * size);
    }
}

/* Ids that no expert has (a broken router) belong to nobody here; the router's verdict stands already. */
static void count_rows(struct trunk *t) {
    const int32_t *const ids = t->store.of[T_IDS].memory.data;
    free(t->offsets);
    t->offsets = memory_zeroed((size_t)t->spec.n_experts + 1, sizeof *t->offsets);
    for (int64_t i = 0; i < t->store.of[T_IDS].count; i++)
        if (ids[i] >= 0 && ids[i] < t->spec.n_experts) t->offsets[ids[i] + 1]++;
    for (int64_t e = 0; e < t->spec.n_experts; e++) t->offsets[e + 1] += t->offsets[e];
    plan_set_rows(&t->plan, t->offsets);
}

static struct status sum_stage(struct trunk *t, int stage) {
    void *parts[2];
    int64_t n = 0;
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (tensor_present(*id, &t->spec)) parts[n++] = t->store.of[*id].memory.data;
    const enum tensor_id out = stage_table[stage].out[0];
    const int64_t count = slice_count(&t->plan, out, -1);
    const struct call call = trunk_sum_call(t, parts, n, store_renew(&t->fresh, out, t->c.dtype, count));
    const double start = clock_seconds();
    t->world->sum(&call.u.sum);
    t->seconds_kernel = clock_seconds() - start;
    const struct contract contract = t->world->contract(&call.u.sum);
    answer_compute(&t->answer, stage, &call, &contract);
    judge_trunk(t, stage, &call, &contract, &t->fresh);
    return status_ok();
}

struct status trunk_stage(struct trunk *t, int stage) {
    t->edge = (struct edge_result){0};
    t->kernel = NULL;
    t->declined = false;
    t->seconds_reference = 0;
    TRY(inputs_prepare(t, stage));
    if (stage_table[stage].op == OP_SUM) return sum_stage(t, stage);

    struct seat_result result = {0};
    const struct rank_stage at = {.stage = stage,
                                  .c = &t->c,
                                  .spec = &t->spec,
                                  .plan = &t->plan,
                                  .batch = &t->batch,
                                  .whole = &t->store,
                                  .own = &t->store};
    TRY(seat_load(&t->seat, &at, &result));
    TRY(seat_run(&t->seat, &at, &result));
    t->kernel = result.kernel;
    t->seconds_kernel = result.seconds;
    if (!result.kernel && stage_table[stage].fuses && !t->c.kernel[stage]) {
        t->declined = true;
        return status_ok();
    }
    if (!result.kernel) {
        snprintf(t->unsupported, sizeof t->unsupported, "%s", result.problem);
        return status_ok();
    }
    if (stage_table[stage].fuses) t->fused_end = stage + stage_table[stage].fuses;
    if (result.problem[0]) {
        edge_fail(&t->edge);
        t->edge.outside++;
        findings_note(&t->findings, stage, -1, result.problem);
    }
    const struct judged judged = {.stage = stage, .plan = &t->plan, .trunk = true};
    schedule_judge(&result, &judged, &t->edge, &t->findings);
    store_free(&result.other);
    const struct contract contract = result.kernel->contract(&result.reference_call);
    const double start = clock_seconds();
    answer_compute(&t->answer, stage, &result.reference_call, &contract);
    t->seconds_reference = clock_seconds() - start;
    judge_trunk(t, stage, &result.reference_call, &contract, &result.got);
    t->fresh = result.got;
    if (stage == S_COMBINE) {
        t->exact_combined = answer_exact_combine(&result.reference_call, &contract, t->exact_down);
        t->exact_combined_s1 = answer_exact_combine(&result.reference_call, &contract, t->exact_down_s1);
    }
    return status_ok();
}

void trunk_stage_done(struct trunk *t, int stage) {
    if (stage == S_DOWN) { /* kept past its stage */
        t->exact_down = t->answer.y[0];
        t->exact_down_s1 = t->answer.s1[0];
        t->answer.y[0] = t->answer.s1[0] = NULL;
    }
    answer_free(&t->answer);
    for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++) {
        store_drop(&t->store, *id);
        t->store.of[*id] = t->fresh.of[*id];
        t->fresh.of[*id] = (struct stored){0};
    }
    if (stage == S_QKV_PROJ) split_qkv(t);
    if (stage == S_ROUTE) count_rows(t);
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (tensor_table[*id].role == ROLE_WEIGHT) store_drop(&t->store, *id);
}
