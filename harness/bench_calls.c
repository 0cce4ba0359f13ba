/* Which calls make up a shape, and which kernels take them? */
/* SPDX-License-Identifier: MIT */
#include "harness/bench_calls.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PAGE = 16 };
#define GUARD_BYTES ((size_t)64 << 10)

static const char *const slot_names[BENCH_SLOTS] = {
    [BENCH_IN] = "input",    [BENCH_OUT] = "output",      [BENCH_W1] = "w1",
    [BENCH_W2] = "w2",       [BENCH_GATE_UP] = "gate_up", [BENCH_ACT] = "activated",
    [BENCH_INDEX] = "index", [BENCH_SCRATCH] = "scratch"};

/* ---- operands ---- */

/* Values that do not repeat within a cache; uniform with the deviation given, bf16. */
static void fill_random(uint16_t *out, size_t n, double deviation) {
    enum { PERIOD = 4194301 }; /* a prime: rows of a power of two do not line up */
    uint64_t state = 1 + n;
    const size_t fresh = n < PERIOD ? n : PERIOD;
    for (size_t i = 0; i < fresh; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        dtype_store(out, DTYPE_BF16, (int64_t)i,
                    deviation * sqrt(3) * (ldexp((double)(state >> 40), -23) - 1));
    }
    for (size_t done = fresh; done < n; done += fresh)
        memcpy(out + done, out, (n - done < fresh ? n - done : fresh) * sizeof *out);
}

static struct status lay(struct bench_operands *o, enum bench_slot slot, int64_t elements, double deviation) {
    struct device_buffer *const b = &o->buffer[slot];
    TRY(device_reuse(o->device, slot_names[slot], (size_t)elements * 2, GUARD_BYTES, false, b));
    fill_random(b->host, (size_t)elements, deviation);
    return device_push(o->device, b);
}

static struct status make_room(struct bench_operands *o, enum bench_slot slot, int64_t elements) {
    return device_reuse(o->device, slot_names[slot], (size_t)elements * 2, GUARD_BYTES, true,
                        &o->buffer[slot]);
}

static struct status make_indices(struct bench_operands *o, int64_t count) {
    return device_reuse(o->device, "index", (size_t)count * sizeof(int32_t), GUARD_BYTES, false,
                        &o->buffer[BENCH_INDEX]);
}

static int64_t pages_of(const struct bench_shape *s) { return (s->keys + PAGE - 1) / PAGE; } /* a sequence */

/* A page table in an order without a pattern (a prime permutes what it does not divide), then
 * query_start, then kv_len. */
static struct status lay_attention(struct bench_operands *o) {
    const struct bench_shape *const s = &o->shape;
    const int64_t pages = s->seqs * pages_of(s), row = s->kv * s->dim, tokens = s->seqs * s->queries;
    TRY(make_indices(o, pages + 2 * s->seqs + 1));
    int32_t *const index = o->buffer[BENCH_INDEX].host, *const start = index + pages,
                   *const length = start + s->seqs + 1;
    for (int64_t i = 0; i < pages; i++) index[i] = (int32_t)(i * 2654435761 % pages);
    for (int64_t i = 0; i <= s->seqs; i++) start[i] = (int32_t)(i * s->queries);
    for (int64_t i = 0; i < s->seqs; i++) length[i] = (int32_t)s->keys;
    TRY(device_push(o->device, &o->buffer[BENCH_INDEX]));
    TRY(lay(o, BENCH_IN, tokens * s->heads * s->dim, 1));
    TRY(lay(o, BENCH_W1, pages * PAGE * row, 1));
    TRY(lay(o, BENCH_W2, pages * PAGE * row, 1));
    return make_room(o, BENCH_OUT, tokens * s->heads * s->dim);
}

static struct status lay_experts(struct bench_operands *o) {
    const struct bench_shape *const s = &o->shape;
    const int64_t rows = s->tokens * s->top;
    TRY(make_indices(o, s->experts + 1));
    bench_offsets(s, o->buffer[BENCH_INDEX].host);
    TRY(device_push(o->device, &o->buffer[BENCH_INDEX]));
    TRY(lay(o, BENCH_IN, rows * s->hidden, 1));
    TRY(lay(o, BENCH_W1, s->experts * 2 * s->width * s->hidden, 0.02));
    TRY(lay(o, BENCH_W2, s->experts * s->hidden * s->width, 0.02));
    TRY(make_room(o, BENCH_GATE_UP, rows * 2 * s->width));
    TRY(make_room(o, BENCH_ACT, rows * s->width));
    return make_room(o, BENCH_OUT, rows * s->hidden);
}

