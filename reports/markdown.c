/* What does a reviewer read under a pull request?  The verdict and what it does not cover, a row a model and
 * part, the worst failures whole and the others by name: never more than 60 lines. And what a GitHub
 * workflow shows beside the log: one annotation a cause. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"

enum { HEADS = 6, TOLD = 2, NAMED = 4, REASONS = 2 };

/* One line; what would end a cell, a code span or a block is '?'. */
static void print_plain(FILE *file, const char *text, size_t n) {
    for (size_t i = 0; i < n && text[i]; i++) {
        const unsigned char c = (unsigned char)text[i];
        fputc(c < ' ' || c == 0x7f || c == '`' || c == '|' ? '?' : c, file);
    }
}

static void print_code(FILE *file, const char *text, size_t n) {
    fputc('`', file);
    print_plain(file, text, n);
    fputc('`', file);
}

static void print_counts(FILE *file, const struct run_result *run) {
    fprintf(file, "%lld failed, %lld passed, %lld skipped", (long long)run->n_failed,
            (long long)run->n_passed, (long long)run->n_skipped);
    if (run->n_waived) fprintf(file, ", %lld waived", (long long)run->n_waived);
}

/* ---- a row a model and part ---- */

struct head {
    const char *line; /* of its first case */
    size_t length;
    int64_t n[CASE_VERDICTS];
    double margin[EDGE_COUNT];
    bool failed[EDGE_COUNT], ran[EDGE_COUNT];
};

static struct head *head_of(struct head *heads, int64_t *n, const char *line) {
    const size_t length = report_head_length(line);
    for (int64_t i = 0; i < *n; i++)
        if (heads[i].length == length && !strncmp(heads[i].line, line, length)) return &heads[i];
    heads[*n] = (struct head){.line = line, .length = length};
    return &heads[(*n)++];
}

static void print_head(FILE *file, const struct head *h) {
    fputs("| ", file);
    print_code(file, h->line, h->length);
    fprintf(file, " | %lld | %s%lld%s | %lld |", (long long)h->n[CASE_PASSED], h->n[CASE_FAILED] ? "**" : "",
            (long long)h->n[CASE_FAILED], h->n[CASE_FAILED] ? "**" : "",
            (long long)(h->n[CASE_SKIPPED] + h->n[CASE_WAIVED]));
    for (int e = 0; e < EDGE_COUNT; e++) {
        char margin[32];
        report_margin(margin, sizeof margin, h->margin[e]);
        fprintf(file, " %s |",
                h->failed[e]       ? "**FAIL**"
                : !h->ran[e]       ? "-"
                : h->margin[e] > 0 ? margin
                                   : "ok");
    }
    fputc('\n', file);
}

static void print_heads(FILE *file, const struct run_result *run) {
    struct head *const heads = calloc((size_t)run->n_cases + 1, sizeof *heads);
    int64_t n = 0;
    for (int64_t i = 0; i < run->n_cases && heads; i++) {
        const struct case_result *const c = &run->cases[i];
        struct head *const h = head_of(heads, &n, c->line);
        h->n[c->verdict]++;
        for (int e = 0; e < EDGE_COUNT; e++) {
            h->ran[e] |= c->edge[e].state != EDGE_NOT_RUN;
            h->failed[e] |= c->edge[e].state == EDGE_FAIL;
            h->margin[e] = fmax(h->margin[e], c->edge[e].margin);
        }
    }
    fputs("\n| cases | passed | failed | not counted |", file);
    for (int e = 0; e < EDGE_COUNT; e++) fprintf(file, " %s |", edge_name((enum edge)e));
    fputs("\n|---|--:|--:|--:|---|---|---|---|---|\n", file);
    for (int failing = 1; failing >= 0; failing--) /* those first */
        for (int64_t i = 0, shown = 0; i < n; i++)
            if ((heads[i].n[CASE_FAILED] > 0) == failing && shown++ < HEADS / 2) print_head(file, &heads[i]);
    if (n > HEADS)
        fprintf(file, "\n%lld rows of models and parts in all; the table has at most %d.\n", (long long)n,
                HEADS);
    free(heads);
}

/* ---- failures ---- */

static void print_block(FILE *file, const struct case_result *c) {
    char *text = NULL;
    size_t size = 0;
    FILE *const stream = open_memstream(&text, &size);
    if (!stream) return;
    report_text_failure(stream, c);
    fputs("```\n", file);
    if (!fclose(stream))
        for (const char *line = text; *line;) {
            const size_t n = strcspn(line, "\n");
            print_plain(file, line, n);
            fputc('\n', file);
            line += n + (line[n] == '\n');
        }
    fputs("```\n", file);
    free(text);
}

static void print_name(FILE *file, const struct failure_cause *cause) {
    const struct case_result *const c = cause->told;
    print_code(file, c->line, sizeof c->line);
    if (cause->n_cases > 1) fprintf(file, " and %lld more alike", (long long)cause->n_cases - 1);
    fputs(c->crashed ? ": crashed\n" : "\n", file);
}

