/* races_async - copies and products that run beside the threads: waited for by too few, refilled
 * too early, or seen through the other proxy without a fence; and each done right. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/ptx.cuh"
#include "kernels/lang/tensor_map.h"
#include "tests/kernels/races.h"

#define SELF ((int)threadIdx.x)
#define THREADS 128
#define OUT (g + 4096 + (int)blockIdx.x * THREADS) /* what a block may write */

enum { COLS = 64, ROWS = 32, BOX_COLS = 32, BOX_ROWS = 4, TILE = BOX_COLS * BOX_ROWS, TILE_BYTES = 4 * TILE };

static tensor_map map_of(const float *matrix /* [ROWS][COLS] */) {
    struct tensor_map map;
    const struct tensor_map_2d of = {matrix,   TENSOR_MAP_F32, COLS,     ROWS,
                                     COLS * 4, BOX_COLS,       BOX_ROWS, SWIZZLE_NONE};
    return tensor_map_encode(&map, of) ? tensor_map() : map;
}

/* One tile, two barriers for its two fillings, one that says that the first has been used. */
struct stage {
    float *tile;                  /* [TILE] */
    struct mbarrier *full, *used; /* full: [2] */
};

static __device__ stage stage_new(unsigned char *shared, int consumers) {
    const stage s = {reinterpret_cast<float *>(shared),
                     reinterpret_cast<struct mbarrier *>(shared + TILE_BYTES),
                     reinterpret_cast<struct mbarrier *>(shared + TILE_BYTES) + 2};
    if (SELF == 0) {
        mbarrier_init(&s.full[0], 1);
        mbarrier_init(&s.full[1], 1);
        mbarrier_init(s.used, consumers);
        mbarrier_init_fence();
    }
    __syncthreads();
    return s;
}

/* ---- TMA loads ---- */

/* The first WAITING threads wait. */
template <int WAITING> static __global__ void load(const __grid_constant__ struct tensor_map map, float *g) {
    DYNAMIC_SHARED(shared);
    const stage s = stage_new(shared, 1);
    if (SELF == 0) {
        mbarrier_arrive_expect_tx(&s.full[0], TILE_BYTES);
        ONE tma_load_2d(s.tile, &map, &s.full[0], 0, 0);
    }
    if (SELF < WAITING) mbarrier_wait(&s.full[0], 0);
    TWO OUT[SELF] = s.tile[SELF];
}

enum when { NEVER, EARLY, IN_TIME };

/* Warp 0 fills the tile twice; the others use it, and say so never, before they have, or after. */
template <when SAID> static __global__ void reload(const __grid_constant__ struct tensor_map map, float *g) {
    DYNAMIC_SHARED(shared);
    const stage s = stage_new(shared, THREADS - 32);
    if (SELF == 0)
        for (int i = 0; i < 2; i++) {
            if (i && SAID != NEVER) mbarrier_wait(s.used, 0);
            mbarrier_arrive_expect_tx(&s.full[i], TILE_BYTES);
            ONE tma_load_2d(s.tile, &map, &s.full[i], BOX_COLS * i, 0);
        }
    else if (SELF >= 32)
        for (int i = 0; i < 2; i++) {
            mbarrier_wait(&s.full[i], 0);
            if (!i && SAID == EARLY) mbarrier_arrive(s.used);
            TWO OUT[SELF] = s.tile[SELF];
            if (!i && SAID == IN_TIME) mbarrier_arrive(s.used);
        }
}

/* Zeros of the threads, then a tile of the TMA. */
template <bool FENCED>
static __global__ void load_over_writes(const __grid_constant__ struct tensor_map map, float *g) {
    DYNAMIC_SHARED(shared);
    const stage s = stage_new(shared, 1);
    ONE s.tile[SELF] = 0;
    if (FENCED) fence_proxy_async();
    __syncthreads();
    if (SELF == 0) {
        mbarrier_arrive_expect_tx(&s.full[0], TILE_BYTES);
        TWO tma_load_2d(s.tile, &map, &s.full[0], 0, 0);
    }
    mbarrier_wait(&s.full[0], 0);
    OUT[SELF] = s.tile[SELF];
}

