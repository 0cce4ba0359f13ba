/* Does the acceptance set accept exactly what it should? Attacks on element_judge, the accumulator
 * table, and emulated honest sums (fp32 in four orders, a truncating tensor core) that must never
 * be called wrong. */
/* SPDX-License-Identifier: MIT */
#include "reference/bound.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

static const enum dtype float_types[] = {DTYPE_F64, DTYPE_F32, DTYPE_BF16, DTYPE_F16};
enum { N_FLOAT_TYPES = 4 };

static double uniform(void) { return drand48() * 2 - 1; }

static double next_number(enum dtype d, double v, bool up) {
    if (d == DTYPE_I32) return v + (up ? 1 : -1);
    if (d == DTYPE_F64) return nextafter(v, up ? INFINITY : -INFINITY);
    /* walk until the rounding changes: slow, but shares nothing with the code under test */
    double step = fmax(fabs(v) * dtype_unit(d) / 4, dtype_tiny(d) / 4), w = v;
    while (dtype_round(d, w) == v) w += up ? step : -step;
    return dtype_round(d, w);
}

static void expect(enum dtype d, double got, double y, double e, enum verdict_kind kind) {
    const struct element_verdict v = element_judge(d, got, y, e);
    cr_assert_eq(v.kind, kind, "%s got %a y %a e %a: kind %d, margin %g", dtype_name(d), got, y, e, v.kind,
                 v.margin);
    cr_assert_eq(v.kind == ELEMENT_OK, v.margin <= 1);
    cr_assert(!(v.margin < 0));
}

Test(bound, correctly_rounded_values_have_margin_zero) {
    for (int i = 0; i < 3000; i++) {
        const enum dtype d = float_types[i % N_FLOAT_TYPES];
        const double y = ldexp(uniform(), i % 61 - 30);
        const struct element_verdict v = element_judge(d, dtype_round(d, y), y, 0);
        cr_assert_eq(v.kind, ELEMENT_OK);
        cr_assert_eq(v.margin, 0);
    }
}

Test(bound, set_is_exactly_the_rounded_interval) {
    srand48(1);
    for (int i = 0; i < 3000; i++) {
        const int kind = i % (N_FLOAT_TYPES + 1);
        const enum dtype d = kind == N_FLOAT_TYPES ? DTYPE_I32 : float_types[kind];
        const double y = d == DTYPE_I32 ? 1000 * uniform() : ldexp(uniform(), i % 33 - 17);
        const double e = d == DTYPE_I32 ? 3 * drand48() : fabs(y) * dtype_unit(d) * 4 * drand48();
        const double low = dtype_round(d, y - e), high = dtype_round(d, y + e);
        expect(d, low, y, e, ELEMENT_OK);
        expect(d, high, y, e, ELEMENT_OK);
        expect(d, next_number(d, low, false), y, e, ELEMENT_OUTSIDE);
        expect(d, next_number(d, high, true), y, e, ELEMENT_OUTSIDE);
    }
}

Test(bound, set_around_zero_and_subnormals_is_exact) {
    for (int i = 1; i < N_FLOAT_TYPES; i++) {
        const enum dtype d = float_types[i];
        const double tiny = dtype_tiny(d);
        expect(d, -0.0, 0, 0, ELEMENT_OK);
        expect(d, tiny, 0, 0, ELEMENT_OUTSIDE);
        expect(d, tiny, 0, 0.51 * tiny, ELEMENT_OK);
        expect(d, tiny, 0, 0.5 * tiny, ELEMENT_OUTSIDE); /* the tie goes to zero, which is even */
        expect(d, 2 * tiny, 0, 1.4 * tiny, ELEMENT_OUTSIDE);
        expect(d, 0, 3 * tiny, 2 * tiny, ELEMENT_OUTSIDE);
        expect(d, 0, 3 * tiny, 2.5 * tiny, ELEMENT_OK);
    }
}

Test(bound, nothing_and_wrong_values_are_outside) {
    for (int i = 0; i < N_FLOAT_TYPES; i++) {
        const enum dtype d = float_types[i];
        const double y = 1.37, e = 4 * dtype_unit(d);
        expect(d, 0, y, e, ELEMENT_OUTSIDE);
        expect(d, -dtype_round(d, y), y, e, ELEMENT_OUTSIDE);
        expect(d, dtype_max(d), y, e, ELEMENT_OUTSIDE);
        expect(d, NAN, y, e, ELEMENT_NONFINITE);
        expect(d, INFINITY, y, e, ELEMENT_NONFINITE);
        expect(d, -INFINITY, y, e, ELEMENT_NONFINITE);
        expect(d, NAN, y, INFINITY, ELEMENT_NONFINITE);
    }
}

