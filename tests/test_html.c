/* Is the page whole, honest about what was not judged, and safe whatever the strings? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "reports/report.h"
#include "tests/folder.h"
#include "tests/xml.h"

static char *page_of(const struct run_result *run) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    cr_assert(file);
    report_write(report_by_name("html"), file, run, 0);
    cr_assert_eq(fclose(file), 0);
    return text;
}

/* Of a page that a strict reader of XML accepts. */
static int count(const char *page, const char *element) {
    const char *const doctype = "<!DOCTYPE html>\n";
    int n = 0;
    cr_assert_eq(strncmp(page, doctype, strlen(doctype)), 0);
    const char *const end = xml_skip_element(page + strlen(doctype), element, &n);
    cr_assert(end && !strcmp(end, "\n"), "not well-formed:\n%.3000s", page);
    return n;
}

static void expect_contains(const char *text, const char *part) {
    cr_expect(strstr(text, part), "'%s' is missing in\n%s", part, text);
}

/* ---- a run of every verdict, with strings that have to be escaped ---- */

#define HOSTILE "<b>&\"'\x01\xff</p>"
static struct stage_result stages[2] = {
    {.stage = "qkv_proj",
     .kernel = "linear" HOSTILE,
     .edge = {[EDGE_KERNEL] = {EDGE_OK, 0.42, 1000}, [EDGE_PLAN] = {EDGE_OK, 0, 1000}}},
    {.stage = "attention",
     .kernel = "attention_simt",
     .edge = {[EDGE_KERNEL] = {EDGE_LOOSE, 0.003, 198},
              [EDGE_SHARD] = {EDGE_FAIL, 812, 198, 31},
              [EDGE_ORACLE] = {.trend = {.state = TREND_SILENT, .reason = "reason" HOSTILE}}}},
};

static struct case_result failed(const char *line, const char *likely, double margin) {
    struct case_result r = {
        .verdict = CASE_FAILED,
        .n_stages = 2,
        .stage = stages,
        .edge = {[EDGE_SHARD] = {EDGE_FAIL, margin, 198, 31}},
        .where = "where" HOSTILE,
        .resembles = "resembles" HOSTILE,
        .read = "read" HOSTILE,
        .first = {"attention", "o", 1, "token" HOSTILE, NAN, 0.456, 1e-3, margin, "note" HOSTILE},
        .worst = {"attention", "o", -1, "token 9", -INFINITY, 0.5, 1e-3, margin, ""}};
    snprintf(r.line, sizeof r.line, "%s", line);
    snprintf(r.likely, sizeof r.likely, "%s", likely);
    r.map = (struct heat_map){.tensor = "o",
                              .rows = {"token", 3, 3, 0, {0}},
                              .cols = {"head", 200, 4, 1, {100}},
                              .cell = {"0000", "0.19", "9900"},
                              .rank = "0.9"};
    r.repro = malloc(100);
    snprintf(r.repro, 100, "shardcheck run '%s'", line);
    return r;
}

static struct case_result cases[5];
static struct fact_count facts[2] = {{.name = "met", .applies = true, .n_cases = 3},
                                     {.name = "unmet" HOSTILE, .applies = true}};
static struct run_result run = {.version = "0.1.0",
                                .device = "host" HOSTILE,
                                .command = "shardcheck run '" HOSTILE "'",
                                .cases = cases,
                                .n_cases = 5,
                                .n_passed = 1,
                                .n_failed = 3,
                                .n_skipped = 1,
                                .fact = facts,
                                .n_facts = 2};

static void make_run(void) {
    cases[0] = (struct case_result){.line = "tiny/ffn:tp=1", .verdict = CASE_PASSED, .unchained = "a score"};
    cases[1] = failed("small", "packed-view (PR): q", 4);
    cases[2] = failed("alike", "packed-view (PR): q", 5);
    cases[3] = failed("path " HOSTILE "/x", "global-head-count (PR): h", INFINITY);
    cases[4] =
        (struct case_result){.line = "tiny/ffn:tp=9", .verdict = CASE_SKIPPED, .reason = "reason" HOSTILE};
}

TestSuite(html, .init = make_run);

