/* Images of intervals under a known rounding: nothing honest is left out, and mostly one number is left. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "reference/bound.h"

static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F32};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

/* Any magnitude, subnormals too; every third on or beside a tie. */
static double draw(enum dtype d, int trial) {
    const double v = ldexp(drand48() * 2 - 1, (int)(drand48() * 250) - 133);
    const double stored = dtype_round(d, v), half = fabs(stored) * dtype_unit(d);
    return trial % 3 ? v : stored + (trial % 2 ? half : half * (1 + 0x1p-40));
}

Test(image, what_lies_in_the_interval_is_rounded_into_the_image) {
    int doubtful = 0, trials = 0;
    srand48(71);
    for (int trial = 0; trial < 200000; trial++) {
        const enum dtype d = dtypes[trial % N_DTYPES];
        const double v = draw(d, trial), e = fabs(v) * ldexp(drand48(), -30);
        double y = v, left = e;
        image_of(&y, &left, 1, d);
        for (int i = 0; i < 5; i++) {
            const double inside = dtype_round(d, v + e * (i < 2 ? 1 - 2 * i : drand48() * 2 - 1));
            cr_assert_leq(fabs(inside - y), left, "trial %d: %.17g of %.17g +- %g", trial, inside, v, e);
        }
        cr_assert(left == 0 || dtype_round(d, v - e) != dtype_round(d, v + e), "trial %d", trial);
        doubtful += trial % 3 != 0 && d == DTYPE_BF16 && left > 0,
            trials += trial % 3 != 0 && d == DTYPE_BF16;
    }
    cr_assert_lt(doubtful, trials / 1000, "%d of %d random numbers are near a tie", doubtful, trials);
}

Test(image, a_tie_in_reach_leaves_one_step_and_no_rounding_changes_nothing) {
    double y[] = {1 + 0x1p-8, 1 + 0x1p-8, 1 + 0x1p-9, 0.1}, e[] = {0, 0x1p-30, 0x1p-30, 0.25};
    image_of(y, e, 3, DTYPE_BF16);
    image_of(y + 3, e + 3, 1, DTYPE_F64);
    const double want_y[] = {1, 1, 1, 0.1}, want_e[] = {0, 0x1p-7, 0, 0.25};
    for (int i = 0; i < 4; i++)
        cr_expect(y[i] == want_y[i] && e[i] == want_e[i], "%d: %g +- %g", i, y[i], e[i]);
}

Test(image, overflow_in_reach_leaves_everything_open_and_NaN_stays) {
    double y[] = {0x1.ffp127, NAN, 1}, e[] = {0x1p110, 0, NAN};
    image_of(y, e, 3, DTYPE_BF16);
    cr_expect(!(e[0] < INFINITY), "%g", e[0]);
    cr_expect(isnan(y[1]) && y[2] == 1 && isnan(e[2]));
}
