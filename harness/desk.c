/* How do operands lie for somebody who needs no device? Dense, and where they already are if that
 * is dense. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "harness/seat.h"

bool seat_in_place(enum tensor_id id) { return id == T_K_CACHE || id == T_V_CACHE; }

void outcome_free(struct outcome *o) {
    store_free(&o->got);
    store_free(&o->other);
}

struct tile_sizes outcome_tiles(const struct outcome *o) {
    return o->kernel && o->kernel->tiles ? o->kernel->tiles(&o->call) : (struct tile_sizes){0};
}

void desk_free(struct desk *desk) {
    for (int i = 0; i < MAX_STAGE_IO; i++) mapping_free(&desk->in[i]);
}

static const double *radius_of(const struct placed *at, enum tensor_id id) {
    const struct crew *const c = at->crew;
    if (c->own[at->rank].of[id].count) return c->radius ? c->radius[at->rank].of[id].memory.data : NULL;
    return c->whole_radius ? c->whole_radius->of[id].memory.data : NULL;
}

static void lay_input(struct desk *desk, const struct placed *at, int i, struct outcome *o) {
    const enum tensor_id id = placed_row(at)->in[i];
    const enum dtype dtype = placed_dtype(at, id);
    void *data = placed_stored(at, id);
    if (!data) {
        mapping_renew(&desk->in[i], (size_t)placed_count(at, id) * dtype_bytes(dtype));
        data = desk->in[i].data;
        placed_dense(at, id, data);
    }
    o->operands.in[i] = view_dense(&at->crew->plan, id, at->rank, data, dtype);
    o->radius[i] = radius_of(at, id);
    o->fuzzy |= o->radius[i] != NULL;
}

static void lay_output(const struct placed *at, int i, struct outcome *o) {
    const enum tensor_id id = placed_row(at)->out[i];
    const enum dtype dtype = tensor_dtype(id, at->crew->storage);
    const int64_t count = placed_count(at, id);
    void *const data = store_renew(&o->got, id, dtype, count);
    if (seat_in_place(id))
        placed_dense(at, id, data);
    else
        dtype_poison(data, dtype, count);
    o->operands.out[i] = view_dense(&at->crew->plan, id, at->rank, data, dtype);
}

struct status desk_prepare(struct desk *desk, const struct placed *at, struct outcome *o) {
    const struct stage_row *const row = placed_row(at);
    const struct layer_spec local = placed_local(at);
    o->operands = (struct operands){.n_parts = 0}; /* an outcome serves stage after stage */
    memset(o->radius, 0, sizeof o->radius);
    o->fuzzy = false;
    if (row->op == OP_SUM) {
        o->operands.n_parts = placed_parts(at, o->part, o->radius);
        o->operands.part = o->part;
        for (int64_t i = 0; i < o->operands.n_parts; i++) o->fuzzy |= o->radius[i] != NULL;
    } else {
        for (int i = 0; row->in[i] != T_NONE; i++)
            if (tensor_present(row->in[i], &local)) lay_input(desk, at, i, o);
    }
    for (int i = 0; row->out[i] != T_NONE; i++) lay_output(at, i, o);
    placed_bind(at, NULL, &o->operands, &o->call);
    return status_ok();
}
