/* bench_compare - is it slower than it was?
 *
 * Each kernel or peer, shape and cache by itself: the interval of the factor between old and new
 * times (rank_test.h), at a level that is shared by all of them, so that of two runs of one program
 * on one machine at most one in a hundred has any line that is wrong. But the launches of one run
 * have more in common with each other than with those of another (memory lies elsewhere, the chip
 * is warmer), so a factor counts from an allowance on: what the rounds of either run lie apart
 * themselves, and at least BENCH_NOISE. */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_BENCH_COMPARE_H
#define REPORTS_BENCH_COMPARE_H

#include "reports/bench.h"
#include "reports/rank_test.h"

#define BENCH_LEVEL 0.01
#define BENCH_NOISE 0.02

enum bench_verdict {
    BENCH_SAME,    /* the interval lies within the allowance */
    BENCH_UNCLEAR, /* it reaches out of it, but is not outside */
    BENCH_FASTER,  /* it is outside */
    BENCH_SLOWER
};
const char *bench_verdict_name(enum bench_verdict verdict);

struct bench_change {
    enum bench_verdict verdict;
    struct rank_factor factor; /* new over old */
    double allowance;
};
/* level: of this one comparison. */
struct bench_change bench_change_of(const struct bench_series *before, const struct bench_series *now,
                                    double level);
/* The largest median of a round over the smallest, less 1. */
double bench_drift(const struct bench_series *series);

struct bench_comparison {
    int n[BENCH_SLOWER + 1]; /* of kernels, not of peers */
    int n_lost;              /* kernels that were timed on a shape, and are wrong or refused there now */
    bool other_machine;      /* a copy of memory or the library's product is slower or faster: nothing is said
                                of kernels */
    bool worse;              /* slower or lost */
};
/* NULL, or why two runs cannot be compared, as the end of an error line: another device, driver or
 * clock. */
const char *bench_incomparable(const struct bench_result *before, const struct bench_result *now);
/* Rows are paired by shape and name; those that only one has count for nothing. */
struct bench_comparison bench_compare(FILE *file, const struct bench_result *before,
                                      const struct bench_result *now);

#endif