static struct status lay_dense(struct bench_operands *o) {
    const struct bench_shape *const s = &o->shape;
    TRY(lay(o, BENCH_IN, s->rows * s->inner, 1));
    TRY(lay(o, BENCH_W1, s->cols * s->inner, 0.02));
    return make_room(o, BENCH_OUT, s->rows * s->cols);
}

struct status bench_operands_lay(struct bench_operands *o, struct device *device,
                                 const struct bench_shape *shape) {
    o->device = device;
    o->shape = *shape;
    device_set_poison(device, POISON_NAN);
    return bench_is_attention(shape->family) ? lay_attention(o)
           : shape->family == BENCH_EXPERTS  ? lay_experts(o)
                                             : lay_dense(o);
}

void bench_operands_free(struct bench_operands *o) {
    for (int i = 0; i < BENCH_SLOTS && o->device; i++) device_free(o->device, &o->buffer[i]);
    *o = (struct bench_operands){0};
}

/* ---- calls ---- */

/* Where pointers are taken from. */
struct side {
    const struct bench_operands *o;
    bool on_device;
};

static struct view dense(const struct side *side, enum bench_slot slot, int64_t s0, int64_t s1, int64_t s2) {
    const struct device_buffer *const b = &side->o->buffer[slot];
    return (struct view){
        side->on_device ? b->data : b->host, DTYPE_BF16, {s0, s1, s2}, 0, (int64_t)b->bytes / 2};
}

static struct view indices(const struct side *side, int64_t first, int64_t count, int64_t stride) {
    const struct device_buffer *const b = &side->o->buffer[BENCH_INDEX];
    int32_t *const data = side->on_device ? b->data : b->host;
    return (struct view){data + first, DTYPE_I32, {stride}, 0, count};
}

static struct call attention_call(const struct side *side) {
    const struct bench_shape *const s = &side->o->shape;
    const int64_t pages = s->seqs * pages_of(s), row = s->kv * s->dim, width = s->heads * s->dim;
    return (struct call){.op = OP_ATTENTION,
                         .u.attention = {.q = dense(side, BENCH_IN, width, s->dim, 0),
                                         .out = dense(side, BENCH_OUT, width, s->dim, 0),
                                         .k_cache = dense(side, BENCH_W1, PAGE * row, row, s->dim),
                                         .v_cache = dense(side, BENCH_W2, PAGE * row, row, s->dim),
                                         .page_table = indices(side, 0, pages, pages_of(s)),
                                         .query_start = indices(side, pages, s->seqs + 1, 1),
                                         .kv_len = indices(side, pages + s->seqs + 1, s->seqs, 1),
                                         .n_tokens = s->seqs * s->queries,
                                         .n_seqs = s->seqs,
                                         .n_heads = s->heads,
                                         .n_kv_heads = s->kv,
                                         .head_dim = s->dim,
                                         .page_size = PAGE,
                                         .n_pages = pages,
                                         .max_queries = s->queries,
                                         .max_kv = s->keys,
                                         .scale = 1 / sqrt((double)s->dim),
                                         .causal = true}};
}

static struct call gate_up_call(const struct side *side) {
    const struct bench_shape *const s = &side->o->shape;
    return (struct call){.op = OP_LINEAR,
                         .u.linear = {.x = dense(side, BENCH_IN, s->hidden, 0, 0),
                                      .w = dense(side, BENCH_W1, 2 * s->width * s->hidden, s->hidden, 0),
                                      .out = dense(side, BENCH_GATE_UP, 2 * s->width, 0, 0),
                                      .offsets = indices(side, 0, s->experts + 1, 1),
                                      .n_rows = s->tokens * s->top,
                                      .n_cols = 2 * s->width,
                                      .n_inner = s->hidden,
                                      .n_groups = s->experts}};
}

