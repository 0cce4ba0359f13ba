/* How does one stage of one rank run on a device? Every buffer between guards of poison, q, k and v as
 * the layout has them; a launch, or several under other schedules; then the guards, the gaps
 * between rows and the inputs are looked at. */
/* SPDX-License-Identifier: MIT */
#include "harness/kernel_seat.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness/answer.h"
#include "harness/clock.h"
#include "harness/schedules.h"
#include "harness/traces.h"
#include "layer/copy.h"
#include "layer/line.h"

#define SMALL_BYTES ((size_t)64 << 20) /* larger operands are weights: not poisoned, sealed, not hashed */
#define WEIGHT_GUARD ((size_t)64 << 10)
#define GUARD_LIMIT ((size_t)256 << 20)

/* ---- where a tensor lies ---- */

struct lie {
    int64_t elements;            /* of the buffer */
    int64_t offset, row, stride; /* first element; elements a row; row stride */
};

/* The stage whose outputs are cut out of one fused tensor, if `id` is one of them. */
static const struct stage_row *split_of(enum tensor_id id) {
    for (int s = 0; s < S_COUNT; s++)
        for (const enum tensor_id *out = stage_table[s].out; stage_table[s].op == OP_SPLIT && *out != T_NONE;
             out++)
            if (*out == id) return &stage_table[s];
    return NULL;
}

/* Packed: q, k and v are views of the fused rows, as a qkv projection leaves them. */
static struct lie lie_of(const struct placed *at, enum tensor_id id) {
    const int64_t count = placed_count(at, id), rows = at->crew->plan.size[AXIS_T];
    const struct stage_row *const split = at->crew->layout == LAYOUT_PACKED ? split_of(id) : NULL;
    if (!split) return (struct lie){count, 0, count, count};
    int64_t before = 0;
    for (const enum tensor_id *out = split->out; *out != id; out++) before += placed_count(at, *out) / rows;
    const int64_t fused = placed_count(at, split->in[0]);
    return (struct lie){fused, before, count / rows, fused / rows};
}

static bool has_gaps(struct lie lie) { return lie.row != lie.elements; }

static size_t guard_bytes(const struct placed *at, enum tensor_id id, size_t bytes) {
    if (tensor_table[id].role == ROLE_WEIGHT) return WEIGHT_GUARD;
    const size_t wish = bytes * (size_t)at->crew->plan.tp;
    return wish < WEIGHT_GUARD ? WEIGHT_GUARD : wish > GUARD_LIMIT ? GUARD_LIMIT : wish;
}

static struct view buffer_view(const struct placed *at, enum tensor_id id, const struct device_buffer *buffer,
                               bool on_device) {
    const struct lie lie = lie_of(at, id);
    const enum dtype dtype = placed_dtype(at, id);
    char *const base = on_device ? buffer->data : buffer->host;
    struct view v =
        view_dense(&at->crew->plan, id, at->rank, base + (size_t)lie.offset * dtype_bytes(dtype), dtype);
    if (has_gaps(lie)) v.stride[0] = lie.stride;
    v.lo = -lie.offset;
    v.hi = lie.elements - lie.offset;
    return v;
}

static void copy_rows(char *dst, size_t dst_stride, const char *src, size_t src_stride, size_t row,
                      int64_t n) {
    for (int64_t i = 0; i < n; i++)
        copy_bytes(dst + (size_t)i * dst_stride, src + (size_t)i * src_stride, row);
}

/* ---- laying out ---- */

/* NaN and huge numbers in turn, so that every kernel of every case meets both: the unsharded run and
 * rank 0 are never alike. What shows under one may hide under the other: fmax drops NaN, and a
 * huge number times 0 is 0. */
static unsigned char poison_of(const struct placed *at) {
    return (at->stage + (at->crew->unsharded ? 0 : at->rank + 1)) % 2 ? POISON_HUGE : POISON_NAN;
}

