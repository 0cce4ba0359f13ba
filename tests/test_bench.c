/* Is only what is right timed, and by the samples that are said? Kernels with a mistake of the
 * test's own stand in for honest ones. */
/* SPDX-License-Identifier: MIT */
#include "harness/bench.h"

#include <math.h>
#include <string.h>

#include "harness/bench_judge.h"
#include "tests/stand_in.h"

static struct bench_shape shape_of(const char *line) {
    struct bench_shape shape;
    const struct status s = bench_shape_parse(line, &shape);
    cr_assert(!s.code, "%s", s.message);
    return shape;
}

/* ---- who is timed ---- */

static struct bench_result result;

/* The kernel's rows of a run of one shape, by `fake` alone. */
static const struct bench_row *time_fake(const char *line, double most_work) {
    const struct bench_shape shape = shape_of(line);
    const struct kernel *const wanted[1] = {&fake};
    const struct bench_request request = {
        .shape = &shape, .n_shapes = 1, .wanted = wanted, .n_wanted = 1, .rounds = 2, .most_work = most_work};
    const struct status s = bench_run(&request, &result);
    cr_assert(!s.code, "%s", s.message);
    const struct bench_row *found = NULL;
    for (int64_t i = 0; i < result.n_rows; i++)
        if (strstr(result.row[i].name, "fake")) found = &result.row[i];
    cr_assert(found, "%s: nobody did it", line);
    return found;
}

static void expect_not_timed(const struct bench_row *row) {
    cr_expect_eq(row->state, BENCH_WRONG);
    cr_expect(!row->series[BENCH_COLD].n && !row->series[BENCH_WARM].n, "%s was timed", row->name);
}

static const char *const DECODE = "decode:heads=4,kv=2,dim=32,seqs=3,keys=40";
static const char *const EXPERTS = "experts:tokens=20,experts=8,top=2,hidden=32,width=32";

static const char *launch_counted(const struct call *call, void *scratch, void *stream) {
    calls++;
    return launch_honest(call, scratch, stream);
}

Test(bench, a_right_kernel_is_timed_cold_and_warm) {
    stand_in("attention_simt", launch_counted);
    const struct bench_row *const row = time_fake(DECODE, 0);
    cr_expect_eq(row->state, BENCH_TIMED, "%s", row->note);
    cr_expect_eq(row->rows_judged, 3);
    cr_expect_eq(row->elements, 3 * 4 * 32);
    cr_expect(row->margin <= 1);
    const int cold = row->series[BENCH_COLD].n, warm = row->series[BENCH_WARM].n;
    cr_expect(cold > 0 && cold == warm && cold == 2 * row->series[BENCH_COLD].per_round);
    for (int i = 0; i < cold; i++)
        cr_expect(row->series[BENCH_COLD].seconds[i] > 0 && row->series[BENCH_WARM].seconds[i] > 0);
    /* judged; the first two to plan with; a round's first warm one is not timed; judged again */
    cr_expect_eq(calls, 1 + 2 + cold + warm + 2 + 1);
    bench_result_free(&result);
}

/* One bit of one element of the last token, or of the last row. */
static void damage_last(const struct view *out) {
    uint16_t *const bits = out->data;
    bits[out->hi - 1] ^= 0x40;
}

static const char *launch_wrong_attention(const struct call *call, void *scratch, void *stream) {
    const char *const refused = launch_counted(call, scratch, stream);
    damage_last(&call->u.attention.out);
    return refused;
}

Test(bench, a_wrong_kernel_is_told_and_not_timed) {
    stand_in("attention_simt", launch_wrong_attention);
    const struct bench_row *const row = time_fake(DECODE, 0);
    expect_not_timed(row);
    cr_expect_eq(calls, 1);
    cr_expect(strstr(row->note, "fake token 2 head 3 dim 31: got"), "%s", row->note);
    cr_expect(row->margin > 1);
    bench_result_free(&result);
}

Test(bench, a_sample_of_the_rows_holds_the_last_token) {
    stand_in("attention_simt", launch_wrong_attention);
    const struct bench_row *const row = time_fake(DECODE, 1); /* work for less than one row */
    expect_not_timed(row);
    cr_expect_eq(row->rows_judged, 1);
    cr_expect_eq(row->rows, 3);
    bench_result_free(&result);
}

static const char *launch_nothing_for_one(const struct call *call, void *scratch, void *stream) {
    uint16_t kept[4 * 32];
    uint16_t *const row = (uint16_t *)call->u.attention.out.data + 1 * 4 * 32;
    memcpy(kept, row, sizeof kept);
    const char *const refused = launch_counted(call, scratch, stream);
    memcpy(row, kept, sizeof kept);
    return refused;
}

