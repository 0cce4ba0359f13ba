/* misuse - each kernel makes one mistake; the executor must answer each with one line, and never
 * hang or crash. The rows below say what the line must contain, under every order of threads. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/kernel.cuh"
#include "tests/kernels/simt_cases.h"

#define FULL 0xffffffffu
#define LANE ((int)(threadIdx.x % 32))

static __global__ void barrier_missed(float *) {
    if (threadIdx.x < 96) __syncthreads();
}

static __global__ void two_barriers(float *) {
    if (threadIdx.x < 64)
        __syncthreads();
    else
        __syncthreads();
}

static __global__ void two_kinds(float *) {
    if (threadIdx.x % 2)
        __syncthreads_or(1);
    else
        __syncthreads_and(1);
}

static __global__ void exit_before_barrier(float *) {
    if (threadIdx.x == 5) return;
    __syncthreads();
}

static __global__ void inactive_lanes(float *g) {
    if (LANE < 16) g[threadIdx.x] = __shfl_sync(FULL, g[threadIdx.x], 0);
}

static __global__ void lanes_at_barrier(float *g) {
    if (LANE < 16) g[threadIdx.x] = __shfl_xor_sync(FULL, g[threadIdx.x], 1);
    __syncthreads();
}

static __global__ void mask_without_caller(float *g) {
    g[threadIdx.x] = __shfl_sync(1u << (LANE ^ 1), g[threadIdx.x], 0);
}

static __global__ void source_outside_mask(float *g) {
    if (LANE < 16) g[threadIdx.x] = __shfl_sync(0xffffu, g[threadIdx.x], 20);
}

static __global__ void different_collectives(float *) {
    if (LANE < 16)
        __syncwarp();
    else
        __ballot_sync(FULL, 1);
}

static __global__ void overlapping_masks(float *) {
    if (LANE < 16)
        __syncwarp(0x0001ffffu);
    else
        __syncwarp(0xffff8000u);
}

static __global__ void lanes_beyond_block(float *g) { g[threadIdx.x] = __shfl_sync(FULL, g[threadIdx.x], 0); }

static __global__ void odd_width(float *g) { g[threadIdx.x] = __shfl_xor_sync(FULL, g[threadIdx.x], 1, 24); }

static __global__ void endless_spin(float *g) {
    volatile float *flag = g;
    while (*flag != 1.0f) __nanosleep(20);
}

static __global__ void read_past_buffer(float *g) {
    __syncthreads();
    if (threadIdx.x == 7) g[0] = g[1 << 18];
}

static __global__ void write_before_buffer(float *g) {
    if (threadIdx.x == 7) g[-(1 << 18)] = 1;
}

/* Volatile: g++ 13 refuses to compile a store when it sees that it goes to address 448. */
static __global__ void null_pointer(float *) {
    volatile uintptr_t address = threadIdx.x * 64;
    if (threadIdx.x == 7) *reinterpret_cast<volatile float *>(address) = 1;
}

#ifdef __x86_64__ /* Arm divides by zero without a word */
__attribute__((no_sanitize("undefined"))) static __global__ void division_by_zero(float *g) {
    volatile int divisor = threadIdx.x == 7 ? 0 : 1; /* volatile: the compiler may not assume that it is 1 */
    g[threadIdx.x] = (float)((int)threadIdx.x / divisor);
}
#endif

__attribute__((noinline)) static __device__ int descend(int depth, volatile char *above) {
    volatile char here[1024];
    here[depth % 1024] = above[0];
    return depth < 1000000 ? descend(depth + 1, here) + here[1] : above[0];
}

static __global__ void stack_overflow(float *g) {
    volatile char top[1] = {1};
    if (threadIdx.x == 7) g[0] = (float)descend(0, top);
}

/* AddressSanitizer reports this one itself, exact to the byte, and ends the process. */
#ifndef SIMT_ASAN
static __global__ void shared_overrun(float *) {
    DYNAMIC_SHARED(shared);
    shared[2048 + threadIdx.x] = 1;
}
static __global__ void shared_far_overrun(float *) {
    DYNAMIC_SHARED(shared);
    shared[1000000 + threadIdx.x] = 1;
}
#endif

