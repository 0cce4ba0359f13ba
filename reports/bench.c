/* What follows from the samples: spreads, the device's rates and shares of them, who is ahead. */
/* SPDX-License-Identifier: MIT */
#include "reports/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *bench_cache_name(enum bench_cache cache) {
    static const char *const names[BENCH_CACHES] = {[BENCH_COLD] = "cold", [BENCH_WARM] = "warm"};
    return names[cache];
}

const char *bench_state_name(enum bench_state state) {
    static const char *const names[] = {
        [BENCH_TIMED] = "timed", [BENCH_WRONG] = "WRONG", [BENCH_REFUSED] = "refused"};
    return names[state];
}

struct bench_row *bench_result_add(struct bench_result *r) {
    if (r->n_rows % 64 == 0) {
        struct bench_row *const more = realloc(r->row, (size_t)(r->n_rows + 64) * sizeof *more);
        if (!more) abort(); /* nothing sensible is left to say */
        r->row = more;
    }
    struct bench_row *const row = &r->row[r->n_rows++];
    *row = (struct bench_row){0};
    return row;
}

const struct bench_row *bench_find(const struct bench_result *r, const struct bench_row *like) {
    for (int64_t i = 0; i < r->n_rows; i++)
        if (r->row[i].gauge == like->gauge && !strcmp(r->row[i].shape, like->shape) &&
            !strcmp(r->row[i].name, like->name))
            return &r->row[i];
    return NULL;
}

void bench_result_free(struct bench_result *r) {
    for (int64_t i = 0; i < r->n_rows; i++)
        for (int cache = 0; cache < BENCH_CACHES; cache++) free(r->row[i].series[cache].seconds);
    free(r->row);
    *r = (struct bench_result){0};
}

const struct bench_format bench_formats[] = {
    {"text", "a table a shape", bench_text},
    {"json", "everything that was timed (schema shardcheck-bench/1)", bench_json},
    {"csv", "a line a kernel, shape and cache", bench_csv},
    {"html", "one page to look at; needs no network and no scripts", bench_html},
    {0},
};

/* ---- spread ---- */

static int rising(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q) {
    const double at = q * (n - 1);
    const int below = (int)at, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

struct bench_spread bench_spread_of(const struct bench_series *s) {
    double *const sorted = malloc((size_t)s->n * sizeof *sorted);
    if (!sorted) abort();
    memcpy(sorted, s->seconds, (size_t)s->n * sizeof *sorted);
    qsort(sorted, (size_t)s->n, sizeof *sorted, rising);
    const struct bench_spread spread = {quantile(sorted, s->n, 0.25), quantile(sorted, s->n, 0.5),
                                        quantile(sorted, s->n, 0.75)};
    free(sorted);
    return spread;
}

/* ---- rates ---- */

/* Of either cache the faster: what it can do. */
static double least_median(const struct bench_row *row) {
    double least = INFINITY;
    for (int cache = 0; cache < BENCH_CACHES; cache++)
        if (row->series[cache].n) least = fmin(least, bench_spread_of(&row->series[cache]).median);
    return least;
}

struct bench_limits bench_limits_of(const struct bench_result *r) {
    struct bench_limits limits = {0};
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct bench_row *const row = &r->row[i];
        if (!row->gauge || row->state != BENCH_TIMED) continue;
        if (row->flops > 0)
            limits.flops = row->flops / least_median(row);
        else
            limits.bytes = row->bytes / least_median(row);
    }
    return limits;
}

struct bench_share bench_share_of(const struct bench_row *row, enum bench_cache cache,
                                  const struct bench_limits *limits) {
    if (!(limits->bytes > 0) || !(limits->flops > 0) || !row->series[cache].n) return (struct bench_share){0};
    const double median = bench_spread_of(&row->series[cache]).median;
    const double memory = row->bytes / limits->bytes, sums = row->flops / limits->flops;
    return (struct bench_share){fmax(memory, sums) / median, memory > sums};
}

