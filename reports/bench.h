/* bench - what a run of `bench` measured, as numbers and strings: all that its reports know. */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_BENCH_H
#define REPORTS_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Cold: more than the last cache holds was written between the launches. Warm: one after another.
 */
enum bench_cache { BENCH_COLD, BENCH_WARM, BENCH_CACHES };
const char *bench_cache_name(enum bench_cache cache);

/* A sample is one launch; rounds of `per_round` of them, with everybody else of the shape in
 * between. */
struct bench_series {
    int n, per_round;
    double *seconds; /* [n]; owned */
};

/* Refused: does not take the shape. Wrong: what it stored is outside of what is right, so it was
 * not timed. */
enum bench_state { BENCH_TIMED, BENCH_WRONG, BENCH_REFUSED };
const char *bench_state_name(enum bench_state state);

struct bench_row {
    char shape[160], name[120];
    bool peer;  /* somebody else's; not judged */
    bool gauge; /* neither: what the machine can do, that shares are of */
    enum bench_state state;
    char note[300];                      /* the worst element, or why it was refused; else empty */
    int64_t rows_judged, rows, elements; /* of all its outputs; elements of the judged rows */
    double margin;                       /* the largest: error over its bound */
    double bytes, flops;                 /* that the shape needs at least */
    struct bench_series series[BENCH_CACHES];
};

struct bench_result {
    char version[40], device[320], command[400];
    char speed[200];       /* "driver 580.159.04, at most 1980 MHz" */
    char peers[300];       /* who they are, or why there are none */
    char stopped[500];     /* why it ended early; else empty */
    struct bench_row *row; /* owned; those of a shape one after another */
    int64_t n_rows;
};
struct bench_row *bench_result_add(struct bench_result *result); /* zeros; valid until the next one */
/* The row of the same shape and name, among gauges or among the others; NULL: there is none. */
const struct bench_row *bench_find(const struct bench_result *result, const struct bench_row *like);
void bench_result_free(struct bench_result *result);

/* ---- what follows from it ---- */

struct bench_spread {
    double q1, median, q3; /* seconds; type 7 of Hyndman & Fan 1996: between the two nearest samples */
};
/* n > 0. */
struct bench_spread bench_spread_of(const struct bench_series *series);

/* The device's own rates, of the gauges; 0: not measured. */
struct bench_limits {
    double bytes, flops; /* a second */
};
struct bench_limits bench_limits_of(const struct bench_result *result);
/* The larger of bytes / (copied bytes a second) and flops / (dense rate), over the median time. */
struct bench_share {
    double share;   /* 0: not known */
    bool by_memory; /* which of the two it is */
};
struct bench_share bench_share_of(const struct bench_row *row, enum bench_cache cache,
                                  const struct bench_limits *limits);
/* How long the fastest peer takes of what row takes; 0: there is none. */
double bench_ratio(const struct bench_result *result, const struct bench_row *row, enum bench_cache cache,
                   const struct bench_row **peer);

/* One behind the last row of the shape of row `first`. */
int64_t bench_shape_end(const struct bench_result *result, int64_t first);

/* Of the kernels of that shape that were timed: rows that were held against the reference. */
struct bench_judged {
    int64_t judged, rows;
    double margin; /* the largest */
};
struct bench_judged bench_judged_of(const struct bench_result *result, int64_t first);

/* Kernels by state, without peers; of gauges those that are wrong. Timed is what has samples. */
struct bench_counts {
    int64_t of[BENCH_REFUSED + 1];
};
struct bench_counts bench_count(const struct bench_result *result);

/* "1.234 ms"; and by what limits the shape, "4095 GB/s" or "612 TFLOP/s". */
void bench_time_text(char *text, size_t size, double seconds);
void bench_rate_text(char *text, size_t size, const struct bench_row *row, double seconds, bool by_memory);

/* The fastest of a shape, whose first row it is; NULL: there is none. */
struct bench_best {
    const struct bench_row *ours, *peer;
    double ratio; /* times of peer over ours; 0: one of them is missing */
};
struct bench_best bench_best_of(const struct bench_result *result, int64_t first, enum bench_cache cache);
/* Geometric mean of the ratios of all shapes, and of how many; 0, 0: of none. */
double bench_mean_ratio(const struct bench_result *result, enum bench_cache cache, int *n);

/* ---- reports ---- */

struct bench_format {
    const char *name, *describes;
    void (*write)(FILE *file, const struct bench_result *result);
};
extern const struct bench_format
    bench_formats[]; /* ended by a row without a name; the first is the default */

/* The text in pieces, as the run goes on: a head, the rows from `first` on, which are of one shape,
 * an end. */
void bench_text_head(FILE *file, const struct bench_result *result);
void bench_text_shape(FILE *file, const struct bench_result *result, int64_t first);
void bench_text_end(FILE *file, const struct bench_result *result);
void bench_text(FILE *file, const struct bench_result *result);
void bench_json(FILE *file, const struct bench_result *result);
void bench_csv(FILE *file, const struct bench_result *result);
void bench_html(FILE *file, const struct bench_result *result);

/* Does the text say that it is the JSON of a bench? And what it holds, to be freed: NULL, or what
 * is wrong with it, as the end of an error line; then there is nothing to free. */
bool bench_is_json(const char *text, size_t length);
const char *bench_read(const char *text, size_t length, struct bench_result *out);

#endif
