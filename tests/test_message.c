/* Does what crosses to a worker and back arrive as it was sent, and nothing else? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/worker/frame.h"
#include "harness/worker/message.h"
#include "reports/report.h"

/* ---- frames ---- */

static int ends[2];
static struct frame_buffer buffer;
static struct frame_head head;
static const char *payload;

static void open_pipe(void) { cr_assert_eq(pipe(ends), 0); }

TestSuite(frame, .init = open_pipe);

Test(frame, arrives_whole_in_order_and_with_its_writer) {
    struct frame_head out = {.nonce = 77};
    cr_assert(frame_write(ends[1], &out, FRAME_STEP, "one", 3));
    cr_assert(frame_write(ends[1], &out, FRAME_BEAT, "", 0));
    cr_assert(frame_read(&buffer, ends[0]));
    cr_assert_eq(frame_front(&buffer, &head, &payload), 1);
    cr_expect(head.type == FRAME_STEP && head.number == 0 && head.nonce == 77 && head.pid == getpid());
    cr_expect(head.length == 3 && !memcmp(payload, "one", 3));
    frame_take(&buffer);
    cr_assert_eq(frame_front(&buffer, &head, &payload), 1);
    cr_expect(head.type == FRAME_BEAT && head.number == 1 && head.length == 0);
    frame_take(&buffer);
    cr_expect_eq(frame_front(&buffer, &head, &payload), 0);
    frame_buffer_free(&buffer);
}

Test(frame, is_not_there_before_its_last_byte) {
    struct frame_head out = {0};
    char bytes[64];
    cr_assert(frame_write(ends[1], &out, FRAME_CASE, "0 {}", 4));
    cr_assert_eq(read(ends[0], bytes, sizeof bytes), 36);
    for (int i = 0; i < 36; i++) {
        cr_expect_eq(frame_front(&buffer, &head, &payload), 0, "after %d bytes", i);
        cr_assert_eq(write(ends[1], bytes + i, 1), 1);
        cr_assert(frame_read(&buffer, ends[0]));
    }
    cr_expect_eq(frame_front(&buffer, &head, &payload), 1);
    frame_buffer_free(&buffer);
}

Test(frame, is_not_what_a_stray_printf_writes) {
    const char *const said = "attention: max is 0.25 and all of it went into the wrong descriptor\n";
    cr_assert(write(ends[1], said, strlen(said)) > 0);
    cr_assert(frame_read(&buffer, ends[0]));
    cr_expect_eq(frame_front(&buffer, &head, &payload), -1);
    frame_buffer_free(&buffer);
}

Test(frame, has_no_length_that_nobody_sends) {
    struct frame_head out = {.magic = FRAME_MAGIC, .type = FRAME_CASE, .length = FRAME_MOST + 1};
    cr_assert_eq(write(ends[1], &out, sizeof out), (ssize_t)sizeof out);
    cr_assert(frame_read(&buffer, ends[0]));
    cr_expect_eq(frame_front(&buffer, &head, &payload), -1);
    frame_buffer_free(&buffer);
}

Test(frame, a_closed_end_is_seen_by_both) {
    struct frame_head out = {0};
    close(ends[1]);
    cr_expect_not(frame_read(&buffer, ends[0]));
    cr_expect_not(frame_write(ends[1], &out, FRAME_BEAT, "", 0));
    frame_buffer_free(&buffer);
}

/* ---- requests ---- */

static struct check_case parsed(const char *line) {
    struct check_case c;
    bool has_part;
    const struct status s = case_parse(line, &c, &has_part);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    return c;
}

Test(request, a_worker_is_asked_for_the_chosen_cases_and_all_that_changes_them) {
    const struct check_case cases[3] = {parsed("tiny/ffn:tp=1"), parsed("tiny/ffn:tp=2,ep=2,seed=9"),
                                        parsed("tiny/attention:tp=4,kernel.attention=attention_simt")};
    const int64_t index[2] = {2, 1};
    const struct run_request request = {.cases = cases,
                                        .n_cases = 3,
                                        .fixture_path = "a=b\nc.h5",
                                        .mutant = mutant_by_name("packed-view"),
                                        .reference = SUMS_DEVICE,
                                        .schedules = 7};
    struct message m = request_write(&request, index, 2, 5);
    struct asked asked;
    cr_assert_eq(request_read(m.text, m.length, &asked).code, STATUS_OK);
    cr_assert_eq(asked.run.n_cases, 2);
    for (int i = 0; i < 2; i++) {
        char want[CASE_LINE], got[CASE_LINE];
        case_print(&cases[index[i]], want, sizeof want);
        case_print(&asked.run.cases[i], got, sizeof got);
        cr_expect_str_eq(got, want);
    }
    cr_expect_str_eq(asked.run.fixture_path, "a=b\nc.h5");
    cr_expect_null(asked.run.dump_path);
    cr_expect_eq(asked.run.mutant, request.mutant);
    cr_expect_eq(asked.run.reference, SUMS_DEVICE);
    cr_expect_eq(asked.run.schedules, 7);
    cr_expect_eq(asked.threads, 5);
    asked_free(&asked);
    message_free(&m);
}

