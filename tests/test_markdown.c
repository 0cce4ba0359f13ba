/* Does what stands under a pull request stay short, whole and honest, whatever the run and its strings? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"

#define HOSTILE "`|%::error::x```\r<b>" /* findings are one line each, by themselves */
enum { CASES = 100 };
static struct case_result cases[CASES];

static struct run_result run_of(int n, int n_failed, int n_skipped) {
    for (int i = 0; i < n; i++) {
        struct case_result *const c = &cases[i];
        free(c->repro);
        *c = (struct case_result){
            .verdict = i < n_failed               ? CASE_FAILED
                       : i < n_failed + n_skipped ? CASE_SKIPPED
                                                  : CASE_PASSED,
            .edge = {[EDGE_KERNEL] = {.state = EDGE_OK, .margin = 0.42, .elements = 10}}};
        snprintf(c->line, sizeof c->line, "m%d/attention:tp=%d", i % 20, i);
        if (c->verdict == CASE_SKIPPED)
            snprintf(c->reason, sizeof c->reason, "%s", "reason\n::error::y" HOSTILE);
        if (i >= n_failed) continue;
        c->edge[EDGE_SHARD] =
            (struct edge_result){.state = EDGE_FAIL, .margin = 2.0 + i, .elements = 10, .outside = 3};
        c->first = c->worst =
            (struct mismatch){"", "o", i, "token 3" HOSTILE, NAN, 0.5, 1e-3, 2.0 + i, "note" HOSTILE, 0};
        snprintf(c->first.stage, sizeof c->first.stage, "stage_%c", 'a' + i % 26);
        snprintf(c->where, sizeof c->where, "stage stage_%c, %s", 'a' + i % 26, HOSTILE);
        snprintf(c->likely, sizeof c->likely, "%s", "likely" HOSTILE);
        c->repro = strdup("shardcheck run '" HOSTILE "'");
    }
    return (struct run_result){.version = "0.1.0",
                               .device = "host\n::error::z" HOSTILE,
                               .command = "shardcheck run",
                               .cases = cases,
                               .n_cases = n,
                               .n_failed = n_failed,
                               .n_skipped = n_skipped,
                               .n_passed = n - n_failed - n_skipped};
}

static char *written(const char *format, const struct run_result *run) {
    char *text = NULL;
    size_t size = 0;
    FILE *const file = open_memstream(&text, &size);
    cr_assert(file);
    report_write(report_by_name(format), file, run, 0);
    cr_assert_eq(fclose(file), 0);
    return text;
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word)) n++;
    return n;
}

Test(markdown, a_hundred_cases_of_many_causes_take_at_most_sixty_lines) {
    static const int failed[] = {0, 1, 3, 30, 100};
    for (size_t i = 0; i < sizeof failed / sizeof *failed; i++) {
        const struct run_result run = run_of(CASES, failed[i], (CASES - failed[i]) / 2);
        char *const text = written("markdown", &run);
        cr_expect_leq(count(text, "\n"), 60, "%d lines:\n%s", count(text, "\n"), text);
        free(text);
    }
}

Test(markdown, the_verdict_and_what_was_not_checked_come_first_and_the_worst_cause_is_told_whole) {
    const struct run_result run = run_of(6, 4, 1);
    char *const text = written("markdown", &run);
    static const char *const parts[] = {"**shardcheck: 4 failed, 1 passed, 1 skipped** on host",
                                        "\nNot checked: 1 case skipped; ",
                                        "\n**stage_d** `m3/attention:tp=3`\n```\n",
                                        "  likely    likely",
                                        "  repro     shardcheck run",
                                        "\n2 other causes:\n- `m1/attention:tp=1`\n- `m0/attention:tp=0`\n",
                                        "\n1 skipped:\n- `m4/attention:tp=4`: reason"};
    const char *at = text;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        at = strstr(at, parts[i]);
        cr_assert(at, "'%s' is missing or out of order in\n%s", parts[i], text);
    }
    free(text);
}

Test(markdown, no_string_ends_a_block_a_cell_or_a_line) {
    const struct run_result run = run_of(3, 2, 1);
    char *const text = written("markdown", &run);
    cr_expect_eq(count(text, "```"), 4);
    cr_expect_eq(count(text, "\n::error"), 0);
    cr_expect_eq(count(text, "\r"), 0);
    cr_expect_null(strstr(text, "`|"));
    free(text);
}

Test(markdown, a_workflow_gets_one_annotation_a_cause_and_one_of_the_run) {
    struct run_result run = run_of(40, 30, 1);
    char *text = written("github", &run);
    cr_expect_eq(count(text, "\n"), 26 + 1, "stages a to z: 26 causes");
    for (const char *line = text; *line; line = strchr(line, '\n') + 1)
        cr_expect_eq(strncmp(line, "::error title=", 14), 0, "%.60s", line);
    cr_expect(strstr(text, "::error title=stage_z%3A m5/attention%3Atp=25::"), "%s", text);
    cr_expect(strstr(text, "and 1 more cases fail alike"));
    cr_expect(strstr(text, "::error title=shardcheck::30 failed, 9 passed, 1 skipped on host"));
    free(text);
    run = run_of(2, 0, 1);
    text = written("github", &run);
    cr_expect_eq(strncmp(text, "::warning title=shardcheck::0 failed, 1 passed, 1 skipped on host", 60), 0);
    free(text);
}

Test(markdown, waived_failures_and_stale_waivers_are_said_with_their_reasons) {
    static char *stale[] = {"waivers.txt line 3: nothing fails there any more"};
    struct run_result run = run_of(3, 0, 0);
    cases[1].verdict = CASE_WAIVED;
    snprintf(cases[1].waived, sizeof cases[1].waived, "until 2026-12-31: known");
    run.n_passed = 2, run.n_waived = 1, run.stale = stale, run.n_stale = 1;
    char *text = written("markdown", &run);
    cr_expect(strstr(text, "**shardcheck: 0 failed, 2 passed, 0 skipped, 1 waived** on"), "%s", text);
    cr_expect(strstr(text, "\n1 waived:\n- `m1/attention:tp=1`: until 2026-12-31: known\n"), "%s", text);
    cr_expect(strstr(text, "stale waivers:**\n- waivers.txt line 3: nothing fails there any more\n"), "%s",
              text);
    free(text);
    text = written("github", &run);
    cr_expect_eq(count(text, "::error title=stale waiver::waivers.txt line 3"), 1);
    cr_expect_eq(count(text, "::error title=shardcheck::"), 1);
    free(text);
}

Test(markdown, the_head_of_a_line_is_its_model_and_part) {
    static const struct {
        const char *line;
        size_t length;
    } lines[] = {
        {"tiny/ffn:tp=2,tokens=3", 8}, {"tiny/attention", 14}, {"./a:b/c=d,e.json/ffn:tp=2", 20}, {"odd", 3}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        cr_expect_eq(report_head_length(lines[i].line), lines[i].length, "%s", lines[i].line);
}
