/* ptx_math - elementary functions the GPU has an instruction for. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_PTX_MATH_CUH
#define KERNELS_LANG_PTX_MATH_CUH

#include "kernels/lang/ptx_base.cuh"

/* 2^x by ex2.approx.ftz (PTX ISA 9.7.3.21): relative error at most 2^-22, results below 2^-126 are
 * 0 on the GPU; 2^-inf = 0 on both devices. */
__device__ __forceinline__ float exp2_approx(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return __builtin_exp2f(x);
#endif
}

#endif