/* Without cases: what there is to run in these files? */
Test(request, what_is_to_be_judged_comes_back) {
    const char *const dumps[] = {"a b", "c=d"};
    struct run_request request = {.judge = {dumps, 2, "model", "vllm-bf16:o_part=none", {false}}};
    struct asked asked;
    request.judge.only[S_ROPE] = true;
    struct message m = request_write(&request, NULL, 0, 1);
    const struct status s = request_read(m.text, m.length, &asked);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    cr_expect(asked.run.n_cases == 0 && asked.run.judge.n_dumps == 2);
    cr_expect_str_eq(asked.run.judge.dump[0], "a b");
    cr_expect_str_eq(asked.run.judge.dump[1], "c=d");
    cr_expect_str_eq(asked.run.judge.model, "model");
    cr_expect_str_eq(asked.run.judge.contract, "vllm-bf16:o_part=none");
    cr_expect(asked.run.judge.only[S_ROPE] && !asked.run.judge.only[S_ROUTE]);
    asked_free(&asked);
    message_free(&m);
}

Test(request, what_a_worker_does_not_know_it_refuses) {
    static const char *const bad[] = {"case=tiny/ffn:tp=1\0colour=red", "case=tiny/ffn:tp=x", "case",
                                      "judge_stage=nothing", "case=tiny/ffn:tp=1\0mutant=nobody"};
    static const size_t length[] = {30, 19, 5, 20, 33};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct asked asked;
        cr_expect_eq(request_read(bad[i], length[i], &asked).code, STATUS_ERROR, "%s", bad[i]);
        asked_free(&asked);
    }
    struct asked asked;
    cr_expect_eq(request_read("case=tiny/ffn:tp=1", 18, &asked).code, STATUS_ERROR, "not ended");
    asked_free(&asked);
}

/* ---- steps and results ---- */

Test(message, a_step_comes_back_as_it_was_said) {
    const struct step step = {DOING_KERNEL, 3, S_ATTENTION, 2, 1.5e9, "a kernel with spaces"};
    struct message m = step_write(&step);
    struct step got;
    char who[64];
    cr_assert(step_read(m.text, m.length, &got, who, sizeof who));
    cr_expect(got.doing == step.doing && got.case_index == 3 && got.stage == S_ATTENTION && got.rank == 2);
    cr_expect_float_eq(got.work, 1.5e9, 0);
    cr_expect_str_eq(got.who, step.who);
    message_free(&m);
    cr_expect_not(step_read("1 2 3", 5, &got, who, sizeof who));
    cr_expect_not(step_read("9 0 0 0 0 x", 11, &got, who, sizeof who), "nobody does that");
    cr_expect_not(step_read("1 0 999 0 0 x", 13, &got, who, sizeof who), "no such stage");
}

static struct case_result full_result(void) {
    struct case_result r = {.line = "tiny/attention:tp=4",
                            .repro = strdup("shardcheck run 'tiny/attention:tp=4'"),
                            .mutant = "packed-view",
                            .mutant_made = true,
                            .verdict = CASE_FAILED,
                            .crashed = true,
                            .reason = "a \"reason\"",
                            .unchained = "a feature",
                            .sums = "sums of 3 rows on the device, 1 recomputed",
                            .n_stages = 2,
                            .where = "stage attention",
                            .likely = "packed-view",
                            .resembles = "2 x the right value",
                            .read = "v of head 6",
                            .device_bytes = INT64_C(5) << 40,
                            .seconds = 0.1 + 0.2};
    r.stage = calloc(2, sizeof *r.stage);
    r.stage[0] = (struct stage_result){.stage = "norm", .kernel = "rms_norm", .seconds_kernel = 1e-300};
    r.stage[1] = (struct stage_result){.stage = "attention", .kernel = "x", .seconds_reference = 1 / 3.0};
    r.stage[1].edge[EDGE_ORACLE] =
        (struct edge_result){.state = EDGE_LOOSE,
                             .margin = NAN,
                             .elements = 1,
                             .outside = 2,
                             .ambiguous = 3,
                             .sampled_rows = 4,
                             .rows = 5,
                             .other_bits = 6,
                             .vacuous = 7,
                             .sharpness = 0.5,
                             .trend = {.state = TREND_SILENT, .reason = "lattice fill", .tests = 8},
                             .single = 8,
                             .sets = 9,
                             .order = "3 slices of 3072, ...",
                             .in_order = 9};
    for (int e = 0; e < EDGE_COUNT; e++)
        r.edge[e] = (struct edge_result){(enum edge_state)(EDGE_OK + e % 3),
                                         INFINITY,
                                         INT64_C(1) << 60,
                                         e,
                                         1,
                                         2,
                                         3,
                                         e % 2,
                                         e,
                                         INFINITY,
                                         {0},
                                         4,
                                         5,
                                         "any",
                                         10};
    r.stage[1].edge[EDGE_KERNEL].state = EDGE_FAIL;
    r.stage[1].edge[EDGE_KERNEL].trend = (struct trend){.state = TREND_WRONG,
                                                        .gain = {1e-3, 4e-4},
                                                        .scale = {-2e-3, 5e-4},
                                                        .worst = {-1, 0.1},
                                                        .statistic = 7.5,
                                                        .about = "weight of key 9",
                                                        .elements = INT64_C(1) << 40,
                                                        .tests = 300};
    r.first =
        (struct mismatch){"attention", "o", -1, "token 1", -INFINITY, 5e-324, 1 / 7.0, INFINITY, "a note", 0};
    r.worst = (struct mismatch){"attention", "o", 3, "token 2", NAN, -0.0, 0, 1.25, "outside", 5};
    r.map = (struct heat_map){.tensor = "o",
                              .rows = {"token", 5, 2, 0, {0}},
                              .cols = {"head", INT64_C(1) << 40, 3, 2, {7, INT64_C(1) << 39}},
                              .cell = {"0.9", "123"},
                              .rank = "09."};
    return r;
}

