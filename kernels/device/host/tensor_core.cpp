/* tensor_core - the arithmetic of mma and wgmma.
 *
 * SIMT_TRUNCATING is what sm_90 does with bf16 and f16 operands, bit for bit: the 16 products and the
 * accumulator are aligned to the largest exponent e among them (a product's is the sum of its factors'),
 * cut off towards zero below 2^(e - 25), added exactly, and the sum is cut off towards zero to 24 bits.
 * SIMT_PLAIN adds the products to the accumulator one after the other in fp32.
 *
 * Eight columns are computed at a time; a column is one lane of every vector below. */
/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "kernels/device/host/tensor_core.h"

namespace simt {

static const int LANES = 8;
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

static const int32_t EXPONENT_OF_ZERO = -4000; /* below every other, and sums of two still are */
static const int32_t NAN_BITS = 0x7fffffff;       /* the one NaN tensor cores produce */
static const int FRACTION = 25;                /* bits kept below the largest exponent */

/* A finite number is mantissa * 2^(exponent - fraction bits of its type). */
struct number {
    float value, mantissa;
    int32_t exponent;
    bool finite;
};

struct format {
    int fraction, exponent_bits;
};
static const format formats[] = {{7, 8}, {10, 5}}; /* by tensor_type */

static inline number decode(uint16_t bits, tensor_type type) {
    const format f = formats[type];
    const int bias = (1 << (f.exponent_bits - 1)) - 1;
    const int field = bits >> f.fraction & ((1 << f.exponent_bits) - 1);
    const int fraction = bits & ((1 << f.fraction) - 1);
    const int magnitude = field ? fraction | 1 << f.fraction : fraction;
    number n;
    n.value = type == TENSOR_BF16 ? bf16_to_float({bits}) : f16_to_float({bits});
    n.mantissa = bits & 0x8000 ? -(float)magnitude : (float)magnitude;
    n.exponent = !magnitude ? EXPONENT_OF_ZERO : (field ? field : 1) - bias;
    n.finite = field != (1 << f.exponent_bits) - 1;
    return n;
}

/* Eight columns of b, decoded once for all rows. */
struct panel {
    floats value[TENSOR_K], mantissa[TENSOR_K];
    ints exponent[TENSOR_K];
    bool finite[LANES], all_finite;
};

static void panel_decode(panel *p, const uint16_t *b, int columns, tensor_type type) {
    p->all_finite = true;
    for (int n = 0; n < LANES; n++) p->finite[n] = true;
    for (int k = 0; k < TENSOR_K; k++)
        for (int n = 0; n < LANES; n++) {
            const number x = decode(b[k * columns + n], type);
            p->value[k][n] = x.value;
            p->mantissa[k][n] = x.mantissa;
            p->exponent[k][n] = x.exponent;
            p->finite[n] &= x.finite;
            p->all_finite &= x.finite;
        }
}

struct row {
    float value[TENSOR_K], mantissa[TENSOR_K];
    int32_t exponent[TENSOR_K];
    bool finite;
};

static void row_decode(row *r, const uint16_t *a, tensor_type type) {
    r->finite = true;
    for (int k = 0; k < TENSOR_K; k++) {
        const number x = decode(a[k], type);
        r->value[k] = x.value;
        r->mantissa[k] = x.mantissa;
        r->exponent[k] = x.exponent;
        r->finite &= x.finite;
    }
}

/* ---- plain ---- */

static inline floats plain_sum(floats d, const row *r, const panel *p) {
    for (int k = 0; k < TENSOR_K; k++) d += r->value[k] * p->value[k];
    const ints unordered = d != d, bits = reinterpret_cast<ints>(d);
    return reinterpret_cast<floats>(unordered ? bits * 0 + NAN_BITS : bits);
}

/* ---- truncating ---- */

/* x * 2^exponent cut off towards zero; x is an integer, and so is the result: below 2^31. Exponents too small
 * for a float give the factor 0, and the result would be 0 anyway. */
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
        const ints e = p->exponent[k] + r->exponent[k];
        largest = e > largest ? e : largest;
    }
    /* Products are below 4 * 2^FRACTION, their sum below 2^31; with the accumulator it needs a bit more. */
    const ints to_unit = FRACTION - product_fraction - largest;
    ints products = {};
    for (int k = 0; k < TENSOR_K; k++)
        products += scale_cut(r->mantissa[k] * p->mantissa[k], to_unit + p->exponent[k] + r->exponent[k]);
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
            const double exact = ((double)products[n] + (double)accumulator[n]) *
                                 power_of_two(largest[n] - FRACTION);
            out[n] = (float)(trunc(exact * 0x1p149) * 0x1p-149);
        }
    floats result;
    memcpy(&result, out, sizeof result);
    return result;
}

/* Sums in which an infinity or a NaN takes part: no rounding matters. */
static void special_sums(float *d, const float *before, const row *r, const panel *p) {
    for (int n = 0; n < LANES; n++) {
        if (r->finite && p->finite[n] && isfinite(before[n])) continue;
        double sum = before[n];
        for (int k = 0; k < TENSOR_K; k++) sum += (double)r->value[k] * (double)p->value[k][n];
        d[n] = (float)sum;
        if (isnan(sum)) memcpy(&d[n], &NAN_BITS, sizeof NAN_BITS);
    }
}

static inline void truncated_row(float *d, const row *r, const panel *p, int product_fraction) {
    float before[LANES];
    memcpy(before, d, sizeof before);
    floats accumulators;
    memcpy(&accumulators, d, sizeof accumulators);
    accumulators = truncated_sum(accumulators, r, p, product_fraction);
    memcpy(d, &accumulators, sizeof accumulators);
    bool finite = r->finite && p->all_finite;
    for (int n = 0; n < LANES; n++) finite &= isfinite(before[n]);
    if (!finite) special_sums(d, before, r, p);
}

static inline void plain_row(float *d, const row *r, const panel *p) {
    floats accumulators;
    memcpy(&accumulators, d, sizeof accumulators);
    accumulators = plain_sum(accumulators, r, p);
    memcpy(d, &accumulators, sizeof accumulators);
}

void tensor_core_multiply(float *d, const uint16_t *a, const uint16_t *b, int rows, int columns,
                          tensor_type type, simt_tensor_core mode) {
    row decoded[64];
    panel p;
    for (int i = 0; i < rows; i++) row_decode(&decoded[i], a + i * TENSOR_K, type);
    for (int n = 0; n < columns; n += LANES) {
        panel_decode(&p, b + n, columns, type);
        if (mode == SIMT_PLAIN)
            for (int i = 0; i < rows; i++) plain_row(d + i * columns + n, &decoded[i], &p);
        else
            for (int i = 0; i < rows; i++)
                truncated_row(d + i * columns + n, &decoded[i], &p, 2 * formats[type].fraction);
    }
}

} // namespace simt
