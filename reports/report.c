/* The formats, and the words they share. */
/* SPDX-License-Identifier: MIT */
#include "reports/report.h"

#include <string.h>

const struct report_format report_formats[] = {
    {"text", "one line a case, a block for every failure", report_text_begin, report_text_one,
     report_text_end},
    {"json", "everything that was measured (schema shardcheck-result/1)", NULL, NULL, report_json},
    {"junit", "JUnit XML for CI servers", NULL, NULL, report_junit},
    {"html", "one page to look at; needs no network and no scripts", NULL, NULL, report_html},
    {"markdown", "a comment for a pull request: at most 60 lines", NULL, NULL, report_markdown},
    {"github", "annotations of a GitHub workflow, one a cause", NULL, NULL, report_github},
    {0},
};

static const char *const edge_names[EDGE_COUNT] = {[EDGE_KERNEL] = "kernel",
                                                   [EDGE_PLAN] = "plan",
                                                   [EDGE_SHARD] = "shard",
                                                   [EDGE_ORACLE] = "oracle",
                                                   [EDGE_CHAIN] = "chain"};
static const char *const edge_state_names[] = {
    [EDGE_NOT_RUN] = "-", [EDGE_OK] = "ok", [EDGE_LOOSE] = "too loose", [EDGE_FAIL] = "FAIL"};
static const char *const trend_state_names[] = {[TREND_NONE] = "-",
                                                [TREND_FINE] = "ok",
                                                [TREND_VAGUE] = "says nothing",
                                                [TREND_SILENT] = "not tested",
                                                [TREND_WRONG] = "FAIL"};
static const char *const verdict_names[] = {
    [CASE_PASSED] = "PASS", [CASE_FAILED] = "FAIL", [CASE_SKIPPED] = "SKIP", [CASE_WAIVED] = "WAIVED"};
static const char *const verdict_words[] = {
    [CASE_PASSED] = "passed", [CASE_FAILED] = "failed", [CASE_SKIPPED] = "skipped", [CASE_WAIVED] = "waived"};

const struct report_format *report_by_name(const char *name) {
    for (const struct report_format *f = report_formats; f->name; f++)
        if (!strcmp(f->name, name)) return f;
    return NULL;
}

void report_write(const struct report_format *f, FILE *file, const struct run_result *run, int verbosity) {
    if (f->begin) f->begin(file, run, verbosity);
    for (int64_t i = 0; i < run->n_cases && f->one; i++) f->one(file, &run->cases[i], verbosity);
    f->end(file, run, verbosity);
}

const char *edge_name(enum edge edge) { return edge_names[edge]; }
const char *edge_state_name(enum edge_state state) { return edge_state_names[state]; }
const char *trend_state_name(enum trend_state state) { return trend_state_names[state]; }
bool report_is_recorded(const struct case_result *r) {
    if (r->edge[EDGE_KERNEL].state != EDGE_NOT_RUN) return false;
    for (int i = 0; i < r->n_stages; i++)
        if (r->stage[i].unjudged[0]) return true;
    return r->edge[EDGE_ORACLE].state != EDGE_NOT_RUN;
}

const char *verdict_name(enum case_verdict verdict) { return verdict_names[verdict]; }
const char *verdict_word(enum case_verdict verdict) { return verdict_words[verdict]; }

/* No key's value has a '/'; a model's path may have any character. */
size_t report_head_length(const char *line) {
    const char *const part = strrchr(line, '/');
    return part ? (size_t)(part - line) + strcspn(part, ":") : strcspn(line, ":");
}

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
int report_utf8_length(const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) return s[0] != 0;
    const int n = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
                  : (s[0] & 0xf0) == 0xe0        ? 3
                  : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                                 : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0;
    if (s[0] == 0xed && s[1] > 0x9f) return 0;
    if (s[0] == 0xf0 && s[1] < 0x90) return 0;
    if (s[0] == 0xf4 && s[1] > 0x8f) return 0;
    return n;
}

void report_count_facts(const struct run_result *run, int *met, int *all) {
    *met = *all = 0;
    for (int f = 0; f < run->n_facts; f++) {
        *all += run->fact[f].applies;
        *met += run->fact[f].applies && run->fact[f].n_cases > 0;
    }
}
