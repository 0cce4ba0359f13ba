/* ranks - one case of a group: a crew whose ranks run the stage on their slices of the trunk and
 * are judged against it (plan and shard edges). */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RANKS_H
#define HARNESS_RANKS_H

#include "harness/trunk.h"

struct ranks {
    const struct check_case *c;
    const struct mutant *mutant; /* seeded into every rank; NULL: none */
    struct dump *dump;           /* where to write what they store; NULL: nowhere */
    bool mistaken;               /* it changed a call, of whichever rank */
    struct crew crew;
    struct store *own;                   /* [tp] partial and local tensors of every rank */
    struct store *exact;                 /* [tp] as in trunk.h */
    struct edge_result edge[EDGE_COUNT]; /* of the stage at hand */
    double seconds_kernel, seconds_reference;
    struct findings findings;
    char likely[400], resembles[200];
    struct fact_set facts; /* that the ranks' calls met */
    char read[200];        /* under fill=tags: what the first stage that fails has read */
    char unsupported[500]; /* no kernel takes a rank's call: the case is skipped */
};

void ranks_open(struct ranks *ranks, const struct check_case *c, const struct mutant *mutant,
                struct trunk *trunk);
/* Has every rank a kernel for a fused stage? Asked before anybody runs it: the ranks and the trunk
 * take the same steps. */
bool ranks_accept(struct ranks *ranks, const struct trunk *trunk, int stage);
/* After trunk_stage of the same stage; the trunk's seats serve everybody in turn. */
struct status ranks_stage(struct ranks *ranks, struct trunk *trunk, int stage);
void ranks_close(struct ranks *ranks);

#endif
