/* ptx_wgmma - products of a warpgroup (four warps, the first a multiple of four) that run beside
 * its threads: D[64][N] += A[64][16] B[16][N], A and B read from shared memory through
 * descriptors, or A from registers.
 *
 *   accumulator_fresh(d);                       where the first product has accumulate = false
 *   wgmma_fence();                              after touching the accumulators
 *   wgmma_m64nNk16<N, bf16>(d, desc_a, desc_b, true);  ...more of them
 *   wgmma_commit();                             they are one group
 *   wgmma_wait<0>();                            all but the last 0 groups are done
 *   accumulator_ready(d);                       now d may be read
 *
 * Between product and wait nobody may touch d, A's registers or the tiles. Thread 32 w + 4 g + t of
 * the warpgroup holds, for every i < N / 8:
 *   d[4i, 4i+1]   = D[16w + g][8i + 2t, 8i + 2t + 1]
 *   d[4i+2, 4i+3] = D[16w + g + 8][8i + 2t, 8i + 2t + 1]
 * and A from registers as in ptx_mma.cuh, its rows shifted by 16w. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_PTX_WGMMA_CUH
#define KERNELS_LANG_PTX_WGMMA_CUH

#include "kernels/lang/ptx_base.cuh"

/* wgmma.fence, .commit_group, .wait_group: PTX ISA 9.7.15.7 (sm_90a) */
__device__ __forceinline__ void wgmma_fence(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    PTX_SM90A("wgmma.fence.sync.aligned;" ::: "memory");
#else
    simt::wgmma_fence(SIMT_PLACE);
#endif
}
__device__ __forceinline__ void wgmma_commit(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    PTX_SM90A("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
    simt::wgmma_commit(SIMT_PLACE);
#endif
}
template <int N> __device__ __forceinline__ void wgmma_wait(PTX_CALLER_ONLY) {
#ifdef __CUDACC__
    PTX_SM90A("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#else
    simt::wgmma_wait(N, SIMT_PLACE);
#endif
}

/* The compiler does not know that products write d late: this keeps its uses of d behind the wait.
 * On the host it fails while a product into d is pending. */
template <int COUNT> __device__ __forceinline__ void accumulator_ready(float (&d)[COUNT] PTX_CALLER) {
#ifdef __CUDACC__
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
#else
    simt::wgmma_accumulator_ready(d, COUNT, SIMT_PLACE);
#endif
}

/* What d held is of no interest, the first product only writes it: to the compiler its life begins here. */
template <int COUNT> __device__ __forceinline__ void accumulator_fresh(float (&d)[COUNT]) {
#ifdef __CUDACC__
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "=f"(d[i]));
#else
    (void)d;
#endif
}

/* Where a matrix lies in shared memory, PTX ISA 9.7.15.5.1. `mn` is A's row or B's column; the
 * atoms are cut out of the tile as follows, all in bytes:
 *   K-major (rows of k)       no swizzle: 8 mn x 16 bytes of k, stored in 128 bytes without gaps;
 *                             leading = to the next 16 bytes of k, stride = to the next 8 mn
 *                             128B (64B): 8 mn x 128 (64) bytes of k; stride = to the next 8 mn;
 *                             no leading
 *   MN-major (rows of mn)     no swizzle: 8 k x 16 bytes of mn; stride = to the next 16 bytes of
 *                             mn, leading = to the next 8 k
 *                             128B (64B): 8 k x 128 (64) bytes of mn; leading = to the next 128
 *                             (64) bytes of mn, stride = to the next 8 k
 * Swizzled atoms lie as TMA writes them, at multiples of 1024 (512). */
__device__ __forceinline__ uint64_t wgmma_desc(const void *tile, uint32_t leading_bytes,
                                               uint32_t stride_bytes, enum shared_swizzle swizzle) {
    return (uint64_t)((shared_address(tile) & 0x3ffff) >> 4) |
           (uint64_t)((leading_bytes & 0x3ffff) >> 4) << 16 |
           (uint64_t)((stride_bytes & 0x3ffff) >> 4) << 32 | (uint64_t)swizzle << 62;
}
/* The same matrix, `bytes` (a multiple of 16) further on: the next 16 k of a K-major
 * 128B tile are 32 on. */
__device__ __forceinline__ uint64_t wgmma_desc_advance(uint64_t desc, uint32_t bytes) {
    return desc + (bytes >> 4);
}

enum wgmma_major { K_MAJOR = 0, MN_MAJOR = 1 }; /* which index runs along the matrix's rows */

#ifdef __CUDACC__
/* wgmma.mma_async, PTX ISA 9.7.15.5.2: the first R accumulators as operands, R = N / 2 */
#define WGMMA_D16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_D32                                                                                            \
    WGMMA_D16 ", "                                                                                           \
              "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_D48                                                                                            \
    WGMMA_D32 ", "                                                                                           \
              "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_D64                                                                                            \
    WGMMA_D48 ", "                                                                                           \
              "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_D72                                                                                            \
    WGMMA_D64 ", "                                                                                           \
              "%64, %65, %66, %67, %68, %69, %70, %71"
#define WGMMA_D80                                                                                            \
    WGMMA_D64 ", "                                                                                           \
              "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_D88                                                                                            \
    WGMMA_D80 ", "                                                                                           \
              "%80, %81, %82, %83, %84, %85, %86, %87"
#define WGMMA_D96                                                                                            \
    WGMMA_D80 ", "                                                                                           \
              "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_D112                                                                                           \
    WGMMA_D96 ", "                                                                                           \
              "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define WGMMA_D128                                                                                           \
    WGMMA_D112                                                                                               \
    ", "                                                                                                     \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_F4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_F16(i) WGMMA_F4(i), WGMMA_F4(i + 4), WGMMA_F4(i + 8), WGMMA_F4(i + 12)
#define WGMMA_R16 WGMMA_F16(0)
#define WGMMA_R32 WGMMA_R16, WGMMA_F16(16)
#define WGMMA_R48 WGMMA_R32, WGMMA_F16(32)
#define WGMMA_R64 WGMMA_R48, WGMMA_F16(48)
#define WGMMA_R72 WGMMA_R64, WGMMA_F4(64), WGMMA_F4(68)
#define WGMMA_R80 WGMMA_R64, WGMMA_F16(64)
#define WGMMA_R88 WGMMA_R80, WGMMA_F4(80), WGMMA_F4(84)
#define WGMMA_R96 WGMMA_R80, WGMMA_F16(80)
#define WGMMA_R112 WGMMA_R96, WGMMA_F16(96)
#define WGMMA_R128 WGMMA_R112, WGMMA_F16(112)

template <int N, class T> struct wgmma_product;

/* p0..p6 are the numbers of the operands after the R accumulators. */
#define WGMMA_PRODUCT(N, R, TYPE, T, p0, p1, p2, p3, p4, p5, p6)                                             \
    template <> struct wgmma_product<N, T> {                                                                 \
        template <int A_MAJOR, int B_MAJOR>                                                                  \
        static __device__ __forceinline__ void add(float *d, uint64_t a, uint64_t b, bool accumulate) {      \
            PTX_SM90A("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p2 ", 0;\n"                                      \
                      "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" WGMMA_D##R        \
                      "}, %" #p0 ", %" #p1 ", p, 1, 1, %" #p3 ", %" #p4 ";\n}"                               \
                      : WGMMA_R##R                                                                           \
                      : "l"(a), "l"(b), "r"((int)accumulate), "n"(A_MAJOR), "n"(B_MAJOR));                   \
        }                                                                                                    \
        template <int B_MAJOR>                                                                               \
        static __device__ __forceinline__ void add(float *d, const uint32_t *a, uint64_t b,                  \
                                                   bool accumulate) {                                        \
            PTX_SM90A("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p5 ", 0;\n"                                      \
                      "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" WGMMA_D##R        \
                      "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", p, 1, 1, %" #p6 ";\n}"         \
                      : WGMMA_R##R                                                                           \
                      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)accumulate),            \
                        "n"(B_MAJOR));                                                                       \
        }                                                                                                    \
    };
#define WGMMA_SHAPE(N, R, ...)                                                                               \
    WGMMA_PRODUCT(N, R, "bf16", bf16, __VA_ARGS__)                                                           \
    WGMMA_PRODUCT(N, R, "f16", f16, __VA_ARGS__)
WGMMA_SHAPE(32, 16, 16, 17, 18, 19, 20, 21, 22)
WGMMA_SHAPE(64, 32, 32, 33, 34, 35, 36, 37, 38)
WGMMA_SHAPE(96, 48, 48, 49, 50, 51, 52, 53, 54)
WGMMA_SHAPE(128, 64, 64, 65, 66, 67, 68, 69, 70)
WGMMA_SHAPE(144, 72, 72, 73, 74, 75, 76, 77, 78)
WGMMA_SHAPE(160, 80, 80, 81, 82, 83, 84, 85, 86)
WGMMA_SHAPE(176, 88, 88, 89, 90, 91, 92, 93, 94)
WGMMA_SHAPE(192, 96, 96, 97, 98, 99, 100, 101, 102)
WGMMA_SHAPE(256, 128, 128, 129, 130, 131, 132, 133, 134)
#endif

/* N = 32, 64, 96, 128, 144, 160, 176, 192, 256; T = bf16, f16. d: [N / 2]. accumulate = false: d is
 * only written. */
template <int N, class T, int A_MAJOR = K_MAJOR, int B_MAJOR = K_MAJOR>
__device__ __forceinline__ void wgmma_m64nNk16(float *d, uint64_t desc_a, uint64_t desc_b,
                                               bool accumulate PTX_CALLER) {
#ifdef __CUDACC__
    wgmma_product<N, T>::template add<A_MAJOR, B_MAJOR>(d, desc_a, desc_b, accumulate);
#else
    simt::wgmma_issue({simt::wgmma_shape<N, T>::columns, simt::wgmma_shape<N, T>::type, A_MAJOR, B_MAJOR,
                       accumulate, d, nullptr, desc_a, desc_b, SIMT_PLACE});
#endif
}
/* a: [4], this thread's part of A. */
template <int N, class T, int B_MAJOR = K_MAJOR>
__device__ __forceinline__ void wgmma_m64nNk16_ra(float *d, const uint32_t *a, uint64_t desc_b,
                                                  bool accumulate PTX_CALLER) {
#ifdef __CUDACC__
    wgmma_product<N, T>::template add<B_MAJOR>(d, a, desc_b, accumulate);
#else
    simt::wgmma_issue({simt::wgmma_shape<N, T>::columns, simt::wgmma_shape<N, T>::type, K_MAJOR, B_MAJOR,
                       accumulate, d, a, 0, desc_b, SIMT_PLACE});
#endif
}

#endif
