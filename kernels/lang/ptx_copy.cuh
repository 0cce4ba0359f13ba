/* ptx_copy - copies that run beside the threads: cp.async (each thread its 16 bytes), and TMA (one
 * thread asks for a whole tile, an mbarrier says when it is there). Until a copy has been waited
 * for, its bytes are nobody's: the host device moves them at the wait, at the issue, or at random
 * in between (simt_options). */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_PTX_COPY_CUH
#define KERNELS_LANG_PTX_COPY_CUH

#include "kernels/lang/ptx_base.cuh"
#include "kernels/lang/tensor_map.h"

/* ---- cp.async, PTX ISA 9.7.9.25.3 ---- */

/* 16 bytes from global to shared memory, both 16-byte aligned; of them the first src_bytes are
 * read, the rest becomes zero. src_bytes = 0 reads nothing: src may be any aligned address. */
__device__ __forceinline__ void cp_async_16(void *dst, const void *src, int src_bytes PTX_CALLER) {
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst)), "l"(src),
                 "r"(src_bytes)
                 : "memory");
#else
    simt::cp_async_16(dst, src, src_bytes, SIMT_PLACE);
#endif
}
/* The calling thread's copies since the last commit become one group. */
__device__ __forceinline__ void cp_async_commit(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    simt::cp_async_commit(SIMT_PLACE);
#endif
}
/* All but the last N groups of the calling thread are done. Other threads see them
 * after a barrier. */
template <int N> __device__ __forceinline__ void cp_async_wait(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
    simt::cp_async_wait(N, SIMT_PLACE);
#endif
}

/* ---- mbarrier, PTX ISA 9.7.13.15 (sm_90) ----
 * Phases 0, 1, 2.. end when `count` threads have arrived and all bytes expected in the phase
 * have come. It lives in shared memory; one thread inits it, then calls mbarrier_init_fence,
 * then all pass a barrier. */
struct mbarrier {
    uint64_t opaque;
};

__device__ __forceinline__ void mbarrier_init(struct mbarrier *bar, int count PTX_CALLER) {
#ifdef __CUDACC__
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory");
#else
    simt::mbarrier_init(bar, count, SIMT_PLACE);
#endif
}
/* fence.mbarrier_init, PTX ISA 9.7.13.4: TMA may see the barriers this thread has initialised. */
__device__ __forceinline__ void mbarrier_init_fence(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    PTX_SM90("fence.mbarrier_init.release.cluster;" ::: "memory");
#else
    simt::mbarrier_init_fence(SIMT_PLACE);
#endif
}
__device__ __forceinline__ void mbarrier_arrive(struct mbarrier *bar PTX_CALLER) {
#ifdef __CUDACC__
    PTX_SM90("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
#else
    simt::mbarrier_arrive(bar, 0, "mbarrier_arrive", SIMT_PLACE);
#endif
}
/* The phase expects `bytes` more; then arrive. */
__device__ __forceinline__ void mbarrier_arrive_expect_tx(struct mbarrier *bar, uint32_t bytes PTX_CALLER) {
#ifdef __CUDACC__
    PTX_SM90("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes)
             : "memory");
#else
    simt::mbarrier_arrive(bar, bytes, "mbarrier_arrive_expect_tx", SIMT_PLACE);
#endif
}
/* Wait until the phase of this parity is over: 0 for phases 0, 2, .., 1 for 1, 3, .. A
 * fresh barrier counts its phase of parity 1 as over, which is what a producer's first wait
 * for an empty stage wants. */
__device__ __forceinline__ void mbarrier_wait(struct mbarrier *bar, uint32_t parity PTX_CALLER) {
#ifdef __CUDACC__
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    uint32_t over;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(over)
                     : "r"(shared_address(bar)), "r"(parity)
                     : "memory");
    } while (!over);
#else
    __trap();
#endif
#else
    simt::mbarrier_wait(bar, parity, SIMT_PLACE);
#endif
}

/* ---- TMA, PTX ISA 9.7.9.25.5.2 cp.async.bulk.tensor (sm_90) ----
 * A box of a matrix that a tensor_map describes (tensor_map.h), its corner at column x, row y; x is
 * a multiple of 16 bytes, and parts of the box may lie outside the matrix. The kernel's parameter
 * is `const __grid_constant__ struct tensor_map map`, and &map goes here. The shared tile has
 * box_rows rows of box_cols elements without gaps, permuted by the map's swizzle; it starts at a
 * multiple of 128 bytes, with SWIZZLE_64B of 512, with SWIZZLE_128B of 1024. */

/* One thread. Elements outside the matrix come as zeros, x and y may be negative; all bytes of the
 * box count towards bar's phase. */
__device__ __forceinline__ void tma_load_2d(void *dst, const struct tensor_map *map, struct mbarrier *bar,
                                            int x, int y PTX_CALLER) {
#ifdef __CUDACC__
    PTX_SM90("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
             "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(dst)),
             "l"(map), "r"(shared_address(bar)), "r"(x), "r"(y)
             : "memory");
#else
    simt::tma_load_2d(dst, map, bar, x, y, SIMT_PLACE);
#endif
}

/* One thread, after the writers' fence_proxy_async and a barrier. x and y are not negative.
 * What lies outside is not written, but a row whose length is no multiple of 16 bytes is
 * filled up to the next one. */
__device__ __forceinline__ void tma_store_2d(const struct tensor_map *map, const void *src, int x,
                                             int y PTX_CALLER) {
#ifdef __CUDACC__
    PTX_SM90("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
             "r"(shared_address(src)), "r"(x), "r"(y)
             : "memory");
#else
    simt::tma_store_2d(map, src, x, y, SIMT_PLACE);
#endif
}
__device__ __forceinline__ void tma_store_commit(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    PTX_SM90("cp.async.bulk.commit_group;" ::: "memory");
#else
    simt::tma_store_commit(SIMT_PLACE);
#endif
}
/* All but the last N groups of the calling thread are stored; _read: have been read out of shared
 * memory, which may be refilled. The thread may not exit before that. */
template <int N> __device__ __forceinline__ void tma_store_wait(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    PTX_SM90("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
#else
    simt::tma_store_wait(N, "tma_store_wait", SIMT_PLACE);
#endif
}
template <int N> __device__ __forceinline__ void tma_store_wait_read(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    PTX_SM90("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
#else
    simt::tma_store_wait(N, "tma_store_wait_read", SIMT_PLACE);
#endif
}

#endif
