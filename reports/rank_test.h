/* rank_test - how many times as large are the values of one sample as those of another? Nothing is
 * assumed of their distribution but that it is the same for both up to a factor, and that values
 * are independent.
 *
 * Of m values x and n values y in one order, U counts the pairs with y < x. If both are draws of
 * one distribution, every order is as likely as any other, so the chances of U are known exactly
 * (Mann & Whitney 1947). A factor f is in the interval iff the test does not reject that x and y /
 * f are draws of one: those are the factors between two of the m n quotients y / x in order (Hodges
 * & Lehmann 1963; Lehmann, Nonparametrics, section 2.6). With ties the interval is only surer: it
 * has both of its ends. */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_RANK_TEST_H
#define REPORTS_RANK_TEST_H

#include <stdint.h>

enum {
    RANK_MOST = 100
}; /* values of a sample that are looked at: the exact chances cost m n m n additions */

/* How many of the values of so large a sample: evenly spread ones, so that every round has its
 * share. */
int rank_thin(int n, const double *values, double out[RANK_MOST]);

/* The largest u with P(U < u) <= probability, of samples of m and n values of one distribution; 0:
 * not even the most extreme order is as unlikely as that. */
int64_t rank_critical(int m, int n, double probability);

struct rank_factor {
    double low, factor, high; /* 0 and infinity: the samples are too small for so sure an answer */
};
/* Of y over x, both positive and at most RANK_MOST; outside of [low, high] with a probability of at
 * most `level`. critical: rank_critical(m, n, level / 2). */
struct rank_factor rank_factor_of(const double *x, int m, const double *y, int n, int64_t critical);

#endif
