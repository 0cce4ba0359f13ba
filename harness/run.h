/* run - cases in, results out. Cases that differ only in their rank counts share one trunk. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RUN_H
#define HARNESS_RUN_H

#include "harness/case.h"
#include "harness/mutate.h"
#include "reports/result.h"

enum { MAX_SCHEDULES = 64 };

/* What the engine is asked for. Nothing here knows a command line; everything is the caller's. */
struct run_request {
    const struct check_case *cases; /* checked (case_check) */
    int64_t n_cases;
    const char *fixture_path; /* NULL: none */
    const char *dump_path;    /* NULL: none */
    const struct mutant *mutant;
    const struct mutant
        *fault;        /* a mistake of the harness itself, in everybody's calls: tests of the chain edge */
    int schedules;     /* of every launch, the plain one included; 0 and 1: no repetition */
    const char *repro; /* what a repro line needs besides the case, " --mutant NAME"; NULL: nothing */
};

struct run_output {
    struct run_result result;
    struct case_result *cases; /* [n] */
    char device_label[200], command[400];
    struct status dump; /* an error: the dump is not there, but all cases have their results */
};
/* A status is something that kept the run from happening at all (no device, unreadable fixture):
 * nothing is reported. */
struct status run_cases(const struct run_request *request, struct run_output *out);
void run_output_free(struct run_output *out);

#endif
