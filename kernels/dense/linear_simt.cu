/* linear_simt - out[r, n] = sum over k of x[r, k] w[g(r), n, k] + bias[n]: the product of
 * every projection. One group is a dense layer; with several (experts) the rows are sorted by
 * group and offsets[] cuts them.
 * Shapes  x [rows, K], w [groups, N, K], bias [N] or absent, offsets int32 [groups + 1] -> out
 *         [rows, N]; x, w alike or one in f32, bias as w, out as x or f32; any row and group strides.
 * Grid    (row tiles, column tiles). A block counts the row tiles of each group to
 *         find its own; the grid is the upper bound rows / height + groups, blocks
 *         past the last tile leave at once.
 * Block   A thread owns 8 rows (a strip) x 8 columns (a panel) in registers.
 * Tile    Many rows: 64 rows x 64 columns, 64 threads, steps of 64 k of both operands in shared memory
 *         (33 KiB), which 8 threads share. Few rows, groups of 8 on average: 8 x 256, 32 threads; nobody
 *         shares weights, so each thread turns 16 k of its own columns at a time (17 KiB) while a step of
 *         256 k of x lies there for all (8 KiB). Shared memory holds floats, k-major by strip and panel:
 *         a k reads 8 + 8 neighbours.
 * Traffic w once per row tile, x once per column tile. Of few rows it is w that counts: a thread
 *         follows its 8 columns through their memory.
 * Numerics one f32 FMA chain per element, k ascending, then + bias, then one rounding: the bits
 *         depend on neither tile nor group nor neighbours.   Needs N <= 65535 * 64. */
/* SPDX-License-Identifier: MIT */
#include <type_traits>

#include "kernels/lang/storage.cuh"
#include "kernels/kernels.h"

constexpr int SIDE = 8; /* rows of a strip, columns of a panel, k of a chunk */

/* X_DEPTH, W_DEPTH: k of either operand that lie in shared memory at a time. */
template <int STRIPS_, int PANELS_, int X_DEPTH_, int W_DEPTH_> struct tile_shape {
    static constexpr int STRIPS = STRIPS_, PANELS = PANELS_, X_DEPTH = X_DEPTH_, W_DEPTH = W_DEPTH_;
    static constexpr int ROWS = STRIPS * SIDE, COLS = PANELS * SIDE, THREADS = STRIPS * PANELS;
    static constexpr int X_PITCH = X_DEPTH * SIDE + SIDE; /* floats; the last 8 spread over banks */
    static constexpr int W_PITCH = W_DEPTH * SIDE + SIDE;
    static_assert(W_DEPTH % SIDE == 0 && X_DEPTH % W_DEPTH == 0 && THREADS % 32 == 0, "whole chunks, warps");
    static_assert((STRIPS * X_PITCH + PANELS * W_PITCH) * sizeof(float) < 34 << 10, "as the header says");
};
typedef tile_shape<8, 8, 64, 64> tall_tile;
typedef tile_shape<1, 32, 256, 16> flat_tile; /* few rows: no weight is read twice */

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

/* packed[k][line] = source[line][k] for 8 lines and 8 k, as floats. Past n_lines the last line comes again
 * (those products are dropped later); k past n_k are left alone and never read. */
