/* Is the order that a kernel sums in found where it declares none, and only there? And does the bound
 * that follows see what the one over any order let pass? */
/* SPDX-License-Identifier: MIT */
#include "reference/order.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/run.h"
#include "reference/replay.h"
#include "tests/one_case.h"
#include "tests/stand_in.h"

enum { ROWS = 70, COLS = 200, INNER = 512 };
static float x[ROWS * INNER], w[COLS * INNER], y[ROWS * COLS];

static struct contract any_order(const struct call *call) {
    struct contract c = contract_exact(OP_LINEAR);
    (void)call;
    c.u.linear.acc.order = ORDER_ANY;
    c.u.linear.acc.splits = 32;
    return c;
}

/* Row r and column n in floats. */
static float x_at(const struct linear_args *a, int64_t r, int64_t k) {
    return (float)dtype_load(a->x.data, a->x.dtype, r * a->x.stride[0] + k);
}
static float w_at(const struct linear_args *a, int64_t n, int64_t k) {
    return (float)dtype_load(a->w.data, a->w.dtype, n * a->w.stride[1] + k);
}

/* Each of `strands` running sums takes every strands-th run of `run` terms; added up in order. */
static float strands(const struct linear_args *a, int64_t r, int64_t n, int n_strands, int64_t run) {
    float sum[8] = {0};
    for (int64_t k = 0; k < a->n_inner; k++) {
        float *const s = &sum[k / run % n_strands];
        *s = fmaf(x_at(a, r, k), w_at(a, n, k), *s);
    }
    for (int i = 1; i < n_strands; i++) sum[0] += sum[i];
    return sum[0];
}

static struct call product(enum dtype out, double (*value)(void)) {
    struct call call = {.op = OP_LINEAR};
    srand48(5);
    for (int i = 0; i < ROWS * INNER; i++) x[i] = (float)value();
    for (int i = 0; i < COLS * INNER; i++) w[i] = (float)value();
    call.u.linear = (struct linear_args){.x = {x, DTYPE_F32, {INNER, 1}, 0, ROWS * INNER},
                                         .w = {w, DTYPE_F32, {COLS * INNER, INNER, 1}, 0, COLS * INNER},
                                         .out = {y, out, {COLS, 1}, 0, ROWS * COLS},
                                         .n_rows = ROWS,
                                         .n_cols = COLS,
                                         .n_inner = INNER,
                                         .n_groups = 1};
    return call;
}
static double uniform(void) { return drand48() * 2 - 1; }
static double whole_numbers(void) { return floor(drand48() * 4); }

/* Rows and columns from these on are summed in two interleaved strands. */
static struct order_found stored(struct call *call, int64_t row, int64_t col, int n_strands, int64_t run) {
    const struct linear_args *const a = &call->u.linear;
    struct order_found found;
    for (int64_t i = 0; i < a->n_rows * a->n_cols; i++) {
        const int64_t r = i / a->n_cols, n = i % a->n_cols;
        const bool other = r >= row && n >= col;
        dtype_store(y, a->out.dtype, i, (double)strands(a, r, n, other ? 2 : n_strands, other ? 1 : run));
    }
    const struct contract declared = any_order(call);
    order_find(call, &declared, &found);
    return found;
}

Test(order, a_chain_and_its_slices_are_found_by_name) {
    struct call call = product(DTYPE_F32, uniform);
    struct order_found f = stored(&call, ROWS, COLS, 1, 1);
    cr_expect(f.found && f.telling > ORDER_TELLING);
    cr_expect_str_eq(f.order.name, "fp32 FMA chain");
    f = stored(&call, ROWS, COLS, 2, INNER / 2);
    cr_expect(f.found);
    cr_expect_str_eq(f.order.name, "2 slices of 256, fp32 FMA chain");
}

Test(order, interleaved_sums_are_none_of_the_table_anywhere_or_in_one_corner) {
    struct call call = product(DTYPE_F32, uniform);
    cr_expect_not(stored(&call, ROWS, COLS, 4, 1).found);
    cr_expect_not(stored(&call, ROWS - 3, COLS - 4, 1, 1).found); /* the corner's own tile */
    cr_expect_not(stored(&call, 0, COLS - 8, 1, 1).found);
    cr_expect_not(stored(&call, ROWS - 4, 0, 1, 1).found);
}

