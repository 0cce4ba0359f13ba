/* watch - who is told what the engine is about to do and what came out of it: a line on a terminal,
 * or the process that will have to say what this one died of. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WATCH_H
#define HARNESS_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "layer/status.h"
#include "reports/result.h"

/* Whose code runs next. */
enum doing { DOING_REFERENCE, DOING_KERNEL, DOING_FILE, DOING_COUNT };

struct step {
    enum doing doing;
    int64_t case_index; /* of the request; of the unsharded run: the first case of its trunk */
    int stage;          /* enum stage_id; -1: between stages */
    int rank;           /* -1: the unsharded run */
    double work;        /* multiply-adds of a kernel's launch; 0: not known */
    const char *who;    /* the kernel, the file, "chain" ...; valid during the call */
};

/* Every function may be NULL. */
struct watch {
    /* Before the first case: the device's label. */
    void (*device)(struct watch *watch, const char *label);
    /* Before it happens. An error ends the run. */
    struct status (*step)(struct watch *watch, const struct step *step);
    /* Time has passed: the reference has got on, or somebody waits. An error is that of the next step. */
    struct status (*beat)(struct watch *watch);
    /* Case i of the request is settled. */
    void (*result)(struct watch *watch, int64_t i, const struct case_result *result);
    /* Case i is judged; what comes before it is settled only adds to what is said of it. If that
     * ends in a crash, this stands. */
    void (*judged)(struct watch *watch, int64_t i, const struct case_result *result);

    bool gives_up;      /* after a fault nothing is settled: whoever watches runs the rest elsewhere */
    int64_t case_index; /* the engine's: the case at hand */
    struct status stop; /* of a beat */
};

/* `watch` may be NULL. A step that may not happen is STATUS_STOPPED. */
struct status watch_step(struct watch *watch, enum doing doing, int stage, int rank, double work,
                         const char *who);
void watch_beat(struct watch *watch);

#endif
