/* facts - what a command line has to know of a fixture before anything runs. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_FACTS_H
#define HARNESS_FACTS_H

#include "fixtures/model.h"

struct facts {
    struct model model;
    int64_t n_tokens;
    bool layer[MAX_LAYERS][PART_COUNT]; /* does the file bring that part's input? */
};
/* Opens the file, reads and closes it again. */
struct status facts_read(const char *path, struct facts *out);

#endif
