/* oracle - the reference held against somebody else's numbers: stage by stage on the file's own
 * unquantised inputs, under a contract that says which steps its producer rounded to float32. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_ORACLE_H
#define HARNESS_ORACLE_H

#include "harness/trunk.h"

/* Hears of every tensor of the file that was judged: the values, and the bounds E of its acceptance sets. */
struct oracle_listener {
    void (*judged)(struct oracle_listener *listener, int stage, enum tensor_id id, const double *values,
                   const double *e, int64_t count);
};
/* Every tensor of the trunk's part that the file brings is judged, those of its ranks too; tensors it
 * does not bring are computed on the way, those between the steps of a fused kernel with that kernel's
 * op. Of a file without activations nothing is judged: the edge stays "not run", and the case does not
 * pass. listener: NULL: nobody. */
struct status oracle_edge_run(const struct fixture *fixture, const struct trunk *trunk,
                              struct edge_result edges[S_COUNT], struct findings *findings,
                              struct oracle_listener *listener);

#endif
