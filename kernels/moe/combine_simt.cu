/* combine_simt - the experts' rows back to their tokens: out[t] = sum of
 * gates[t, j] * down[slot_row[t, j]]. Choices whose expert lives on another rank (slot_row -1) add
 * nothing; a token without any gets zero.
 * Shapes  down [n, M], slot_row int32 [T, K], gates f32 [T, K] -> out [T, M]; down
 *         and out alike.
 * Grid    (T, column blocks).   Block  128 threads; a thread takes 8 columns, 128
 *         apart (coalesced).
 * Traffic down once, gates and slot_row once per column block; no atomics.
 * Numerics one f32 FMA chain per element, j ascending, one rounding at the end. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/storage.cuh"
#include "kernels/kernels.h"

constexpr int THREADS = 128, COLS = 1024;

template <class T>
static __global__ void __launch_bounds__(THREADS) combine_kernel(const struct combine_args a) {
    const int64_t token = blockIdx.x, col0 = (int64_t)blockIdx.y * COLS, end = min(a.width, col0 + COLS);
    const T *down = static_cast<const T *>(a.down.data);
    /* [K] each */
    const int32_t *rows = static_cast<const int32_t *>(a.slot_row.data) + token * a.slot_row.stride[0];
    const float *gates = static_cast<const float *>(a.gates.data) + token * a.gates.stride[0];
    T *out = static_cast<T *>(a.out.data) + token * a.out.stride[0];
    for (int64_t col = col0 + threadIdx.x; col < end; col += THREADS) {
        float sum = 0;
        for (int j = 0; j < a.top_k; j++)
            if (rows[j] >= 0) sum = fmaf(gates[j], to_float(down[rows[j] * a.down.stride[0] + col]), sum);
        out[col] = from_float<T>(sum);
    }
}

extern "C" const char *KERNEL_SYMBOL(combine_simt)(const struct call *call, void *, void *stream) {
    const struct combine_args &a = call->u.combine;
    if (!a.n_tokens) return nullptr;
    const dim3 grid((unsigned)a.n_tokens, (unsigned)((a.width + COLS - 1) / COLS));
    return with_storage(a.out.dtype, [&](auto t) {
        return LAUNCH((combine_kernel<decltype(t)>), grid, dim3(THREADS), 0, stream, a);
    });
}

#ifndef __CUDACC__
extern "C" struct contract combine_simt_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_COMBINE;
    c.u.combine.unit = UNIT_F32;
    return c;
}

extern "C" const char *combine_simt_unsupported(const struct call *call) {
    const struct combine_args &a = call->u.combine;
    const struct view *const views[] = {&a.down, &a.out};
    if (a.gates.dtype != DTYPE_F32) return "needs gates in fp32";
    return storage_unsupported(views, 2);
}

extern "C" struct tile_sizes combine_simt_tiles(const struct call *) {
    struct tile_sizes t = {};
    t.of[EXTENT_WIDTH] = {COLS, 1};
    return t;
}
#endif
