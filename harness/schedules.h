/* schedules - the numbered orders in which the host device can run the threads of a launch. A
 * correct kernel stores the same bits under all of them; one that does not has a race, and a GPU
 * will show it one day. Number 0 is the plain run. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_SCHEDULES_H
#define HARNESS_SCHEDULES_H

#include "harness/judge.h"
#include "harness/seat.h"
#include "kernels/simt/simt_options.h"

/* The same number is the same schedule, always: 0..11 are every order with every asynchrony, later
 * ones more seeds of the random orders. number < MAX_SCHEDULES (options.h). */
struct simt_options schedule_numbered(int number);
/* "order random lanes, async eager, seed 3" */
void schedule_describe(int number, char *text, size_t size);

/* Did a stage store other bits? */
bool schedule_differs(const struct stage_row *stage, const struct store *first, const struct store *again);
/* Fails the edge where result->schedule is set, element by element; `of` says whose result it is
 * (id, dtype, got and count are filled in here). */
void schedule_judge(const struct outcome *result, const struct judged *of, struct edge_result *edge,
                    struct findings *findings);

#endif
