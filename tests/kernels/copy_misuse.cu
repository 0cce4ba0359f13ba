/* copy_misuse - each kernel makes one mistake with cp.async, an mbarrier or TMA; the executor must
 * answer with one line, under every order of threads and every time of copying. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/ptx.cuh"
#include "tests/kernels/simt_cases.h"

#define THREAD ((int)threadIdx.x)
#define WARP (THREAD / 32)

enum { SHARED = 32768, BARRIER = 16384 }; /* bytes of shared memory; where the mbarriers are */

static __device__ struct mbarrier *barrier_in(unsigned char *shared) {
    return reinterpret_cast<struct mbarrier *>(shared + BARRIER);
}

static __device__ struct mbarrier *ready_barrier(unsigned char *shared, int count) {
    struct mbarrier *bar = barrier_in(shared);
    if (THREAD == 0) {
        mbarrier_init(bar, count);
        mbarrier_init_fence();
    }
    __syncthreads();
    return bar;
}

/* ---- cp.async ---- */

static __device__ void finish_copies() {
    cp_async_commit();
    cp_async_wait<0>();
}

static __global__ void copy_to_odd_address(float *g) {
    DYNAMIC_SHARED(shared);
    cp_async_16(shared + 16 * THREAD + 4, g, 16);
    finish_copies();
}

static __global__ void copy_from_odd_address(float *g) {
    DYNAMIC_SHARED(shared);
    cp_async_16(shared + 16 * THREAD, g + 1, 16);
    finish_copies();
}

static __global__ void copy_too_long(float *g) {
    DYNAMIC_SHARED(shared);
    cp_async_16(shared + 16 * THREAD, g, 17);
    finish_copies();
}

static __global__ void copy_past_shared(float *g) {
    DYNAMIC_SHARED(shared);
    cp_async_16(shared + SHARED - 8 * 16 + 16 * THREAD, g, 16);
    finish_copies();
}

static __global__ void copy_past_buffer(float *g) {
    DYNAMIC_SHARED(shared);
    cp_async_16(shared + 16 * THREAD, g + (1 << 18), 16);
    finish_copies();
}

static __global__ void copy_never_waited_for(float *g) {
    DYNAMIC_SHARED(shared);
    cp_async_16(shared + 16 * THREAD, g, 16);
    cp_async_commit();
    cp_async_16(shared + 4096 + 16 * THREAD, g, 16);
    cp_async_commit();
    cp_async_wait<1>();
}

/* ---- mbarrier ---- */

static __global__ void barrier_not_initialised(float *) {
    DYNAMIC_SHARED(shared);
    mbarrier_wait(barrier_in(shared), 0);
}

static __global__ void barrier_of_nobody(float *) {
    DYNAMIC_SHARED(shared);
    mbarrier_init(barrier_in(shared) + THREAD, 0);
}

static __global__ void barrier_at_odd_address(float *) {
    DYNAMIC_SHARED(shared);
    mbarrier_init(reinterpret_cast<struct mbarrier *>(shared + 4), 1);
}

static __global__ void barrier_in_global_memory(float *g) {
    mbarrier_init(reinterpret_cast<struct mbarrier *>(g), 1);
}

static __global__ void barrier_overwritten(float *) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = ready_barrier(shared, 128);
    if (THREAD == 0) bar->opaque = 1;
    __syncthreads();
    mbarrier_arrive(bar);
}

static __global__ void one_arrival_short(float *) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = ready_barrier(shared, 2);
    if (THREAD == 0) mbarrier_arrive(bar);
    mbarrier_wait(bar, 0);
}

static __global__ void one_arrival_more(float *) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = ready_barrier(shared, 1);
    if (THREAD == 0) mbarrier_arrive_expect_tx(bar, 64);
    if (THREAD == 0) mbarrier_arrive(bar);
}

static __global__ void wrong_parity(float *) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = ready_barrier(shared, 128);
    mbarrier_arrive(bar);
    mbarrier_wait(bar, 0);
    mbarrier_wait(bar, 1);
}

static __global__ void parity_two(float *) {
    DYNAMIC_SHARED(shared);
    mbarrier_wait(ready_barrier(shared, 1), 2);
}

static __global__ void initialised_under_a_waiter(float *) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = ready_barrier(shared, 2);
    if (WARP == 0) {
        named_barrier_sync(1, 64);
        mbarrier_init(bar, 2);
    } else if (WARP == 1) {
        named_barrier_arrive(1, 64);
        mbarrier_wait(bar, 0);
    }
}

