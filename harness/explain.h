/* explain - which known mistake reproduces a rank's wrong numbers? Every mutant is replayed on the reference's own copy of
 * the rank's call; one is named only when its result accepts every element that the rank stored. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_EXPLAIN_H
#define HARNESS_EXPLAIN_H

#include "harness/trunk.h"

struct explained {
    const struct trunk *trunk;
    enum layout layout;
    const struct layer_spec *local; /* the rank's layer */
    int stage;
    const struct call *call; /* as the rank should have been called, on host memory */
    const struct contract *contract;
    const struct store *got; /* what it stored */
};
/* Writes the mutant, its source and the margin of its replay; leaves `likely` as it is when none fits. */
void explain(const struct explained *e, char *likely, size_t size);

#endif
