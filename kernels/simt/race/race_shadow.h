/* race_shadow - for every word of shared and global memory: who wrote it last, who has read it
 * since? Words are of 4 bytes; a page in which a smaller access has been seen is refined to words
 * of 2 or 1, so that neighbours who own a byte each are no race. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_RACE_RACE_SHADOW_H
#define KERNELS_SIMT_RACE_RACE_SHADOW_H

#include "kernels/simt/core/buffers.h"
#include "kernels/simt/race/race_clock.h"

namespace simt {

enum race_flag : uint16_t {
    RACE_PENDING = 1, /* an asynchronous copy that its thread or barrier has not waited for */
    RACE_STALE = 2,   /* what was there is no longer to be read */
    RACE_ASYNC = 4,   /* written through the async proxy */
    RACE_ATOMIC_WRITE = 8,
};

/* Readers since the write: the first that nothing orders after another reader, and the last. A
 * stamp of an earlier launch (block, for shared memory) means that there is none. */
struct race_cell {
    uint32_t write, write_at; /* stamp; place (race_place) */
    uint32_t read[2], read_at[2];
    uint16_t writer, reader[2], flags;
};
static_assert(sizeof(race_cell) == 32, "two words a cache line");

struct race_page {
    race_cell *cells; /* NULL: never touched */
    uint32_t shift;   /* words of 1 << shift bytes */
};

struct race_region {
    uintptr_t low, high;
    race_page *pages; /* from `base` on */
    uintptr_t base;
    size_t page_count;
    const host_buffer *buffer; /* NULL: shared memory */
    bool is_static;
};

/* The running thread does this to memory. */
struct race_action {
    const race_region *region;
    uintptr_t address; /* of the word at hand */
    uint32_t at, stamp;
    uint16_t thread;
    race_kind kind;
    const char *does; /* "read" */
};

/* ---- places: code addresses and source lines as one number ---- */
uint32_t race_place(place at);
uint32_t race_place_of_code(const void *return_address);

/* ---- race_report.cpp: one line each, and the grid is over ---- */
[[noreturn]] void race_report_conflict(const race_action &x, const char *did, uint16_t by, uint32_t stamp,
                                       uint32_t at);
[[noreturn]] void race_report_pending(const race_action &x, const race_cell *c);
/* By x.thread, whichever thread runs; does not return to that one. */
void race_report_uninitialised(block *b, const race_action &x, uint32_t stale_at);
[[noreturn]] void race_report_proxy(const race_action &x, const race_cell *c);

/* What plain loads and stores come to, and atomics; at: a race_place. */
void race_touch(const void *p, size_t bytes, race_kind kind, uint32_t at);

} // namespace simt

#endif