/* Slots of the caches that no sequence owns hold NaN in the store. */
static void turn_huge(char *data, enum dtype dtype, int64_t n) {
    const size_t size = dtype_bytes(dtype);
    for (int64_t i = 0; i < n; i++)
        if (isnan(dtype_load(data, dtype, i))) memset(data + (size_t)i * size, POISON_HUGE, size);
}

struct status kernel_seat_lend(struct kernel_seat *seat, enum tensor_id id, size_t bytes, struct mapping *m) {
    *m = (struct mapping){0};
    if (bytes < SMALL_BYTES || seat->lent) return status_ok();
    TRY(device_reuse(seat->device, tensor_table[id].name, bytes, WEIGHT_GUARD, false, &seat->whole));
    seat->lent = true;
    *m = (struct mapping){seat->whole.host, bytes, &seat->lent};
    return status_ok();
}

static struct status lay_input(struct kernel_seat *seat, const struct placed *at, enum tensor_id id, int i) {
    const struct lie lie = lie_of(at, id);
    const size_t size = dtype_bytes(placed_dtype(at, id)), bytes = (size_t)lie.elements * size;
    const bool there = seat->lent && placed_stored(at, id) == seat->whole.host;
    struct device_buffer *const buffer = seat->in[i] = there ? &seat->whole : &seat->copy[i];
    TRY(device_reuse(seat->device, tensor_table[id].name, bytes, guard_bytes(at, id, bytes),
                     bytes < SMALL_BYTES, buffer));
    if (has_gaps(lie)) {
        struct mapping dense = {0};
        mapping_renew(&dense, (size_t)placed_count(at, id) * size);
        placed_dense(at, id, dense.data);
        copy_rows((char *)buffer->host + (size_t)lie.offset * size, (size_t)lie.stride * size, dense.data,
                  (size_t)lie.row * size, (size_t)lie.row * size, at->crew->plan.size[AXIS_T]);
        mapping_free(&dense);
    } else if (!there) {
        placed_dense(at, id, buffer->host);
        if (seat_in_place(id) && buffer->poison == POISON_HUGE)
            turn_huge(buffer->host, placed_dtype(at, id), lie.elements);
    }
    return device_push(seat->device, buffer);
}

static struct status lay_output(struct kernel_seat *seat, const struct placed *at, enum tensor_id id,
                                struct device_buffer *buffer) {
    const size_t bytes = (size_t)lie_of(at, id).elements * dtype_bytes(placed_dtype(at, id));
    TRY(device_reuse(seat->device, tensor_table[id].name, bytes, guard_bytes(at, id, bytes), true, buffer));
    if (!seat_in_place(id)) return status_ok();
    placed_dense(at, id, buffer->host);
    return device_push(seat->device, buffer);
}

static bool has_input(const struct placed *at, int i) {
    const struct layer_spec local = placed_local(at);
    return tensor_present(placed_row(at)->in[i], &local);
}

/* The operands on the device, or the host's copies of them. */
static void view_buffers(const struct kernel_seat *seat, const struct placed *at, bool on_device,
                         struct operands *operands) {
    const struct stage_row *const row = placed_row(at);
    *operands = (struct operands){.n_parts = 0};
    for (int i = 0; row->in[i] != T_NONE; i++)
        if (has_input(at, i)) operands->in[i] = buffer_view(at, row->in[i], seat->in[i], on_device);
    for (int i = 0; row->out[i] != T_NONE; i++)
        operands->out[i] = buffer_view(at, row->out[i], &seat->out[i], on_device);
}

static struct status prepare(struct seat *base, const struct placed *at, struct outcome *o) {
    struct kernel_seat *const seat = (struct kernel_seat *)base;
    const struct stage_row *const row = placed_row(at);
    o->fuzzy = false;
    device_set_poison(seat->device, poison_of(at));
    for (int i = 0; row->in[i] != T_NONE; i++) {
        seat->in[i] = &seat->copy[i];
        if (has_input(at, i)) TRY(lay_input(seat, at, row->in[i], i));
    }
    for (int i = 0; row->out[i] != T_NONE; i++) TRY(lay_output(seat, at, row->out[i], &seat->out[i]));
    view_buffers(seat, at, false, &o->operands);
    placed_bind(at, NULL, &o->operands, &o->call);
    return status_ok();
}

