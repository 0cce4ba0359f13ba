/* block - the state of the block that one OS thread is running, and its scheduler's entry points.
 * What a switch touches is kept small and together: 64 bytes a fiber, and the set of fibers that
 * can run as one 32-bit mask a warp. What is rarely touched lives in fiber_cold. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_CORE_BLOCK_H
#define KERNELS_SIMT_CORE_BLOCK_H

#include <atomic>

#include "kernels/simt/core/fiber.h"
#include "kernels/simt/simt_options.h"
#include "kernels/simt/core/simt.h"

namespace simt {

static const int MAX_THREADS = 1024;
static const int MAX_WARPS = MAX_THREADS / 32;
static const size_t MAX_SHARED_BYTES = 227 * 1024 + 128 * SIMT_RED_ZONE; /* sm_90's, red zones */

enum thread_state : uint8_t { THREAD_READY, THREAD_WAITING, THREAD_YIELDED, THREAD_EXITED };

struct alignas(64) fiber : thread {
    void *context;        /* where it stopped */
    const char *waits_in; /* the operation it stopped in last, NULL: none yet */
    place at;             /* and where that stands */
    thread_state state;
};
static_assert(sizeof(fiber) == 64, "one cache line a fiber");

struct fiber_cold {
    fiber_stack stack;
    void *asan_frames; /* AddressSanitizer's fake stack while the fiber is not running */
};

/* Lanes of one warp that have come to a collective with the same mask. */
struct warp_group {
    uint32_t mask, arrived;
    const char *operation;
    place at; /* of the first to arrive */
};

struct warp {
    int groups;
    warp_group group[32];
    void *argument[32]; /* by lane */
};

struct barrier {
    int arrived, first; /* first: who came first */
    barrier_vote vote;
    int accumulated, result;
    place at;
    uint32_t waiting[MAX_WARPS];
};

/* What all blocks of a launch share. */
struct grid {
    const launch_config *config;
    void (*thread_body)(void *);
    void *argument;
    simt_options options;
    size_t blocks;
    std::atomic<size_t> next;
    std::atomic<bool> failed;
};

struct block {
    block_view view;
    grid *of;
    fiber *fibers;    /* [MAX_THREADS] */
    fiber_cold *cold; /* [MAX_THREADS] */
    int threads, alive, current_warp;
    bool failed;
    uint32_t ready_warps, ready[MAX_WARPS], yielded[MAX_WARPS];
    uint64_t spins; /* yields since a thread last got on */
    uint64_t random;
    /* No thread can run: do some asynchronous work; false: there is none. NULL: never any. */
    bool (*on_idle)(block *);
    void (*on_switch)(block *); /* before every choice; NULL: nothing to do */
    struct async_state *async;  /* async.h; in use while on_idle is set */
    barrier whole;
    warp warps[MAX_WARPS];

    unsigned char *shared, *shared_map; /* dynamic shared memory ends where a guard begins */
    size_t shared_bytes, shared_open;

    void *scheduler_context; /* the OS thread's own stack */
    const void *scheduler_low;
    size_t scheduler_bytes;
    void *scheduler_frames;
};

extern __thread block *running; /* this OS thread's block; NULL while it runs none */

static inline fiber *self_fiber() { return static_cast<fiber *>(self); }
static inline void make_ready(block *b, int warp_index, uint32_t lanes) {
    b->ready[warp_index] |= lanes;
    b->ready_warps |= (uint32_t)(lanes != 0) << warp_index;
}

block *block_new(); /* NULL: no memory */
void block_run(block *b, grid *of, size_t index);

/* The running fiber cannot go on: run others until it is ready again. */
void wait_here(block *b, fiber *f, const char *operation, place at);
[[noreturn]] void abandon(block *b); /* the running block, after an error */

size_t shared_map_bytes(); /* guards included */
bool shared_map_new(block *b);
void shared_prepare(block *b, size_t bytes); /* NaN, and guarded at its end */

/* error.cpp: the first error is kept, those after it are its consequences */
struct error_line {
    char text[480];
    size_t length;
};
void error_append(error_line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_append_kernel(error_line *line, const char *kernel); /* "kernel k" */
void error_append_where(error_line *line, const block *b,
                        const thread *t); /* "kernel k, block .., thread .." */
void error_keep(block *b, const error_line *line);
void error_keep_stuck(block *b, const char *why); /* nobody can go on: who waits where */

/* fault.cpp: turn SIGSEGV and its like inside a kernel into an error of the grid */
void fault_handler_install();

} // namespace simt

#endif
