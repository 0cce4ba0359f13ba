/* call - from a stage and its operands to the op's arguments. The same binding serves the whole
 * layer and a rank's part of it: only the plan and the views differ. This is the model code under
 * proof by the plan edge. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CALL_H
#define HARNESS_CALL_H

#include "harness/batch.h"
#include "layer/ops.h"
#include "layer/plan.h"

/* A stage of a rank, as far as its sizes go. */
struct setting {
    int stage; /* enum stage_id */
    int rank;
    const struct layer_spec *spec; /* the whole layer */
    const struct shard_plan *plan;
    const struct batch *batch;
};

/* Views in the order of the stage's row; data == NULL where the layer has no such tensor. */
struct operands {
    struct view in[MAX_STAGE_IO], out[MAX_STAGE_IO];
    const struct view *part; /* a sum: what every rank brings */
    int64_t n_parts;
};
void call_bind(struct call *call, const struct setting *setting, const struct operands *operands);

/* A tensor of a rank (< 0: whole) that lies dense at `data`: strides of its axes, span of its
 * elements. */
struct view view_dense(const struct shard_plan *plan, enum tensor_id id, int rank, void *data,
                       enum dtype dtype);

/* The call without data, for questions about its sizes: views dense at an address that may not be
 * read. */
void call_sketch(struct call *call, const struct setting *setting, enum dtype storage);

#endif
