/* outputs - the files that a command line of `run` names: to write, and to read. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_OUTPUTS_H
#define HARNESS_CLI_OUTPUTS_H

#include "harness/cli/options.h"
#include "harness/output.h"

/* "json:FILE": which of the formats, and the file (NULL: standard output). */
struct status report_split(const char *value, const struct choices *formats, int *format, const char **path);
/* No output may be another one, nor a file that is read. */
struct status outputs_check(const struct options *options);
/* Before the work. report [n_reports]: NULL after an error. */
struct status reports_open(const struct options *options, struct output **report);
/* The same of the dump, if there is to be one: the request gets the path that is written. */
struct status dump_output_open(struct run_request *request, struct output **dump);

#endif
