/* products - the tile of products that the reference's kernels share: 16 x 16 threads, a thread owns 2 rows
 * x 4 columns, each 16 apart; 32 rows, 64 columns and 32 k as doubles in shared memory, k-major, 24 KiB. The
 * odd pitch spreads the lines of a k and the k of a line over the banks. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_REFERENCE_PRODUCTS_CUH
#define KERNELS_REFERENCE_PRODUCTS_CUH

#include "kernels/lang/kernel.cuh"
#include "kernels/reference/linear_sums.h"

constexpr int SIDE = 16, THREADS = SIDE * SIDE;
constexpr int ROWS_EACH = 2, COLS_EACH = 4, ROWS = SIDE * ROWS_EACH, COLS = SIDE * COLS_EACH;
constexpr int DEPTH = 32, LINES = ROWS + COLS, PITCH = LINES + 1;
static_assert(ROWS == SUMS_TILE_ROWS, "a tile of rows is a block's");

static __device__ __forceinline__ double element(const void *from, enum dtype d, int64_t i) {
    switch (d) {
    case DTYPE_F64: return static_cast<const double *>(from)[i];
    case DTYPE_F32: return (double)static_cast<const float *>(from)[i];
    case DTYPE_BF16: return (double)bf16_to_float(static_cast<const bf16 *>(from)[i]);
    default: return (double)f16_to_float(static_cast<const f16 *>(from)[i]);
    }
}

/* shared[k][line] for k < depth: rows of x, then columns of w; lines that do not exist are 0. */
static __device__ __forceinline__ void fill(double *shared, const struct sums_args &a,
                                            const struct sums_tile &tile, int64_t k0, int depth) {
    const int64_t col0 = (int64_t)blockIdx.y * COLS;
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

/* An element: of row `row` of x and out, column `col`; in out it is number `at`. */
struct element_place {
    int64_t run, row, col, at;
};

/* A thread's elements; sum[r][c] meets row x[r * SIDE] and column w[c * SIDE] of a k. Sum has
 *   begin()  end()                 of a slice of k
 *   terms(x, w, depth, args)       the next `depth` k, k-major with PITCH between them
 *   store(args, place)             the element of that place */
template <class Sum>
static __global__ void __launch_bounds__(THREADS, 2) products_kernel(const struct sums_args a) {
    const struct sums_tile tile = a.tile[blockIdx.x];
    DYNAMIC_SHARED(dynamic);
    struct carve carve = {dynamic};
    double *const shared = carve.take<double>(DEPTH * PITCH);
    const int own_row = (int)threadIdx.x / SIDE, own_col = (int)threadIdx.x % SIDE;
    Sum sum[ROWS_EACH][COLS_EACH] = {};
    for (int64_t first = 0; first < a.n_inner; first += a.slice) {
        const int64_t end = min(first + a.slice, a.n_inner);
        UNROLL
        for (int i = 0; i < ROWS_EACH * COLS_EACH; i++) sum[i / COLS_EACH][i % COLS_EACH].begin();
        for (int64_t k0 = first; k0 < end; k0 += DEPTH) {
            const int depth = (int)min(end - k0, (int64_t)DEPTH);
            fill(shared, a, tile, k0, depth);
            if (!SEEDED(BUG_SUMS_NO_SYNC_AFTER_FILL)) __syncthreads();
            Sum::terms(sum, shared + own_row, shared + ROWS + own_col, depth, a);
            if (!SEEDED(BUG_SUMS_NO_SYNC_BEFORE_REFILL)) __syncthreads();
        }
        UNROLL
        for (int i = 0; i < ROWS_EACH * COLS_EACH; i++) sum[i / COLS_EACH][i % COLS_EACH].end(first == 0);
    }
    UNROLL
    for (int i = 0; i < ROWS_EACH * COLS_EACH; i++) {
        const int row = own_row + i / COLS_EACH * SIDE;
        const int64_t col = (int64_t)blockIdx.y * COLS + own_col + i % COLS_EACH * SIDE;
        if (row < tile.n && col < a.n_cols)
            sum[i / COLS_EACH][i % COLS_EACH].store(
                a, element_place{tile.run, tile.first + row, col, (tile.first + row) * a.n_cols + col});
    }
}

template <class Sum> static const char *launch_products(const struct sums_args *a, void *stream) {
    const int64_t col_tiles = (a->n_cols + COLS - 1) / COLS;
    if (col_tiles > 65535) return "sums of the reference: too many columns; at most 4194240";
    return LAUNCH((products_kernel<Sum>), dim3((unsigned)a->n_tiles, (unsigned)col_tiles), dim3(THREADS),
                  carve_bytes<double>(DEPTH * PITCH), stream, *a);
}

#endif
