/* What does a person on a terminal see at a glance?  The text report with its verdicts in colour;
 * without the colours it is the same, byte for byte. */
/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"

#define PLAIN "\033[m"
static const char *const paint[] = {[CASE_PASSED] = "\033[32m",
                                    [CASE_FAILED] = "\033[1;31m",
                                    [CASE_SKIPPED] = "\033[33m",
                                    [CASE_WAIVED] = "\033[33m"};

static void put(FILE *file, const char *text, size_t length) { fwrite(text, 1, length, file); }

/* The verdict at its beginning, or every edge that has failed where it lists the edges. */
static void paint_line(FILE *file, const char *line, size_t length) {
    static const char fail[] = "FAIL", edges[] = "  edges ";
    for (int v = CASE_PASSED; v <= CASE_WAIVED; v++) {
        const char *const name = verdict_name((enum case_verdict)v);
        const size_t n = strlen(name);
        if (strncmp(line, name, n) || line[n] != ' ') continue;
        fprintf(file, "%s%s" PLAIN, paint[v], name);
        put(file, line + n, length - n);
        return;
    }
    const char *const end = line + length, *at = line;
    while (!strncmp(line, edges, strlen(edges))) {
        const char *const next = strstr(at, fail);
        if (!next || next >= end) break;
        put(file, at, (size_t)(next - at));
        fprintf(file, "%s%s" PLAIN, paint[CASE_FAILED], fail);
        at = next + strlen(fail);
    }
    put(file, at, (size_t)(end - at));
}

/* The last line is that of the whole run, where there is one. */
static void paint_text(FILE *file, const char *text, const char *last) {
    while (*text) {
        const size_t n = strcspn(text, "\n");
        const bool ended = text[n] != 0;
        if (last && !text[n + ended])
            fprintf(file, "%s%.*s" PLAIN, last, (int)n, text);
        else
            paint_line(file, text, n);
        if (ended) fputc('\n', file);
        text += n + ended;
    }
}

static void paint_one(FILE *file, const struct case_result *result, int verbosity) {
    char *text = NULL;
    size_t size = 0;
    FILE *const stream = open_memstream(&text, &size);
    if (stream) report_text_one(stream, result, verbosity);
    if (stream && !fclose(stream))
        paint_text(file, text, NULL);
    else
        report_text_one(file, result, verbosity);
    free(text);
}

static void paint_end(FILE *file, const struct run_result *run, int verbosity) {
    const enum case_verdict worst = run->n_failed || run->n_stale ? CASE_FAILED
                                    : run->n_skipped              ? CASE_SKIPPED
                                    : run->n_waived               ? CASE_WAIVED
                                                                  : CASE_PASSED;
    char *text = NULL;
    size_t size = 0;
    FILE *const stream = open_memstream(&text, &size);
    if (stream) report_text_end(stream, run, verbosity);
    if (stream && !fclose(stream))
        paint_text(file, text, paint[worst]);
    else
        report_text_end(file, run, verbosity);
    free(text);
}

const struct report_format report_text_coloured = {"text", "the text report for a terminal",
                                                   report_text_begin, paint_one, paint_end};
