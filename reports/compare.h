/* compare - what has changed from one run to another, worst first. */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_COMPARE_H
#define REPORTS_COMPARE_H

#include <stdio.h>

#include "reports/result.h"

/* The largest ratio new / old that does not count as worse; 0: any is shown only. */
struct compare_wish {
    double margin; /* of every edge of every stage */
    double time;   /* of the seconds of all cases that both runs have */
};

struct comparison {
    int64_t n_worse;             /* cases that fail, or are skipped, as they did not before */
    int64_t n_waived;            /* cases whose failure is waived, as it was not */
    int64_t n_better;            /* cases that pass now */
    int64_t n_gone, n_new;       /* cases that only one of the runs has */
    int64_t n_less;              /* cases of which less was judged: a stage, an edge, elements */
    int64_t n_lost, n_gained;    /* facts of coverage that some case met */
    int64_t n_grown, n_shrunk;   /* margins */
    int64_t n_beyond;            /* of the grown: by more than was wished */
    double seconds_a, seconds_b; /* of the cases that both have */
    bool slower;                 /* by more than was wished */
    bool identical;              /* all that was measured but times; so neither version nor device counts */
    bool worse;                  /* the verdict: any of worse, gone, less, lost, beyond, slower */
};
/* From a to b, into file. Cases are paired by their lines. */
struct comparison report_compare(FILE *file, const struct run_result *a, const struct run_result *b,
                                 const struct compare_wish *wish);

#endif
