/* Any bytes: no report of bench, or one that says the same once it is written and read again, that
 * can be shown, and that is no slower than itself. */
/* SPDX-License-Identifier: MIT */
#include "reports/bench_compare.h"
#include "tests/fuzz/fuzz.h"

static char *written(const struct bench_result *r, size_t *length) {
    char *text = NULL;
    FILE *const file = open_memstream(&text, length);
    FUZZ_CHECK(file);
    bench_json(file, r);
    FUZZ_CHECK(!fclose(file));
    return text;
}

/* The exact chances of large samples take their time. */
static bool is_small(const struct bench_result *r) {
    int64_t launches = 0;
    for (int64_t i = 0; i < r->n_rows; i++)
        for (int cache = 0; cache < BENCH_CACHES; cache++) launches += r->row[i].series[cache].n;
    return launches <= 64;
}

void fuzz_bench_report(const uint8_t *data, size_t n) {
    struct bench_result a, b;
    char *const text = fuzz_text(data, n);
    const char *const problem = bench_read(text, n, &a);
    free(text);
    if (problem) {
        FUZZ_CHECK(problem[0] && !a.row);
        return;
    }
    size_t length;
    char *const again = written(&a, &length);
    FUZZ_CHECK(!bench_read(again, length, &b) && a.n_rows == b.n_rows);
    FILE *const nowhere = fopen("/dev/null", "w");
    FUZZ_CHECK(nowhere);
    for (const struct bench_format *f = bench_formats; f->name; f++) f->write(nowhere, &b);
    FUZZ_CHECK(!bench_incomparable(&a, &b));
    if (is_small(&a)) FUZZ_CHECK(!bench_compare(nowhere, &a, &a).worse);
    fclose(nowhere);
    free(again);
    bench_result_free(&a);
    bench_result_free(&b);
}