Test(bound, unknown_references_accept_nothing) {
    expect(DTYPE_F32, 1, NAN, 0, ELEMENT_NONFINITE);
    expect(DTYPE_F32, NAN, NAN, NAN, ELEMENT_NONFINITE);
    expect(DTYPE_F32, 1, 1, NAN, ELEMENT_NONFINITE);
    expect(DTYPE_F32, INFINITY, INFINITY, 0, ELEMENT_NONFINITE);
    expect(DTYPE_F32, 1, 1, -1, ELEMENT_NONFINITE);
}

Test(bound, infinity_is_legal_only_where_the_interval_overflows) {
    for (int i = 0; i < N_FLOAT_TYPES; i++) {
        const enum dtype d = float_types[i];
        const double max = dtype_max(d), step = max * dtype_unit(d);
        expect(d, INFINITY, max, step / 4, ELEMENT_NONFINITE);
        expect(d, INFINITY, max, 2 * step, ELEMENT_OK);
        expect(d, -INFINITY, max, 2 * step, ELEMENT_NONFINITE);
        expect(d, -INFINITY, -max, 2 * step, ELEMENT_OK);
        expect(d, max, max, 2 * step, ELEMENT_OK);
    }
    expect(DTYPE_F32, INFINITY, 1e39, 0, ELEMENT_OK); /* beyond the format for certain */
    expect(DTYPE_F32, FLT_MAX, 1e39, 0, ELEMENT_OUTSIDE);
    expect(DTYPE_F16, INFINITY, 65520, 0, ELEMENT_OK); /* the tie goes to the even pattern */
    expect(DTYPE_F16, INFINITY, 65519, 0.5, ELEMENT_NONFINITE);
    expect(DTYPE_F16, 65504, 65530, 11, ELEMENT_OK);
}

Test(bound, margin_is_the_distance_to_the_cell_over_e) {
    /* bf16 cells around 1: numbers below are 2^-8 apart, above 2^-7 */
    const double below = 1 - 0x1p-8, above = 1 + 0x1p-7;
    cr_assert_float_eq(element_judge(DTYPE_BF16, below, 1, 0x1p-8).margin, 0.5, 1e-12);
    cr_assert_float_eq(element_judge(DTYPE_BF16, above, 1, 0x1p-7).margin, 0.5, 1e-12);
    cr_assert_float_eq(element_judge(DTYPE_BF16, 1, 1 - 0x1p-8, 0x1p-8).margin, 0.5, 1e-12);
    cr_assert_float_eq(element_judge(DTYPE_BF16, 3, 1, 0.5).margin, 4 - 0x1p-6, 1e-12);
    cr_assert_eq(element_judge(DTYPE_BF16, above, 1, 0).margin, INFINITY);
    cr_assert_float_eq(element_judge(DTYPE_F64, 1 + 0x1p-51, 1, 0x1p-51).margin, 0.75, 1e-12);
}

Test(bound, of_numbers_that_are_cut_the_set_is_the_cut_interval) {
    const enum dtype cut = DTYPE_BF16_CUT;
    srand48(2);
    int differ = 0;
    for (int i = 0; i < 20000; i++) {
        const double y = ldexp(uniform(), i % 33 - 17), e = i % 5 ? fabs(y) * 0x1p-6 * drand48() : 0;
        const double low = dtype_round(cut, y - e), high = dtype_round(cut, y + e);
        expect(cut, low, y, e, ELEMENT_OK);
        expect(cut, high, y, e, ELEMENT_OK);
        expect(cut, next_number(cut, low, false), y, e, ELEMENT_OUTSIDE);
        expect(cut, next_number(cut, high, true), y, e, ELEMENT_OUTSIDE);
        if (e == 0 && dtype_round(DTYPE_BF16, y) != low) {
            expect(cut, dtype_round(DTYPE_BF16, y), y, 0, ELEMENT_OUTSIDE); /* who rounds to nearest */
            expect(DTYPE_BF16, low, y, 0, ELEMENT_OUTSIDE);                 /* and who cuts */
            differ++;
        }
    }
    cr_assert_gt(differ, 1500);
    cr_expect_float_eq(element_judge(cut, 1, 1 - 0x1p-8, 0x1p-7).margin, 0.5, 1e-12);
    cr_expect_float_eq(element_judge(cut, -1, -1 - 0x1p-6, 0x1p-6).margin, 0.5, 1e-12);
    cr_expect_float_eq(element_judge(cut, 0, 0x1p-132, 0x1p-132).margin, 0.5, 1e-12);
    expect(cut, 0, 0x1p-134, 0, ELEMENT_OK);
    expect(cut, NAN, 1, 1, ELEMENT_NONFINITE);
}

