/* linear_simt - out[r, n] = sum over k of x[r, k] w[g(r), n, k] + bias[n]: the product of
 * every projection. One group is a dense layer; with several (experts) the rows are sorted by
 * group and offsets[] cuts them.
 * Shapes  x [rows, K], w [groups, N, K], bias [N] or absent, offsets int32 [groups + 1] -> out
 *         [rows, N]; x, w alike or one in f32, bias as w, out as x or f32; any row and group strides.
 * Grid    (row tiles, column tiles). A block counts the row tiles of each group to
 *         find its own; the grid is the upper bound rows / height + groups, blocks
 *         past the last tile leave at once.
 * Block   STRIPS x PANELS threads; a thread owns 8 rows (a strip) x 8 columns (a panel) in registers.
 * Tile    64 rows x 64 columns x 64 k, 64 threads (33 KiB). Shared memory holds floats, k-major by strip
 *         and panel: a k reads 8 + 8 neighbours. Few rows, groups of 8 on average: 8 x 256, 32 threads;
 *         nobody shares weights, so each thread turns 8 k of its own columns at a time in registers, while
 *         256 k of x lie in shared memory (8 KiB).
 * Traffic w once per row tile, x once per column tile. Of few rows it is w that counts: a thread follows
 *         its 8 columns through their memory, 16 bytes at a time. Dealt over the lanes and turned in shared
 *         memory they take as long on an H200 (experts of 64 tokens), and twice as long on the host.
 * Numerics one f32 FMA chain per element, k ascending, then + bias, then one rounding: the bits
 *         depend on neither tile nor group nor neighbours.   Needs N <= 65535 * 64. */
/* SPDX-License-Identifier: MIT */
#include <type_traits>

#include "kernels/lang/octet.cuh"
#include "kernels/kernels.h"

constexpr int SIDE = 8; /* rows of a strip, columns of a panel, k of a chunk */

template <int STRIPS_, int PANELS_, int DEPTH_> struct tile_shape {
    static constexpr int STRIPS = STRIPS_, PANELS = PANELS_, DEPTH = DEPTH_; /* DEPTH: k per step */
    static constexpr int ROWS = STRIPS * SIDE, COLS = PANELS * SIDE, THREADS = STRIPS * PANELS;
    static constexpr int CHUNKS = DEPTH / SIDE;
    static constexpr int PITCH = DEPTH * SIDE + SIDE; /* floats; the last 8 spread over banks */
    static constexpr bool SHARES_WEIGHTS = STRIPS > 1;
    static constexpr int X_FLOATS = STRIPS * PITCH, W_FLOATS = SHARES_WEIGHTS ? PANELS * PITCH : 0;
    static_assert(DEPTH % SIDE == 0 && THREADS % 32 == 0, "whole chunks, whole warps");
};
typedef tile_shape<8, 8, 64> tall_tile;
typedef tile_shape<1, 32, 256> flat_tile; /* few rows: no weight is read twice */

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

/* turned[k][line] = at(line, k) for 8 lines and 8 k, as floats. */
template <class At> static __device__ __forceinline__ void turn(float *__restrict__ turned, At at) {
    LANE_LOOP
    for (int k = 0; k < SIDE; k++) {
        float *const to = turned + k * SIDE;
        to[0] = to_float(at(0, k)), to[1] = to_float(at(1, k));
        to[2] = to_float(at(2, k)), to[3] = to_float(at(3, k));
        to[4] = to_float(at(4, k)), to[5] = to_float(at(5, k));
        to[6] = to_float(at(6, k)), to[7] = to_float(at(7, k));
    }
}

/* Of what begins at `source`. Lines past n_lines become 0 (their products are dropped later); k
 * past n_k are left alone and never read. `next` k further on the lines are read again. */
template <class T>
static __device__ __forceinline__ void pack_chunk(float *__restrict__ packed, const T *__restrict__ source,
                                                  int64_t line_stride, int n_lines, int n_k, int next) {
    if (n_lines >= SIDE && n_k >= SIDE) {
        for (int line = 0; line < SIDE; line++) read_ahead(source + line * line_stride + next);
        turn(packed, [&](int line, int k) { return source[line * line_stride + k]; });
        return;
    }
    shared_stale(packed, SIDE * SIDE * sizeof(float));
    for (int k = 0; k < min(n_k, SIDE); k++)
        for (int line = 0; line < SIDE; line++)
            packed[k * SIDE + line] = line < n_lines ? to_float(source[line * line_stride + k]) : 0.0f;
}

