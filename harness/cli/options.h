/* options - the command line as data. `--help`, parsing, the errors and the repro line read one table. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_OPTIONS_H
#define HARNESS_CLI_OPTIONS_H

#include "harness/run.h"
#include "reports/report.h"

enum command { COMMAND_RUN, COMMAND_LIST, COMMAND_PROBE, COMMAND_HELP, COMMAND_VERSION };

struct report_target {
    const struct report_format *format;
    const char *path; /* NULL: standard output */
};
enum { MAX_REPORTS = 8, MAX_CASES = 4096 };

struct options {
    enum command command;
    const char *list_what;
    enum device_kind device; /* of probe */
    struct run_request run;  /* cases: lists multiplied, models expanded to parts; owned */
    char repro[1200];        /* run.repro */
    bool allow_skips;
    int verbosity;
    int n_reports;
    struct report_target report[MAX_REPORTS];
};
/* Usage errors come back as a status; main prints it and exits 2. */
struct status options_parse(int argc, char **argv, struct options *out);
void options_free(struct options *options);
void options_print_help(FILE *file);
/* `shardcheck list WHAT`; error: what can be listed. */
struct status options_list(const char *what, FILE *file);
struct status
options_list_check(const char *what);      /* the same error without the list; NULL: nothing was named */
void options_print_list_names(FILE *file); /* "models|kernels|..." */

#endif
