/* silu_mul - the gated activation of experts and dense ffn: silu(gate) * up,
 * silu(x) = x / (1 + exp(-x)).
 * Shapes  gate_up [rows, 2, F] -> out [rows, F]; both alike, any row and half strides.
 * Grid    (rows, column blocks).   Block  128 threads; a thread takes 8 columns, 128
 *         apart (coalesced).
 * Traffic every element once: memory bound.
 * Numerics f32, one rounding at the end; exp only of negative arguments, so that silu keeps its
 *         relative accuracy in the far negative tail where exp(-x) would overflow. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/storage.cuh"
#include "kernels/kernels.h"

constexpr int THREADS = 128, COLS = 1024;

static __device__ __forceinline__ float silu(float x) {
    const float e = expf(-fabsf(x));
    return (x >= 0 ? x : x * e) / (1.0f + e);
}

template <class T>
static __global__ void __launch_bounds__(THREADS) silu_mul_kernel(const struct activation_args a) {
    const T *gate = static_cast<const T *>(a.gate_up.data) + blockIdx.x * a.gate_up.stride[0];
    const T *up = gate + a.gate_up.stride[1];
    T *out = static_cast<T *>(a.out.data) + blockIdx.x * a.out.stride[0];
    const int64_t col0 = (int64_t)blockIdx.y * COLS, end = min(a.width, col0 + COLS);
    for (int64_t col = col0 + threadIdx.x; col < end; col += THREADS)
        out[col] = from_float<T>(silu(to_float(gate[col])) * to_float(up[col]));
}

extern "C" const char *KERNEL_SYMBOL(silu_mul)(const struct call *call, void *, void *stream) {
    const struct activation_args &a = call->u.activation;
    if (!a.n_rows) return nullptr;
    const dim3 grid((unsigned)a.n_rows, (unsigned)((a.width + COLS - 1) / COLS));
    return with_storage(a.out.dtype, [&](auto t) {
        return LAUNCH((silu_mul_kernel<decltype(t)>), grid, dim3(THREADS), 0, stream, a);
    });
}

#ifndef __CUDACC__
/* expf: 2 ulp in CUDA's single-precision accuracy table, at most 2^-22 relative;
 * glibc's is below 1 ulp. */
extern "C" struct contract silu_mul_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_ACTIVATION;
    c.u.activation.unit = UNIT_F32;
    c.u.activation.exp_error = 0x1p-22;
    return c;
}

extern "C" const char *silu_mul_unsupported(const struct call *call) {
    const struct view *const views[] = {&call->u.activation.gate_up, &call->u.activation.out};
    return storage_unsupported(views, 2);
}

extern "C" struct tile_sizes silu_mul_tiles(const struct call *) {
    struct tile_sizes t = {};
    t.of[EXTENT_WIDTH] = {COLS, 1};
    return t;
}
#endif
