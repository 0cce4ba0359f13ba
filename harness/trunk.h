/* trunk - the whole, unsharded run that a group of cases shares: a crew of one. Its stored outputs,
 * and the reference's values and bounds of the stage at hand. It is judged here (kernel edge);
 * ranks are judged against it (ranks.h). */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_TRUNK_H
#define HARNESS_TRUNK_H

#include "fixtures/fixture.h"
#include "fixtures/weights.h"
#include "harness/answer.h"
#include "harness/inspect.h"
#include "harness/judge.h"
#include "harness/kernel_seat.h"
#include "harness/trend.h"
#include "harness/world.h"

struct trunk {
    struct check_case c; /* tp = ep = 1 */
    int64_t layer;
    const struct fixture *fixture; /* NULL: filled */
    struct weights *weights;       /* of the model's checkpoint; NULL: filled, too */
    struct fill fill;
    struct spread spread; /* of the values that it is made with */
    struct batch batch;
    struct store store; /* what the stage at hand reads */
    struct crew crew;   /* of one rank, which owns `store` */
    struct kernel_seat kernels;
    struct world_seat world;
    const struct mutant *mutant;    /* seeded into the run; NULL: none */
    bool mistaken;                  /* it changed a call */
    const struct inspection *print; /* NULL: nothing */
    struct watch *watch;            /* NULL: nobody */

    /* of the stage at hand */
    struct outcome outcome; /* what was stored moves into `store` when the stage is done */
    struct answer answer;
    struct edge_result edge; /* kernel edge */
    double seconds_reference;
    struct findings findings; /* of the kernel edge, over all stages */
    char likely[400];         /* of the first stage that fails: the mistake that reproduces it */
    char read[200];           /* of the same: what it has read, under fill=tags */
    char resembles[200];      /* and what its wrong values look like */
    struct fact_set facts;    /* that its calls met, over all stages */
    char inexact[300];        /* the fill's answers are not what it says: the cases are skipped */
    char unsupported[500];    /* no kernel for a stage: the cases are skipped */
    int fused_end;            /* stages up to here were done by a fused kernel */
    bool declined;            /* no fused kernel takes this call: the stages it stands for run one by one */

    /* What partial sums add up to (double, by tensor): the stage at hand on the unrounded values of
     * its partial operands, y and sum of magnitudes; those that another stage goes on from are kept
     * in `exact` and `exact_s1`. */
    double *sum_y, *sum_s1; /* of the stage at hand; NULL: the answer's own */
    struct store exact, exact_s1;
};

/* `fault`: a mistake that everybody makes (crew.h); NULL: none. */
void trunk_open(struct trunk *trunk, const struct check_case *c, const struct model *model,
                const struct fixture *fixture, struct device *device, const struct mutant *fault);
/* The weights of a checkpoint instead of made ones; NULL: none. */
void trunk_use_weights(struct trunk *trunk, struct weights *weights);
bool trunk_has_stage(const struct trunk *trunk, int stage);
/* Who fills this stage, here and on every rank. */
struct seat *trunk_seat(struct trunk *trunk, int stage);
/* Inputs, outputs, reference, verdict; or trunk->declined, and nothing happened. The ranks then
 * read `store` and are compared with the outcome. */
struct status trunk_stage(struct trunk *trunk, int stage);
/* The outputs become the inputs of what follows, NaN, infinity and poison of a failed stage as the
 * reference's values; weights and answers are given back. */
void trunk_stage_done(struct trunk *trunk, int stage);
void trunk_close(struct trunk *trunk);

#endif
