/* outputs - the files that a command line of `run` names: to write, and to read. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_OUTPUTS_H
#define HARNESS_CLI_OUTPUTS_H

#include "harness/cli/options.h"
#include "harness/output.h"

/* No output may be another one, nor a file that is read. */
struct status outputs_check(const struct options *options);
/* Before the work. report [n_reports]: NULL after an error. */
struct status reports_open(const struct options *options, struct output **report);

#endif
