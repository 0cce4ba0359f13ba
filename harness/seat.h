/* seat - runs one stage for one rank on the device: lays its operands out between guards, launches the kernel, and
 * brings back what was stored. Knows nothing of right and wrong but this: a kernel error, a damaged guard, a written
 * input are reported with the result. The trunk sits in a seat too, as rank 0 of 1. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_SEAT_H
#define HARNESS_SEAT_H

#include "harness/call.h"
#include "harness/mutate.h"
#include "harness/store.h"

struct seat { /* device memory kept warm between calls, by position in the stage's lists */
    struct device *device;
    int schedules; /* runs of every launch, each under another schedule (schedules.h); 0 and 1: one */
    struct device_buffer in[MAX_STAGE_IO], out[MAX_STAGE_IO], scratch;
};

/* Everything a rank's stage hangs on. */
struct rank_stage {
    int stage; /* enum stage_id */
    const struct check_case *c;
    const struct layer_spec *spec; /* the whole layer */
    const struct shard_plan *plan;
    int rank;
    const struct batch *batch;
    const struct store *whole;   /* the trunk's tensors, sliced for the rank */
    const struct store *own;     /* the rank's ROLE_LOCAL and ROLE_PARTIAL tensors */
    const struct mutant *mutant; /* seeded into the kernel's call; NULL: none */
};

struct seat_result {
    struct call reference_call;  /* unmutated, on host memory that stays valid until the next seat_load */
    const struct kernel *kernel; /* NULL: none supports the call, see problem */
    char problem[500];           /* empty: the kernel ran and kept to its buffers */
    struct store got;            /* dense outputs of the rank by tensor id; caches come back whole */
    double seconds;              /* launch to completion */
    int schedule;                /* the first schedule that stored other bits than `got`; 0: none did */
    struct store other;          /* what it stored */
};

/* Lay out and bind; after it result->reference_call is usable. */
struct status seat_load(struct seat *seat, const struct rank_stage *at, struct seat_result *result);
/* Launch. A kernel that fails or leaves its buffers is result->problem, not a status. */
struct status seat_run(struct seat *seat, const struct rank_stage *at, struct seat_result *result);
void seat_result_free(struct seat_result *result);
void seat_free(struct seat *seat);

/* Elements of a stage's tensor for a rank, index tensors included. */
int64_t seat_count(const struct rank_stage *at, enum tensor_id id);
bool seat_in_place(enum tensor_id id); /* written in place: the caches */

#endif
