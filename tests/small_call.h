/* small_call - calls whose operands are arrays of a test, the reference's answer to them, and fp32
 * arithmetic that ends where numbers do. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SMALL_CALL_H
#define TESTS_SMALL_CALL_H

#include <criterion/criterion.h>
#include <math.h>

#include "reference/reference.h"

#define F64(a, s0, s1) ((struct view){a, DTYPE_F64, {s0, s1}, 0, sizeof(a) / sizeof(double)})
#define I32(a, s0) ((struct view){a, DTYPE_I32, {s0}, 0, sizeof(a) / sizeof(int32_t)})
#define CLOSE(a, b) cr_assert_float_eq(a, b, 1e-12, "%.17g is not %.17g", a, b)

static double y[64], e[64]; /* of the last run */

static inline void run(const struct call *call) {
    const struct contract c = contract_exact(call->op);
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    ref_compute(call, &c, NULL, 0, ref_n_rows(call), out);
}

/* fp32 arithmetic of three kinds: what leaves the normal numbers is kept, flushed to zero, or, as
 * CUDA's __fdividef has it, lost where the divisor exceeds 2^126. */
enum underflow { KEPT, FLUSHED, FAST, UNDERFLOWS };
static inline float settle(float x, enum underflow how) {
    return how != KEPT && fabsf(x) < 0x1p-126f ? 0 : x;
}
static inline float quotient(float a, float b, enum underflow how) {
    return how == FAST && b > 0x1p126f ? 0 : settle(a / b, how);
}

#endif
