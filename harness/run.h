/* run - cases in, results out. Cases that differ only in their rank counts share one trunk. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RUN_H
#define HARNESS_RUN_H

#include "harness/case.h"
#include "harness/device_sums.h"
#include "harness/inspect.h"
#include "harness/mutate.h"
#include "harness/watch.h"
#include "reports/result.h"

enum { MAX_SCHEDULES = 64 };

/* What somebody else's run left behind, to be judged in the place of kernels (recorded.h). */
struct judge_wish {
    const char *const *dump; /* [n_dumps] files and folders */
    int n_dumps;             /* 0: kernels run */
    const char *model;       /* a folder, or a config.json; NULL: as the dump says */
    const char *contract;    /* of the producer (layer/producers.h); NULL: as its names say */
    bool only[S_COUNT];      /* stages to be judged; none: all */
    double most_work;        /* multiply-adds of a step up to which all tokens are judged; 0: as usual */
    char unread[400];        /* names in the dumps that say nothing here; reports show it */
};

/* What the engine is asked for. Nothing here knows a command line; everything is the caller's. */
struct run_request {
    const struct check_case *cases; /* checked (case_check) */
    int64_t n_cases, n_grid;        /* the last n_grid are the grid's (grid.h) */
    const char *fixture_path;       /* NULL: none */
    const char *dump_path;          /* written in place; NULL: none */
    const char *dump_name;          /* what messages call it; NULL: dump_path */
    struct judge_wish judge;
    bool dump_ranks; /* what every rank stored, too */
    const struct mutant *mutant;
    const struct mutant
        *fault; /* a mistake of the harness itself, in everybody's calls: tests of the chain edge */
    enum sums_place reference;      /* who adds up its products */
    int schedules;                  /* of every launch, the plain one included; 0 and 1: no repetition */
    const struct inspection *print; /* what to show of the case; NULL: nothing. In this process only */
    struct watch *watch;            /* told what happens; NULL: nobody */
    char quantised[32];             /* the quantisation that a model has and no case here; "": none */
    const char *repro; /* what a repro line needs besides the case, " --mutant NAME"; NULL: nothing */
};

struct run_output {
    struct run_result result;
    struct case_result *cases;            /* [n] */
    char device_label[320], command[400]; /* the label ends in what all cases leave out */
    struct fact_count fact[MAX_FACTS];
    struct status dump;    /* an error: the dump is not there, but all cases have their results */
    struct status trouble; /* what kept cases from being run, that is no defect of theirs */
};
/* In this process, one trunk after the other. A status is something that kept the run from
 * happening at all (no device, unreadable fixture): nothing is reported. */
struct status run_cases(const struct run_request *request, struct run_output *out);
void run_output_free(struct run_output *out);

/* ---- for whoever runs them elsewhere (harness/worker) ---- */

/* Cases from `first` on that share its trunk. */
int64_t request_group(const struct run_request *request, int64_t first);
/* [n_cases], to be freed: an earlier case that does the very same, whose verdict serves both; -1: there
 * is none. A group repeats another as a whole or not at all; where a dump is written, never. */
int64_t *request_repeats(const struct run_request *request);
/* The verdict of `of` for a case that does the same. */
void result_repeat(struct case_result *result, const struct case_result *of);
/* One result a case, with its line and repro. */
void run_output_open(struct run_output *out, const struct run_request *request);
/* On which device, and without what; tells the watch. */
void run_output_label(struct run_output *out, const struct run_request *request, const char *device);
void run_output_count(struct run_output *out, const struct run_request *request, double seconds);
/* One more verdict among those of the run. */
void run_result_add(struct run_result *all, const struct case_result *result);
/* The code under test ended, or had to be ended. stage -1: nowhere in particular. */
void result_blame(struct case_result *result, int stage, int rank, int64_t n_ranks, const char *reason);
/* It failed, and the run that was to tell what it had read ended so. */
void result_unread(struct case_result *result, const char *why);
/* A bound that could explain anything proves nothing: where an edge is loose the case has not passed. */
void result_skip_loose(struct case_result *result);
void result_not_run(struct case_result *result, const char *why);

#endif
