/* linear_simt - out[r, n] = sum over k of x[r, k] w[g(r), n, k] + bias[n]: the product of
 * every projection. One group is a dense layer; with several (experts) the rows are sorted by
 * group and offsets[] cuts them.
 * Shapes  x [rows, K], w [groups, N, K], bias [N] or absent, offsets int32 [groups + 1] -> out
 *         [rows, N]; x, w alike or one in f32, bias as w, out as x or f32; any row and group strides.
 * Grid    (row tiles, column tiles). A block counts the row tiles of each group to
 *         find its own; the grid is the upper bound rows / height + groups, blocks
 *         past the last tile leave at once.
 * Block   STRIPS x PANELS threads; a thread owns 8 rows (a strip) x 8 columns (a
 *         panel) in registers.
 * Tile    64 rows x 64 columns x 64 k (64 threads, 33 KiB), or 8 x 256 x 32 (32 threads, 34
 *         KiB) where groups hold few rows. Shared memory holds floats, k-major by strip and
 *         panel: a k reads 8 + 8 neighbours.
 * Traffic w once per row tile, x once per column tile; neighbouring lanes read
 *         neighbouring runs of 8. Where each thread follows columns of its own instead, few rows take
 *         half as long on the host and two to three times as long on an H200.
 * Numerics one f32 FMA chain per element, k ascending, then + bias, then one rounding: the bits
 *         depend on neither tile nor group nor neighbours.   Needs N <= 65535 * 64. */
/* SPDX-License-Identifier: MIT */
#include <type_traits>

#include "kernels/lang/storage.cuh"
#include "kernels/kernels.h"

constexpr int SIDE = 8; /* rows of a strip, columns of a panel, k of a chunk */

template <int STRIPS_, int PANELS_, int DEPTH_> struct tile_shape {
    static constexpr int STRIPS = STRIPS_, PANELS = PANELS_, DEPTH = DEPTH_; /* DEPTH: k per step */
    static constexpr int ROWS = STRIPS * SIDE, COLS = PANELS * SIDE, THREADS = STRIPS * PANELS;
    static constexpr int CHUNKS = DEPTH / SIDE;
    static constexpr int PITCH = DEPTH * SIDE + SIDE; /* floats; the last 8 spread over banks */
    static_assert(DEPTH % SIDE == 0 && THREADS % 32 == 0, "whole chunks, whole warps");
    static_assert((STRIPS + PANELS) * PITCH * sizeof(float) < 35 << 10, "as the header says");
};
typedef tile_shape<8, 8, 64> tall_tile;
typedef tile_shape<1, 32, 32> flat_tile; /* few rows: nothing to reuse: wide, cheap to start */

struct row_tile {
    int group, first, count; /* count 0: none */
};

static __device__ row_tile find_row_tile(const struct linear_args &a, int tile, int height) {
    const int32_t *offsets = static_cast<const int32_t *>(a.offsets.data);
    for (int g = 0; g < a.n_groups; g++) {
        const int first = offsets ? offsets[g] : 0, end = offsets ? offsets[g + 1] : (int)a.n_rows;
        const int tiles = (end - first + height - 1) / height;
        if (tile < tiles) return {g, first + tile * height, min(height, end - first - tile * height)};
        tile -= tiles;
    }
    return {0, 0, 0};
}

/* packed[k][line] = source[line][k] for 8 lines and 8 k, as floats. Lines past n_lines become 0
 * (their products are dropped later); k past n_k are left alone and never read. `next` k further on
 * the lines are read again. */
template <class T>
static __device__ __forceinline__ void pack_chunk(float *__restrict__ packed, const T *__restrict__ source,
                                                  int64_t line_stride, int n_lines, int n_k, int next) {
    if (n_lines >= SIDE && n_k >= SIDE) {
        const T *s0 = source, *s1 = s0 + line_stride, *s2 = s1 + line_stride, *s3 = s2 + line_stride;
        const T *s4 = s3 + line_stride, *s5 = s4 + line_stride, *s6 = s5 + line_stride;
        const T *s7 = s6 + line_stride;
        for (int line = 0; line < SIDE; line++) read_ahead(source + line * line_stride + next);
        LANE_LOOP
        for (int k = 0; k < SIDE; k++) {
            float *const to = packed + k * SIDE;
            to[0] = to_float(s0[k]), to[1] = to_float(s1[k]);
            to[2] = to_float(s2[k]), to[3] = to_float(s3[k]);
            to[4] = to_float(s4[k]), to[5] = to_float(s5[k]);
            to[6] = to_float(s6[k]), to[7] = to_float(s7[k]);
        }
        return;
    }
    shared_stale(packed, SIDE * SIDE * sizeof(float));
    for (int k = 0; k < min(n_k, SIDE); k++)
        for (int line = 0; line < SIDE; line++)
            packed[k * SIDE + line] = line < n_lines ? to_float(source[line * line_stride + k]) : 0.0f;
}

