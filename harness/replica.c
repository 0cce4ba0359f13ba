/* Does a rank do what the unsharded run did? */
/* SPDX-License-Identifier: MIT */
#include "harness/replica.h"

#include <string.h>

#include "layer/copy.h"

/* A binder reads no data: operands that are there have all the same. */
static void bind_somewhere(const struct placed *at, const struct operands *operands, struct call *call) {
    static char somewhere;
    struct operands o = *operands;
    for (int i = 0; i < MAX_STAGE_IO; i++) {
        if (o.in[i].data) o.in[i].data = &somewhere;
        if (o.out[i].data) o.out[i].data = &somewhere;
    }
    memset(call, 0, sizeof *call);
    placed_bind(at, NULL, &o, call);
}

static bool same_operand(const struct placed *at, const struct placed *trunk_at, enum tensor_id id) {
    const int64_t n = placed_count(at, id);
    const enum dtype dtype = placed_dtype(at, id);
    const void *const own = placed_stored(at, id), *const whole = placed_stored(trunk_at, id);
    if (n != placed_count(trunk_at, id) || dtype != placed_dtype(trunk_at, id)) return false;
    return own && whole && (own == whole || same_bytes(own, whole, (size_t)n * dtype_bytes(dtype)));
}

bool replica_calls(const struct placed *at, const struct outcome *o, const struct placed *trunk_at,
                   const struct outcome *trunk) {
    const struct stage_row *const row = placed_row(at);
    const struct layer_spec local = placed_local(at);
    struct call call, of_trunk;
    bind_somewhere(at, &o->operands, &call);
    bind_somewhere(trunk_at, &trunk->operands, &of_trunk);
    if (memcmp(&call, &of_trunk, sizeof call) || o->fuzzy || trunk->fuzzy) return false;
    for (const enum tensor_id *id = row->in; *id != T_NONE; id++)
        if (tensor_present(*id, &local) && !same_operand(at, trunk_at, *id)) return false;
    for (const enum tensor_id *id = row->out; *id != T_NONE; id++)
        if (seat_in_place(*id) && !same_operand(at, trunk_at, *id)) return false;
    return true;
}

bool replica_stores(const struct placed *at, const struct outcome *o, const struct outcome *trunk) {
    if (o->kernel != trunk->kernel || o->problem[0] || trunk->problem[0] || o->schedule || trunk->schedule)
        return false;
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE; id++) {
        const struct stored *const own = &o->got.of[*id], *const whole = &trunk->got.of[*id];
        if (own->count != whole->count || own->dtype != whole->dtype ||
            !same_bytes(own->memory.data, whole->memory.data, (size_t)own->count * dtype_bytes(own->dtype)))
            return false;
    }
    return true;
}
