/* SPDX-License-Identifier: MIT */
#include "harness/seat.h"

#include <stdio.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/schedules.h"

#define SMALL_BYTES ((size_t)64 << 20) /* larger operands are weights: not poisoned, not hashed */
#define WEIGHT_GUARD ((size_t)64 << 10)
#define GUARD_LIMIT ((size_t)256 << 20)

bool seat_in_place(enum tensor_id id) { return id == T_K_CACHE || id == T_V_CACHE; }

int64_t seat_count(const struct rank_stage *at, enum tensor_id id) {
    int64_t count;
    if (batch_tensor(at->batch, id, &count)) return count;
    return slice_count(at->plan, id, at->rank) + (id == T_OFFSETS); /* one offset more than experts */
}

/* Where a tensor lies in its buffer. */
struct lie {
    int64_t elements;            /* of the buffer */
    int64_t offset, row, stride; /* first element; elements a row; row stride */
};

/* Packed: q, k and v are views of a fused [T, (H + 2G) D] row, as a qkv projection leaves them. */
static struct lie tensor_lie(const struct rank_stage *at, enum tensor_id id) {
    const int64_t count = seat_count(at, id);
    if (at->c->layout != LAYOUT_PACKED || (id != T_Q && id != T_K && id != T_V))
        return (struct lie){count, 0, count, count};
    const struct span *const of = at->plan->rank[at->rank];
    const int64_t d = at->spec->head_dim, q = of[AXIS_H].count * d, kv = of[AXIS_G].count * d,
                  fused = q + 2 * kv;
    const int64_t offset = id == T_Q ? 0 : id == T_K ? q : q + kv;
    return (struct lie){at->batch->n_tokens * fused, offset, id == T_Q ? q : kv, fused};
}

static size_t guard_bytes(const struct rank_stage *at, enum tensor_id id, size_t bytes) {
    if (tensor_table[id].role == ROLE_WEIGHT) return WEIGHT_GUARD;
    const size_t wish = bytes * (size_t)at->plan->tp;
    return wish < WEIGHT_GUARD ? WEIGHT_GUARD : wish > GUARD_LIMIT ? GUARD_LIMIT : wish;
}

static void copy_rows(char *dst, size_t dst_stride, const char *src, size_t src_stride, size_t row,
                      int64_t n) {
    for (int64_t i = 0; i < n; i++) memcpy(dst + (size_t)i * dst_stride, src + (size_t)i * src_stride, row);
}

static struct view buffer_view(const struct rank_stage *at, enum tensor_id id,
                               const struct device_buffer *buffer, bool on_device) {
    const struct lie lie = tensor_lie(at, id);
    const enum dtype dtype = store_dtype(id, at->c->dtype);
    char *const base = on_device ? buffer->data : buffer->host;
    struct view v = view_dense(at->plan, id, at->rank, base + (size_t)lie.offset * dtype_bytes(dtype), dtype);
    if (lie.row != lie.elements) v.stride[0] = lie.stride;
    v.lo = -lie.offset;
    v.hi = lie.elements - lie.offset;
    if (id == T_PAGE_TABLE) v.stride[0] = at->batch->max_pages;
    return v;
}

/* The dense slice this rank starts from, into `dst`. */
static void dense_slice(const struct rank_stage *at, enum tensor_id id, enum dtype dtype, void *dst) {
    int64_t count;
    const void *const index = batch_tensor(at->batch, id, &count);
    const enum tensor_role role = tensor_table[id].role;
    if (index)
        memcpy(dst, index, (size_t)count * dtype_bytes(dtype));
    else if (role == ROLE_LOCAL || role == ROLE_PARTIAL)
        memcpy(dst, at->own->of[id].memory.data, (size_t)seat_count(at, id) * dtype_bytes(dtype));
    else
        slice_copy(at->plan, id, at->rank, dtype_bytes(dtype), dst, at->whole->of[id].memory.data);
}

