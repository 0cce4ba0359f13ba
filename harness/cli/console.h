/* console - what a run shows while it goes on: each result as soon as it is known, a line of progress
 * on a terminal; and when it has to stop before its end. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_CONSOLE_H
#define HARNESS_CLI_CONSOLE_H

#include "harness/cli/options.h"
#include "harness/output.h"

struct console {
    struct watch watch;
    const struct options *options;
    struct output *const *report; /* [n_reports] */
    double start;                 /* clock */
    double *work;                 /* [n_cases] of the trunk; what estimates go by */
    double all, settled;          /* work: of all cases; of those with a result */
    double seconds_own;           /* until all cases but the grid's had theirs */
    char device[320];
    bool broken; /* a report could not be written */
    bool live;   /* there is a terminal to write progress on */
    bool drawn;  /* and a line on it */
    int64_t n_settled;
    char failed[200]; /* the first case that failed */
    int64_t n_causes;
    const struct case_result **cause; /* [n_cases] failed, each in a way of its own */
};
/* report [n_reports]: open. */
void console_open(struct console *console, const struct options *options, struct output *const *report);
void console_close(struct console *console); /* the line of progress goes */

#endif
