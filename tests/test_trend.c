/* Does a run find what no element shows: a kernel whose softmax scale is off by a thousandth, on the
 * whole or on one rank? And what does it say of honest ones? */
/* SPDX-License-Identifier: MIT */
#include "fixtures/gallery.h"
#include "harness/run.h"
#include "reports/report.h"
#include "tests/stand_in.h"
#include "tests/one_case.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE "tiny/attention:tp=2,heads=32,kv=8,dim=64,tokens=33"

static int off_from; /* the first launch that is off */
static double off_by;

static const char *launch_off(const struct call *call, void *scratch, void *stream) {
    struct call off = *call;
    if (calls++ >= off_from) off.u.attention.scale *= off_by;
    return launch_honest(&off, scratch, stream);
}

/* Where a kernel declares when P is rounded, its values are replayed, and one that is off shows there
 * first (test_replay_attention.c). */
static struct contract without_order(const struct call *call) {
    struct contract c = honest->contract(call);
    c.u.attention.p_in_order = false;
    return c;
}

static void stand_in_off(void) {
    stand_in("attention_mma", launch_off);
    fake.contract = without_order;
}

static struct run_output run_line(const char *line, const struct kernel *attention) {
    return run_one(line, (struct one_case){.stage = S_ATTENTION, .kernel = attention});
}

static const struct stage_result *attention_of(const struct run_output *out) {
    const struct case_result *const r = &out->cases[0];
    for (int i = 0; i < r->n_stages; i++)
        if (!strcmp(r->stage[i].stage, "attention")) return &r->stage[i];
    cr_assert_fail("no stage attention");
    return NULL;
}

static void expect_text(const struct run_output *out, const char *part) {
    char *text = NULL;
    size_t n;
    FILE *const file = open_memstream(&text, &n);
    report_text_case(file, &out->cases[0], 1);
    fclose(file);
    cr_expect(strstr(text, part), "no '%s' in\n%s", part, text);
    free(text);
}

Test(trend, a_scale_that_is_off_by_a_thousandth_fails_although_every_element_is_in_its_set) {
    stand_in_off();
    off_from = 0, off_by = 0.999;
    struct run_output out = run_line(LINE, &fake);
    const struct edge_result *const edge = &attention_of(&out)->edge[EDGE_KERNEL];
    cr_expect_eq(out.cases[0].verdict, CASE_FAILED);
    cr_expect(edge->state == EDGE_FAIL && edge->outside == 0 && edge->trend.state == TREND_WRONG);
    cr_expect_float_eq(edge->trend.scale.estimate, -1e-3, 1e-4);
    cr_expect(strstr(out.cases[0].first.note, "statistical: scale -0.00"), "%s", out.cases[0].first.note);
    cr_expect_str_eq(out.cases[0].likely, "");
    expect_text(&out, "kernel FAIL (statistical, ");
    run_output_free(&out);
}

Test(trend, what_is_off_is_a_remark_beside_few_elements_that_are_outside) {
    stand_in_off();
    off_from = 0, off_by = 1.0015;
    struct run_output out = run_line(LINE, &fake);
    const int64_t outside = attention_of(&out)->edge[EDGE_KERNEL].outside;
    cr_expect(outside > 0 && outside < 30, "%lld", (long long)outside);
    cr_expect(strstr(out.cases[0].first.note, "outside the acceptance set; statistical: scale +0.0015"), "%s",
              out.cases[0].first.note);
    run_output_free(&out);
}

Test(trend, a_rank_that_is_off_is_named_where_its_bits_are_not_promised) {
    stand_in_off();
    fake.shard_invariant = false;
    off_from = 2, off_by = 1.0015; /* the trunk and rank 0 are right */
    struct run_output out = run_line(LINE, &fake);
    const struct stage_result *const s = attention_of(&out);
    cr_expect(s->edge[EDGE_KERNEL].state == EDGE_OK && s->edge[EDGE_SHARD].state == EDGE_FAIL);
    cr_expect(s->edge[EDGE_SHARD].outside == 0 && out.cases[0].first.rank == 1);
    cr_expect(strstr(out.cases[0].first.note, "scale +0.0015"), "%s", out.cases[0].first.note);
    run_output_free(&out);
}

