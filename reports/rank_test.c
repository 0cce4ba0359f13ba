/* The exact chances of Mann and Whitney's U, and the interval that they give. */
/* SPDX-License-Identifier: MIT */
#include "reports/rank_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *room(size_t count, size_t size) {
    void *const p = calloc(count ? count : 1, size);
    if (!p) abort(); /* nothing sensible is left to say */
    return p;
}

int rank_thin(int n, const double *values, double out[RANK_MOST]) {
    const int kept = n < RANK_MOST ? n : RANK_MOST;
    for (int i = 0; i < kept; i++) out[i] = values[(int64_t)i * n / kept];
    return kept;
}

/* P(U = u | m, n) = m/(m+n) P(U = u - n | m - 1, n) + n/(m+n) P(U = u | m, n - 1): whose value is
 * the largest, an x above all n of the y or a y. Only sums of positive numbers, so every chance is
 * known to some m + n roundings. */
int64_t rank_critical(int m, int n, double probability) {
    const int64_t most = (int64_t)m * n + 1;
    double *const chance =
        room((size_t)(n + 1) * (size_t)most, sizeof *chance); /* [n + 1][most], of i values x */
    for (int j = 0; j <= n; j++) chance[j * most] = 1;        /* of none: U = 0 */
    for (int i = 1; i <= m; i++)
        for (int j = 0; j <= n; j++) { /* from row i - 1 to row i, in place */
            double *const to = chance + j * most;
            const double *const fewer = j ? chance + (j - 1) * most : NULL;
            const double by_x = (double)i / (i + j), by_y = (double)j / (i + j);
            for (int64_t u = (int64_t)i * j; u >= 0; u--)
                to[u] = (u >= j ? by_x * to[u - j] : 0) + (fewer ? by_y * fewer[u] : 0);
        }
    double below = 0;
    int64_t u = 0;
    while (u < most && below + chance[n * most + u] <= probability) below += chance[n * most + u++];
    free(chance);
    return u;
}

static int rising(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct rank_factor rank_factor_of(const double *x, int m, const double *y, int n, int64_t critical) {
    const int64_t pairs = (int64_t)m * n;
    double *const quotient = room((size_t)pairs, sizeof *quotient);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) quotient[i * n + j] = y[j] / x[i];
    qsort(quotient, (size_t)pairs, sizeof *quotient, rising);
    struct rank_factor f = {0, sqrt(quotient[(pairs - 1) / 2] * quotient[pairs / 2]), INFINITY};
    if (critical > 0) f.low = quotient[critical - 1], f.high = quotient[pairs - critical];
    free(quotient);
    return f;
}
