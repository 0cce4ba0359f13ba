/* ptx - the PTX instructions a kernel may use, each a function with two bodies side by
 * side: inline PTX under nvcc, emulation by the SIMT executor under g++. What is not here
 * does not compile: an instruction enters together with its emulation and its test.
 * Sections are those of the PTX ISA 9.0.
 *
 *   ptx_mma.cuh     ldmatrix, stmatrix, mma.sync: a warp multiplies 16 x 8 x 16
 *   ptx_copy.cuh    cp.async, mbarrier, TMA: copies that run beside the threads
 *   ptx_wgmma.cuh   wgmma: four warps multiply 64 x N x 16 out of shared memory
 *   ptx_sync.cuh    named barriers, proxy fence, register budgets
 *
 * Pointers are generic; those the comments call shared point into DYNAMIC_SHARED. On
 * a GPU older than an instruction the kernel traps: a launcher that needs sm_90a says
 * so in what it supports. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_PTX_CUH
#define KERNELS_LANG_PTX_CUH

#include "kernels/lang/ptx_copy.cuh"
#include "kernels/lang/ptx_mma.cuh"
#include "kernels/lang/ptx_sync.cuh"
#include "kernels/lang/ptx_wgmma.cuh"

#endif
