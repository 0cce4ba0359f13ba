/* ptx_mma - matrix fragments of one warp: load, store, multiply. All 32 lanes come to
 * the same call.
 *
 * A fragment register holds two 16-bit elements, the lower column (or row, for b) in its low half.
 * With g = lane / 4 and t = lane % 4:
 *   an 8 x 8 matrix   r = M[g][2t, 2t+1]
 *   a  [16][16]       a[0] = A[g][2t..]    a[1] = A[g+8][2t..]
 *                     a[2] = A[g][2t+8..]  a[3] = A[g+8][2t+8..]
 *   b  [16][8]        b[0] = B[2t..][g]  b[1] = B[2t+8..][g]
 *   d  [16][8]        d[0,1] = D[g][2t, 2t+1]  d[2,3] = D[g+8][2t, 2t+1] */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_PTX_MMA_CUH
#define KERNELS_LANG_PTX_MMA_CUH

#include "kernels/lang/ptx_base.cuh"

/* Two floats rounded to nearest even: a fragment register. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#ifdef __CUDACC__
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    return bf16_from_float(low).bits | (uint32_t)bf16_from_float(high).bits << 16;
#endif
}
__device__ __forceinline__ uint32_t pack_f16(float low, float high) {
#ifdef __CUDACC__
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    return f16_from_float(low).bits | (uint32_t)f16_from_float(high).bits << 16;
#endif
}

/* ldmatrix, PTX ISA 9.7.14.5.15: lane 8 m + i brings the 16-byte aligned shared address of row i of
 * matrix m, and every lane receives its elements of matrix m in r[m]. _trans: of the transposed
 * matrices. x2 reads the addresses of lanes 0..15. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t *r, const void *row PTX_CALLER) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
#else
    simt::ldmatrix(r, 4, false, row, "ldmatrix_x4", SIMT_PLACE);
#endif
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t *r, const void *row PTX_CALLER) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
#else
    simt::ldmatrix(r, 4, true, row, "ldmatrix_x4_trans", SIMT_PLACE);
#endif
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t *r, const void *row PTX_CALLER) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
#else
    simt::ldmatrix(r, 2, false, row, "ldmatrix_x2", SIMT_PLACE);
#endif
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t *r, const void *row PTX_CALLER) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
#else
    simt::ldmatrix(r, 2, true, row, "ldmatrix_x2_trans", SIMT_PLACE);
#endif
}

/* stmatrix, PTX ISA 9.7.14.5.16 (sm_90): the inverse of ldmatrix. */
__device__ __forceinline__ void stmatrix_x4(void *row, const uint32_t *r PTX_CALLER) {
#ifdef __CUDACC__
    PTX_SM90("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
             "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
             : "memory");
#else
    simt::stmatrix(row, r, 4, false, "stmatrix_x4", SIMT_PLACE);
#endif
}
__device__ __forceinline__ void stmatrix_x4_trans(void *row, const uint32_t *r PTX_CALLER) {
#ifdef __CUDACC__
    PTX_SM90(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
        : "memory");
#else
    simt::stmatrix(row, r, 4, true, "stmatrix_x4_trans", SIMT_PLACE);
#endif
}

/* mma, PTX ISA 9.7.14.5.14: d[16][8] += a[16][16] b[16][8], T = bf16 or f16, sums in fp32. */
template <class T> struct mma_product;
template <> struct mma_product<bf16> {
    static __device__ __forceinline__ void add(float *d, const uint32_t *a, const uint32_t *b PTX_CALLER) {
#ifdef __CUDACC__
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
        simt::mma_m16n8k16(d, a, b, simt::TENSOR_BF16, SIMT_PLACE);
#endif
    }
};
template <> struct mma_product<f16> {
    static __device__ __forceinline__ void add(float *d, const uint32_t *a, const uint32_t *b PTX_CALLER) {
#ifdef __CUDACC__
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
        simt::mma_m16n8k16(d, a, b, simt::TENSOR_F16, SIMT_PLACE);
#endif
    }
};
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float *d, const uint32_t *a, const uint32_t *b PTX_CALLER) {
#ifdef __CUDACC__
    mma_product<T>::add(d, a, b);
#else
    mma_product<T>::add(d, a, b, caller_file, caller_line);
#endif
}

#endif
