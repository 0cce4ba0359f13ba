/* judge_route - the choice of experts: sets against what the scores allow. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_JUDGE_ROUTE_H
#define HARNESS_JUDGE_ROUTE_H

#include "harness/findings.h"
#include "layer/contract.h"

/* Routing: ids j->got [T, K] of a route call as sets, against intervals lo, hi [T, E] of the
 * choices. */
void judge_topk(const struct judged *j, const struct call *call, const struct contract *contract,
                const double *lo, const double *hi, struct edge_result *edge, struct findings *findings);
/* The same, with the intervals from the reference. */
void judge_route(const struct judged *j, const struct call *call, const struct contract *contract,
                 struct edge_result *edge, struct findings *findings);

/* Is the expert one of ids[0..n)? */
bool route_is_among(const int32_t *ids, int64_t n, int32_t id);

#endif
