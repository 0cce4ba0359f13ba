/* elementary - f(x) for every float of a run of bit patterns, as kernels compute it.
 * Shapes  out [n] fp32; the argument is made from the index.
 * Grid    up to 256 blocks.   Block  256 threads; a thread takes every (grid * block)-th element.
 * Traffic n floats written; the functions are what is measured, not the time.
 * Numerics the very expressions of the kernels, compiled with their flags: expf (softmax, router,
 *         silu), exp2f and ex2.approx (attention and silu on tensor cores), logf (merge of
 *         slices), 1 / sqrtf (norms), a / b (gates, silu, softmax), __fdividef (silu on tensor
 *         cores; the host divides). */
/* SPDX-License-Identifier: MIT */
#include "kernels/device/elementary.h"

#include "kernels/lang/kernel.cuh"
#include "kernels/lang/ptx_math.cuh"

namespace {

constexpr unsigned THREADS = 256, MAX_BLOCKS = 256;

__device__ __forceinline__ float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

template <int FUNCTION> __device__ __forceinline__ float evaluate(uint32_t bits) {
    const float x = float_of(bits);
    if (FUNCTION == PROBE_EXP) return expf(x);
    if (FUNCTION == PROBE_EXP2) return exp2f(x);
    if (FUNCTION == PROBE_EXP2_APPROX) return exp2_approx(x);
    if (FUNCTION == PROBE_LOG) return logf(x);
    if (FUNCTION == PROBE_RECIPROCAL_ROOT) return 1.0f / sqrtf(x);
    const float numerator = float_of(PROBE_NUMERATOR_BITS(bits));
#ifdef __CUDACC__
    if (FUNCTION == PROBE_FAST_DIVISION) return __fdividef(numerator, x);
#endif
    return numerator / x;
}

template <int FUNCTION>
__global__ void __launch_bounds__(THREADS) probe_kernel(uint32_t first_bits, uint32_t n, float *out) {
    for (uint32_t i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS)
        out[i] = evaluate<FUNCTION>(first_bits + i);
}

template <int FUNCTION> const char *launch(uint32_t first_bits, uint32_t n, float *out, void *stream) {
    const unsigned wanted = (n + THREADS - 1) / THREADS, blocks = wanted < MAX_BLOCKS ? wanted : MAX_BLOCKS;
    return LAUNCH((probe_kernel<FUNCTION>), dim3(blocks), dim3(THREADS), 0, stream, first_bits, n, out);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(probe)(int function, uint32_t first_bits, uint32_t n, float *out,
                                            void *stream) {
    switch (function) {
    case PROBE_EXP: return launch<PROBE_EXP>(first_bits, n, out, stream);
    case PROBE_EXP2: return launch<PROBE_EXP2>(first_bits, n, out, stream);
    case PROBE_EXP2_APPROX: return launch<PROBE_EXP2_APPROX>(first_bits, n, out, stream);
    case PROBE_LOG: return launch<PROBE_LOG>(first_bits, n, out, stream);
    case PROBE_RECIPROCAL_ROOT: return launch<PROBE_RECIPROCAL_ROOT>(first_bits, n, out, stream);
    case PROBE_DIVISION: return launch<PROBE_DIVISION>(first_bits, n, out, stream);
    case PROBE_FAST_DIVISION: return launch<PROBE_FAST_DIVISION>(first_bits, n, out, stream);
    default: return "probe: no such function";
    }
}
