/* mbarrier - a phase ends when its threads have arrived and its bytes have come. The
 * state is in the 8 bytes of shared memory themselves, as on a GPU: who overwrites
 * them has lost the barrier. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "kernels/simt/instructions/async.h"
#include "kernels/simt/instructions/mbarrier.h"
#include "kernels/simt/race/race.h"

namespace simt {

static const unsigned MAGIC = 0x2ba77;
static const int MAX_COUNT = 2047;
static const int MAX_BYTES = (1 << 20) - 1;

struct state {
    uint64_t count : 11, missing : 11; /* arrivals a phase, and those still missing */
    uint64_t phase : 1, fenced : 1;    /* parity of the current phase; fenced: TMA may see it */
    uint64_t magic : 18;
    int64_t bytes : 22; /* expected and not yet come; negative: come before they were expected */
};
static_assert(sizeof(state) == sizeof(uint64_t), "an mbarrier has 8 bytes");

static state *state_of(mbarrier *bar, const char *operation, place at) {
    check_aligned(bar, sizeof(state), operation, "mbarrier", at);
    check_shared(bar, sizeof(state), operation, "mbarrier", at);
    state *s = reinterpret_cast<state *>(bar);
    if (s->magic != MAGIC)
        fail(at, "%s: the mbarrier at shared offset %td is not initialised, or was overwritten", operation,
             reinterpret_cast<unsigned char *>(bar) - running->shared);
    return s;
}

static void end_phase_if_over(block *b, state *s) {
    if (s->missing || s->bytes) return;
    s->phase ^= 1;
    s->missing = s->count;
    race_phase_end(s);
    async_wake(b, s);
}

void mbarrier_init(mbarrier *bar, int count, place at) {
    static const char operation[] = "mbarrier_init";
    async_state *a = async_of(running);
    check_aligned(bar, sizeof(state), operation, "mbarrier", at);
    check_shared(bar, sizeof(state), operation, "mbarrier", at);
    if (count < 1 || count > MAX_COUNT)
        fail(at, "%s: count is %d; it may be 1 to %d", operation, count, MAX_COUNT);
    for (const wait_queue &queue : a->queues)
        if (queue.on == bar) fail(at, "%s: threads wait for this mbarrier", operation);
    state s = {};
    s.count = s.missing = (unsigned)count & 0x7ff;
    s.magic = MAGIC;
    memcpy(bar, &s, sizeof s);
    a->inits.push_back({bar, self->linear});
    race_access(bar, sizeof(state), RACE_WRITE, at);
    race_forget(bar);
}

void mbarrier_init_fence(place) {
    async_state *a = async_of(running);
    size_t kept = 0;
    for (const async_state::unfenced &init : a->inits)
        if (init.thread != self->linear)
            a->inits[kept++] = init;
        else
            reinterpret_cast<state *>(init.bar)->fenced = 1;
    a->inits.resize(kept);
}

void mbarrier_arrive(mbarrier *bar, uint32_t bytes, const char *operation, place at) {
    state *s = state_of(bar, operation, at);
    if (!s->missing)
        fail(at, "%s: all %d arrivals of this phase were there already; it still lacks %d bytes", operation,
             (int)s->count, (int)s->bytes);
    if (bytes > (uint32_t)MAX_BYTES || s->bytes + (int)bytes > MAX_BYTES)
        fail(at, "%s: a phase cannot expect more than %d bytes", operation, MAX_BYTES);
    race_access(bar, sizeof(state), RACE_ATOMIC, at);
    race_arrive(bar);
    s->bytes = s->bytes + (int)bytes;
    s->missing = s->missing - 1;
    end_phase_if_over(running, s);
}

void mbarrier_wait(mbarrier *bar, uint32_t parity, place at) {
    static const char *const names[] = {"mbarrier_wait for parity 0", "mbarrier_wait for parity 1"};
    if (parity > 1) fail(at, "mbarrier_wait: parity is %u; it is 0 or 1", parity);
    race_access(bar, sizeof(state), RACE_ATOMIC, at);
    while (state_of(bar, "mbarrier_wait", at)->phase == parity) async_wait(running, bar, names[parity], at);
    race_wait(bar);
}

void mbarrier_check_tma(mbarrier *bar, const char *operation, place at) {
    if (!state_of(bar, operation, at)->fenced)
        fail(at, "%s: the mbarrier was initialised without mbarrier_init_fence: TMA may not see it",
             operation);
}

void mbarrier_complete(block *b, mbarrier *bar, size_t bytes, const tile_copy &copy) {
    state *s = reinterpret_cast<state *>(bar);
    if (s->magic != MAGIC || s->bytes - (int64_t)bytes < -MAX_BYTES) {
        error_line line = {};
        error_append(&line, "%s:%d: tma_load_2d: its mbarrier was overwritten before the tile came (",
                     copy.at.file, copy.at.line);
        error_append_where(&line, b, &b->fibers[copy.thread]);
        error_append(&line, ")");
        error_keep(b, &line);
        return;
    }
    s->bytes = s->bytes - (int64_t)bytes;
    end_phase_if_over(b, s);
}

void mbarrier_append(error_line *line, const block *b, const void *bar) {
    const unsigned char *p = static_cast<const unsigned char *>(bar);
    if (p < b->shared || p >= b->shared + b->shared_bytes) return; /* waits for something else */
    state s;
    memcpy(&s, bar, sizeof s);
    error_append(
        line,
        "; the mbarrier at shared offset %td is in a phase of parity %d that lacks %d of %d arrivals "
        "and %d bytes",
        p - b->shared, (int)s.phase, (int)s.missing, (int)s.count, (int)s.bytes);
}

} // namespace simt
