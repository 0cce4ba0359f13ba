/* Which failures are known? */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/waivers.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness/cli/report_file.h"
#include "harness/memory.h"
#include "layer/choices.h"
#include "layer/layer.h"
#include "layer/line.h"

enum { MAX_WAIVER_BYTES = 1 << 20 };
static const char chain[] = "chain", crash[] = "crash"; /* beside the stages */

/* ---- the file ---- */

static struct status line_error(const struct waivers *w, int line, const char *problem, const char *value,
                                const char *remedy) {
    return status_error("--waivers %.160s: line %d: %s%.60s; %s", w->path, line, problem, value, remedy);
}

static struct status check_stage(const struct waivers *w, const struct waiver *one) {
    struct choices choices = {0};
    char text[160], remedy[200];
    if (stage_by_name(one->stage) >= 0 || !strcmp(one->stage, chain) || !strcmp(one->stage, crash))
        return status_ok();
    for (int s = 0; s < S_COUNT; s++) choices_add(&choices, "%s", stage_table[s].name);
    choices_add(&choices, "%s", chain);
    choices_add(&choices, "%s", crash);
    choices_text(&choices, one->stage, text, sizeof text);
    snprintf(remedy, sizeof remedy, "use %s", text);
    return line_error(w, one->line, "no such stage: ", one->stage, remedy);
}

/* Written the same way again, it was a date: 2026-02-30 would become March. */
static struct status check_date(const struct waivers *w, struct waiver *one) {
    char again[16] = "", today[16] = "";
    struct tm day = {.tm_isdst = -1};
    const time_t now = time(NULL);
    struct tm local;
    char extra;
    const int n = sscanf(one->until, "%4d-%2d-%2d%c", &day.tm_year, &day.tm_mon, &day.tm_mday, &extra);
    day.tm_year -= 1900;
    day.tm_mon -= 1;
    day.tm_hour = 12;
    if (n == 3 && mktime(&day) != -1) strftime(again, sizeof again, "%Y-%m-%d", &day);
    if (strcmp(again, one->until) != 0)
        return line_error(w, one->line, "no date: ", one->until, "use YYYY-MM-DD, the last day");
    strftime(today, sizeof today, "%Y-%m-%d", localtime_r(&now, &local));
    one->expired = strcmp(one->until, today) < 0;
    return status_ok();
}

static char *word(char **at) {
    *at += strspn(*at, " \t");
    char *const begin = *at;
    *at += strcspn(*at, " \t");
    if (**at) *(*at)++ = 0;
    return begin;
}

static struct status read_line(struct waivers *w, char *line, int number) {
    struct waiver *const one = &w->of[w->n];
    line[strcspn(line, "\r")] = 0;
    char *at = line + strspn(line, " \t");
    if (!*at || *at == '#') return status_ok();
    *one = (struct waiver){.line = number};
    one->pattern = word(&at);
    one->stage = word(&at);
    one->until = word(&at);
    one->reason = at + strspn(at, " \t");
    if (!*one->reason) return line_error(w, number, "incomplete", "", "use PATTERN STAGE YYYY-MM-DD REASON");
    TRY(check_stage(w, one));
    w->n++;
    return check_date(w, one);
}

struct status waivers_parse(const char *path, char *text, size_t length, struct waivers *out) {
    *out = (struct waivers){.path = path, .text = text};
    struct status s = status_ok();
    int lines = 1, number = 1;
    if (memchr(out->text, 0, length)) s = line_error(out, 1, "not a text", "", "write one waiver a line");
    for (size_t i = 0; i < length; i++) lines += out->text[i] == '\n';
    out->of = memory_zeroed((size_t)lines, sizeof *out->of);
    for (char *line = out->text, *end; line && !s.code; line = end) {
        end = strchr(line, '\n');
        if (end) *end++ = 0;
        s = read_line(out, line, number++);
    }
    if (s.code) waivers_free(out);
    return s;
}

struct status waivers_read(const char *path, struct waivers *out) {
    char *text;
    size_t length;
    TRY(file_read("--waivers ", path, MAX_WAIVER_BYTES, "one with PATTERN STAGE YYYY-MM-DD REASON a line",
                  &text, &length));
    return waivers_parse(path, text, length, out);
}

void waivers_free(struct waivers *w) {
    free(w->text);
    free(w->of);
    *w = (struct waivers){0};
}

/* ---- where has a case failed? ---- */

