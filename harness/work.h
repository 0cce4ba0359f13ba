/* work - how long are cases going to take? In multiply-adds of the unsharded layer, from sizes alone: for
 * what may run beside what, for shares of a run and the time that is left; no verdict hangs on it. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORK_H
#define HARNESS_WORK_H

#include "harness/run.h"

/* [n_cases], to be freed: of a case together with its share of the trunk, twice the layer. A fixture's
 * sizes are not looked at: all its cases count the same, and as large. */
double *request_work(const struct run_request *request);

#endif