static __global__ void harmless(float *g) { g[threadIdx.x] = 1; }

#define ON_128(kernel) [](float *g) { return LAUNCH(kernel, dim3(3), dim3(128), 2048, nullptr, g); }

extern "C" const struct misuse misuse_cases[] = {
    {"barrier_missed",
     ON_128(barrier_missed),
     {"misuse.cu", "threads 0..95 wait in __syncthreads", "threads 96..127 exited"}},
    {"two_barriers",
     ON_128(two_barriers),
     {"misuse.cu", "__syncthreads reached here while thread", "must come to the same"}},
    {"two_kinds", ON_128(two_kinds), {"misuse.cu", "__syncthreads_or", "__syncthreads_and"}},
    {"exit_before_barrier", ON_128(exit_before_barrier), {"threads 0..4, 6..127 wait in", "thread 5 exited"}},
    {"inactive_lanes", ON_128(inactive_lanes), {"misuse.cu", "__shfl_sync", "exited"}},
    {"lanes_at_barrier", ON_128(lanes_at_barrier), {"wait in __shfl_xor_sync", "wait in __syncthreads"}},
    {"mask_without_caller", ON_128(mask_without_caller), {"does not name the calling lane", "__shfl_sync"}},
    {"source_outside_mask",
     ON_128(source_outside_mask),
     {"reads lane 20, which mask 0x0000ffff does not name"}},
    {"different_collectives", ON_128(different_collectives), {"__syncwarp", "__ballot_sync"}},
    {"overlapping_masks", ON_128(overlapping_masks), {"with mask 0x0001ffff", "with mask 0xffff8000"}},
    {"lanes_beyond_block",
     [](float *g) { return LAUNCH(lanes_beyond_block, dim3(1), dim3(48), 0, nullptr, g); },
     {"a block of 48 threads does not have"}},
    {"odd_width", ON_128(odd_width), {"shuffle of width 24", "power of two"}},
    {"endless_spin", ON_128(endless_spin), {"misuse.cu", "spin for ever", "__nanosleep"}},
    {"read_past_buffer",
     ON_128(read_past_buffer),
     {"thread (7,0,0)", "misused: offset 1048576 of 4096 bytes", "after __syncthreads"}},
    {"write_before_buffer",
     ON_128(write_before_buffer),
     {"thread (7,0,0)", "misused: offset -1048576 of 4096 bytes"}},
    {"null_pointer", ON_128(null_pointer), {"null pointer", "thread (7,0,0)"}},
#ifdef __x86_64__
    {"division_by_zero", ON_128(division_by_zero), {"division by zero", "thread (7,0,0)"}},
#endif
    {"stack_overflow", ON_128(stack_overflow), {"stack overflow", "KiB", "thread (7,0,0)"}},
#ifndef SIMT_ASAN
    {"shared_overrun", ON_128(shared_overrun), {"outside dynamic shared memory: offset 2", "of 2048 bytes"}},
    {"shared_far_overrun",
     ON_128(shared_far_overrun),
     {"outside dynamic shared memory: offset 1000", "of 2048 bytes"}},
#endif
    {},
};

extern "C" const struct misuse misuse_launches[] = {
    {"no_blocks",
     [](float *g) { return LAUNCH(harmless, dim3(0), dim3(32), 0, nullptr, g); },
     {"kernel harmless", "grid.x is 0", "1 to"}},
    {"no_threads",
     [](float *g) { return LAUNCH(harmless, dim3(1), dim3(32, 0), 0, nullptr, g); },
     {"block.y is 0"}},
    {"many_threads",
     [](float *g) { return LAUNCH((harmless), dim3(1), dim3(33, 32), 0, nullptr, g); },
     {"kernel harmless", "1056", "1024"}},
    {"much_shared",
     [](float *g) { return LAUNCH(harmless, dim3(1), dim3(32), 300000, nullptr, g); },
     {"shared memory", "300000", "misuse.cu"}},
    {"tall_grid",
     [](float *g) { return LAUNCH(harmless, dim3(1, 65536), dim3(32), 0, nullptr, g); },
     {"grid.y is 65536", "65535"}},
    {},
};