static void print_failures(FILE *file, const struct run_result *run) {
    struct failure_cause *const cause = calloc((size_t)run->n_failed + 1, sizeof *cause);
    const int64_t n = cause ? report_causes(run, cause) : 0;
    for (int64_t i = 0; i < n && i < TOLD; i++) {
        fputs("\n**", file);
        print_plain(file, cause[i].told->first.stage, sizeof cause[i].told->first.stage);
        fputs(cause[i].told->first.stage[0] ? "** " : "failed** ", file);
        print_name(file, &cause[i]);
        print_block(file, cause[i].told);
    }
    if (n > TOLD) fprintf(file, "\n%lld other cause%s:\n", (long long)(n - TOLD), n - TOLD == 1 ? "" : "s");
    for (int64_t i = TOLD; i < n && i < TOLD + NAMED; i++) {
        fputs("- ", file);
        print_name(file, &cause[i]);
    }
    if (n > TOLD + NAMED) fprintf(file, "- and %lld more\n", (long long)(n - TOLD - NAMED));
    free(cause);
}

/* Cases of one verdict with their reasons. */
static void print_reasons(FILE *file, const struct run_result *run, enum case_verdict verdict, int64_t n) {
    if (!n) return;
    fprintf(file, "\n%lld %s:\n", (long long)n, verdict_word(verdict));
    for (int64_t i = 0, shown = 0; i < run->n_cases && shown < REASONS; i++) {
        const struct case_result *const c = &run->cases[i];
        if (c->verdict != verdict) continue;
        shown++;
        fputs("- ", file);
        print_code(file, c->line, sizeof c->line);
        fputs(": ", file);
        print_plain(file, verdict == CASE_WAIVED ? c->waived : c->reason, sizeof c->reason);
        fputc('\n', file);
    }
    if (n > REASONS) fprintf(file, "- and %lld more\n", (long long)n - REASONS);
}

static void print_stale(FILE *file, const struct run_result *run) {
    if (run->n_stale) fprintf(file, "\n**%lld stale waivers:**\n", (long long)run->n_stale);
    for (int64_t i = 0; i < run->n_stale && i < REASONS; i++) {
        fputs("- ", file);
        print_plain(file, run->stale[i], strlen(run->stale[i]));
        fputc('\n', file);
    }
    if (run->n_stale > REASONS) fprintf(file, "- and %lld more\n", (long long)run->n_stale - REASONS);
}

void report_markdown(FILE *file, const struct run_result *run, int verbosity) {
    (void)verbosity; /* it stays short */
    fputs("**shardcheck: ", file);
    print_counts(file, run);
    fputs("** on ", file);
    print_plain(file, run->device, strlen(run->device));
    fputs("  \nNot checked: ", file);
    report_gaps(file, run);
    fputs(".\n", file);
    print_heads(file, run);
    print_failures(file, run);
    print_stale(file, run);
    print_reasons(file, run, CASE_SKIPPED, run->n_skipped);
    print_reasons(file, run, CASE_WAIVED, run->n_waived);
}

/* ---- annotations ---- */

/* Workflow commands: '%' and line ends of a message are written %XX, in a property ':' and ',' too. */
static void print_encoded(FILE *file, const char *text, const char *special) {
    for (; *text; text++)
        if (*text == '%' || (unsigned char)*text < ' ' || strchr(special, *text))
            fprintf(file, "%%%02X", (unsigned char)*text);
        else
            fputc(*text, file);
}

static void print_annotation(FILE *file, const struct failure_cause *cause) {
    const struct case_result *const c = cause->told;
    char *text = NULL;
    size_t size = 0;
    FILE *const stream = open_memstream(&text, &size);
    fputs("::error title=", file);
    print_encoded(file, c->crashed ? "crashed" : c->first.stage[0] ? c->first.stage : "failed", ":,");
    fputs("%3A ", file);
    print_encoded(file, c->line, ":,");
    fputs("::", file);
    if (stream) {
        report_text_failure(stream, c);
        if (cause->n_cases > 1)
            fprintf(stream, "  and %lld more cases fail alike\n", (long long)cause->n_cases - 1);
        if (!fclose(stream)) print_encoded(file, text, "");
    }
    fputc('\n', file);
    free(text);
}

void report_github(FILE *file, const struct run_result *run, int verbosity) {
    (void)verbosity;
    struct failure_cause *const cause = calloc((size_t)run->n_failed + 1, sizeof *cause);
    const int64_t n = cause ? report_causes(run, cause) : 0;
    for (int64_t i = 0; i < n; i++) print_annotation(file, &cause[i]);
    free(cause);
    for (int64_t i = 0; i < run->n_stale; i++) {
        fputs("::error title=stale waiver::", file);
        print_encoded(file, run->stale[i], "");
        fputc('\n', file);
    }
    fprintf(file, "::%s title=shardcheck::",
            run->n_failed || run->n_stale ? "error"
            : run->n_skipped              ? "warning"
                                          : "notice");
    print_counts(file, run);
    fputs(" on ", file);
    print_encoded(file, run->device, "");
    fputs("%0ANot checked: ", file);
    report_gaps(file, run);
    fputs(".\n", file);
}