/* Did a seeded mistake change the call? */
static bool bind_on_device(const struct kernel_seat *seat, const struct placed *at,
                           const struct mutant *seeded, struct call *call) {
    struct operands operands;
    view_buffers(seat, at, true, &operands);
    return placed_bind(at, seeded, &operands, call);
}

/* ---- what the kernel left behind ---- */

static void hash_inputs(const struct kernel_seat *seat, const struct stage_row *stage,
                        uint64_t hash[MAX_STAGE_IO]) {
    for (int i = 0; stage->in[i] != T_NONE; i++)
        hash[i] = seat->in[i]->bytes < SMALL_BYTES ? hash_bytes(seat->in[i]->host, seat->in[i]->bytes) : 0;
}

/* Bytes between the rows of a view that are no longer poison. */
static size_t gap_damage(const struct placed *at, enum tensor_id id, const struct device_buffer *buffer) {
    const struct lie lie = lie_of(at, id);
    const size_t size = dtype_bytes(placed_dtype(at, id));
    const unsigned char *const bytes = buffer->host;
    size_t damaged = 0;
    if (!has_gaps(lie)) return 0;
#pragma omp parallel for reduction(+ : damaged)
    for (int64_t first = 0; first < lie.elements; first += lie.stride)
        for (int64_t column = 0; column < lie.stride; column++) {
            if (column >= lie.offset && column < lie.offset + lie.row) continue;
            const unsigned char *const gap = bytes + (size_t)(first + column) * size;
            for (size_t b = 0; b < size; b++) damaged += gap[b] != buffer->poison;
        }
    return damaged;
}

/* The first problem is the one reported. */
static void blame_writes(struct outcome *o, size_t damaged, const char *what, const char *name) {
    if (damaged && !o->problem[0])
        snprintf(o->problem, sizeof o->problem, "%s wrote %zu bytes outside its %s%s", o->by, damaged, what,
                 name);
}

/* Guards of every buffer intact, small inputs unchanged? */
static struct status check_buffers(struct kernel_seat *seat, const struct placed *at,
                                   const uint64_t before[MAX_STAGE_IO], struct outcome *o) {
    const struct stage_row *const row = placed_row(at);
    uint64_t after[MAX_STAGE_IO];
    size_t damaged;
    for (int i = 0; row->out[i] != T_NONE; i++) {
        TRY(device_guard_damage(seat->device, &seat->out[i], &damaged));
        blame_writes(o, damaged + gap_damage(at, row->out[i], &seat->out[i]), "output ",
                     tensor_table[row->out[i]].name);
    }
    TRY(device_guard_damage(seat->device, &seat->scratch, &damaged));
    blame_writes(o, damaged, "scratch", "");
    for (int i = 0; row->in[i] != T_NONE; i++) {
        if (!has_input(at, i)) continue;
        TRY(device_guard_damage(seat->device, seat->in[i], &damaged));
        blame_writes(o, damaged, "input ", tensor_table[row->in[i]].name);
    }
    for (int i = 0; row->in[i] != T_NONE; i++)
        if (has_input(at, i) && seat->in[i]->bytes < SMALL_BYTES) TRY(device_pull(seat->device, seat->in[i]));
    hash_inputs(seat, row, after);
    for (int i = 0; row->in[i] != T_NONE; i++)
        if (has_input(at, i) && before[i] != after[i] && !o->problem[0])
            snprintf(o->problem, sizeof o->problem, "%s changed its input %s", o->by,
                     tensor_table[row->in[i]].name);
    return status_ok();
}

