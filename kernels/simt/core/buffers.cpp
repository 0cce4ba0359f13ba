/* buffers - buffers (buffers.h) and the dynamic shared memory of a block, which ends at
 * a guard in the same way. */
/* SPDX-License-Identifier: MIT */
#include "kernels/simt/core/buffers.h"

#include <mutex>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/simt/core/block.h"
#include "kernels/simt/race/race.h"
#include "layer/copy.h"

#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace simt {

static const size_t ALIGNMENT = 256;          /* as cudaMalloc */
static const size_t FAULT_ZONE = 4096 * 1024; /* address space only */
static const size_t HUGE_FROM = 8192 * 1024;  /* large pages from here on: fewer faults */
static const unsigned char POISON = 0xff;     /* of shared memory: NaN in every float format */

static std::mutex list_lock;
static host_buffer *first;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
static unsigned char *align_down(unsigned char *p, size_t to) { return p - (uintptr_t)p % to; }

/* Where data lies when the buffer ends at the end of the reservation; NULL when the
 * sizes cannot be. */
static unsigned char *place_data(const host_buffer *buffer, size_t bytes, size_t guard) {
    const size_t room = (size_t)(buffer->end - buffer->map) - FAULT_ZONE;
    if (guard > room || bytes > room || bytes + guard > room) return nullptr;
    unsigned char *data = align_down(buffer->end - guard - bytes, ALIGNMENT);
    return (size_t)(data - buffer->map) < FAULT_ZONE + guard ? nullptr : data;
}

bool buffer_resize(host_buffer *buffer, const char *name, size_t bytes, size_t guard) {
    unsigned char *const data = place_data(buffer, bytes, guard);
    if (!data) return false;
    unsigned char *const open = align_down(data - guard, page_bytes());
    if (open < buffer->open && mprotect(open, (size_t)(buffer->open - open), PROT_READ | PROT_WRITE))
        return false;
    if (open > buffer->open) mprotect(buffer->open, (size_t)(open - buffer->open), PROT_NONE);
    buffer->open = open;
    buffer->data = data;
    buffer->bytes = bytes;
    buffer->guard = guard;
    snprintf(buffer->name, sizeof buffer->name, "%s", name);
    return true;
}

host_buffer *buffer_new(const char *name, size_t bytes, size_t guard) {
    if (guard > SIZE_MAX / 8 || bytes > SIZE_MAX / 8) return nullptr;
    size_t reserved = 65536;
    while (reserved < bytes + 2 * guard + 2 * ALIGNMENT) reserved *= 2;
    host_buffer *buffer = static_cast<host_buffer *>(calloc(1, sizeof *buffer));
    if (!buffer) return nullptr;
    buffer->map_bytes = reserved + 2 * FAULT_ZONE;
    void *map =
        mmap(nullptr, buffer->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        free(buffer);
        return nullptr;
    }
    buffer->map = static_cast<unsigned char *>(map);
    buffer->end = buffer->open = buffer->map + FAULT_ZONE + reserved;
    if (reserved >= HUGE_FROM) madvise(buffer->map + FAULT_ZONE, reserved, MADV_HUGEPAGE);
    if (!buffer_resize(buffer, name, bytes, guard)) {
        munmap(map, buffer->map_bytes);
        free(buffer);
        return nullptr;
    }
    const std::lock_guard<std::mutex> hold(list_lock);
    buffer->next = first;
    first = buffer;
    race_buffer_new(buffer);
    return buffer;
}

void buffer_free(host_buffer *buffer) {
    {
        const std::lock_guard<std::mutex> hold(list_lock);
        host_buffer **link = &first;
        while (*link && *link != buffer) link = &(*link)->next;
        if (*link) *link = buffer->next;
        race_buffer_free(buffer);
    }
    munmap(buffer->map, buffer->map_bytes);
    free(buffer);
}

