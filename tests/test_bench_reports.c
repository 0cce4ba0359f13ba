/* Can a report of bench be read by others and by us, and does the comparison of two say what is so?
 * Samples are made up: what was measured is no test's to know. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/bench_compare.h"
#include "tests/xml.h"

/* ---- samples ---- */

static uint64_t state = 1;
static double uniform(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(state >> 11) + 0.5) * 0x1p-53;
}

enum { ROUNDS = 10, EACH = 6 };

/* Launches that take `seconds` and seldom much more, by one part in a hundred; `drift` more in the
 * last round than in the first. */
static struct bench_series draw(double seconds, double drift) {
    struct bench_series s = {ROUNDS * EACH, EACH, calloc(ROUNDS * EACH, sizeof(double))};
    for (int i = 0; i < s.n; i++)
        s.seconds[i] = seconds * (1 - 0.01 * log(uniform())) * (1 + drift * (i / EACH) / (ROUNDS - 1));
    return s;
}

static struct bench_row *add(struct bench_result *r, const char *shape, const char *name, double seconds) {
    struct bench_row *const row = bench_result_add(r);
    snprintf(row->shape, sizeof row->shape, "%s", shape);
    snprintf(row->name, sizeof row->name, "%s", name);
    row->bytes = 1e9, row->flops = 1e9;
    row->rows_judged = 3, row->rows = 7, row->elements = 12, row->margin = 0.25;
    row->series[BENCH_COLD] = draw(seconds, 0);
    row->series[BENCH_WARM] = draw(0.9 * seconds, 0);
    return row;
}

/* A run: the machine as fast as `machine`, the kernel as fast as `kernel`. */
static struct bench_result run_of(double machine, double kernel) {
    struct bench_result r = {
        .version = "1", .device = "GPU & co", .speed = "driver 1", .command = "shardcheck bench"};
    struct bench_row *row = add(&r, "copy:bytes=1", "memcpy", 1e-3 * machine);
    row->gauge = true, row->flops = 0;
    add(&r, "dense:rows=1,cols=1,inner=1", "library", 1e-3 * machine)->gauge = true;
    add(&r, "decode:seqs=1,keys=16", "kernel", 2e-3 * machine * kernel);
    add(&r, "decode:seqs=1,keys=16", "other, \"faster\"", 3e-3 * machine)->peer = true;
    row = bench_result_add(&r);
    snprintf(row->shape, sizeof row->shape, "decode:seqs=1,keys=16");
    snprintf(row->name, sizeof row->name, "wrong<kernel>");
    snprintf(row->note, sizeof row->note, "got 1, expected 2");
    row->state = BENCH_WRONG;
    return r;
}

static char *written(void (*write)(FILE *, const struct bench_result *), const struct bench_result *r) {
    static char *text; /* open_memstream writes here until it is closed */
    static size_t size;
    FILE *const file = open_memstream(&text, &size);
    write(file, r);
    fclose(file);
    return text;
}

/* ---- formats ---- */

Test(bench_reports, json_comes_back_as_it_was) {
    struct bench_result r = run_of(1, 1), back;
    char *const text = written(bench_json, &r);
    cr_expect(bench_is_json(text, strlen(text)));
    cr_assert_null(bench_read(text, strlen(text), &back));
    char *const again = written(bench_json, &back);
    cr_expect_str_eq(text, again);
    cr_expect_eq(back.n_rows, r.n_rows);
    cr_expect_eq(back.row[2].series[BENCH_WARM].per_round, EACH);
    for (int i = 0; i < ROUNDS * EACH; i++)
        cr_expect_eq(back.row[2].series[BENCH_WARM].seconds[i], r.row[2].series[BENCH_WARM].seconds[i]);
    free(text), free(again);
    bench_result_free(&r), bench_result_free(&back);
}

Test(bench_reports, damaged_json_is_refused_in_words) {
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "nothing that was timed"},
        {"{\"schema\": \"shardcheck-result/1\"}", "nothing that was timed"},
        {"{\"schema\": \"shardcheck-bench/2\"}", "another version"},
        {"{\"schema\": \"shardcheck-bench/1\"}", "damaged"},
        {"{\"schema\": \"shardcheck-bench/1\", \"rows\": [{}]}", "damaged"},
