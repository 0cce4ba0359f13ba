/* dump_side - one of two fixture files that are compared: a part of a layer of it, and its tensors whole,
 * of one rank, or put together of all ranks. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_DUMP_SIDE_H
#define HARNESS_CLI_DUMP_SIDE_H

#include "fixtures/fixture.h"
#include "harness/findings.h"
#include "harness/trunk.h"

/* One file, at one part of one layer. */
struct side {
    const char *path, *letter;
    struct fixture *fixture;
    int64_t tp, ep; /* of its ranks; 0: it has none */
    struct trunk trunk;
    struct crew crew; /* its ranks' layout; without one, of the whole layer */
    struct edge_result edge[S_COUNT];
    struct findings findings;
    struct status judged; /* why it could not be */
};
/* letter: what reports call it. The caller closes fixture, after an error too. */
struct status side_open(struct side *side, const char *letter, const char *path);
/* The caller closes trunk, after an error too. */
struct status side_begin(struct side *side, int64_t layer, enum part part);

/* Values dense, to be freed; *out NULL: the file has none. */
struct status side_whole(const struct side *side, enum tensor_id id, double **out);
struct status side_rank(const struct side *side, enum tensor_id id, int rank, double **out);

/* What ranks hold, put together: slices side by side, partial sums added. */
struct merged {
    double *values;
    bool *seen;
    int conflict; /* the rank that holds other bits than one before it; -1: none */
};
/* values NULL: some rank's is missing, but for those that store none. */
struct status side_merged(const struct side *side, enum tensor_id id, struct merged *out);

#endif
