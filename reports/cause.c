/* Have two cases failed for one reason? Nobody can know; where they fail in the same way, one of them
 * is enough to read. */
/* SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"

/* Every number as '#', so that sizes do not tell cases apart. */
static void without_numbers(char *to, size_t size, const char *from) {
    size_t n = 0;
    while (*from && n + 1 < size) {
        const bool digit = isdigit((unsigned char)*from);
        to[n++] = digit ? '#' : *from;
        from += digit ? strspn(from, "0123456789") : 1;
    }
    to[n] = 0;
}

/* A part of `where` between commas that says which ranks, or how many elements. */
static bool is_about_ranks_or_counts(const char *clause) {
    static const char *const begin[] = {"rank #",     "ranks #",  "every rank", "odd ranks",
                                        "even ranks", "ranks r ", "# of # ",    "every element"};
    if (strspn(clause, "#- of") == strlen(clause)) return true; /* the rest of a list */
    for (size_t i = 0; i < sizeof begin / sizeof *begin; i++)
        if (!strncmp(clause, begin[i], strlen(begin[i]))) return true;
    return false;
}

static void pattern_of(char *to, size_t size, const char *where) {
    char text[sizeof((struct case_result *)0)->where];
    without_numbers(text, sizeof text, where);
    to[0] = 0;
    for (char *clause = text; *clause;) {
        char *const end = strstr(clause, ", ");
        if (end) *end = 0;
        if (!is_about_ranks_or_counts(clause)) {
            strncat(to, clause, size - strlen(to) - 1);
            strncat(to, ", ", size - strlen(to) - 1);
        }
        if (!end) break;
        clause = end + 2;
    }
}

static bool same_but_numbers(const char *a, const char *b) {
    char x[600], y[600];
    without_numbers(x, sizeof x, a);
    without_numbers(y, sizeof y, b);
    return !strcmp(x, y);
}

static bool same_pattern(const char *a, const char *b) {
    char x[300], y[300];
    pattern_of(x, sizeof x, a);
    pattern_of(y, sizeof y, b);
    return !strcmp(x, y);
}

/* "packed-view (source): ..." by its name. */
static bool same_likely(const char *a, const char *b) {
    const size_t n = strcspn(a, " ");
    return n == strcspn(b, " ") && !strncmp(a, b, n);
}

bool report_same_cause(const struct case_result *a, const struct case_result *b) {
    if (a->verdict != CASE_FAILED || b->verdict != CASE_FAILED || a->crashed != b->crashed) return false;
    if (strcmp(a->first.stage, b->first.stage) || (a->first.rank < 0) != (b->first.rank < 0)) return false;
    if (a->likely[0] || b->likely[0]) return same_likely(a->likely, b->likely);
    return same_pattern(a->where, b->where) && same_but_numbers(a->resembles, b->resembles) &&
           same_but_numbers(a->first.note, b->first.note) && same_but_numbers(a->reason, b->reason);
}

/* ---- all that failed, by cause ---- */

static double worst_margin(const struct case_result *c) {
    double worst = 0;
    for (int e = 0; e < EDGE_COUNT; e++)
        if (c->edge[e].state == EDGE_FAIL)
            worst = fmax(worst, fmax(c->edge[e].margin, c->edge[e].trend.statistic));
    return worst;
}

/* Crashes, then by margin, then in the order of the run. */
static int by_weight(const void *a, const void *b) {
    const struct failure_cause *const x = a, *const y = b;
    const double mx = worst_margin(x->told), my = worst_margin(y->told);
    if (x->told->crashed != y->told->crashed) return x->told->crashed ? -1 : 1;
    if (mx != my) return mx > my ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

int64_t report_causes(const struct run_result *run, struct failure_cause *cause) {
    int64_t n = 0;
    for (int64_t i = 0; i < run->n_cases; i++) {
        if (run->cases[i].verdict != CASE_FAILED) continue;
        int64_t k = 0;
        while (k < n && !report_same_cause(cause[k].told, &run->cases[i])) k++;
        if (k == n) cause[n++] = (struct failure_cause){&run->cases[i], i, 0};
        cause[k].n_cases++;
    }
    qsort(cause, (size_t)n, sizeof *cause, by_weight);
    return n;
}
