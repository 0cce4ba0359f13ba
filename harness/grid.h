/* grid - the cases that a run adds to those of a model, so that it shows what the model's own sizes
 * do not reach: a checked-in gallery of lines for facts about kernels, and small twins of the model.
 * Which facts there are says coverage.h. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_GRID_H
#define HARNESS_GRID_H

#include "harness/case.h"

/* What every case of the grid is handed to; an error ends it. */
struct grid_taker {
    struct status (*take)(struct grid_taker *taker, const struct check_case *c, const struct model *model);
};
struct status grid_gallery(struct grid_taker *taker);
/* Layers of the model's own kinds, flags and ratios, with few channels: H / G and at most 4 kv heads;
 * E, K, groups and scores as they are. `name`: a preset or a path. Rows of the template that the
 * model cannot be cut to are left out. */
struct status grid_twins(const char *name, struct grid_taker *taker);

/* ---- what the lines have to meet beside the facts: every pair of values of two axes ---- */

enum { GRID_AXES = 18, GRID_VALUES = 6 };
struct grid_axis {
    const char *name;
    enum part part; /* of the cases that it is about: attention, or an ffn with experts */
    int (*value)(const struct check_case *c, const struct layer_spec *spec); /* a number of the values */
    const char *values[GRID_VALUES];                                         /* ended by NULL */
};
extern const struct grid_axis grid_axes[GRID_AXES];
struct grid_pairs {
    bool met[GRID_AXES][GRID_VALUES][GRID_AXES][GRID_VALUES]; /* axis a, value, axis b > a, value */
};
/* May the two values stand in one case? */
bool grid_can_meet(int a, int va, int b, int vb);
/* Adds the pairs of a case; returns how many of them are new. */
int64_t grid_pairs_add(struct grid_pairs *pairs, const struct check_case *c, const struct layer_spec *spec);

#endif
