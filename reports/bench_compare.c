/* Is it slower than it was, and can that be said? */
/* SPDX-License-Identifier: MIT */
#include "reports/bench_compare.h"

#include <math.h>
#include <string.h>

const char *bench_verdict_name(enum bench_verdict verdict) {
    static const char *const names[] = {[BENCH_SAME] = "same",
                                        [BENCH_UNCLEAR] = "cannot tell",
                                        [BENCH_FASTER] = "faster",
                                        [BENCH_SLOWER] = "SLOWER"};
    return names[verdict];
}

double bench_drift(const struct bench_series *s) {
    double least = INFINITY, most = 0;
    for (int at = 0; at + s->per_round <= s->n; at += s->per_round) {
        const struct bench_series round = {s->per_round, s->per_round, s->seconds + at};
        const double median = bench_spread_of(&round).median;
        least = fmin(least, median);
        most = fmax(most, median);
    }
    return most / least - 1;
}

struct bench_change bench_change_of(const struct bench_series *before, const struct bench_series *now,
                                    double level) {
    double x[RANK_MOST], y[RANK_MOST];
    const int m = rank_thin(before->n, before->seconds, x), n = rank_thin(now->n, now->seconds, y);
    struct bench_change c = {.factor = rank_factor_of(x, m, y, n, rank_critical(m, n, level / 2)),
                             .allowance = fmax(BENCH_NOISE, fmax(bench_drift(before), bench_drift(now)))};
    const double most = 1 + c.allowance;
    c.verdict = c.factor.low > most                                 ? BENCH_SLOWER
                : c.factor.high < 1 / most                          ? BENCH_FASTER
                : c.factor.low >= 1 / most && c.factor.high <= most ? BENCH_SAME
                                                                    : BENCH_UNCLEAR;
    return c;
}

/* ---- two runs ---- */

const char *bench_incomparable(const struct bench_result *a, const struct bench_result *b) {
    static _Thread_local char text[700];
    if (strcmp(a->device, b->device) != 0)
        snprintf(text, sizeof text, "was measured on %s, not on %s; compare runs of one device", a->device,
                 b->device);
    else if (strcmp(a->speed, b->speed) != 0)
        snprintf(text, sizeof text, "was measured with %s, not with %s; measure it again", a->speed,
                 b->speed);
    else
        return NULL;
    return text;
}

static bool both_timed(const struct bench_row *a, const struct bench_row *b, int cache) {
    return a && a->series[cache].n && b->series[cache].n;
}

static int count_pairs(const struct bench_result *before, const struct bench_result *now) {
    int n = 0;
    for (int64_t i = 0; i < now->n_rows; i++)
        for (int cache = 0; cache < BENCH_CACHES; cache++)
            n += both_timed(bench_find(before, &now->row[i]), &now->row[i], cache);
    return n;
}

static void print_change(FILE *file, const struct bench_row *row, int cache, const struct bench_change *c) {
    fprintf(file, "  %-11s %-4s  %.3f times as long [%.3f, %.3f], noise %.1f%%  %s  %s%s\n",
            bench_verdict_name(c->verdict), bench_cache_name((enum bench_cache)cache), c->factor.factor,
            c->factor.low, c->factor.high, 100 * c->allowance, row->shape, row->name,
            row->peer ? " (peer)" : "");
}

/* What was timed and no longer can be. */
static void tell_lost(FILE *file, const struct bench_row *old, const struct bench_row *row,
                      struct bench_comparison *out) {
    const bool was = old && (old->series[BENCH_COLD].n || old->series[BENCH_WARM].n);
    if (!was || row->state == BENCH_TIMED || row->peer) return;
    fprintf(file, "  %-11s %s  %s: %s\n", bench_state_name(row->state), row->shape, row->name, row->note);
    out->n_lost++;
}

static void tell_row(FILE *file, const struct bench_row *old, const struct bench_row *row, double level,
                     struct bench_comparison *out) {
    tell_lost(file, old, row, out);
    for (int cache = 0; cache < BENCH_CACHES; cache++) {
        if (!both_timed(old, row, cache)) continue;
        const struct bench_change c = bench_change_of(&old->series[cache], &row->series[cache], level);
        if (row->gauge) {
            out->other_machine |= c.verdict >= BENCH_FASTER;
        } else if (!row->peer) {
            out->n[c.verdict]++;
        }
        if (c.verdict != BENCH_SAME) print_change(file, row, cache, &c);
    }
}

struct bench_comparison bench_compare(FILE *file, const struct bench_result *before,
                                      const struct bench_result *now) {
    struct bench_comparison out = {0};
    const int pairs = count_pairs(before, now);
    const double level = BENCH_LEVEL / (pairs ? pairs : 1);
    fprintf(file, "compared with a run of shardcheck %s; what is the same is not listed:\n", before->version);
    for (int gauge = 1; gauge >= 0 && !out.other_machine; gauge--)
        for (int64_t i = 0; i < now->n_rows; i++)
            if (now->row[i].gauge == gauge)
                tell_row(file, bench_find(before, &now->row[i]), &now->row[i], level, &out);
    if (out.other_machine) return out;
    out.worse = out.n[BENCH_SLOWER] || out.n_lost;
    fprintf(file, "%d slower, %d faster, %d same, %d cannot tell, %d no longer timed\n", out.n[BENCH_SLOWER],
            out.n[BENCH_FASTER], out.n[BENCH_SAME], out.n[BENCH_UNCLEAR], out.n_lost);
    return out;
}