/* ---- TMA ---- */

static __global__ void tile_without_fence(const __grid_constant__ struct tensor_map map, float *) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = barrier_in(shared);
    if (THREAD == 0) mbarrier_init(bar, 1);
    __syncthreads();
    if (THREAD == 0) {
        mbarrier_arrive_expect_tx(bar, 1024);
        tma_load_2d(shared, &map, bar, 0, 0);
    }
    mbarrier_wait(bar, 0);
}

/* What the load of 1024 bytes does with other numbers of expected bytes, and with other places. */
static __global__ void tile_load(const __grid_constant__ struct tensor_map map, float *, int offset,
                                 int expected, int x) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = ready_barrier(shared, 1);
    if (THREAD == 0) {
        mbarrier_arrive_expect_tx(bar, (uint32_t)expected);
        tma_load_2d(shared + offset, &map, bar, x, 0);
    }
    mbarrier_wait(bar, 0);
}

static __global__ void tile_not_waited_for(const __grid_constant__ struct tensor_map map, float *) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = ready_barrier(shared, 1);
    if (THREAD == 0) {
        mbarrier_arrive_expect_tx(bar, 1024);
        tma_load_2d(shared, &map, bar, 0, 0);
    }
}

static __global__ void store_not_waited_for(const __grid_constant__ struct tensor_map map, float *) {
    DYNAMIC_SHARED(shared);
    if (THREAD == 0) {
        tma_store_2d(&map, shared, 0, 0);
        tma_store_commit();
    }
}

static __global__ void store_before_the_matrix(const __grid_constant__ struct tensor_map map, float *) {
    DYNAMIC_SHARED(shared);
    if (THREAD == 0) tma_store_2d(&map, shared, 0, -8);
}

/* matrix [rows][32] floats in g, moved 8 rows at a time */
static struct tensor_map map_of(const float *g, int rows) {
    struct tensor_map map = {};
    tensor_map_encode(&map, {g, TENSOR_MAP_F32, 32, rows, 128, 32, 8, SWIZZLE_128B});
    return map;
}

static const char *load_with(const struct tensor_map &map, float *g, int x) {
    return LAUNCH(tile_load, dim3(1), dim3(128), SHARED, nullptr, map, g, 0, 1024, x);
}

/* ---- the rows ---- */

#define ON_128(kernel) [](float *g) { return LAUNCH(kernel, dim3(2), dim3(128), SHARED, nullptr, g); }
#define WITH_MAP(kernel, rows)                                                                               \
    [](float *g) { return LAUNCH(kernel, dim3(1), dim3(128), SHARED, nullptr, map_of(g, rows), g); }
#define LOADING(offset, expected, rows)                                                                      \
    [](float *g) {                                                                                           \
        return LAUNCH(tile_load, dim3(1), dim3(128), SHARED, nullptr, map_of(g, rows), g, offset, expected,  \
                      0);                                                                                    \
    }

