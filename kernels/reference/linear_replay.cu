/* linear_replay - what a declared order of fp32 additions gives for every element of a product
 * (kernels/reference/linear_sums.h): a chain of FMA, or the steps of a tensor core.
 * Shapes  x [rows, K], w [runs, N, K], tiles [n] -> y [rows, N], fp32 numbers in doubles
 * Grid    (row tiles, column tiles).   Block  256 threads, 8 elements each: products.cuh.
 * Traffic w once per row tile, x once per column tile, in their storage dtype.
 * Numerics k ascending; slices are added up in fp32 as they end. A step of b terms takes all products and
 *         the old sum at one unit, cut off towards zero (reference/replay.c says whose arithmetic that is);
 *         every operation is exact but the cuts. Needs DEPTH to be whole steps. */
/* SPDX-License-Identifier: MIT */
#include "kernels/reference/products.cuh"

namespace {

constexpr int MOST_EXPONENT_BITS = 0x7ff, FRACTION_BITS = 52, BIAS = 1023;

__device__ __forceinline__ uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
__device__ __forceinline__ double double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* That of zero is below all others, those of subnormal fp32 numbers are that of the least normal one. */
__device__ __forceinline__ int exponent_of(double x) {
    const int e = (int)(bits_of(x) >> FRACTION_BITS & MOST_EXPONENT_BITS) - BIAS;
    return x == 0 ? -4000 : max(e, -126);
}
__device__ __forceinline__ double power_of_two(int e) {
    return double_of((uint64_t)(int64_t)(e + BIAS) << FRACTION_BITS);
}

/* Of a T that holds fp32 numbers. */
template <class T> struct slices {
    T total, sum;

    __device__ __forceinline__ void begin() { sum = 0; }
    __device__ __forceinline__ void end(bool first) {
        total = first ? sum : (T)(float)__dadd_rn((double)total, (double)sum);
    }
    __device__ __forceinline__ void store(const struct sums_args &a, const struct element_place &p) const {
        a.y[p.at] = (double)total;
    }
};

struct chain : slices<float> {
    static __device__ __forceinline__ void terms(chain (&sum)[ROWS_EACH][COLS_EACH], const double *x,
                                                 const double *w, int depth, const struct sums_args &) {
        for (int k = 0; k < depth; k++) {
            float row[ROWS_EACH], col[COLS_EACH];
            UNROLL
            for (int r = 0; r < ROWS_EACH; r++) row[r] = (float)x[k * PITCH + r * SIDE];
            UNROLL
            for (int c = 0; c < COLS_EACH; c++) col[c] = (float)w[k * PITCH + c * SIDE];
            UNROLL
            for (int i = 0; i < ROWS_EACH * COLS_EACH; i++) {
                float &one = sum[i / COLS_EACH][i % COLS_EACH].sum;
                one = fmaf(row[i / COLS_EACH], col[i % COLS_EACH], one);
            }
        }
    }
};

struct core : slices<double> {
    __device__ __forceinline__ void step(const double *x, const double *w, int n, const struct sums_args &a) {
        int e = max(exponent_of(sum), -900); /* all zero */
        for (int k = 0; k < n; k++) e = max(exponent_of(x[k * PITCH]) + exponent_of(w[k * PITCH]), e);
        const double unit = power_of_two(e - a.fraction), per_unit = power_of_two(a.fraction - e);
        double s = trunc(__dmul_rn(sum, per_unit));
        for (int k = 0; k < n; k++)
            s = __dadd_rn(s, trunc(__dmul_rn(__dmul_rn(x[k * PITCH], w[k * PITCH]), per_unit)));
        const uint64_t kept = ~UINT64_C(0) << (FRACTION_BITS + 1 - a.keep);
        s = __dmul_rn(double_of(bits_of(s) & kept), unit);
        sum = __dmul_rn(trunc(__dmul_rn(s, 0x1p149)), 0x1p-149); /* below the least normal: fewer bits */
    }

    static __device__ __forceinline__ void terms(core (&sum)[ROWS_EACH][COLS_EACH], const double *x,
                                                 const double *w, int depth, const struct sums_args &a) {
        const int whole = SEEDED(BUG_REPLAY_LONG_STEP) ? DEPTH : a.block;
        for (int k = 0; k < depth; k += whole) {
            UNROLL
            for (int i = 0; i < ROWS_EACH * COLS_EACH; i++)
                sum[i / COLS_EACH][i % COLS_EACH].step(x + k * PITCH + i / COLS_EACH * SIDE,
                                                       w + k * PITCH + i % COLS_EACH * SIDE,
                                                       min(whole, depth - k), a);
        }
    }
};

} // namespace

extern "C" const char *KERNEL_SYMBOL(linear_replay)(const struct sums_args *a, void *stream) {
    if (a->block > 1 && DEPTH % a->block) return "sums of the reference: no whole steps in a tile";
    return a->block > 1 ? launch_products<core>(a, stream) : launch_products<chain>(a, stream);
}
