/* world - who holds the ranks and how their partial sums meet. `sim`: all ranks in this process;
 * the sum runs in fp32 in rank order and is rounded once to the storage dtype. Its seat does what
 * no kernel does: the sum, and the split of fused rows into views. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORLD_H
#define HARNESS_WORLD_H

#include "harness/seat.h"

struct world {
    const char *name;
    void (*sum)(const struct sum_args *args); /* args->out = sum of the parts, on host memory */
    struct contract (*contract)(const struct sum_args *args);
};
extern const struct world world_sim;

struct world_seat {
    struct seat seat;
    const struct world *world;
    struct desk desk;
};
void world_seat_open(struct world_seat *seat, const struct world *world);
void world_seat_close(struct world_seat *seat);

#endif
