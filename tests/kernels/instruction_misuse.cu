/* instruction_misuse - each kernel makes one mistake with an asynchronous or warp-wide instruction; the executor
 * must answer with one line, under every order of threads and every time of copying. */
/* SPDX-License-Identifier: MIT */
#include "kernels/device/ptx.cuh"
#include "tests/kernels/simt_cases.h"

#define THREAD ((int)threadIdx.x)
#define WARP (THREAD / 32)
#define LANE (THREAD % 32)

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

/* ---- ldmatrix, stmatrix, mma ---- */

static __global__ void matrix_odd_address(float *) {
    DYNAMIC_SHARED(shared);
    uint32_t r[4];
    ldmatrix_x4(r, shared + 8 * THREAD);
}

static __global__ void matrix_past_shared(float *) {
    DYNAMIC_SHARED(shared);
    uint32_t r[4];
    ldmatrix_x4(r, shared + SHARED - 16 + LANE * 16);
}

static __global__ void matrix_stored_before_shared(float *) {
    DYNAMIC_SHARED(shared);
    const uint32_t r[4] = {0, 0, 0, 0};
    stmatrix_x4(shared - 16 + LANE * 16, r);
}

static __global__ void product_of_half_a_warp(float *g) {
    const uint32_t a[4] = {0, 0, 0, 0}, b[2] = {0, 0};
    float d[4] = {0, 0, 0, 0};
    if (LANE < 16) mma_m16n8k16<bf16>(d, a, b);
    g[THREAD] = d[0];
}

