/* death - why a worker is gone, whose fault that is, and how to say it. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORKER_DEATH_H
#define HARNESS_WORKER_DEATH_H

#include <stddef.h>

#include "harness/watch.h"

enum end {
    END_DIED,      /* by itself: wait_status */
    END_TIMEOUT,   /* a launch did not come back, or the reference stood still: seconds */
    END_MEMORY,    /* took more than it may: gib */
    END_FORKED,    /* another process answered in its place */
    END_GARBAGE,   /* something else than answers came out of it */
    END_MISCOUNTED /* it says that it is done and has not sent every result */
};

struct death {
    enum end end;
    int wait_status;
    double seconds, gib;
    struct step step;   /* the last one announced */
    struct step launch; /* the last launch of the trunk; who "": none yet */
    const char *words;  /* what it printed last */
};

/* Is it the code under test that is to blame? Then the case has failed. */
bool death_is_kernels(const struct death *death);
/* One line: who, what, where; with what it printed last. */
void death_describe(const struct death *death, char *text, size_t size);

#endif
