/* Which number is stored, and which is read back? */
/* SPDX-License-Identifier: MIT */
#include "layer/dtype.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
    int precision; /* significand bits with the hidden one */
    int min_exponent;
    double normal, max; /* smallest normal number, largest finite one */
} formats[DTYPE_COUNT + 1] = {
    [DTYPE_F64] = {"fp64", 8, 53, -1022, DBL_MIN, DBL_MAX},
    [DTYPE_F32] = {"fp32", 4, 24, -126, FLT_MIN, FLT_MAX},
    [DTYPE_BF16] = {"bf16", 2, 8, -126, 0x1p-126, 0x1.fep127},
    [DTYPE_F16] = {"fp16", 2, 11, -14, 0x1p-14, 0x1.ffcp15},
    [DTYPE_I32] = {"int32", 4, 31, 0, 1, 2147483647.0},
    [DTYPE_BF16_CUT] = {"bf16 cut", 2, 8, -126, 0x1p-126, 0x1.fep127},
};

const char *dtype_name(enum dtype d) { return formats[d].name; }
size_t dtype_bytes(enum dtype d) { return formats[d].bytes; }
double dtype_unit(enum dtype d) { return ldexp(1.0, (d == DTYPE_BF16_CUT) - formats[d].precision); }
double dtype_max(enum dtype d) { return formats[d].max; }
double dtype_normal(enum dtype d) { return formats[d].normal; }
bool dtype_is_storage(enum dtype d) { return d == DTYPE_F32 || d == DTYPE_BF16 || d == DTYPE_F16; }

double dtype_tiny(enum dtype d) { return ldexp(1.0, formats[d].min_exponent - formats[d].precision + 1); }

bool dtype_parse(const char *name, enum dtype *out) {
    for (int d = 0; d < DTYPE_COUNT; d++)
        if (!strcmp(name, formats[d].name)) {
            *out = (enum dtype)d;
            return true;
        }
    return false;
}

static inline double bf16_to_double(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &wide, sizeof f);
    return (double)f;
}

