/* kernel_seat - a kernel in the seat: operands between guards on a device, a launch, and what it
 * stored brought back. The call under test has device pointers, the outcome's the host's copies of
 * the same buffers. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_KERNEL_SEAT_H
#define HARNESS_KERNEL_SEAT_H

#include "harness/seat.h"
#include "harness/watch.h"

struct kernel_seat { /* device memory kept warm between stages, by position in their lists */
    struct seat seat;
    struct device *device;
    const struct kernel *const *chosen; /* [S_COUNT] NULL: the registry picks */
    int schedules;       /* runs of every launch, each under another schedule (schedules.h); 0 and 1: one */
    struct watch *watch; /* told of every launch; NULL: nobody */
    struct device_buffer in[MAX_STAGE_IO], out[MAX_STAGE_IO], scratch;
};
void kernel_seat_open(struct kernel_seat *seat, struct device *device, const struct kernel *const *chosen,
                      int schedules);
void kernel_seat_close(struct kernel_seat *seat);

#endif
