/* What does a green page not say?  In a line before anything else, and item by item with reasons at its
 * end. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "reports/html.h"

void html_gaps_line(FILE *file, const struct run_result *run) {
    fputs("<p class=\"gaps\"><b>Not checked:</b> ", file);
    report_gaps(file, run);
    fputs(".</p>\n", file);
}

/* ---- item by item ---- */

/* The cases of one verdict, each with why it has it. */
static void print_cases(FILE *file, const struct run_result *run, enum case_verdict verdict,
                        const char *title) {
    fprintf(file, "<h3>%s</h3>\n<ul>\n", title);
    for (int64_t i = 0; i < run->n_cases; i++) {
        const struct case_result *const c = &run->cases[i];
        if (c->verdict != verdict) continue;
        const char *const why = verdict == CASE_WAIVED ? c->waived : c->reason;
        fputs("<li>", file);
        html_element(file, "code", NULL, c->line);
        fputs(": ", file);
        report_escape(file, why[0] ? why : "no reason given");
        fputs("</li>\n", file);
    }
    fputs("</ul>\n", file);
}

static void print_stale(FILE *file, const struct run_result *run) {
    fputs("<h3>Stale waivers</h3>\n<ul>\n", file);
    for (int64_t i = 0; i < run->n_stale; i++) {
        html_element(file, "li", NULL, run->stale[i]);
        fputc('\n', file);
    }
    fputs("</ul>\n", file);
}

static void print_unmet(FILE *file, const struct run_result *run) {
    fputs("<h3>Facts of coverage not met</h3>\n<p>", file);
    for (int f = 0, shown = 0; f < run->n_facts; f++) {
        if (!run->fact[f].applies || run->fact[f].n_cases) continue;
        if (shown++) fputs(", ", file);
        report_escape(file, run->fact[f].name);
    }
    fputs("</p>\n", file);
}

static void print_unchained(FILE *file, const struct run_result *run) {
    fputs("<h3>Without the chain edge</h3>\n<ul>\n", file);
    for (int64_t i = 0; i < run->n_cases; i++) {
        if (!run->cases[i].unchained[0]) continue;
        fputs("<li>", file);
        html_element(file, "code", NULL, run->cases[i].line);
        fputs(": reference/plain.c does not know ", file);
        report_escape(file, run->cases[i].unchained);
        fputs("</li>\n", file);
    }
    fputs("</ul>\n", file);
}

/* Stages and what is to say of them, each pair once. */
struct notes {
    int n;
    int64_t others; /* that found no room */
    struct note {
        const char *stage, *why;
        int64_t times;
    } note[128];
};

static void note_add(struct notes *notes, const char *stage, const char *why) {
    struct note *at = notes->note;
    const struct note *const end = at + sizeof notes->note / sizeof *notes->note;
    while (at < notes->note + notes->n && (strcmp(at->stage, stage) || strcmp(at->why, why))) at++;
    if (at == end) {
        notes->others++;
        return;
    }
    if (at == notes->note + notes->n) notes->n++;
    *at = (struct note){stage, why, at->times + 1};
}

static void note_stage(struct notes *notes, const struct stage_result *s) {
    static const char *const loose[EDGE_COUNT] = {
        [EDGE_KERNEL] = "kernel edge too loose", [EDGE_PLAN] = "plan edge too loose",
        [EDGE_SHARD] = "shard edge too loose",   [EDGE_ORACLE] = "oracle edge too loose",
        [EDGE_CHAIN] = "chain edge too loose",
    };
    for (int e = 0; e < EDGE_COUNT; e++) {
        const struct trend *const t = &s->edge[e].trend;
        if (s->edge[e].state == EDGE_LOOSE) note_add(notes, s->stage, loose[e]);
        if (t->state == TREND_VAGUE) note_add(notes, s->stage, "statistical test too coarse to say anything");
        if (t->state == TREND_SILENT) note_add(notes, s->stage, t->reason);
    }
}

static bool is_news(const struct notes *notes, int i) {
    for (int k = 0; k < i; k++)
        if (!strcmp(notes->note[k].why, notes->note[i].why)) return false;
    return true;
}

/* "lattice fill: attn_norm (20 times), rope (7 times)": all that note i says of stages. */
static void print_note(FILE *file, const struct notes *notes, int i) {
    fputs("<li>", file);
    report_escape(file, notes->note[i].why);
    for (int k = i; k < notes->n; k++) {
        const struct note *const at = &notes->note[k];
        if (strcmp(at->why, notes->note[i].why)) continue;
        fputs(k == i ? ": " : ", ", file);
        html_element(file, "code", NULL, at->stage);
        fprintf(file, " (%lld)", (long long)at->times);
    }
    fputs("</li>\n", file);
}

static void print_notes(FILE *file, const struct run_result *run) {
    struct notes notes = {0};
    for (int64_t i = 0; i < run->n_cases; i++)
        for (int s = 0; s < run->cases[i].n_stages && !run->cases[i].same_as; s++)
            note_stage(&notes, &run->cases[i].stage[s]);
    fputs("<h3>Edges and statistical tests that prove nothing</h3>\n<ul>\n", file);
    for (int i = 0; i < notes.n; i++)
        if (is_news(&notes, i)) print_note(file, &notes, i);
    if (notes.others) fprintf(file, "<li>and %lld of other kinds</li>\n", (long long)notes.others);
    fputs("</ul>\n", file);
}

void html_gaps(FILE *file, const struct run_result *run) {
    const struct gaps g = report_count_gaps(run);
    const bool unmet = run->fact && g.unmet, unread = run->unread && run->unread[0];
    if (!unread && !g.skipped && !run->n_waived && !run->n_stale && !g.unchained && !g.loose && !g.silent &&
        !unmet)
        return;
    fputs("<h2>Not checked</h2>\n", file);
    if (g.skipped) print_cases(file, run, CASE_SKIPPED, "Skipped");
    if (run->n_waived) print_cases(file, run, CASE_WAIVED, "Waived failures");
    if (run->n_stale) print_stale(file, run);
    if (unread) {
        fputs("<h3>Names in the dump under which nothing is known</h3>\n", file);
        html_element(file, "p", NULL, run->unread);
    }
    if (unmet) print_unmet(file, run);
    if (g.unchained) print_unchained(file, run);
    if (g.loose || g.silent) print_notes(file, run);
}
