/* kernel_seat - a kernel in the seat: operands between guards on a device, a launch, and what it
 * stored brought back. The call under test has device pointers, the outcome's the host's copies of
 * the same buffers. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_KERNEL_SEAT_H
#define HARNESS_KERNEL_SEAT_H

#include "harness/memory.h"
#include "harness/seat.h"
#include "harness/watch.h"

struct kernel_seat { /* device memory kept warm between stages, by position in their lists */
    struct seat seat;
    struct device *device;
    const struct kernel *const *chosen; /* [S_COUNT] NULL: the registry picks */
    int schedules;       /* runs of every launch, each under another schedule (schedules.h); 0 and 1: one */
    struct watch *watch; /* told of every launch; NULL: nobody */
    struct device_buffer copy[MAX_STAGE_IO], out[MAX_STAGE_IO], scratch;
    struct device_buffer whole;             /* a weight that is the store's, too */
    bool lent;                              /* to a store */
    struct device_buffer *in[MAX_STAGE_IO]; /* of the stage at hand: a copy, or the whole */
};
void kernel_seat_open(struct kernel_seat *seat, struct device *device, const struct kernel *const *chosen,
                      int schedules);
void kernel_seat_close(struct kernel_seat *seat);
/* Room for a weight where the device has it, for a store to hold: who reads all of it, does so
 * there. Its contents are undefined. m->data stays NULL where it is too small to be worth it, or
 * another one is lent. */
struct status kernel_seat_lend(struct kernel_seat *seat, enum tensor_id id, size_t bytes, struct mapping *m);

#endif