static struct status fetch_outputs(struct kernel_seat *seat, const struct placed *at, struct store *into) {
    const struct stage_row *const row = placed_row(at);
    for (int i = 0; row->out[i] != T_NONE; i++) {
        const enum tensor_id id = row->out[i];
        const enum dtype dtype = placed_dtype(at, id);
        const struct lie lie = lie_of(at, id);
        const size_t size = dtype_bytes(dtype);
        TRY(device_pull(seat->device, &seat->out[i]));
        char *const got = store_new(into, id, dtype, placed_count(at, id));
        copy_rows(got, (size_t)lie.row * size, (const char *)seat->out[i].host + (size_t)lie.offset * size,
                  (size_t)lie.stride * size, (size_t)lie.row * size,
                  has_gaps(lie) ? at->crew->plan.size[AXIS_T] : 1);
    }
    return status_ok();
}

/* ---- launching ---- */

/* Inputs that are too large to be looked at before and after. */
static void seal_inputs(struct kernel_seat *seat, const struct stage_row *stage, bool sealed) {
    for (int i = 0; stage->in[i] != T_NONE; i++)
        if (seat->in[i]->bytes >= SMALL_BYTES) device_seal(seat->device, seat->in[i], sealed);
}

/* One launch to its end, with whoever watches told before and after. A process that the kernel
 * made and that comes back from it is none of ours. */
static struct status launch(struct kernel_seat *seat, const struct placed *at, const struct call *call,
                            struct outcome *o, double *seconds) {
    const int rank = at->crew->unsharded ? -1 : at->rank;
    const pid_t self = getpid();
    struct traces before;
    char left[300];
    traces_look(&before);
    TRY(watch_step(seat->watch, DOING_KERNEL, at->stage, rank, call_work(call), o->by));
    seal_inputs(seat, placed_row(at), true);
    const double start = clock_seconds();
    const char *const refused = o->kernel->launch[device_kind_of(seat->device)](call, seat->scratch.data,
                                                                                device_stream(seat->device));
    if (getpid() != self) _exit(0);
    const struct status ran = device_sync(seat->device);
    *seconds = clock_seconds() - start;
    seal_inputs(seat, placed_row(at), false);
    const int changed = traces_compare(&before, o->by, left, sizeof left);
    if (changed < 0) {
        struct status s = status_error("%s", left);
        s.code = STATUS_FAULT;
        return s;
    }
    if (refused)
        snprintf(o->problem, sizeof o->problem, "%.400s", refused);
    else if (ran.code)
        snprintf(o->problem, sizeof o->problem, "%.499s", ran.message);
    else if (changed)
        snprintf(o->problem, sizeof o->problem, "%s", left);
    line_clean(o->problem); /* words of the kernel under test */
    return watch_step(seat->watch, DOING_REFERENCE, at->stage, rank, 0, "");
}

/* The launch between two looks at the buffers. What the kernel did wrong is o->problem. */
static struct status run_once(struct kernel_seat *seat, const struct placed *at, const struct call *call,
                              struct outcome *o, struct store *into, double *seconds) {
    uint64_t before[MAX_STAGE_IO];
    const size_t scratch = o->kernel->scratch_bytes ? o->kernel->scratch_bytes(call) : 0;
    TRY(device_reuse(seat->device, "scratch", scratch, WEIGHT_GUARD, true, &seat->scratch));
    hash_inputs(seat, placed_row(at), before);
    TRY(launch(seat, at, call, o, seconds));
    struct status s = fetch_outputs(seat, at, into);
    if (!s.code) s = check_buffers(seat, at, before, o);
    if (s.code && o->problem[0]) { /* the device is of no use any more, and that is the kernel's doing */
        s.code = STATUS_FAULT;
        snprintf(s.message, sizeof s.message, "%s", o->problem);
    }
    return s;
}