/* The same with 16 bytes in an access. Past n_lines the last line comes again (those products are dropped
 * later); k past n_k become 0 and are not read. With it the tall tile took an H200 a tenth longer (experts
 * of 16384 tokens). */
template <class T>
static __device__ __forceinline__ void pack_octets(float *__restrict__ packed, const T *__restrict__ source,
                                                   int64_t line_stride, bool aligned, int n_lines, int n_k) {
    octet<T> octets[SIDE];
    UNROLL
    for (int line = 0; line < SIDE; line++)
        octet_load_raw(octets[line], source + min(line, n_lines - 1) * line_stride, aligned, n_k);
    turn(packed, [&](int line, int k) { return octets[line].v[k]; });
}

/* sum[r][c] += x[r] * w[c] of the first N_ROWS rows. */
template <int N_ROWS>
static __device__ __forceinline__ void multiply(float (&sum)[SIDE][SIDE], const float *__restrict__ x,
                                                const float *__restrict__ w) {
    UNROLL
    for (int r = 0; r < N_ROWS; r++) {
        LANE_LOOP
        for (int c = 0; c < SIDE; c++) sum[r][c] = fmaf(x[r], w[c], sum[r][c]);
    }
}

/* What a block multiplies, from its first row and column on. */
template <class X, class W> struct block_operands {
    const X *x;
    const W *w;
    int64_t x_stride, w_stride, n_inner;
    bool x_aligned, w_aligned;
    int n_rows, n_cols;
};

/* Chunks of both operands are dealt to all threads. */
template <class Tile, class X, class W>
static __device__ __forceinline__ void add_up_tall(float (&sum)[SIDE][SIDE], const block_operands<X, W> &of,
                                                   float *x_strips, float *w_panels, bool busy) {
    const int thread = (int)threadIdx.x, strip = thread / Tile::PANELS, panel = thread % Tile::PANELS;
    const int n_strips = (of.n_rows + SIDE - 1) / SIDE, n_panels = (of.n_cols + SIDE - 1) / SIDE;
    for (int64_t k0 = 0; k0 < of.n_inner; k0 += Tile::DEPTH) {
        const int depth = (int)min(of.n_inner - k0, (int64_t)Tile::DEPTH);
        for (int i = thread; i < (n_strips + n_panels) * Tile::CHUNKS; i += Tile::THREADS) {
            const int k = i % Tile::CHUNKS * SIDE, line = i / Tile::CHUNKS * SIDE;
            const int col = line - n_strips * SIDE; /* below 0: a line of x */
            if (k >= depth) continue;
            if (col < 0)
                pack_chunk(x_strips + line / SIDE * Tile::PITCH + k * SIDE,
                           of.x + line * of.x_stride + k0 + k, of.x_stride, of.n_rows - line, depth - k,
                           Tile::DEPTH);
            else
                pack_chunk(w_panels + col / SIDE * Tile::PITCH + k * SIDE, of.w + col * of.w_stride + k0 + k,
                           of.w_stride, of.n_cols - col, depth - k, Tile::DEPTH);
        }
        __syncthreads();
        const float *const x = x_strips + strip * Tile::PITCH, *const w = w_panels + panel * Tile::PITCH;
        if (busy)
            for (int k = 0; k < depth; k++) multiply<SIDE>(sum, x + k * SIDE, w + k * SIDE);
        __syncthreads();
    }
}

