/* plan - who holds what: for every rank the range of every cut axis, and the slicing that follows
 * from a tensor's placement string. Integers only. Rank r sits at position r of tp, r / etp of ep
 * and r % etp of etp. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_PLAN_H
#define LAYER_PLAN_H

#include "layer/layer.h"

enum { MAX_RANKS = 128 };

struct span {
    int64_t first, count;
};
struct shard_plan {
    int64_t tp, ep, etp;
    int64_t size[AXIS_COUNT];                /* whole axes */
    struct span rank[MAX_RANKS][AXIS_COUNT]; /* what rank r holds of an axis where the placement cuts it */
};

/* Can the part be cut over tp ranks, in ep groups? */
bool plan_fits(const struct layer_spec *spec, enum part part, int64_t tp, int64_t ep);
/* The layer's axes; tokens and the like are set by the caller in plan->size before slicing.
 * Precondition: plan_fits. tp = ep = 1 is the unsharded trunk. */
void plan_build(struct shard_plan *plan, const struct layer_spec *spec, int64_t tp, int64_t ep);
/* After routing: sorted rows of expert e are offsets[e]..offsets[e+1]. */
void plan_set_rows(struct shard_plan *plan, const int32_t *offsets);
/* The layer as rank r sees it: local head counts, experts and widths. */
struct layer_spec plan_local_spec(const struct shard_plan *plan, const struct layer_spec *spec, int rank);

/* Shape of tensor `id` on rank r (rank < 0: whole), one size an axis; returns the number of
 * axes. */
int slice_shape(const struct shard_plan *plan, enum tensor_id id, int rank, int64_t shape[MAX_AXES]);
/* The same of any placement string; whole. */
int axes_shape(const struct shard_plan *plan, const char *axes, int64_t shape[MAX_AXES]);
int64_t slice_count(const struct shard_plan *plan, enum tensor_id id, int rank);
/* part = the rank's slice of whole; elements of `bytes` bytes. */
void slice_copy(const struct shard_plan *plan, enum tensor_id id, int rank, size_t bytes, void *part,
                const void *whole);

/* And back: into its place in whole; what other ranks hold stays. */
void slice_put(const struct shard_plan *plan, enum tensor_id id, int rank, size_t bytes, const void *part,
               void *whole);

/* Where an element of a rank's slice sits: one global index an axis. */
struct place {
    int n;
    enum axis_name axis[MAX_AXES];
    int block[MAX_AXES];     /* which block of a concatenated axis */
    int64_t index[MAX_AXES]; /* within that block, global */
};
struct place slice_place(const struct shard_plan *plan, enum tensor_id id, int rank, int64_t index);

#endif
