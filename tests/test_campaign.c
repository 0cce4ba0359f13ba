/* Is the campaign able to alarm, and silent where it has to be? `make campaign` is the long run. */
/* SPDX-License-Identifier: MIT */
#include "tests/campaign/campaign.h"

#include <criterion/criterion.h>
#include <string.h>

enum { TRIALS = 60 };

static struct trial try_one(const struct emulation *row, int64_t number, bool dishonest) {
    struct trial t = trial_open(7, row->name, number, dishonest);
    row->run(&t);
    trial_close(&t);
    return t;
}

Test(campaign, honest_kernels_raise_no_alarm, .timeout = 120) {
    for (const struct emulation *row = emulations; row->name; row++)
        for (int64_t i = 0; i < TRIALS; i++) {
            const struct trial t = try_one(row, i, false);
            cr_expect_eq(t.alarms, 0, "%s %d: %s: %s", row->name, (int)i, t.made_of, t.alarm);
        }
}

/* An element less in a sum of thousands may well be honest rounding; mostly it is not. */
Test(campaign, kernels_that_leave_something_out_do, .timeout = 120) {
    for (const struct emulation *row = emulations; row->name; row++) {
        int alarmed = 0;
        for (int64_t i = 0; i < TRIALS; i++) alarmed += try_one(row, i, true).alarms > 0;
        cr_expect_gt(alarmed, TRIALS / 2, "%s: %d of %d trials", row->name, alarmed, TRIALS);
    }
}

Test(campaign, a_trial_follows_from_seed_name_and_number) {
    const struct trial a = try_one(&emulations[1], 3, true), b = try_one(&emulations[1], 3, true),
                       c = try_one(&emulations[1], 4, true);
    cr_expect(a.elements == b.elements && a.alarms == b.alarms && !strcmp(a.alarm, b.alarm));
    cr_expect(strcmp(a.made_of, c.made_of) || strcmp(a.alarm, c.alarm));
}

Test(campaign, cases_run_through_the_real_kernels, .timeout = 120) {
    int64_t elements = 0, alarms = 0, ran = 0;
    for (int64_t i = 0; ran < 2 && i < 100; i++) {
        struct trial t = trial_open(7, "case", i, false);
        ran += case_trial(&t);
        elements += t.elements, alarms += t.alarms;
        cr_expect_eq(t.alarms, 0, "%s: %s", t.made_of, t.alarm);
        trial_close(&t);
    }
    cr_expect(ran == 2 && elements > 0, "%d cases", (int)ran);
}