extern "C" const struct misuse copy_misuse_cases[] = {
    {"copy_to_odd_address",
     ON_128(copy_to_odd_address),
     {"cp_async_16: destination", "not a multiple of 16"}},
    {"copy_from_odd_address", ON_128(copy_from_odd_address), {"cp_async_16: source", "not a multiple of 16"}},
    {"copy_too_long", ON_128(copy_too_long), {"src_bytes is 17", "0 to 16"}},
    {"copy_past_shared", ON_128(copy_past_shared), {"outside dynamic shared memory", "of 32768 bytes"}},
    {"copy_past_buffer", ON_128(copy_past_buffer), {"nearest is misused: offset 1048576 of 4096 bytes"}},
    {"copy_never_waited_for", ON_128(copy_never_waited_for), {"exits without waiting for its cp_async_16"}},
    {"barrier_not_initialised",
     ON_128(barrier_not_initialised),
     {"mbarrier_wait", "shared offset 16384 is not initialised"}},
    {"barrier_of_nobody", ON_128(barrier_of_nobody), {"mbarrier_init: count is 0"}},
    {"barrier_at_odd_address", ON_128(barrier_at_odd_address), {"mbarrier_init", "not a multiple of 8"}},
    {"barrier_in_global_memory",
     ON_128(barrier_in_global_memory),
     {"mbarrier_init", "outside dynamic shared memory"}},
    {"barrier_overwritten", ON_128(barrier_overwritten), {"mbarrier_arrive", "overwritten"}},
    {"one_arrival_short",
     ON_128(one_arrival_short),
     {"wait in mbarrier_wait for parity 0", "lacks 1 of 2 arrivals"}},
    {"one_arrival_more", ON_128(one_arrival_more), {"all 1 arrivals of this phase", "lacks 64 bytes"}},
    {"wrong_parity",
     ON_128(wrong_parity),
     {"wait in mbarrier_wait for parity 1", "parity 1 that lacks 128 of 128 arrivals"}},
    {"parity_two", ON_128(parity_two), {"parity is 2"}},
    {"initialised_under_a_waiter", ON_128(initialised_under_a_waiter), {"mbarrier"}},
    {"tile_without_fence", WITH_MAP(tile_without_fence, 32), {"tma_load_2d", "mbarrier_init_fence"}},
    {"tile_of_too_few_bytes",
     LOADING(0, 1040, 32),
     {"wait in mbarrier_wait", "0 of 1 arrivals and 16 bytes"}},
    {"tile_of_too_many_bytes", LOADING(0, 1008, 32), {"wait in mbarrier_wait", "and -16 bytes"}},
    {"tile_inside_a_pattern", LOADING(512, 1024, 32), {"tma_load_2d", "multiple of 1024 bytes"}},
    {"tile_past_shared",
     LOADING(SHARED, 1024, 32),
     {"tma_load_2d: destination", "outside dynamic shared memory"}},
    {"tile_past_buffer",
     [](float *g) { return load_with(map_of(g + (1 << 20), 32), g, 0); },
     {"tma_load_2d: a row of the box", "nearest is misused"}},
    {"tile_at_odd_column",
     [](float *g) { return load_with(map_of(g, 32), g, 6); },
     {"tma_load_2d: column 6", "multiple of 16 bytes"}},
    {"store_before_the_matrix", WITH_MAP(store_before_the_matrix, 32), {"tma_store_2d: column 0, row -8"}},
    {"tile_without_map", [](float *g) { return load_with(tensor_map{}, g, 0); }, {"tensor_map_encode"}},
    {"store_not_waited_for",
     WITH_MAP(store_not_waited_for, 32),
     {"exits without waiting for its tma_store_2d", "thread (0,0,0)"}},
    {},
};

extern "C" const struct misuse copy_misuse_lazy = {
    "tile_not_waited_for", WITH_MAP(tile_not_waited_for, 32), {"the block ends before its tile has come"}};

static const char *encode(struct tensor_map_2d of) {
    struct tensor_map map;
    return tensor_map_encode(&map, of);
}

extern "C" const struct misuse copy_misuse_launches[] = {
    {"map_of_odd_address",
     [](float *g) {
         return encode({g + 1, TENSOR_MAP_F32, 32, 32, 128, 32, 8, SWIZZLE_128B});
     },
     {"multiple of 16 bytes"}},
    {"map_of_odd_rows",
     [](float *g) {
         return encode({g, TENSOR_MAP_F32, 31, 32, 124, 32, 8, SWIZZLE_128B});
     },
     {"rows a multiple of 16 bytes apart"}},
    {"map_of_no_rows",
     [](float *g) {
         return encode({g, TENSOR_MAP_F32, 32, 0, 128, 32, 8, SWIZZLE_128B});
     },
     {"1 to 2^32 - 1 rows"}},
    {"map_of_wide_boxes",
     [](float *g) {
         return encode({g, TENSOR_MAP_F32, 32, 32, 128, 64, 8, SWIZZLE_128B});
     },
     {"rows of 128 bytes"}},
    {"map_of_wide_64B_boxes",
     [](float *g) {
         return encode({g, TENSOR_MAP_BF16, 32, 32, 128, 64, 8, SWIZZLE_64B});
     },
     {"rows of 64 bytes"}},
    {"map_of_tall_boxes",
     [](float *g) {
         return encode({g, TENSOR_MAP_F32, 32, 32, 128, 32, 257, SWIZZLE_NONE});
     },
     {"1 to 256"}},
    {"map_of_odd_boxes",
     [](float *g) {
         return encode({g, TENSOR_MAP_BF16, 32, 32, 128, 12, 8, SWIZZLE_NONE});
     },
     {"rows are a multiple of 16 bytes"}},
    {},
};
