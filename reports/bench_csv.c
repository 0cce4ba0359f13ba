/* One line a kernel or peer, shape and cache, for spreadsheets and plots (RFC 4180). */
/* SPDX-License-Identifier: MIT */
#include "reports/bench.h"

#include <string.h>

/* In quotes where something in it would end the field. */
static void print_field(FILE *file, const char *text) {
    const bool quoted = strpbrk(text, ",\"\r\n") != NULL;
    if (quoted) fputc('"', file);
    for (; *text; text++) {
        if (*text == '"') fputc('"', file);
        fputc(*text, file);
    }
    if (quoted) fputc('"', file);
    fputc(',', file);
}

static void print_head(FILE *file, const struct bench_row *row) {
    print_field(file, row->shape);
    print_field(file, row->name);
    print_field(file, row->gauge ? "gauge" : row->peer ? "peer" : "ours");
    print_field(file, bench_state_name(row->state));
}

static void print_times(FILE *file, const struct bench_result *r, const struct bench_row *row,
                        enum bench_cache cache, const struct bench_limits *limits) {
    const struct bench_spread s = bench_spread_of(&row->series[cache]);
    const struct bench_share share = bench_share_of(row, cache, limits);
    const struct bench_row *peer;
    const double ratio = row->peer || row->gauge ? 0 : bench_ratio(r, row, cache, &peer);
    print_head(file, row);
    fprintf(file, "%s,%d,%.9g,%.9g,%.9g,%.9g,%.9g,", bench_cache_name(cache), row->series[cache].n, s.q1,
            s.median, s.q3, row->bytes, row->flops);
    if (share.share > 0 && !row->gauge)
        fprintf(file, "%.4g,%s,", share.share, share.by_memory ? "copy" : "dense");
    else
        fputs(",,", file);
    if (ratio > 0) fprintf(file, "%.4g", ratio);
    fputc(',', file);
    print_field(file, ratio > 0 ? peer->name : "");
    fprintf(file, "%lld,%lld,%.4g\r\n", (long long)row->rows_judged, (long long)row->rows, row->margin);
}

void bench_csv(FILE *file, const struct bench_result *r) {
    const struct bench_limits limits = bench_limits_of(r);
    fputs("shape,name,role,state,cache,n,quartile_1_s,median_s,quartile_3_s,bytes,flops,share,share_of,"
          "peer_over_ours,fastest_peer,rows_judged,rows,margin\r\n",
          file);
    for (int64_t i = 0; i < r->n_rows; i++) {
        const struct bench_row *const row = &r->row[i];
        for (int cache = 0; cache < BENCH_CACHES; cache++)
            if (row->series[cache].n) print_times(file, r, row, (enum bench_cache)cache, &limits);
        if (row->state == BENCH_TIMED) continue;
        print_head(file, row);
        fprintf(file, ",,,,,%.9g,%.9g,,,,,%lld,%lld,\r\n", row->bytes, row->flops,
                (long long)row->rows_judged, (long long)row->rows);
    }
}
