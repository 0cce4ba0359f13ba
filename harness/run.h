/* run - cases in, results out. Cases that differ only in their rank counts share one trunk. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RUN_H
#define HARNESS_RUN_H

#include "harness/options.h"

struct run_output {
    struct run_result result;
    struct case_result *cases; /* [n] */
    char device_label[200], command[400];
};
/* A status is something that kept the run from happening at all (no device, unreadable fixture): nothing is reported. */
struct status run_cases(const struct options *options, struct run_output *out);
void run_output_free(struct run_output *out);

#endif
