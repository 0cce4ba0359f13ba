/* bound - derived error bounds and acceptance sets.
 * E is the half-width of the interval in which an honest implementation's value lies before its
 * final rounding; rounding is monotone, so the stored value must lie in [round(y - E), round(y +
 * E)]. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_BOUND_H
#define REFERENCE_BOUND_H

#include "layer/contract.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define ANYWHERE static __host__ __device__ __forceinline__
#else
#define ANYWHERE static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Error of a sum of n terms <= accumulator_factor(acc, n) * C, with C = W (ORDER_INTERVAL) or S1
 * (ORDER_ANY). W = max prefix sum - min prefix sum, S1 = sum of magnitudes. >= 1 means the bound is
 * vacuous. */
double accumulator_factor(const struct accumulator *acc, int64_t n);
/* The whole bound of one sum, the reference's own double rounding included. */
double accumulator_bound(const struct accumulator *acc, int64_t n, double w, double s1);

/* The same of a sum in slices of acc->slice terms (0: one), with w the sum of the slices' own W. */
double accumulator_slices_bound(const struct accumulator *acc, int64_t n, double w, double s1);

/* What bounds of many sums of n terms have in common, by the accumulator and n. */
struct sum_bounds {
    bool vacuous, any_order, in_slices;
    double share;                   /* g / (1 - g) */
    double products;                /* unit that products are rounded to; 0: they are not */
    double own, tiny;               /* the reference's own roundings as a share; underflow */
    double others_own, others_tiny; /* of the terms behind the first slice */
    double grid;                    /* of s1: see accumulator_grid */
};
struct sum_bounds sum_bounds_of(const struct accumulator *acc, int64_t n);
/* accumulator_slices_bound and accumulator_grid of one sum, with the same bits. */
ANYWHERE double sum_bound(const struct sum_bounds *b, double w, double s1) {
    const double condition = b->any_order ? s1 : w, products = b->products > 0 ? b->products * s1 : 0;
    if (b->vacuous) return (double)INFINITY;
    const double tiny = condition > 0 ? b->tiny : 0, others = condition > 0 ? b->others_tiny : 0;
    const double e = b->share * (condition + products) + products + b->own * condition + tiny;
    return b->in_slices ? e + b->others_own * condition + others : e;
}
/* Terms whose magnitudes add up to s1 and that are all multiples of the same power of two: from
 * which power on is their sum exact, whatever the order? Then E = 0. With additions of relative
 * error `unit`, one a term: */
ANYWHERE double addition_grid(double unit, double s1) {
    const double range = 0x1p100, share = s1 * unit, least = share > 1 / range ? share : 1 / range;
    return s1 <= range ? least : (double)NAN;
}
/* The same of bounds, and of an accumulator. */
ANYWHERE double sum_grid(const struct sum_bounds *b, double s1) { return addition_grid(b->grid, s1); }
double accumulator_grid(const struct accumulator *acc, double s1);

/* The largest power of two that v is a multiple of; infinite for 0, 0 for what is no normal number:
 * v without its lowest bit, taken from v. No branch: loops take several at once. */
ANYWHERE double value_grid(double v) {
    const double size = fabs(v), least = 0x1p-970, most = 0x1.fffffffffffffp1023;
    uint64_t bits, others;
    double without;
    memcpy(&bits, &size, sizeof bits);
    others = bits & (bits - 1);
    memcpy(&without, &others, sizeof without);
    const double grid = bits << 12 ? size - without : size;
    const double normal = (size >= least) & (size <= most) ? grid : 0;
    return size == 0 ? (double)INFINITY : normal;
}

/* What the elements of a linear call have in common. */
struct linear_bounds {
    struct sum_bounds sum;
    double input_unit; /* of linear_contract */
    double flushed;    /* what products, additions and merges lose where they underflow */
};
/* E of a sum with these condition numbers and a bias, `moved` by what x is off. Operands rounded to
 * `input_unit` first move every product by at most 2 iu + iu^2 of its magnitude, and every partial sum with
 * it; so do operands that are off by a radius. */
ANYWHERE double linear_bound(const struct linear_bounds *b, double span, double s1, double bias,
                             double moved) {
    const double inputs = b->input_unit * (2 + b->input_unit) * (s1 + moved) + moved;
    const double w = span + fabs(bias), size = s1 + fabs(bias);
    return sum_bound(&b->sum, w + inputs, size + inputs) + inputs + (size > 0 ? b->flushed : 0);
}
/* A row's sum with a column is exact where all its terms are multiples of what sum_grid gives: the
 * bias is, and the grids of row and weights are together. From which grid of the weights on?
 * INFINITY: from none. */
ANYWHERE double linear_need(const struct linear_bounds *b, double s1, double bias, double bias_grid,
                            double row_grid) {
    const double least = sum_grid(&b->sum, s1 + fabs(bias)), share = least / row_grid;
    const double need = row_grid == INFINITY ? 0 : share;
    return bias_grid < least ? (double)INFINITY : need;
}

/* What numbers known to within e become when they are rounded to dtype d: rounding is monotone, so a number
 * in [y - e, y + e] goes into [round(y - e), round(y + e)], mostly one number. y[0..n) becomes round(y), e
 * what is left of the doubt: 0 unless a tie of d is within reach. DTYPE_F64: nothing changes. Where the
 * interval reaches overflow e is infinite; NaN stays NaN. */
void image_of(double *y, double *e, int64_t n, enum dtype d);

enum verdict_kind {
    ELEMENT_OK,
    ELEMENT_OUTSIDE,  /* finite, but outside the acceptance set: proof of an error */
    ELEMENT_NONFINITE /* NaN or infinity where the set does not reach overflow */
};
struct element_verdict {
    enum verdict_kind kind;
    double
        margin; /* implied error / E: 0 when correctly rounded, <= 1 iff accepted, INFINITY for non-finite */
};
/* Is `got`, as stored in dtype d, a legal rounding of a value within e of y?  e >= 0; y finite. */
struct element_verdict element_judge(enum dtype d, double got, double y, double e);
/* The same of n > 0 elements at once, quickly: is each of them round(y), and none so large that it
 * may be poison? e: NULL: exact. False says nothing. */
bool elements_rounded(enum dtype d, const void *got, int64_t first, const double *y, const double *e,
                      int64_t n);
/* Is round(y - E) = round(y + E)? */
bool element_is_single(enum dtype d, double y, double e);

#ifdef __cplusplus
}
#endif
#endif