static uint16_t bf16_from_double(enum dtype d, double v) {
    if (isnan(v)) return 0x7fff;
    const float f = (float)dtype_round(d, v); /* exact: bf16 numbers are floats */
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Nothing of a significand is lost in float, which 2^112 lifts to the exponent that is meant. */
static inline double f16_to_double(uint16_t bits) {
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16, wide = (uint32_t)(bits & 0x7fff) << 13;
    const bool finite = (bits & 0x7c00) != 0x7c00;
    const uint32_t magnitude = finite ? wide : wide | 0x7f800000;
    float f;
    memcpy(&f, &magnitude, sizeof f);
    return (double)((finite ? f * 0x1p112f : f) * (sign ? -1 : 1));
}

static uint16_t f16_from_double(double v) {
    if (isnan(v)) return 0x7fff;
    const double r = fabs(dtype_round(DTYPE_F16, v));
    const uint16_t sign = signbit(v) ? 0x8000 : 0;
    int e;
    if (isinf(r)) return sign | 0x7c00;
    if (r < dtype_normal(DTYPE_F16)) return (uint16_t)(sign | (int)(r * 0x1p24)); /* subnormal, or 0 */
    const double significand = frexp(r, &e);                                      /* in [1/2, 1) */
    return (uint16_t)(sign | (((e + 13) << 10) + (int)(significand * 0x1p11)));
}

/* Of a double the last `dropped` bits, to nearest even: a carry goes into the exponent. */
static inline double drop_bits(double v, int dropped) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits += ((UINT64_C(1) << (dropped - 1)) - 1) + (bits >> dropped & 1);
    bits &= ~UINT64_C(0) << dropped;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Round to `precision` bits with gradual underflow. The quantum is a power of two, so dividing,
 * rounding to an integer (nearest even, the default mode) and multiplying are each exact. */
double dtype_round(enum dtype d, double v) {
    if (d == DTYPE_F64 || !isfinite(v) || v == 0) return v;
    if (d == DTYPE_F32) return (double)(float)v;
    if (d == DTYPE_I32) return nearbyint(v);
    if (d != DTYPE_BF16_CUT && fabs(v) >= formats[d].normal && fabs(v) <= formats[d].max)
        return drop_bits(v, formats[DTYPE_F64].precision - formats[d].precision);
    int e;
    frexp(v, &e);
    e -= 1;
    if (e < formats[d].min_exponent) e = formats[d].min_exponent;
    const double quantum = ldexp(1.0, e - formats[d].precision + 1);
    if (d == DTYPE_BF16_CUT)
        return fabs(v) > (double)FLT_MAX ? copysign(INFINITY, v) : trunc(v / quantum) * quantum;
    const double r = nearbyint(v / quantum) * quantum;
    return fabs(r) > formats[d].max ? copysign(INFINITY, v) : r;
}

double dtype_load(const void *base, enum dtype d, int64_t i) {
    switch (d) {
    case DTYPE_F64: return ((const double *)base)[i];
    case DTYPE_F32: return (double)((const float *)base)[i];
    case DTYPE_BF16:
    case DTYPE_BF16_CUT: return bf16_to_double(((const uint16_t *)base)[i]);
    case DTYPE_F16: return f16_to_double(((const uint16_t *)base)[i]);
    case DTYPE_I32: return (double)((const int32_t *)base)[i];
    default: assert(0); return NAN;
    }
}

void dtype_store(void *base, enum dtype d, int64_t i, double v) {
    switch (d) {
    case DTYPE_F64: ((double *)base)[i] = v; break;
    case DTYPE_F32: ((float *)base)[i] = (float)v; break;
    case DTYPE_BF16:
    case DTYPE_BF16_CUT: ((uint16_t *)base)[i] = bf16_from_double(d, v); break;
    case DTYPE_F16: ((uint16_t *)base)[i] = f16_from_double(v); break;
    case DTYPE_I32: ((int32_t *)base)[i] = (int32_t)v; break;
    default: assert(0);
    }
}

void dtype_load_row(double *dst, const void *base, enum dtype d, int64_t first, int64_t n) {
    switch (d) {
    case DTYPE_F64: memcpy(dst, (const double *)base + first, (size_t)n * sizeof *dst); break;
    case DTYPE_F32:
        for (int64_t i = 0; i < n; i++) dst[i] = (double)((const float *)base)[first + i];
        break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++) dst[i] = bf16_to_double(((const uint16_t *)base)[first + i]);
        break;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++) dst[i] = f16_to_double(((const uint16_t *)base)[first + i]);
        break;
    default:
        for (int64_t i = 0; i < n; i++) dst[i] = dtype_load(base, d, first + i);
    }
}

/* In both 16-bit formats the patterns of one sign follow one another as the numbers do. */
static double next_of_16_bits(enum dtype d, double v, bool up) {
    if (v == 0) return up ? dtype_tiny(d) : -dtype_tiny(d);
    uint16_t bits;
    dtype_store(&bits, d, 0, v);
    bits = (uint16_t)(bits + ((v > 0) == up ? 1 : -1));
    return dtype_load(&bits, d, 0);
}

double dtype_next(enum dtype d, double v, bool up) {
    const double end = up ? INFINITY : -INFINITY;
    switch (d) {
    case DTYPE_F64: return nextafter(v, end);
    case DTYPE_F32: return (double)nextafterf((float)v, (float)end);
    case DTYPE_BF16:
    case DTYPE_BF16_CUT:
    case DTYPE_F16: return next_of_16_bits(d, v, up);
    default: return up ? v + 1 : v - 1;
    }
}

double dtype_huge(enum dtype d) {
    unsigned char bytes[sizeof(double)];
    memset(bytes, POISON_HUGE, sizeof bytes);
    return dtype_load(bytes, d, 0) / 2;
}

bool dtype_is_huge_poison(const void *base, enum dtype d, int64_t index) {
    const size_t size = dtype_bytes(d);
    const unsigned char *const bytes = (const unsigned char *)base + (size_t)index * size;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != POISON_HUGE) return false;
    return true;
}

void dtype_poison(void *base, enum dtype d, int64_t n) {
    if (d == DTYPE_I32)
        for (int64_t i = 0; i < n; i++) ((int32_t *)base)[i] = INT32_MIN;
    else
        memset(base, 0xff, (size_t)n * dtype_bytes(d));
}