Test(html, is_well_formed_whatever_the_strings_and_fetches_nothing) {
    char *const page = page_of(&run);
    cr_expect_eq(count(page, "html"), 1);
    static const char *const fetching[] = {"http:", "https:", "<script", "src=", "<link", "@import", "url("};
    for (size_t i = 0; i < sizeof fetching / sizeof *fetching; i++)
        cr_expect_null(strstr(page, fetching[i]), "%s", fetching[i]);
    cr_expect_null(strstr(page, "<b>&"));
    expect_contains(page, "&lt;b&gt;&amp;&quot;&apos;?\?&lt;/p&gt;");
    free(page);
}

Test(html, says_first_what_was_not_checked_and_why_at_the_end) {
    char *const page = page_of(&run);
    char *const line = strstr(page, "<p class=\"gaps\">"), *const head = strstr(page, "<dl>");
    cr_assert(line && head && line < head);
    *strchr(line, '\n') = 0;
    expect_contains(line, "1 case skipped; ");
    expect_contains(line, "1 fact of coverage not met; ");
    expect_contains(line, "3 edges too loose to prove anything; ");
    expect_contains(line, "3 statistical tests that say nothing; ");
    expect_contains(line, "1 case without the chain edge; ");
    expect_contains(line, "oracle edge: no file");
    char *const end = strstr(head, "<h2>Not checked</h2>");
    cr_assert(end);
    static const char *const why[] = {"tiny/ffn:tp=9</code>: reason&lt;", "unmet&lt;",
                                      "does not know a score",
                                      "<li>kernel edge too loose: <code>attention</code> (3)</li>",
                                      "&lt;/p&gt;: <code>attention</code> (3)</li>"};
    for (size_t i = 0; i < sizeof why / sizeof *why; i++) expect_contains(end, why[i]);
    free(page);
}

Test(html, waived_failures_and_stale_waivers_stand_with_their_reasons) {
    char *stale[] = {"line 3: not needed " HOSTILE};
    cases[0].verdict = CASE_WAIVED;
    snprintf(cases[0].waived, sizeof cases[0].waived, "until 2030-01-01: known" HOSTILE);
    run.n_passed = 0, run.n_waived = 1, run.stale = stale, run.n_stale = 1;
    char *const page = page_of(&run);
    cr_expect_eq(count(page, "h1"), 1);
    expect_contains(page, "0 passed, 3 failed, 1 skipped, 1 waived");
    expect_contains(
        page, "<h3>Waived failures</h3>\n<ul>\n<li><code>tiny/ffn:tp=1</code>: until 2030-01-01: known");
    expect_contains(page, "<li>line 3: not needed &lt;b&gt;");
    free(page);
}

Test(html, a_run_that_covers_everything_it_can_has_no_list_of_gaps) {
    struct case_result all = {.line = "tiny/ffn:tp=1", .edge = {[EDGE_ORACLE] = {EDGE_OK, 0, 1}}};
    struct run_result complete = {.version = "",
                                  .device = "",
                                  .command = "",
                                  .cases = &all,
                                  .n_cases = 1,
                                  .n_passed = 1,
                                  .fact = facts,
                                  .n_facts = 1};
    char *const page = page_of(&complete);
    expect_contains(page, "<b>Not checked:</b> oracle edge: only what its file holds.");
    cr_expect_null(strstr(page, "<h2>Not checked"));
    cr_expect_null(strstr(page, "What failed"));
    free(page);
}

Test(html, every_failed_case_is_there_with_its_command_one_section_a_cause_the_worst_first) {
    char *const page = page_of(&run);
    cr_expect_eq(count(page, "section"), 2);
    expect_contains(page, "shardcheck run &apos;small&apos;</code>");
    expect_contains(page, "<pre>shardcheck run &apos;alike&apos;</pre>");
    expect_contains(page, "shardcheck run &apos;path &lt;b&gt;");
    const char *const worst = strstr(page, "likely global-head-count (1 case)"),
                      *const other = strstr(page, "likely packed-view (2 cases)");
    cr_expect(worst && other && worst < other);
    free(page);
}