/* sum[r][c] += x[k][r] * w[k][c], k = 0..depth-1 in order; x and w point at a strip and a panel. */
static __device__ __forceinline__ void multiply(float (&sum)[SIDE][SIDE], const float *__restrict__ x,
                                                const float *__restrict__ w, int depth) {
    for (int k = 0; k < depth; k++) {
        UNROLL
        for (int r = 0; r < SIDE; r++) {
            LANE_LOOP
            for (int c = 0; c < SIDE; c++) sum[r][c] = fmaf(x[k * SIDE + r], w[k * SIDE + c], sum[r][c]);
        }
    }
}

template <class X, class W, class Out, class Tile>
static __global__ void __launch_bounds__(Tile::THREADS) linear_kernel(const struct linear_args a) {
    const row_tile rows = find_row_tile(a, (int)blockIdx.x, Tile::ROWS);
    if (rows.count <= 0) return; /* the whole block */
    const int64_t col0 = (int64_t)blockIdx.y * Tile::COLS;
    const int n_cols = (int)min(a.n_cols - col0, (int64_t)Tile::COLS);
    const X *x = static_cast<const X *>(a.x.data) + rows.first * a.x.stride[0];
    const W *w = static_cast<const W *>(a.w.data) + rows.group * a.w.stride[0] + col0 * a.w.stride[1];

    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    /* [STRIPS][DEPTH][8] and [PANELS][DEPTH][8], padded */
    float *const x_strips = carve.take<float>(Tile::STRIPS * Tile::PITCH);
    float *const w_panels = carve.take<float>(Tile::PANELS * Tile::PITCH);

    const int thread = (int)threadIdx.x, strip = thread / Tile::PANELS, panel = thread % Tile::PANELS;
    const int n_strips = (rows.count + SIDE - 1) / SIDE; /* in use */
    const int n_panels = (n_cols + SIDE - 1) / SIDE;
    const bool busy = strip < n_strips && panel < n_panels;
    float sum[SIDE][SIDE] = {};
    if (SEEDED(BUG_LINEAR_EARLY_EXIT) && !busy) return;

    for (int64_t k0 = 0; k0 < a.n_inner; k0 += Tile::DEPTH) {
        const int depth = (int)min(a.n_inner - k0, (int64_t)Tile::DEPTH);
        for (int i = thread; i < (n_strips + n_panels) * Tile::CHUNKS; i += Tile::THREADS) {
            const int k = i % Tile::CHUNKS * SIDE, line = i / Tile::CHUNKS * SIDE;
            const int col = line - n_strips * SIDE; /* below 0: a line of x */
            if (k >= depth) continue;
            if (col < 0)
                pack_chunk(x_strips + line / SIDE * Tile::PITCH + k * SIDE, x + line * a.x.stride[0] + k0 + k,
                           a.x.stride[0], rows.count - line, depth - k, Tile::DEPTH);
            else
                pack_chunk(w_panels + col / SIDE * Tile::PITCH + k * SIDE, w + col * a.w.stride[1] + k0 + k,
                           a.w.stride[1], n_cols - col, depth - k, Tile::DEPTH);
        }
        __syncthreads();
        if (busy) multiply(sum, x_strips + strip * Tile::PITCH, w_panels + panel * Tile::PITCH, depth);
        __syncthreads();
    }

    if (!busy) return;
    const W *bias = static_cast<const W *>(a.bias.data);
    Out *out = static_cast<Out *>(a.out.data);
    UNROLL
    for (int r = 0; r < SIDE; r++) {
        UNROLL
        for (int c = 0; c < SIDE; c++) {
            const int row = strip * SIDE + r, col = panel * SIDE + c;
            if (row >= rows.count || col >= n_cols) continue;
            const float value = bias ? sum[r][c] + to_float(bias[col0 + col]) : sum[r][c];
            out[(rows.first + row) * a.out.stride[0] + col0 + col] = from_float<Out>(value);
        }
    }
}

