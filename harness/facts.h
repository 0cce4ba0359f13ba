/* facts - what a command line has to know of a fixture, or of dumps to be judged, before anything runs. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_FACTS_H
#define HARNESS_FACTS_H

#include "fixtures/model.h"
#include "harness/run.h"

struct facts {
    struct model model;
    int64_t n_tokens;
    bool layer[MAX_LAYERS][PART_COUNT]; /* does a fixture bring that part's input, a dump something of it? */
    int64_t tp, ep;                     /* of dumps */
    char unread[400];                   /* the names in dumps that say nothing here (recording_unread) */
};
/* Is what is to be judged one HDF5 file of docs/fixtures.md? */
bool judge_is_fixture(const struct judge_wish *judge);
/* Opens what the request judges, else its fixture; reads and closes it again. */
struct status facts_read(const struct run_request *request, struct facts *out);

#endif
