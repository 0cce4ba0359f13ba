/* Does a double become a stored number in exactly one rounding to nearest even? Held against a
 * second formulation that works on the bits of the double alone. */
/* SPDX-License-Identifier: MIT */
#include "layer/dtype.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t bits_of(double v) {
    uint64_t b;
    memcpy(&b, &v, sizeof b);
    return b;
}
static double double_of(uint64_t b) {
    double v;
    memcpy(&v, &b, sizeof v);
    return v;
}

/* Integer arithmetic only. The target has 8 exponent bits and `fraction` fraction bits: bf16 7,
 * fp32 23. Returns the pattern of 1 + 8 + fraction bits; NaN stays NaN. */
static uint32_t round_bits(double v, int fraction) {
    const uint64_t b = bits_of(v);
    const uint32_t sign = (uint32_t)(b >> 63) << (8 + fraction);
    const int exponent = (int)(b >> 52 & 0x7ff);
    uint64_t significand = b & 0xfffffffffffffULL;
    if (exponent == 0x7ff) return sign | (0xffu << fraction) | (significand ? 1u << (fraction - 1) : 0);
    if (exponent == 0) return sign; /* a subnormal double is far below half the smallest number */
    significand |= 1ULL << 52;
    const int unbiased = exponent - 1023;
    const int below = unbiased < -126 ? -126 - unbiased : 0; /* extra bits that underflow shifts out */
    const int shift = 52 - fraction + below;
    if (shift > 54) return sign;
    uint64_t kept = significand >> shift;
    const uint64_t rest = significand & ((1ULL << shift) - 1), half = 1ULL << (shift - 1);
    if (rest > half || (rest == half && (kept & 1))) kept++;
    /* The hidden bit of a normal number adds one to the exponent field below; a carry moves on by
     * itself. */
    const uint64_t field = below ? kept : kept + ((uint64_t)(unbiased + 126) << fraction);
    const uint64_t infinity = 0xffULL << fraction;
    return sign | (uint32_t)(field > infinity ? infinity : field);
}

static uint16_t store_bf16(double v) {
    uint16_t out = 0x1234;
    dtype_store(&out, DTYPE_BF16, 0, v);
    return out;
}
static uint32_t store_f32(double v) {
    uint32_t out = 0x12345678;
    dtype_store(&out, DTYPE_F32, 0, v);
    return out;
}

static void expect_rounding(double v) {
    const uint32_t want16 = round_bits(v, 7), want32 = round_bits(v, 23);
    const uint16_t got16 = store_bf16(v);
    const uint32_t got32 = store_f32(v);
    if (isnan(v)) {
        cr_assert((got16 & 0x7fff) > 0x7f80 && (got32 & 0x7fffffffu) > 0x7f800000u, "NaN became a number");
        return;
    }
    cr_assert_eq(got16, want16, "bf16 of %a is %04x, not %04x", v, got16, want16);
    cr_assert_eq(got32, want32, "fp32 of %a is %08x, not %08x", v, got32, want32);
    cr_assert_eq(bits_of(dtype_round(DTYPE_BF16, v)), bits_of(dtype_load(&got16, DTYPE_BF16, 0)), "%a", v);
    cr_assert_eq(bits_of(dtype_round(DTYPE_F32, v)), bits_of(dtype_load(&got32, DTYPE_F32, 0)), "%a", v);
    cr_assert_eq(bits_of(dtype_round(DTYPE_F64, v)), bits_of(v));
}

static void expect_rounding_around(double v) {
    expect_rounding(v);
    expect_rounding(nextafter(v, INFINITY));
    expect_rounding(nextafter(v, -INFINITY));
    expect_rounding(-v);
    expect_rounding(-nextafter(v, INFINITY));
    expect_rounding(-nextafter(v, -INFINITY));
}

