/* Which order did a sum have, and is what was stored what it gives? */
/* SPDX-License-Identifier: MIT */
#include "harness/order.h"

#include <stdio.h>
#include <stdlib.h>

#include "reference/order.h"
#include "reference/replay.h"

static bool says_nothing(const struct outcome *o) {
    const struct linear_args *const a = &o->call.u.linear;
    return o->kernel && o->call.op == OP_LINEAR && o->contract.u.linear.acc.order == ORDER_ANY &&
           a->n_groups == 1 && a->n_rows > 0 && !o->fuzzy && !o->problem[0];
}

static void say(const struct order_found *f, char *text, size_t size) {
    if (f->telling < ORDER_TELLING)
        snprintf(text, size, "any: of %lld sampled elements %lld tell orders apart, of %d needed",
                 (long long)f->sampled, (long long)f->telling, ORDER_TELLING);
    else if (f->found)
        snprintf(text, size, "%s: the bits of all %lld sampled elements", f->order.name,
                 (long long)f->sampled);
    else
        snprintf(text, size, "any: none that is known gives the bits of %lld sampled elements",
                 (long long)f->sampled);
}

void order_learn(const struct placed *at, struct outcome *o, struct verdict v) {
    if (!says_nothing(o)) return;
    const struct stored *const stored = &o->got.of[placed_row(at)->out[0]];
    const int64_t n_cols = o->call.u.linear.n_cols;
    struct order_found found;
    struct call call = o->call;
    call.u.linear.out =
        (struct view){stored->memory.data, stored->dtype, {n_cols, 1}, 0, call.u.linear.n_rows * n_cols};
    order_find(&call, &o->contract, &found);
    if (!v.edge->order[0] || !found.found) say(&found, v.edge->order, sizeof v.edge->order);
    if (!found.found) return;
    struct accumulator *const acc = &o->contract.u.linear.acc;
    const int most_splits = acc->splits; /* another tile may be cut into more */
    *acc = found.order.contract.u.linear.acc;
    acc->in_order = false; /* nobody has promised it of the elements that were not sampled */
    acc->slice = 0;        /* nor where they are cut */
    if (acc->splits < most_splits) acc->splits = most_splits;
}

enum { MOST_ELEMENTS = 1 << 22 }; /* at a time */

void judge_order(const struct placed *at, const struct outcome *o, const struct answer *a, struct verdict v) {
    if (v.edge->state == EDGE_FAIL || !ref_replays(&o->call, &o->contract)) return;
    const int64_t size = a->row_size[0], rows = size ? a->count[0] / size : 0;
    const int64_t most = MOST_ELEMENTS / (size + 1) + 1, step = most < rows ? most : rows;
    const int64_t each = ref_replay_each(&o->call, &o->contract);
    double *const y = block_new((size_t)(step * size), sizeof *y);
    double *const e = block_new((size_t)(step * size), sizeof *e);
    const struct stored *const stored = &o->got.of[a->id[0]];
    for (int64_t row = 0; row < rows; row += step) {
        const int64_t n = step < rows - row ? step : rows - row;
        const size_t skip = (size_t)(row * size) * dtype_bytes(stored->dtype);
        struct judged j = placed_judged(at, a->id[0], (const char *)stored->memory.data + skip, n * size);
        j.first = row * size;
        j.y = y;
        j.e = e;
        j.in_order = true;
        ref_replay(&o->call, &o->contract, row, row + n, each, y, e);
        judge_set(&j, v.edge, v.findings);
    }
    block_free(y);
    block_free(e);
}
