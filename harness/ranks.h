/* ranks - one case of a group: its ranks run the stage on their slices of the trunk and are judged against it (plan and
 * shard edges). */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RANKS_H
#define HARNESS_RANKS_H

#include "harness/trunk.h"

struct ranks {
    const struct check_case *c;
    const struct mutant *mutant;
    struct shard_plan plan;
    struct store *own;                   /* [tp] ROLE_LOCAL and ROLE_PARTIAL tensors of every rank */
    double **exact_down;                 /* [tp] as in trunk.h */
    struct seat *seat;                   /* the trunk's: one set of warm buffers serves everybody in turn */
    struct edge_result edge[EDGE_COUNT]; /* of the stage at hand */
    double seconds_kernel, seconds_reference;
    struct findings findings;
    char likely[400];
    char unsupported[500]; /* no kernel takes a rank's call: the case is skipped */
};

void ranks_open(struct ranks *ranks, const struct check_case *c, const struct mutant *mutant,
                struct trunk *trunk);
/* Has every rank a kernel for a fused stage? Asked before anybody runs it: the ranks and the trunk take the same steps. */
bool ranks_accept(struct ranks *ranks, const struct trunk *trunk, int stage);
/* After trunk_stage of the same stage. */
struct status ranks_stage(struct ranks *ranks, const struct trunk *trunk, int stage);
void ranks_close(struct ranks *ranks);

#endif
