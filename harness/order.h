/* order - in which order does a kernel sum? Where it declares that, what it stored is held against
 * what that order gives: the sharpest of the verdicts, one value, or a set that sums have no part in
 * (reference/replay.h). Where it does not, a sample may show it. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_ORDER_H
#define HARNESS_ORDER_H

#include "harness/stage.h"

/* A product that was run, whose contract says nothing of the order of its sums, and the sample of whose
 * output shows it (reference/order.h): from here on its contract says so, bounds over contiguous
 * runs of terms. Otherwise the contract stays. What was found, or not, is said in v.edge. */
void order_learn(const struct placed *at, struct outcome *o, struct verdict v);

/* After judge_answer, of an edge that is all right so far. Nothing where no order is declared. */
void judge_order(const struct placed *at, const struct outcome *o, const struct answer *a, struct verdict v);

#endif
