/* rms_norm - out = x * w / sqrt(mean(x^2) + eps), row by row.
 * Shapes  x, out [T, M] with a row stride; w [M], all alike.
 * Grid    ceil(T / 4): a block owns 4 rows.   Block  4 warps, one a row; a lane takes
 *         every 32nd octet.
 * Traffic x twice (the second time from cache), w and out once: 3 M elements a row.
 * Numerics fp32. A lane sums its octets in 8 accumulators and adds those in order; every lane
 *         adds the 32 lane sums in order through shared memory: one warp barrier, where a
 *         butterfly of shuffles takes five. The root and the division are the correctly rounded
 *         ones: the same bits on every device.
 * Needs   nothing; what is no multiple of 8 elements or not 16-byte aligned goes
 *         element by element. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/octet.cuh"
#include "kernels/kernels.h"

namespace {

enum { LANES = 32, ROWS = 4, THREADS = ROWS * LANES };

template <class T> __device__ float lane_sum_of_squares(const T *x, int64_t width, int lane, bool aligned) {
    float sum[OCTET] = {};
    for (int64_t i = lane * OCTET; i < width; i += LANES * OCTET) {
        float v[OCTET];
        octet_load(v, x + i, aligned, (int)min((int64_t)OCTET, width - i));
        for (int e = 0; e < OCTET; e++) sum[e] = fmaf(v[e], v[e], sum[e]);
    }
    for (int e = 1; e < OCTET; e++) sum[0] += sum[e];
    return sum[0];
}

template <class T>
__global__ void __launch_bounds__(THREADS) rms_norm_kernel(const struct norm_args a, const bool aligned) {
    __shared__ float lane_sum[ROWS][LANES];
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int64_t row = (int64_t)blockIdx.x * ROWS + warp;
    const bool live = row < a.n_tokens;
    const T *x = (const T *)a.x.data + row * a.x.stride[0], *w = (const T *)a.w.data;
    T *out = (T *)a.out.data + row * a.out.stride[0];

    lane_sum[warp][lane] = live ? lane_sum_of_squares(x, a.width, lane, aligned) : 0.0f;
    if (SEEDED(BUG_NORM_LANES_LEFT) && lane * OCTET >= a.width) return;
    __syncwarp(0xffffffffu);
    if (!live) return;

    float sum = lane_sum[warp][0];
    for (int i = 1; i < LANES; i++) sum += lane_sum[warp][i];
    const float scale = 1.0f / sqrtf(sum / (float)a.width + (float)a.eps);

    for (int64_t i = lane * OCTET; i < a.width; i += LANES * OCTET) {
        const int n = (int)min((int64_t)OCTET, a.width - i);
        float v[OCTET], weight[OCTET];
        octet_load(v, x + i, aligned, n);
        octet_load(weight, w + i, aligned, n);
        for (int e = 0; e < OCTET; e++) v[e] = v[e] * scale * weight[e];
        octet_store(out + i, v, aligned, n);
    }
}

template <class T> const char *rms_norm_launch(const struct norm_args *a, void *stream) {
    const bool aligned =
        view_is_aligned<T>(a->x, 1) && view_is_aligned<T>(a->w, 0) && view_is_aligned<T>(a->out, 1);
    const unsigned blocks = (unsigned)((a->n_tokens + ROWS - 1) / ROWS);
    return LAUNCH((rms_norm_kernel<T>), dim3(blocks), dim3(THREADS), 0, stream, *a, aligned);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(rms_norm)(const struct call *call, void *, void *stream) {
    const struct norm_args *a = &call->u.norm;
    return with_storage(a->x.dtype, [&](auto t) { return rms_norm_launch<decltype(t)>(a, stream); });
}

#ifndef __CUDACC__
extern "C" const char *rms_norm_unsupported(const struct call *call) {
    const struct norm_args *a = &call->u.norm;
    const struct view *const views[] = {&a->x, &a->w, &a->out};
    return storage_unsupported(views, 3);
}

extern "C" struct contract rms_norm_contract(const struct call *call) {
    const int64_t stride = LANES * OCTET;
    struct contract c = {};
    c.op = OP_NORM;
    c.u.norm.unit = UNIT_F32;
    c.u.norm.depth = (call->u.norm.width + stride - 1) / stride + (OCTET - 1) + (LANES - 1);
    c.u.norm.rsqrt_error = 2 * UNIT_F32; /* one root, one division */
    return c;
}

extern "C" struct tile_sizes rms_norm_tiles(const struct call *) {
    struct tile_sizes t = {};
    t.of[EXTENT_ROWS] = {ROWS, 1};
    t.of[EXTENT_WIDTH] = {LANES * OCTET, 1};
    return t;
}
#endif
