/* sharpness - how much do the acceptance sets of an answer say? A set that reaches zero accepts the
 * value whatever its sign: it is vacuous, and a stage whose sets mostly are is not checked by them. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_SHARPNESS_H
#define HARNESS_SHARPNESS_H

#include "harness/answer.h"
#include "reports/result.h"

/* Of E/|y| over elements: 0 where E is 0, and where y is 0 it is E over the largest |y| of the
 * tensor. Elements without a set (y or E is NaN, y infinite) are left out. */
struct sharpness {
    int64_t elements, vacuous; /* vacuous: E/|y| > 1, infinite E included */
    double median; /* exact to an eighth: the lower end of [x, 9/8 x); 0 below 2^-64, infinite from 2^64 on */
};
struct sharpness sharpness_of(const struct answer *a);

/* Records it. An edge that was all right is too loose where most of these sets are vacuous. */
void sharpness_record(const struct sharpness *s, struct edge_result *edge);

#endif
