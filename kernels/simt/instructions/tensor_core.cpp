/* tensor_core - the arithmetic of mma and wgmma.
 *
 * SIMT_TRUNCATING is what sm_90 does with bf16 and f16 operands, bit for bit: the 16 products and
 * the accumulator are aligned to the largest exponent e among them (a product's is the sum of its
 * factors'), cut off towards zero below 2^(e - 25), added exactly, and the sum is cut off towards
 * zero to 24 bits. SIMT_PLAIN adds the products to the accumulator one after the other in fp32.
 *
 * Eight columns are computed at a time; a column is one lane of every vector below. */
/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "kernels/simt/instructions/tensor_core.h"

namespace simt {

static const int LANES = 8;
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

static const int32_t EXPONENT_OF_ZERO = -4000; /* below every other, and sums of two still are */
static const int32_t NAN_BITS = 0x7fffffff;    /* the one NaN tensor cores produce */
static const int FRACTION = 25;                /* bits kept below the largest exponent */

/* ---- operands ---- */

template <tensor_type TYPE> struct format;
template <> struct format<TENSOR_BF16> {
    static const int fraction = 7, top = 255; /* bits; exponent field of infinity and NaN */
};
template <> struct format<TENSOR_F16> { static const int fraction = 10, top = 31; };

/* 16 bits of a, or of one column of b: a finite number is
 * mantissa * 2^(exponent - fraction bits). */
template <int COUNT> struct numbers {
    float mantissa[COUNT];
    int32_t exponent[COUNT];
    int32_t finite[COUNT]; /* 0 or 1 */
};

template <tensor_type TYPE, int COUNT> static inline void decode(numbers<COUNT> *to, const uint16_t *from) {
    typedef format<TYPE> f;
    for (int i = 0; i < COUNT; i++) {
        const int32_t bits = from[i], field = bits >> f::fraction & f::top;
        const int32_t fraction = bits & ((1 << f::fraction) - 1), normal = field != 0;
        const int32_t magnitude = fraction | normal << f::fraction;
        const int32_t exponent = field + 1 - normal - f::top / 2;
        to->mantissa[i] = (float)(bits & 0x8000 ? -magnitude : magnitude);
        to->exponent[i] = magnitude ? exponent : EXPONENT_OF_ZERO;
        to->finite[i] = field != f::top;
    }
}

template <tensor_type TYPE, int COUNT> static inline void decode_values(float *to, const uint16_t *from) {
    for (int i = 0; i < COUNT; i++)
        to[i] = TYPE == TENSOR_BF16 ? bf16_to_float({from[i]}) : f16_to_float({from[i]});
}

/* Eight columns of b, decoded once for all rows. */
struct panel {
    numbers<LANES> k[TENSOR_K];
    int32_t finite[LANES], all_finite;
};

template <tensor_type TYPE> static void panel_decode(panel *p, const uint16_t *b, int columns) {
    p->all_finite = 1;
    for (int n = 0; n < LANES; n++) p->finite[n] = 1;
    for (int k = 0; k < TENSOR_K; k++) {
        decode<TYPE, LANES>(&p->k[k], b + k * columns);
        for (int n = 0; n < LANES; n++) p->finite[n] &= p->k[k].finite[n];
    }
    for (int n = 0; n < LANES; n++) p->all_finite &= p->finite[n];
}

struct row {
    numbers<TENSOR_K> k;
    int32_t finite;
};

template <tensor_type TYPE> static void row_decode(row *r, const uint16_t *a) {
    decode<TYPE, TENSOR_K>(&r->k, a);
    r->finite = 1;
    for (int k = 0; k < TENSOR_K; k++) r->finite &= r->k.finite[k];
}

static inline floats load(const float *p) {
    floats v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline ints load(const int32_t *p) {
    ints v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* ---- plain ---- */

static inline void plain_row(float *d, const float *a, const float (*b)[LANES]) {
    floats sum = load(d);
    for (int k = 0; k < TENSOR_K; k++) sum += a[k] * load(b[k]);
    const ints unordered = sum != sum, bits = reinterpret_cast<ints>(sum);
    const ints result = unordered ? bits * 0 + NAN_BITS : bits;
    memcpy(d, &result, sizeof result);
}

template <tensor_type TYPE>
static void plain_multiply(float *d, const uint16_t *a, const uint16_t *b, int rows, int columns) {
    float value[64 * TENSOR_K], panel_value[TENSOR_K][LANES];
    for (int i = 0; i < rows; i++) decode_values<TYPE, TENSOR_K>(value + i * TENSOR_K, a + i * TENSOR_K);
    for (int n = 0; n < columns; n += LANES) {
        for (int k = 0; k < TENSOR_K; k++) decode_values<TYPE, LANES>(panel_value[k], b + k * columns + n);
        for (int i = 0; i < rows; i++) plain_row(d + i * columns + n, value + i * TENSOR_K, panel_value);
    }
}

/* ---- truncating ---- */

/* x * 2^exponent cut off towards zero; x is an integer, and so is the result: below 2^31. Exponents
 * too small for a float give the factor 0, and the result would be 0 anyway. */
static inline ints scale_cut(floats x, ints exponent) {
    const ints biased = exponent + 127;
    const ints positive = biased > 0 ? biased : biased & 0;
    return __builtin_convertvector(x * reinterpret_cast<floats>(positive << 23), ints);
}

static inline void accumulator_decode(floats d, floats *mantissa, ints *exponent) {
    const ints bits = reinterpret_cast<ints>(d);
    const ints field = bits >> 23 & 0xff, fraction = bits & 0x7fffff;
    const ints magnitude = field > 0 ? fraction | 0x800000 : fraction;
    const ints signed_ = bits < 0 ? -magnitude : magnitude;
    *mantissa = __builtin_convertvector(signed_, floats);
    const ints zero = magnitude == 0;
    const ints e = (field > 0 ? field : field * 0 + 1) - 127;
    *exponent = zero ? zero & EXPONENT_OF_ZERO : e;
}

static inline double power_of_two(int64_t exponent) {
    const int64_t bits = (exponent + 1023) << 52;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Towards zero to 24 bits, fewer where float has no more. */
static inline float round_to_float(double sum, int32_t unit) {
    int64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    bits &= ~((INT64_C(1) << 29) - 1);
    memcpy(&sum, &bits, sizeof sum);
    return (float)(sum * power_of_two(unit));
}

static inline bool below_normal(float x) { return x != 0 && fabsf(x) <= 0x1p-126f; }

static inline floats truncated_sum(floats d, const row *r, const panel *p, int product_fraction) {
    floats mantissa;
    ints exponent;
    accumulator_decode(d, &mantissa, &exponent);
    ints largest = exponent;
    for (int k = 0; k < TENSOR_K; k++) {
        const ints e = load(p->k[k].exponent) + r->k.exponent[k];
        largest = e > largest ? e : largest;
    }
    /* Products are below 4 * 2^FRACTION, their sum below 2^31; with the accumulator
     * it needs a bit more. */
    const ints to_unit = FRACTION - product_fraction - largest;
    ints products = {};
    for (int k = 0; k < TENSOR_K; k++)
        products += scale_cut(r->k.mantissa[k] * load(p->k[k].mantissa),
                              to_unit + load(p->k[k].exponent) + r->k.exponent[k]);
    const ints accumulator = scale_cut(mantissa, FRACTION - 23 - largest + exponent);

    float out[LANES];
    bool small = false;
    for (int n = 0; n < LANES; n++) {
        const int32_t unit = (largest[n] > -1000 ? largest[n] : -900) - FRACTION;
        out[n] = round_to_float((double)products[n] + (double)accumulator[n], unit);
        small |= below_normal(out[n]);
    }
    if (small) /* the conversion rounded to nearest */
        for (int n = 0; n < LANES; n++) {
            if (!below_normal(out[n])) continue;
            const double exact =
                ((double)products[n] + (double)accumulator[n]) * power_of_two(largest[n] - FRACTION);
            out[n] = (float)(trunc(exact * 0x1p149) * 0x1p-149);
        }
    floats result;
    memcpy(&result, out, sizeof result);
    return result;
}

/* Sums in which an infinity or a NaN takes part: no rounding matters. a: [16], b: a
 * column, `step` apart. */
template <tensor_type TYPE>
static float special_sum(float d, const uint16_t *a, const uint16_t *b, int step) {
    double sum = d;
    for (int k = 0; k < TENSOR_K; k++) {
        float x, y;
        decode_values<TYPE, 1>(&x, a + k);
        decode_values<TYPE, 1>(&y, b + k * step);
        sum += (double)x * (double)y;
    }
    float result = (float)sum;
    if (isnan(sum)) memcpy(&result, &NAN_BITS, sizeof result);
    return result;
}

template <tensor_type TYPE>
static void truncating_multiply(float *d, const uint16_t *a, const uint16_t *b, int rows, int columns) {
    row decoded[64];
    panel p;
    for (int i = 0; i < rows; i++) row_decode<TYPE>(&decoded[i], a + i * TENSOR_K);
    for (int n = 0; n < columns; n += LANES) {
        panel_decode<TYPE>(&p, b + n, columns);
        for (int i = 0; i < rows; i++) {
            float *to = d + i * columns + n, before[LANES];
            memcpy(before, to, sizeof before);
            const floats sum = truncated_sum(load(before), &decoded[i], &p, 2 * format<TYPE>::fraction);
            memcpy(to, &sum, sizeof sum);
            int finite = decoded[i].finite & p.all_finite;
            for (int lane = 0; lane < LANES; lane++) finite &= isfinite(before[lane]);
            if (finite) continue;
            for (int lane = 0; lane < LANES; lane++)
                if (!decoded[i].finite || !p.finite[lane] || !isfinite(before[lane]))
                    to[lane] = special_sum<TYPE>(before[lane], a + i * TENSOR_K, b + n + lane, columns);
        }
    }
}

void tensor_core_multiply(float *d, const uint16_t *a, const uint16_t *b, int rows, int columns,
                          tensor_type type, simt_tensor_core mode) {
    /* By simt_tensor_core, then by tensor_type. */
    static const struct {
        void (*multiply[2])(float *, const uint16_t *, const uint16_t *, int, int);
    } models[] = {{{truncating_multiply<TENSOR_BF16>, truncating_multiply<TENSOR_F16>}},
                  {{plain_multiply<TENSOR_BF16>, plain_multiply<TENSOR_F16>}}};
    models[mode].multiply[type](d, a, b, rows, columns);
}

} // namespace simt
