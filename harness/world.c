/* What happens to tensors between kernels? Partial sums meet, and a fused row is looked at through
 * three views. */
/* SPDX-License-Identifier: MIT */
#include "harness/world.h"

#include <string.h>

#include "harness/clock.h"

static void sim_sum(const struct sum_args *a) {
#pragma omp parallel for if (a->n_tokens * a->width > 1 << 16)
    for (int64_t t = 0; t < a->n_tokens; t++)
        for (int64_t c = 0; c < a->width; c++) {
            float sum = 0;
            for (int64_t p = 0; p < a->n_parts; p++) {
                const struct view *const v = &a->part[p];
                sum += (float)dtype_load(v->data, v->dtype, t * v->stride[0] + c);
            }
            dtype_store(a->out.data, a->out.dtype, t * a->out.stride[0] + c, (double)sum);
        }
}

static struct contract sim_contract(const struct sum_args *a) {
    (void)a;
    return (struct contract){.op = OP_SUM, .u.sum = {.unit = UNIT_F32}};
}

const struct world world_sim = {.name = "sim", .sum = sim_sum, .contract = sim_contract};

/* The views [T, (h g g) D] of a fused row, copied out: a view moves nothing by itself. */
static void look_through_views(const struct split_args *a) {
    const int64_t heads[3] = {a->n_heads, a->n_kv_heads, a->n_kv_heads};
    const size_t size = dtype_bytes(a->in.dtype);
    for (int i = 0; i < 3; i++) {
        const char *const from = (const char *)a->in.data + (size_t)a->first[i] * size;
        const size_t row = (size_t)(heads[i] * a->head_dim) * size;
        for (int64_t t = 0; t < a->n_tokens; t++)
            memcpy((char *)a->out[i].data + (size_t)(t * a->out[i].stride[0]) * size,
                   from + (size_t)(t * a->in.stride[0]) * size, row);
    }
}

static struct status prepare(struct seat *base, const struct placed *at, struct outcome *o) {
    return desk_prepare(&((struct world_seat *)base)->desk, at, o);
}

static struct status fill(struct seat *base, const struct placed *at, const struct mutant *seeded,
                          struct outcome *o) {
    const struct world *const world = ((struct world_seat *)base)->world;
    const bool sum = o->call.op == OP_SUM;
    struct view part[MAX_PARTS];
    struct operands operands = o->operands;
    struct call call;
    o->mistaken = false;
    if (sum && seeded && seeded->hooks.sum) {
        memcpy(part, o->part, sizeof part);
        operands.part = part;
        o->mistaken = seeded->hooks.sum(at, part, &operands.n_parts);
    }
    o->mistaken |= placed_bind(at, seeded, &operands, &call);
    const double start = clock_seconds();
    if (sum)
        world->sum(&call.u.sum);
    else
        look_through_views(&call.u.split);
    o->seconds = clock_seconds() - start;
    o->problem[0] = 0;
    o->schedule = 0;
    o->by = sum ? world->name : "view";
    o->contract = sum ? world->contract(&o->call.u.sum) : contract_exact(o->call.op);
    return status_ok();
}

void world_seat_open(struct world_seat *seat, const struct world *world) {
    *seat = (struct world_seat){.seat = {prepare, fill}, .world = world};
}

void world_seat_close(struct world_seat *seat) { desk_free(&seat->desk); }
