/* What if every stage did exactly what the reference says? */
/* SPDX-License-Identifier: MIT */
#include "harness/answer_seat.h"

#include <string.h>

#include "harness/clock.h"
#include "harness/mistake.h"

void answer_spread(const struct placed *at, struct store *into, enum tensor_id id, int i,
                   const double *values, int64_t count) {
    if (placed_op(at)->spread)
        placed_op(at)->spread(at, into, i, values);
    else
        memcpy(into->of[id].memory.data, values, (size_t)count * sizeof *values);
}

static struct status prepare(struct seat *base, const struct placed *at, struct outcome *o) {
    return desk_prepare(&((struct answer_seat *)base)->desk, at, o);
}

/* Room for the radii of what is no integer; in place, a cache begins as exact. */
static void renew_radii(struct answer_seat *seat, const struct placed *at) {
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE; id++)
        if (tensor_table[*id].dtype != DTYPE_I32)
            store_renew(&seat->moved, *id, DTYPE_F64, placed_count(at, *id));
}

/* Into o->call, whose parts, if it is a sum, are then in `part`. */
static bool make_mistake(const struct placed *at, const struct mutant *seeded, struct outcome *o,
                         struct view part[MAX_PARTS]) {
    struct operands operands = o->operands;
    bool changed = false;
    if (o->call.op == OP_SUM && seeded->hooks.sum) {
        memcpy(part, o->part, sizeof o->part);
        operands.part = part;
        changed = seeded->hooks.sum(at, part, &operands.n_parts);
    }
    return placed_bind(at, seeded, &operands, &o->call) || changed;
}

static struct status fill(struct seat *base, const struct placed *at, const struct mutant *seeded,
                          struct outcome *o) {
    struct answer_seat *const seat = (struct answer_seat *)base;
    struct answer a;
    const struct call right = o->call;
    struct view part[MAX_PARTS];
    const double start = clock_seconds();
    if (seeded) o->mistaken = make_mistake(at, seeded, o, part);
    o->problem[0] = 0;
    o->by = "answer";
    o->contract = seat->contract(o->call.op);
    if (placed_op(at)->choose) placed_op(at)->choose(&o->call);
    if (at->crew->fault)
        mistake_answer(&a, at, at->crew->fault, o);
    else
        answer_compute(&a, at->stage, o, NULL);
    renew_radii(seat, at);
    for (int i = 0; i < a.n; i++) {
        answer_spread(at, &o->got, a.id[i], i, a.y[i], a.count[i]);
        answer_spread(at, &seat->moved, a.id[i], i, a.e[i], a.count[i]);
    }
    answer_free(&a);
    o->call = right;
    o->seconds = clock_seconds() - start;
    return status_ok();
}

void answer_seat_open(struct answer_seat *seat, struct contract (*contract)(enum op op)) {
    *seat = (struct answer_seat){.seat = {prepare, fill}, .contract = contract};
}

void answer_seat_close(struct answer_seat *seat) {
    desk_free(&seat->desk);
    store_free(&seat->moved);
}
