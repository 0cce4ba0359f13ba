/* races - exchanges through shared and global memory, each without the barrier it needs and with
 * it. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/ptx.cuh"
#include "tests/kernels/races.h"

#ifdef SIMT_RACE
extern "C" int race_detector_is_built(void) { return 1; }
#else
extern "C" int race_detector_is_built(void) { return 0; }
#endif
int race_lines[2];

#define SELF ((int)threadIdx.x)
#define THREADS 128
#define OUT (g + (int)blockIdx.x * THREADS) /* what a block may write */
#define FULL 0xffffffffu

/* ---- shared memory ---- */

template <bool RIGHT> static __global__ void fill(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [THREADS] */
    ONE tile[SELF] = 1;
    if (RIGHT) __syncthreads();
    TWO OUT[SELF] = tile[SELF ^ 64];
}

template <bool RIGHT> static __global__ void refill(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [THREADS] */
    for (int i = 0; i < 3; i++) {
        ONE tile[SELF] = (float)i;
        __syncthreads();
        TWO OUT[SELF] = tile[THREADS - 1 - SELF];
        if (RIGHT) __syncthreads();
    }
}

/* One thread fills the tile by a call of the C library. */
template <bool RIGHT> static __global__ void fill_by_memset(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [THREADS] */
    if (SELF == 0) ONE memset(tile, 0, sizeof(float) * blockDim.x);
    if (RIGHT) __syncthreads();
    TWO OUT[SELF] = tile[SELF];
}

template <bool RIGHT> static __global__ void static_array(float *g) {
    __shared__ float tile[THREADS];
    ONE tile[SELF] = 1;
    if (RIGHT) __syncthreads();
    TWO OUT[SELF] = tile[SELF ^ 1];
}

/* A shuffle synchronises the lanes, but orders no memory. */
template <bool RIGHT> static __global__ void within_a_warp(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [THREADS] */
    ONE tile[SELF] = __shfl_xor_sync(FULL, 1.0f, 1);
    if (RIGHT)
        __syncwarp();
    else
        __shfl_xor_sync(FULL, 1.0f, 1);
    TWO OUT[SELF] = tile[SELF ^ 1];
}

template <int PARTNER> static __global__ void two_named_barriers(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [THREADS] */
    ONE tile[SELF] = 1;
    named_barrier_sync(1 + SELF / 64, 64);
    TWO OUT[SELF] = tile[SELF ^ PARTNER];
}

/* Warps 0, 1 fill twice what 2, 3 use; barriers 1, 2: filled, 3: used. */
template <bool RIGHT> static __global__ void producer_and_consumer(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [64] */
    for (int i = 0; i < 2; i++) {
        if (SELF < 64) {
            if (i && RIGHT) named_barrier_sync(3, THREADS);
            ONE tile[SELF] = (float)i;
            named_barrier_arrive(1 + i, THREADS);
        } else {
            named_barrier_sync(1 + i, THREADS);
            TWO OUT[SELF] = tile[SELF ^ 65];
            if (!i && RIGHT) named_barrier_arrive(3, THREADS);
        }
    }
}

/* The last of the tile is nobody's, unless it is filled up. */
template <bool RIGHT> static __global__ void tail(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [THREADS] */
    if (SELF < 100)
        tile[SELF] = 1;
    else if (RIGHT)
        tile[SELF] = 0;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < THREADS; i++) ONE TWO sum += tile[i];
    OUT[SELF] = sum;
}

/* The second filling leaves half of it as it was. */
template <bool RIGHT> static __global__ void stale_tail(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [THREADS] */
    for (int n = THREADS; n >= 64; n /= 2) {
        ONE shared_stale(&tile[SELF], sizeof(float));
        if (SELF < n || RIGHT) tile[SELF] = 1;
        __syncthreads();
        TWO OUT[SELF] = tile[SELF ^ 64];
        __syncthreads();
    }
}