enum { MAX_PLACES = 40, PLACE_SIZE = 32 };
struct places {
    int n;
    char name[MAX_PLACES][PLACE_SIZE];
};

static void add_place(struct places *p, const char *name, size_t length) {
    if (p->n < MAX_PLACES) snprintf(p->name[p->n++], PLACE_SIZE, "%.*s", (int)length, name);
}

/* A crash in the stage that `where` begins with. */
static void add_crash(struct places *p, const struct case_result *r) {
    static const char begin[] = "stage ";
    const char *const stage = r->where + strlen(begin);
    if (strncmp(r->where, begin, strlen(begin)) != 0)
        add_place(p, crash, strlen(crash));
    else
        add_place(p, stage, strcspn(stage, ","));
}

/* Every stage with an edge that failed; an edge of the case that fails at none of its stages (the file of an
 * oracle shows steps that a fused kernel has not) fails at the first one found. */
static struct places places_of(const struct case_result *r) {
    struct places p = {0};
    bool edge[EDGE_COUNT] = {false};
    for (int i = 0; i < r->n_stages; i++) {
        bool failed = false;
        for (int e = 0; e < EDGE_CHAIN; e++) {
            edge[e] |= r->stage[i].edge[e].state == EDGE_FAIL;
            failed |= r->stage[i].edge[e].state == EDGE_FAIL;
        }
        if (failed) add_place(&p, r->stage[i].stage, strlen(r->stage[i].stage));
    }
    for (int e = 0; e < EDGE_CHAIN; e++)
        if (r->edge[e].state == EDGE_FAIL && !edge[e]) add_place(&p, r->first.stage, strlen(r->first.stage));
    if (r->edge[EDGE_CHAIN].state == EDGE_FAIL) add_place(&p, chain, strlen(chain));
    if (r->crashed) add_crash(&p, r);
    return p;
}

static bool is_at(const struct places *p, const char *stage) {
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->name[i], stage)) return true;
    return false;
}

static bool matches(const struct waiver *w, const struct case_result *r) {
    return !fnmatch(w->pattern, r->line, 0);
}

/* ---- what they do ---- */

static const struct waiver *cover(const struct waivers *w, const struct case_result *r, const char *stage) {
    for (int i = 0; i < w->n; i++)
        if (!w->of[i].expired && matches(&w->of[i], r) && !strcmp(w->of[i].stage, stage)) return &w->of[i];
    return NULL;
}

void waivers_apply(const struct waivers *w, struct case_result *r) {
    if (r->verdict != CASE_FAILED) return;
    const struct places p = places_of(r);
    const struct waiver *first = NULL;
    for (int i = 0; i < p.n; i++) {
        const struct waiver *const by = cover(w, r, p.name[i]);
        if (!by) return;
        if (!first) first = by;
    }
    if (!first) return;
    r->verdict = CASE_WAIVED;
    snprintf(r->waived, sizeof r->waived, "until %s: %s", first->until, first->reason);
}

/* Ran: to its end, so that not to fail says something. */
static bool is_unused(const struct waiver *w, const struct run_result *run) {
    bool ran = false;
    for (int64_t i = 0; i < run->n_cases; i++) {
        const struct case_result *const r = &run->cases[i];
        if (r->verdict == CASE_SKIPPED || !matches(w, r)) continue;
        const struct places p = places_of(r);
        if (r->verdict != CASE_PASSED && is_at(&p, w->stage)) return false;
        ran |= !r->crashed;
    }
    return ran;
}

char **waivers_stale(const struct waivers *w, const struct run_result *run, int *n) {
    char **const lines = memory_zeroed((size_t)w->n + 1, sizeof *lines);
    *n = 0;
    for (int i = 0; i < w->n; i++) {
        const struct waiver *const one = &w->of[i];
        if (!one->expired && !is_unused(one, run)) continue;
        char text[600];
        if (one->expired)
            snprintf(text, sizeof text,
                     "%.200s:%d: waiver of %.200s at %s ended on %s; repair it, or set another day", w->path,
                     one->line, one->pattern, one->stage, one->until);
        else
            snprintf(text, sizeof text,
                     "%.200s:%d: waiver of %.200s at %s applies no longer, nothing failed there; "
                     "remove it",
                     w->path, one->line, one->pattern, one->stage);
        lines[*n] = strdup(text);
        if (lines[*n]) line_clean(lines[(*n)++]);
    }
    return lines;
}

void waivers_free_stale(char **stale, int n) {
    for (int i = 0; i < n; i++) free(stale[i]);
    free(stale);
}
