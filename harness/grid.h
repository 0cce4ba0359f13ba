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

#endif
