/* limits - how long and how much, where nobody says. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORKER_LIMITS_H
#define HARNESS_WORKER_LIMITS_H

#include "kernels/device/device.h"

enum { MAX_JOBS = 64 };

int machine_cores(void); /* that this process may use; at most MAX_JOBS */
/* Seconds that a launch of so many multiply-adds may take: a minute, and a hundred times what an
 * emulated kernel needs. */
double launch_limit(double work, enum device_kind device);
/* Seconds that the reference may be silent: thirty times what a beat takes. */
double reference_limit(void);
/* Resident bytes of a worker: nine tenths of what the machine has free. */
int64_t memory_limit(void);

#endif
