/* One page to look at: a table a shape, and every launch as a dot. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "reports/bench.h"
#include "reports/html.h"

static const char style[] =
    "h2{overflow-wrap:anywhere}.t td{white-space:nowrap;vertical-align:middle}.t td.num{text-align:right}.t "
    "td.note{white-space:normal}\n"
    ".t svg{display:block}.t circle{fill:#0072b2;fill-opacity:.35}.t .peer circle{fill:#8a8a8a}\n"
    ".t line{stroke:var(--fg);stroke-width:2}.t .peer th{color:var(--dim)}\n";

enum { STRIP = 240, STRIP_HEIGHT = 14 };

/* ---- one line of a table ---- */

/* All launches from 0 to the slowest median of the shape times 1.25; what is slower stands at the
 * end. */
static void print_strip(FILE *file, const struct bench_series *s, double end) {
    const double median = bench_spread_of(s).median;
    fprintf(file, "<td><svg width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"%d launches\">", STRIP,
            STRIP_HEIGHT, s->n);
    for (int i = 0; i < s->n; i++)
        fprintf(file, "<circle cx=\"%.1f\" cy=\"%d\" r=\"2.5\"/>", STRIP * fmin(s->seconds[i] / end, 1),
                4 + 6 * (i / s->per_round % 2));
    fprintf(file, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%d\"/></svg></td>",
            STRIP * fmin(median / end, 1), STRIP * fmin(median / end, 1), STRIP_HEIGHT);
}

static void print_cell(FILE *file, const char *text) { html_element(file, "td", "num", text); }

static void print_series(FILE *file, const struct bench_result *r, const struct bench_row *row,
                         enum bench_cache cache, const struct bench_limits *limits, double end) {
    const struct bench_series *const s = &row->series[cache];
    const struct bench_spread spread = bench_spread_of(s);
    const struct bench_share share = bench_share_of(row, cache, limits);
    const struct bench_row *peer;
    char text[160];
    fprintf(file, "<tr class=\"%s\">", row->peer ? "peer" : "ours");
    html_element(file, "th", NULL, row->name);
    html_element(file, "td", NULL, bench_cache_name(cache));
    bench_time_text(text, sizeof text, spread.median);
    print_cell(file, text);
    snprintf(text, sizeof text, "-%.1f %% +%.1f %%", 100 * (1 - spread.q1 / spread.median),
             100 * (spread.q3 / spread.median - 1));
    print_cell(file, text);
    snprintf(text, sizeof text, "%d", s->n);
    print_cell(file, text);
    bench_rate_text(text, sizeof text, row, spread.median, row->gauge ? row->flops == 0 : share.by_memory);
    print_cell(file, text);
    *text = 0;
    if (share.share > 0 && !row->gauge)
        snprintf(text, sizeof text, "%.2f of %s", share.share, share.by_memory ? "copy" : "dense");
    print_cell(file, text);
    *text = 0;
    const double ratio = row->peer || row->gauge ? 0 : bench_ratio(r, row, cache, &peer);
    if (ratio > 0) snprintf(text, sizeof text, "%.2f (%s)", ratio, peer->name);
    print_cell(file, text);
    print_strip(file, s, end);
    fputs("</tr>\n", file);
}

static void print_untimed(FILE *file, const struct bench_row *row) {
    fputs("<tr>", file);
    html_element(file, "th", NULL, row->name);
    fprintf(file, "<td class=\"%s\">", row->state == BENCH_WRONG ? "f" : "n");
    report_escape(file, bench_state_name(row->state));
    fputs("</td><td class=\"note\" colspan=\"7\">", file);
    report_escape(file, row->note);
    fputs("</td></tr>\n", file);
}

/* ---- the page ---- */

static void print_shape(FILE *file, const struct bench_result *r, int64_t first) {
    const int64_t end = bench_shape_end(r, first);
    const struct bench_limits limits = bench_limits_of(r);
    double slowest = 0;
    for (int64_t i = first; i < end; i++)
        for (int cache = 0; cache < BENCH_CACHES; cache++)
            if (r->row[i].series[cache].n)
                slowest = fmax(slowest, bench_spread_of(&r->row[i].series[cache]).median);
    html_element(file, "h2", NULL, r->row[first].shape);
    fputs("\n<div class=\"box\"><table class=\"t\"><thead><tr><th>kernel or "
          "peer</th><th>cache</th><th>median</th>"
          "<th>quartiles</th><th>n</th><th>rate</th><th>share</th><th>peer / ours</th><th>every "
          "launch</th></tr>"
          "</thead><tbody>\n",
          file);
    for (int64_t i = first; i < end; i++) {
        for (int cache = 0; cache < BENCH_CACHES; cache++)
            if (r->row[i].series[cache].n)
                print_series(file, r, &r->row[i], (enum bench_cache)cache, &limits, 1.25 * slowest);
        if (r->row[i].state != BENCH_TIMED) print_untimed(file, &r->row[i]);
    }
    const struct bench_judged judged = bench_judged_of(r, first);
    fputs("</tbody></table></div>\n", file);
    if (judged.rows)
        fprintf(file,
                "<p class=\"dim\">%lld of %lld rows held against the reference, largest margin %.2g</p>\n",
                (long long)judged.judged, (long long)judged.rows, judged.margin);
}

static void print_fact(FILE *file, const char *name, const char *value) {
    html_element(file, "dt", NULL, name);
    html_element(file, "dd", NULL, value);
    fputc('\n', file);
}

static void print_head(FILE *file, const struct bench_result *r) {
    const struct bench_counts n = bench_count(r);
    char counts[120], device[600];
    snprintf(counts, sizeof counts, "%lld timed, %lld wrong, %lld refused", (long long)n.of[BENCH_TIMED],
             (long long)n.of[BENCH_WRONG], (long long)n.of[BENCH_REFUSED]);
    snprintf(device, sizeof device, "%s (%s)", r->device, r->speed);
    fprintf(file,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
            "<title>shardcheck bench: %s</title>\n<style>\n%s%s</style>\n</head>\n<body>\n",
            counts, html_style, style);
    html_element(file, "h1", n.of[BENCH_WRONG] ? "bad" : r->stopped[0] ? "part" : "good", counts);
    fputs("\n<dl>\n", file);
    print_fact(file, "device", device);
    print_fact(file, "command", r->command);
    print_fact(file, "version", r->version);
    if (r->peers[0]) print_fact(file, "peers", r->peers);
    if (r->stopped[0]) print_fact(file, "stopped", r->stopped);
    fputs("</dl>\n", file);
}

void bench_html(FILE *file, const struct bench_result *r) {
    print_head(file, r);
    for (int64_t first = 0; first < r->n_rows; first = bench_shape_end(r, first)) print_shape(file, r, first);
    fputs("</body>\n</html>\n", file);
}
