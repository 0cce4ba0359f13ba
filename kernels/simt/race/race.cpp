/* race - the detector itself: finds the words of an access, and compares it with
 * those who came before. */
/* SPDX-License-Identifier: MIT */
#ifdef SIMT_RACE
#include "kernels/simt/race/race.h"

#include <algorithm>
#include <link.h>
#include <stdlib.h>
#include <vector>

#include "kernels/simt/race/race_shadow.h"

namespace simt {

static const size_t PAGE = 1024;
static const size_t MOST_SHADOW = 512u << 20; /* what launches leave is dropped beyond */

/* Nobody has written this word - yet: a write that comes without a barrier says more about it, for
 * it finds the reader. So the first such read waits for the next barrier. */
static struct {
    bool any;
    race_action read;
    uint32_t stale_at; /* 0: never written in this block */
} unwritten;

/* ---- regions ---- */

static race_region dynamic_region, static_region; /* shared memory of the running block */
static std::vector<race_region> buffers;          /* sorted by address */
static size_t last_buffer, shadow_bytes;

static race_page *pages_new(size_t count) {
    race_page *pages = static_cast<race_page *>(calloc(count, sizeof(race_page)));
    if (!pages) abort();
    return pages;
}

static race_region region_new(const void *low, size_t bytes) {
    const uintptr_t base = (uintptr_t)low / PAGE * PAGE, high = (uintptr_t)low + bytes;
    const size_t count = (high - base + PAGE - 1) / PAGE;
    return {(uintptr_t)low, high, pages_new(count), base, count, nullptr, false};
}

static void region_drop(race_region *r) {
    for (size_t i = 0; i < r->page_count; i++) {
        if (!r->pages[i].cells) continue;
        shadow_bytes -= (PAGE >> r->pages[i].shift) * sizeof(race_cell);
        free(r->pages[i].cells);
        r->pages[i] = {};
    }
}

static bool buffer_before(const race_region &r, uintptr_t address) { return r.high <= address; }

void race_buffer_new(const host_buffer *buffer) {
    race_region r = region_new(buffer->map, buffer->map_bytes);
    r.buffer = buffer;
    buffers.insert(std::lower_bound(buffers.begin(), buffers.end(), r.low, buffer_before), r);
}

void race_buffer_free(const host_buffer *buffer) {
    const auto r = std::lower_bound(buffers.begin(), buffers.end(), (uintptr_t)buffer->map, buffer_before);
    if (r == buffers.end() || r->buffer != buffer) return;
    region_drop(&*r);
    free(r->pages);
    buffers.erase(r);
    last_buffer = 0;
}

/* Static shared arrays are thread-local variables of the program. */
static int find_thread_locals(dl_phdr_info *info, size_t, void *) {
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_TLS || !info->dlpi_tls_data) continue;
        static_region = region_new(info->dlpi_tls_data, info->dlpi_phdr[i].p_memsz);
        static_region.is_static = true;
    }
    return 1; /* the first is the program itself */
}

static void region_close(race_region *r) {
    region_drop(r);
    free(r->pages);
    *r = {};
}

void race_grid_begin() {
    const bool restart = race_clock_grid_begin();
    if (!restart && shadow_bytes < MOST_SHADOW) return;
    for (race_region &r : buffers) region_drop(&r);
    region_drop(&dynamic_region);
    region_drop(&static_region);
}

void race_block_begin(const block *b, size_t index) {
    race_clock_block_begin(b, index);
    unwritten.any = false;
    const uintptr_t map = (uintptr_t)b->shared_map;
    if (dynamic_region.base != map) {
        region_close(&dynamic_region);
        dynamic_region = region_new(b->shared_map, shared_map_bytes());
        region_close(&static_region); /* another OS thread, other thread-local variables */
        dl_iterate_phdr(find_thread_locals, nullptr);
    }
    dynamic_region.low = (uintptr_t)b->shared;
    dynamic_region.high = dynamic_region.low + b->shared_bytes;
}

static inline bool lies_in(const race_region &r, uintptr_t a) { return a - r.low < r.high - r.low; }

static __attribute__((noinline)) const race_region *buffer_find(uintptr_t a) {
    const auto r = std::lower_bound(buffers.begin(), buffers.end(), a + 1, buffer_before);
    if (r == buffers.end() || !lies_in(*r, a)) return nullptr;
    last_buffer = (size_t)(r - buffers.begin());
    return &*r;
}

/* So far above the running frame lie the thread's variables, or shared memory; buffers begin with
 * more closed pages than that. */
static const size_t STACK_BYTES = 65536;