#define LONG "tiny/attention:tp=1,phase=decode,tokens=4,cached=4000,hidden=64,heads=16,kv=2,dim=64"

/* Sequence 2 is one key shorter. */
static const char *launch_short(const struct call *call, void *scratch, void *stream) {
    struct call less = *call;
    int32_t lengths[4];
    memcpy(lengths, call->u.attention.kv_len.data, sizeof lengths);
    lengths[2]--;
    less.u.attention.kv_len.data = lengths;
    return launch_honest(&less, scratch, stream);
}

Test(trend, one_key_of_4000_that_a_kernel_does_not_read_is_named) {
    stand_in("attention_decode", launch_short);
    struct run_output out = run_line(LONG, &fake);
    const struct trend *const t = &attention_of(&out)->edge[EDGE_KERNEL].trend;
    cr_expect(t->state == TREND_WRONG && strstr(t->about, " of sequence 2, kv head "), "%s", t->about);
    cr_expect_float_eq(t->worst.estimate, -1, 0.1);
    cr_expect(strstr(out.cases[0].first.note, "(not read)"), "%s", out.cases[0].first.note);
    run_output_free(&out);
}

Test(trend, an_honest_kernel_passes_with_its_resolution) {
    struct run_output out = run_line(LINE, kernel_by_name("attention_mma"));
    const struct trend *const t = &attention_of(&out)->edge[EDGE_KERNEL].trend;
    cr_expect_eq(out.cases[0].verdict, CASE_PASSED);
    cr_expect(t->state == TREND_FINE && t->statistic < 0.5 && t->tests > 300);
    cr_expect(t->gain.resolution < 1e-3 && t->scale.resolution < 1e-3);
    expect_text(&out, "\n  statistical\n");
    run_output_free(&out);
}

Test(trend, a_lattice_is_not_tested_and_few_values_say_nothing) {
    struct run_output out = run_line("tiny/attention:tp=1,tokens=5,fill=ties", NULL);
    cr_expect_eq(attention_of(&out)->edge[EDGE_KERNEL].trend.state, TREND_SILENT);
    expect_text(&out, "not tested: lattice fill");
    run_output_free(&out);
    out = run_line("tiny/attention:tp=1,tokens=2,heads=2,kv=1,dim=64,hidden=32",
                   kernel_by_name("attention_mma"));
    cr_expect_eq(attention_of(&out)->edge[EDGE_KERNEL].trend.state, TREND_FINE);
    run_output_free(&out);
}

/* Lines that are about something else, or slow. */
static bool is_about_more(const char *line) {
    static const char *const words[] = {"qkv_proj", "fill=", "cached=4100", "tokens=257", "phase=chunked"};
    bool more = !strstr(line, "/attention:");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) more |= strstr(line, words[i]) != NULL;
    return more;
}

/* The gallery has values enough for every kernel of attention. */
Test(trend, in_the_grid_every_attention_kernel_resolves_a_thousandth) {
    double best[64];
    const struct kernel *const k = kernel_table;
    for (int i = 0; i < 64; i++) best[i] = INFINITY;
    for (const char *const *line = gallery; *line; line++) {
        if (is_about_more(*line)) continue;
        struct run_output out = run_line(*line, NULL);
        const struct stage_result *const s = attention_of(&out);
        const struct trend *const t = &s->edge[EDGE_KERNEL].trend;
        for (int i = 0; k[i].name; i++)
            if (!strcmp(k[i].name, s->kernel) && t->state == TREND_FINE)
                best[i] = fmin(best[i], fmax(t->gain.resolution, t->scale.resolution));
        cr_expect(t->state != TREND_WRONG, "%s", *line);
        run_output_free(&out);
    }
    for (int i = 0; k[i].name; i++)
        cr_expect(k[i].op != OP_ATTENTION || best[i] < 1e-3, "%s: %.1e", k[i].name, best[i]);
}
