/* Do the reports say what was found, and are the machine-readable ones well-formed whatever the
 * strings and numbers? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"
#include "tests/xml.h"

/* Three cases: passed, failed, skipped; with strings that JSON and XML have to escape. */
static struct stage_result stages[2] = {
    {.stage = "qkv_proj",
     .kernel = "gemm_simt",
     .edge = {[EDGE_KERNEL] = {EDGE_OK, 0.42, 1000, 0, 0, 0, 0, 0, 31, 0.0025}}},
    {.stage = "route",
     .kernel = "route_warp",
     .edge = {[EDGE_KERNEL] = {EDGE_OK, 0, 198, 0, 2, 0, 0}, [EDGE_PLAN] = {EDGE_OK, 0, 10, 0, 0, 12, 33}}},
};
static const struct case_result cases[3] = {
    {.line = "param2-17b/attention:tp=4",
     .verdict = CASE_PASSED,
     .n_stages = 2,
     .stage = stages,
     .seconds = 1.25,
     .edge = {{EDGE_OK, 0.42, 1198, 0, 2, 0, 0},
              {EDGE_OK, 0, 10, 0, 0, 12, 33},
              {EDGE_OK, 0.0031, 9, 0, 0, 0, 0}}},
    {.line = "dir <&>\"'\x01\xff/ffn:tp=2",
     .verdict = CASE_FAILED,
     .seconds = 2,
     .edge = {{EDGE_OK, 1, 1198, 0, 0, 0, 0},
              {EDGE_OK, 0, 10, 0, 0, 0, 0},
              {EDGE_FAIL, INFINITY, 4000, 31, 0, 0, 0}},
     .where = "stage attention, ranks 1-3 of 4, tokens 1-32, heads 8-31",
     .first = {"attention", "o", 1, "token 3 head 5 dim 7", NAN, 0.456, 1e-3, INFINITY, "outside the set"},
     .worst = {"attention", "o", -1, "token 4 head 5 dim 7", -INFINITY, 0.5, 1e-3, 812, ""},
     .likely = "packed-view (vLLM PR #39707), margin 0.4",
     .resembles = "the value of head h + 1",
     .read = "v of head 6",
     .repro = "shardcheck run 'dir <&>'"},
    {.line = "tiny/ffn:tp=1,device=cuda",
     .verdict = CASE_SKIPPED,
     .reason = "no GPU: \"none\" found; use --device host"},
};
static const struct run_result run = {.version = "0.1.0",
                                      .device = "host (SIMT executor, 2 cores)",
                                      .command = "shardcheck run --tp '2' & <more>",
                                      .cases = cases,
                                      .n_cases = 3,
                                      .n_passed = 1,
                                      .n_failed = 1,
                                      .n_skipped = 1,
                                      .seconds = 3.5,
                                      .host_bytes = 3435973837,
                                      .device_bytes = 512 << 20};

/* The report as a string, to be freed. */
static char *written_of(const struct run_result *result, const char *format, int verbosity) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    cr_assert(file && report_by_name(format));
    report_write(report_by_name(format), file, result, verbosity);
    cr_assert_eq(fclose(file), 0);
    return text;
}

static char *written(const char *format, int verbosity) { return written_of(&run, format, verbosity); }

static void expect_contains(const char *text, const char *part) {
    cr_expect(strstr(text, part), "'%s' is missing in\n%s", part, text);
}

Test(reports, formats_have_unique_names_and_the_first_is_text) {
    cr_assert_str_eq(report_formats[0].name, "text");
    for (const struct report_format *f = report_formats; f->name; f++) {
        cr_assert(f->describes && f->end);
        cr_assert_eq(report_by_name(f->name), f);
    }
    cr_assert_null(report_by_name("xml"));
}