/* A panel's products with `depth` k of the first N_ROWS rows, 8 k at a time turned in registers. */
template <int N_ROWS, class W>
static __device__ __forceinline__ void add_up_panel(float (&sum)[SIDE][SIDE], const float *x, const W *w,
                                                    int64_t stride, bool aligned, int n_cols, int depth) {
    constexpr int NEXT = 64 / sizeof(W); /* of the host's cache lines */
    for (int k = 0; k < depth; k += SIDE) {
        alignas(32) float panel[SIDE * SIDE];
        for (int line = 0; line < SIDE; line++) read_ahead(w + line * stride + k + NEXT);
        pack_octets(panel, w + k, stride, aligned, n_cols, depth - k);
        LANE_LOOP
        for (int i = 0; i < SIDE; i++) {
            if (i >= depth - k) break;
            multiply<N_ROWS>(sum, x + (k + i) * SIDE, panel + i * SIDE);
        }
    }
}

/* x is dealt to all threads, in steps; each turns what it multiplies it with. */
template <class Tile, class X, class W>
static __device__ __forceinline__ void add_up_flat(float (&sum)[SIDE][SIDE], const block_operands<X, W> &of,
                                                   float *x_strip, bool busy) {
    const int thread = (int)threadIdx.x, col = thread * SIDE;
    const W *const w = of.w + col * of.w_stride;
    for (int64_t k0 = 0; k0 < of.n_inner; k0 += Tile::DEPTH) {
        const int depth = (int)min(of.n_inner - k0, (int64_t)Tile::DEPTH);
        for (int k = thread * SIDE; k < depth; k += Tile::THREADS * SIDE)
            pack_octets(x_strip + k * SIDE, of.x + k0 + k, of.x_stride, of.x_aligned, of.n_rows, depth - k);
        if (!SEEDED(BUG_LINEAR_NO_SYNC_AFTER_FILL)) __syncthreads();
        if (busy && of.n_rows <= SIDE / 2)
            add_up_panel<SIDE / 2>(sum, x_strip, w + k0, of.w_stride, of.w_aligned, of.n_cols - col, depth);
        else if (busy)
            add_up_panel<SIDE>(sum, x_strip, w + k0, of.w_stride, of.w_aligned, of.n_cols - col, depth);
        __syncthreads();
    }
}

template <class X, class W, class Out, class Tile>
static __global__ void __launch_bounds__(Tile::THREADS)
    linear_kernel(const struct linear_args a, bool x_aligned, bool w_aligned) {
    const row_tile rows = find_row_tile(a, (int)blockIdx.x, Tile::ROWS);
    if (rows.count <= 0) return; /* the whole block */
    const int64_t col0 = (int64_t)blockIdx.y * Tile::COLS;
    const block_operands<X, W> of = {static_cast<const X *>(a.x.data) + rows.first * a.x.stride[0],
                                     static_cast<const W *>(a.w.data) + rows.group * a.w.stride[0] +
                                         col0 * a.w.stride[1],
                                     a.x.stride[0],
                                     a.w.stride[1],
                                     a.n_inner,
                                     x_aligned,
                                     w_aligned,
                                     rows.count,
                                     (int)min(a.n_cols - col0, (int64_t)Tile::COLS)};

    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    float *const x_strips = carve.take<float>(Tile::X_FLOATS); /* [STRIPS][DEPTH][8], padded */
    float *const w_panels = carve.take<float>(Tile::W_FLOATS); /* [PANELS][DEPTH][8], padded */

    const int strip = (int)threadIdx.x / Tile::PANELS, panel = (int)threadIdx.x % Tile::PANELS;
    const bool busy = strip * SIDE < of.n_rows && panel * SIDE < of.n_cols;
    float sum[SIDE][SIDE] = {};
    if (SEEDED(BUG_LINEAR_EARLY_EXIT) && !busy) return;
    if constexpr (Tile::SHARES_WEIGHTS)
        add_up_tall<Tile>(sum, of, x_strips, w_panels, busy);
    else
        add_up_flat<Tile>(sum, of, x_strips, busy);

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
    const size_t shared_bytes = carve_bytes<float>(Tile::X_FLOATS) + carve_bytes<float>(Tile::W_FLOATS);
    return LAUNCH((linear_kernel<X, W, Out, Tile>), dim3((unsigned)row_tiles, (unsigned)col_tiles),
                  dim3(Tile::THREADS), shared_bytes, stream, a, view_is_aligned<X>(a.x, 1),
                  view_is_aligned<W>(a.w, 2));
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