/* The same launch from the same start under one more schedule. */
static struct status run_again(struct kernel_seat *seat, const struct placed *at, const struct mutant *seeded,
                               int schedule, struct outcome *o) {
    const struct stage_row *const row = placed_row(at);
    const struct simt_options options = schedule_numbered(schedule);
    struct call call;
    double seconds;
    char text[64], problem[sizeof o->problem];
    TRY(device_set_schedule(seat->device, &options));
    for (int i = 0; row->out[i] != T_NONE; i++) TRY(lay_output(seat, at, row->out[i], &seat->out[i]));
    bind_on_device(seat, at, seeded, &call);
    TRY(run_once(seat, at, &call, o, &o->other, &seconds));
    if (o->problem[0]) {
        memcpy(problem, o->problem, sizeof problem);
        schedule_describe(schedule, text, sizeof text);
        snprintf(o->problem, sizeof o->problem, "depends on the schedule (%s): %.400s", text, problem);
    } else if (schedule_differs(row, &o->got, &o->other)) {
        o->schedule = schedule;
    }
    return status_ok();
}

/* The operands that the outcome is judged with are those of the plain schedule: gates follow from
 * the ids of the same run. */
static void put_back(struct kernel_seat *seat, const struct placed *at, const struct store *got) {
    const struct stage_row *const row = placed_row(at);
    for (int i = 0; row->out[i] != T_NONE; i++) {
        const struct lie lie = lie_of(at, row->out[i]);
        const struct stored *const s = &got->of[row->out[i]];
        const size_t size = dtype_bytes(s->dtype);
        copy_rows((char *)seat->out[i].host + (size_t)lie.offset * size, (size_t)lie.stride * size,
                  s->memory.data, (size_t)lie.row * size, (size_t)lie.row * size,
                  has_gaps(lie) ? at->crew->plan.size[AXIS_T] : 1);
    }
}

static struct status run_schedules(struct kernel_seat *seat, const struct placed *at,
                                   const struct mutant *seeded, struct outcome *o) {
    const struct simt_options plain = schedule_numbered(0);
    struct status s = status_ok();
    for (int i = 1; i < seat->schedules && !s.code && !o->schedule && !o->problem[0]; i++)
        s = run_again(seat, at, seeded, i, o);
    if (seat->schedules > 1 && !s.code) s = device_set_schedule(seat->device, &plain);
    if (o->schedule) put_back(seat, at, &o->got);
    return s;
}

/* The kernel named for the stage, or the registry's choice; NULL, and why. */
static const struct kernel *choose(const struct kernel_seat *seat, int stage, const struct call *call,
                                   const char **why) {
    const struct kernel *const named = seat->chosen ? seat->chosen[stage] : NULL;
    if (!named) return kernel_pick(call->op, device_kind_of(seat->device), call, why);
    *why = kernel_refuses(named, call);
    return *why ? NULL : named;
}

static struct status fill(struct seat *base, const struct placed *at, const struct mutant *seeded,
                          struct outcome *o) {
    struct kernel_seat *const seat = (struct kernel_seat *)base;
    struct call call;
    const char *why = NULL;
    o->mistaken = bind_on_device(seat, at, seeded, &call);
    o->problem[0] = 0;
    o->schedule = 0;
    o->kernel = choose(seat, at->stage, &call, &why);
    o->by = o->kernel ? o->kernel->name : NULL;
    if (!o->kernel) {
        snprintf(o->problem, sizeof o->problem, "no kernel for %s on %s: %s", placed_row(at)->name,
                 device_kind_name(device_kind_of(seat->device)), why ? why : "none registered");
        return status_ok();
    }
    o->contract = o->kernel->contract(&o->call);
    TRY(run_once(seat, at, &call, o, &o->got, &o->seconds));
    return run_schedules(seat, at, seeded, o);
}

void kernel_seat_open(struct kernel_seat *seat, struct device *device, const struct kernel *const *chosen,
                      int schedules) {
    *seat = (struct kernel_seat){
        .seat = {prepare, fill}, .device = device, .chosen = chosen, .schedules = schedules};
}

void kernel_seat_close(struct kernel_seat *seat) {
    for (int i = 0; i < MAX_STAGE_IO; i++) {
        device_free(seat->device, &seat->copy[i]);
        device_free(seat->device, &seat->out[i]);
    }
    device_free(seat->device, &seat->scratch);
    device_free(seat->device, &seat->whole);
}