static __global__ void product_at_two_places(float *g) {
    const uint32_t a[4] = {0, 0, 0, 0}, b[2] = {0, 0};
    float d[4] = {0, 0, 0, 0};
    if (LANE % 2)
        mma_m16n8k16<bf16>(d, a, b);
    else
        mma_m16n8k16<bf16>(d, a, b);
    g[THREAD] = d[0];
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
static __global__ void tile_load(const __grid_constant__ struct tensor_map map, float *, int offset, int expected) {
    DYNAMIC_SHARED(shared);
    struct mbarrier *bar = ready_barrier(shared, 1);
    if (THREAD == 0) {
        mbarrier_arrive_expect_tx(bar, (uint32_t)expected);
        tma_load_2d(shared + offset, &map, bar, 0, 0);
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

/* matrix [rows][32] floats in g, moved 8 rows at a time */
static struct tensor_map map_of(const float *g, int rows) {
    struct tensor_map map = {};
    tensor_map_encode(&map, {g, TENSOR_MAP_F32, 32, rows, 128, 32, 8, SWIZZLE_128B});
    return map;
}

static const char *load_with(const struct tensor_map &map, float *g) {
    return LAUNCH(tile_load, dim3(1), dim3(128), SHARED, nullptr, map, g, 0, 1024);
}

/* ---- named barriers ---- */

static __global__ void two_counts(float *) { named_barrier_sync(1, THREAD < 64 ? 96 : 128); }

static __global__ void barrier_zero(float *) { named_barrier_sync(0, 128); }

static __global__ void barrier_of_48(float *) { named_barrier_sync(1, 48); }

static __global__ void barrier_of_more_than_all(float *) { named_barrier_arrive(1, 160); }

static __global__ void barrier_twice(float *) {
    if (WARP == 0) {
        named_barrier_arrive(1, 96);
        named_barrier_sync(1, 96);
    }
}

static __global__ void barrier_short_of_a_warp(float *) {
    if (WARP < 2) named_barrier_sync(3, 96);
}

static __global__ void barrier_of_half_a_warp(float *) {
    if (LANE < 16) named_barrier_sync(1, 128);
}

/* ---- wgmma ---- */

static __device__ uint64_t tile_at(const unsigned char *p) { return wgmma_desc(p, 16, 1024, SWIZZLE_128B); }

static __global__ void product_without_fence(float *) {
    DYNAMIC_SHARED(shared);
    float d[32] = {};
    wgmma_m64nNk16<64, bf16>(d, tile_at(shared), tile_at(shared + 8192), false);
    wgmma_commit();
    wgmma_wait<0>();
}

static __global__ void product_of_half_a_group(float *) {
    DYNAMIC_SHARED(shared);
    float d[32] = {};
    wgmma_fence();
    if (THREAD < 64) {
        wgmma_m64nNk16<64, bf16>(d, tile_at(shared), tile_at(shared + 8192), false);
        wgmma_commit();
        wgmma_wait<0>();
    }
}

static __global__ void product_past_shared(float *) {
    DYNAMIC_SHARED(shared);
    float d[32] = {};
    wgmma_fence();
    wgmma_m64nNk16<64, bf16>(d, tile_at(shared + 8192), tile_at(shared + SHARED - 2048), false);
    wgmma_commit();
    wgmma_wait<0>();
}

static __global__ void product_inside_a_pattern(float *) {
    DYNAMIC_SHARED(shared);
    float d[32] = {};
    wgmma_fence();
    wgmma_m64nNk16<64, bf16>(d, tile_at(shared + 128), tile_at(shared + 8192), false);
    wgmma_commit();
    wgmma_wait<0>();
}

static __global__ void product_used_too_early(float *) {
    DYNAMIC_SHARED(shared);
    float d[32] = {};
    wgmma_fence();
    wgmma_m64nNk16<64, bf16>(d, tile_at(shared), tile_at(shared + 8192), false);
    wgmma_commit();
    accumulator_ready(d);
    wgmma_wait<0>();
}

static __global__ void product_not_waited_for(float *) {
    DYNAMIC_SHARED(shared);
    float d[32] = {};
    wgmma_fence();
    wgmma_m64nNk16<64, bf16>(d, tile_at(shared), tile_at(shared + 8192), false);
    wgmma_commit();
}

static __global__ void products_of_other_tiles(float *) {
    DYNAMIC_SHARED(shared);
    float d[32] = {};
    wgmma_fence();
    wgmma_m64nNk16<64, bf16>(d, tile_at(shared + WARP * 1024), tile_at(shared + 8192), false);
    wgmma_commit();
    wgmma_wait<0>();
}

static __global__ void products_at_two_places(float *) {
    DYNAMIC_SHARED(shared);
    float d[32] = {};
    wgmma_fence();
    if (WARP % 2)
        wgmma_m64nNk16<64, bf16>(d, tile_at(shared), tile_at(shared + 8192), false);
    else
        wgmma_m64nNk16<64, bf16>(d, tile_at(shared), tile_at(shared + 8192), false);
    wgmma_commit();
    wgmma_wait<0>();
}

static __global__ void too_many_registers(float *) { set_max_registers_inc<256>(); }

static __global__ void registers_of_no_group(float *) { set_max_registers_dec<40>(); }

/* ---- the rows ---- */

#define ON(kernel, threads) [](float *g) { return LAUNCH(kernel, dim3(2), dim3(threads), SHARED, nullptr, g); }
#define ON_128(kernel) ON(kernel, 128)
#define WITH_MAP(kernel, rows)                                                                               \
    [](float *g) { return LAUNCH(kernel, dim3(1), dim3(128), SHARED, nullptr, map_of(g, rows), g); }
#define LOADING(offset, expected, rows)                                                                      \
    [](float *g) {                                                                                           \
        return LAUNCH(tile_load, dim3(1), dim3(128), SHARED, nullptr, map_of(g, rows), g, offset, expected); \
    }

extern "C" const struct misuse instruction_misuse_cases[] = {
    {"copy_to_odd_address", ON_128(copy_to_odd_address), {"cp_async_16: destination", "not a multiple of 16"}},
    {"copy_from_odd_address", ON_128(copy_from_odd_address), {"cp_async_16: source", "not a multiple of 16"}},
    {"copy_too_long", ON_128(copy_too_long), {"src_bytes is 17", "0 to 16"}},
    {"copy_past_shared", ON_128(copy_past_shared), {"outside dynamic shared memory", "of 32768 bytes"}},
    {"copy_past_buffer", ON_128(copy_past_buffer), {"nearest is misused: offset 1048576 of 4096 bytes"}},
    {"copy_never_waited_for", ON_128(copy_never_waited_for), {"exits without waiting for its cp_async_16"}},
    {"matrix_odd_address", ON_128(matrix_odd_address), {"ldmatrix_x4", "not a multiple of 16"}},
    {"matrix_past_shared", ON_128(matrix_past_shared), {"ldmatrix_x4: a row", "outside dynamic shared memory"}},
    {"matrix_stored_before_shared",
     ON_128(matrix_stored_before_shared),
     {"stmatrix_x4: a row", "outside dynamic shared memory: offset -16"}},
    {"product_of_half_a_warp", ON_128(product_of_half_a_warp), {"mma_m16n8k16<bf16>", "exited"}},
    {"product_at_two_places", ON_128(product_at_two_places), {"mma_m16n8k16<bf16>", "at another place"}},
    {"barrier_not_initialised",
     ON_128(barrier_not_initialised),
     {"mbarrier_wait", "shared offset 16384 is not initialised"}},
    {"barrier_of_nobody", ON_128(barrier_of_nobody), {"mbarrier_init: count is 0"}},
    {"barrier_at_odd_address", ON_128(barrier_at_odd_address), {"mbarrier_init", "not a multiple of 8"}},
    {"barrier_in_global_memory",
     ON_128(barrier_in_global_memory),
     {"mbarrier_init", "outside dynamic shared memory"}},
    {"barrier_overwritten", ON_128(barrier_overwritten), {"mbarrier_arrive", "overwritten"}},
    {"one_arrival_short", ON_128(one_arrival_short), {"wait in mbarrier_wait for parity 0", "lacks 1 of 2 arrivals"}},
    {"one_arrival_more", ON_128(one_arrival_more), {"all 1 arrivals of this phase", "lacks 64 bytes"}},
    {"wrong_parity",
     ON_128(wrong_parity),
     {"wait in mbarrier_wait for parity 1", "parity 1 that lacks 128 of 128 arrivals"}},
    {"parity_two", ON_128(parity_two), {"parity is 2"}},
    {"initialised_under_a_waiter", ON_128(initialised_under_a_waiter), {"mbarrier"}},
    {"tile_without_fence", WITH_MAP(tile_without_fence, 32), {"tma_load_2d", "mbarrier_init_fence"}},
    {"tile_of_too_few_bytes", LOADING(0, 1040, 32), {"wait in mbarrier_wait", "0 of 1 arrivals and 16 bytes"}},
    {"tile_of_too_many_bytes", LOADING(0, 1008, 32), {"wait in mbarrier_wait", "and -16 bytes"}},
    {"tile_inside_a_pattern", LOADING(512, 1024, 32), {"tma_load_2d", "multiple of 1024 bytes"}},
    {"tile_past_shared", LOADING(SHARED, 1024, 32), {"tma_load_2d: destination", "outside dynamic shared memory"}},
    {"tile_past_buffer",
     [](float *g) { return load_with(map_of(g + (1 << 20), 32), g); },
     {"tma_load_2d: a row of the box", "nearest is misused"}},
    {"tile_without_map", [](float *g) { return load_with(tensor_map{}, g); }, {"tensor_map_encode"}},
    {"store_not_waited_for",
     WITH_MAP(store_not_waited_for, 32),
     {"exits without waiting for its tma_store_2d", "thread (0,0,0)"}},
    {"two_counts", ON_128(two_counts), {"named_barrier_sync: barrier 1 with"}},
    {"barrier_zero", ON_128(barrier_zero), {"named_barrier_sync: barrier 0", "1 to 15"}},
    {"barrier_of_48", ON_128(barrier_of_48), {"48 threads", "multiple of 32"}},
    {"barrier_of_more_than_all", ON_128(barrier_of_more_than_all), {"160 threads", "the block's 128"}},
    {"barrier_twice", ON_128(barrier_twice), {"warp 0 comes to barrier 1 twice"}},
    {"barrier_short_of_a_warp",
     ON_128(barrier_short_of_a_warp),
     {"threads 0..63 wait in named_barrier_sync", "named barrier 3 has 64 of 96 threads"}},
    {"barrier_of_half_a_warp", ON_128(barrier_of_half_a_warp), {"named_barrier_sync", "exited"}},
    {"product_without_fence", ON_128(product_without_fence), {"wgmma without a wgmma_fence"}},
    {"product_of_half_a_group",
     ON_128(product_of_half_a_group),
     {"threads 0..63 wait in wgmma_wait", "64 of warpgroup 0's 128 threads have issued"}},
    {"product_of_three_warps", ON(product_of_half_a_group, 96), {"not in a whole warpgroup", "96 threads"}},
    {"product_past_shared", ON_128(product_past_shared), {"wgmma: B's descriptor leads outside", "of 32768 bytes"}},
    {"product_inside_a_pattern",
     ON_128(product_inside_a_pattern),
     {"wgmma: A's swizzled tile starts at shared offset 128", "1024 bytes"}},
    {"product_used_too_early", ON_128(product_used_too_early), {"accumulator_ready", "has not been waited for"}},
    {"product_not_waited_for", ON_128(product_not_waited_for), {"exits without waiting for its wgmma"}},
    {"products_of_other_tiles", ON_128(products_of_other_tiles), {"descriptors or accumulate differ"}},
    {"products_at_two_places", ON_128(products_at_two_places), {"wgmma: other threads of the warpgroup issue"}},
    {"too_many_registers", ON(too_many_registers, 384), {"set_max_registers_inc", "at least", "65536"}},
    {"registers_of_no_group", ON(registers_of_no_group, 96), {"set_max_registers_dec", "96 threads"}},
    {},
};

extern "C" const struct misuse instruction_misuse_lazy = {
    "tile_not_waited_for", WITH_MAP(tile_not_waited_for, 32), {"the block ends before its tile has come"}};

static const char *encode(struct tensor_map_2d of) {
    struct tensor_map map;
    return tensor_map_encode(&map, of);
}

extern "C" const struct misuse instruction_misuse_launches[] = {
    {"map_of_odd_address",
     [](float *g) { return encode({g + 1, TENSOR_MAP_F32, 32, 32, 128, 32, 8, SWIZZLE_128B}); },
     {"multiple of 16 bytes"}},
    {"map_of_odd_rows",
     [](float *g) { return encode({g, TENSOR_MAP_F32, 31, 32, 124, 32, 8, SWIZZLE_128B}); },
     {"rows a multiple of 16 bytes apart"}},
    {"map_of_no_rows",
     [](float *g) { return encode({g, TENSOR_MAP_F32, 32, 0, 128, 32, 8, SWIZZLE_128B}); },
     {"1 to 2^32 - 1 rows"}},
    {"map_of_wide_boxes",
     [](float *g) { return encode({g, TENSOR_MAP_F32, 32, 32, 128, 64, 8, SWIZZLE_128B}); },
     {"at most 128 bytes"}},
    {"map_of_wide_64B_boxes",
     [](float *g) { return encode({g, TENSOR_MAP_BF16, 32, 32, 128, 64, 8, SWIZZLE_64B}); },
     {"at most 64 bytes"}},
    {"map_of_tall_boxes",
     [](float *g) { return encode({g, TENSOR_MAP_F32, 32, 32, 128, 32, 257, SWIZZLE_NONE}); },
     {"1 to 256"}},
    {"map_of_odd_boxes",
     [](float *g) { return encode({g, TENSOR_MAP_BF16, 32, 32, 128, 12, 8, SWIZZLE_NONE}); },
     {"rows are a multiple of 16 bytes"}},
    {},
};
