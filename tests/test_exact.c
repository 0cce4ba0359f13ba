/* Is one value right, and one only, where a fill says so? Sums of lattice values against every order
 * of adding them, what one product left out does, and whole cases. */
/* SPDX-License-Identifier: MIT */
#include "fixtures/fill.h"
#include "fixtures/model.h"
#include "harness/run.h"
#include "reference/bound.h"
#include "reference/reference.h"
#include "tests/stand_in.h"
#include "tests/one_case.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the proof ---- */

Test(exact, the_grid_of_a_number_is_its_lowest_bit) {
    static const double rows[][2] = {{1, 1}, {-3, 1}, {6, 2}, {0.75, 0.25}, {0x1.8p40, 0x1p39}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(value_grid(rows[i][0]), rows[i][1], "%g", rows[i][0]);
    cr_expect(isinf(value_grid(0)) && isinf(value_grid(-0.0)), "zero is a multiple of anything");
    cr_expect(value_grid(NAN) == 0 && value_grid(INFINITY) == 0 && value_grid(0x1p-1060) == 0);
}

/* Two halves in order, added at the end: each node a multiple of the grid. */
static float sum_halves(const float *terms, int n) {
    float half[2] = {0, 0};
    for (int i = 0; i < n; i++) half[i % 2] += terms[i];
    return half[0] + half[1];
}

Test(exact, sums_on_a_grid_round_nowhere_up_to_the_limit_and_somewhere_beyond) {
    enum { N = 64 };
    const struct accumulator fp32 = {.unit = UNIT_F32, .block = 1, .splits = 2, .order = ORDER_ANY};
    int inexact = 0;
    srand48(5);
    for (int bits = 12; bits <= 22; bits++)
        for (int round = 0; round < 200; round++) {
            float term[N];
            double sum = 0, s1 = 0;
            for (int i = 0; i < N; i++) {
                term[i] = (float)(lrand48() % (1 << bits) * (lrand48() % 2 ? 1 : -1));
                sum += (double)term[i], s1 += fabs((double)term[i]);
            }
            const bool differs = (double)sum_halves(term, N) != sum;
            inexact += differs;
            cr_assert(!differs || accumulator_grid(&fp32, s1) > 1, "%g of %g", sum, s1);
        }
    cr_expect_gt(inexact, 100);
    const float limit[] = {0x1p24f, 1, -0x1p24f}; /* 2^24 + 1 is no float */
    cr_expect((double)(limit[0] + limit[1] + limit[2]) != 1 && accumulator_grid(&fp32, 0x1p25 + 1) > 1);
}

/* A tensor core that keeps 23 bits below the largest operand loses the 1 beside 2^24, and not that
 * beside 2^23. */
Test(exact, a_tensor_core_needs_its_own_bits) {
    const struct accumulator sm70 = {.block = 4, .fraction = 23, .keep = 24};
    const struct accumulator sm90 = {.block = 16, .fraction = 25, .keep = 24};
    cr_expect_eq(accumulator_grid(&sm70, 0x1p23), 1);
    cr_expect_gt(accumulator_grid(&sm70, 0x1p23 + 2), 1);
    cr_expect_eq(accumulator_grid(&sm90, 0x1p23), 1);
    cr_expect(isnan(accumulator_grid(&sm90, NAN)));
}

/* ---- one product with its bias ---- */

enum { TERMS = 4, RIGHT = 3 };

/* Two rows, the second of zeros, with three columns: the middle one has a weight whose last bit is 2^-23. */
static void multiply(const float bias[RIGHT], double input_unit, const double *x_radius,
                     double e[2 * RIGHT]) {
    static const float x[2 * TERMS] = {1, 2, 3, 4},
                             w[RIGHT * TERMS] = {1, 1, 1, 1, 1 + 0x1p-23f, 1, 1, 1, 0.5f, -3, 2, 1};
    const double *const radius[4] = {x_radius};
    double y[2 * RIGHT];
    struct contract contract = contract_exact(OP_LINEAR);
    contract.u.linear.acc = (struct accumulator){.unit = UNIT_F32, .block = 1};
    contract.u.linear.input_unit = input_unit;
    struct call call = {.op = OP_LINEAR};
    call.u.linear = (struct linear_args){.x = {(void *)x, DTYPE_F32, {TERMS}, 0, 2 * TERMS},
                                         .w = {(void *)w, DTYPE_F32, {0, TERMS}, 0, RIGHT * TERMS},
                                         .bias = {(void *)bias, DTYPE_F32, {1}, 0, RIGHT},
                                         .n_rows = 2,
                                         .n_cols = RIGHT,
                                         .n_inner = TERMS,
                                         .n_groups = 1};
    ref_compute(&call, &contract, x_radius ? radius : NULL, 0, 2,
                (struct ref_out[MAX_REF_OUT]){{y, e, NULL}});
}

static bool is_exact(const double *e, bool first, bool middle, bool last) {
    return (e[0] == 0) == first && (e[1] == 0) == middle && (e[2] == 0) == last;
}

Test(exact, a_product_is_one_number_where_inputs_weights_and_bias_are_on_one_grid) {
    static const float none[RIGHT], whole[RIGHT] = {7, 7, 7}, fine[RIGHT] = {0, 0, 3 * 0x1p-23f};
    static const double off[2 * TERMS] = {0, 0, 0x1p-60};
    double e[2 * RIGHT];
    multiply(none, 0, NULL, e);
    cr_expect(is_exact(e, true, false, true) && is_exact(e + RIGHT, true, true, true));
    multiply(whole, 0, NULL, e);
    cr_expect(is_exact(e, true, false, true) && is_exact(e + RIGHT, true, true, true));
    multiply(fine, 0, NULL, e);
    cr_expect(is_exact(e, true, false, false) && is_exact(e + RIGHT, true, true, true), "zeros and a bias");
    multiply(none, 0, off, e);
    cr_expect(is_exact(e, false, false, false) && is_exact(e + RIGHT, true, true, true),
              "an input is not known");
    multiply(none, UNIT_BF16, NULL, e);
    cr_expect(is_exact(e, false, false, false), "inputs are rounded first");
}

/* ---- equal keys with all the weight ---- */

enum { DIM = 16, MOST = 5 };

/* Of MOST keys q asks for the first n, which are alike. P as a kernel makes it that scales inside the
 * exponential; `late`: P rounded to bf16 for P V and not for the sum, else P over the sum rounded. */
static float equal_keys(const float *q, float scale, const float *v, int n, bool late) {
    const float by = scale * 1.44269504f;
    float score = 0, l = 0, sum = 0;
    for (int d = 0; d < DIM; d++) score += q[d];
    const float p = exp2f(fmaf(score, by, -(score * by)));
    for (int j = 0; j < n; j++) l += p;
    for (int j = 0; j < n; j++)
        sum += (float)dtype_round(DTYPE_BF16, (double)(late ? p : p / l)) * v[j * DIM];
    return late ? sum / l : sum;
}

/* The largest margin of such kernels, none of which may be outside; *widest: of E / y. */
static double attend_equal_keys(int n, double *widest) {
    static float q[DIM], k[MOST * DIM], v[MOST * DIM], out[DIM];
    static int32_t page[1] = {0}, start[2] = {0, 1}, n_keys[1] = {MOST};
    struct contract contract = contract_exact(OP_ATTENTION);
    double y[DIM], e[DIM], largest = 0;
    contract.u.attention.p_unit = UNIT_BF16;
    for (int j = 0; j < MOST; j++)
        for (int d = 0; d < DIM; d++)
            k[j * DIM + d] = j < n ? 1 : -1, v[j * DIM + d] = (float)(j < n ? 1 + d + 3 * j : 100);
    *widest = 0;
    for (int round = 0; round < 200; round++) {
        const float scale = 0.3f + 0.01f * (float)round;
        for (int d = 0; d < DIM; d++) q[d] = 12 + (n > 1 ? 0 : 0.37f * (float)d);
        struct call call = {.op = OP_ATTENTION};
        call.u.attention =
            (struct attention_args){.q = {q, DTYPE_F32, {DIM, DIM}, 0, DIM},
                                    .k_cache = {k, DTYPE_F32, {MOST * DIM, DIM, DIM}, 0, MOST * DIM},
                                    .v_cache = {v, DTYPE_F32, {MOST * DIM, DIM, DIM}, 0, MOST * DIM},
                                    .out = {out, DTYPE_F32, {DIM, DIM}, 0, DIM},
                                    .page_table = {page, DTYPE_I32, {1}, 0, 1},
                                    .query_start = {start, DTYPE_I32, {1}, 0, 2},
                                    .kv_len = {n_keys, DTYPE_I32, {1}, 0, 1},
                                    .n_tokens = 1,
                                    .n_seqs = 1,
                                    .n_heads = 1,
                                    .n_kv_heads = 1,
                                    .head_dim = DIM,
                                    .page_size = MOST,
                                    .n_pages = 1,
                                    .max_queries = 1,
                                    .max_kv = MOST,
                                    .scale = (double)scale,
                                    .causal = true};
        ref_compute(&call, &contract, NULL, 0, 1, (struct ref_out[MAX_REF_OUT]){{y, e, NULL}});
        for (int d = 0; d < DIM; d++)
            for (int late = 0; late < 2; late++) {
                const double got = (double)equal_keys(q, scale, v + d, n, late);
                const struct element_verdict verdict = element_judge(DTYPE_F32, got, y[d], e[d]);
                cr_assert_eq(verdict.kind, ELEMENT_OK, "%d keys, scale %g: %g for %g +- %g", n, (double)scale,
                             got, y[d], e[d]);
                largest = fmax(largest, verdict.margin), *widest = fmax(*widest, e[d] / y[d]);
            }
    }
    return largest;
}

Test(exact, honest_kernels_stay_inside_where_equal_keys_have_all_the_weight) {
    double widest;
    for (int n = 1; n < MOST; n++) {
        const double largest = attend_equal_keys(n, &widest);
        cr_assert_gt(largest, 0.01, "%d keys: the kernel is not exact: %g", n, largest);
        cr_assert(n == 3 || widest < 0.002, "%d keys: %g: less than bf16 would lose", n, widest);
        cr_assert(n != 3 || widest > 0.002, "a third is no number of bf16's: %g", widest);
    }
}

/* ---- one product left out ---- */

enum { WIDTH = 2048, COLUMNS = 8 };

/* Of the products of a row that are no zeros: how many can be left out unseen? */
static double unseen(enum fill_kind kind) {
    struct model model;
    cr_assert(!model_load("param2-17b", &model).code);
    const struct fill fill = {.kind = kind, .seed = 4, .spec = &model.kind[0], .stage = S_QKV_PROJ};
    static uint16_t x[WIDTH], w[COLUMNS * WIDTH], stored[COLUMNS];
    double y[COLUMNS], e[COLUMNS], all = 0, missed = 0;
    fill_tensor(&fill, T_NORMED, DTYPE_BF16, 0, WIDTH, x);
    fill_tensor(&fill, T_W_QKV, DTYPE_BF16, 0, COLUMNS * WIDTH, w);
    struct call call = {.op = OP_LINEAR};
    call.u.linear = (struct linear_args){.x = {x, DTYPE_BF16, {WIDTH}, 0, WIDTH},
                                         .w = {w, DTYPE_BF16, {0, WIDTH}, 0, COLUMNS * WIDTH},
                                         .out = {stored, DTYPE_BF16, {COLUMNS}, 0, COLUMNS},
                                         .n_rows = 1,
                                         .n_cols = COLUMNS,
                                         .n_inner = WIDTH,
                                         .n_groups = 1};
    const struct contract contract = contract_exact(OP_LINEAR);
    ref_compute(&call, &contract, NULL, 0, 1, (struct ref_out[MAX_REF_OUT]){{y, e, NULL}});
    for (int c = 0; c < COLUMNS; c++)
        for (int k = 0; k < WIDTH; k++) {
            const double product = dtype_load(x, DTYPE_BF16, k) * dtype_load(w, DTYPE_BF16, c * WIDTH + k);
            const double got = dtype_round(DTYPE_BF16, y[c] - product);
            if (product == 0) continue;
            all++;
            missed += element_judge(DTYPE_BF16, got, y[c], e[c]).kind == ELEMENT_OK;
        }
    cr_assert_gt(all, 100 * COLUMNS);
    return missed / all;
}

Test(exact, no_product_can_be_left_out_where_random_values_hide_many) {
    cr_expect_eq(unseen(FILL_EXACT), 0);
    cr_expect_gt(unseen(FILL_RANDOM), 0.1);
}

/* ---- cases ---- */

static const struct edge_result *kernel_edge(const struct case_result *r, int stage) {
    for (int i = 0; i < r->n_stages; i++)
        if (!strcmp(r->stage[i].stage, stage_table[stage].name)) return &r->stage[i].edge[EDGE_KERNEL];
    cr_assert_fail("%s: no stage %s", r->line, stage_table[stage].name);
    return NULL;
}

static void expect_single(const char *line, const int *stages) {
    struct run_output out = run_one(line, (struct one_case){0});
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_PASSED, "%s: %s %s %s", line, r->where, r->first.note, r->reason);
    for (; *stages >= 0; stages++) {
        const struct edge_result *const e = kernel_edge(r, *stages);
        cr_expect(e->sets > 0 && e->single == e->sets && e->margin == 0, "%s: %s has %lld of %lld", line,
                  stage_table[*stages].name, (long long)e->single, (long long)e->sets);
    }
    run_output_free(&out);
}

