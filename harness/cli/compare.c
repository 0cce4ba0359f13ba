/* The command `compare`: what has changed from A to B? What kind of files they are, their first bytes
 * say. */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "harness/cli/report_file.h"

/* ---- options ---- */

/* "margin", "margin=1.5": into the wish, or an error. */
static struct status apply_fail_on(struct parse *parse, const struct option_row *row, const char *value) {
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
    fputs("A and B are JSON reports of runs. Worse, and exit status 1, is: a case or an edge "
          "that\nfails or is skipped as it was not, a case, stage or fact of coverage that is gone, fewer "
          "elements judged.\n",
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

struct status compare_run(const struct options *o, enum exit_code *code) {
    return compare_reports(o, code);
}
