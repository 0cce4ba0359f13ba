/* Is a bound that says nothing told from one that does? */
/* SPDX-License-Identifier: MIT */
#include "harness/sharpness.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "harness/run.h"
#include "tests/stand_in.h"
#include "tests/one_case.h"

static struct sharpness sharpness_between(double *y, double *e, int64_t n) {
    const struct answer a = {.n = 1, .y = {y}, .e = {e}, .count = {n}};
    return sharpness_of(&a);
}

Test(sharpness, median_and_vacuous_sets_follow_the_definition) {
    double y[] = {-1, 2, 4, 0, 0, 8}, e[] = {0.5, 0.5, 5, 0, 2, INFINITY};
    /* ratios 0.5 0.25 1.25 0 2/8 inf: the smaller of the two in the middle is 0.25 */
    const struct sharpness s = sharpness_between(y, e, 6);
    cr_expect_eq(s.elements, 6);
    cr_expect_eq(s.vacuous, 2);
    cr_expect_eq(s.median, 0.25);
}

Test(sharpness, one_legal_value_is_as_sharp_as_can_be_and_a_zero_among_zeros_is_not) {
    double y[] = {0, 0, 0}, one[] = {0, 0, 0}, more[] = {1e-30, 1e-30, 0};
    cr_expect_eq(sharpness_between(y, one, 3).median, 0);
    cr_expect_eq(sharpness_between(y, one, 3).vacuous, 0);
    cr_expect_eq(sharpness_between(y, more, 3).vacuous, 2);
    cr_expect_eq(sharpness_between(y, more, 3).median, INFINITY);
}

Test(sharpness, what_accepts_nothing_is_left_out) {
    double y[] = {NAN, 1, INFINITY, 1}, e[] = {1, NAN, 1, 0.125};
    const struct sharpness s = sharpness_between(y, e, 4);
    cr_expect(s.elements == 1 && s.vacuous == 0 && s.median == 0.125);
}

Test(sharpness, the_median_is_exact_to_an_eighth_whatever_the_number_of_threads) {
    enum { N = 200001 };
    double *const y = malloc(N * sizeof *y), *const e = malloc(N * sizeof *e);
    for (int i = 0; i < N; i++)
        y[i] = i % 2 ? 3 : -3, e[i] = 3 * exp(2e-4 * (double)((i * 7919LL) % N - N / 2));
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        const struct sharpness s = sharpness_between(y, e, N);
        cr_expect_eq(s.median, 1, "%g", s.median); /* exp(0); every power is there once */
        cr_expect_eq(s.vacuous, N / 2, "%lld", (long long)s.vacuous);
    }
    free(y);
    free(e);
}

Test(sharpness, an_edge_is_loose_where_most_sets_are_vacuous_and_a_failure_stays_one) {
    struct edge_result half = {.state = EDGE_OK}, more = half, failed = {.state = EDGE_FAIL};
    sharpness_record(&(struct sharpness){.elements = 10, .vacuous = 5, .median = 0.5}, &half);
    sharpness_record(&(struct sharpness){.elements = 10, .vacuous = 6, .median = 2}, &more);
    sharpness_record(&(struct sharpness){.elements = 10, .vacuous = 6, .median = 2}, &failed);
    cr_expect(half.state == EDGE_OK && half.vacuous == 5 && half.sharpness == 0.5);
    cr_expect(more.state == EDGE_LOOSE && more.vacuous == 6 && more.sharpness == 2);
    cr_expect_eq(failed.state, EDGE_FAIL);
}

/* ---- a whole case ---- */

/* As if partial sums in nearly no digits were honest. */
static struct contract boundless(const struct call *call) {
    struct contract c = honest->contract(call);
    c.u.linear.acc.splits = 1 << 23;
    return c;
}

static const char *nothing(const struct call *call, void *scratch, void *stream) {
    const struct view *const out = &call->u.linear.out;
    const char *const problem = launch_honest(call, scratch, stream);
    for (int64_t i = 0; i < call->u.linear.n_cols; i++) dtype_store(out->data, out->dtype, i, (double)NAN);
    return problem;
}

static struct run_output run_line(const char *line, launch_fn launch) {
    stand_in("linear_simt", launch);
    fake.contract = boundless;
    return run_one(line, (struct one_case){.stage = S_O_PROJ, .kernel = &fake});
}

Test(sharpness, a_case_whose_bounds_accept_everything_has_not_passed) {
    struct run_output out = run_line("tiny/attention:tp=1,tokens=5", launch_honest);
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_SKIPPED);
    cr_expect_eq(r->edge[EDGE_KERNEL].state, EDGE_LOOSE);
    cr_expect(strstr(r->reason, "kernel too loose: stage o_proj by fake, "), "%s", r->reason);
    run_output_free(&out);
}

Test(sharpness, a_case_that_is_wrong_within_loose_bounds_fails) {
    struct run_output out = run_line("tiny/attention:tp=1,tokens=5", nothing);
    cr_expect_eq(out.cases[0].verdict, CASE_FAILED);
    run_output_free(&out);
}