double bench_ratio(const struct bench_result *r, const struct bench_row *row, enum bench_cache cache,
                   const struct bench_row **peer) {
    double least = INFINITY;
    *peer = NULL;
    for (int64_t i = 0; i < r->n_rows && row->series[cache].n; i++) {
        const struct bench_row *const other = &r->row[i];
        if (!other->peer || !other->series[cache].n || strcmp(other->shape, row->shape) != 0) continue;
        const double median = bench_spread_of(&other->series[cache]).median;
        if (median < least) least = median, *peer = other;
    }
    return *peer ? least / bench_spread_of(&row->series[cache]).median : 0;
}

int64_t bench_shape_end(const struct bench_result *r, int64_t first) {
    int64_t end = first;
    while (end < r->n_rows && !strcmp(r->row[end].shape, r->row[first].shape)) end++;
    return end;
}

struct bench_best bench_best_of(const struct bench_result *r, int64_t first, enum bench_cache cache) {
    struct bench_best best = {NULL, NULL, 0};
    double least[2] = {INFINITY, INFINITY};
    for (int64_t i = first; i < bench_shape_end(r, first); i++) {
        const struct bench_row *const row = &r->row[i];
        if (row->gauge || !row->series[cache].n) continue;
        const double median = bench_spread_of(&row->series[cache]).median;
        if (median >= least[row->peer]) continue;
        least[row->peer] = median;
        *(row->peer ? &best.peer : &best.ours) = row;
    }
    if (best.ours && best.peer) best.ratio = least[true] / least[false];
    return best;
}

double bench_mean_ratio(const struct bench_result *r, enum bench_cache cache, int *n) {
    double sum = 0;
    *n = 0;
    for (int64_t first = 0; first < r->n_rows; first = bench_shape_end(r, first)) {
        const double ratio = bench_best_of(r, first, cache).ratio;
        if (ratio > 0) sum += log(ratio), ++*n;
    }
    return *n ? exp(sum / *n) : 0;
}

struct bench_judged bench_judged_of(const struct bench_result *r, int64_t first) {
    struct bench_judged all = {0};
    for (int64_t i = first; i < bench_shape_end(r, first); i++) {
        const struct bench_row *const row = &r->row[i];
        if (row->peer || row->state != BENCH_TIMED) continue;
        all.judged += row->rows_judged, all.rows += row->rows;
        all.margin = fmax(all.margin, row->margin);
    }
    return all;
}

struct bench_counts bench_count(const struct bench_result *r) {
    struct bench_counts n = {0};
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct bench_row *const row = &r->row[i];
        const bool has_times = row->series[BENCH_COLD].n || row->series[BENCH_WARM].n;
        if (row->state == BENCH_TIMED ? has_times && !row->gauge && !row->peer : !row->peer)
            n.of[row->state]++;
    }
    return n;
}

/* ---- words ---- */

/* Of a thousand small units the next larger one: three digits and more. */
static void print_scaled(char *text, size_t size, double value, const char *const *unit) {
    while (value >= 1000 && unit[1]) value /= 1000, unit++;
    snprintf(text, size, "%.*f %s", value < 10 ? 3 : value < 100 ? 2 : 1, value, *unit);
}

void bench_time_text(char *text, size_t size, double seconds) {
    static const char *const units[] = {"us", "ms", "s", NULL};
    print_scaled(text, size, 1e6 * seconds, units);
}

void bench_rate_text(char *text, size_t size, const struct bench_row *row, double seconds, bool by_memory) {
    static const char *const bytes[] = {"MB/s", "GB/s", NULL}, *const flops[] = {"MFLOP/s", "GFLOP/s",
                                                                                 "TFLOP/s", NULL};
    print_scaled(text, size, 1e-6 * (by_memory ? row->bytes : row->flops) / seconds,
                 by_memory ? bytes : flops);
}
