/* strays - processes that the code under test has started and that outlive the worker. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORKER_STRAYS_H
#define HARNESS_WORKER_STRAYS_H

#include <sys/types.h>

/* Orphans of workers become children of this process from here on; the children that it has are its
 * own. */
void strays_expect(void);
/* A worker: begins, and has been waited for. */
void strays_spare(pid_t worker);
void strays_forget(pid_t worker);
/* Ends every child that is neither. */
void strays_end(void);

#endif
