/* How does the engine say what it does next? */
/* SPDX-License-Identifier: MIT */
#include "harness/watch.h"

#include <stddef.h>

struct status watch_step(struct watch *watch, enum doing doing, int stage, int rank, double work,
                         const char *who) {
    if (!watch) return status_ok();
    if (watch->stop.code || !watch->step) return watch->stop;
    return watch->step(watch, &(struct step){doing, watch->case_index, stage, rank, work, who});
}

void watch_beat(struct watch *watch) {
    if (watch && watch->beat && !watch->stop.code) watch->stop = watch->beat(watch);
}
