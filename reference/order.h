/* order - in which order did a product sum? Where a contract does not say, a table of orders is
 * replayed (replay.h) on a sample of the output: one that gives all its bits is what ran there. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_ORDER_H
#define REFERENCE_ORDER_H

#include "reference/reference.h"

/* One row of the table, for a sum of so many terms: steps of one kind, K whole or in slices that are
 * added up in fp32 as they end. */
struct order {
    struct contract contract; /* OP_LINEAR, in_order: what ref_replay takes */
    char name[72];            /* "3 slices of 3072, tensor core, 16 a step, 25 bits (sm_90)" */
};

/* What a sample says: every corner and a few elements of every tile of 64 x 128 or, of more than
 * ORDER_TILES (fewer where sums are long), of as many spread evenly; and where those do not tell,
 * elements that do. */
enum { ORDER_TILES = 256, ORDER_TELLING = 24 };
struct order_found {
    bool found; /* the order below gives all sampled bits, and that says something */
    struct order order;
    int64_t sampled; /* elements */
    int64_t telling; /* of them: not the exact sum rounded, which is what many orders give. With fewer than
                        ORDER_TELLING none is tried */
};
/* `call`: OP_LINEAR of one group, on the host, `out` included; its contract otherwise as declared.
 * Where several orders give all bits, the one with the widest bound. */
void order_find(const struct call *call, const struct contract *declared, struct order_found *out);

#endif
