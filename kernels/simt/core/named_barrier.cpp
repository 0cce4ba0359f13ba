/* named_barrier - barriers of some of the block's warps, the proxy fence, and register budgets. */
/* SPDX-License-Identifier: MIT */
#include "kernels/simt/instructions/async.h"
#include "kernels/simt/race/race.h"

namespace simt {

/* ---- named barriers: a warp arrives as one ---- */

struct arrival {
    int id, threads;
    bool wait;
    uint32_t phase; /* out: the one the warp arrived in */
    place at;
};

static const char *arrival_name(bool wait) { return wait ? "named_barrier_sync" : "named_barrier_arrive"; }

static void check_arrival(const named_barrier_state *s, const arrival *a) {
    const char *operation = arrival_name(a->wait);
    const int warp_index = self->warp;
    if (s->arrived && s->threads != a->threads)
        fail(a->at, "%s: barrier %d with %d threads, but thread %d came to it with %d (%s:%d)", operation,
             a->id, a->threads, s->first, s->threads, s->at.file, s->at.line);
    if (s->warps >> warp_index & 1)
        fail(a->at, "%s: warp %d comes to barrier %d twice before its %d threads were there", operation,
             warp_index, a->id, a->threads);
}

static void arrival_run(void **arguments, uint32_t) {
    block *b = running;
    arrival *a = static_cast<arrival *>(arguments[self->lane]);
    for (int lane = 0; lane < 32; lane++) {
        const arrival *other = static_cast<const arrival *>(arguments[lane]);
        if (other->id != a->id || other->threads != a->threads)
            fail_lane(lane, a->at, "%s: lane %d comes to barrier %d with %d threads, lane %d to %d with %d",
                      arrival_name(a->wait), lane, other->id, other->threads, self->lane, a->id, a->threads);
    }
    named_barrier_state *s = &async_of(b)->named[a->id];
    check_arrival(s, a);
    if (!s->arrived) {
        s->threads = a->threads;
        s->first = self->warp * 32;
        s->at = a->at;
    }
    for (int lane = 0; lane < 32; lane++) static_cast<arrival *>(arguments[lane])->phase = s->phase;
    s->warps |= 1u << self->warp;
    s->arrived += 32;
    if (s->arrived < s->threads) return;
    s->arrived = 0;
    s->warps = 0;
    s->phase++;
    race_phase_end(s);
    async_wake(b, s);
}

void named_barrier(int id, int threads, bool wait, place at) {
    block *b = running;
    const char *operation = arrival_name(wait);
    if (id < 1 || id >= NAMED_BARRIERS)
        fail(at, "%s: barrier %d; a kernel may use 1 to %d", operation, id, NAMED_BARRIERS - 1);
    if (threads < 32 || threads % 32 || threads > b->threads)
        fail(at, "%s: %d threads; it must be a multiple of 32 up to the block's %d", operation, threads,
             b->threads);
    arrival a = {id, threads, wait, 0, at};
    named_barrier_state *s = &async_of(b)->named[id];
    race_arrive(s);
    warp_aligned(operation, arrival_run, &a, at);
    if (!wait) return;
    while (s->phase == a.phase) async_wait(b, s, operation, at);
    race_wait(s);
}

/* ---- fence.proxy.async ---- */

void fence_proxy_async(place) { race_proxy_fence(); }

/* ---- setmaxnreg ---- */

static const int SM_REGISTERS = 65536, LEAST_REGISTERS = 24;

struct budget {
    int registers;
    bool increase;
    place at;
};

static void budget_run(void **arguments, uint32_t) {
    block *b = running;
    const budget *wanted = static_cast<const budget *>(arguments[self->lane]);
    const char *operation = wanted->increase ? "set_max_registers_inc" : "set_max_registers_dec";
    if (b->threads % 128)
        fail(wanted->at, "%s: a block of %d threads is not made of whole warpgroups", operation, b->threads);
    async_state *s = async_of(b);
    s->warpgroups[self->warp / 4].registers = wanted->registers;
    int total = 0;
    for (int g = 0; g < b->threads / 128; g++) {
        const int registers = s->warpgroups[g].registers;
        total += 128 * (registers ? registers : LEAST_REGISTERS);
    }
    if (total > SM_REGISTERS)
        fail(wanted->at, "%s: the warpgroups ask for at least %d registers; a block has %d", operation, total,
             SM_REGISTERS);
}

void set_max_registers(int registers, bool increase, place at) {
    budget wanted = {registers, increase, at};
    warp_aligned(increase ? "set_max_registers_inc" : "set_max_registers_dec", budget_run, &wanted, at);
}

} // namespace simt