Test(reports, text_shows_one_line_a_pass_and_a_block_a_failure) {
    char *text = written("text", 0);
    expect_contains(text, "on host (SIMT executor, 2 cores)\n");
    expect_contains(text,
                    "PASS param2-17b/attention:tp=4  kernel 0.42 (2 ambiguous) · plan ok (12 of 33 rows) · "
                    "shard <0.01  1.25 s\n");
    expect_contains(text,
                    "  edges     kernel 1.00 · plan ok · shard FAIL (margin inf, 31 of 4000 elements)\n");
    expect_contains(text, "3.5 s, at most 3.2 GiB of memory and 512 MiB of the GPU's\n");
    expect_contains(text, "  where     stage attention, ranks 1-3 of 4, tokens 1-32, heads 8-31\n");
    expect_contains(text,
                    "  first     rank 1 token 3 head 5 dim 7, attention.o: got NaN, expected 0.456 +- 0.001, "
                    "margin inf; outside the set\n");
    expect_contains(
        text, "  worst     unsharded token 4 head 5 dim 7, attention.o: got -inf, expected 0.5 +- 0.001, "
              "margin 812\n");
    expect_contains(text, "  likely    packed-view (vLLM PR #39707), margin 0.4\n");
    expect_contains(text, "  resembles the value of head h + 1\n");
    expect_contains(text, "  read      v of head 6\n");
    expect_contains(text, "  repro     shardcheck run 'dir <&>'\n");
    expect_contains(text, "SKIP tiny/ffn:tp=1,device=cuda  no GPU");
    const char *last = "\n1 passed, 1 failed, 1 skipped\n";
    cr_expect_str_eq(text + strlen(text) - strlen(last), last);
    cr_expect_null(strstr(text, "gemm_simt"), "stages belong to -v");
    free(text);
}

Test(reports, text_is_short_when_quiet_and_shows_stages_when_verbose) {
    char *quiet = written("text", -1), *verbose = written("text", 1);
    cr_expect_null(strstr(quiet, "PASS"));
    cr_expect_null(strstr(quiet, "SKIP"));
    expect_contains(quiet, "FAIL dir");
    expect_contains(quiet, "host (SIMT executor");
    expect_contains(verbose, "gemm_simt");
    expect_contains(verbose, "\n  route             plan    12 of 33 rows\n");
    expect_contains(verbose, " 2.5e-03 ");
    expect_contains(verbose, "\n  counted\n  qkv_proj          kernel  31 vacuous\n");
    free(quiet);
    free(verbose);
}

Test(reports, colours_are_all_that_a_terminal_gets_besides) {
    char *plain = written("text", 0), *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    report_write(&report_text_coloured, file, &run, 0);
    fclose(file);
    expect_contains(text, "\033[32mPASS\033[m param2-17b/attention:tp=4  kernel 0.42");
    expect_contains(text, "\033[1;31mFAIL\033[m dir ");
    expect_contains(text, " shard \033[1;31mFAIL\033[m (margin");
    expect_contains(text, "\033[33mSKIP\033[m tiny/ffn");
    expect_contains(text, "\n\033[1;31m1 passed, 1 failed, 1 skipped\033[m\n");
    char *to = text;
    for (const char *from = text; *from;) {
        if (*from == '\033')
            from += strcspn(from, "m") + 1;
        else
            *to++ = *from++;
    }
    *to = 0;
    cr_expect_str_eq(text, plain);
    free(plain);
    free(text);
}

