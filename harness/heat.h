/* heat - how many of the judged elements are wrong, along two axes of a tensor and by rank: what a
 * report draws. The rows are the tensor's first axis, the columns the one that ranks share out
 * (where none is, the second); the others are counted together. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_HEAT_H
#define HARNESS_HEAT_H

#include "layer/plan.h"
#include "reports/result.h"

/* One tensor, as kernels stored it or as the reference has it; counts of elements. */
struct heat {
    enum tensor_id id;
    bool stored;
    int row, col;               /* which axes; col -1: there is but one */
    struct map_axis rows, cols; /* of the whole tensor */
    int64_t col_first[3];       /* where the blocks of the columns' axis begin */
    int n_ranks;                /* 0: the unsharded run */
    uint32_t judged[MAP_CELLS][MAP_CELLS], wrong[MAP_CELLS][MAP_CELLS]; /* [rows.cells, cols.cells] */
    int64_t rank_judged[MAX_RANKS], rank_wrong[MAX_RANKS];
};
/* The outputs of one stage. */
struct heats {
    int n;
    struct heat of[8]; /* no stage has more; what finds no room is not counted */
};
/* Whose part of which tensor; rank < 0: of the whole tensor. */
struct heat_part {
    const struct shard_plan *plan;
    enum tensor_id id;
    int rank;
    bool stored;
};
/* `count` elements of it from `first` on, whole rows or less than one. */
void heat_judge(struct heats *heats, struct heat_part part, int64_t first, int64_t count);
void heat_blame(struct heats *heats, struct heat_part part, const struct place *place);
/* The one with most that is wrong, the first of equals; empty where nothing is. */
void heat_draw(const struct heats *heats, struct heat_map *out);

#endif