Test(dtype, every_bf16_pattern_survives_loading_and_storing) {
    for (uint32_t p = 0; p < 65536; p++) {
        const uint16_t in = (uint16_t)p;
        const double v = dtype_load(&in, DTYPE_BF16, 0);
        const bool nan = (p & 0x7fff) > 0x7f80;
        cr_assert_eq(isnan(v) != 0, nan, "%04x", p);
        cr_assert_eq(isinf(v) != 0, (p & 0x7fff) == 0x7f80, "%04x", p);
        if (nan)
            cr_assert((store_bf16(v) & 0x7fff) > 0x7f80, "%04x", p);
        else
            cr_assert_eq(store_bf16(v), in, "%04x", p);
        /* The value from its definition. */
        const int exponent = (int)(p >> 7 & 0xff), fraction = (int)(p & 0x7f);
        if (exponent == 0xff) continue;
        const double magnitude = exponent ? ldexp(128 + fraction, exponent - 134) : ldexp(fraction, -133);
        cr_assert_eq(v, p & 0x8000 ? -magnitude : magnitude, "%04x", p);
        cr_assert_eq(signbit(v) != 0, p >> 15);
    }
}

Test(dtype, values_between_neighbouring_bf16_numbers_go_to_the_nearer_and_ties_to_even) {
    for (uint32_t p = 0; p < 0x7f80; p++) {
        const uint16_t here = (uint16_t)p;
        const double low = dtype_load(&here, DTYPE_BF16, 0);
        const uint16_t next = (uint16_t)(p + 1);
        const double top = p == 0x7f7f ? 0x1p128 : dtype_load(&next, DTYPE_BF16, 0);
        const double middle = low + (top - low) / 2;
        cr_assert_eq(store_bf16(middle), p & 1 ? next : here, "tie above %04x", p);
        cr_assert_eq(store_bf16(nextafter(middle, 0)), here, "below the tie above %04x", p);
        cr_assert_eq(store_bf16(nextafter(middle, INFINITY)), next, "beyond the tie above %04x", p);
        expect_rounding_around(middle);
    }
}

Test(dtype, ties_that_rounding_through_float_gets_wrong_are_right) {
    /* Just above the tie of 1 and 1 + 2^-7, by less than a float can show. */
    const double v = 1 + 0x1p-8 + 0x1p-40;
    cr_expect_eq(store_bf16(v), 0x3f81);
    cr_expect_eq(store_bf16(1 + 0x1p-8), 0x3f80, "the tie itself goes to even");
    cr_expect_eq(store_bf16(1 + 0x1p-7 + 0x1p-8 - 0x1p-45), 0x3f81);
    for (int e = -133; e < 128; e++)
        for (int k = 0; k < 4; k++) expect_rounding_around(ldexp(1 + k * 0x1p-7 + 0x1p-8, e));
}

Test(dtype, subnormals_round_at_the_smallest_number) {
    const double tiny16 = dtype_tiny(DTYPE_BF16), tiny32 = dtype_tiny(DTYPE_F32);
    cr_expect_eq(tiny16, 0x1p-133);
    cr_expect_eq(tiny32, 0x1p-149);
    for (int k = 0; k < 300; k++) {
        expect_rounding_around(k * tiny16 / 2);
        expect_rounding_around(k * tiny32 / 2);
        expect_rounding_around(0x1p-126 - k * tiny16 / 2);
        expect_rounding_around(0x1p-126 - k * tiny32 / 2);
    }
    cr_expect_eq(store_bf16(tiny16 / 2), 0, "the tie with zero");
    cr_expect_eq(store_bf16(-tiny16 / 2), 0x8000, "keeps its sign");
    cr_expect_eq(store_bf16(nextafter(tiny16 / 2, 1)), 1);
    static const double below[] = {0.0, -0.0, 0x1p-1074, -0x1p-1074, 0x1p-1022, 1e-300, -1e-300};
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) expect_rounding(below[i]);
}

Test(dtype, beyond_the_largest_number_lies_infinity) {
    cr_expect_eq(dtype_max(DTYPE_BF16), ldexp(255, 120));
    cr_expect_eq(dtype_max(DTYPE_F32), ldexp(16777215, 104));
    const double edge16 = ldexp(511, 119), edge32 = ldexp(33554431, 103); /* half a step beyond the largest */
    cr_expect_eq(store_bf16(nextafter(edge16, 0)), 0x7f7f);
    cr_expect_eq(store_bf16(edge16), 0x7f80);
    cr_expect_eq(store_f32(nextafter(edge32, 0)), 0x7f7fffffu);
    cr_expect_eq(store_f32(edge32), 0x7f800000u);
    static const double large[] = {0x1p127, 0x1p128, 1e39, 1e300, 0x1.fffffffffffffp1023};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) expect_rounding_around(large[i]);
    expect_rounding_around(edge16);
    expect_rounding_around(edge32);
    expect_rounding(INFINITY);
    expect_rounding(-INFINITY);
}

