/* trend - are the values that a stage stored right together, where each of them is in its set? The
 * statistical test (reference/score.h), and what its report becomes. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_TREND_H
#define HARNESS_TREND_H

#include "harness/answer.h"

/* What is known of the values that a run is made with. */
struct spread {
    bool lattice;      /* few places in a cell of the storage format */
    bool random_signs; /* of the weights, one by one */
};

struct verdict; /* stage.h */
/* After the elements have been judged. */
void judge_trend(const struct placed *at, const struct outcome *o, const struct answer *a,
                 struct spread spread, struct verdict v);
#endif