#define ROW(cold)                                                                                            \
    "{\"schema\": \"shardcheck-bench/1\", \"rows\": [{\"shape\": \"s\", \"name\": \"n\", \"state\": "        \
    "\"timed\", "                                                                                            \
    "\"cold\": " cold "}]}"
        {ROW("{\"per_round\": 1, \"seconds\": [0]}"), "damaged"},
        {ROW("{\"per_round\": 1, \"seconds\": [-1]}"), "damaged"},
        {ROW("{\"per_round\": 1, \"seconds\": [\"nan\"]}"), "damaged"},
        {ROW("{\"per_round\": 0, \"seconds\": [1]}"), "damaged"},
        {ROW("{\"per_round\": 2, \"seconds\": [1]}"), "damaged"},
        {ROW("{\"per_round\": 1, \"seconds\": []}"), "damaged"},
        {ROW("{\"per_round\": 1, \"seconds\": [1]}}, {\"shape\": \"s\", \"name\": \"n\", \"state\": "
             "\"WRONG\""),
         "damaged"},
        {ROW("{\"per_round\": 1, \"seconds\": [1]}"), NULL},
    };
    struct bench_result out;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const problem = bench_read(rows[i].text, strlen(rows[i].text), &out);
        cr_expect(rows[i].says ? problem && strstr(problem, rows[i].says) : !problem, "%s: %s", rows[i].text,
                  problem);
        bench_result_free(&out);
    }
}

Test(bench_reports, csv_has_as_many_fields_in_every_line) {
    struct bench_result r = run_of(1, 1);
    char *const text = written(bench_csv, &r);
    int lines = 0, fields = 0;
    for (char *line = text, *end; (end = strstr(line, "\r\n")); line = end + 2, lines++) {
        int n = 1;
        bool quoted = false;
        for (const char *at = line; at < end; at++) {
            quoted ^= *at == '"';
            n += *at == ',' && !quoted;
        }
        if (!lines) fields = n;
        cr_expect_eq(n, fields, "%.*s", (int)(end - line), line);
    }
    cr_expect_eq(lines, 1 + 4 * BENCH_CACHES + 1);
    cr_expect(strstr(text, "\"other, \"\"faster\"\"\""));
    free(text);
    bench_result_free(&r);
}

Test(bench_reports, html_is_well_formed_and_shows_every_launch) {
    struct bench_result r = run_of(1, 1);
    char *const text = written(bench_html, &r);
    const char *const body = strstr(text, "<html");
    int dots = 0;
    cr_assert(body);
    const char *const end = xml_skip_element(body, "circle", &dots);
    cr_expect(end && !strcmp(end, "\n"), "%s", text);
    cr_expect_eq(dots, 4 * BENCH_CACHES * ROUNDS * EACH);
    cr_expect(strstr(text, "wrong&lt;kernel&gt;") && strstr(text, "got 1, expected 2"));
    free(text);
    bench_result_free(&r);
}

Test(bench_reports, text_tells_who_is_wrong_and_how_far_peers_are) {
    struct bench_result r = run_of(1, 1);
    char *const text = written(bench_text, &r);
    cr_expect(strstr(text, "1 timed, 1 wrong, 0 refused"), "%s", text);
    cr_expect(strstr(text, "WRONG  got 1, expected 2"), "%s", text);
    cr_expect(strstr(text, "3 of 7 rows held against the reference, largest margin 0.25"), "%s", text);
    cr_expect(strstr(text, " 1.50\n"), "%s", text);
    free(text);
    bench_result_free(&r);
}

/* ---- then and now ---- */

static struct bench_comparison compared(const struct bench_result *before, const struct bench_result *now) {
    FILE *const nowhere = fopen("/dev/null", "w");
    const struct bench_comparison c = bench_compare(nowhere, before, now);
    fclose(nowhere);
    return c;
}

Test(bench_reports, five_percent_more_is_slower_and_less_is_faster) {
    struct bench_result before = run_of(1, 1), slower = run_of(1, 1.05), faster = run_of(1, 1 / 1.05);
    struct bench_comparison c = compared(&before, &slower);
    cr_expect(c.worse && c.n[BENCH_SLOWER] == BENCH_CACHES && !c.other_machine);
    c = compared(&before, &faster);
    cr_expect(!c.worse && c.n[BENCH_FASTER] == BENCH_CACHES);
    bench_result_free(&before), bench_result_free(&slower), bench_result_free(&faster);
}

