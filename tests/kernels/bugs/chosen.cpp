/* chosen - which of the mistakes in the kernels this run makes: the one that SHARDCHECK_BUG names, none
 * where it is not set (kernels/lang/seeded.h). */
/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#define SEEDED_AT_RUN
#include "kernels/lang/seeded.h"

static const char *name() {
    const char *bug = getenv("SHARDCHECK_BUG");
    return bug ? bug : "";
}

const uint64_t seeded_chosen = seeded_number(name());
