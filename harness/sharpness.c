/* How tight are the acceptance sets of an answer, and do they check anything? */
/* SPDX-License-Identifier: MIT */
#include "harness/sharpness.h"

#include <math.h>
#include <string.h>

/* Ratios are counted by the upper bits of their double: the exponent and three bits of the mantissa.
 * Counts do not depend on who counted, so neither does the median. */
enum {
    MANTISSA_BITS = 3,
    SHIFT = 52 - MANTISSA_BITS,
    OCTAVES = 128,
    BUCKETS = 2 + (OCTAVES << MANTISSA_BITS)
};
#define LOWEST 0x1p-64
#define HIGHEST 0x1p64

static uint64_t upper_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >> SHIFT;
}

static int bucket_of(double ratio) {
    if (ratio < LOWEST) return 0;
    return ratio < HIGHEST ? 1 + (int)(upper_bits(ratio) - upper_bits(LOWEST)) : BUCKETS - 1;
}

static double bucket_start(int bucket) {
    if (bucket == 0) return 0;
    if (bucket == BUCKETS - 1) return INFINITY;
    const uint64_t bits = (upper_bits(LOWEST) + (uint64_t)bucket - 1) << SHIFT;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static double largest(const double *y, int64_t n) {
    double top = 0;
#pragma omp parallel for reduction(max : top) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i++)
        if (isfinite(y[i])) top = fmax(top, fabs(y[i]));
    return top;
}

/* Of the elements whose y is 0, or of the others; bounds around 0 are held against the largest y.
 * Returns how many around 0 there are. */
static int64_t count_some(int64_t *bucket, struct sharpness *s, const double *y, const double *e, int64_t n,
                          bool of_zero, double scale) {
    int64_t elements = 0, vacuous = 0, zeros = 0;
#pragma omp parallel for reduction(+ : bucket[:BUCKETS], elements, vacuous, zeros) if (n > 1 << 16)
    for (int64_t i = 0; i < n; i++) {
        const bool zero = y[i] == 0 && e[i] > 0;
        zeros += zero;
        if (!isfinite(y[i]) || isnan(e[i]) || zero != of_zero) continue;
        const double ratio = e[i] > 0 ? e[i] / (zero ? scale : fabs(y[i])) : 0;
        bucket[bucket_of(ratio)]++;
        elements++;
        vacuous += ratio > 1;
    }
    s->elements += elements;
    s->vacuous += vacuous;
    return zeros;
}

static void count_ratios(int64_t *bucket, struct sharpness *s, const double *y, const double *e, int64_t n) {
    if (count_some(bucket, s, y, e, n, false, 0)) count_some(bucket, s, y, e, n, true, largest(y, n));
}

struct sharpness sharpness_of(const struct answer *a) {
    int64_t bucket[BUCKETS] = {0};
    struct sharpness s = {0};
    for (int i = 0; i < a->n; i++) count_ratios(bucket, &s, a->y[i], a->e[i], a->count[i]);
    int64_t before = 0;
    int at = 0;
    while (at < BUCKETS - 1 && 2 * (before + bucket[at]) < s.elements) before += bucket[at++];
    s.median = bucket_start(at);
    return s;
}

void sharpness_record(const struct sharpness *s, struct edge_result *edge) {
    edge->vacuous += s->vacuous;
    edge->sharpness = fmax(edge->sharpness, s->median);
    if (edge->state == EDGE_OK && 2 * s->vacuous > s->elements) edge->state = EDGE_LOOSE;
}
