/* race_clock - what has happened before what the running thread does now? Stamps are drawn from one
 * counter that is not reset, so clocks of an earlier block or launch need no clearing: they are too
 * small to count. A thread's accesses carry its stamp. A barrier of the whole block raises a floor
 * under which all stamps are known to all; lesser barriers join vectors of stamps. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_RACE_RACE_CLOCK_H
#define KERNELS_SIMT_RACE_RACE_CLOCK_H

#include <vector>

#include "kernels/simt/core/block.h"
#include "kernels/simt/race/race.h"

namespace simt {

static const int MAX_UNITS = 192; /* keys of a block: barriers, and what runs beside the threads */
static const int CLOCKS = MAX_THREADS + MAX_UNITS;

/* By thread, then by unit: the last stamp known to be over, and the last that the
 * async proxy sees too. */
struct clocks {
    uint32_t seen[CLOCKS], fenced[CLOCKS];
};

struct race_unit {
    const void *key;
    uint16_t issuer;                 /* the last thread that gave it work */
    clocks *come, *over;             /* of those who have come; of those whose phase has ended */
    std::vector<uint32_t> groups;    /* stamp of the reads of each committed group */
    std::vector<uint32_t> committed; /* groups so far, by thread */
};
uint32_t race_unit_stamp(race_unit *u); /* of the group of the running thread's next read */

struct race_time {
    uint32_t now;                 /* the last stamp drawn */
    uint32_t grid_first;          /* younger stamps belong to this launch, */
    uint32_t block_first;         /* and those to this block */
    uint32_t floor;               /* up to here everything the block's threads did is over */
    uint32_t thread[MAX_THREADS]; /* stamp of what each does now */
};

extern race_time race_clock;
extern clocks race_threads[MAX_THREADS], race_whole; /* what one thread knows, what all know */
extern race_unit race_units[MAX_UNITS];

bool race_clock_grid_begin(); /* true: stamps start again from 0, forget all that carry one */
void race_clock_block_begin(const block *b, size_t index);
void race_clock_barrier();

race_unit *race_unit_find(const void *key); /* NULL: there is none */
race_unit *race_unit_of(const void *key);   /* made if needed; NULL: too many */
static inline uint16_t race_unit_clock(const race_unit *u) {
    return (uint16_t)(MAX_THREADS + (u - race_units));
}
const race_unit *race_unit_at(uint16_t clock); /* NULL: the clock is a thread's */

/* Fences of the device scope: __threadfence, then an atomic, hands on what has happened; an atomic,
 * then __threadfence, takes it. That is how blocks of one launch may be ordered. */
void race_device_atomic(const void *p);
bool race_foreign_over(uint32_t stamp); /* of another block of the launch */
size_t race_block_of(uint32_t stamp);   /* its place in the grid */

/* Is an access of this launch over, for thread t? */
static inline bool race_over(int t, uint16_t by, uint32_t stamp) {
    if (stamp <= race_clock.block_first) return race_foreign_over(stamp);
    if (by >= MAX_THREADS) return stamp <= race_whole.seen[by] || stamp <= race_threads[t].seen[by];
    return by == t || stamp <= race_clock.floor || stamp <= race_threads[t].seen[by];
}

/* Does the async proxy see it, by a fence between it and thread t? */
static inline bool race_fenced(int t, uint16_t by, uint32_t stamp) {
    return stamp <= race_whole.fenced[by] || stamp <= race_threads[t].fenced[by];
}

} // namespace simt

#endif