Test(bound, accumulator_factor_follows_the_table) {
    const struct accumulator fp32 = {.unit = UNIT_F32, .block = 1};
    const struct accumulator split = {.unit = UNIT_F32, .block = 1, .splits = 4};
    const struct accumulator fp64 = {.unit = UNIT_F64, .block = 1};
    const struct accumulator sm90 = {.block = 16, .fraction = 25, .keep = 24};
    cr_assert_eq(accumulator_factor(&fp32, 100), 100 * 0x1p-24);
    cr_assert_eq(accumulator_factor(&split, 100), 103 * 0x1p-24);
    cr_assert_eq(accumulator_factor(&fp64, 100), 100 * 0x1p-53);
    cr_assert_eq(accumulator_factor(&sm90, 33), 3 * (17 * 0x1p-25 + 0x1p-23));
    cr_assert_float_eq(accumulator_factor(&sm90, 4096) / (4096 * 0x1p-24), 0.66, 0.01);
}

Test(bound, accumulator_bound_uses_the_declared_condition) {
    struct accumulator a = {.unit = UNIT_F32, .block = 1, .order = ORDER_INTERVAL};
    const double interval = accumulator_bound(&a, 64, 2, 50);
    cr_assert_float_eq(interval / (64 * 0x1p-24 * 2), 1, 1e-4);
    a.product_rounded = true;
    cr_assert_float_eq((accumulator_bound(&a, 64, 2, 50) - interval) / (0x1p-24 * 50), 1, 1e-4);
    a.product_rounded = false;
    a.order = ORDER_ANY;
    cr_assert_float_eq(accumulator_bound(&a, 64, 2, 50) / interval, 25, 1e-6);
    cr_assert_eq(accumulator_bound(&a, 64, 0, 0), 0);
    cr_assert(isnan(accumulator_bound(&a, 64, NAN, NAN)));
    const struct accumulator vacuous = {.unit = 0.25, .block = 1};
    cr_assert_eq(accumulator_bound(&vacuous, 4, 1, 1), INFINITY);
}

/* ---- honest sums ---- */

enum { MAX_N = 512 };

static float sum_forward(const float *a, const float *b, int n) {
    float s = 0;
    for (int i = 0; i < n; i++) s = fmaf(a[i], b[i], s);
    return s;
}
static float sum_reversed(const float *a, const float *b, int n) {
    float s = 0;
    for (int i = n - 1; i >= 0; i--) s = fmaf(a[i], b[i], s);
    return s;
}
static float sum_blocked(const float *a, const float *b, int n) {
    float s = 0;
    for (int i = 0; i < n; i += 32) s += sum_forward(a + i, b + i, n - i < 32 ? n - i : 32);
    return s;
}
static float sum_pairwise(const float *a, const float *b, int n) {
    if (n == 1) return a[0] * b[0];
    return sum_pairwise(a, b, n / 2) + sum_pairwise(a + n / 2, b + n / 2, n - n / 2);
}
static float sum_strided(const float *a, const float *b, int n) {
    float lane[32] = {0}, s = 0;
    for (int i = 0; i < n; i++) lane[i % 32] += a[i] * b[i];
    for (int i = 0; i < 32; i++) s += lane[i];
    return s;
}

/* sm_90: 16 products and the old sum aligned to the largest exponent, cut to 25 fraction bits, the
 * result to 24. */
static float sum_tensor_core(const float *a, const float *b, int n) {
    float c = 0;
    for (int i = 0; i < n; i += 16) {
        double term[17] = {(double)c}, sum = 0;
        int top = -1000, e;
        for (int k = 0; k < 16 && i + k < n; k++) term[k + 1] = (double)a[i + k] * (double)b[i + k];
        for (int k = 0; k < 17; k++)
            if (term[k] != 0) frexp(term[k], &e), top = e > top ? e : top;
        for (int k = 0; k < 17; k++) sum += ldexp(trunc(ldexp(term[k], 26 - top)), top - 26);
        frexp(sum, &e);
        c = (float)ldexp(trunc(ldexp(sum, 24 - e)), e - 24);
    }
    return c;
}

static const struct {
    const char *name;
    float (*sum)(const float *a, const float *b, int n);
    struct accumulator acc;
} honest_sums[] = {
    {"forward", sum_forward, {.unit = UNIT_F32, .block = 1}},
    {"reversed", sum_reversed, {.unit = UNIT_F32, .block = 1}},
    {"blocked", sum_blocked, {.unit = UNIT_F32, .block = 1, .splits = 16}},
    {"pairwise", sum_pairwise, {.unit = UNIT_F32, .block = 1, .product_rounded = true}},
    {"strided",
     sum_strided,
     {.unit = UNIT_F32, .block = 1, .splits = 32, .order = ORDER_ANY, .product_rounded = true}},
    {"tensor core", sum_tensor_core, {.block = 16, .fraction = 25, .keep = 24}},
};

