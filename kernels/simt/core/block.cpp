/* block - runs one block: starts its fibers, chooses who goes next, and switches. */
/* SPDX-License-Identifier: MIT */
#include "kernels/simt/instructions/async.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/simt/race/race.h"

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

__thread thread *self;
__thread block *running;

/* A block in which every thread only yields, this often, waits for something that cannot come. */
static const uint64_t SPIN_LIMIT = 1000000;

/* ---- switching ---- */

/* NULL stands for the scheduler. `leaving`: the fiber will not run again. */
static inline __attribute__((always_inline)) void switch_fiber(block *b, fiber *from, fiber *to,
                                                               bool leaving) {
#ifdef SIMT_ASAN
    fiber_cold *cold = b->cold;
    void **frames = from ? &cold[from->linear].asan_frames : &b->scheduler_frames;
    __sanitizer_start_switch_fiber(leaving ? nullptr : frames,
                                   to ? cold[to->linear].stack.low : b->scheduler_low,
                                   to ? cold[to->linear].stack.bytes : b->scheduler_bytes);
#else
    (void)leaving;
#endif
    self = to;
    simt_fiber_switch(from ? &from->context : &b->scheduler_context, to ? to->context : b->scheduler_context);
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(*frames, nullptr, nullptr);
#endif
}

/* ---- choosing ---- */

static inline uint64_t random_next(block *b) {
    uint64_t x = b->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return b->random = x;
}

static inline int lowest(uint32_t set) { return __builtin_ctz(set); }
static inline int highest(uint32_t set) { return 31 - __builtin_clz(set); }
static int any_of(block *b, uint32_t set) {
    for (int skip = (int)(random_next(b) % (unsigned)__builtin_popcount(set)); skip; skip--) set &= set - 1;
    return lowest(set);
}

static inline fiber *take_ready(block *b) {
    const bool stay = b->ready[b->current_warp] != 0;
    int w = b->current_warp, lane;
    switch (b->of->options.order) {
    case SIMT_DESCENDING:
        if (!stay) w = highest(b->ready_warps);
        lane = highest(b->ready[w]);
        break;
    case SIMT_RANDOM_LANES:
        w = any_of(b, b->ready_warps);
        lane = any_of(b, b->ready[w]);
        break;
    case SIMT_RANDOM_WARPS: /* warps mostly run on for a while, as on a GPU */
        if (!stay || random_next(b) % 16 == 0) w = any_of(b, b->ready_warps);
        lane = lowest(b->ready[w]);
        break;
    default:
        if (!stay) w = lowest(b->ready_warps);
        lane = lowest(b->ready[w]);
    }
    b->current_warp = w;
    b->ready[w] &= ~(1u << lane);
    if (!b->ready[w]) b->ready_warps &= ~(1u << w);
    return &b->fibers[w * 32 + lane];
}

/* Nobody can run: let asynchronous work finish, then let those who yielded look again. */
static __attribute__((noinline)) bool refill_ready(block *b) {
    if (b->on_idle && b->on_idle(b)) {
        b->spins = 0;
        return true;
    }
    bool any = false;
    for (int w = 0; w < MAX_WARPS; w++) {
        make_ready(b, w, b->yielded[w]);
        b->spins += (uint64_t)__builtin_popcount(b->yielded[w]);
        any |= b->yielded[w] != 0;
        b->yielded[w] = 0;
    }
    if (any && b->spins <= SPIN_LIMIT) return true;
    if (any)
        error_keep_stuck(b, "threads spin for ever");
    else if (b->alive)
        error_keep_stuck(b, "no thread can go on");
    return false;
}

/* NULL: the block is over, or failed. */
static inline fiber *pick(block *b) {
    if (__builtin_expect(b->on_switch != nullptr, 0)) b->on_switch(b);
    while (!b->ready_warps)
        if (!refill_ready(b)) return nullptr;
    return take_ready(b);
}

void wait_here(block *b, fiber *f, const char *operation, place at) {
    f->state = THREAD_WAITING;
    f->waits_in = operation;
    f->at = at;
    fiber *next = pick(b);
    if (next != f) switch_fiber(b, f, next, next == nullptr);
    f->state = THREAD_READY;
}

void yield(place at) {
    block *b = running;
    fiber *f = self_fiber();
    f->state = THREAD_YIELDED;
    f->waits_in = "__nanosleep";
    f->at = at;
    b->yielded[f->warp] |= 1u << f->lane;
    fiber *next = pick(b);
    if (next != f) switch_fiber(b, f, next, next == nullptr);
    f->state = THREAD_READY;
}

