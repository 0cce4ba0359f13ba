/* instruction_misuse - each kernel makes one mistake with an instruction of a whole warp or
 * warpgroup; the executor must answer with one line, under every order of threads. copy_misuse.cu
 * does the same for copies. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/ptx.cuh"
#include "tests/kernels/simt_cases.h"

#define THREAD ((int)threadIdx.x)
#define WARP (THREAD / 32)
#define LANE (THREAD % 32)

enum { SHARED = 32768 }; /* bytes of shared memory */

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

#define ON(kernel, threads)                                                                                  \
    [](float *g) { return LAUNCH(kernel, dim3(2), dim3(threads), SHARED, nullptr, g); }
#define ON_128(kernel) ON(kernel, 128)

extern "C" const struct misuse instruction_misuse_cases[] = {
    {"matrix_odd_address", ON_128(matrix_odd_address), {"ldmatrix_x4", "not a multiple of 16"}},
    {"matrix_past_shared",
     ON_128(matrix_past_shared),
     {"ldmatrix_x4: a row", "outside dynamic shared memory"}},
    {"matrix_stored_before_shared",
     ON_128(matrix_stored_before_shared),
     {"stmatrix_x4: a row", "outside dynamic shared memory: offset -16"}},
    {"product_of_half_a_warp", ON_128(product_of_half_a_warp), {"mma_m16n8k16<bf16>", "exited"}},
    {"product_at_two_places", ON_128(product_at_two_places), {"mma_m16n8k16<bf16>", "at another place"}},
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
    {"product_past_shared",
     ON_128(product_past_shared),
     {"wgmma: B's descriptor leads outside", "of 32768 bytes"}},
    {"product_inside_a_pattern",
     ON_128(product_inside_a_pattern),
     {"wgmma: A's swizzled tile starts at shared offset 128", "1024 bytes"}},
    {"product_used_too_early",
     ON_128(product_used_too_early),
     {"accumulator_ready", "has not been waited for"}},
    {"product_not_waited_for", ON_128(product_not_waited_for), {"exits without waiting for its wgmma"}},
    {"products_of_other_tiles", ON_128(products_of_other_tiles), {"descriptors or accumulate differ"}},
    {"products_at_two_places",
     ON_128(products_at_two_places),
     {"wgmma: other threads of the warpgroup issue"}},
    {"too_many_registers", ON(too_many_registers, 384), {"set_max_registers_inc", "at least", "65536"}},
    {"registers_of_no_group", ON(registers_of_no_group, 96), {"set_max_registers_dec", "96 threads"}},
    {},
};