/* Terms that cancel, that are all positive, that span many magnitudes, that are constant, whose
 * products are subnormal in fp32. */
static void fill_terms(float *a, float *b, int n, int ensemble) {
    for (int i = 0; i < n; i++) {
        const double x = uniform(), y = uniform();
        a[i] = (float)dtype_round(DTYPE_BF16, ensemble == 1 ? fabs(x) : ensemble == 3 ? 0.7 : x);
        b[i] = (float)dtype_round(DTYPE_BF16, ensemble == 1   ? fabs(y)
                                              : ensemble == 2 ? ldexp(y, i % 23 - 11)
                                                              : y);
        if (ensemble == 4) a[i] *= 0x1p-72f, b[i] *= 0x1p-72f;
        if (ensemble == 0 && i % 2) a[i] = a[i - 1], b[i] = -b[i - 1] * 1.0078125f;
    }
}

Test(bound, honest_sums_are_never_outside_and_dropped_terms_are) {
    static float a[MAX_N], b[MAX_N];
    int caught = 0, trials = 0;
    srand48(7);
    for (int trial = 0; trial < 400; trial++) {
        const int n = 1 + (int)(drand48() * (MAX_N - 1));
        fill_terms(a, b, n, trial % 5);
        double y = 0, low = 0, high = 0, s1 = 0;
        for (int i = 0; i < n; i++) {
            const double term = (double)a[i] * (double)b[i];
            y += term, s1 += fabs(term);
            low = fmin(low, y), high = fmax(high, y);
        }
        for (size_t k = 0; k < sizeof honest_sums / sizeof *honest_sums; k++) {
            const double e = accumulator_bound(&honest_sums[k].acc, n, high - low, s1);
            const float got = honest_sums[k].sum(a, b, n);
            const struct element_verdict v = element_judge(DTYPE_F32, (double)got, y, e);
            cr_assert_eq(v.kind, ELEMENT_OK, "%s, n %d, ensemble %d: margin %g", honest_sums[k].name, n,
                         trial % 5, v.margin);
            if (trial % 5 == 2 || trial % 5 == 4 || n == 1) continue; /* the last term may honestly vanish */
            const double dropped = (double)honest_sums[k].sum(a, b, n - 1);
            caught += element_judge(DTYPE_F32, dropped, y, e).kind == ELEMENT_OUTSIDE;
            trials++;
        }
    }
    cr_assert_gt(caught, trials * 0.95, "%d of %d dropped terms were noticed", caught, trials);
}

/* ---- contracts ---- */

/* Constants that were derived for short sequences and small logits grow with both. */
Test(bound, hf64_constants_follow_from_positions_and_logits) {
    const struct hf64_range usual = {.n_positions = 64, .logit = 8, .span = 8, .top_k = 8};
    const struct hf64_range far = {.n_positions = 32768, .logit = 144, .span = 288, .top_k = 8};
    const struct hf64_range raw = {.n_positions = 64, .logit = 8, .span = 8, .top_k = 8, .n_experts = 128};
    cr_expect_float_eq(contract_hf64(OP_ROPE).u.rope.table_error / UNIT_F32, 279, 0.1);
    cr_expect_float_eq(contract_hf64(OP_COMBINE).u.combine.gate_error / UNIT_F32, 72, 0.1);
    cr_expect_eq(contract_hf64_of(OP_COMBINE, &usual).u.combine.gate_error,
                 contract_hf64(OP_COMBINE).u.combine.gate_error);
    /* a float32 table was measured to err by 34086 u below 32768, the gates by 1.05 times 72 u at 144 */
    cr_expect_gt(contract_hf64_of(OP_ROPE, &far).u.rope.table_error, 34086 * UNIT_F32);
    cr_expect_gt(contract_hf64_of(OP_COMBINE, &far).u.combine.gate_error, 76 * UNIT_F32);
    cr_expect_eq(contract_hf64_of(OP_COMBINE, &raw).u.combine.gate_error,
                 contract_hf64(OP_COMBINE).u.combine.gate_error + 128 * UNIT_F32);
}

Test(contract, named_contracts_carry_their_op) {
    for (int op = 0; op < OP_COUNT; op++) {
        cr_assert_eq(contract_exact((enum op)op).op, (enum op)op);
        cr_assert_eq(contract_hf64((enum op)op).op, (enum op)op);
    }
    cr_assert_eq(contract_hf64_router().op, OP_LINEAR);
    cr_assert_eq(contract_exact(OP_LINEAR).u.linear.acc.unit, UNIT_F32);
    cr_assert_eq(contract_hf64(OP_LINEAR).u.linear.acc.unit, UNIT_F64);
}
