/* oracle - the reference held against somebody else's numbers: stage by stage on the file's own
 * unquantised inputs, under a contract that says which steps its producer rounded to float32. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_ORACLE_H
#define HARNESS_ORACLE_H

#include "harness/trunk.h"

/* Every tensor of the trunk's part that the file brings is judged; tensors it does not bring are
 * computed on the way, those between the steps of a fused kernel with that kernel's op. Of a file
 * without activations nothing is judged: the edge stays "not run", and the case does not pass. */
struct status oracle_edge_run(const struct fixture *fixture, const struct trunk *trunk,
                              struct edge_result edges[S_COUNT], struct findings *findings);

#endif
