/* store - tensors of a run as dense host arrays: what the trunk stored, and what each rank stored
 * of its own. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_STORE_H
#define HARNESS_STORE_H

#include "harness/memory.h"
#include "layer/layer.h"

struct stored {
    struct mapping memory;
    enum dtype dtype;
    int64_t count; /* elements; 0: nothing stored */
};
struct store {
    struct stored of[T_COUNT];
};

/* Room for a tensor, its old version dropped; contents zero. A tensor of no elements counts as
 * stored nowhere. */
void *store_renew(struct store *store, enum tensor_id id, enum dtype dtype, int64_t count);
/* The same with anything in it, for who writes all of it. */
void *store_new(struct store *store, enum tensor_id id, enum dtype dtype, int64_t count);
void store_drop(struct store *store, enum tensor_id id);
void store_free(struct store *store);
/* Takes a tensor over; an old version is dropped. */
void store_move(struct store *into, struct store *from, enum tensor_id id);

/* Values as they are stored in a dtype, each rounded once; to be freed. */
void *store_rounded(const double *values, int64_t count, enum dtype dtype);

#endif