Test(reports, long_texts_are_wrapped_at_words_and_counted_in_characters) {
    const struct {
        int indent;
        const char *text, *wrapped;
    } rows[] = {{0, "", "\n"},
                {3, "a word", "a word\n"},
                {100, "0123456789 012345678 x", "0123456789 012345678\n>x\n"},
                {100, "\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7 012345678 x",
                 "\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7 012345678\n>x\n"},
                {110, "a word-that-is-too-long b", "a\n>word-that-is-too-long\n>b\n"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = NULL, expected[900];
        size_t size = 0;
        FILE *file = open_memstream(&text, &size);
        report_wrapped(file, rows[i].indent, rows[i].text);
        fclose(file);
        size_t n = 0;
        for (const char *at = rows[i].wrapped; *at; at++) { /* '>' stands for the indent */
            if (*at == '>')
                n += (size_t)snprintf(expected + n, sizeof expected - n, "%*s", rows[i].indent, "");
            else
                expected[n++] = *at;
        }
        expected[n] = 0;
        cr_expect_str_eq(text, expected);
        free(text);
    }
}

Test(reports, json_parses_and_carries_the_numbers) {
    char *text = written("json", 0);
    json_error_t error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    cr_assert(root, "%s", error.text);
    cr_expect_str_eq(json_string_value(json_object_get(root, "schema")), "shardcheck-result/1");
    cr_expect_str_eq(json_string_value(json_object_get(root, "device")), run.device);
    cr_expect_eq(json_integer_value(json_object_get(root, "failed")), 1);
    const json_t *list = json_object_get(root, "cases");
    cr_assert_eq(json_array_size(list), 3);
    const json_t *failed = json_array_get(list, 1);
    cr_expect_str_eq(json_string_value(json_object_get(failed, "case")), "dir <&>\"'\x01?/ffn:tp=2");
    cr_expect_str_eq(json_string_value(json_object_get(failed, "verdict")), "failed");
    const json_t *first = json_object_get(failed, "first"), *worst = json_object_get(failed, "worst");
    cr_expect_str_eq(json_string_value(json_object_get(first, "got")), "nan");
    cr_expect_str_eq(json_string_value(json_object_get(first, "margin")), "inf");
    cr_expect_str_eq(json_string_value(json_object_get(worst, "got")), "-inf");
    cr_expect(json_real_value(json_object_get(first, "expected")) == 0.456);
    cr_expect(json_is_null(json_object_get(worst, "rank")));
    const json_t *stage = json_array_get(json_object_get(json_array_get(list, 0), "stages"), 1);
    const json_t *plan = json_object_get(json_object_get(stage, "edges"), "plan");
    cr_expect_eq(json_integer_value(json_object_get(plan, "sampled_rows")), 12);
    stage = json_array_get(json_object_get(json_array_get(list, 0), "stages"), 0);
    const json_t *kernel = json_object_get(json_object_get(stage, "edges"), "kernel");
    cr_expect_eq(json_integer_value(json_object_get(kernel, "vacuous")), 31);
    cr_expect(json_real_value(json_object_get(kernel, "sharpness")) == 0.0025);
    json_decref(root);
    free(text);
}

/* ---- XML ---- */

static int count_elements(const char *xml, const char *wanted) {
    const char *prolog = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    int count = 0;
    cr_assert_eq(strncmp(xml, prolog, strlen(prolog)), 0);
    const char *end = xml_skip_element(xml + strlen(prolog), wanted, &count);
    cr_assert(end && !strcmp(end, "\n"), "not well-formed:\n%s", xml);
    return count;
}

Test(reports, junit_is_well_formed_and_counts) {
    char *xml = written("junit", 1);
    cr_expect_eq(count_elements(xml, "testsuite"), 1);
    cr_expect_eq(count_elements(xml, "testcase"), 3);
    cr_expect_eq(count_elements(xml, "failure"), 1);
    cr_expect_eq(count_elements(xml, "skipped"), 1);
    expect_contains(xml, "tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\"");
    expect_contains(xml, "name=\"dir &lt;&amp;&gt;&quot;&apos;?\?/ffn:tp=2\"");
    expect_contains(xml, "classname=\"dir &lt;&amp;&gt;&quot;&apos;?\?/ffn\" name=");
    expect_contains(xml, "; got ");
    expect_contains(xml, "; likely ");
    expect_contains(xml, "name=\"device\" value=\"host (SIMT executor, 2 cores)\"");
    expect_contains(xml, "\nsharpness qkv_proj 0.0025 (31 of 1000 vacuous)\n");
    expect_contains(xml, "edges     kernel 1.00 · plan ok · shard FAIL");
    expect_contains(xml, "shardcheck run &apos;dir &lt;&amp;&gt;&apos;");
    free(xml);
}

Test(reports, utf8_is_recognised_and_nothing_else) {
    cr_expect_eq(report_utf8_length("a"), 1);
    cr_expect_eq(report_utf8_length("·"), 2);
    cr_expect_eq(report_utf8_length("\xe2\x82\xac"), 3);
    cr_expect_eq(report_utf8_length("\xf0\x9f\x98\x80"), 4);
    static const char *const bad[] = {"",
                                      "\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xe2\x82",
                                      "\xf0\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(report_utf8_length(bad[i]), 0, "%zu", i);
}

Test(reports, a_chain_that_says_nothing_is_not_ok_and_one_that_could_not_run_is_counted) {
    const struct case_result of_chain[2] = {
        {.line = "tiny/attention:tp=2",
         .verdict = CASE_SKIPPED,
         .reason = "chain too loose",
         .edge = {[EDGE_CHAIN] = {EDGE_LOOSE, 0.25, 9, 0, 0, 0, 0}}},
        {.line = "tiny/ffn:tp=2", .verdict = CASE_PASSED, .unchained = "score"},
    };
    const struct run_result chained = {.version = "0.1.0",
                                       .device = "host",
                                       .command = "shardcheck run",
                                       .cases = of_chain,
                                       .n_cases = 2,
                                       .n_passed = 1,
                                       .n_skipped = 1,
                                       .n_unchained = 1};
    char *const text = written_of(&chained, "text", 0), *const json = written_of(&chained, "json", 0);
    cr_expect(strstr(text, "chain - (score)"), "%s", text);
    cr_expect(strstr(text, "\n1 cases without the chain edge"), "%s", text);
    cr_expect(strstr(json, "\"state\": \"too loose\""), "%s", json);
    cr_expect(strstr(json, "\"unchained\": \"score\""), "%s", json);
    free(text);
    free(json);
}

static struct case_result failed(const char *line, int rank, const char *where, const char *resembles) {
    struct case_result r = {.verdict = CASE_FAILED,
                            .first = {.stage = "attention", .tensor = "o", .rank = rank, .note = "outside"}};
    snprintf(r.line, sizeof r.line, "%s", line);
    snprintf(r.where, sizeof r.where, "%s", where);
    snprintf(r.resembles, sizeof r.resembles, "%s", resembles);
    return r;
}

Test(reports, cases_that_fail_in_the_same_way_are_told_from_others) {
    const char *const where =
        "stage attention, ranks 1-3 of 4, heads h % 8 >= 4 (16 of 32), 7 of 9 elements there";
    const struct case_result of = failed("a", 1, where, "4 x the right value (4 = tp)");
    struct case_result with_likely[2] = {of, of}, crashed = of, passed = of, other_note = of;
    const struct {
        struct case_result r;
        bool same;
    } rows[] = {
        {failed("b", 0, "stage attention, ranks 0, 3 of 8, heads h % 4 >= 2 (8 of 16)",
                "2 x the right value (2 = tp)"),
         true},
        {failed("b", 1, "stage attention, odd ranks of 4, heads h % 8 >= 4 (16 of 32)",
                "4 x the right value (4 = tp)"),
         true},
        {failed("b", -1, where, "4 x the right value (4 = tp)"), false},
        {failed("b", 1, "stage attention, ranks 1-3 of 4, heads h % 8 < 4 (16 of 32)",
                "4 x the right value (4 = tp)"),
         false},
        {failed("b", 1, where, "zero"), false},
        {failed("b", 1, "stage attention, ranks 1-3 of 4, head 5", "4 x the right value (4 = tp)"), false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(report_same_cause(&of, &rows[i].r), rows[i].same, "%zu", i);
    crashed.crashed = true;
    passed.verdict = CASE_PASSED;
    strcpy(other_note.first.note, "NaN");
    cr_expect_not(report_same_cause(&of, &crashed));
    cr_expect_not(report_same_cause(&of, &passed));
    cr_expect_not(report_same_cause(&of, &other_note));
    strcpy(with_likely[0].likely, "packed-view (PR): 1");
    strcpy(with_likely[1].likely, "packed-view (PR): 2");
    strcpy(with_likely[1].where, "stage attention, tokens 1-4");
    cr_expect(report_same_cause(&with_likely[0], &with_likely[1]), "the mistake is known");
    cr_expect_not(report_same_cause(&of, &with_likely[0]));
}

Test(reports, a_case_of_a_known_cause_is_one_line_of_text_and_has_the_index_of_the_first_in_json) {
    struct case_result two[3] = {failed("a", 1, "stage attention, rank 1 of 2", "zero"),
                                 {.line = "between"},
                                 failed("b", 3, "stage attention, ranks 1-3 of 4", "zero")};
    const struct run_result both = {
        .version = "0", .device = "host", .command = "run", .cases = two, .n_cases = 3, .n_failed = 2};
    char *const json = written_of(&both, "json", 0);
    json_t *const root = json_loads(json, 0, NULL);
    const json_t *const list = json_object_get(root, "cases");
    cr_expect_eq(json_integer_value(json_object_get(json_array_get(list, 0), "cause")), 0);
    cr_expect_null(json_object_get(json_array_get(list, 1), "cause"));
    cr_expect_eq(json_integer_value(json_object_get(json_array_get(list, 2), "cause")), 0);
    two[2].same_cause = two[0].line;
    char *const text = written_of(&both, "text", 0);
    expect_contains(text, "FAIL b  (same cause as a)  0.00 s\n");
    cr_expect_null(strstr(text, "ranks 1-3 of 4"), "%s", text);
    json_decref(root);
    free(json);
    free(text);
}