void abandon(block *b) {
    b->failed = true;
    switch_fiber(b, self_fiber(), nullptr, true);
    abort(); /* not reached: nobody switches back */
}

/* ---- running ---- */

#ifdef SIMT_ASAN
/* The first fiber of a block comes from the scheduler's stack. Apart from fiber_main: that one never
 * returns, and so must have nothing on its stack that AddressSanitizer fences in and frees at the end. */
static __attribute__((noinline)) void fiber_arrives(block *b) {
    const void *low;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &low, &bytes);
    if (b->scheduler_low) return;
    b->scheduler_low = low;
    b->scheduler_bytes = bytes;
}
#endif

static void fiber_main() {
    block *b = running;
#ifdef SIMT_ASAN
    fiber_arrives(b);
#endif
    b->of->thread_body(b->of->argument);
    if (b->on_idle) async_thread_exit(b);
    fiber *f = self_fiber();
    f->state = THREAD_EXITED;
    b->alive--;
    b->spins = 0;
    switch_fiber(b, f, pick(b), true);
    abort(); /* not reached */
}

block *block_new() {
    block *b = static_cast<block *>(calloc(1, sizeof(block)));
    if (!b) return nullptr;
    b->fibers = static_cast<fiber *>(aligned_alloc(64, sizeof(fiber) * MAX_THREADS));
    b->cold = static_cast<fiber_cold *>(calloc(MAX_THREADS, sizeof(fiber_cold)));
    b->scheduler_context = fiber_adopt();
    if (b->fibers && b->cold && shared_map_new(b)) return b;
    free(b->fibers);
    free(b->cold);
    free(b);
    return nullptr;
}

/* Stack tops at equal page offsets would compete for the same few L1 sets: give them
 * different colours. */
static size_t stack_colour(int linear) { return (size_t)linear * 448 % 4096; }

static bool start_fiber(block *b, int linear) {
    fiber *f = &b->fibers[linear];
    fiber_cold *cold = &b->cold[linear];
    if (!cold->stack.low && !fiber_stack_new(&cold->stack)) return false;
    const unsigned i = (unsigned)linear;
    const dim3 n = b->view.threads;
    f->index = {i % n.x, i / n.x % n.y, i / (n.x * n.y)};
    f->linear = (uint16_t)linear;
    f->warp = (uint8_t)(linear / 32);
    f->lane = (uint8_t)(linear % 32);
    f->block = &b->view;
    f->waits_in = nullptr;
    f->state = THREAD_READY;
    f->context = fiber_prepare(cold->stack.low, cold->stack.bytes - stack_colour(linear), fiber_main);
    cold->asan_frames = nullptr;
    make_ready(b, linear / 32, 1u << linear % 32);
    return true;
}

static uint64_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

static void block_reset(block *b, grid *of, size_t index) {
    const dim3 n = of->config->grid;
    const size_t plane = (size_t)n.x * n.y;
    b->view.index = {(unsigned)(index % n.x), (unsigned)(index / n.x % n.y), (unsigned)(index / plane)};
    b->view.threads = of->config->block;
    b->view.blocks = n;
    b->of = of;
    b->threads = b->alive = (int)(b->view.threads.x * b->view.threads.y * b->view.threads.z);
    b->current_warp = of->options.order == SIMT_DESCENDING ? (b->threads - 1) / 32 : 0;
    b->failed = false;
    b->ready_warps = 0;
    memset(b->ready, 0, sizeof b->ready);
    memset(b->yielded, 0, sizeof b->yielded);
    b->spins = 0;
    b->random = mix(mix(of->options.seed) + index) | 1; /* whichever OS thread runs it */
    b->on_idle = nullptr;
    b->on_switch = nullptr;
    memset(&b->whole, 0, sizeof b->whole);
    for (warp &w : b->warps) w.groups = 0;
    b->scheduler_low = nullptr;
}

void block_run(block *b, grid *of, size_t index) {
    block_reset(b, of, index);
    shared_prepare(b, of->config->shared_bytes);
    for (int i = 0; i < b->threads; i++)
        if (!start_fiber(b, i)) {
            const error_line line = {"no memory for the stacks of the block's threads; use fewer threads", 0};
            error_keep(b, &line);
            return;
        }
    race_block_begin(b, index);
    running = b;
    switch_fiber(b, nullptr, take_ready(b), false);
    race_block_end(b);
    running = nullptr;
#ifdef SIMT_ASAN
    if (b->failed) /* abandoned frames left their poison */
        for (int i = 0; i < b->threads; i++)
            __asan_unpoison_memory_region(b->cold[i].stack.low, b->cold[i].stack.bytes);
#endif
}

} // namespace simt
