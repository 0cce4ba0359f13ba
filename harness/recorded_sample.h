/* recorded_sample - which tokens of a recording are judged at the stages that are much work. All the
 * others are taken there as they were recorded. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RECORDED_SAMPLE_H
#define HARNESS_RECORDED_SAMPLE_H

#include "harness/recorded_stage.h"

#define RECORDED_WORK 4e10 /* multiply-adds of a step: half a minute on two cores */

/* Draws them where the step is more work than its source allows: the first and the last of every
 * sequence, and runs of a few from anywhere. */
void recorded_sample_draw(struct recorded_run *run);
/* After the routing: for every expert that none of them chose, a token that did. */
void recorded_sample_experts(struct recorded_run *run);
/* Is the stage of this rank computed for them alone? Not where an unrecorded key would be missed. */
bool recorded_is_sampled(const struct recorded_run *run, const struct placed *at);
/* The answer in their rows; 0 in the others, but for what was recorded there (recorded_sample_fill). */
void recorded_sample_compute(const struct recorded_run *run, const struct placed *at, const struct outcome *o,
                             struct answer *answer);
/* Values that nothing is held against, in the rows of an answer that were not computed. */
void recorded_sample_fill(const struct recorded_run *run, const double *values, int64_t count, double *y);
void recorded_sample_free(struct recorded_run *run);

#endif