/* ---- TMA stores ---- */

template <bool FENCED> static __global__ void store(const __grid_constant__ struct tensor_map map, float *) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [TILE] */
    ONE tile[SELF] = 1;
    if (FENCED) fence_proxy_async();
    __syncthreads();
    if (SELF == 0) {
        TWO tma_store_2d(&map, tile, BOX_COLS * (int)blockIdx.x, 0);
        tma_store_commit();
        tma_store_wait<0>();
    }
}

/* The fence of the storing thread alone will do: it comes after the barrier. */
static __global__ void store_fenced_late(const __grid_constant__ struct tensor_map map, float *) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [TILE] */
    tile[SELF] = 1;
    __syncthreads();
    if (SELF == 0) {
        fence_proxy_async();
        tma_store_2d(&map, tile, BOX_COLS * (int)blockIdx.x, 0);
        tma_store_commit();
        tma_store_wait<0>();
    }
}

/* Refilled when all but LEFT of the stores have been read. */
template <int LEFT>
static __global__ void store_refill(const __grid_constant__ struct tensor_map map, float *) {
    DYNAMIC_SHARED(shared);
    float *tile = reinterpret_cast<float *>(shared); /* [TILE] */
    tile[SELF] = 1;
    fence_proxy_async();
    __syncthreads();
    if (SELF == 0) {
        ONE tma_store_2d(&map, tile, BOX_COLS * (int)blockIdx.x, 0);
        tma_store_commit();
        tma_store_wait_read<LEFT>();
    }
    __syncthreads();
    TWO tile[SELF] = 2;
    if (SELF == 0) tma_store_wait<0>();
}

/* ---- wgmma: A [64][16], B [16][32], in no swizzle, A first ---- */

enum { A_BYTES = 64 * 16 * 2, AB_BYTES = A_BYTES + 32 * 16 * 2 };

static __device__ void multiply(float (&d)[16], const unsigned char *tiles) {
    const uint64_t a = wgmma_desc(tiles, 128, 256, SWIZZLE_NONE);
    const uint64_t b = wgmma_desc(tiles + A_BYTES, 128, 256, SWIZZLE_NONE);
    wgmma_fence();
    ONE wgmma_m64nNk16<32, bf16>(d, a, b, false);
    wgmma_commit();
}

static __device__ void finish(float (&d)[16], float *g) {
    wgmma_wait<0>();
    accumulator_ready(d);
    OUT[SELF] = d[0] + d[15];
}

static __device__ void fill_tiles(unsigned char *tiles) {
    uint32_t *words = reinterpret_cast<uint32_t *>(tiles);
    for (int i = SELF; i < AB_BYTES / 4; i += (int)blockDim.x) TWO words[i] = 0;
}

template <bool FENCED> static __global__ void product(float *g) {
    DYNAMIC_SHARED(shared);
    float d[16];
    fill_tiles(shared);
    if (FENCED) fence_proxy_async();
    __syncthreads();
    multiply(d, shared);
    finish(d, g);
}

/* The second warpgroup refills the tiles when the first has issued its product, or has waited for
 * it. */
template <bool RIGHT> static __global__ void product_refill(float *g) {
    DYNAMIC_SHARED(shared);
    float d[16];
    fill_tiles(shared);
    fence_proxy_async();
    __syncthreads();
    if (SELF < THREADS) {
        multiply(d, shared);
        if (RIGHT) finish(d, g);
        named_barrier_arrive(1, 2 * THREADS);
        if (!RIGHT) finish(d, g);
    } else {
        named_barrier_sync(1, 2 * THREADS);
        fill_tiles(shared);
    }
}

