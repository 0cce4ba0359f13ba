/* linear_sums - y, span and S1 of every element of a product, in double (kernels/reference/linear_sums.h).
 * Shapes  x [rows, K], w [runs, N, K], tiles [n] -> y, span, s1 [rows, N]
 * Grid    (row tiles, column tiles).   Block  16 x 16 threads; a thread owns 2 rows x 4 columns, each 16
 *         apart, in registers: 5 doubles an element.
 * Tile    32 rows, 64 columns and 32 k as doubles, k-major, 24 KiB: the odd pitch spreads the lines of a
 *         k and the k of a line over the banks.
 * Traffic w once per row tile, x once per column tile, in their storage dtype.
 * Numerics one product and one addition each, never an FMA, k ascending: the bits of a plain C loop. */
/* SPDX-License-Identifier: MIT */
#include "kernels/reference/linear_sums.h"

#include "kernels/lang/kernel.cuh"

namespace {

constexpr int SIDE = 16, THREADS = SIDE * SIDE;
constexpr int ROWS_EACH = 2, COLS_EACH = 4, ROWS = SIDE * ROWS_EACH, COLS = SIDE * COLS_EACH;
constexpr int DEPTH = 32, LINES = ROWS + COLS, PITCH = LINES + 1;
static_assert(ROWS == SUMS_TILE_ROWS, "a tile of rows is a block's");

__device__ __forceinline__ double element(const void *from, enum dtype d, int64_t i) {
    switch (d) {
    case DTYPE_F64: return static_cast<const double *>(from)[i];
    case DTYPE_F32: return (double)static_cast<const float *>(from)[i];
    case DTYPE_BF16: return (double)bf16_to_float(static_cast<const bf16 *>(from)[i]);
    default: return (double)f16_to_float(static_cast<const f16 *>(from)[i]);
    }
}

struct sums {
    double y, low, high, span, s1;
};

__device__ __forceinline__ void add_term(struct sums &s, double w, double x) {
    const double term = __dmul_rn(w, x);
    s.y = __dadd_rn(s.y, term);
    s.low = s.y < s.low ? s.y : s.low;
    s.high = s.y > s.high ? s.y : s.high;
    s.s1 = __dadd_rn(s.s1, fabs(term));
}

/* shared[k][line] for k < depth: rows of x, then columns of w; lines that do not exist are 0. */
__device__ __forceinline__ void fill(double *shared, const struct sums_args &a, const struct sums_tile &tile,
                                     int64_t col0, int64_t k0, int depth) {
    for (int i = (int)threadIdx.x; i < LINES * DEPTH; i += THREADS) {
        const int k = i % DEPTH, line = i / DEPTH, col = line - ROWS;
        if (k >= depth) continue;
        double value = 0;
        if (line < tile.n)
            value = element(a.x, a.x_dtype, (tile.first + line) * a.n_inner + k0 + k);
        else if (col >= 0 && col0 + col < a.n_cols)
            value = element(a.w, a.w_dtype, (tile.run * a.n_cols + col0 + col) * a.n_inner + k0 + k);
        shared[k * PITCH + line] = value;
    }
}

__device__ __forceinline__ void add_terms(struct sums (&s)[ROWS_EACH][COLS_EACH], const double *x,
                                          const double *w, int depth) {
    for (int i = 0; i < depth - SEEDED(BUG_SUMS_LAST_TERM); i++) {
        const int k = SEEDED(BUG_SUMS_FALLING_K) ? depth - 1 - i : i;
        UNROLL
        for (int r = 0; r < ROWS_EACH; r++) {
            UNROLL
            for (int c = 0; c < COLS_EACH; c++)
                add_term(s[r][c], w[k * PITCH + c * SIDE], x[k * PITCH + r * SIDE]);
        }
    }
}

__global__ void __launch_bounds__(THREADS, 2) linear_sums_kernel(const struct sums_args a) {
    const struct sums_tile tile = a.tile[blockIdx.x];
    const int64_t col0 = (int64_t)blockIdx.y * COLS;
    DYNAMIC_SHARED(dynamic);
    struct carve carve = {dynamic};
    double *const shared = carve.take<double>(DEPTH * PITCH);
    const int own_row = (int)threadIdx.x / SIDE, own_col = (int)threadIdx.x % SIDE;
    struct sums s[ROWS_EACH][COLS_EACH] = {};

    for (int64_t first = 0; first < a.n_inner; first += a.slice) {
        const int64_t end = min(first + a.slice, a.n_inner);
        UNROLL
        for (int i = 0; i < ROWS_EACH * COLS_EACH; i++) {
            struct sums &one = s[i / COLS_EACH][i % COLS_EACH];
            one.low = one.high = one.y;
        }
        for (int64_t k0 = first; k0 < end; k0 += DEPTH) {
            const int depth = (int)min(end - k0, (int64_t)DEPTH);
            fill(shared, a, tile, col0, k0, depth);
            if (!SEEDED(BUG_SUMS_NO_SYNC_AFTER_FILL)) __syncthreads();
            add_terms(s, shared + own_row, shared + ROWS + own_col, depth);
            if (!SEEDED(BUG_SUMS_NO_SYNC_BEFORE_REFILL)) __syncthreads();
        }
        UNROLL
        for (int i = 0; i < ROWS_EACH * COLS_EACH; i++) {
            struct sums &one = s[i / COLS_EACH][i % COLS_EACH];
            one.span = __dadd_rn(one.span, __dadd_rn(one.high, -one.low));
        }
    }
    UNROLL
    for (int r = 0; r < ROWS_EACH; r++) {
        UNROLL
        for (int c = 0; c < COLS_EACH; c++) {
            const int row = own_row + r * SIDE;
            const int64_t col = col0 + own_col + c * SIDE, at = (tile.first + row) * a.n_cols + col;
            if (row >= tile.n || col >= a.n_cols) continue;
            a.y[at] = s[r][c].y;
            a.span[at] = s[r][c].span;
            a.s1[at] = s[r][c].s1;
        }
    }
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(linear_sums)(const struct sums_args *a, void *stream) {
    const int64_t col_tiles = (a->n_cols + COLS - 1) / COLS;
    if (col_tiles > 65535) return "linear_sums: too many columns; at most 4194240";
    return LAUNCH(linear_sums_kernel, dim3((unsigned)a->n_tiles, (unsigned)col_tiles), dim3(THREADS),
                  carve_bytes<double>(DEPTH * PITCH), stream, *a);
}
