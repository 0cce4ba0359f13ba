/* report_file - a file that is read as a whole, and a JSON report in one. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_REPORT_FILE_H
#define HARNESS_CLI_REPORT_FILE_H

#include "layer/status.h"
#include "reports/bench.h"
#include "reports/report.h"

/* All bytes and a zero behind them, to be freed; an error also above `most`. Errors begin with label
 * and path and end by saying what to give instead ("a JSON report"). */
struct status file_read(const char *label, const char *path, size_t most, const char *wanted, char **text,
                        size_t *length);
/* To be freed with report_read_free. */
struct status report_file_read(const char *label, const char *path, struct report_read *out);
/* Of `bench`, to be freed with bench_result_free; and whether the file says that it is one. */
struct status bench_file_read(const char *label, const char *path, struct bench_result *out);
bool bench_file_is(const char *path);

#endif