Test(dtype, nan_stays_nan_whatever_its_payload) {
    for (int i = 0; i < 52; i++) {
        expect_rounding(double_of(0x7ff0000000000000ULL | 1ULL << i));
        expect_rounding(double_of(0xfff0000000000000ULL | 1ULL << i));
    }
    for (enum dtype d = DTYPE_F64; d <= DTYPE_BF16; d++) cr_expect(isnan(dtype_round(d, (double)NAN)));
}

Test(dtype, random_bit_patterns_agree_with_the_second_formulation) {
    srand48(7);
    for (int i = 0; i < 2000000; i++) {
        const uint64_t r = (uint64_t)mrand48() << 32 ^ (uint64_t)(mrand48() & 0xffffffff);
        expect_rounding(double_of(r));
        /* exponents that the formats have */
        expect_rounding(double_of((r & 0x800fffffffffffffULL) | (uint64_t)(870 + (r >> 52) % 290) << 52));
    }
}

Test(dtype, units_are_half_the_step_above_one) {
    for (enum dtype d = DTYPE_F64; d <= DTYPE_BF16; d++) {
        const double u = dtype_unit(d);
        cr_expect_eq(dtype_round(d, 1 + u), 1, "%s: a tie, to even", dtype_name(d));
        cr_expect_eq(dtype_round(d, 1 + 2 * u), 1 + 2 * u);
        if (d != DTYPE_F64) cr_expect_eq(dtype_round(d, 1 + u * 1.0001), 1 + 2 * u);
        cr_expect_eq(dtype_round(d, dtype_max(d)), dtype_max(d));
        cr_expect_eq(dtype_round(d, dtype_tiny(d)), dtype_tiny(d));
    }
}

Test(dtype, names_parse_back_and_sizes_are_those_of_the_types) {
    static const size_t bytes[DTYPE_COUNT] = {8, 4, 2, 4};
    for (int d = 0; d < DTYPE_COUNT; d++) {
        enum dtype out = DTYPE_COUNT;
        cr_expect(dtype_parse(dtype_name((enum dtype)d), &out));
        cr_expect_eq(out, d);
        cr_expect_eq(dtype_bytes((enum dtype)d), bytes[d]);
    }
    enum dtype out = DTYPE_F32;
    cr_expect_not(dtype_parse("fp16", &out) || dtype_parse("", &out) || dtype_parse("bf16 ", &out));
    cr_expect_eq(out, DTYPE_F32, "a failed parse changes nothing");
}

Test(dtype, rows_are_loaded_as_single_elements_are) {
    double row[40];
    for (enum dtype d = DTYPE_F64; d < DTYPE_COUNT; d++) {
        double buffer[64];
        for (int i = 0; i < 64; i++) dtype_store(buffer, d, i, i * 3 - 50);
        for (int64_t first = 0; first < 20; first++) {
            dtype_load_row(row, buffer, d, first, 40);
            for (int64_t i = 0; i < 40; i++) cr_assert_eq(row[i], dtype_load(buffer, d, first + i));
        }
    }
}

Test(dtype, integers_hold_their_whole_range) {
    static const int32_t values[] = {0, 1, -1, INT32_MAX, INT32_MIN, 1 << 24 | 1};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        int32_t out = 77;
        dtype_store(&out, DTYPE_I32, 0, values[i]);
        cr_expect_eq(out, values[i]);
        cr_expect_eq(dtype_load(&out, DTYPE_I32, 0), values[i]);
    }
}

Test(dtype, poison_reads_as_nan_and_stops_where_it_should) {
    unsigned char buffer[80];
    for (int d = 0; d < DTYPE_COUNT; d++) {
        memset(buffer, 0, sizeof buffer);
        dtype_poison(buffer, (enum dtype)d, 7);
        for (int i = 0; i < 7; i++) {
            const double v = dtype_load(buffer, (enum dtype)d, i);
            cr_expect(d == DTYPE_I32 ? v == INT32_MIN : isnan(v), "%s", dtype_name((enum dtype)d));
        }
        cr_expect_eq(buffer[7 * dtype_bytes((enum dtype)d)], 0);
    }
}
