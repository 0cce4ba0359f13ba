/* Do two HDF5 files that need not be ours hold the same numbers? */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fixtures/datasets.h"
#include "harness/cli/compare_dumps.h"

struct difference difference_of(const double *a, const double *b, int64_t n) {
    struct difference d = {.n = n, .first = -1};
    for (int64_t i = 0; i < n; i++) {
        if (!memcmp(&a[i], &b[i], sizeof *a) || (isnan(a[i]) && isnan(b[i]))) continue;
        if (!d.n_other++) d.first = i;
        const double distance = fabs(a[i] - b[i]);
        if (!(distance <= d.largest)) d.largest = distance;
    }
    return d;
}

struct tally {
    int same, other, gone, fresh, silent; /* silent: no numbers */
};

static struct status compare_one(FILE *file, const struct datasets *a, const struct datasets *b,
                                 const char *name, struct tally *tally) {
    double *x = NULL, *y = NULL;
    int64_t n = 0, m = 0;
    char shape[100] = "", other[100] = "";
    TRY(datasets_read(a, name, &x, &n, shape, sizeof shape));
    struct status s = datasets_read(b, name, &y, &m, other, sizeof other);
    if (!s.code && (!x || !y)) {
        tally->silent++;
        fprintf(file, "?      %s: holds no numbers; not compared\n", name);
    } else if (!s.code && strcmp(shape, other) != 0) {
        tally->other++;
        fprintf(file, "OTHER  %s: shape %s | %s\n", name, shape, other);
    } else if (!s.code) {
        const struct difference d = difference_of(x, y, n);
        tally->same += !d.n_other;
        tally->other += d.n_other > 0;
        if (d.n_other)
            fprintf(file,
                    "OTHER  %s: %lld of %lld elements, the first is number %lld: %.9g | %.9g, largest "
                    "difference %.3g\n",
                    name, (long long)d.n_other, (long long)d.n, (long long)d.first, x[d.first], y[d.first],
                    d.largest);
    }
    free(x);
    free(y);
    return s;
}

static bool holds(const struct datasets *d, const char *name) {
    for (int i = 0; i < datasets_count(d); i++)
        if (!strcmp(datasets_name(d, i), name)) return true;
    return false;
}

static int print_missing(FILE *file, const char *word, const struct datasets *in,
                         const struct datasets *from) {
    int n = 0;
    for (int i = 0; i < datasets_count(in); i++) {
        if (holds(from, datasets_name(in, i))) continue;
        fprintf(file, "%-6s %s\n", word, datasets_name(in, i));
        n++;
    }
    return n;
}

static struct status compare_opened(FILE *file, const struct datasets *a, const struct datasets *b,
                                    enum exit_code *code) {
    struct tally t = {0};
    for (int i = 0; i < datasets_count(a); i++)
        if (holds(b, datasets_name(a, i))) TRY(compare_one(file, a, b, datasets_name(a, i), &t));
    t.gone = print_missing(file, "GONE", a, b);
    t.fresh = print_missing(file, "NEW", b, a);
    if (!t.other && !t.gone && !t.fresh && !t.silent && t.same)
        fprintf(file, "identical: %d datasets, bit for bit\n", t.same);
    else
        fprintf(file,
                "%d datasets are the same bit for bit, %d other, %d gone, %d new, %d not compared; without a "
                "config_json nothing says which bits may differ\n",
                t.same, t.other, t.gone, t.fresh, t.silent);
    *code = t.other || t.gone ? EXIT_DEFECT : t.silent || !t.same ? EXIT_TROUBLE : EXIT_PASSED;
    return status_ok();
}

struct status compare_datasets(FILE *file, const char *path_a, const char *path_b, enum exit_code *code) {
    struct datasets *a = NULL, *b = NULL;
    TRY(datasets_open(path_a, &a));
    struct status s = datasets_open(path_b, &b);
    if (!s.code) s = compare_opened(file, a, b, code);
    datasets_close(a);
    datasets_close(b);
    return s;
}