static struct status place_input(struct seat *seat, const struct rank_stage *at, enum tensor_id id,
                                 struct device_buffer *buffer) {
    const enum dtype dtype = store_dtype(id, at->c->dtype);
    const struct lie lie = tensor_lie(at, id);
    const size_t size = dtype_bytes(dtype), bytes = (size_t)lie.elements * size;
    TRY(device_reuse(seat->device, tensor_table[id].name, bytes, guard_bytes(at, id, bytes),
                     bytes < SMALL_BYTES, buffer));
    if (lie.row == lie.elements) {
        dense_slice(at, id, dtype, buffer->host);
    } else {
        struct mapping dense = {0};
        mapping_renew(&dense, (size_t)seat_count(at, id) * size);
        dense_slice(at, id, dtype, dense.data);
        copy_rows((char *)buffer->host + (size_t)lie.offset * size, (size_t)lie.stride * size, dense.data,
                  (size_t)lie.row * size, (size_t)lie.row * size, at->batch->n_tokens);
        mapping_free(&dense);
    }
    return device_push(seat->device, buffer);
}

static struct status place_output(struct seat *seat, const struct rank_stage *at, enum tensor_id id,
                                  struct device_buffer *buffer) {
    const enum dtype dtype = store_dtype(id, at->c->dtype);
    const struct lie lie = tensor_lie(at, id);
    const size_t bytes = (size_t)lie.elements * dtype_bytes(dtype);
    TRY(device_reuse(seat->device, tensor_table[id].name, bytes, guard_bytes(at, id, bytes), true, buffer));
    if (!seat_in_place(id)) return status_ok();
    dense_slice(at, id, dtype, buffer->host);
    return device_push(seat->device, buffer);
}

/* The call on device memory, or on the host's copies of it. */
static void bind_call(const struct seat *seat, const struct rank_stage *at, bool on_device,
                      struct call *call) {
    const struct stage_row *const stage = &stage_table[at->stage];
    const struct layer_spec local = plan_local_spec(at->plan, at->spec, at->rank);
    struct operands operands = {0};
    for (int i = 0; stage->in[i] != T_NONE; i++)
        if (tensor_present(stage->in[i], &local))
            operands.in[stage->in[i]] = buffer_view(at, stage->in[i], &seat->in[i], on_device);
    for (int i = 0; stage->out[i] != T_NONE; i++)
        operands.out[stage->out[i]] = buffer_view(at, stage->out[i], &seat->out[i], on_device);
    call_bind(call, stage, &local, at->plan, at->rank, at->batch, &operands);
}

struct status seat_load(struct seat *seat, const struct rank_stage *at, struct seat_result *result) {
    const struct stage_row *const stage = &stage_table[at->stage];
    const struct layer_spec local = plan_local_spec(at->plan, at->spec, at->rank);
    for (int i = 0; stage->in[i] != T_NONE; i++)
        if (tensor_present(stage->in[i], &local)) TRY(place_input(seat, at, stage->in[i], &seat->in[i]));
    for (int i = 0; stage->out[i] != T_NONE; i++) TRY(place_output(seat, at, stage->out[i], &seat->out[i]));
    bind_call(seat, at, false, &result->reference_call);
    return status_ok();
}

/* What the kernel gets: the same call, with the mutant's mistake where one is seeded. */
static void bind_device_call(const struct seat *seat, const struct rank_stage *at, struct call *call) {
    const struct layer_spec local = plan_local_spec(at->plan, at->spec, at->rank);
    bind_call(seat, at, true, call);
    if (at->mutant) at->mutant->apply(call, at->spec, &local);
}

