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

/* Integer arithmetic only. The target has `width` exponent bits and `fraction` fraction bits: bf16
 * 8 and 7, fp16 5 and 10, fp32 8 and 23. Returns the pattern with the sign; NaN stays NaN. */
static uint32_t round_bits(double v, int width, int fraction) {
    const uint64_t b = bits_of(v);
    const uint32_t sign = (uint32_t)(b >> 63) << (width + fraction), full = (1u << width) - 1;
    const int exponent = (int)(b >> 52 & 0x7ff), least = 2 - (1 << (width - 1));
    uint64_t significand = b & 0xfffffffffffffULL;
    if (exponent == 0x7ff) return sign | (full << fraction) | (significand ? 1u << (fraction - 1) : 0);
    if (exponent == 0) return sign; /* a subnormal double is far below half the smallest number */
    significand |= 1ULL << 52;
    const int unbiased = exponent - 1023;
    const int below = unbiased < least ? least - unbiased : 0; /* extra bits that underflow shifts out */
    const int shift = 52 - fraction + below;
    if (shift > 54) return sign;
    uint64_t kept = significand >> shift;
    const uint64_t rest = significand & ((1ULL << shift) - 1), half = 1ULL << (shift - 1);
    if (rest > half || (rest == half && (kept & 1))) kept++;
    /* The hidden bit of a normal number adds one to the exponent field below; a carry moves on by
     * itself. */
    const uint64_t field = below ? kept : kept + ((uint64_t)(unbiased - least) << fraction);
    const uint64_t infinity = (uint64_t)full << fraction;
    return sign | (uint32_t)(field > infinity ? infinity : field);
}

static uint16_t store_bf16(double v) {
    uint16_t out = 0x1234;
    dtype_store(&out, DTYPE_BF16, 0, v);
    return out;
}
static uint16_t store_f16(double v) {
    uint16_t out = 0x1234;
    dtype_store(&out, DTYPE_F16, 0, v);
    return out;
}
static uint32_t store_f32(double v) {
    uint32_t out = 0x12345678;
    dtype_store(&out, DTYPE_F32, 0, v);
    return out;
}

