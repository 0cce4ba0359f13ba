/* worker - runs the code under test for another process, trunk after trunk, and tells it what
 * happens. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORKER_WORKER_H
#define HARNESS_WORKER_WORKER_H

/* Where a program that was started as a worker finds its two ends. */
enum { WORKER_IN = 3, WORKER_OUT = 4 };
#define WORKER_OPTION "--worker"
enum { EXIT_UNHEARD = 113 }; /* nobody hears what the worker says: its descriptor is gone */

/* Answers the requests of `in` on `out` until `in` is closed; ends with the process `parent`. The exit
 * status. */
int worker_run(int in, int out, int parent);

#endif
