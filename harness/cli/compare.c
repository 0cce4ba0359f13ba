/* The command `compare`: what has changed from A to B? What kind of files they are, their first bytes
 * say. */
/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixtures/tensor_file.h"
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
        "A and B are JSON reports of runs, or two files of tensors. Of reports worse, and exit status 1, is: "
        "a "
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

/* A report is a text that begins with '{': in its first bytes a safetensors file has zeros. */
static struct status is_report(const char *path, bool *report) {
    char bytes[8] = "";
    errno = 0;
    FILE *const file = fopen(path, "re");
    const size_t n = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    const bool read = n || (file && !ferror(file));
    if (file) fclose(file);
    *report = !memchr(bytes, 0, n) && bytes[strspn(bytes, " \t\r\n")] == '{';
    return read ? status_ok()
                : status_error("%.200s: %s; give a JSON report or a file of tensors", path, strerror(errno));
}

static struct status is_fixture(const char *path, bool *fixture) {
    struct tensor_file *file;
    TRY(tensor_file_open(path, &file));
    *fixture = !strcmp(tensor_file_format(file), "HDF5") && tensor_file_fact(file, "config_json");
    tensor_file_close(file);
    return status_ok();
}

struct status compare_run(const struct options *o, enum exit_code *code) {
    const char *const a = o->compared[0], *const b = o->compared[1];
    bool report_a, report_b, fixture_a, fixture_b;
    TRY(is_report(a, &report_a));
    TRY(is_report(b, &report_b));
    if (report_a != report_b)
        return status_error("%.200s: is a report, %.200s is none; compare two reports or two dumps",
                            report_a ? a : b, report_a ? b : a);
    if (report_a && (bench_file_is(a) || bench_file_is(b))) return bench_compare_files(a, b, code);
    if (report_a) return compare_reports(o, code);
    TRY(is_fixture(a, &fixture_a));
    TRY(is_fixture(b, &fixture_b));
    return fixture_a && fixture_b ? compare_fixtures(stdout, a, b, code)
                                  : compare_tensors(stdout, a, b, code);
}
