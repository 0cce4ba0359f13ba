/* race - what the executor tells the race detector (make race); in every other build these are
 * empty. The detector keeps a vector clock for each CUDA thread and each asynchronous unit, and for
 * each word of shared and global memory who touched it last. Two accesses of one word, one of them
 * a write, that no chain of barriers orders are a race: it ends the grid with one line that names
 * both. Plain loads and stores of kernels arrive through the compiler (race_compiler.cpp), all else
 * arrives here. If not said otherwise a hook speaks for the running thread, when it issues the
 * instruction, whenever the data are moved.
 *
 *   ldmatrix, stmatrix  race_access by every lane, for its own row
 *   cp.async            race_access(src, RACE_READ), race_async_write_begin(dst, 16, nullptr);
 *                       when the thread has waited: race_async_write_end(dst, 16, nullptr)
 *   mbarrier            init: race_access(bar, 8, RACE_WRITE), race_forget(bar);
 *                       arrive: race_access(bar, 8, RACE_ATOMIC), race_arrive(bar);
 *                       the phase ends: race_phase_end(bar);
 *                       wait: race_access(bar, 8, RACE_ATOMIC), and when it is over race_wait(bar)
 *   named barrier       race_arrive(key); all have come: race_phase_end(key);
 *                       those who sync: race_wait(key)
 *   TMA load            race_access(each row of the source, RACE_READ),
 *                       race_async_write_begin(tile, bytes, bar);
 *                       data moved: race_async_write_end(tile, bytes, bar), before race_phase_end
 *   TMA store           race_async_read(tile, bytes, key of the thread),
 *                       race_access(each row of the target, RACE_WRITE);
 *                       commit: s = race_async_commit(key); wait: race_async_wait(key, s)
 *   wgmma               one lane of each warp, at the issue: race_async_read(each part of A and B
 *                       that its warp reads, key of the warpgroup);
 *                       commit and wait as above, by every thread */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_RACE_RACE_H
#define KERNELS_SIMT_RACE_RACE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/simt/core/simt.h"

namespace simt {

struct block;
struct host_buffer;

enum race_kind { RACE_READ, RACE_WRITE, RACE_ATOMIC }; /* atomics conflict with the others only */

#ifdef SIMT_RACE
static const bool RACE_BUILD = true;
#define RACE_HOOK(declaration) declaration
#define RACE_STAMP_HOOK(declaration) declaration
#else
static const bool RACE_BUILD = false;
#define RACE_HOOK(declaration)                                                                               \
    static inline declaration {}
#define RACE_STAMP_HOOK(declaration)                                                                         \
    static inline declaration { return 0; }
#endif

/* ---- where and when: the executor's core ---- */
RACE_HOOK(void race_grid_begin()); /* launches are ordered */
RACE_HOOK(void race_block_begin(const block *, size_t));
RACE_HOOK(void race_block_end(block *));
RACE_HOOK(void race_buffer_new(const host_buffer *));
RACE_HOOK(void race_buffer_free(const host_buffer *));

/* ---- memory; addresses outside shared memory and buffers do not matter ---- */
RACE_HOOK(void race_access(const void *, size_t, race_kind, place));
RACE_HOOK(void race_stale(const void *, size_t, place)); /* uninitialised from here on */

/* An asynchronous unit fills the bytes: nobody may touch them before the end, and then only who
 * has waited. key: the mbarrier, and no thread need run at the end; NULL: the issuing thread
 * itself waits (cp.async). */
RACE_HOOK(void race_async_write_begin(const void *, size_t, const void *, place));
RACE_HOOK(void race_async_write_end(const void *, size_t, const void *));

/* The asynchronous unit `key` reads through the async proxy, until somebody has waited for it. */
RACE_HOOK(void race_async_read(const void *, size_t, const void *, place));
RACE_STAMP_HOOK(uint32_t race_async_commit(const void *)); /* reads of `key` since the last */
RACE_HOOK(void race_async_wait(const void *, uint32_t));   /* these and all before are over */

/* ---- order ---- */
RACE_HOOK(void race_barrier());           /* all threads of the block have come, none has gone on */
RACE_HOOK(void race_join_warp(uint32_t)); /* the lanes of its warp that have come to __syncwarp */
RACE_HOOK(void race_arrive(const void *));
RACE_HOOK(void race_phase_end(const void *)); /* waiters learn what has arrived at key so far */
RACE_HOOK(void race_wait(const void *));
RACE_HOOK(void race_forget(const void *));
RACE_HOOK(void race_device_fence()); /* __threadfence (race_clock.h) */
RACE_HOOK(void race_proxy_fence());  /* what the thread knows to be over, the async proxy sees */

#undef RACE_HOOK
#undef RACE_STAMP_HOOK

} // namespace simt

#endif
