/* ptx_sync - barriers of some warps, the fence between the two ways to shared memory, register
 * budgets, and what a warp has in common. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_PTX_SYNC_CUH
#define KERNELS_LANG_PTX_SYNC_CUH

#include "kernels/lang/ptx_base.cuh"

/* bar.sync and bar.arrive, PTX ISA 9.7.13.1: `threads` (a multiple of 32) come to barrier
 * `id`, whole warps each; sync waits for all of them, arrive does not. id is 1..15:
 * __syncthreads has number 0. */
__device__ __forceinline__ void named_barrier_sync(int id, int threads PTX_CALLER) {
#ifdef __CUDACC__
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
    simt::named_barrier(id, threads, true, SIMT_PLACE);
#endif
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads PTX_CALLER) {
#ifdef __CUDACC__
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
    simt::named_barrier(id, threads, false, SIMT_PLACE);
#endif
}

/* x of lane 0, for what all lanes have alike: the compiler does not see that of values out of memory or
 * thread numbers, and the tensor cores' descriptors want registers that a warp has once. */
__device__ __forceinline__ int warp_uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }

/* fence.proxy.async, PTX ISA 9.7.13.4 (sm_90): this thread's own reads and writes of shared memory
 * come before what TMA and wgmma do with it after the next barrier. */
__device__ __forceinline__ void fence_proxy_async(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    PTX_SM90("fence.proxy.async.shared::cta;" ::: "memory");
#else
    simt::fence_proxy_async(SIMT_PLACE);
#endif
}

/* setmaxnreg, PTX ISA 9.7.19.5 (sm_90a): the calling warpgroup's registers a thread from here on, a
 * multiple of 8 from 24 to 256. inc waits until dec of other warpgroups has freed enough. */
template <int N> __device__ __forceinline__ void set_max_registers_inc(PTX_CALLER_ONLY) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "setmaxnreg takes a multiple of 8 from 24 to 256");
#ifdef __CUDACC__
    PTX_SM90A("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
#else
    simt::set_max_registers(N, true, SIMT_PLACE);
#endif
}
template <int N> __device__ __forceinline__ void set_max_registers_dec(PTX_CALLER_ONLY) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "setmaxnreg takes a multiple of 8 from 24 to 256");
#ifdef __CUDACC__
    PTX_SM90A("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#else
    simt::set_max_registers(N, false, SIMT_PLACE);
#endif
}

#endif
