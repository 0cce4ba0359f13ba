/* Is the replay of a declared order what that order gives, bit for bit? And does it tell a kernel that
 * sums in another one, which no bound could? */
/* SPDX-License-Identifier: MIT */
#include "reference/replay.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "harness/run.h"
#include "tests/stand_in.h"

enum { ROWS = 11, COLS = 7, GROUPS = 3, MOST = 700 };
static float x[ROWS * MOST], w[GROUPS * COLS * MOST], bias[COLS];
static uint16_t x16[ROWS * MOST], w16[GROUPS * COLS * MOST];
static int32_t offsets[GROUPS + 1] = {0, 6, 6, ROWS}; /* the second group has no rows */

/* In bf16 values either way; `wide`: of very different magnitudes. */
static struct call call_of(enum dtype d, int64_t k, bool wide) {
    float *const all[] = {x, w, bias};
    const size_t count[] = {ROWS * MOST, GROUPS * COLS * MOST, COLS};
    for (int i = 0; i < 3; i++)
        for (size_t n = 0; n < count[i]; n++) {
            const double scale = wide ? exp2(floor(drand48() * 60) - 30) : 1;
            all[i][n] = (float)dtype_round(d, (drand48() * 2 - 1) * scale * (drand48() > 0.1));
        }
    for (size_t n = 0; n < count[0]; n++) dtype_store(x16, DTYPE_BF16, (int64_t)n, (double)x[n]);
    for (size_t n = 0; n < count[1]; n++) dtype_store(w16, DTYPE_BF16, (int64_t)n, (double)w[n]);
    struct call c = {.op = OP_LINEAR};
    const bool fp32 = d == DTYPE_F32;
    c.u.linear = (struct linear_args){
        .x = {fp32 ? (void *)x : x16, d, {MOST, 1}, 0, ROWS * MOST},
        .w = {fp32 ? (void *)w : w16, d, {COLS * MOST, MOST, 1}, 0, GROUPS * COLS * MOST},
        .bias = {bias, DTYPE_F32, {1}, 0, COLS},
        .offsets = {offsets, DTYPE_I32, {1}, 0, GROUPS + 1},
        .n_rows = ROWS,
        .n_cols = COLS,
        .n_inner = k,
        .n_groups = GROUPS};
    return c;
}

static struct contract order(int block, int fraction, int64_t slice) {
    struct contract c = contract_exact(OP_LINEAR);
    c.u.linear.acc.in_order = true;
    c.u.linear.acc.block = block;
    c.u.linear.acc.fraction = fraction;
    c.u.linear.acc.keep = 24;
    c.u.linear.acc.slice = slice;
    c.u.linear.acc.splits = slice ? 2 : 1;
    return c;
}

/* ---- the same arithmetic, one element at a time ---- */

static float chain(float sum, const float *a, const float *b, int64_t n) {
    for (int64_t k = 0; k < n; k++) sum = fmaf(a[k], b[k], sum);
    return sum;
}

static int exponent_of(float v) { return v == 0 ? -4000 : ilogbf(v) < -126 ? -126 : ilogbf(v); }
static double cut(double v, int exponent) { return ldexp(trunc(ldexp(v, -exponent)), exponent); }

/* Steps of a tensor core, from the words of docs/host-device.md. */
static float core(float sum, const float *a, const float *b, int64_t n, const struct accumulator *acc) {
    for (int64_t k = 0; k < n; k += acc->block) {
        int e = exponent_of(sum);
        for (int64_t i = k; i < n && i < k + acc->block; i++)
            if (exponent_of(a[i]) + exponent_of(b[i]) > e) e = exponent_of(a[i]) + exponent_of(b[i]);
        if (e < -3000) continue; /* all are zero */
        double total = cut((double)sum, e - acc->fraction);
        for (int64_t i = k; i < n && i < k + acc->block; i++)
            total += cut((double)a[i] * (double)b[i], e - acc->fraction);
        const int top = total == 0 ? 0 : ilogb(total);
        sum = (float)cut(total, (top < -126 ? -126 : top) - 23);
    }
    return sum;
}

static const float *row_of(int64_t row) { return x + row * MOST; }
static const float *column_of(int64_t row, int64_t column) {
    return w + ((row < offsets[1] ? 0 : 2) * COLS + column) * MOST;
}

static float one(const struct contract *c, int64_t row, int64_t column, int64_t n) {
    const struct accumulator *const acc = &c->u.linear.acc;
    const float *const a = row_of(row), *const b = column_of(row, column);
    const int64_t slice = acc->slice ? acc->slice : n;
    float total = 0;
    for (int64_t k = 0; k < n; k += slice) {
        const int64_t terms = slice < n - k ? slice : n - k;
        const float part = acc->block > 1 ? core(0, a + k, b + k, terms, acc) : chain(0, a + k, b + k, terms);
        total = k ? total + part : part;
    }
    return total + bias[column];
}

