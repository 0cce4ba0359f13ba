/* arrival - a residual whose result hangs on which thread of a block comes last, as a kernel with a
 * forgotten barrier has it; its atomic keeps it from being a data race, so that only other orders
 * of the threads can
 * show it. Shapes  x, add, out [T, M] fp32 or bf16.   Grid  T: a row each.   Block  64 threads. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/kernel.cuh"
#include "kernels/kernels.h"

constexpr unsigned THREADS = 64;

template <class T> static __global__ void arrival_kernel(const struct residual_args a) {
    __shared__ int last;
    atomicExch(&last, (int)threadIdx.x);
    __syncthreads();
    const bool upper_half_was_last = last >= (int)THREADS / 2;
    const int64_t row = blockIdx.x;
    for (int64_t i = threadIdx.x; i < a.width; i += THREADS) {
        const float x = to_float(((const T *)a.x.data)[row * a.x.stride[0] + i]);
        const float add = to_float(((const T *)a.add.data)[row * a.add.stride[0] + i]);
        ((T *)a.out.data)[row * a.out.stride[0] + i] = from_float<T>(upper_half_was_last ? x + add : x);
    }
}

extern "C" const char *KERNEL_SYMBOL(arrival)(const struct call *call, void *, void *stream) {
    const struct residual_args &a = call->u.residual;
    const dim3 grid((unsigned)a.n_tokens), block(THREADS);
    if (a.out.dtype == DTYPE_F32) return LAUNCH((arrival_kernel<float>), grid, block, 0, stream, a);
    return LAUNCH((arrival_kernel<bf16>), grid, block, 0, stream, a);
}