/* Neighbours that own one or two bytes each share words, but not bytes. */
template <class T> static __global__ void neighbours(float *) {
    DYNAMIC_SHARED(shared);
    T *tile = reinterpret_cast<T *>(shared); /* [THREADS] */
    ONE tile[SELF] = T();
    if (SELF % 2) TWO tile[SELF - 1] = T();
}
template <class T> static __global__ void own_neighbours(float *g) {
    DYNAMIC_SHARED(shared);
    T *tile = reinterpret_cast<T *>(shared); /* [THREADS] */
    tile[SELF] = T();
    for (int i = 0; i < 4; i++) tile[SELF] = tile[SELF];
    __syncthreads();
    const T other = tile[SELF ^ 1];
    OUT[SELF] = (float)sizeof other;
}

/* ---- global memory ---- */

template <bool RIGHT> static __global__ void exchange(float *g) {
    float *own = g + (int)blockIdx.x * 2 * THREADS;
    ONE own[SELF] = 1;
    if (RIGHT) __syncthreads();
    TWO own[THREADS + SELF] = own[SELF ^ 1];
}

template <bool RIGHT> static __global__ void write_in_two_blocks(float *g) {
    ONE TWO g[RIGHT ? (int)blockIdx.x * THREADS + SELF : SELF] = 1;
}

template <bool RIGHT> static __global__ void read_from_a_block(float *g) {
    const int other = RIGHT ? (int)blockIdx.x : (int)(blockIdx.x ^ 1);
    ONE g[(int)blockIdx.x * THREADS + SELF] = 1;
    TWO g[2048 + (int)blockIdx.x * THREADS + SELF] = g[other * THREADS + SELF];
}

static __global__ void zero(float *g) { g[(int)blockIdx.x * THREADS + SELF] = 0; }

template <bool RIGHT> static __global__ void count(float *g) {
    unsigned *counter = reinterpret_cast<unsigned *>(g + blockIdx.x);
    ONE atomicAdd(counter, 1u);
    if (RIGHT) __syncthreads();
    if (SELF == 5) TWO g[64 + blockIdx.x] = (float)*counter;
}

/* The block that comes last adds up what the others have written: they fence, then count
 * themselves. */
template <bool RIGHT> static __global__ void last_block(float *g) {
    __shared__ bool last;
    if (SELF == 0) ONE g[64 + blockIdx.x] = 1;
    if (SELF == 0) {
        if (RIGHT) __threadfence();
        last = atomicAdd(reinterpret_cast<unsigned *>(g), 1u) == gridDim.x - 1;
        if (RIGHT) __threadfence();
    }
    __syncthreads();
    if (last && SELF < (int)gridDim.x) TWO g[128 + SELF] = g[64 + SELF];
}

/* ---- cp.async: 16 bytes a thread, two stages ---- */

template <int LEFT, bool BARRIER> static __global__ void copies(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [2][4 THREADS] */
    cp_async_16(&tile[4 * SELF], &g[4 * SELF], 16);
    cp_async_commit();
    ONE cp_async_16(&tile[4 * (THREADS + SELF)], &g[4 * SELF], 8);
    cp_async_commit();
    cp_async_wait<LEFT>();
    if (BARRIER) __syncthreads();
    TWO OUT[4096 + SELF] = tile[4 * THREADS + ((4 * SELF) ^ 256)];
}

template <bool RIGHT> static __global__ void copy_over_readers(float *g) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [4 THREADS] */
    for (int i = 0; i < 3; i++) {
        ONE cp_async_16(&tile[4 * SELF], &g[4 * SELF], 16);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        TWO OUT[4096 + SELF] = tile[(4 * SELF) ^ 256];
        if (RIGHT) __syncthreads();
    }
}

/* ---- the table ---- */

#define RUN(blocks, ...)                                                                                     \
    [](float *g) { return LAUNCH((__VA_ARGS__), dim3(blocks), dim3(THREADS), 8192, nullptr, g); }

/* Two launches, the first of which writes zeros wherever the second comes. */
template <void (*KERNEL)(float *)> static const char *after_zero(float *g) {
    const char *problem = LAUNCH(zero, dim3(RACED_FLOATS / THREADS), dim3(THREADS), 0, nullptr, g);
    return problem ? problem : LAUNCH(KERNEL, dim3(2), dim3(THREADS), 8192, nullptr, g);
}

