/* shrink - `--shrink`: the smallest case that still fails in the same way, whose tensors can be
 * printed: what a bug report needs. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_SHRINK_H
#define HARNESS_CLI_SHRINK_H

#include "harness/cli/options.h"

enum { SHRINK_RUNS = 200 }; /* at most; each is one case on the pool */

struct shrunk {
    struct check_case c;
    int schedules;
    char repro[200]; /* what its repro line needs besides the case */
    int runs;        /* candidates that were run */
    int rank;        /* of the first wrong element; -1: the unsharded run's */
    struct inspection print;
};
/* Runs the one case of `o`, then smaller ones while they fail on the same edge, at the same stage, and
 * in the unsharded run or on a rank as it did. What is left is in *out and, with it, in *request, which
 * then prints the stage that fails to `tensors`, unless it crashes. An error: the case does not fail. */
struct status shrink_case(const struct options *o, struct run_request *request, FILE *tensors,
                          struct shrunk *out);

#endif