Test(bench, rows_outside_of_the_sample_must_be_numbers) {
    stand_in("attention_simt", launch_nothing_for_one);
    const struct bench_row *const row = time_fake(DECODE, 1);
    expect_not_timed(row);
    cr_expect(strstr(row->note, "128 of 384 elements are NaN"), "%s", row->note);
    bench_result_free(&result);
}

static const char *launch_outside(const struct call *call, void *scratch, void *stream) {
    const char *const refused = launch_counted(call, scratch, stream);
    ((uint16_t *)call->u.attention.out.data)[call->u.attention.out.hi] = 1;
    return refused;
}

Test(bench, writing_outside_of_the_output_is_wrong) {
    stand_in("attention_simt", launch_outside);
    const struct bench_row *const row = time_fake(DECODE, 0);
    expect_not_timed(row);
    cr_expect(strstr(row->note, "wrote 2 bytes outside its output"), "%s", row->note);
    bench_result_free(&result);
}

static const char *launch_wrong_later(const struct call *call, void *scratch, void *stream) {
    const char *const refused = launch_counted(call, scratch, stream);
    if (calls > 5) damage_last(&call->u.attention.out);
    return refused;
}

Test(bench, what_was_right_only_at_first_has_no_times) {
    stand_in("attention_simt", launch_wrong_later);
    const struct bench_row *const row = time_fake(DECODE, 0);
    expect_not_timed(row);
    cr_expect(calls > 5);
    cr_expect(strstr(row->note, "right at first, wrong after it was timed"), "%s", row->note);
    bench_result_free(&result);
}

static const char *launch_failing(const struct call *call, void *scratch, void *stream) {
    return calls++ > 5 ? "boom" : launch_honest(call, scratch, stream);
}

Test(bench, a_failure_while_timed_is_told_and_the_others_go_on) {
    const struct bench_shape shape = shape_of(DECODE);
    const struct kernel *const wanted[2] = {&fake, kernel_by_name("attention_simt")};
    const struct bench_request request = {
        .shape = &shape, .n_shapes = 1, .wanted = wanted, .n_wanted = 2, .rounds = 2};
    stand_in("attention_simt", launch_failing);
    cr_assert(!bench_run(&request, &result).code);
    int timed = 0;
    for (int64_t i = 0; i < result.n_rows; i++) {
        const struct bench_row *const row = &result.row[i];
        if (!strcmp(row->name, "attention_simt"))
            timed += row->state == BENCH_TIMED && row->series[BENCH_WARM].n > 0;
        if (strcmp(row->name, "fake") != 0) continue;
        expect_not_timed(row);
        cr_expect_str_eq(row->note, "failed while it was timed: fake: boom");
    }
    cr_expect_eq(timed, 1);
    bench_result_free(&result);
}

/* ---- scratch ---- */

enum { MUCH = 8 << 20 };
static size_t much(const struct call *call) {
    (void)call;
    return MUCH;
}
static const char *launch_with_scratch(const struct call *call, void *scratch, void *stream) {
    memset(scratch, calls, MUCH);
    return launch_counted(call, scratch, stream);
}

/* A kernel without scratch is judged after it, and one of the registry that asks for less. */
Test(bench, every_launch_has_the_scratch_that_it_asked_for) {
    const struct bench_shape shape = shape_of("decode:heads=4,kv=2,dim=64,seqs=3,keys=40");
    stand_in("attention_simt", launch_with_scratch);
    fake.scratch_bytes = much;
    struct kernel none = *honest;
    none.name = "none";
    const struct kernel *const wanted[3] = {&fake, &none, kernel_by_name("attention_decode")};
    const struct bench_request request = {
        .shape = &shape, .n_shapes = 1, .wanted = wanted, .n_wanted = 3, .rounds = 2};
    cr_assert(!bench_run(&request, &result).code);
    cr_expect_eq(bench_count(&result).of[BENCH_TIMED], 3);
    bench_result_free(&result);
}

/* ---- chains ---- */

static const char *launch_linear(const struct call *call, void *scratch, void *stream) {
    return launch_counted(call, scratch, stream);
}

/* The last row of expert 3 is that of its first. */
static const char *launch_wrong_expert(const struct call *call, void *scratch, void *stream) {
    const struct linear_args *const a = &call->u.linear;
    const char *const refused = launch_counted(call, scratch, stream);
    const int32_t *const offsets = a->offsets.data;
    uint16_t *const out = a->out.data;
    if (a->n_groups < 8) return refused;
    cr_assert(offsets[4] - offsets[3] > 1);
    memcpy(out + (offsets[4] - 1) * a->n_cols, out + offsets[3] * a->n_cols, (size_t)a->n_cols * 2);
    return refused;
}