Test(html, the_guilty_stage_and_edge_are_marked_and_the_others_are_not) {
    char *const page = page_of(&run);
    cr_expect_eq(count(page, "li") >= 4, 1);
    expect_contains(page, "<li class=\"f guilty\"><span>attention</span><small>attention_simt</small>"
                          "<b>\u2717 shard</b></li>");
    expect_contains(page, "<li class=\"a0\"><span>qkv_proj</span>");
    expect_contains(page, "<td class=\"f\">\u2717 812<i>~-<b>S</b>-</i></td>");
    expect_contains(page, "<td class=\"a2\">0.42<i>kp--</i></td>");
    expect_contains(page, "<td>NaN</td><td>0.456</td><td>0.001</td><td>inf</td>");
    expect_contains(page, "<td>-inf</td>");
    free(page);
}

Test(html, a_failure_has_a_map_with_the_borders_of_ranks_and_a_pass_has_none) {
    char *const page = page_of(&run);
    cr_expect_eq(count(page, "figure"), 2, "one a cause");
    expect_contains(page, "token 0-2 down, head 0-199 across; lines are borders between ranks");
    expect_contains(page, "<path class=\"h9\" d=\"M3 1.5h1M0 2.5h2\"/>");
    expect_contains(page, "<path class=\"h1\" d=\"M2 1.5h1\"/>");
    expect_contains(page, "<path class=\"hn\" d=\"M1 1.5h1\"/>");
    expect_contains(page, "<path class=\"border\" d=\"M2 0v3\"/>");
    expect_contains(page, "<li class=\"a0\">\u2713 rank 0</li><li class=\"n\">- rank 1</li>"
                          "<li class=\"f\">\u2717 rank 2</li>");
    free(page);
    cases[1].verdict = cases[2].verdict = cases[3].verdict = CASE_PASSED;
    run.n_passed = 4, run.n_failed = 0;
    char *const passed = page_of(&run);
    cr_expect_eq(count(passed, "figure"), 0);
    free(passed);
}

/* ---- size ---- */

Test(html, of_500_cases_has_at_most_2_megabytes) {
    enum { CASES = 500, STAGES = 15, FAILED = 100 };
    static struct stage_result many[STAGES];
    for (int s = 0; s < STAGES; s++) {
        many[s] = stages[0];
        snprintf(many[s].stage, sizeof many[s].stage, "a_stage_of_the_layer_%d", s);
    }
    struct case_result *const all = calloc(CASES, sizeof *all);
    for (int i = 0; i < CASES; i++) {
        if (i < FAILED) all[i] = failed("", "", i);
        for (int k = 0; k < MAP_CELLS; k++) /* a map that takes the most room */
            for (int c = 0; c < MAP_CELLS && i < FAILED; c++) all[i].map.cell[k][c] = "09"[(k + c) % 2];
        all[i].map.rows.cells = all[i].map.cols.cells = MAP_CELLS;
        snprintf(all[i].first.note, sizeof all[i].first.note, "%c%c", 'a' + i / 26, 'a' + i % 26);
        all[i].verdict = i < FAILED ? CASE_FAILED : CASE_PASSED;
        all[i].n_stages = STAGES, all[i].stage = many;
        snprintf(all[i].line, sizeof all[i].line, "model/attention:tp=8,ep=%d,%0150d", i, i);
    }
    const struct run_result big = {.version = "",
                                   .device = "",
                                   .command = "",
                                   .cases = all,
                                   .n_cases = CASES,
                                   .n_passed = CASES - FAILED,
                                   .n_failed = FAILED};
    char *const page = page_of(&big);
    cr_expect_eq(count(page, "section"), FAILED, "each has a cause of its own");
    cr_expect_leq(strlen(page), 2u << 20, "%zu", strlen(page));
    free(page);
    free(all);
}

/* ---- in a browser ---- */

static int looked_at(const char *page) {
    FILE *const file = fopen("page.html", "w");
    cr_assert(file && fputs(page, file) >= 0 && !fclose(file));
    const int status = system("\"$ROOT/scripts/look-html\" page.html >&2");
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

Test(html, is_as_wide_as_its_window_in_a_browser_where_there_is_one) {
    folder_enter();
    char *const page = page_of(&run);
    const int code = looked_at(page);
    if (code < 2) {
        cr_expect_eq(code, 0);
        cr_expect_eq(looked_at("<h1>wide</h1><div style=\"width:3000px\">too wide</div>"), 1);
    }
    free(page);
    folder_leave();
    if (code == 2) cr_skip_test("not run: no browser, see scripts/look-html");
}