void buffer_poison(host_buffer *buffer) {
    set_bytes(buffer->open, buffer->poison, (size_t)(buffer->end - buffer->open));
}

void buffer_poison_guards(host_buffer *buffer) {
    set_bytes(buffer->data - buffer->guard, buffer->poison, buffer->guard);
    set_bytes(buffer->data + buffer->bytes, buffer->poison, buffer->guard);
}

void buffer_seal(host_buffer *buffer, bool sealed) {
    unsigned char *const low = align_down(buffer->data + page_bytes() - 1, page_bytes()),
                         *const high = align_down(buffer->data + buffer->bytes, page_bytes());
    buffer->sealed = sealed;
    if (low < high) mprotect(low, (size_t)(high - low), sealed ? PROT_READ : PROT_READ | PROT_WRITE);
}

static size_t count_changed(const unsigned char *p, size_t bytes, unsigned char poison) {
    size_t changed = 0;
    if (all_bytes(p, poison, bytes)) return 0;
    for (size_t i = 0; i < bytes; i++) changed += p[i] != poison;
    return changed;
}

size_t buffer_guard_damage(const host_buffer *buffer) {
    return count_changed(buffer->data - buffer->guard, buffer->guard, buffer->poison) +
           count_changed(buffer->data + buffer->bytes, buffer->guard, buffer->poison);
}

const host_buffer *buffer_nearest(const void *address) {
    const uintptr_t p = (uintptr_t)address;
    const host_buffer *nearest = nullptr;
    uintptr_t least = UINTPTR_MAX;
    for (const host_buffer *buffer = first; buffer; buffer = buffer->next) {
        const uintptr_t low = (uintptr_t)buffer->data, high = low + buffer->bytes;
        const uintptr_t distance = p < low ? low - p : p < high ? 0 : p - high;
        if (distance >= least) continue;
        least = distance;
        nearest = buffer;
    }
    return nearest;
}

/* ---- dynamic shared memory ---- */

static const size_t SHARED_ALIGNMENT = 1024; /* what a swizzled tile needs */

static size_t shared_capacity() { return round_up(MAX_SHARED_BYTES, page_bytes()); }

/* Addresses on either side that are nobody's: a far overrun is shared memory's all the same, not
 * that of whatever buffer lies nearest. Reserved, never touched. */
static const size_t SHARED_GUARD = (size_t)16 << 20;

size_t shared_map_bytes() { return shared_capacity() + 2 * SHARED_GUARD; }

bool shared_map_new(block *b) {
    void *map = mmap(nullptr, shared_map_bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return false;
    b->shared_map = static_cast<unsigned char *>(map);
    b->shared_open = 0;
    return true;
}

void shared_prepare(block *b, size_t bytes) {
    const size_t page = page_bytes();
    unsigned char *const end = b->shared_map + SHARED_GUARD + shared_capacity();
    unsigned char *const shared = end - round_up(bytes, SHARED_ALIGNMENT);
    const size_t open = round_up((size_t)(end - shared), page);
    if (open > b->shared_open) mprotect(end - open, open - b->shared_open, PROT_READ | PROT_WRITE);
    if (open < b->shared_open) mprotect(end - b->shared_open, b->shared_open - open, PROT_NONE);
    b->shared_open = open;
    b->shared = shared;
    b->shared_bytes = bytes;
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(end - open, open);
#endif
    memset(end - open, POISON, open);
#ifdef SIMT_ASAN
    __asan_poison_memory_region(end - open, (size_t)(shared - (end - open)));
    __asan_poison_memory_region(shared + bytes, (size_t)(end - shared) - bytes);
#endif
}

unsigned char *dynamic_shared() { return running->shared; }

void shared_stale(void *p, size_t bytes, place at) {
    race_stale(p, bytes, at);
    memset(p, POISON, bytes);
}

#ifdef SIMT_ASAN
void shared_red_zone(void *p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
#endif

} // namespace simt
