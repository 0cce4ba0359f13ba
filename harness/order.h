/* order - where a kernel declares the order of its sums, is what it stored what that order gives? The
 * sharpest of the verdicts: one value, or a set that sums have no part in (reference/replay.h). */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_ORDER_H
#define HARNESS_ORDER_H

#include "harness/stage.h"

/* After judge_answer, of an edge that is all right so far. Nothing where no order is declared. */
void judge_order(const struct placed *at, const struct outcome *o, const struct answer *a, struct verdict v);

#endif
