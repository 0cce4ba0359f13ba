/* elementary - the elementary functions that kernels call, one at a time over a run of
 * arguments, so that the errors their contracts assume can be measured on the device at
 * hand (`shardcheck probe`). */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_DEVICE_ELEMENTARY_H
#define KERNELS_DEVICE_ELEMENTARY_H

#include <stdint.h>

#include "kernels/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum probe_function {
    PROBE_EXP,
    PROBE_EXP2,
    PROBE_EXP2_APPROX,
    PROBE_LOG,
    PROBE_RECIPROCAL_ROOT,
    PROBE_DIVISION,
    PROBE_FAST_DIVISION,
    PROBE_COUNT
};

/* out[i] = f(the float with the bits first_bits + i), fp32 [n]; the divisions
 * divide PROBE_NUMERATOR_BITS by it.
 * NULL, or one line that says why it could not be launched. */
typedef const char *(*probe_fn)(int function, uint32_t first_bits, uint32_t n, float *out, void *stream);
extern const probe_fn probe_launch[DEVICE_COUNT]; /* NULL: not in this build */

/* Bits of a float in [1, 2) that hangs on the divisor's bits without a pattern
 * (Knuth's multiplicative hash). */
#define PROBE_NUMERATOR_BITS(bits) (0x3f800000u | ((bits)*2654435761u >> 9))

#ifdef __cplusplus
}
#endif
#endif