static void expect_rounding(double v) {
    const uint32_t want_b = round_bits(v, 8, 7), want_h = round_bits(v, 5, 10), want_f = round_bits(v, 8, 23);
    const uint16_t got_b = store_bf16(v), got_h = store_f16(v);
    const uint32_t got_f = store_f32(v);
    if (isnan(v)) {
        cr_assert((got_b & 0x7fff) > 0x7f80 && (got_f & 0x7fffffffu) > 0x7f800000u, "NaN became a number");
        cr_assert((got_h & 0x7fff) > 0x7c00, "NaN became a number");
        return;
    }
    cr_assert_eq(got_b, want_b, "bf16 of %a is %04x, not %04x", v, got_b, want_b);
    cr_assert_eq(got_h, want_h, "fp16 of %a is %04x, not %04x", v, got_h, want_h);
    cr_assert_eq(got_f, want_f, "fp32 of %a is %08x, not %08x", v, got_f, want_f);
    cr_assert_eq(bits_of(dtype_round(DTYPE_BF16, v)), bits_of(dtype_load(&got_b, DTYPE_BF16, 0)), "%a", v);
    cr_assert_eq(bits_of(dtype_round(DTYPE_F16, v)), bits_of(dtype_load(&got_h, DTYPE_F16, 0)), "%a", v);
    cr_assert_eq(bits_of(dtype_round(DTYPE_F32, v)), bits_of(dtype_load(&got_f, DTYPE_F32, 0)), "%a", v);
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

static const struct short_float {
    enum dtype dtype;
    int fraction, bias, infinity;
} short_floats[] = {{DTYPE_BF16, 7, 127, 0x7f80}, {DTYPE_F16, 10, 15, 0x7c00}};
enum { N_SHORT = sizeof short_floats / sizeof *short_floats };

static int store_16(enum dtype d, double v) { return d == DTYPE_F16 ? store_f16(v) : store_bf16(v); }

/* A pattern's value from the format's definition. */
static double value_of(const struct short_float *s, int pattern) {
    const int exponent = (pattern & 0x7fff) >> s->fraction, fraction = pattern & ((1 << s->fraction) - 1);
    const int significand = exponent ? fraction + (1 << s->fraction) : fraction;
    const double magnitude = ldexp(significand, (exponent ? exponent : 1) - s->bias - s->fraction);
    return pattern & 0x8000 ? -magnitude : magnitude;
}

Test(dtype, every_16_bit_pattern_has_its_value_and_survives_loading_and_storing) {
    for (const struct short_float *s = short_floats; s < short_floats + N_SHORT; s++)
        for (int p = 0; p < 65536; p++) {
            const uint16_t in = (uint16_t)p;
            const double v = dtype_load(&in, s->dtype, 0);
            const char *const name = dtype_name(s->dtype);
            cr_assert_eq(isnan(v) != 0, (p & 0x7fff) > s->infinity, "%s %04x", name, p);
            cr_assert_eq(isinf(v) != 0, (p & 0x7fff) == s->infinity, "%s %04x", name, p);
            if (isnan(v)) {
                cr_assert((store_16(s->dtype, v) & 0x7fff) > s->infinity, "%s %04x", name, p);
                continue;
            }
            cr_assert_eq(store_16(s->dtype, v), p, "%s %04x", name, p);
            cr_assert_eq(signbit(v) != 0, p >> 15);
            if (!isinf(v)) cr_assert_eq(v, value_of(s, p), "%s %04x", name, p);
        }
}

Test(dtype, the_next_number_is_the_next_pattern_across_zero_and_powers_of_two) {
    for (const struct short_float *s = short_floats; s < short_floats + N_SHORT; s++)
        for (int p = 0; p < s->infinity; p++) {
            const double here = value_of(s, p), above = p + 1 == s->infinity ? INFINITY : value_of(s, p + 1);
            cr_assert_eq(dtype_next(s->dtype, here, true), above, "%s %04x", dtype_name(s->dtype), p);
            cr_assert_eq(dtype_next(s->dtype, -here, false), -above);
            if (p) cr_assert_eq(dtype_next(s->dtype, here, false), value_of(s, p - 1));
        }
    cr_expect_eq(dtype_next(DTYPE_F32, 1, true), 1 + 0x1p-23);
    cr_expect_eq(dtype_next(DTYPE_I32, 7, false), 6);
}

Test(dtype, values_between_neighbours_of_16_bits_go_to_the_nearer_and_ties_to_even) {
    for (const struct short_float *s = short_floats; s < short_floats + N_SHORT; s++)
        for (int p = 0; p < s->infinity; p++) {
            const double low = value_of(s, p), middle = low + (value_of(s, p + 1) - low) / 2;
            const char *const name = dtype_name(s->dtype);
            cr_assert_eq(store_16(s->dtype, middle), p & 1 ? p + 1 : p, "tie above %s %04x", name, p);
            cr_assert_eq(store_16(s->dtype, nextafter(middle, 0)), p, "below the tie above %s %04x", name, p);
            cr_assert_eq(store_16(s->dtype, nextafter(middle, INFINITY)), p + 1, "beyond it");
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
    cr_expect_eq(store_f16(1 + 0x1p-11 + 0x1p-40), 0x3c01);
    cr_expect_eq(store_f16(1 + 0x1p-11), 0x3c00, "the tie itself goes to even");
    for (int e = -26; e < 17; e++)
        for (int k = 0; k < 4; k++) expect_rounding_around(ldexp(1 + k * 0x1p-10 + 0x1p-11, e));
}

Test(dtype, subnormals_round_at_the_smallest_number) {
    const double tiny16 = dtype_tiny(DTYPE_BF16), tiny32 = dtype_tiny(DTYPE_F32);
    cr_expect_eq(tiny16, 0x1p-133);
    cr_expect_eq(dtype_tiny(DTYPE_F16), 0x1p-24);
    cr_expect_eq(dtype_normal(DTYPE_F16), 0x1p-14);
    cr_expect_eq(dtype_normal(DTYPE_BF16), 0x1p-126);
    cr_expect_eq(tiny32, 0x1p-149);
    for (int k = 0; k < 300; k++) {
        expect_rounding_around(k * tiny16 / 2);
        expect_rounding_around(k * tiny32 / 2);
        expect_rounding_around(0x1p-126 - k * tiny16 / 2);
        expect_rounding_around(0x1p-126 - k * tiny32 / 2);
        expect_rounding_around(k * 0x1p-25);
        expect_rounding_around(0x1p-14 - k * 0x1p-25);
    }
    cr_expect_eq(store_f16(0x1p-25), 0, "the tie with zero");
    cr_expect_eq(store_f16(-0x1p-25), 0x8000, "keeps its sign");
    cr_expect_eq(store_f16(nextafter(0x1p-25, 1)), 1);
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
    cr_expect_eq(dtype_max(DTYPE_F16), 65504);
    cr_expect_eq(store_f16(nextafter(65520, 0)), 0x7bff);
    cr_expect_eq(store_f16(65520), 0x7c00);
    static const double large[] = {65504,   65520, 65536, 0x1p127,
                                   0x1p128, 1e39,  1e300, 0x1.fffffffffffffp1023};
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
    for (enum dtype d = DTYPE_F64; d <= DTYPE_F16; d++) cr_expect(isnan(dtype_round(d, (double)NAN)));
}

Test(dtype, random_bit_patterns_agree_with_the_second_formulation) {
    srand48(7);
    for (int i = 0; i < 2000000; i++) {
        const uint64_t r = (uint64_t)mrand48() << 32 ^ (uint64_t)(mrand48() & 0xffffffff);
        expect_rounding(double_of(r));
        /* exponents that the formats have */
        expect_rounding(double_of((r & 0x800fffffffffffffULL) | (uint64_t)(870 + (r >> 52) % 290) << 52));
        expect_rounding(double_of((r & 0x800fffffffffffffULL) | (uint64_t)(995 + (r >> 52) % 46) << 52));
    }
}

Test(dtype, units_are_half_the_step_above_one) {
    for (enum dtype d = DTYPE_F64; d <= DTYPE_F16; d++) {
        const double u = dtype_unit(d);
        cr_expect_eq(dtype_round(d, 1 + u), 1, "%s: a tie, to even", dtype_name(d));
        cr_expect_eq(dtype_round(d, 1 + 2 * u), 1 + 2 * u);
        if (d != DTYPE_F64) cr_expect_eq(dtype_round(d, 1 + u * 1.0001), 1 + 2 * u);
        cr_expect_eq(dtype_round(d, dtype_max(d)), dtype_max(d));
        cr_expect_eq(dtype_round(d, dtype_tiny(d)), dtype_tiny(d));
    }
}

Test(dtype, a_number_that_is_cut_keeps_the_upper_bits_of_its_float) {
    srand48(12);
    for (int i = 0; i < 100000; i++) {
        const float f = (float)ldexp(drand48() * 2 - 1, i % 270 - 140);
        uint32_t bits;
        uint16_t stored;
        memcpy(&bits, &f, sizeof bits);
        dtype_store(&stored, DTYPE_BF16_CUT, 0, (double)f);
        cr_assert_eq(stored, bits >> 16, "%a", (double)f);
        cr_assert_eq(dtype_load(&stored, DTYPE_BF16_CUT, 0), dtype_round(DTYPE_BF16_CUT, (double)f));
    }
    const double max = dtype_max(DTYPE_BF16_CUT), u = dtype_unit(DTYPE_BF16_CUT);
    cr_expect_eq(dtype_round(DTYPE_BF16_CUT, max * (1 + 0x1p-9)), max, "a float still, not infinity");
    cr_expect_eq(dtype_round(DTYPE_BF16_CUT, -0x1p128), -INFINITY);
    cr_expect_eq(dtype_round(DTYPE_BF16_CUT, 1 + u * 0.999), 1);
    cr_expect_eq(dtype_round(DTYPE_BF16_CUT, 1 + u), 1 + u);
    cr_expect_eq(dtype_next(DTYPE_BF16_CUT, 1, true), 1 + u);
    cr_expect(isnan(dtype_round(DTYPE_BF16_CUT, NAN)));
    enum dtype out;
    cr_expect_not(dtype_parse(dtype_name(DTYPE_BF16_CUT), &out), "nobody asks for storage that is cut");
}

Test(dtype, names_parse_back_and_sizes_are_those_of_the_types) {
    static const size_t bytes[DTYPE_COUNT] = {8, 4, 2, 2, 4};
    for (int d = 0; d < DTYPE_COUNT; d++) {
        enum dtype out = DTYPE_COUNT;
        cr_expect(dtype_parse(dtype_name((enum dtype)d), &out));
        cr_expect_eq(out, d);
        cr_expect_eq(dtype_bytes((enum dtype)d), bytes[d]);
    }
    enum dtype out = DTYPE_F32;
    cr_expect_not(dtype_parse("half", &out) || dtype_parse("", &out) || dtype_parse("bf16 ", &out));
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

/* One byte makes both kinds in every format: a maximum keeps the huge one where it drops NaN. */
Test(dtype, huge_poison_is_a_number_near_the_largest_and_is_told_from_its_neighbours) {
    for (enum dtype d = DTYPE_F64; d <= DTYPE_F16; d++) {
        unsigned char bytes[3][sizeof(double)];
        memset(bytes, POISON_HUGE, sizeof bytes);
        const double v = dtype_load(bytes, d, 0);
        cr_expect(v > sqrt(dtype_max(d)) && v < dtype_max(d), "%s: %g", dtype_name(d), v);
        cr_expect(dtype_is_huge_poison(bytes, d, 1));
        cr_expect_eq(dtype_huge(d), v / 2);
        dtype_store(bytes, d, 1, dtype_next(d, v, true));
        cr_expect_not(dtype_is_huge_poison(bytes, d, 1));
        cr_expect(dtype_is_huge_poison(bytes, d, 0));
    }
}
