/* oracle_ranks - the ranks of a file that brings them (`--dump FILE --ranks`): what each stored, by the
 * reference on its slices of what the file shows whole. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_ORACLE_RANKS_H
#define HARNESS_ORACLE_RANKS_H

#include "fixtures/fixture.h"
#include "harness/stage.h"
#include "harness/trunk.h"

struct oracle_ranks {
    const struct fixture *fixture;
    const struct trunk *trunk;
    struct crew crew;  /* plan.tp 0: the file brings no ranks */
    struct store *own; /* [tp] */
    struct desk desk;
};
/* `whole`: the file's tensors in double; outlives the ranks. */
struct status oracle_ranks_open(struct oracle_ranks *ranks, const struct fixture *fixture,
                                const struct trunk *trunk, struct store *whole);
void oracle_ranks_close(struct oracle_ranks *ranks);

struct oracle_step {
    int stage;
    struct contract contract;
    bool judgeable; /* the file shows what the stage read */
    bool shows_qk;  /* its q and k are those of this stage */
    enum dtype stored;
    struct verdict verdict;
};
/* While `whole` holds what the stage reads, before what it makes replaces it. */
struct status oracle_ranks_stage(struct oracle_ranks *ranks, const struct oracle_step *step);

#endif
