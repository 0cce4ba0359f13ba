/* request - the command line of `run` as typed, and its expansion into cases: lists multiply,
 * models become parts, no --tp becomes every legal one. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_REQUEST_H
#define HARNESS_CLI_REQUEST_H

#include "harness/run.h"

enum { MAX_LIST = 64, MAX_CASES = 4096 };
struct value_list {
    int n;             /* 0: the option was not given */
    const char *typed; /* the whole list, for errors */
    const char *value[MAX_LIST];
};

/* Beside models alone, without a key: a run that is meant to cover. */
enum grid_wish { GRID_AUTO, GRID_ON, GRID_OFF };

struct request {
    struct value_list key[MAX_CASE_KEYS];
    bool part[PART_COUNT], part_given;
    enum grid_wish grid;
    bool in_process;                      /* read a fixture here, not in a worker */
    const struct kernel *kernel[S_COUNT]; /* NULL: not given */
    const char **subject;                 /* [n_subjects] MODEL or CASE texts */
    int n_subjects;
};

/* Fills out->cases, to be freed after an error too; reads out->mutant, fixture_path, dump_path. */
struct status request_expand(const struct request *request, struct run_request *out);

#endif