template <class X, class W, class Out, class Tile>
static const char *launch_tile(const struct linear_args &a, void *stream) {
    const int64_t row_tiles = a.n_rows / Tile::ROWS + a.n_groups;
    const int64_t col_tiles = (a.n_cols + Tile::COLS - 1) / Tile::COLS;
    if (col_tiles > 65535) return "linear_simt: too many columns; at most 4194240";
    const size_t x_bytes = carve_bytes<float>(Tile::STRIPS * Tile::PITCH);
    const size_t w_bytes = carve_bytes<float>(Tile::PANELS * Tile::PITCH);
    return LAUNCH((linear_kernel<X, W, Out, Tile>), dim3((unsigned)row_tiles, (unsigned)col_tiles),
                  dim3(Tile::THREADS), x_bytes + w_bytes, stream, a);
}

/* On average. */
static bool few_rows(const struct linear_args &a) { return a.n_rows <= a.n_groups * flat_tile::ROWS; }

template <class X, class W, class Out> static const char *launch(const struct linear_args &a, void *stream) {
    return few_rows(a) ? launch_tile<X, W, Out, flat_tile>(a, stream)
                       : launch_tile<X, W, Out, tall_tile>(a, stream);
}

template <class X, class W> static const char *launch_out(const struct linear_args &a, void *stream) {
    return a.out.dtype == DTYPE_F32 ? launch<X, W, float>(a, stream) : launch<X, W, X>(a, stream);
}

template <class X> static const char *launch_w(const struct linear_args &a, void *stream) {
    if constexpr (std::is_same_v<X, float>)
        return with_storage(a.w.dtype, [&](auto w) { return launch_out<X, decltype(w)>(a, stream); });
    else
        return a.w.dtype == DTYPE_F32 ? launch_out<X, float>(a, stream) : launch_out<X, X>(a, stream);
}

extern "C" const char *KERNEL_SYMBOL(linear_simt)(const struct call *call, void *, void *stream) {
    const struct linear_args &a = call->u.linear;
    if (!a.n_rows) return nullptr;
    return with_storage(a.x.dtype, [&](auto x) { return launch_w<decltype(x)>(a, stream); });
}

#ifndef __CUDACC__
/* One FMA per product, prefix sums only: every node of the tree is a run of terms
 * that starts at k = 0. */
extern "C" struct contract linear_simt_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_LINEAR;
    c.u.linear.acc.unit = UNIT_F32;
    c.u.linear.acc.block = 1;
    c.u.linear.acc.order = ORDER_INTERVAL;
    c.u.linear.acc.in_order = true;
    return c;
}

extern "C" const char *linear_simt_unsupported(const struct call *call) {
    const struct linear_args &a = call->u.linear;
    if (!dtype_is_storage(a.x.dtype) || !dtype_is_storage(a.w.dtype))
        return "needs x and w in " STORAGE_NAMES;
    if (a.x.dtype != a.w.dtype && a.x.dtype != DTYPE_F32 && a.w.dtype != DTYPE_F32)
        return "needs x and w in one dtype, or one of them in fp32";
    if (a.out.dtype != a.x.dtype && a.out.dtype != DTYPE_F32) return "needs out in fp32 or in the dtype of x";
    if (a.bias.data && a.bias.dtype != a.w.dtype) return "needs the bias in the dtype of w";
    if (a.n_groups > 1 && !a.offsets.data) return "needs offsets for several groups";
    if (a.n_rows > INT32_MAX / 2 || a.n_groups > INT32_MAX / 2)
        return "needs fewer than 2^30 rows and groups";
    return nullptr;
}

template <class Tile> static struct tile_sizes tiles_of() {
    struct tile_sizes t = {};
    t.of[EXTENT_ROWS] = {Tile::ROWS, 1};
    t.of[EXTENT_COLS] = {Tile::COLS, 1};
    t.of[EXTENT_INNER] = {Tile::DEPTH, 1};
    return t;
}

extern "C" struct tile_sizes linear_simt_tiles(const struct call *call) {
    return few_rows(call->u.linear) ? tiles_of<flat_tile>() : tiles_of<tall_tile>();
}
#endif
