/* work - how long is a case going to take? In multiply-adds of the unsharded layer, from sizes alone:
 * for what may run beside what, for shares of a run and the time that is left; no verdict hangs on it. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_WORK_H
#define HARNESS_WORK_H

#include "harness/case.h"

/* Of the trunk and the ranks of one case together: twice the layer. */
double case_work(const struct check_case *c, const struct model *model);

#endif
