/* Does the quick look at many elements pass only what element_judge passes with margin 0? */
/* SPDX-License-Identifier: MIT */
#include "reference/bound.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 131 }; /* two pieces and a bit, no multiple of four */
static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
static double y[N], e[N];
static uint32_t stored[N]; /* room for any of them */

static void make(enum dtype d) {
    srand48(11);
    for (int i = 0; i < N; i++) {
        y[i] = ldexp(drand48() + 0.5, i % 13 - 6) * (i % 2 ? -1 : 1);
        e[i] = 1e-6;
        dtype_store(stored, d, i, y[i]);
    }
}

static bool look(enum dtype d) { return elements_rounded(d, stored, 0, y, e, N); }

Test(rounded, what_is_rounded_passes_from_anywhere) {
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        make(types[t]);
        for (int first = 0; first < N; first++)
            cr_expect(elements_rounded(types[t], stored, first, y + first, NULL, N - first));
        cr_expect(look(types[t]));
    }
}

Test(rounded, one_element_that_is_not_is_seen_wherever_it_stands) {
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int i = 0; i < N; i++) {
            const enum dtype d = types[t];
            const double bad[] = {NAN,           INFINITY, -INFINITY, 0, -y[i], dtype_next(d, y[i], true),
                                  dtype_huge(d), 2 * y[i]};
            for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
                make(d);
                if (bad[k] == dtype_load(stored, d, i)) continue;
                dtype_store(stored, d, i, bad[k]);
                cr_expect_not(look(d), "%s element %d: %g for %g", dtype_name(d), i, bad[k], y[i]);
            }
        }
}

Test(rounded, bounds_and_values_that_are_no_numbers_say_nothing) {
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int i = 0; i < N; i++) {
            const double bounds[] = {NAN, -1e-9}, values[] = {NAN, INFINITY, dtype_huge(types[t])};
            for (int k = 0; k < 2; k++) {
                make(types[t]);
                e[i] = bounds[k];
                cr_expect_not(look(types[t]), "bound %g of element %d", bounds[k], i);
            }
            for (int k = 0; k < 3; k++) {
                make(types[t]);
                y[i] = values[k];
                dtype_store(stored, types[t], i, y[i]);
                cr_expect_not(look(types[t]), "value %g of element %d", values[k], i);
            }
        }
}

/* Whatever it passes, over all exponents and ties, the judge of one passes with margin 0. */
Test(rounded, it_passes_nothing_that_the_judge_of_one_does_not) {
    srand48(5);
    int64_t passed = 0;
    for (int n = 0; n < 300000; n++) {
        const enum dtype d = types[n % 3];
        const double cell = dtype_unit(d), tie = 1 + (double)(lrand48() % 64) * cell;
        y[0] = ldexp(n % 5 ? drand48() + 1 : tie, (int)(lrand48() % 300) - 150) * (n % 2 ? 1 : -1);
        dtype_store(stored, d, 0, n % 7 ? y[0] : y[0] * (1 + cell));
        e[0] = 0;
        if (!elements_rounded(d, stored, 0, y, e, 1)) continue;
        const struct element_verdict v = element_judge(d, dtype_load(stored, d, 0), y[0], 0);
        cr_expect(v.kind == ELEMENT_OK && v.margin == 0, "%s: %a", dtype_name(d), y[0]);
        passed++;
    }
    cr_expect_gt(passed, 100000);
}