static inline const race_region *region_find(uintptr_t a) {
    if (lies_in(dynamic_region, a)) return &dynamic_region;
    if (last_buffer < buffers.size() && lies_in(buffers[last_buffer], a)) return &buffers[last_buffer];
    if (lies_in(static_region, a)) return a == (uintptr_t)&self ? nullptr : &static_region;
    if (a - (uintptr_t)__builtin_frame_address(0) < STACK_BYTES) return nullptr;
    return buffer_find(a);
}

/* ---- pages ---- */

static race_cell *cells_new(uint32_t shift) {
    race_cell *cells = static_cast<race_cell *>(calloc(PAGE >> shift, sizeof(race_cell)));
    if (!cells) abort();
    shadow_bytes += (PAGE >> shift) * sizeof(race_cell);
    return cells;
}

static __attribute__((noinline)) void page_refine(race_page *p, uint32_t shift) {
    race_cell *finer = cells_new(shift);
    if (p->cells) {
        for (size_t i = 0; i < PAGE >> shift; i++) finer[i] = p->cells[i << shift >> p->shift];
        shadow_bytes -= (PAGE >> p->shift) * sizeof(race_cell);
        free(p->cells);
    }
    *p = {finer, shift};
}

/* Call visit(cell, address) for every word of [a, a + bytes), which lies in r. */
template <class F> static inline void each_word(const race_region *r, uintptr_t a, size_t bytes, F visit) {
    for (const uintptr_t end = std::min(a + bytes, r->high); a < end;) {
        const size_t offset = (a - r->base) % PAGE, span = std::min((size_t)(end - a), PAGE - offset);
        race_page *p = &r->pages[(a - r->base) / PAGE];
        const uint32_t shift = (uint32_t)__builtin_ctzll(offset | span | 4);
        if (!p->cells || shift < p->shift) page_refine(p, shift);
        for (size_t i = offset >> p->shift, last = (offset + span) >> p->shift; i < last; i++)
            visit(&p->cells[i], r->base + (a - r->base) / PAGE * PAGE + (i << p->shift));
        a += span;
    }
}

/* ---- one word ---- */

static inline bool is_live(const race_action &x, uint32_t stamp) {
    return stamp > (x.region->buffer ? race_clock.grid_first : race_clock.block_first);
}

static inline bool is_over(const race_action &x, uint16_t by, uint32_t stamp) {
    return race_over(x.thread, by, stamp);
}

static const char *writer_did(const race_cell *c) {
    return c->flags & RACE_ASYNC          ? "asynchronous copy"
           : c->flags & RACE_ATOMIC_WRITE ? "atomic"
           : c->flags & RACE_STALE        ? "shared_stale"
                                          : "write";
}

static inline void check_writer(const race_action &x, const race_cell *c) {
    if (c->flags & RACE_PENDING) race_report_pending(x, c);
    if (is_over(x, c->writer, c->write)) return;
    if (x.kind == RACE_ATOMIC && c->flags & RACE_ATOMIC_WRITE) return;
    race_report_conflict(x, writer_did(c), c->writer, c->write, c->write_at);
}

static void report_unwritten(block *b) {
    if (unwritten.any && !b->failed) race_report_uninitialised(b, unwritten.read, unwritten.stale_at);
}

static inline void check_initialised(const race_action &x, const race_cell *c) {
    if (x.region->buffer || unwritten.any) return;
    const bool live = is_live(x, c->write);
    if (live && !(c->flags & RACE_STALE)) return;
    unwritten = {true, x, live ? c->write_at : 0};
}

void race_barrier() {
    report_unwritten(running);
    race_clock_barrier();
}

void race_block_end(block *b) { report_unwritten(b); }

static inline void check_readers(const race_action &x, const race_cell *c) {
    for (int k = 0; k < 2; k++) {
        if (!is_live(x, c->read[k]) || is_over(x, c->reader[k], c->read[k])) continue;
        race_report_conflict(x, c->reader[k] >= MAX_THREADS ? "asynchronous read" : "read", c->reader[k],
                             c->read[k], c->read_at[k]);
    }
}

static inline void keep_reader(race_cell *c, int k, uint16_t by, uint32_t stamp, uint32_t at) {
    c->reader[k] = by;
    c->read[k] = stamp;
    c->read_at[k] = at;
}

static inline void keep_writer(race_cell *c, uint16_t by, uint32_t stamp, uint32_t at, int flags) {
    c->writer = by;
    c->write = stamp;
    c->write_at = at;
    c->flags = (uint16_t)flags;
    c->read[0] = c->read[1] = 0;
}

/* The first reader is nobody, or over for this one. */
static inline bool takes_first(const race_action &x, const race_cell *c) {
    return !is_live(x, c->read[0]) || is_over(x, c->reader[0], c->read[0]);
}

static inline void word_read(const race_action &x, race_cell *c) {
    for (int k = 0; k < 2; k++)
        if (c->reader[k] == x.thread && c->read[k] == x.stamp) return; /* no write since */
    if (is_live(x, c->write)) check_writer(x, c);
    check_initialised(x, c);
    keep_reader(c, !takes_first(x, c), x.thread, x.stamp, x.at);
}