/* Through JSON and back and through JSON again: the same bytes, so every key that is written is read. */
Test(message, a_result_comes_back_with_every_field) {
    struct case_result sent = full_result(), got;
    int64_t i;
    struct message m = result_write(11, &sent);
    cr_assert(result_read(m.text, m.length, &i, &got), "%s", m.text);
    struct message again = result_write(11, &got);
    cr_expect_eq(i, 11);
    cr_expect_str_eq(again.text, m.text);
    cr_expect(got.crashed && got.verdict == CASE_FAILED && got.n_stages == 2);
    cr_expect(isnan(got.worst.got) && signbit(got.worst.expected) && got.first.rank == -1);
    cr_expect_eq(got.edge[EDGE_KERNEL].elements, INT64_C(1) << 60);
    cr_expect_float_eq(got.stage[1].edge[EDGE_KERNEL].trend.gain.resolution, 4e-4, 0);
    cr_expect(got.seconds == sent.seconds && got.device_bytes == sent.device_bytes);
    cr_expect_eq(memcmp(&got.map, &sent.map, sizeof got.map), 0);
    message_free(&m);
    message_free(&again);
    free(sent.stage);
    free(sent.repro);
    free(got.stage);
    free(got.repro);
}

/* What draws a map goes by its sizes. */
Test(message, a_map_that_is_no_rectangle_of_levels_is_refused) {
    static const char *const maps[][2] = {
        {"\"cells\": [\"09\", \"0.\"]", "yes"}, {"\"cells\": [\"09\"]", NULL},
        {"\"cells\": [\"09\", \"0\"]", NULL},   {"\"cells\": [\"09\", \"0<\"]", NULL},
        {"\"cells\": [\"09\", 7]", NULL},       {"\"cells\": [\"09\", \"0.\"], \"ranks\": \"x\"", NULL}};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        struct case_result got;
        char text[400];
        const int n =
            snprintf(text, sizeof text,
                     "{\"verdict\": \"failed\", \"map\": {\"tensor\": \"o\", \"rows\": {\"size\": 2, "
                     "\"cells\": 2}, \"columns\": {\"size\": 9, \"cells\": 2}, %s}}",
                     maps[i][0]);
        cr_expect_eq(report_read_case(text, (size_t)n, &got), maps[i][1] != NULL, "%s", text);
    }
    for (int cells = 0; cells <= 65; cells += 65) {
        struct case_result got;
        char text[300];
        const int n =
            snprintf(text, sizeof text,
                     "{\"verdict\": \"failed\", \"map\": {\"tensor\": \"o\", \"rows\": {\"size\": 99, "
                     "\"cells\": %d}, \"columns\": {\"size\": 1, \"cells\": 1}, \"cells\": []}}",
                     cells);
        cr_expect_not(report_read_case(text, (size_t)n, &got), "%d cells", cells);
    }
}

Test(message, half_a_result_or_another_object_is_none) {
    struct case_result sent = full_result(), got;
    int64_t i;
    struct message m = result_write(0, &sent);
    for (size_t n = 0; n < m.length; n += 7) cr_expect_not(result_read(m.text, n, &i, &got), "%zu bytes", n);
    cr_expect_not(result_read("0 {}", 4, &i, &got));
    cr_expect_not(result_read("0 {\"verdict\": \"fine\"}", 21, &i, &got));
    cr_expect_not(result_read("0 {\"verdict\": \"passed\", \"seconds\": \"soon\"}", 42, &i, &got));
    cr_expect_not(result_read("0 {\"verdict\": \"passed\", \"device_bytes\": \"many\"}", 47, &i, &got));
    message_free(&m);
    free(sent.stage);
    free(sent.repro);
}
