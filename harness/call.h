/* call - from a stage and its operands to the op's arguments. The same binding serves the trunk (the whole layer) and a
 * rank (its local layer): only the spec and the views differ. This is the model code under proof by the plan edge. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CALL_H
#define HARNESS_CALL_H

#include "harness/batch.h"
#include "layer/plan.h"
#include "layer/ops.h"

/* Views of a stage's tensors by id; data == NULL where the layer has no such tensor. */
struct operands {
    struct view in[T_COUNT], out[T_COUNT];
};
/* rank: whose experts and rows; local: plan_local_spec of it. OP_SUM is bound by the world, not here. */
void call_bind(struct call *call, const struct stage_row *stage, const struct layer_spec *local,
               const struct shard_plan *plan, int rank, const struct batch *batch,
               const struct operands *operands);

/* Strides of a tensor that lies dense at `data` with `count` elements: the shape its op expects ([T, H, D], ...). */
struct view view_dense(const struct shard_plan *plan, enum tensor_id id, int rank, void *data,
                       enum dtype dtype);

#endif