#define SHARED "of shared memory + "
#define NO_BARRIER "no barrier between them"
#define NO_ORDER "blocks of one launch have no order"

extern "C" const struct race_case race_cases[] = {
    {"fill", RUN(3, fill<false>), {SHARED, NO_BARRIER, "by thread ("}},
    {"fill, right", RUN(3, fill<true>), {}},
    {"refill", RUN(3, refill<false>), {SHARED, NO_BARRIER}},
    {"refill, right", RUN(3, refill<true>), {}},
    {"fill_by_memset", RUN(3, fill_by_memset<false>), {SHARED, NO_BARRIER}},
    {"fill_by_memset, right", RUN(3, fill_by_memset<true>), {}},
    {"static_array", RUN(3, static_array<false>), {"of static shared memory", NO_BARRIER}},
    {"static_array, right", RUN(3, static_array<true>), {}},
    {"within_a_warp", RUN(3, within_a_warp<false>), {SHARED, NO_BARRIER}},
    {"within_a_warp, right", RUN(3, within_a_warp<true>), {}},
    {"two_named_barriers", RUN(3, two_named_barriers<64>), {SHARED, NO_BARRIER}},
    {"two_named_barriers, right", RUN(3, two_named_barriers<33>), {}},
    {"producer_and_consumer", RUN(3, producer_and_consumer<false>), {SHARED, NO_BARRIER}},
    {"producer_and_consumer, right", RUN(3, producer_and_consumer<true>), {}},
    {"tail", RUN(3, tail<false>), {"read of uninitialised shared memory + 400", "since the block began"}},
    {"tail, right", RUN(3, tail<true>), {}},
    {"stale_tail", RUN(3, stale_tail<false>), {"read of uninitialised", "since shared_stale"}},
    {"stale_tail, right", RUN(3, stale_tail<true>), {}},
    {"neighbours, bytes", RUN(1, neighbours<unsigned char>), {SHARED, NO_BARRIER}},
    {"neighbours, bf16", RUN(1, neighbours<bf16>), {SHARED, NO_BARRIER}},
    {"neighbours, bytes, right", RUN(1, own_neighbours<unsigned char>), {}},
    {"neighbours, bf16, right", RUN(1, own_neighbours<bf16>), {}},
    {"neighbours, floats, right", RUN(1, own_neighbours<float>), {}},
    {"exchange", RUN(2, exchange<false>), {"of raced + ", NO_BARRIER}},
    {"exchange, right", RUN(2, exchange<true>), {}},
    {"write_in_two_blocks",
     RUN(2, write_in_two_blocks<false>),
     {"write of raced + ", NO_ORDER, ") of block ("}},
    {"write_in_two_blocks, right", RUN(2, write_in_two_blocks<true>), {}},
    {"read_from_a_block", RUN(2, read_from_a_block<false>), {"of raced + ", NO_ORDER}},
    {"read_from_a_block, right", RUN(2, read_from_a_block<true>), {}},
    {"after a launch, right", after_zero<exchange<true>>, {}},
    {"count", after_zero<count<false>>, {"of raced + ", "atomic", NO_BARRIER}},
    {"count, right", after_zero<count<true>>, {}},
    {"last_block", after_zero<last_block<false>>, {"of raced + ", NO_ORDER}},
    {"last_block, right", after_zero<last_block<true>>, {}},
    {"copies, not waited for", RUN(2, copies<2, true>), {"read " SHARED, "is still filling"}},
    {"copies, one group too few", RUN(2, copies<1, true>), {"read " SHARED, "is still filling"}},
    {"copies, no barrier", RUN(2, copies<0, false>), {SHARED}},
    {"copies, right", RUN(2, copies<0, true>), {}},
    {"copy_over_readers", RUN(2, copy_over_readers<false>), {SHARED, NO_BARRIER}},
    {"copy_over_readers, right", RUN(2, copy_over_readers<true>), {}},
    {},
};