template <class T>
static __device__ __forceinline__ void pack_chunk(float *__restrict__ packed, const T *__restrict__ source,
                                                  int64_t line_stride, int n_lines, int n_k) {
    const int last = min(n_lines, SIDE) - 1;
    if (n_k >= SIDE) {
        const T *s0 = source, *s1 = s0 + min(1, last) * line_stride, *s2 = s0 + min(2, last) * line_stride;
        const T *s3 = s0 + min(3, last) * line_stride, *s4 = s0 + min(4, last) * line_stride;
        const T *s5 = s0 + min(5, last) * line_stride, *s6 = s0 + min(6, last) * line_stride;
        const T *s7 = s0 + min(7, last) * line_stride;
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
    for (int k = 0; k < n_k; k++)
        for (int line = 0; line < SIDE; line++)
            packed[k * SIDE + line] = to_float(source[min(line, last) * line_stride + k]);
}

template <class T>
static __device__ __forceinline__ void read_lines_ahead(const T *source, int64_t line_stride) {
    for (int line = 0; line < SIDE; line++) read_ahead(source + line * line_stride);
}

/* sum[r][c] += x[k][r] * w[k][c], k = 0..depth-1 in order, of the first N_ROWS rows; x and w point at
 * a strip and a panel. */
template <int N_ROWS = SIDE>
static __device__ __forceinline__ void multiply(float (&sum)[SIDE][SIDE], const float *__restrict__ x,
                                                const float *__restrict__ w, int depth) {
    for (int k = 0; k < depth; k++) {
        UNROLL
        for (int r = 0; r < N_ROWS; r++) {
            LANE_LOOP
            for (int c = 0; c < SIDE; c++) sum[r][c] = fmaf(x[k * SIDE + r], w[k * SIDE + c], sum[r][c]);
        }
    }
}

/* What a block multiplies: its first row and column, and how many are there. */
template <class X, class W> struct block_operands {
    const X *x;
    const W *w;
    int64_t x_stride, w_stride, n_inner;
    int n_rows, n_cols;
};

/* Chunks of both operands are dealt to all threads. */
template <class Tile, class X, class W>
static __device__ __forceinline__ void add_up_tall(float (&sum)[SIDE][SIDE], const block_operands<X, W> &of,
                                                   float *x_strips, float *w_panels, bool busy) {
    constexpr int DEPTH = Tile::X_DEPTH, CHUNKS = DEPTH / SIDE;
    static_assert(Tile::W_DEPTH == DEPTH, "one step of both");
    const int thread = (int)threadIdx.x, strip = thread / Tile::PANELS, panel = thread % Tile::PANELS;
    const int n_strips = (of.n_rows + SIDE - 1) / SIDE, n_panels = (of.n_cols + SIDE - 1) / SIDE;
    for (int64_t k0 = 0; k0 < of.n_inner; k0 += DEPTH) {
        const int depth = (int)min(of.n_inner - k0, (int64_t)DEPTH);
        for (int i = thread; i < (n_strips + n_panels) * CHUNKS; i += Tile::THREADS) {
            const int k = i % CHUNKS * SIDE, line = i / CHUNKS * SIDE;
            const int col = line - n_strips * SIDE; /* below 0: a line of x */
            if (k >= depth) continue;
            if (col < 0) {
                pack_chunk(x_strips + line / SIDE * Tile::X_PITCH + k * SIDE,
                           of.x + line * of.x_stride + k0 + k, of.x_stride, of.n_rows - line, depth - k);
            } else {
                const W *const source = of.w + col * of.w_stride + k0 + k;
                read_lines_ahead(source + DEPTH, of.w_stride);
                pack_chunk(w_panels + col / SIDE * Tile::W_PITCH + k * SIDE, source, of.w_stride,
                           of.n_cols - col, depth - k);
            }
        }
        __syncthreads();
        if (busy) multiply(sum, x_strips + strip * Tile::X_PITCH, w_panels + panel * Tile::W_PITCH, depth);
        __syncthreads();
    }
}

/* A thread turns what it multiplies with. */
template <class Tile, class X, class W>
static __device__ __forceinline__ void add_up_flat(float (&sum)[SIDE][SIDE], const block_operands<X, W> &of,
                                                   float *x_strip, float *w_panels, bool busy) {
    constexpr int AHEAD = 64 / sizeof(W); /* of a line of the host's caches */
    const int thread = (int)threadIdx.x, col = thread * SIDE;
    const W *const w = of.w + col * of.w_stride;
    float *const w_panel = w_panels + thread * Tile::W_PITCH;
    for (int64_t k0 = 0; k0 < of.n_inner; k0 += Tile::X_DEPTH) {
        const int depth = (int)min(of.n_inner - k0, (int64_t)Tile::X_DEPTH);
        for (int k = thread * SIDE; k < depth; k += Tile::THREADS * SIDE)
            pack_chunk(x_strip + k * SIDE, of.x + k0 + k, of.x_stride, of.n_rows, depth - k);
        if (!SEEDED(BUG_LINEAR_NO_SYNC_AFTER_FILL)) __syncthreads();
        for (int k = 0; busy && k < depth; k += Tile::W_DEPTH) {
            const int n = min(depth - k, Tile::W_DEPTH);
            read_lines_ahead(w + k0 + k + AHEAD, of.w_stride);
            for (int i = 0; i < n; i += SIDE)
                pack_chunk(w_panel + i * SIDE, w + k0 + k + i, of.w_stride, of.n_cols - col, n - i);
            if (of.n_rows <= SIDE / 2)
                multiply<SIDE / 2>(sum, x_strip + k * SIDE, w_panel, n);
            else
                multiply(sum, x_strip + k * SIDE, w_panel, n);
        }
        __syncthreads();
    }
}

template <class X, class W, class Out, class Tile>
static __global__ void __launch_bounds__(Tile::THREADS) linear_kernel(const struct linear_args a) {
    const row_tile rows = find_row_tile(a, (int)blockIdx.x, Tile::ROWS);
    if (rows.count <= 0) return; /* the whole block */
    const int64_t col0 = (int64_t)blockIdx.y * Tile::COLS;
    const block_operands<X, W> of = {static_cast<const X *>(a.x.data) + rows.first * a.x.stride[0],
                                     static_cast<const W *>(a.w.data) + rows.group * a.w.stride[0] +
                                         col0 * a.w.stride[1],
                                     a.x.stride[0],
                                     a.w.stride[1],
                                     a.n_inner,
                                     rows.count,
                                     (int)min(a.n_cols - col0, (int64_t)Tile::COLS)};

    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    float *const x_strips =
        carve.take<float>(Tile::STRIPS * Tile::X_PITCH); /* [STRIPS][X_DEPTH][8], padded */
    float *const w_panels =
        carve.take<float>(Tile::PANELS * Tile::W_PITCH); /* [PANELS][W_DEPTH][8], padded */

    const int thread = (int)threadIdx.x, strip = thread / Tile::PANELS, panel = thread % Tile::PANELS;
    const bool busy = strip * SIDE < of.n_rows && panel * SIDE < of.n_cols;
    float sum[SIDE][SIDE] = {};
    if (SEEDED(BUG_LINEAR_EARLY_EXIT) && !busy) return;
    if constexpr (Tile::STRIPS == 1)
        add_up_flat<Tile>(sum, of, x_strips, w_panels, busy);
    else
        add_up_tall<Tile>(sum, of, x_strips, w_panels, busy);

    if (!busy) return;
    const W *bias = static_cast<const W *>(a.bias.data);
    Out *out = static_cast<Out *>(a.out.data);
    UNROLL
    for (int r = 0; r < SIDE; r++) {
        UNROLL
        for (int c = 0; c < SIDE; c++) {
            const int row = strip * SIDE + r, col = panel * SIDE + c;
            if (row >= of.n_rows || col >= of.n_cols) continue;
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
    const size_t x_bytes = carve_bytes<float>(Tile::STRIPS * Tile::X_PITCH);
    const size_t w_bytes = carve_bytes<float>(Tile::PANELS * Tile::W_PITCH);
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
    t.of[EXTENT_INNER] = {Tile::X_DEPTH, 1};
    return t;
}

extern "C" struct tile_sizes linear_simt_tiles(const struct call *call) {
    return few_rows(call->u.linear) ? tiles_of<flat_tile>() : tiles_of<tall_tile>();
}
#endif
