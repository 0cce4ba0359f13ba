/* linear_sums - y, span or bound, and S1 of every element of a product, in double
 * (kernels/reference/linear_sums.h).
 * Shapes  x [rows, K], w [runs, N, K], tiles [n] -> y, span or e, s1 [rows, N], need [runs, N]
 * Grid    (row tiles, column tiles).   Block  256 threads, 8 elements each: products.cuh.
 * Traffic w once per row tile, x once per column tile, in their storage dtype.
 * Numerics one product and one addition each, never an FMA, k ascending: the bits of a plain C loop. */
/* SPDX-License-Identifier: MIT */
#include "kernels/reference/products.cuh"

namespace {

struct double_sum {
    double y, low, high, span, s1;

    __device__ __forceinline__ void begin() { low = high = y; }
    __device__ __forceinline__ void end(bool) { span = __dadd_rn(span, __dadd_rn(high, -low)); }

    __device__ __forceinline__ void add(double w, double x) {
        const double term = __dmul_rn(w, x);
        y = __dadd_rn(y, term);
        low = y < low ? y : low;
        high = y > high ? y : high;
        s1 = __dadd_rn(s1, fabs(term));
    }

    static __device__ __forceinline__ void terms(double_sum (&sum)[ROWS_EACH][COLS_EACH], const double *x,
                                                 const double *w, int depth, const struct sums_args &) {
        for (int i = 0; i < depth - SEEDED(BUG_SUMS_LAST_TERM); i++) {
            const int k = SEEDED(BUG_SUMS_FALLING_K) ? depth - 1 - i : i;
            UNROLL
            for (int r = 0; r < ROWS_EACH; r++) {
                UNROLL
                for (int c = 0; c < COLS_EACH; c++)
                    sum[r][c].add(w[k * PITCH + c * SIDE], x[k * PITCH + r * SIDE]);
            }
        }
    }

    __device__ __forceinline__ void store(const struct sums_args &a, const struct element_place &p) const {
        const double bias = a.e ? a.bias[p.col] : 0;
        a.y[p.at] = a.e ? __dadd_rn(y, bias) : y;
        if (a.s1) a.s1[p.at] = a.e ? __dadd_rn(s1, fabs(bias)) : s1;
        if (a.e)
            a.e[p.at] = linear_bound(&a.bounds, span, s1, bias, 0);
        else
            a.span[p.at] = span;
        if (a.e && a.row_grid) lower_need(a, p, bias);
    }

    /* No negative number, so that the order of the bits is theirs. */
    __device__ __forceinline__ void lower_need(const struct sums_args &a, const struct element_place &p,
                                               double bias) const {
        const double need = linear_need(&a.bounds, s1, bias, value_grid(bias), a.row_grid[p.row]);
        unsigned long long bits;
        memcpy(&bits, &need, sizeof bits);
        unsigned long long *const least = (unsigned long long *)&a.need[p.run * a.n_cols + p.col];
        if (SEEDED(BUG_SUMS_LAST_NEED))
            *least = bits;
        else if (need < INFINITY)
            atomicMin(least, bits);
    }
};

} // namespace

extern "C" const char *KERNEL_SYMBOL(linear_sums)(const struct sums_args *a, void *stream) {
    return launch_products<double_sum>(a, stream);
}