Test(order, what_every_order_gives_tells_none) {
    struct call call = product(DTYPE_F32, whole_numbers);
    struct order_found f = stored(&call, ROWS, COLS, 1, 1);
    cr_expect(!f.found && f.telling == 0 && f.sampled > 0);
    call = product(DTYPE_F32, uniform);
    call.u.linear.n_rows = call.u.linear.n_cols = 2;
    f = stored(&call, ROWS, COLS, 1, 1);
    cr_expect(!f.found && f.telling < ORDER_TELLING, "%lld", (long long)f.telling);
}

/* ---- a whole case ---- */

enum { WRONG_COL = 20 }; /* of no piece of the sample */
static int n_strands_run;
static bool nudged;

/* One column is off by nearly what the bound over any order allows. */
static double nudge(const struct call *call, int64_t r, int64_t n) {
    const struct contract any = any_order(call);
    double magnitudes = 0;
    for (int64_t k = 0; k < call->u.linear.n_inner; k++)
        magnitudes += fabs((double)x_at(&call->u.linear, r, k) * (double)w_at(&call->u.linear, n, k));
    return 0.9 * accumulator_factor(&any.u.linear.acc, call->u.linear.n_inner) * magnitudes;
}

static const char *launch(const struct call *call, void *scratch, void *stream) {
    const struct linear_args *const a = &call->u.linear;
    (void)scratch, (void)stream;
    for (int64_t r = 0; r < a->n_rows; r++)
        for (int64_t n = 0; n < a->n_cols; n++) {
            const double sum = (double)strands(a, r, n, n_strands_run, 1);
            dtype_store(a->out.data, a->out.dtype, r * a->out.stride[0] + n,
                        sum + (nudged && n == WRONG_COL ? nudge(call, r, n) : 0));
        }
    return NULL;
}

static struct run_output run_line(int n_strands, bool off) {
    n_strands_run = n_strands, nudged = off;
    stand_in("linear_simt", launch);
    fake.contract = any_order;
    fake.shard_invariant = false;
    return run_one("tiny/attention:tp=2,tokens=5,dtype=fp32",
                   (struct one_case){.stage = S_O_PROJ, .kernel = &fake});
}

static const struct edge_result *o_proj(const struct run_output *out, enum edge edge) {
    const struct case_result *const r = &out->cases[0];
    int i = 0;
    while (i + 1 < r->n_stages && strcmp(r->stage[i].stage, "o_proj")) i++;
    return &r->stage[i].edge[edge];
}

Test(order, a_found_order_sharpens_the_bound_of_the_trunk_and_of_every_rank_and_is_said) {
    struct run_output found = run_line(1, false), open = run_line(4, false);
    cr_expect(found.cases[0].verdict == CASE_PASSED && open.cases[0].verdict == CASE_PASSED);
    for (int edge = EDGE_KERNEL; edge <= EDGE_SHARD; edge += EDGE_SHARD - EDGE_KERNEL) {
        const struct edge_result *const sharp = o_proj(&found, (enum edge)edge), *const loose = o_proj(
                                                                                     &open, (enum edge)edge);
        cr_expect(strstr(sharp->order, "fp32 FMA chain: the bits of all "), "%s", sharp->order);
        cr_expect(strstr(loose->order, "any: none that is known gives the bits of "), "%s", loose->order);
        if (edge == EDGE_KERNEL) cr_expect_lt(2 * sharp->sharpness, loose->sharpness);
    }
    run_output_free(&found), run_output_free(&open);
}

Test(order, an_error_inside_the_bound_over_any_order_is_outside_that_of_the_order_found) {
    struct run_output sharp = run_line(1, true), loose = run_line(4, true);
    cr_expect_eq(sharp.cases[0].verdict, CASE_FAILED);
    cr_expect(strstr(sharp.cases[0].where, "o_proj"), "%s", sharp.cases[0].where);
    cr_expect_eq(loose.cases[0].verdict, CASE_PASSED, "this much is honest in some order");
    run_output_free(&sharp), run_output_free(&loose);
}
