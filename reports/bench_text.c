/* What a person reads while it runs: a table a shape. */
/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <string.h>

#include "reports/bench.h"

enum { NAME_COLUMNS = 46 };

/* Up to `columns` of the line, then the text; nothing stands at the end of a line. */
struct line {
    char text[400];
    size_t used;
};

__attribute__((format(printf, 3, 4))) static void put(struct line *line, size_t column, const char *format,
                                                      ...) {
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const size_t room = sizeof line->text - 1;
    if (!*text || line->used == room) return;
    if (line->used) line->text[line->used++] = ' ';
    while (line->used < column && line->used < room) line->text[line->used++] = ' ';
    line->used += (size_t)snprintf(line->text + line->used, sizeof line->text - line->used, "%s", text);
    if (line->used > room) line->used = room;
}

enum {
    CACHE = NAME_COLUMNS + 3,
    MEDIAN = CACHE + 5,
    SPREAD = MEDIAN + 10,
    N = SPREAD + 15,
    RATE = N + 5,
    SHARE = RATE + 14,
    RATIO = SHARE + 12
};

static void print_series(FILE *file, const struct bench_result *r, const struct bench_row *row,
                         const char *name, enum bench_cache cache, const struct bench_limits *limits) {
    const struct bench_series *const s = &row->series[cache];
    const struct bench_spread spread = bench_spread_of(s);
    const struct bench_share share = bench_share_of(row, cache, limits);
    const struct bench_row *peer;
    const double ratio = row->peer || row->gauge ? 0 : bench_ratio(r, row, cache, &peer);
    struct line line = {.used = 0};
    char text[24];
    put(&line, 2, "%s", name);
    put(&line, CACHE, "%s", bench_cache_name(cache));
    bench_time_text(text, sizeof text, spread.median);
    put(&line, MEDIAN, "%9s", text);
    put(&line, SPREAD, "-%.1f%% +%.1f%%", 100 * (1 - spread.q1 / spread.median),
        100 * (spread.q3 / spread.median - 1));
    put(&line, N, "%4d", s->n);
    bench_rate_text(text, sizeof text, row, spread.median, row->gauge ? row->flops == 0 : share.by_memory);
    put(&line, RATE, "%s", text);
    if (!row->gauge && share.share > 0)
        put(&line, SHARE, "%.2f %s", share.share, share.by_memory ? "copy" : "dense");
    if (ratio > 0) put(&line, RATIO, "%.2f", ratio);
    fprintf(file, "%s\n", line.text);
}

static void print_row(FILE *file, const struct bench_result *r, const struct bench_row *row, const char *name,
                      const struct bench_limits *limits) {
    if (row->state != BENCH_TIMED)
        fprintf(file, "  %-*s %s  %s\n", NAME_COLUMNS, name, bench_state_name(row->state), row->note);
    for (int cache = 0; cache < BENCH_CACHES; cache++) {
        if (!row->series[cache].n) continue;
        print_series(file, r, row, name, (enum bench_cache)cache, limits);
        name = "";
    }
}

static void print_titles(FILE *file, const char *first, bool with_peers) {
    struct line line = {.used = 0};
    put(&line, 2, "%s", first);
    put(&line, CACHE, "cache");
    put(&line, MEDIAN, "   median");
    put(&line, SPREAD, "quartiles");
    put(&line, N, "   n");
    put(&line, RATE, "rate");
    put(&line, SHARE, with_peers ? "share of" : "");
    put(&line, RATIO, with_peers ? "peer/ours" : "");
    fprintf(file, "%s\n", line.text);
}

void bench_text_head(FILE *file, const struct bench_result *r) {
    const struct bench_limits limits = bench_limits_of(r);
    char name[200];
    fprintf(file, "shardcheck %s on %s (%s)\n", r->version, r->device, r->speed);
    if (r->peers[0]) fprintf(file, "peers  %s\n", r->peers);
    print_titles(file, "the machine", false);
    for (int64_t i = 0; i < r->n_rows; i++) {
        if (!r->row[i].gauge) continue;
        snprintf(name, sizeof name, "%.*s by %.60s", (int)strcspn(r->row[i].shape, ":"), r->row[i].shape,
                 r->row[i].name);
        print_row(file, r, &r->row[i], name, &limits);
    }
}

void bench_text_shape(FILE *file, const struct bench_result *r, int64_t first) {
    const struct bench_limits limits = bench_limits_of(r);
    const int64_t end = bench_shape_end(r, first);
    if (first == end) return;
    fprintf(file, "\n%s\n", r->row[first].shape);
    print_titles(file, "", true);
    for (int64_t i = first; i < end; i++) print_row(file, r, &r->row[i], r->row[i].name, &limits);
    const struct bench_judged judged = bench_judged_of(r, first);
    if (judged.rows)
        fprintf(file, "  %lld of %lld rows held against the reference, largest margin %.2g\n",
                (long long)judged.judged, (long long)judged.rows, judged.margin);
}

/* A line a shape and cache: the fastest of ours, and of the peers. */
static void print_best(FILE *file, const struct bench_result *r, int64_t first, enum bench_cache cache,
                       const struct bench_limits *limits) {
    enum { OURS = 54, PEER = OURS + 37 };
    const struct bench_best best = bench_best_of(r, first, cache);
    struct line line = {.used = 0};
    if (!best.ours) return;
    const struct bench_share share = bench_share_of(best.ours, cache, limits);
    put(&line, 2, "%s", r->row[first].shape);
    put(&line, OURS - 6, "%s", bench_cache_name(cache));
    put(&line, OURS, "%.*s", (int)strcspn(best.ours->name, "+"), best.ours->name);
    if (share.share > 0) put(&line, PEER - 12, "%.2f %s", share.share, share.by_memory ? "copy" : "dense");
    if (best.peer) put(&line, PEER, "%-19s %.2f", best.peer->name, best.ratio);
    fprintf(file, "%s\n", line.text);
}

static void print_summary(FILE *file, const struct bench_result *r) {
    const struct bench_limits limits = bench_limits_of(r);
    fputs("\nthe fastest of ours, the fastest peer, peer/ours\n", file);
    for (int cache = 0; cache < BENCH_CACHES; cache++) {
        int n;
        for (int64_t first = 0; first < r->n_rows; first = bench_shape_end(r, first))
            print_best(file, r, first, (enum bench_cache)cache, &limits);
        const double mean = bench_mean_ratio(r, (enum bench_cache)cache, &n);
        if (n)
            fprintf(file, "  %d shapes %s, geometric mean of peer/ours %.2f\n", n,
                    bench_cache_name((enum bench_cache)cache), mean);
    }
}

void bench_text_end(FILE *file, const struct bench_result *r) {
    const struct bench_counts n = bench_count(r);
    if (n.of[BENCH_TIMED]) print_summary(file, r);
    if (r->stopped[0]) fprintf(file, "\nstopped, and nothing after it was timed: %s\n", r->stopped);
    fprintf(file, "\n%lld timed, %lld wrong, %lld refused\n", (long long)n.of[BENCH_TIMED],
            (long long)n.of[BENCH_WRONG], (long long)n.of[BENCH_REFUSED]);
}

void bench_text(FILE *file, const struct bench_result *r) {
    bench_text_head(file, r);
    for (int64_t first = 0; first < r->n_rows; first = bench_shape_end(r, first))
        if (!r->row[first].gauge) bench_text_shape(file, r, first);
    bench_text_end(file, r);
}
