/* ptx_base - what the instruction headers share: how a body is chosen, and
 * shared-memory addresses. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_PTX_BASE_CUH
#define KERNELS_LANG_PTX_BASE_CUH

#include "kernels/lang/kernel.cuh"

/* PTX_CALLER ends a parameter list, PTX_CALLER_ONLY is one: the host bodies know
 * their caller's line. */
#ifdef __CUDACC__
#define PTX_CALLER
#define PTX_CALLER_ONLY
#else
#include "kernels/simt/instructions/instructions.h"
#define PTX_CALLER , SIMT_CALLER
#define PTX_CALLER_ONLY SIMT_CALLER
#endif

/* An instruction of sm_90, and one of sm_90a alone; older GPUs trap. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define PTX_SM90(...) asm volatile(__VA_ARGS__)
#else
#define PTX_SM90(...) __trap()
#endif
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PTX_SM90A(...) asm volatile(__VA_ARGS__)
#else
#define PTX_SM90A(...) __trap()
#endif

/* Where p stands in the shared window, whose addresses have 18 bits. */
__device__ __forceinline__ uint32_t shared_address(const void *p) {
#ifdef __CUDACC__
    return (uint32_t)__cvta_generic_to_shared(p);
#else
    return simt::shared_address(p);
#endif
}

/* How a tile's 16-byte chunks are permuted so that eight rows of a column lie in different banks.
 * The values are the wgmma descriptor's (PTX ISA 9.7.15.5.1). */
enum shared_swizzle { SWIZZLE_NONE = 0, SWIZZLE_128B = 1, SWIZZLE_64B = 2 };

/* Byte `offset` of a tile of 128 (64) byte rows lies at this byte; the tile starts at
 * a multiple of 1024. */
__host__ __device__ __forceinline__ constexpr uint32_t swizzle_offset(enum shared_swizzle swizzle,
                                                                      uint32_t offset) {
    return swizzle == SWIZZLE_128B  ? offset ^ (offset >> 3 & 0x70)
           : swizzle == SWIZZLE_64B ? offset ^ (offset >> 3 & 0x30)
                                    : offset;
}

#endif
