/* simt - the SIMT executor as a kernel sees it: who am I, wait for the others, launch. One fiber
 * per CUDA thread; all threads of a block live on one OS thread and switch only where they wait, so
 * a thread runs alone between two synchronisation points. Blocks are spread over OS threads. Misuse
 * ends the grid with one line of text, kept until simt_take_error (kernels/simt/simt_options.h). */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_CORE_SIMT_H
#define KERNELS_SIMT_CORE_SIMT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/simt/core/types.h"

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif

#ifdef SIMT_ASAN
#define SIMT_RED_ZONE 128
#else
#define SIMT_RED_ZONE 0
#endif

/* The caller's file and line as trailing default parameters: intrinsics look like
 * CUDA's and still know where. */
#define SIMT_CALLER const char *caller_file = __builtin_FILE(), int caller_line = __builtin_LINE()
#define SIMT_PLACE                                                                                           \
    simt::place { caller_file, caller_line }

namespace simt {

struct place {
    const char *file;
    int line;
};

struct block_view {
    uint3 index;
    dim3 threads, blocks;
};

struct thread {
    uint3 index;
    uint16_t linear;
    uint8_t warp, lane;
    const block_view *block;
};

extern __thread thread *self; /* the thread that runs; NULL outside kernels */

unsigned char *dynamic_shared();
void shared_stale(void *p, size_t bytes, place at);
#ifdef SIMT_ASAN
void shared_red_zone(void *p, size_t bytes);
#endif

enum barrier_vote { VOTE_NONE, VOTE_OR, VOTE_AND, VOTE_COUNT };
int barrier_wait(barrier_vote vote, int predicate, place at); /* of the whole block */

/* A warp operation: every lane of `mask` brings its own `argument`; the last to arrive runs `run`
 * for all of them. arguments[lane] is set for the lanes in mask only. */
typedef void (*warp_run)(void **arguments, uint32_t mask);
void warp_collective(uint32_t mask, const char *operation, warp_run run, void *argument, place at);
/* The same of all 32 lanes, who must come to the same place: PTX's .sync.aligned. */
void warp_aligned(const char *operation, warp_run run, void *argument, place at);

void yield(place at); /* let the others run; reported when nobody has anything to do for long */

/* End the grid; `lane` is the lane of the running warp to blame. */
[[noreturn]] void fail(place at, const char *format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] void fail_lane(int lane, place at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

struct launch_config {
    const char *kernel;
    place at;
    dim3 grid, block;
    size_t shared_bytes;
};
/* Run thread_body(argument) once per thread of the grid. NULL, or why the
 * configuration was refused. */
const char *run_grid(const launch_config &config, void (*thread_body)(void *), void *argument);

} // namespace simt

#endif
