/* What a person reads while it runs: a table a shape. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "reports/bench.h"

enum { NAME_COLUMNS = 40 };

static void print_series(FILE *file, const struct bench_result *r, const struct bench_row *row,
                         enum bench_cache cache, const struct bench_limits *limits) {
    const struct bench_series *const s = &row->series[cache];
    const struct bench_spread spread = bench_spread_of(s);
    const struct bench_share share = bench_share_of(row, cache, limits);
    const struct bench_row *peer;
    char median[24], rate[24], of[24] = "", ratio[24] = "";
    bench_time_text(median, sizeof median, spread.median);
    bench_rate_text(rate, sizeof rate, row, spread.median, row->gauge ? row->flops == 0 : share.by_memory);
    if (!row->gauge && share.share > 0)
        snprintf(of, sizeof of, "%.2f %s", share.share, share.by_memory ? "copy" : "dense");
    const double ahead = row->peer || row->gauge ? 0 : bench_ratio(r, row, cache, &peer);
    if (ahead > 0) snprintf(ratio, sizeof ratio, "%.2f", ahead);
    fprintf(file, "%-5s %10s  -%.1f%% +%.1f%% %4d  %-13s %-11s %s\n", bench_cache_name(cache), median,
            100 * (1 - spread.q1 / spread.median), 100 * (spread.q3 / spread.median - 1), s->n, rate, of,
            ratio);
}

static void print_row(FILE *file, const struct bench_result *r, const struct bench_row *row,
                      const struct bench_limits *limits) {
    fprintf(file, "  %-*s ", NAME_COLUMNS, row->name);
    if (row->state != BENCH_TIMED) {
        fprintf(file, "%s  %s\n", bench_state_name(row->state), row->note);
        return;
    }
    bool first = true;
    for (int cache = 0; cache < BENCH_CACHES; cache++) {
        if (!row->series[cache].n) continue;
        if (!first) fprintf(file, "  %-*s ", NAME_COLUMNS, "");
        first = false;
        print_series(file, r, row, (enum bench_cache)cache, limits);
    }
}

static void print_judged(FILE *file, const struct bench_result *r, int64_t first, int64_t end) {
    double margin = 0;
    int64_t judged = 0, rows = 0;
    for (int64_t i = first; i < end; i++) {
        if (r->row[i].peer || r->row[i].state != BENCH_TIMED) continue;
        judged += r->row[i].rows_judged, rows += r->row[i].rows;
        if (r->row[i].margin > margin) margin = r->row[i].margin;
    }
    if (rows)
        fprintf(file, "  %lld of %lld rows held against the reference, largest margin %.2g\n",
                (long long)judged, (long long)rows, margin);
}

void bench_text_head(FILE *file, const struct bench_result *r) {
    const struct bench_limits limits = bench_limits_of(r);
    fprintf(file, "shardcheck %s on %s (%s)\n", r->version, r->device, r->speed);
    for (int64_t i = 0; i < r->n_rows; i++)
        if (r->row[i].gauge) print_row(file, r, &r->row[i], &limits);
    if (r->peers[0]) fprintf(file, "peers  %s\n", r->peers);
}

void bench_text_shape(FILE *file, const struct bench_result *r, int64_t first) {
    const struct bench_limits limits = bench_limits_of(r);
    const int64_t end = bench_shape_end(r, first);
    if (first == end) return;
    fprintf(file, "\n%-*s cache     median   quartiles    n  rate          share of    peer/ours\n",
            NAME_COLUMNS + 2, r->row[first].shape);
    for (int64_t i = first; i < end; i++) print_row(file, r, &r->row[i], &limits);
    print_judged(file, r, first, end);
}

void bench_text_end(FILE *file, const struct bench_result *r) {
    const struct bench_counts n = bench_count(r);
    fprintf(file, "\n%lld timed, %lld wrong, %lld refused\n", (long long)n.of[BENCH_TIMED],
            (long long)n.of[BENCH_WRONG], (long long)n.of[BENCH_REFUSED]);
}

void bench_text(FILE *file, const struct bench_result *r) {
    bench_text_head(file, r);
    for (int64_t first = 0; first < r->n_rows; first = bench_shape_end(r, first))
        if (!r->row[first].gauge) bench_text_shape(file, r, first);
    bench_text_end(file, r);
}