Test(replay, chains_tensor_core_steps_and_slices_have_the_bits_of_one_element_at_a_time) {
    static const struct {
        enum dtype d;
        int block, fraction;
        int64_t k, slice;
        bool wide;
    } cases[] = {{DTYPE_F32, 1, 0, 700, 0, false},    {DTYPE_BF16, 1, 0, 33, 0, false},
                 {DTYPE_F32, 1, 0, 700, 352, false},  {DTYPE_F32, 1, 0, 129, 0, true},
                 {DTYPE_BF16, 16, 25, 700, 0, false}, {DTYPE_BF16, 16, 25, 256, 0, true},
                 {DTYPE_BF16, 8, 24, 520, 0, false},  {DTYPE_BF16, 16, 25, 640, 320, false},
                 {DTYPE_BF16, 16, 25, 9, 0, true}};
    srand48(3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct call call = call_of(cases[i].d, cases[i].k, cases[i].wide);
        const struct contract c = order(cases[i].block, cases[i].fraction, cases[i].slice);
        cr_assert(ref_replays(&call, &c));
        for (int threads = 1; threads <= 3; threads++)
            for (int64_t row0 = 0; row0 < ROWS; row0 += 4) {
                const int64_t row1 = row0 + 4 < ROWS ? row0 + 4 : ROWS;
                double y[4 * COLS], e[4 * COLS];
                omp_set_num_threads(threads);
                ref_replay(&call, &c, row0, row1, 1, y, e);
                for (int64_t n = 0; n < (row1 - row0) * COLS; n++) {
                    const float want = one(&c, row0 + n / COLS, n % COLS, cases[i].k);
                    cr_assert(y[n] == (double)want && e[n] == 0, "case %zu: %.9g, not %.9g", i, y[n],
                              (double)want);
                }
            }
    }
}

Test(replay, what_fp32_cannot_hold_is_left_to_the_bound) {
    const struct call call = call_of(DTYPE_F32, 2, false);
    const struct contract c = order(1, 0, 0);
    double y[COLS], e[COLS];
    x[0] = x[1] = 0x1p100f, w[0] = w[1] = 0x1p28f;
    ref_replay(&call, &c, 0, 1, 1, y, e);
    cr_expect(y[0] == 0 && e[0] == INFINITY && e[1] == 0);
}

Test(replay, what_is_not_sampled_is_left_to_the_bound_and_what_is_has_the_same_bits) {
    const struct call call = call_of(DTYPE_F32, 64, false);
    const struct contract c = order(1, 0, 0);
    double all[ROWS * COLS], some[ROWS * COLS], e[ROWS * COLS];
    ref_replay(&call, &c, 0, ROWS, 1, all, e);
    ref_replay(&call, &c, 0, ROWS, 2, some, e); /* one block of columns: in every other group */
    for (int64_t n = 0; n < ROWS * COLS; n++) cr_expect(e[n] == 0 && some[n] == all[n]);
    ref_replay(&call, &c, 0, ROWS, 3, some, e);
    for (int64_t n = 0; n < ROWS * COLS; n++)
        cr_expect(n / COLS < offsets[1] ? e[n] == 0 && some[n] == all[n] : e[n] == INFINITY && some[n] == 0);
}

Test(replay, only_a_declared_order_in_the_declared_formats_is_replayed) {
    struct call call = call_of(DTYPE_F32, 64, false);
    const struct contract plain = contract_exact(OP_LINEAR), tensor = order(16, 25, 0),
                          norm = {.op = OP_NORM};
    struct contract rounded = order(1, 0, 0), split = order(1, 0, 0);
    rounded.u.linear.input_unit = UNIT_BF16;
    split.u.linear.acc.splits = 2;
    cr_expect_not(ref_replays(&call, &plain) || ref_replays(&call, &tensor) || ref_replays(&call, &norm) ||
                  ref_replays(&call, &rounded) || ref_replays(&call, &split));
    call.u.linear.x.dtype = DTYPE_F64;
    cr_expect_not(ref_replays(&call, &(struct contract){.op = OP_LINEAR, .u.linear.acc.in_order = true}));
}