Test(bench, each_step_of_the_experts_is_judged) {
    stand_in("linear_simt", launch_linear);
    const struct bench_row *row = time_fake(EXPERTS, 0);
    cr_expect_eq(row->state, BENCH_TIMED, "%s", row->note);
    cr_expect(strstr(row->name, "fake"), "%s", row->name);
    bench_result_free(&result);
    stand_in("linear_simt", launch_wrong_expert);
    row = time_fake(EXPERTS, 0);
    expect_not_timed(row);
    bench_result_free(&result);
}

Test(bench, a_sample_of_the_rows_holds_both_ends_of_every_expert) {
    stand_in("linear_simt", launch_wrong_expert);
    const struct bench_row *const row = time_fake(EXPERTS, 16 * 64 * 32); /* 16 rows of gate_up, 32 of down */
    expect_not_timed(row);
    cr_expect(row->rows_judged < row->rows);
    cr_expect(strstr(row->note, ", of expert 3, column"), "%s", row->note);
    bench_result_free(&result);
}

Test(bench, who_cannot_take_a_shape_is_refused_by_name) {
    stand_in("attention_decode", launch_counted);
    const struct bench_row *const row = time_fake("prefill:heads=4,kv=2,dim=32,seqs=1,keys=20", 0);
    cr_expect_eq(row->state, BENCH_REFUSED);
    cr_expect(strstr(row->note, "needs one query per sequence"), "%s", row->note);
    cr_expect_eq(calls, 0);
    bench_result_free(&result);
}

/* ---- what follows from samples ---- */

Test(bench, quartiles_lie_between_the_nearest_samples) {
    double seconds[4] = {4, 1, 3, 2};
    const struct bench_series series = {4, 2, seconds};
    const struct bench_spread s = bench_spread_of(&series);
    cr_expect_float_eq(s.q1, 1.75, 1e-12);
    cr_expect_float_eq(s.median, 2.5, 1e-12);
    cr_expect_float_eq(s.q3, 3.25, 1e-12);
}

static struct bench_row *add_row(struct bench_result *r, const char *name, double bytes, double flops,
                                 double seconds) {
    struct bench_row *const row = bench_result_add(r);
    snprintf(row->name, sizeof row->name, "%s", name);
    row->bytes = bytes, row->flops = flops;
    row->series[BENCH_COLD] = (struct bench_series){1, 1, malloc(sizeof(double))};
    row->series[BENCH_COLD].seconds[0] = seconds;
    return row;
}

Test(bench, shares_are_of_what_binds_and_ratios_of_the_fastest_peer) {
    struct bench_result r = {0};
    const struct bench_row *peer;
    add_row(&r, "copy", 200, 0, 2)->gauge = true;    /* 100 bytes a second */
    add_row(&r, "dense", 30, 1000, 1)->gauge = true; /* 1000 operations a second */
    add_row(&r, "ours", 50, 200, 1);                 /* half a second of copying, 0.2 of products */
    add_row(&r, "slow peer", 50, 200, 3)->peer = true;
    add_row(&r, "peer", 50, 200, 2)->peer = true;
    add_row(&r, "peer of another shape", 50, 200, 0.1)->peer = true;
    strcpy(r.row[5].shape, "else");
    cr_expect_eq(bench_count(&r).of[BENCH_TIMED], 1);
    const struct bench_limits limits = bench_limits_of(&r);
    cr_expect_float_eq(limits.bytes, 100, 1e-9);
    cr_expect_float_eq(limits.flops, 1000, 1e-9);
    const struct bench_share share = bench_share_of(&r.row[2], BENCH_COLD, &limits);
    cr_expect_float_eq(share.share, 0.5, 1e-9);
    cr_expect(share.by_memory);
    cr_expect_float_eq(bench_ratio(&r, &r.row[2], BENCH_COLD, &peer), 2, 1e-9);
    cr_expect_str_eq(peer->name, "peer");
    cr_expect_eq(bench_ratio(&r, &r.row[2], BENCH_WARM, &peer), 0);
    int n;
    add_row(&r, "faster than ours", 50, 200, 0.25)->peer = true;
    add_row(&r, "ours", 50, 200, 0.5);
    strcpy(r.row[6].shape, "third"), strcpy(r.row[7].shape, "third");
    cr_expect_float_eq(bench_best_of(&r, 6, BENCH_COLD).ratio, 0.5, 1e-9);
    cr_expect_null(bench_best_of(&r, 5, BENCH_COLD).ours);
    cr_expect_float_eq(bench_mean_ratio(&r, BENCH_COLD, &n), 1, 1e-9); /* of 2 and a half */
    cr_expect_eq(n, 2);
    r.row[1].state = BENCH_WRONG; /* the product whose rate shares are of */
    cr_expect_eq(bench_count(&r).of[BENCH_WRONG], 1);
    cr_expect_eq(bench_limits_of(&r).flops, 0);
    bench_result_free(&r);
}
