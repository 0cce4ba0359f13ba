/* Is what was stored what the declared order of the sum gives? */
/* SPDX-License-Identifier: MIT */
#include "harness/order.h"

#include <stdlib.h>

#include "reference/replay.h"

enum { MOST_ELEMENTS = 1 << 22 }; /* at a time */

void judge_order(const struct placed *at, const struct outcome *o, const struct answer *a, struct verdict v) {
    if (v.edge->state == EDGE_FAIL || !ref_replays(&o->call, &o->contract)) return;
    const int64_t size = a->row_size[0], rows = size ? a->count[0] / size : 0;
    const int64_t most = MOST_ELEMENTS / (size + 1) + 1, step = most < rows ? most : rows;
    const int64_t each = ref_replay_each(&o->call, &o->contract);
    double *const y = memory_zeroed((size_t)(step * size), sizeof *y);
    double *const e = memory_zeroed((size_t)(step * size), sizeof *e);
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
    free(y);
    free(e);
}
