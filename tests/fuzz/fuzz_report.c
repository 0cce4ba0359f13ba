/* Any bytes: no report, or one that says the same once it is written and read again, and that is identical
 * with itself. */
/* SPDX-License-Identifier: MIT */
#include "reports/compare.h"
#include "reports/report.h"
#include "tests/fuzz/fuzz.h"

static char *written(const struct report_read *r, size_t *length) {
    char *text = NULL;
    FILE *const file = open_memstream(&text, length);
    FUZZ_CHECK(file);
    report_json(file, &r->run, 0);
    FUZZ_CHECK(!fclose(file));
    return text;
}

void fuzz_report(const uint8_t *data, size_t n) {
    static struct report_read a, b;
    char *const text = fuzz_text(data, n);
    const char *const problem = report_read(text, n, &a);
    free(text);
    if (problem) {
        FUZZ_CHECK(problem[0] && !a.cases);
        return;
    }
    size_t length;
    char *const again = written(&a, &length);
    FUZZ_CHECK(!report_read(again, length, &b));
    FILE *const nowhere = fopen("/dev/null", "w");
    FUZZ_CHECK(nowhere);
    const struct comparison c = report_compare(nowhere, &a.run, &b.run, &(struct compare_wish){0});
    FUZZ_CHECK(c.identical && !c.worse);
    fclose(nowhere);
    free(again);
    report_read_free(&a);
    report_read_free(&b);
}