Test(exact, every_answer_is_one_value_in_both_dtypes) {
    static const int attention[] = {S_QKV_PROJ, S_QKV_SPLIT, S_ROPE,          S_KV_WRITE,
                                    S_O_PROJ,   S_ATTN_SUM,  S_ATTN_RESIDUAL, -1};
    static const int ffn[] = {S_ROUTER,      S_PERMUTE, S_GATE_UP,      S_DOWN, S_COMBINE,
                              S_SHARED_DOWN, S_FFN_SUM, S_FFN_RESIDUAL, -1};
    expect_single("tiny/attention:fill=exact,tp=2", attention);
    expect_single("tiny/attention:fill=exact,tp=8,dtype=fp32,phase=decode,tokens=3", attention);
    expect_single("tiny/ffn:fill=exact,tp=2,ep=2", ffn);
    expect_single("tiny/ffn:fill=exact,tp=4,ep=2,dtype=fp32", ffn);
}

Test(exact, what_is_divided_is_one_value_in_bf16) {
    static const int attention[] = {S_ATTN_NORM, S_QK_NORM, S_ATTENTION, -1};
    static const int ffn[] = {S_FFN_NORM, S_ACTIVATION, S_SHARED_ACTIVATION, -1};
    expect_single("tiny/attention:fill=exact,tp=2", attention);
    expect_single("tiny/attention:fill=exact,tp=4,phase=decode,tokens=3,cached=300", attention);
    expect_single("tiny/attention:fill=exact,tp=1,dim=64,hidden=16,phase=decode,tokens=2,cached=2500",
                  attention);
    expect_single("tiny/attention:fill=exact,tp=1,dim=64,hidden=16,heads=4,tokens=530", attention);
    expect_single("tiny/attention:fill=exact,tp=2,dim=64,tokens=9,kernel.attention=attention_mma", attention);
    expect_single("tiny/ffn:fill=exact,tp=2", ffn);
}

