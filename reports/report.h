/* report - writes a run_result in one of several formats. To add one: a .c file and a row in
 * report.c. */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_REPORT_H
#define REPORTS_REPORT_H

#include <stdio.h>

#include "reports/result.h"

struct report_format {
    const char *name, *describes;
    void (*write)(FILE *file, const struct run_result *run,
                  int verbosity); /* -1 quiet, 0, 1 -v: stages and times */
};
extern const struct report_format
    report_formats[]; /* ended by a row without a name; the first is the default */
const struct report_format *report_by_name(const char *name);

/* Text pieces shared by the formats. */
const char *edge_name(enum edge edge);               /* "kernel", "plan", "shard", ... */
const char *edge_state_name(enum edge_state state);  /* "-", "ok", "too loose", "FAIL" */
const char *verdict_name(enum case_verdict verdict); /* "PASS", "FAIL", "SKIP" */
/* The case as the text report shows it, newline at the end. */
void report_text_case(FILE *file, const struct case_result *result, int verbosity);
/* Length in bytes of the UTF-8 character at `text`; 0: not UTF-8. */
int report_utf8_length(const char *text);

void report_text(FILE *file, const struct run_result *run, int verbosity);
void report_json(FILE *file, const struct run_result *run, int verbosity);
void report_junit(FILE *file, const struct run_result *run, int verbosity);

#endif