static struct call activation_call(const struct side *side) {
    const struct bench_shape *const s = &side->o->shape;
    return (struct call){.op = OP_ACTIVATION,
                         .u.activation = {.gate_up = dense(side, BENCH_GATE_UP, 2 * s->width, s->width, 0),
                                          .out = dense(side, BENCH_ACT, s->width, 0, 0),
                                          .n_rows = s->tokens * s->top,
                                          .width = s->width}};
}

static struct call gated_call(const struct side *side) {
    const struct bench_shape *const s = &side->o->shape;
    return (struct call){.op = OP_GATED_LINEAR,
                         .u.gated_linear = {.x = dense(side, BENCH_IN, s->hidden, 0, 0),
                                            .w = dense(side, BENCH_W1, 2 * s->width * s->hidden,
                                                       s->width * s->hidden, s->hidden),
                                            .out = dense(side, BENCH_ACT, s->width, 0, 0),
                                            .offsets = indices(side, 0, s->experts + 1, 1),
                                            .n_rows = s->tokens * s->top,
                                            .width = s->width,
                                            .n_inner = s->hidden,
                                            .n_groups = s->experts}};
}

static struct call down_call(const struct side *side) {
    const struct bench_shape *const s = &side->o->shape;
    return (struct call){.op = OP_LINEAR,
                         .u.linear = {.x = dense(side, BENCH_ACT, s->width, 0, 0),
                                      .w = dense(side, BENCH_W2, s->hidden * s->width, s->width, 0),
                                      .out = dense(side, BENCH_OUT, s->hidden, 0, 0),
                                      .offsets = indices(side, 0, s->experts + 1, 1),
                                      .n_rows = s->tokens * s->top,
                                      .n_cols = s->hidden,
                                      .n_inner = s->width,
                                      .n_groups = s->experts}};
}

static struct call dense_call(const struct side *side) {
    const struct bench_shape *const s = &side->o->shape;
    return (struct call){.op = OP_LINEAR,
                         .u.linear = {.x = dense(side, BENCH_IN, s->inner, 0, 0),
                                      .w = dense(side, BENCH_W1, s->cols * s->inner, s->inner, 0),
                                      .out = dense(side, BENCH_OUT, s->cols, 0, 0),
                                      .n_rows = s->rows,
                                      .n_cols = s->cols,
                                      .n_inner = s->inner,
                                      .n_groups = 1}};
}

/* ---- ways to do it ---- */

struct step {
    enum bench_slot out;
    struct call (*call)(const struct side *side);
};
/* Every kernel is tried in the first step; the others get the same one where they are of the same
 * op, else the one that was asked for or that the registry picks. */
static const struct way {
    enum bench_family from, to;
    int n;
    struct step step[BENCH_STEPS];
} ways[] = {
    {BENCH_PREFILL, BENCH_DECODE, 1, {{BENCH_OUT, attention_call}}},
    {BENCH_EXPERTS,
     BENCH_EXPERTS,
     3,
     {{BENCH_GATE_UP, gate_up_call}, {BENCH_ACT, activation_call}, {BENCH_OUT, down_call}}},
    {BENCH_EXPERTS, BENCH_EXPERTS, 2, {{BENCH_ACT, gated_call}, {BENCH_OUT, down_call}}},
    {BENCH_DENSE, BENCH_DENSE, 1, {{BENCH_OUT, dense_call}}},
};

static bool runs_on(const struct kernel *k, enum device_kind device) {
    return k->launch[device] &&
           (device == DEVICE_HOST || !k->compute || k->compute == device_compute(device));
}

static bool is_registered(const struct kernel *k) { return kernel_by_name(k->name) == k; }

/* The i-th kernel of the op on the device: the registry's, then those that are wanted besides. */
static const struct kernel *candidate(enum op op, enum device_kind device, const struct kernel *const *wanted,
                                      int n_wanted, int i) {
    for (const struct kernel *k = kernel_table; k->name; k++)
        if (k->op == op && runs_on(k, device) && i-- == 0) return k;
    for (int w = 0; w < n_wanted; w++)
        if (!is_registered(wanted[w]) && wanted[w]->op == op && runs_on(wanted[w], device) && i-- == 0)
            return wanted[w];
    return NULL;
}

