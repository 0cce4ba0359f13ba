/* result - what a run found, as numbers and strings only: all that reports know. */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_RESULT_H
#define REPORTS_RESULT_H

#include <stdbool.h>
#include <stdint.h>

/* Waived: failed, as somebody knows and allows for a time. */
enum case_verdict { CASE_PASSED, CASE_FAILED, CASE_SKIPPED, CASE_WAIVED, CASE_VERDICTS };
enum edge { EDGE_KERNEL, EDGE_PLAN, EDGE_SHARD, EDGE_ORACLE, EDGE_CHAIN, EDGE_COUNT };
/* Loose: nothing is wrong, but the bounds are so wide that this says nothing. */
enum edge_state { EDGE_NOT_RUN, EDGE_OK, EDGE_LOOSE, EDGE_FAIL };

/* One element that is wrong. */
struct mismatch {
    char stage[32], tensor[32];
    int rank;                    /* -1: the unsharded run */
    char where[96];              /* "token 3 head 5 dim 7", global indices */
    double got, expected, bound; /* stored value, reference value, half-width E */
    double margin;               /* > 1; infinite for NaN */
    char note[480]; /* "outside the set", "not bit-identical", "guard overwritten", "never written", ... */
    int to_rank;    /* > rank: of no single one, what rank to to_rank brought was added up */
};

/* What the values of a tensor say together (docs/numerics.md, section 10). Vague: the test could not
 * see a tenth. Silent: it could not be made. Neither is a pass. */
enum trend_state { TREND_NONE, TREND_FINE, TREND_VAGUE, TREND_SILENT, TREND_WRONG };
struct figure {
    double estimate, resolution; /* of a gain, say; resolution 0: not tested */
};
struct trend {
    enum trend_state state;
    struct figure gain, scale, worst;
    double statistic; /* of the worst, over its threshold: > 1 is wrong */
    char about[96];   /* "weight of key 3999 of sequence 0, kv head 3": what the worst is about */
    char reason[96];  /* why it is silent; else empty */
    int64_t elements, tests;
};

/* A coarse picture of the wrong elements of one tensor. A cell or a rank is a character: '.' nothing of
 * it was judged, '0' all is right, '1' to '9' up to so many ninths of what was judged are wrong. */
enum { MAP_CELLS = 64, MAP_RANKS = 128, MAP_BORDERS = 128 };
struct map_axis {
    char name[32]; /* "token"; empty: there is no such axis */
    int64_t size;  /* indices; index i is in cell i * cells / size */
    int cells;
    int n_borders;
    int64_t border[MAP_BORDERS]; /* indices at which the share of another rank begins */
};
struct heat_map {
    char tensor[32]; /* empty: there is no map */
    struct map_axis rows, cols;
    char cell[MAP_CELLS][MAP_CELLS + 1]; /* [rows.cells] strings of cols.cells */
    char rank[MAP_RANKS + 1];            /* by rank; empty: the unsharded run */
};

struct edge_result {
    enum edge_state state;
    double margin; /* largest implied/E over the judged elements */
    int64_t elements, outside;
    int64_t ambiguous;          /* top-k sets that several answers satisfy; legal, counted */
    int64_t sampled_rows, rows; /* plan edge: how many of the rows were recomputed; 0, 0 elsewhere */
    int64_t other_bits;         /* of those outside: legal values, but not the bits that were promised */
    int64_t vacuous;            /* acceptance sets with E > |y|: they accept the value with any sign */
    double sharpness;           /* median E/|y| of the sets of a stage, the largest where there are several */
    struct trend trend;         /* kernel and shard edge */
    int64_t single, sets;       /* local fills, kernel edge: sets of one value, of how many; 0, 0 elsewhere */
    char order[160];            /* which order its sums were found to have, or not, where none is declared */
    int64_t in_order;           /* elements held against what the declared order of their sum gives, too */
};

struct stage_result {
    char stage[32], kernel[40];
    struct edge_result edge[EDGE_COUNT];
    char unjudged[240]; /* of a recorded stage: what of it could not be judged, and why; else empty */
    double seconds_reference, seconds_kernel; /* spent on this case's share */
};

/* What of the kernels and the cut was shown: facts by number. */
enum { FACT_WORDS = 4, MAX_FACTS = 64 * FACT_WORDS };
struct fact_set {
    uint64_t word[FACT_WORDS];
};
static inline bool fact_is_in(const struct fact_set *set, int fact) {
    return set->word[fact / 64] >> fact % 64 & 1;
}
static inline void fact_add(struct fact_set *set, int fact) {
    set->word[fact / 64] |= UINT64_C(1) << fact % 64;
}

struct case_result {
    char line[5120]; /* the case line; parses back unless its path holds what no line can show */
    char *repro;     /* whole command that runs this case again, quoted for sh; owned */
    enum case_verdict verdict;
    const char *same_as;    /* the line of the case that did the same, whose verdict this is; NULL: its own */
    bool not_run;           /* of a skipped one: the run ended before */
    bool of_grid;           /* nobody asked for it by name */
    const char *same_cause; /* the line of an earlier case that failed alike; NULL: none, or not known */
    char waived[300];       /* of a waived one: "until 2026-12-31: reason" */
    bool crashed;           /* failed, and did not come to its end: it died, hung, or took too much memory */
    char reason[500];       /* why it was skipped or could not be finished; else empty */
    struct edge_result edge[EDGE_COUNT];
    char unchained
        [48]; /* what kept the chain edge from running: a feature plain.c does not know; else empty */
    int n_stages;
    struct stage_result *stage;
    /* of a failed case: the first failing stage */
    struct mismatch first, worst;
    struct heat_map map; /* of the stage of `first` */
    char where[256];     /* "stage attention, ranks 1-3 of 4, tokens 1-32, heads 8-31" */
    char likely[400];    /* the mutant whose replay reproduces it, with its source; else empty */
    char resembles[200]; /* what the wrong values look like, where a simple relation holds; else empty */
    char read[200];      /* what a wrong element was made of, by the tags that it holds; else empty */
    char sums[300]; /* who added up the reference's products, where that was not the CPU alone; else empty */
    char sampled[120]; /* of much work: "68 of 4096 tokens", a step after the other; else empty */
    double seconds;
    int64_t
        device_bytes; /* most that was allocated of a device's own memory in the process so far; 0: it has none */
    struct fact_set facts; /* that its calls met, the unsharded run's included */
    char mutant[48];       /* the seeded mistake; else empty */
    bool mutant_made;      /* it changed some call */
};

struct fact_count {
    char name[48];
    bool applies;    /* its kernel runs on the device */
    int64_t n_cases; /* that met it */
};

struct run_result {
    const char *version, *device, *command; /* device: the label, always shown */
    const struct case_result *cases;
    int64_t n_cases, n_passed, n_failed, n_skipped, n_waived;
    int64_t n_grid, n_grid_passed, n_grid_failed, n_grid_waived; /* of the cases */
    double seconds_grid;                                         /* from the last result of another case on */
    int64_t n_crashed;                                           /* of the failed */
    int64_t n_unchained;                                         /* of them: without a chain edge */
    const struct fact_count *fact;                               /* [n_facts] by number; NULL: not counted */
    int n_facts;
    double seconds;
    int64_t host_bytes, device_bytes; /* most at a time of any one process; 0: not known, or none */
    char **stale; /* [n_stale] lines about waivers that are no longer needed, or out of date */
    int n_stale;
    const char *unread; /* names in a dump under which nothing is known; NULL or empty: none */
    bool in_process;    /* without workers: the code under test could have changed anything */
};

#endif
