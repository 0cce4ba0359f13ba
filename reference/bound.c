/* Which stored values may an honest implementation produce? Sums: each node of a summation tree
 * rounds once, errors of nodes add, and every node is a contiguous run of
 * terms (|node| <= W) or any subset (|node| <= S1). With a total of g roundings, E <= g (C + E), so
 * E <= g / (1 - g) C, whatever the order. Sources: Higham 2002 ch. 4; Jeannerod & Rump 2013; for
 * tensor cores Blanchard et al. 2020, Fasi et al. 2021. */
/* SPDX-License-Identifier: MIT */
#include "reference/bound.h"
#include "reference/internal.h"

#include <math.h>
#include <string.h>

static double addition_unit(const struct accumulator *acc) { return acc->block > 1 ? UNIT_F32 : acc->unit; }

double accumulator_factor(const struct accumulator *acc, int64_t n) {
    const double merges = acc->splits > 1 ? acc->splits - 1 : 0;
    if (acc->block <= 1) return ((double)n + merges) * acc->unit;
    /* A tensor core cuts block products and the old sum at `fraction` bits, then the result at
     * `keep` bits. */
    const int64_t blocks = (n + acc->block - 1) / acc->block;
    const double per_block = ldexp(acc->block + 1, -acc->fraction) + ldexp(1, 1 - acc->keep);
    return (double)blocks * per_block + merges * UNIT_F32;
}

/* Terms that are multiples of g have nodes that are multiples of g, and |node| <= S1. A number of p
 * bits holds all such nodes when S1 <= 2^p g, so no addition rounds, nor does a product on its way
 * there. A tensor core cuts operands at 2^-fraction of the largest and results at 2^(1-keep): it
 * cuts off zeros only when S1 <= 2^fraction g and S1 <= 2^(keep-1) g. The magnitudes stay far from
 * overflow, the grid from what is flushed to zero. */
static double grid_share(const struct accumulator *acc) {
    const int kept = acc->fraction < acc->keep - 1 ? acc->fraction : acc->keep - 1;
    return acc->block > 1 ? fmax(ldexp(1, -kept), UNIT_F32) : acc->unit;
}

struct sum_bounds sum_bounds_of(const struct accumulator *acc, int64_t n) {
    struct accumulator one = *acc;
    struct sum_bounds b = {.any_order = acc->order == ORDER_ANY,
                           .in_slices = acc->slice > 0 && acc->slice < n};
    const double unit = addition_unit(acc), others = b.in_slices ? (double)(n - acc->slice) : 0;
    /* A slice of L terms rounds L times, at nodes of at most its own W_i, and each of N slices (or the
     * bias) is added to what is at most the sum of all W_i: (L + N) u sum W_i. */
    if (b.in_slices) one.splits = (int)((n + acc->slice - 1) / acc->slice) + 1, n = acc->slice;
    const double g = accumulator_factor(&one, n);
    b.vacuous = !(g < 1);
    b.share = g / (1 - g);
    b.products = acc->product_rounded ? unit : 0;
    /* The reference itself adds n terms in double. W spans all prefixes and the empty one, so every
     * prefix and every term is <= W, also under cancellation: n additions and, for fp64 operands, n
     * product roundings are off by at most 2 n 2^-53 W. W (and S1) inherit a relative error of the
     * same size, which the other 2 n cover. */
    b.own = 4.0 * (double)n * UNIT_F64;
    b.tiny = (double)n * underflow_unit(unit);
    b.others_own = 4 * others * UNIT_F64;
    b.others_tiny = others * underflow_unit(unit);
    b.grid = grid_share(acc);
    return b;
}

double accumulator_bound(const struct accumulator *acc, int64_t n, double w, double s1) {
    struct accumulator one = *acc;
    one.slice = 0;
    return accumulator_slices_bound(&one, n, w, s1);
}

double accumulator_slices_bound(const struct accumulator *acc, int64_t n, double w, double s1) {
    const struct sum_bounds b = sum_bounds_of(acc, n);
    return sum_bound(&b, w, s1);
}

/* ---- sums without an error ---- */

double accumulator_grid(const struct accumulator *acc, double s1) {
    const struct sum_bounds b = {.grid = grid_share(acc)};
    return sum_grid(&b, s1);
}

/* ---- known roundings ---- */