static const struct kernel *companion(const struct call *call, enum device_kind device,
                                      const struct kernel *varied, const struct kernel *const *wanted,
                                      int n_wanted) {
    if (varied->op == call->op) return varied;
    for (int w = 0; w < n_wanted; w++)
        if (wanted[w]->op == call->op && runs_on(wanted[w], device)) return wanted[w];
    return kernel_pick(call->op, device, call, NULL);
}

static bool is_wanted(const struct bench_chain *chain, const struct kernel *const *wanted, int n_wanted) {
    for (int w = 0; w < n_wanted; w++)
        for (int i = 0; i < chain->n; i++)
            if (chain->kernel[i] == wanted[w]) return true;
    return !n_wanted;
}

static void name_chain(struct bench_chain *c) {
    int used = 0;
    for (int i = 0; i < c->n && used < BENCH_CHAIN_NAME; i++)
        used += snprintf(c->name + used, (size_t)(BENCH_CHAIN_NAME - used), "%s%s", i ? "+" : "",
                         c->kernel[i] ? c->kernel[i]->name : "nothing");
    for (int i = 0; i < c->n && !c->refused[0]; i++) {
        const char *const why =
            !c->kernel[i] ? "no such kernel on this device" : kernel_refuses(c->kernel[i], &c->call[i]);
        if (why)
            snprintf(c->refused, sizeof c->refused, "%.40s: %.150s",
                     c->kernel[i] ? c->kernel[i]->name : op_name(c->call[i].op), why);
    }
}

static void make_chain(const struct bench_operands *o, const struct way *way, const struct kernel *varied,
                       const struct kernel *const *wanted, int n_wanted, struct bench_chain *out) {
    const enum device_kind device = device_kind_of(o->device);
    const struct side there = {o, true}, here = {o, false};
    *out = (struct bench_chain){.n = way->n};
    for (int i = 0; i < way->n; i++) {
        out->out[i] = way->step[i].out;
        out->call[i] = way->step[i].call(&there);
        out->seen[i] = way->step[i].call(&here);
        out->kernel[i] = companion(&out->call[i], device, varied, wanted, n_wanted);
    }
    name_chain(out);
}

bool bench_chain_at(const struct bench_operands *o, const struct kernel *const *wanted, int n_wanted, int i,
                    struct bench_chain *out) {
    const enum device_kind device = device_kind_of(o->device);
    const struct side there = {o, true};
    const struct kernel *k;
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        const struct way *const way = &ways[w];
        if (o->shape.family < way->from || o->shape.family > way->to) continue;
        const enum op op = way->step[0].call(&there).op;
        for (int n = 0; (k = candidate(op, device, wanted, n_wanted, n)); n++) {
            make_chain(o, way, k, wanted, n_wanted, out);
            if (is_wanted(out, wanted, n_wanted) && i-- == 0) return true;
        }
    }
    return false;
}

/* ---- running ---- */

size_t bench_chain_scratch(const struct bench_chain *chain) {
    size_t most = 0;
    for (int i = 0; i < chain->n; i++) {
        const struct kernel *const k = chain->kernel[i];
        const size_t bytes = k->scratch_bytes ? k->scratch_bytes(&chain->call[i]) : 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

struct status bench_lay_scratch(struct bench_operands *o, size_t bytes) {
    return device_reuse(o->device, slot_names[BENCH_SCRATCH], bytes, GUARD_BYTES, true,
                        &o->buffer[BENCH_SCRATCH]);
}

struct status bench_chain_prepare(struct bench_operands *o, const struct bench_chain *chain) {
    for (int i = 0; i < chain->n; i++) {
        struct device_buffer *const out = &o->buffer[chain->out[i]];
        TRY(device_reuse(o->device, slot_names[chain->out[i]], out->bytes, GUARD_BYTES, true, out));
    }
    return bench_lay_scratch(o, bench_chain_scratch(chain));
}

struct status bench_chain_launch(struct bench_operands *o, const struct bench_chain *chain) {
    for (int i = 0; i < chain->n; i++) {
        const char *const refused = chain->kernel[i]->launch[device_kind_of(o->device)](
            &chain->call[i], o->buffer[BENCH_SCRATCH].data, device_stream(o->device));
        if (refused) return status_error("%s: %.300s", chain->kernel[i]->name, refused);
    }
    return status_ok();
}
