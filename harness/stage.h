/* stage - the verdicts of one stage of one rank, whoever filled it: how it ran, what it stored
 * against the answer, and what the answer leaves open. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_STAGE_H
#define HARNESS_STAGE_H

#include "harness/answer.h"
#include "harness/judge.h"

/* Where a verdict goes. */
struct verdict {
    struct edge_result *edge;
    struct findings *findings;
};

/* One tensor of the stage, whose coordinates follow `id`. */
struct judged placed_judged(const struct placed *at, enum tensor_id id, const void *got, int64_t count);

/* An error, a damaged guard, a written input. */
void judge_running(const struct placed *at, const struct outcome *o, struct verdict v);
/* Other bits under another schedule, after everything else about the outcome. `right`: what the
 * plain schedule stored is, so bits must stay; if not, the findings say what the other one makes of
 * it. */
void judge_schedule(const struct placed *at, const struct outcome *o, const struct answer *a, bool right,
                    struct verdict v);
/* Every element of the answers in its acceptance set. */
void judge_answer(const struct placed *at, const struct outcome *o, const struct answer *a, struct verdict v);
/* The same of a sum over all ranks: a wrong element is no single one's. */
void judge_sum(const struct placed *at, const struct outcome *o, const struct answer *a, struct verdict v);
/* Routing of the whole layer: the ids as sets that the scores allow. Nothing for other ops. */
void judge_choice(const struct placed *at, const struct outcome *o, struct verdict v);
/* What only this call can say: index tensors of its own rows, cache slots that it may not touch.
 * Nothing for other ops. */
void judge_own(const struct placed *at, const struct outcome *o, struct verdict v);

#endif