void image_of(double *y, double *e, int64_t n, enum dtype d) {
    if (d == DTYPE_F64) return;
    for (int64_t i = 0; i < n; i++) {
        const double low = dtype_round(d, y[i] - e[i]), high = dtype_round(d, y[i] + e[i]);
        y[i] = dtype_round(d, y[i]);
        e[i] = fmax(high - y[i], y[i] - low);
    }
}

/* ---- the acceptance set ---- */

/* Of numbers that are cut, `got` and all up to the next away from zero; of 0 those on both sides. */
static double implied_error_of_cut(double got, double y) {
    const double sign = got == 0 ? copysign(1, y) : copysign(1, got), least = fabs(got), there = sign * y;
    return there < least ? least - there : fmax(there - dtype_next(DTYPE_BF16_CUT, least, true), 0);
}

/* Distance from y to the numbers that round to `got`: the cell reaches half way to either
 * neighbour, half as far below a power of two as above it. Infinity's cell starts half a step
 * beyond the largest number. */
static double implied_error(enum dtype d, double got, double y) {
    if (d == DTYPE_BF16_CUT && isfinite(got)) return implied_error_of_cut(got, y);
    if (isinf(got)) {
        const double max = dtype_max(d);
        const double half = (max - dtype_next(d, max, false)) / 2;
        return fmax((max - copysign(1, got) * y) + half, 0);
    }
    double step = dtype_next(d, got, y > got) - got;
    if (isinf(step)) step = got - dtype_next(d, got, y < got);
    return fmax(fabs(y - got) - fabs(step) / 2, 0);
}

bool element_is_single(enum dtype d, double y, double e) {
    return e >= 0 && dtype_round(d, y - e) == dtype_round(d, y + e);
}

/* A non-finite y or e (the reference read outside a span) accepts nothing: NONFINITE with infinite
 * margin. */
struct element_verdict element_judge(enum dtype d, double got, double y, double e) {
    if (isnan(got) || !isfinite(y) || !(e >= 0)) return (struct element_verdict){ELEMENT_NONFINITE, INFINITY};
    if (got == dtype_round(d, y)) return (struct element_verdict){ELEMENT_OK, 0};

    /* The rounding itself decides, so ties fall as they do in hardware; the margin then follows the
     * decision. */
    const bool accepted = dtype_round(d, y - e) <= got && got <= dtype_round(d, y + e);
    const double ratio = e > 0 ? implied_error(d, got, y) / e : INFINITY;
    if (accepted) return (struct element_verdict){ELEMENT_OK, fmin(ratio, 1)};
    if (isinf(got)) return (struct element_verdict){ELEMENT_NONFINITE, INFINITY};
    return (struct element_verdict){ELEMENT_OUTSIDE, fmax(ratio, nextafter(1, 2))};
}

/* The loops have no branch and no call, so that the machine takes four elements at once. */
static uint64_t others_than_rounded(int dropped, double low, double high, const double *got, const double *y,
                                    int64_t n) {
    const uint64_t half = (UINT64_C(1) << (dropped - 1)) - 1, kept = ~UINT64_C(0) << dropped;
    uint64_t others = 0;
    for (int64_t i = 0; i < n; i++) {
        const double size = fabs(y[i]);
        uint64_t bits, stored;
        memcpy(&bits, &y[i], sizeof bits);
        memcpy(&stored, &got[i], sizeof stored);
        bits += half + (bits >> dropped & 1);
        others |= ((bits & kept) ^ stored) | (uint64_t)(!(size >= low) | !(size <= high));
    }
    return others;
}

bool elements_rounded(enum dtype d, const void *got, int64_t first, const double *y, const double *e,
                      int64_t n) {
    enum { PIECE = 64, F64_PRECISION = 53 };
    static const int precision[DTYPE_BF16_CUT + 1] = {[DTYPE_F32] = 24, [DTYPE_BF16] = 8, [DTYPE_F16] = 11};
    double stored[PIECE];
    if (!precision[d]) return false;
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t count = min_i64(PIECE, n - i);
        uint64_t negative = 0;
        dtype_load_row(stored, got, d, first + i, count);
        for (int64_t k = 0; e && k < count; k++) negative |= (uint64_t) !(e[i + k] >= 0);
        if (negative || others_than_rounded(F64_PRECISION - precision[d], dtype_normal(d), dtype_huge(d) / 2,
                                            stored, y + i, count))
            return false;
    }
    return true;
}