static inline void check_write(const race_action &x, const race_cell *c) {
    if (is_live(x, c->write)) check_writer(x, c);
    check_readers(x, c);
}

static inline void word_write(const race_action &x, race_cell *c, int flags) {
    const bool same = c->writer == x.thread && c->write == x.stamp && c->flags == flags;
    if (same && !c->read[0] && !c->read[1]) return;
    check_write(x, c);
    keep_writer(c, x.thread, x.stamp, x.at, flags);
}

/* ---- hooks ---- */

static inline race_action action_of(const race_region *r, race_kind kind, uint32_t at, const char *does) {
    const uint16_t t = self->linear;
    return {r, 0, at, race_clock.thread[t], t, kind, does};
}

void race_touch(const void *p, size_t bytes, race_kind kind, uint32_t at) {
    const uintptr_t a = (uintptr_t)p;
    const race_region *r = region_find(a);
    if (!r) return;
    static const char *const names[] = {"read", "write", "atomic"}; /* by race_kind */
    race_action x = action_of(r, kind, at, names[kind]);
    if (kind == RACE_READ)
        each_word(r, a, bytes, [&x](race_cell *c, uintptr_t word) {
            x.address = word;
            word_read(x, c);
        });
    else
        each_word(r, a, bytes, [&x](race_cell *c, uintptr_t word) {
            x.address = word;
            if (x.kind == RACE_ATOMIC) check_initialised(x, c);
            word_write(x, c, x.kind == RACE_ATOMIC ? RACE_ATOMIC_WRITE : 0);
        });
}

void race_access(const void *p, size_t bytes, race_kind kind, place at) {
    race_touch(p, bytes, kind, race_place(at));
}

void race_stale(const void *p, size_t bytes, place at) {
    const race_region *r = region_find((uintptr_t)p);
    if (!r) return;
    race_action x = action_of(r, RACE_WRITE, race_place(at), "shared_stale");
    each_word(r, (uintptr_t)p, bytes, [&x](race_cell *c, uintptr_t word) {
        x.address = word;
        word_write(x, c, RACE_STALE);
    });
}

void race_async_write_begin(const void *p, size_t bytes, const void *key, place at) {
    const race_region *r = region_find((uintptr_t)p);
    if (!r) return;
    race_action x = action_of(r, RACE_WRITE, race_place(at), "asynchronous copy");
    if (key)
        if (race_unit *u = race_unit_of(key)) u->issuer = x.thread;
    each_word(r, (uintptr_t)p, bytes, [&x, key](race_cell *c, uintptr_t word) {
        x.address = word;
        const bool sees_all = !is_live(x, c->write) || c->flags & (RACE_ASYNC | RACE_STALE);
        check_write(x, c);
        if (key && !sees_all && !race_fenced(x.thread, c->writer, c->write)) race_report_proxy(x, c);
        keep_writer(c, x.thread, x.stamp, x.at, RACE_PENDING | (key ? RACE_ASYNC : 0));
    });
}

void race_async_write_end(const void *p, size_t bytes, const void *key) {
    const race_region *r = region_find((uintptr_t)p);
    if (!r) return;
    race_unit *u = key ? race_unit_of(key) : nullptr;
    const uint16_t by = u ? race_unit_clock(u) : self->linear;
    const uint32_t stamp = u ? ++race_clock.now : race_clock.thread[by];
    if (u) u->come->seen[by] = stamp;
    each_word(r, (uintptr_t)p, bytes, [=](race_cell *c, uintptr_t) {
        if (!(c->flags & RACE_PENDING)) return;
        c->writer = by;
        c->write = stamp;
        c->flags &= (uint16_t)~RACE_PENDING;
    });
}

void race_async_read(const void *p, size_t bytes, const void *key, place at) {
    const race_region *r = region_find((uintptr_t)p);
    race_unit *u = r ? race_unit_of(key) : nullptr;
    if (!u) return;
    race_action x = action_of(r, RACE_READ, race_place(at), "asynchronous read");
    u->issuer = x.thread;
    const uint16_t by = race_unit_clock(u);
    const uint32_t stamp = race_unit_stamp(u);
    each_word(r, (uintptr_t)p, bytes, [&x, by, stamp](race_cell *c, uintptr_t word) {
        x.address = word;
        if (is_live(x, c->write)) check_writer(x, c);
        check_initialised(x, c);
        if (!(c->flags & RACE_ASYNC) && !race_fenced(x.thread, c->writer, c->write)) race_report_proxy(x, c);
        keep_reader(c, c->reader[0] != by && !takes_first(x, c), by, stamp, x.at);
    });
}

} // namespace simt
#endif