static uint64_t hash_bytes(const void *data, size_t bytes) {
    const unsigned char *const p = data;
    uint64_t h = 0x9e3779b97f4a7c15u ^ bytes, word;
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        memcpy(&word, p + i, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (; i < bytes; i++) h = (h ^ p[i]) * 0xff51afd7ed558ccdu;
    return h;
}

static void hash_inputs(const struct seat *seat, const struct stage_row *stage, uint64_t hash[MAX_STAGE_IO]) {
    for (int i = 0; stage->in[i] != T_NONE; i++)
        hash[i] = seat->in[i].bytes < SMALL_BYTES ? hash_bytes(seat->in[i].host, seat->in[i].bytes) : 0;
}

/* Bytes between the rows of a view that are no longer poison. */
static size_t gap_damage(const struct rank_stage *at, enum tensor_id id, const struct device_buffer *buffer) {
    const struct lie lie = tensor_lie(at, id);
    const size_t size = dtype_bytes(store_dtype(id, at->c->dtype));
    const unsigned char *const bytes = buffer->host;
    size_t damaged = 0;
    for (int64_t i = 0; i < lie.elements && lie.row != lie.elements; i++) {
        const int64_t column = i % lie.stride;
        if (column >= lie.offset && column < lie.offset + lie.row) continue;
        for (size_t b = 0; b < size; b++) damaged += bytes[(size_t)i * size + b] != 0xff;
    }
    return damaged;
}

/* Guards of every buffer intact, small inputs unchanged? */
static struct status check_buffers(struct seat *seat, const struct rank_stage *at,
                                   const uint64_t before[MAX_STAGE_IO], struct seat_result *result) {
    const struct stage_row *const stage = &stage_table[at->stage];
    const struct layer_spec local = plan_local_spec(at->plan, at->spec, at->rank);
    uint64_t after[MAX_STAGE_IO];
    size_t damaged;
    for (int i = 0; stage->out[i] != T_NONE; i++) {
        TRY(device_guard_damage(seat->device, &seat->out[i], &damaged));
        damaged += gap_damage(at, stage->out[i], &seat->out[i]);
        if (damaged && !result->problem[0])
            snprintf(result->problem, sizeof result->problem, "%s wrote %zu bytes outside its output %s",
                     result->kernel->name, damaged, tensor_table[stage->out[i]].name);
    }
    TRY(device_guard_damage(seat->device, &seat->scratch, &damaged));
    if (damaged && !result->problem[0])
        snprintf(result->problem, sizeof result->problem, "%s wrote %zu bytes outside its scratch",
                 result->kernel->name, damaged);
    for (int i = 0; stage->in[i] != T_NONE; i++) {
        if (!tensor_present(stage->in[i], &local)) continue;
        TRY(device_guard_damage(seat->device, &seat->in[i], &damaged));
        if (damaged && !result->problem[0])
            snprintf(result->problem, sizeof result->problem, "%s wrote %zu bytes outside its input %s",
                     result->kernel->name, damaged, tensor_table[stage->in[i]].name);
    }
    for (int i = 0; stage->in[i] != T_NONE; i++)
        if (tensor_present(stage->in[i], &local) && seat->in[i].bytes < SMALL_BYTES)
            TRY(device_pull(seat->device, &seat->in[i]));
    hash_inputs(seat, stage, after);
    for (int i = 0; stage->in[i] != T_NONE; i++)
        if (tensor_present(stage->in[i], &local) && before[i] != after[i] && !result->problem[0])
            snprintf(result->problem, sizeof result->problem, "%s changed its input %s", result->kernel->name,
                     tensor_table[stage->in[i]].name);
    return status_ok();
}

static struct status fetch_outputs(struct seat *seat, const struct rank_stage *at, struct store *into) {
    const struct stage_row *const stage = &stage_table[at->stage];
    for (int i = 0; stage->out[i] != T_NONE; i++) {
        const enum tensor_id id = stage->out[i];
        const enum dtype dtype = store_dtype(id, at->c->dtype);
        const struct lie lie = tensor_lie(at, id);
        const size_t size = dtype_bytes(dtype);
        TRY(device_pull(seat->device, &seat->out[i]));
        char *const got = store_renew(into, id, dtype, seat_count(at, id));
        const int64_t rows = lie.row == lie.elements ? 1 : at->batch->n_tokens;
        copy_rows(got, (size_t)lie.row * size, (const char *)seat->out[i].host + (size_t)lie.offset * size,
                  (size_t)lie.stride * size, (size_t)lie.row * size, rows);
    }
    return status_ok();
}

/* One launch to its end. What the kernel did wrong is result->problem. */
static struct status run_once(struct seat *seat, const struct rank_stage *at, struct seat_result *result,
                              struct store *into, double *seconds) {
    struct call call;
    uint64_t before[MAX_STAGE_IO];
    bind_device_call(seat, at, &call);
    const size_t scratch = result->kernel->scratch_bytes ? result->kernel->scratch_bytes(&call) : 0;
    TRY(device_reuse(seat->device, "scratch", scratch, WEIGHT_GUARD, true, &seat->scratch));
    hash_inputs(seat, &stage_table[at->stage], before);
    const double start = clock_seconds();
    const char *const refused =
        result->kernel->launch[at->c->device](&call, seat->scratch.data, device_stream(seat->device));
    const struct status ran = device_sync(seat->device);
    *seconds = clock_seconds() - start;
    if (refused)
        snprintf(result->problem, sizeof result->problem, "%.400s", refused);
    else if (ran.code)
        snprintf(result->problem, sizeof result->problem, "%.499s", ran.message);
    TRY(fetch_outputs(seat, at, into));
    return check_buffers(seat, at, before, result);
}

/* The same launch from the same start under one more schedule. */
static struct status run_again(struct seat *seat, const struct rank_stage *at, int schedule,
                               struct seat_result *result) {
    const struct stage_row *const stage = &stage_table[at->stage];
    const struct simt_options options = schedule_numbered(schedule);
    double seconds;
    char text[64], problem[sizeof result->problem];
    TRY(device_set_schedule(seat->device, &options));
    for (int i = 0; stage->out[i] != T_NONE; i++) TRY(place_output(seat, at, stage->out[i], &seat->out[i]));
    TRY(run_once(seat, at, result, &result->other, &seconds));
    if (result->problem[0]) {
        memcpy(problem, result->problem, sizeof problem);
        schedule_describe(schedule, text, sizeof text);
        snprintf(result->problem, sizeof result->problem, "depends on the schedule (%s): %.400s", text,
                 problem);
    } else if (schedule_differs(stage, &result->got, &result->other)) {
        result->schedule = schedule;
    }
    return status_ok();
}

static struct status run_schedules(struct seat *seat, const struct rank_stage *at,
                                   struct seat_result *result) {
    const struct simt_options plain = schedule_numbered(0);
    struct status s = status_ok();
    for (int i = 1; i < seat->schedules && !s.code && !result->schedule && !result->problem[0]; i++)
        s = run_again(seat, at, i, result);
    if (seat->schedules > 1 && !s.code) s = device_set_schedule(seat->device, &plain);
    return s;
}

struct status seat_run(struct seat *seat, const struct rank_stage *at, struct seat_result *result) {
    struct call call;
    const char *why = NULL;
    bind_device_call(seat, at, &call);
    result->problem[0] = 0;
    result->schedule = 0;
    result->kernel = at->c->kernel[at->stage];
    if (!result->kernel)
        result->kernel = kernel_pick(call.op, at->c->device, &call, &why);
    else if (result->kernel->unsupported && (why = result->kernel->unsupported(&call)))
        result->kernel = NULL;
    if (!result->kernel) {
        snprintf(result->problem, sizeof result->problem, "no kernel for %s on %s: %s",
                 stage_table[at->stage].name, device_kind_name(at->c->device), why ? why : "none registered");
        return status_ok();
    }
    TRY(run_once(seat, at, result, &result->got, &result->seconds));
    return run_schedules(seat, at, result);
}

void seat_result_free(struct seat_result *result) {
    store_free(&result->got);
    store_free(&result->other);
}

void seat_free(struct seat *seat) {
    for (int i = 0; i < MAX_STAGE_IO; i++) {
        device_free(seat->device, &seat->in[i]);
        device_free(seat->device, &seat->out[i]);
    }
    device_free(seat->device, &seat->scratch);
}