static struct contract rounded_inputs(const struct call *call) {
    struct contract c = honest->contract(call);
    c.u.linear.input_unit = UNIT_BF16;
    return c;
}

Test(exact, a_contract_that_the_values_do_not_fit_is_no_pass) {
    stand_in("linear_simt", launch_honest);
    fake.contract = rounded_inputs;
    struct run_output out =
        run_one("tiny/attention:fill=exact,tp=1", (struct one_case){.stage = S_QKV_PROJ, .kernel = &fake});
    cr_expect_eq(out.cases[0].verdict, CASE_SKIPPED);
    cr_expect(strstr(out.cases[0].reason, "fill exact: at stage qkv_proj only"), "%s", out.cases[0].reason);
    run_output_free(&out);
}

/* Rank 1 leaves one product out of one sum. */
static const char *leave_one_out(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    const struct linear_args *const a = &call->u.linear;
    const int64_t row = 3, column = 17;
    for (int64_t k = 0; k < a->n_inner && calls == 2; k++) {
        const double product = dtype_load(a->x.data, a->x.dtype, row * a->x.stride[0] + k) *
                               dtype_load(a->w.data, a->w.dtype, column * a->w.stride[1] + k);
        const int64_t at = row * a->out.stride[0] + column;
        if (product == 0) continue;
        dtype_store(a->out.data, a->out.dtype, at, dtype_load(a->out.data, a->out.dtype, at) - product);
        break;
    }
    calls++;
    return problem;
}

Test(exact, one_product_that_one_rank_leaves_out_is_found) {
    stand_in("linear_simt", leave_one_out);
    struct run_output out = run_one("tiny/attention:fill=exact,tp=2,tokens=5",
                                    (struct one_case){.stage = S_O_PROJ, .kernel = &fake});
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_FAILED);
    cr_expect(strstr(r->where, "stage o_proj, rank 1 of 2, token 3, channel 17"), "%s", r->where);
    run_output_free(&out);
}