Test(bench_reports, two_runs_of_one_program_are_the_same) {
    enum { RUNS = 40 };
    struct bench_result before = run_of(1, 1);
    int n[BENCH_SLOWER + 1] = {0};
    for (int i = 0; i < RUNS; i++) {
        struct bench_result now = run_of(1, 1);
        const struct bench_comparison c = compared(&before, &now);
        cr_expect(!c.worse && !c.other_machine);
        for (int v = 0; v <= BENCH_SLOWER; v++) n[v] += c.n[v];
        bench_result_free(&now);
    }
    cr_expect_eq(n[BENCH_SAME], RUNS * BENCH_CACHES);
    bench_result_free(&before);
}

/* Without the allowance: the test alone, at the level that it says. */
Test(bench_reports, draws_of_one_distribution_are_told_apart_as_seldom_as_is_said) {
    enum { PAIRS = 400 };
    const double level = 0.05;
    int apart = 0;
    for (int i = 0; i < PAIRS; i++) {
        struct bench_series x = draw(1, 0), y = draw(1, 0);
        const struct rank_factor f = bench_change_of(&x, &y, level).factor;
        apart += f.low > 1 || f.high < 1;
        free(x.seconds), free(y.seconds);
    }
    cr_expect(apart > 5 && apart < 38, "%d of %d", apart, PAIRS); /* binomial: 20 expected, deviation 4.4 */
}

Test(bench_reports, what_a_run_does_by_itself_is_noise) {
    struct bench_series steady = draw(1, 0), drifting = draw(1, 0.08), slower = draw(1.06, 0);
    cr_expect_float_eq(bench_drift(&drifting), 0.08, 0.02);
    cr_expect_neq(bench_change_of(&drifting, &slower, 1e-3).verdict, BENCH_SLOWER);
    cr_expect_eq(bench_change_of(&steady, &slower, 1e-3).verdict, BENCH_SLOWER);
    free(steady.seconds), free(drifting.seconds), free(slower.seconds);
}

Test(bench_reports, few_launches_cannot_tell) {
    struct bench_series x = draw(1, 0), y = draw(2, 0);
    x.n = y.n = EACH;
    cr_expect_eq(bench_change_of(&x, &y, 1e-4).verdict, BENCH_UNCLEAR);
    free(x.seconds), free(y.seconds);
}

Test(bench_reports, a_slower_machine_is_no_slower_kernel) {
    struct bench_result before = run_of(1, 1), now = run_of(1.1, 1), faster = run_of(0.9, 1);
    cr_expect(compared(&before, &now).other_machine && !compared(&before, &now).worse);
    cr_expect(compared(&before, &faster).other_machine);
    bench_result_free(&before), bench_result_free(&now), bench_result_free(&faster);
}

Test(bench_reports, a_kernel_that_is_wrong_now_is_lost_and_a_slower_peer_is_not_ours) {
    struct bench_result before = run_of(1, 1), now = run_of(1, 1);
    now.row[2].state = BENCH_WRONG;
    now.row[2].series[BENCH_COLD].n = now.row[2].series[BENCH_WARM].n = 0;
    struct bench_comparison c = compared(&before, &now);
    cr_expect(c.worse && c.n_lost == 1);
    bench_result_free(&now);
    now = run_of(1, 1);
    for (int i = 0; i < ROUNDS * EACH; i++) now.row[3].series[BENCH_COLD].seconds[i] *= 2;
    c = compared(&before, &now);
    cr_expect(!c.worse && !c.n[BENCH_SLOWER]);
    bench_result_free(&before), bench_result_free(&now);
}

Test(bench_reports, other_devices_and_drivers_are_not_compared) {
    struct bench_result a = run_of(1, 1), b = run_of(1, 1);
    cr_expect_null(bench_incomparable(&a, &b));
    strcpy(b.speed, "driver 2");
    cr_expect(strstr(bench_incomparable(&a, &b), "was measured with driver 1, not with driver 2"));
    strcpy(b.device, "another");
    cr_expect(strstr(bench_incomparable(&a, &b), "was measured on GPU & co, not on another"));
    bench_result_free(&a), bench_result_free(&b);
}
