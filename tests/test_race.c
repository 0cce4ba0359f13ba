/* Does the race detector (make race) report every seeded race with both source lines, in every
 * order of threads and copies, and nothing where barriers, fences and atomics are right? Skipped in
 * other builds. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/device/device.h"
#include "kernels/simt/simt_options.h"
#include "tests/kernels/races.h"

static struct device *device;

static void must(struct status s) { cr_assert_eq(s.code, STATUS_OK, "%s", s.message); }

static void open_host(void) { must(device_open(DEVICE_HOST, &device)); }
static void close_host(void) { device_close(device); }

TestSuite(race, .init = open_host, .fini = close_host, .timeout = 120);

/* "races.cu:12" may be followed by anything but another digit. */
static void check_line_named(const struct race_case *c, const char *report, int line) {
    char named[64];
    snprintf(named, sizeof named, "%s.cu:%d", strstr(report, "races_async") ? "races_async" : "races", line);
    const char *at = strstr(report, named);
    while (at && isdigit((unsigned char)at[strlen(named)])) at = strstr(at + 1, named);
    cr_assert_not_null(at, "%s: the report does not name %s: %s", c->name, named, report);
}

static void check_reported(const struct race_case *c, const char *report, bool show) {
    cr_assert_not_null(strstr(report, ": race: "), "%s: not a race: %s", c->name, report);
    for (int i = 0; i < 3 && c->says[i]; i++)
        cr_assert_not_null(strstr(report, c->says[i]), "%s: the report does not say '%s': %s", c->name,
                           c->says[i], report);
    for (int i = 0; i < 2; i++)
        if (race_lines[i]) check_line_named(c, report, race_lines[i]);
    cr_assert_not_null(strstr(report, ", block ("), "%s: %s", c->name, report);
    cr_assert_not_null(strstr(report, ", thread ("), "%s: %s", c->name, report);
    if (show && getenv("SHOW_RACES")) fprintf(stderr, "%s\n    %s\n", c->name, report);
}

static void check_case(const struct race_case *c, bool show) {
    struct device_buffer raced = {0};
    must(device_alloc(device, "raced", RACED_FLOATS * sizeof(float), 1024, &raced));
    memset(raced.host, 0, raced.bytes);
    memset(race_lines, 0, sizeof race_lines);
    const char *refused = c->launch(raced.data);
    cr_assert_null(refused, "%s: %s", c->name, refused);
    const struct status s = device_sync(device);
    if (c->says[0]) {
        cr_assert_eq(s.code, STATUS_ERROR, "%s: no report (order %d, copies %d)", c->name,
                     (int)simt_get_options().order, (int)simt_get_options().async);
        check_reported(c, s.message, show);
    } else {
        cr_assert_eq(s.code, STATUS_OK, "%s: a false report: %s", c->name, s.message);
    }
    device_free(device, &raced);
}

/* Which of the two accesses runs second, and so reports, changes with the order; both are always
 * named. */
static void check_cases(const struct race_case *cases) {
    if (!race_detector_is_built()) cr_skip_test("not a race build");
    for (int order = 0; order < SIMT_ORDER_COUNT; order++)
        for (int async = 0; async < SIMT_ASYNC_COUNT; async++) {
            struct simt_options options = simt_get_options();
            options.order = (enum simt_order)order;
            options.async = (enum simt_async)async;
            simt_set_options(options);
            for (const struct race_case *c = cases; c->name; c++) check_case(c, !order && !async);
        }
}

Test(race, plain_accesses_atomics_and_small_copies) { check_cases(race_cases); }

Test(race, copies_and_products_beside_the_threads) { check_cases(race_async_cases); }
