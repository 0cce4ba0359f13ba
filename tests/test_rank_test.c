/* Does the interval hold the true factor as often as it says, and exclude what is wrong? */
/* SPDX-License-Identifier: MIT */
#include "reports/rank_test.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

/* ---- the chances ---- */

/* U of every order of m x and n y, counted one by one: bit set, an x. */
static void count_orders(int m, int n, int64_t *count) {
    for (int order = 0; order < 1 << (m + n); order++) {
        int n_x = 0, n_y = 0, u = 0;
        for (int bit = 0; bit < m + n; bit++)
            if (order >> bit & 1)
                n_x++, u += n_y;
            else
                n_y++;
        if (n_x == m) count[u]++;
    }
}

Test(rank_test, chances_are_those_of_all_orders_counted) {
    for (int m = 1; m <= 5; m++)
        for (int n = 1; n <= 5; n++) {
            int64_t count[26] = {0}, all = 0, below = 0;
            count_orders(m, n, count);
            for (int u = 0; u <= m * n; u++) all += count[u];
            for (int u = 0; u <= m * n; u++) {
                below += count[u];
                const double p = (double)below / (double)all;
                cr_expect_eq(rank_critical(m, n, p * (1 + 1e-12)), u + 1, "%d %d %d", m, n, u);
                cr_expect_eq(rank_critical(m, n, p * (1 - 1e-12)), u, "%d %d %d", m, n, u);
            }
        }
}

Test(rank_test, chances_of_large_samples_are_those_of_the_normal_distribution) {
    const double m = 60, z = 3, p = 0.5 * erfc(z / sqrt(2));
    const double expected = m * m / 2 - z * sqrt(m * m * (2 * m + 1) / 12); /* mean and deviation of U */
    cr_expect_float_eq((double)rank_critical(60, 60, p), expected, 0.02 * expected);
}

/* ---- the interval ---- */

static uint64_t state = 1;
static double uniform(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(state >> 11) + 0.5) * 0x1p-53;
}
/* Times of launches: a least one, seldom much more. */
static double draw(double spread) { return 1 + spread * -log(uniform()); }

Test(rank_test, the_interval_misses_the_factor_as_seldom_as_it_says) {
    enum { TRIALS = 2000, M = 20, N = 30 };
    const double level = 0.05;
    const int64_t critical = rank_critical(M, N, level / 2);
    double x[M], y[N];
    int missed = 0;
    for (int t = 0; t < TRIALS; t++) {
        for (int i = 0; i < M; i++) x[i] = draw(0.1);
        for (int i = 0; i < N; i++) y[i] = 1.25 * draw(0.1);
        const struct rank_factor f = rank_factor_of(x, M, y, N, critical);
        missed += f.low > 1.25 || f.high < 1.25;
        cr_assert(f.low <= f.factor && f.factor <= f.high);
    }
    /* binomial: 100 expected, deviation 10; not much too wide either */
    cr_expect(missed < 140 && missed > 50, "%d of %d", missed, TRIALS);
}

Test(rank_test, ties_make_it_only_surer) {
    enum { TRIALS = 2000, M = 20 };
    const int64_t critical = rank_critical(M, M, 0.025);
    double x[M], y[M];
    int missed = 0;
    for (int t = 0; t < TRIALS; t++) {
        for (int i = 0; i < M; i++) x[i] = 1 + floor(4 * uniform()), y[i] = 1 + floor(4 * uniform());
        const struct rank_factor f = rank_factor_of(x, M, y, M, critical);
        missed += f.low > 1 || f.high < 1;
    }
    cr_expect_lt(missed, 140);
}

Test(rank_test, a_factor_is_found_and_named) {
    double x[30], y[30];
    for (int i = 0; i < 30; i++) x[i] = draw(0.01), y[i] = 1.05 * draw(0.01);
    const struct rank_factor f = rank_factor_of(x, 30, y, 30, rank_critical(30, 30, 0.0005));
    cr_expect(f.low > 1.03 && f.high < 1.07 && fabs(f.factor - 1.05) < 0.01, "%g [%g, %g]", f.factor, f.low,
              f.high);
}

Test(rank_test, small_samples_say_nothing_surely) {
    const double x[3] = {1, 1, 1}, y[3] = {9, 9, 9};
    cr_expect_eq(rank_critical(3, 3, 0.01), 0); /* the rarest of 20 orders has 1/20 */
    const struct rank_factor f = rank_factor_of(x, 3, y, 3, 0);
    cr_expect(f.low == 0 && isinf(f.high) && f.factor == 9);
}

Test(rank_test, a_long_sample_is_thinned_evenly) {
    double values[250], kept[RANK_MOST];
    for (int i = 0; i < 250; i++) values[i] = i;
    cr_expect_eq(rank_thin(250, values, kept), RANK_MOST);
    for (int i = 1; i < RANK_MOST; i++) cr_expect(kept[i] - kept[i - 1] >= 2 && kept[i] - kept[i - 1] <= 3);
    cr_expect_eq(rank_thin(7, values, kept), 7);
    cr_expect_eq(kept[6], 6);
}
