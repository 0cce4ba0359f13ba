/* kernel - the one header a kernel file includes, and the only way it may launch, share memory or
 * touch bf16. Under nvcc everything here is a thin name for CUDA; under g++ (-x c++) the same
 * source runs on the SIMT executor (kernels/simt), one fiber per CUDA thread. What each name
 * promises is said here once for both. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_KERNEL_CUH
#define KERNELS_LANG_KERNEL_CUH

#include <stddef.h>
#include <stdint.h>

#include "kernels/lang/seeded.h"
#ifdef __CUDACC__
#include "kernels/lang/kernel_cuda.cuh"
#else
#include "kernels/lang/kernel_host.h"
#endif

/* Each of the two headers defines
 *   KERNEL_SYMBOL(name)      the exported launcher: name_host or name_cuda
 *   LAUNCH(kernel, grid, block, shared_bytes, stream, args...)
 *                            queue it; NULL, or one line that says why it was refused. Arguments go
 *                            by value. A template kernel in parentheses: LAUNCH((k<64, true>), ...)
 *   DYNAMIC_SHARED(name)     `name` points at the block's dynamic shared memory, 1024-byte aligned
 *   SHARED_RED_ZONE          bytes nobody owns after every carved array (AddressSanitizer; else 0)
 *   shared_red_zone(p, n)    nobody may touch these n bytes
 *   shared_stale(p, n)       these bytes are about to be refilled: NaN on the host, nothing on the
 *                            GPU. For the bytes the calling thread refills itself, or by one thread
 *                            between two barriers
 *   bf16, f16                the 2-byte storage types; bf16_to_float, bf16_from_float (nearest
 *                            even), f16_.. */

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return bf16_to_float(x); }
__device__ __forceinline__ float to_float(f16 x) { return f16_to_float(x); }

template <class T> struct float_rounding;
template <> struct float_rounding<float> {
    static __device__ __forceinline__ float round(float x) { return x; }
};
template <> struct float_rounding<bf16> {
    static __device__ __forceinline__ bf16 round(float x) { return bf16_from_float(x); }
};
template <> struct float_rounding<f16> {
    static __device__ __forceinline__ f16 round(float x) { return f16_from_float(x); }
};
template <class T> __device__ __forceinline__ T from_float(float x) { return float_rounding<T>::round(x); }

/* What one take() of n elements costs; the sum over the takes is the launch's shared_bytes. */
template <class T> __host__ __device__ constexpr size_t carve_bytes(size_t n) {
    return (n * sizeof(T) + 15) / 16 * 16 + SHARED_RED_ZONE;
}

/* The same for take_tile(). */
template <class T> __host__ __device__ constexpr size_t carve_tile_bytes(size_t n) {
    return (n * sizeof(T) + SHARED_RED_ZONE + 1023) / 1024 * 1024;
}

/* Loops over a thread's few values: nvcc must unroll them to keep arrays in registers; g++ must
 * leave the innermost one (LANE_LOOP) to its vectoriser, which would otherwise work across the
 * outer loop, several times slower. */
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define LANE_LOOP _Pragma("unroll")
#else
#define UNROLL
#define LANE_LOOP _Pragma("GCC unroll 1")
#endif

/* This is read soon; any address will do. On a GPU the lanes of a warp read together; the host's
 * threads come one after the other, with strides that its caches do not foresee. */
__device__ __forceinline__ void read_ahead(const void *p) {
#ifdef __CUDACC__
    (void)p;
#else
    __builtin_prefetch(p, 0, 2);
#endif
}

/* Cuts dynamic shared memory into typed, 16-byte aligned arrays: DYNAMIC_SHARED(shared);
 * struct carve c{shared}; */
struct carve {
    unsigned char *next;

    template <class T> __device__ __forceinline__ T *take(size_t n) { return cut<T>(n, carve_bytes<T>(n)); }

    /* 1024-byte aligned, as long as no take() came before: tiles first. */
    template <class T> __device__ __forceinline__ T *take_tile(size_t n) {
        return cut<T>(n, carve_tile_bytes<T>(n));
    }

    template <class T> __device__ __forceinline__ T *cut(size_t n, size_t bytes) {
        T *const array = reinterpret_cast<T *>(next);
        next += bytes;
        shared_red_zone(reinterpret_cast<unsigned char *>(array + n), bytes - n * sizeof(T));
        return array;
    }
};

#endif