/* Only the first thread of the warpgroup says that its product is over: that is enough. */
static __global__ void product_released_by_one(float *g) {
    DYNAMIC_SHARED(shared);
    float d[16];
    struct mbarrier *used = reinterpret_cast<struct mbarrier *>(shared + AB_BYTES);
    if (SELF == 0) mbarrier_init(used, 1);
    fill_tiles(shared);
    fence_proxy_async();
    __syncthreads();
    if (SELF < THREADS) {
        multiply(d, shared);
        finish(d, g);
        if (SELF == 0) mbarrier_arrive(used);
    } else {
        mbarrier_wait(used, 0);
        fill_tiles(shared);
    }
}

/* A and B come by TMA, one of them twice; the first WAITING threads wait. */
template <int WAITING>
static __global__ void product_of_loads(const __grid_constant__ struct tensor_map map, float *g) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *full = reinterpret_cast<struct mbarrier *>(shared + 8 * TILE_BYTES);
    if (SELF == 0) {
        mbarrier_init(full, 1);
        mbarrier_init_fence();
        mbarrier_arrive_expect_tx(full, 6 * TILE_BYTES);
        for (int i = 0; i < 6; i++) TWO tma_load_2d(shared + i * TILE_BYTES, &map, full, 0, BOX_ROWS * i);
    }
    __syncthreads();
    float d[16];
    if (SELF < WAITING) mbarrier_wait(full, 0);
    multiply(d, shared);
    finish(d, g);
}

/* ---- the table ---- */

#define RUN(threads, ...)                                                                                    \
    [](float *g) { return LAUNCH((__VA_ARGS__), dim3(2), dim3(threads), 8192, nullptr, g); }
#define RUN_TMA(...)                                                                                         \
    [](float *g) { return LAUNCH((__VA_ARGS__), dim3(2), dim3(THREADS), 8192, nullptr, map_of(g), g); }

#define SHARED "of shared memory + "
#define NO_FENCE "no fence_proxy_async between them"
#define NOT_WAITED "this thread has not waited for it"

extern "C" const struct race_case race_async_cases[] = {
    {"load, not waited for", RUN_TMA(load<0>), {SHARED}},
    {"load, waited for by one warp", RUN_TMA(load<32>), {SHARED}},
    {"load, right", RUN_TMA(load<THREADS>), {}},
    {"reload, nobody says used", RUN_TMA(reload<NEVER>), {SHARED}},
    {"reload, used said early", RUN_TMA(reload<EARLY>), {SHARED}},
    {"reload, right", RUN_TMA(reload<IN_TIME>), {}},
    {"load_over_writes", RUN_TMA(load_over_writes<false>), {"asynchronous copy " SHARED, NO_FENCE}},
    {"load_over_writes, right", RUN_TMA(load_over_writes<true>), {}},
    {"store", RUN_TMA(store<false>), {"asynchronous read " SHARED, NO_FENCE}},
    {"store, right", RUN_TMA(store<true>), {}},
    {"store_fenced_late, right", RUN_TMA(store_fenced_late), {}},
    {"store_refill", RUN_TMA(store_refill<1>), {"write " SHARED, "asynchronous read at", NOT_WAITED}},
    {"store_refill, right", RUN_TMA(store_refill<0>), {}},
    {"product", RUN(THREADS, product<false>), {"asynchronous read " SHARED, NO_FENCE}},
    {"product, right", RUN(THREADS, product<true>), {}},
    {"product_refill",
     RUN(2 * THREADS, product_refill<false>),
     {"write " SHARED, "asynchronous read", NOT_WAITED}},
    {"product_refill, right", RUN(2 * THREADS, product_refill<true>), {}},
    {"product_released_by_one, right", RUN(2 * THREADS, product_released_by_one), {}},
    {"product_of_loads", RUN_TMA(product_of_loads<32>), {SHARED}},
    {"product_of_loads, right", RUN_TMA(product_of_loads<THREADS>), {}},
    {},
};
