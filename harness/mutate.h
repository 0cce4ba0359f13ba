/* mutate - known mistakes as code. A mutant can be seeded into a run (--mutant NAME) to see it caught, and is replayed on
 * the reference when a run fails: if it reproduces the wrong numbers, the report names it and its source. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_MUTATE_H
#define HARNESS_MUTATE_H

#include "harness/case.h"
#include "layer/ops.h"
#include "reports/result.h"

enum mutant_at { MUTATE_CALL }; /* later: SPEC PLAN SUM */

struct mutant {
    const char *name, *source, *describes;
    enum edge edge; /* which edge sees it */
    enum mutant_at at;
    enum part part;
    enum layout layout; /* the memory layout in which the mistake exists */
    /* Change one rank's call; `whole` is the unsharded layer, `local` the rank's. Leaves other ops alone. */
    void (*apply)(struct call *call, const struct layer_spec *whole, const struct layer_spec *local);
    const char *exposes; /* a case line in which it must be caught */
    const char *clean;   /* a case line in which it cannot be seen */
};
extern const struct mutant mutant_table[]; /* ended by a row without a name */
const struct mutant *mutant_by_name(const char *name);

#endif
