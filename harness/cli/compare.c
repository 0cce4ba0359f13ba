/* The command `compare`: what has changed from A to B? What kind of files they are, their first bytes
 * say. */
/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixtures/datasets.h"
#include "harness/cli/commands.h"
#include "harness/cli/compare_dumps.h"
#include "harness/cli/report_file.h"

/* ---- options ---- */

/* "margin", "margin=1.5": into the wish, or an error. */
struct status apply_fail_on(struct parse *parse, const struct option_row *row, const char *value) {
    const double usual = 2;
    struct compare_wish *const wish = &parse->out->wish;
    const size_t n = strcspn(value, "=");
    double *const to = n == 6 && !strncmp(value, "margin", n) ? &wish->margin
                       : n == 4 && !strncmp(value, "time", n) ? &wish->time
                                                              : NULL;
    if (!to) return status_error("--%s %.60s: use margin or time, then =RATIO", row->name, value);
    if (*to > 0) return status_error("--%s %.60s: given twice; use it once", row->name, value);
    char *end = NULL;
    *to = value[n] ? strtod(value + n + 1, &end) : usual;
    if (end && (*end || end == value + n + 1 || !(*to >= 1 && *to <= 1e6)))
        return status_error("--%s %.60s: use a ratio from 1 to 1000000, as in %.*s=1.5", row->name, value,
                            (int)n, value);
    return status_ok();
}

const struct option_row compare_options[] = {
    {"fail-on", 0, REPEATABLE, "WHAT[=RATIO]", -1, apply_fail_on,
     "margin or time: worse is also what grew more than so many times (2); repeatable", NULL},
    {0},
};

void compare_explain(FILE *file) {
    fputs(
        "A and B are JSON reports of runs, or two HDF5 files. Of reports worse, and exit status 1, is: a "
        "case or an\nedge that fails or is skipped as it was not, a case, stage or fact of coverage that is "
        "gone, fewer\nelements judged. Dumps are compared by bits; what differs is judged in both by the "
        "reference on the\nfile's own inputs, and exit status 1 is: outside its bounds, not judged, or "
        "gone.\n",
        file);
}

struct status compare_parse(struct parse *parse) {
    const struct request *const words = &parse->request;
    if (words->n_subjects != 2)
        return status_error("compare: takes two files, these are %d; use shardcheck compare A B",
                            words->n_subjects);
    for (int i = 0; i < 2; i++) parse->out->compared[i] = words->subject[i];
    return status_ok();
}

/* ---- two reports ---- */

static void print_head(const char *letter, const char *path, const struct run_result *run) {
    printf("%s        %s: shardcheck %s on %s, %lld cases\n", letter, path, run->version, run->device,
           (long long)run->n_cases);
}

static struct status compare_reports(const struct options *o, enum exit_code *code) {
    struct report_read a, b;
    TRY(report_file_read("", o->compared[0], &a));
    const struct status s = report_file_read("", o->compared[1], &b);
    if (!s.code) {
        print_head("A", o->compared[0], &a.run);
        print_head("B", o->compared[1], &b.run);
        *code = report_compare(stdout, &a.run, &b.run, &o->wish).worse ? EXIT_DEFECT : EXIT_PASSED;
        report_read_free(&b);
    }
    report_read_free(&a);
    return s;
}

/* ---- what they are ---- */

static struct status is_hdf5(const char *path, bool *hdf5) {
    char bytes[4] = "";
    errno = 0;
    FILE *const file = fopen(path, "re");
    const bool read = file && (fread(bytes, 1, sizeof bytes, file) || !ferror(file));
    if (file) fclose(file);
    *hdf5 = !memcmp(bytes, "\x89HDF", sizeof bytes);
    return read ? status_ok()
                : status_error("%.200s: %s; give a JSON report or an HDF5 file", path, strerror(errno));
}

static struct status is_fixture(const char *path, bool *fixture) {
    struct datasets *d;
    TRY(datasets_open(path, &d));
    *fixture = datasets_is_fixture(d);
    datasets_close(d);
    return status_ok();
}

struct status compare_run(const struct options *o, enum exit_code *code) {
    const char *const a = o->compared[0], *const b = o->compared[1];
    bool hdf5_a, hdf5_b, fixture_a, fixture_b;
    TRY(is_hdf5(a, &hdf5_a));
    TRY(is_hdf5(b, &hdf5_b));
    if (hdf5_a != hdf5_b)
        return status_error("%.200s: is an HDF5 file, %.200s is none; compare two reports or two dumps",
                            hdf5_a ? a : b, hdf5_a ? b : a);
    if (!hdf5_a) return compare_reports(o, code);
    TRY(is_fixture(a, &fixture_a));
    TRY(is_fixture(b, &fixture_b));
    return fixture_a && fixture_b ? compare_fixtures(stdout, a, b, code)
                                  : compare_datasets(stdout, a, b, code);
}
