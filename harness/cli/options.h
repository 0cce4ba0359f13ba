/* options - what was typed, and the reading of it by the rows of a command's options. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_OPTIONS_H
#define HARNESS_CLI_OPTIONS_H

#include "harness/bench.h"
#include "harness/cli/request.h"
#include "harness/cli/waivers.h"
#include "harness/worker/pool.h"
#include "layer/choices.h"
#include "reports/compare.h"
#include "reports/report.h"

struct command;

enum { MAX_MUTANTS = 256 };

struct report_target {
    const struct report_format *format;
    const char *path; /* NULL: standard output */
};
struct bench_target {
    const struct bench_format *format;
    const char *path; /* NULL: standard output */
};
enum { MAX_REPORTS = 8, MAX_BENCH_SHAPES = 64, MAX_BENCH_KERNELS = 32 };

struct options {
    const struct command *command;
    char typed[400]; /* the command line, cut */

    const struct command *topic; /* of help; NULL: all commands */
    const char *list_what;       /* of list and generate */
    const char *list_file;       /* of list tensors; else NULL */
    enum device_kind device;     /* of probe and bench */
    bool only[MAX_MUTANTS];      /* of mutants: by row */
    bool json;                   /* of mutants */
    const char *compared[2];     /* of compare: files */
    struct compare_wish wish;    /* of compare, and of run with a baseline */

    struct bench_request bench; /* with shapes and kernels that stand here: */
    struct bench_shape bench_shape[MAX_BENCH_SHAPES];
    const struct kernel *bench_kernel[MAX_BENCH_KERNELS];
    const char *peers; /* NULL: auto */
    int n_bench_shapes, n_bench_reports;
    struct bench_target bench_report[MAX_REPORTS];

    const char **judged;    /* of judge: run.judge.dump; owned */
    struct run_request run; /* of run; cases: lists multiplied, models expanded to parts; owned */
    char *repro;            /* run.repro; owned */
    bool in_process;
    struct pool_options pool;
    bool fail_fast, allow_skips, shrink;
    double time_budget;           /* seconds; 0: none */
    struct inspection print;      /* run.print */
    int split, splits;            /* the split-th of so many shares; 0: all */
    const char *failed_path;      /* a JSON report whose failed cases are to be run; NULL: none */
    struct waivers waivers;       /* failures that are allowed; owned */
    const char *baseline_path;    /* of run and bench; NULL: none */
    struct report_read *baseline; /* the report that this run is compared with; owned */
    int verbosity;                /* -1: quiet, 1: verbose */
    int n_reports;
    struct report_target report[MAX_REPORTS];
};
/* Usage errors come back as a status; main prints it and exits 2. */
struct status options_parse(int argc, char **argv, struct options *out);
void options_free(struct options *options);

/* ---- for commands ---- */

enum { MAX_OPTIONS = 80 };

/* The command line being read. */
struct parse {
    const struct command *command, *instead; /* --help, --version: the command to do instead */
    bool named;                              /* the command was typed */
    struct options *out;
    struct request request;         /* words and keys */
    char *list[MAX_CASE_KEYS];      /* copies of the lists of keys, cut at commas */
    const char *typed[MAX_OPTIONS]; /* values, by option_at's number; NULL: not given */
};

enum {
    REPEATABLE = 1,
    IN_REPRO = 2, /* changes what a case does without being a key of it: the repro line needs it */
    UNLISTED = 4, /* its values are too many for the help */
    SHARED = 8    /* of run, and of whatever else judges cases */
};
struct option_row {
    const char *name;
    char letter; /* 0: none */
    int traits;
    const char *argument; /* NULL: a flag */
    int sets;             /* for apply; of a key: its index */
    struct status (*apply)(struct parse *parse, const struct option_row *row,
                           const char *value); /* of a flag: NULL */
    const char *help;                          /* NULL: the key's */
    void (*values)(struct choices *choices);   /* what it may be; NULL: anything */
};

/* Cuts "a,b,c" into *copy, to be freed; empty and repeated values are errors. */
struct status option_split(const char *option, const char *typed, char **copy, struct value_list *out);
/* An integer from 1 to `most`. */
struct status option_count(const struct option_row *row, const char *value, int most, int *out);
/* Option i of a command, in the order of --help: the keys it takes, its own, those of all. false:
 * there are fewer. */
bool option_at(const struct command *command, int i, struct option_row *out);
void option_values(const struct option_row *row, struct choices *out);   /* none: anything */
void option_help(const struct option_row *row, char *text, size_t size); /* what it does, on one line */
void options_print(FILE *file, const struct command *command);           /* one line an option */

#endif
