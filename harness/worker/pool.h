/* pool - the cases of a request on workers: which runs where and when, what a death costs, and the
 * results in the order of the cases. The process that calls it runs no code under test, opens no
 * device and no file but a config.json. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORKER_POOL_H
#define HARNESS_WORKER_POOL_H

#include "harness/facts.h"
#include "harness/run.h"

struct pool_options {
    int jobs;             /* workers at once; 0: one a core */
    double timeout;       /* seconds a launch may take; 0: as long as its work explains */
    int64_t memory_bytes; /* resident, of one worker; 0: nine tenths of what the machine has free */
    bool echo;            /* what workers print goes to standard error */
};

/* As run_cases. A death, a hang, or too much memory fails the case that was running, as
 * `crashed`; the other cases of its trunk run again without it. Where that is the fault of no code
 * under test, out->trouble says so and the run ends. request->watch hears everything: steps and
 * beats as they come in, results in the order of the cases. */
struct status pool_run(const struct run_request *request, const struct pool_options *options,
                       struct run_output *out);
/* facts_read in a worker: a file may crash the library that reads it. */
struct status pool_describe(const struct run_request *request, struct facts *out);
/* judge_flashinfer in a worker. */
struct status pool_calls(const struct run_request *request, struct run_output *out);

#endif
