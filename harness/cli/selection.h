/* selection - which of the cases are run: those that failed before, or one share of all. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_SELECTION_H
#define HARNESS_CLI_SELECTION_H

#include "harness/cli/request.h"

/* The lines of a report's failed cases, as subjects of a request. */
struct failed_lines {
    char **line; /* [n] */
    int n;
    const char **typed; /* the subjects that they stand in for */
};
/* An error: no JSON report, nothing failed in it, or cases are named besides. */
struct status failed_read(const char *path, struct request *request, struct failed_lines *out);
/* The request gets its own subjects back; from {0} too. */
void failed_free(struct failed_lines *failed, struct request *request);

/* Keeps share i of n: cases side by side, of about the same work, each in one share and none empty.
 * An error: there are fewer cases than shares. */
struct status split_cases(struct run_request *run, int i, int n);

#endif
