/* crew - the ranks that run the stages of one plan together, and what they hold. The unsharded run
 * is a crew of one, a case a crew of tp; the oracle and the chain are crews that compute in double.
 * Where a stage of a rank stands (`placed`), the sizes and values of its operands follow from
 * here. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CREW_H
#define HARNESS_CREW_H

#include "harness/call.h"
#include "harness/mutate.h"
#include "harness/store.h"

struct crew {
    struct layer_spec spec; /* the whole layer */
    enum part part;
    const struct batch *batch;
    struct shard_plan plan;     /* the true one: slices are cut and judged by it */
    enum dtype storage;         /* DTYPE_F64: whatever is no integer is double */
    enum layout layout;         /* of q, k and v on a device */
    bool unsharded;             /* the whole layer itself, not rank 0 of a case with tp = 1 */
    struct store *whole;        /* inputs, weights, indices and what is not cut; a rank slices from it ... */
    struct store *own;          /* [tp] ... what it has not stored itself */
    struct store *radius;       /* [tp] how far own is off, double; NULL: exact */
    struct store *whole_radius; /* the same of `whole`; NULL: exact */
    const struct mutant
        *fault; /* a mistake that everybody makes, the reference too: what only the chain can see */
};
/* Plan and sizes for tp ranks in ep groups. `whole` and `own` are the caller's. */
void crew_open(struct crew *crew, const struct layer_spec *spec, enum part part, const struct batch *batch,
               int64_t tp, int64_t ep);
/* The index tensors and the rope table into `whole`; the table in `table_dtype`. */
void crew_indices(struct crew *crew, enum dtype table_dtype);
/* Is it an input or a weight that no stage makes and nobody has put into `whole` yet? */
bool crew_lacks(const struct crew *crew, enum tensor_id id);
/* After routing: who holds which sorted rows, from ids [T, K] (those that no expert has belong to
 * nobody). */
void crew_count_rows(struct crew *crew, const int32_t *ids);

struct placed {
    const struct crew *crew;
    int stage; /* enum stage_id */
    int rank;
};
static inline const struct stage_row *placed_row(const struct placed *at) { return &stage_table[at->stage]; }
struct layer_spec placed_local(const struct placed *at); /* the layer as the rank sees it */
int64_t placed_count(const struct placed *at, enum tensor_id id);
enum dtype placed_dtype(const struct placed *at, enum tensor_id id);
/* The dense slice this rank starts from, into `dst`; placed_stored: without a copy, or NULL where
 * it must be cut. */
void placed_dense(const struct placed *at, enum tensor_id id, void *dst);
void *placed_stored(const struct placed *at, enum tensor_id id);
/* The stage's call with these operands. A mutant (NULL: none) makes its mistake in it; returns
 * whether that changed it. */
bool placed_bind(const struct placed *at, const struct mutant *mutant, const struct operands *operands,
                 struct call *call);

/* What every rank stored for a sum, as parts in rank order. parts [MAX_PARTS]; returns how many. */
enum { MAX_PARTS = 2 * MAX_RANKS };
int64_t placed_parts(const struct placed *at, struct view *parts, const double **radii);

/* A stage's outputs move into the rank's own tensors (`all`; ids count the rows that follow), or only
 * those that are nobody else's: partial and local ones. What is left in `got` stays the caller's. */
void crew_keep(struct crew *crew, int stage, int rank, struct store *got, bool all);

#endif