/* Bounds cannot tell the order: everything honest is inside. The replay can. */
Test(replay, another_order_is_inside_the_bound_and_not_what_the_declared_one_gives) {
    int reversed = 0, halved = 0, same = 0;
    double y[ROWS * COLS], e[ROWS * COLS], s[ROWS * COLS], none[ROWS * COLS];
    srand48(9);
    const struct call call = call_of(DTYPE_F32, MOST, false);
    const struct contract c = order(1, 0, 0), halves = order(1, 0, MOST / 2);
    ref_compute(&call, &c, NULL, 0, ROWS, (struct ref_out[MAX_REF_OUT]){{y, e, NULL}});
    ref_replay(&call, &c, 0, ROWS, 1, s, none);
    for (int64_t n = 0; n < ROWS * COLS; n++) {
        const float *const a = row_of(n / COLS), *const b = column_of(n / COLS, n % COLS);
        float back = 0;
        for (int64_t k = MOST - 1; k >= 0; k--) back = fmaf(a[k], b[k], back);
        const float got[] = {back + bias[n % COLS], one(&halves, n / COLS, n % COLS, MOST),
                             one(&c, n / COLS, n % COLS, MOST)};
        for (int i = 0; i < 3; i++)
            cr_assert_eq(element_judge(DTYPE_F32, (double)got[i], y[n], e[n]).kind, ELEMENT_OK);
        reversed += (double)got[0] != s[n], halved += (double)got[1] != s[n], same += (double)got[2] == s[n];
    }
    cr_expect(reversed > ROWS * COLS / 2 && halved > ROWS * COLS / 2, "%d and %d", reversed, halved);
    cr_expect_eq(same, ROWS * COLS);
}

Test(replay, sums_in_slices_stay_inside_the_bound_of_their_slices_which_is_the_sharper_one) {
    double y[ROWS * COLS], e[ROWS * COLS], whole[ROWS * COLS];
    srand48(4);
    const struct call call = call_of(DTYPE_F32, MOST, false);
    for (int64_t slice = 20; slice <= 350; slice *= 2) {
        struct contract c = order(1, 0, slice), unknown = c;
        c.u.linear.acc.splits = unknown.u.linear.acc.splits = (int)((MOST + slice - 1) / slice);
        unknown.u.linear.acc.slice = 0;
        ref_compute(&call, &c, NULL, 0, ROWS, (struct ref_out[MAX_REF_OUT]){{y, e, NULL}});
        ref_compute(&call, &unknown, NULL, 0, ROWS, (struct ref_out[MAX_REF_OUT]){{NULL, whole, NULL}});
        double sharp = 0, loose = 0;
        for (int64_t n = 0; n < ROWS * COLS; n++) {
            const double got = (double)one(&c, n / COLS, n % COLS, MOST);
            cr_expect_eq(element_judge(DTYPE_F32, got, y[n], e[n]).kind, ELEMENT_OK);
            sharp += e[n], loose += whole[n];
            cr_expect_eq(
                element_judge(DTYPE_F32, (double)one(&c, n / COLS, n % COLS, MOST - slice), y[n], e[n]).kind,
                ELEMENT_OUTSIDE, "a slice is missing");
        }
        cr_expect_lt(sharp * (MOST >= 4 * slice ? 1.5 : 1.0), loose);
    }
}

/* ---- a whole case ---- */

/* Sums from the last term to the first. */
static const char *backwards(const struct call *call, void *scratch, void *stream) {
    const struct linear_args *const a = &call->u.linear;
    (void)scratch, (void)stream;
    for (int64_t r = 0; r < a->n_rows; r++)
        for (int64_t n = 0; n < a->n_cols; n++) {
            float sum = 0;
            for (int64_t k = a->n_inner - 1; k >= 0; k--)
                sum = fmaf((float)dtype_load(a->x.data, a->x.dtype, r * a->x.stride[0] + k),
                           (float)dtype_load(a->w.data, a->w.dtype, n * a->w.stride[1] + k), sum);
            dtype_store(a->out.data, a->out.dtype, r * a->out.stride[0] + n, (double)sum);
        }
    return NULL;
}

static struct run_output run_line(launch_fn launch) {
    struct check_case c;
    bool has_part;
    struct run_output out;
    cr_assert_eq(case_parse("tiny/attention:tp=2,tokens=5,dtype=fp32", &c, &has_part).code, STATUS_OK);
    stand_in("linear_simt", launch);
    c.kernel[S_O_PROJ] = &fake;
    const struct run_request request = {.cases = &c, .n_cases = 1};
    cr_assert_eq(run_cases(&request, &out).code, STATUS_OK);
    return out;
}

Test(replay, a_kernel_that_sums_otherwise_than_it_declares_fails_its_case) {
    struct run_output out = run_line(backwards);
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_FAILED);
    cr_expect(strstr(r->first.note, "not what the declared order of the sum gives"), "%s", r->first.note);
    cr_expect_str_eq(r->first.stage, "o_proj");
    cr_expect_eq(r->edge[EDGE_KERNEL].other_bits, r->edge[EDGE_KERNEL].outside);
    run_output_free(&out);
}

Test(replay, the_kernel_that_does_as_it_declares_passes_with_every_element_replayed) {
    struct run_output out = run_line(launch_honest);
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_PASSED);
    for (int i = 0; i < r->n_stages; i++)
        if (!strcmp(r->stage[i].stage, "o_proj")) {
            cr_expect_eq(r->stage[i].edge[EDGE_KERNEL].in_order, r->stage[i].edge[EDGE_KERNEL].elements);
            cr_expect_gt(r->stage[i].edge[EDGE_SHARD].in_order, 0);
        }
    run_output_free(&out);
}
