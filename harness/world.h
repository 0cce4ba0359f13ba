/* world - who holds the ranks and how their partial sums meet. `sim`: all ranks in this process; the sum runs in fp32 in
 * rank order and is rounded once to the storage dtype. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORLD_H
#define HARNESS_WORLD_H

#include "layer/contract.h"

struct world {
    const char *name;
    void (*sum)(const struct sum_args *args); /* args->out = sum of the parts, on host memory */
    struct contract (*contract)(const struct sum_args *args);
};
extern const struct world world_sim;

#endif
