/* async - when do copies and products that run beside the threads happen? At the wait
 * (lazy), at the issue (eager), or whenever a thread stops (random): every choice a GPU
 * could make, and the worst ones. */
/* SPDX-License-Identifier: MIT */
#include "kernels/simt/instructions/async.h"

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace simt {

/* ---- life ---- */

static void thread_reset(thread_async *t) {
    t->copies.reset();
    t->stores.reset();
    t->products.reset();
    t->issued = 0;
    t->fenced = false;
}

static void async_reset(block *b, async_state *s) {
    for (int i = 0; i < b->threads; i++) thread_reset(&s->threads[i]);
    for (warpgroup &g : s->warpgroups) {
        s->spare.insert(s->spare.end(), g.queue.begin(), g.queue.end());
        g.queue.clear();
        g.done = 0;
        g.registers = 0;
    }
    s->loads.clear();
    s->queues.clear();
    s->inits.clear();
    for (named_barrier_state &named : s->named) named = {};
    s->buffer = nullptr;
    s->random = b->random ^ 0x9e3779b97f4a7c15ull;
    if (s->random == 0) s->random = 1;
}

static bool async_idle(block *b) {
    if (b->alive) return tile_load_some(b);
    if (b->async->loads.empty()) return false;
    const tile_copy &load = b->async->loads[0];
    error_line line = {};
    error_append(&line,
                 "%s:%d: tma_load_2d: the block ends before its tile has come; wait for its mbarrier (",
                 load.at.file, load.at.line);
    error_append_where(&line, b, &b->fibers[load.thread]);
    error_append(&line, ")");
    error_keep(b, &line);
    return false;
}

/* Sometimes, some operation of some thread. */
static void async_progress(block *b) {
    async_state *s = b->async;
    if (async_random(s, 8)) return;
    const int thread = (int)async_random(s, (size_t)b->threads);
    switch (async_random(s, 4)) {
    case 0: tile_load_some(b); break;
    case 1: small_copy_some(b, thread); break;
    case 2: tile_store_some(b, thread); break;
    default: product_some(b, thread / 128);
    }
}

async_state *async_of(block *b) {
    if (b->on_idle) return b->async;
    if (!b->async) b->async = new async_state{};
    async_reset(b, b->async);
    b->on_idle = async_idle;
    if (b->of->options.async == SIMT_RANDOM_ASYNC) b->on_switch = async_progress;
    return b->async;
}

void async_thread_exit(block *b) {
    thread_async *t = async_thread(b);
    if (t->copies.pending())
        fail(t->copies.operations[t->copies.done].at, "the thread exits without waiting for its cp_async_16");
    if (t->stores.pending())
        fail(t->stores.operations[t->stores.done].at,
             "the thread exits without waiting for its tma_store_2d");
    if (t->products.pending())
        fail(t->products.operations[t->products.done].at, "the thread exits without waiting for its wgmma");
}

/* ---- chance ---- */

uint64_t async_random(async_state *s, size_t below) {
    uint64_t x = s->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    s->random = x;
    return (x >> 20) % below;
}

bool async_coin(block *b) {
    const simt_async mode = b->of->options.async;
    return mode == SIMT_EAGER || (mode == SIMT_RANDOM_ASYNC && async_random(b->async, 2));
}

/* ---- waiting ---- */

void async_wait(block *b, const void *on, const char *operation, place at) {
    async_state *s = async_of(b);
    fiber *f = self_fiber();
    size_t i = 0;
    while (i < s->queues.size() && s->queues[i].on != on) i++;
    if (i == s->queues.size()) s->queues.push_back({on, {}});
    s->queues[i].lanes[f->warp] |= 1u << f->lane;
    wait_here(b, f, operation, at);
}

void async_wake(block *b, const void *on) {
    async_state *s = b->async;
    for (size_t i = 0; i < s->queues.size(); i++) {
        if (s->queues[i].on != on) continue;
        for (int w = 0; w < MAX_WARPS; w++) make_ready(b, w, s->queues[i].lanes[w]);
        s->queues[i] = s->queues.back();
        s->queues.pop_back();
        b->spins = 0;
        return;
    }
}

void async_append_waits(error_line *line, const block *b) {
    const async_state *s = b->async;
    for (const wait_queue &queue : s->queues) mbarrier_append(line, b, queue.on);
    for (int id = 1; id < NAMED_BARRIERS; id++)
        if (s->named[id].arrived)
            error_append(line, "; named barrier %d has %d of %d threads", id, s->named[id].arrived,
                         s->named[id].threads);
    product_append(line, b);
}

/* ---- addresses ---- */

void check_aligned(const void *p, size_t alignment, const char *operation, const char *what, place at) {
    if ((uintptr_t)p % alignment)
        fail(at, "%s: %s %p is not a multiple of %zu bytes", operation, what, p, alignment);
}

void check_shared(const void *p, size_t bytes, const char *operation, const char *what, place at) {
    const block *b = running;
    const ptrdiff_t offset = static_cast<const unsigned char *>(p) - b->shared;
    if (offset < 0 || (size_t)offset > b->shared_bytes || bytes > b->shared_bytes - (size_t)offset)
        fail(at, "%s: %s of %zu bytes is outside dynamic shared memory: offset %td of %zu bytes", operation,
             what, bytes, offset, b->shared_bytes);
#ifdef SIMT_ASAN
    if (__asan_region_is_poisoned(const_cast<void *>(p), bytes))
        fail(at, "%s: %s of %zu bytes at shared offset %td runs past its array", operation, what, bytes,
             offset);
#endif
}

static bool buffer_covers(const host_buffer *buffer, const unsigned char *p, size_t bytes) {
    const unsigned char *low = buffer->data - buffer->guard;
    const size_t room = buffer->bytes + 2 * buffer->guard;
    return p >= low && (size_t)(p - low) <= room && bytes <= room - (size_t)(p - low);
}

/* Guards may be read and written as they may by a thread: they hold NaN, and show damage. */
void check_global(const void *p, size_t bytes, const char *operation, const char *what, place at) {
    async_state *s = async_of(running);
    const unsigned char *address = static_cast<const unsigned char *>(p);
    if (s->buffer && buffer_covers(s->buffer, address, bytes)) return;
    const host_buffer *nearest = buffer_nearest(p);
    if (!nearest) fail(at, "%s: %s %p is in no buffer", operation, what, p);
    if (!buffer_covers(nearest, address, bytes))
        fail(at,
             "%s: %s of %zu bytes is outside every buffer; nearest is %s: offset %td of %zu bytes, guard %zu",
             operation, what, bytes, nearest->name, address - nearest->data, nearest->bytes, nearest->guard);
    s->buffer = nearest;
}

} // namespace simt
