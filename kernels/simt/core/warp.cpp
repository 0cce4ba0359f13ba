/* warp - collectives of the lanes named in a mask: shuffles, votes, __syncwarp, and what later
 * builds on them. The last lane to arrive carries the operation out for all. Groups with different
 * masks may be open at once. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "kernels/simt/core/block.h"
#include "kernels/simt/core/intrinsics.h"
#include "kernels/simt/race/race.h"

namespace simt {

/* Open a group, or find the right one of several; every check that a mask can fail is here. */
static __attribute__((noinline)) warp_group *group_join(block *b, const fiber *f, uint32_t mask,
                                                        const char *operation, place at) {
    warp *w = &b->warps[f->warp];
    const uint32_t bit = 1u << f->lane;
    if (!(mask & bit))
        fail(at, "%s: mask 0x%08x does not name the calling lane %d", operation, mask, f->lane);
    const int lanes = b->threads - f->warp * 32;
    if (lanes < 32 && mask >> lanes)
        fail(at, "%s: mask 0x%08x names lanes that a block of %d threads does not have", operation, mask,
             b->threads);
    for (int i = 0; i < w->groups; i++) {
        warp_group *g = &w->group[i];
        if (g->mask == mask) return g;
        if (g->mask & bit && g->arrived & mask)
            fail(at, "%s with mask 0x%08x, while lane %d waits in %s with mask 0x%08x (%s:%d)", operation,
                 mask, __builtin_ctz(g->arrived & mask), g->operation, g->mask, g->at.file, g->at.line);
    }
    for (uint32_t others = mask & ~bit; others; others &= others - 1) {
        const int lane = __builtin_ctz(others);
        if (b->fibers[f->warp * 32 + lane].state == THREAD_EXITED)
            fail(at, "%s: mask 0x%08x names lane %d, which has exited", operation, mask, lane);
    }
    warp_group *g = &w->group[w->groups++];
    *g = {mask, 0, operation, at};
    return g;
}

void warp_collective(uint32_t mask, const char *operation, warp_run run, void *argument, place at) {
    block *b = running;
    fiber *f = self_fiber();
    warp *w = &b->warps[f->warp];
    const uint32_t bit = 1u << f->lane;
    warp_group *g = &w->group[0];
    if (w->groups != 1 || g->mask != mask || !(mask & bit)) g = group_join(b, f, mask, operation, at);
    if (g->operation != operation && strcmp(g->operation, operation))
        fail(at, "%s, while other lanes of mask 0x%08x wait in %s (%s:%d)", operation, mask, g->operation,
             g->at.file, g->at.line);
    w->argument[f->lane] = argument;
    g->arrived |= bit;
    if (g->arrived != mask) {
        wait_here(b, f, operation, at);
        return;
    }
    *g = w->group[--w->groups];
    if (run) run(w->argument, mask);
    make_ready(b, f->warp, mask & ~bit);
    b->spins = 0;
}

void warp_aligned(const char *operation, warp_run run, void *argument, place at) {
    const warp *w = &running->warps[self->warp];
    const warp_group *g = &w->group[0];
    const bool waiting = w->groups == 1 && g->mask == UINT32_MAX;
    if (waiting && (g->at.line != at.line || (g->at.file != at.file && strcmp(g->at.file, at.file))))
        fail(at,
             "%s, while lane %d waits in %s at another place (%s:%d); all lanes must come to the same one",
             operation, __builtin_ctz(g->arrived), g->operation, g->at.file, g->at.line);
    warp_collective(UINT32_MAX, operation, run, argument, at);
}

static void warp_barrier_run(void **, uint32_t mask) { race_join_warp(mask); }

void warp_barrier(uint32_t mask, place at) {
    warp_collective(mask, "__syncwarp", RACE_BUILD ? warp_barrier_run : nullptr, nullptr, at);
}

/* ---- votes ---- */

struct ballot_argument {
    bool in;
    uint32_t out;
};

static void ballot_run(void **arguments, uint32_t mask) {
    uint32_t votes = 0;
    for (uint32_t left = mask; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        if (static_cast<ballot_argument *>(arguments[lane])->in) votes |= 1u << lane;
    }
    for (uint32_t left = mask; left; left &= left - 1)
        static_cast<ballot_argument *>(arguments[__builtin_ctz(left)])->out = votes;
}

uint32_t ballot(uint32_t mask, bool predicate, const char *name, place at) {
    ballot_argument argument{predicate, 0};
    warp_collective(mask, name, ballot_run, &argument, at);
    return argument.out;
}

/* ---- shuffles: which lane does `lane` read? Past its segment of `width` lanes, itself. ---- */

int shuffle_source(int lane, shuffle_kind kind, int selector, int width) {
    const int start = lane & ~(width - 1), end = start + width - 1, by = selector & 31;
    switch (kind) {
    case SHUFFLE_INDEX: return start + (selector & (width - 1));
    case SHUFFLE_UP: return lane - by < start ? lane : lane - by;
    case SHUFFLE_DOWN: return lane + by > end ? lane : lane + by;
    default: return (lane ^ by) > end ? lane : lane ^ by;
    }
}

void shuffle_check_width(place at, int width) {
    if (width < 1 || width > 32 || width & (width - 1))
        fail(at, "shuffle of width %d; it must be a power of two from 1 to 32", width);
}

void shuffle_fail(place at, int lane, int source, uint32_t mask) {
    fail_lane(lane, at, "shuffle: lane %d reads lane %d, which mask 0x%08x does not name", lane, source,
              mask);
}

} // namespace simt
