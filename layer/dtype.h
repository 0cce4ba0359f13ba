/* dtype - the storage formats, and rounding into them.
 * Everything is computed in double; a value becomes a stored number in exactly one rounding to
 * nearest even (no double rounding through float). */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_DTYPE_H
#define LAYER_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum dtype {
    DTYPE_F64,
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_I32,
    DTYPE_COUNT,
    DTYPE_BF16_CUT = DTYPE_COUNT /* stored as bf16, the lower bits of a float cut off: towards zero */
};

const char *dtype_name(enum dtype d);                /* "fp32", "bf16", ... as on the command line */
bool dtype_parse(const char *name, enum dtype *out); /* false: no such name */
bool dtype_is_storage(enum dtype d);                 /* of weights and activations: fp32, bf16, fp16 */
#define STORAGE_NAMES "bf16, fp16 or fp32"
size_t dtype_bytes(enum dtype d);
double dtype_unit(enum dtype d); /* u = 2^-p, half the distance from 1 to the next number; all of it if cut */
double dtype_normal(enum dtype d); /* smallest normal number: below, steps no longer shrink */
double dtype_tiny(enum dtype d);   /* smallest positive (subnormal) number */
double dtype_max(enum dtype d);    /* largest finite number */
double dtype_next(enum dtype d, double v, bool up); /* the stored number above (below) the stored v */

double dtype_load(const void *base, enum dtype d, int64_t index);
void dtype_store(void *base, enum dtype d, int64_t index,
                 double value); /* rounds; beyond the largest: infinity */
double dtype_round(enum dtype d, double value);

/* dst[0..n) = base[first..first+n) */
void dtype_load_row(double *dst, const void *base, enum dtype d, int64_t first, int64_t n);

/* Bytes that stand where nobody has stored anything: NaN in every float format, and a finite number
 * near the largest one (61280 in fp16, 1e36 in bf16 and fp32), which a maximum keeps where it drops
 * NaN. As int32: -1, and a huge number. */
enum { POISON_NAN = 0xff, POISON_HUGE = 0x7b };
/* Is the element made of nothing but POISON_HUGE?  (NaN is wrong whoever stored it.) */
bool dtype_is_huge_poison(const void *base, enum dtype d, int64_t index);
double dtype_huge(enum dtype d); /* half of that number: from here on poison may be in it */
/* Write NaN of POISON_NAN, or INT32_MIN for DTYPE_I32. */
void dtype_poison(void *base, enum dtype d, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
