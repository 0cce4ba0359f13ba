/* Does the statistical test see a gain, a scale, one key, a truncation, where each element is inside
 * its set? */
/* SPDX-License-Identifier: MIT */
#include "tests/score_problem.h"

Test(score, a_gain_and_a_scale_of_a_thousandth_and_truncations_are_found_in_bf16_attention) {
    static const struct honest by = {64, 1, DTYPE_BF16, true};
    static const struct {
        const char *what;
        struct mistake m;
        enum score_direction found;
        double estimate, within;
    } rows[] = {
        {"gain 1e-3", {.gain = 1e-3, .dropped = -1}, SCORE_GAIN, 1e-3, 2e-4},
        {"scale -1e-3", {.scale = -1e-3, .dropped = -1}, SCORE_SCALE, -1e-3, 2e-4},
        {"P truncated", {.p = TRUNCATED, .dropped = -1}, SCORE_GAIN, -1.4e-3, 3e-4},
        {"output truncated", {.out = TRUNCATED, .dropped = -1}, SCORE_GAIN, -2.8e-3, 3e-4},
        {"own key not read", {.last_dropped = true, .dropped = -1}, SCORE_LAST_KEY, -1.2, 0.3},
    };
    struct problem p = grid_problem();
    srand48(5);
    problem_make(&p, uniform);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t outside;
        const struct score_report r = examine(&p, &by, &rows[i].m, &outside);
        show(rows[i].what, &r, outside);
        cr_assert_eq(r.state, SCORE_WRONG, "%s", rows[i].what);
        cr_assert_eq(r.worst.direction, rows[i].found, "%s", rows[i].what);
        cr_assert_float_eq(r.worst.estimate, rows[i].estimate, rows[i].within, "%s", rows[i].what);
        cr_assert(r.worst.head == -1 && r.worst.keys == -1);
        if (rows[i].found <= SCORE_SCALE) cr_assert_lt(outside, 100, "%s", rows[i].what); /* of 67584 */
    }
    int64_t outside;
    const struct score_report r = examine(&p, &by, &none, &outside);
    show("honest", &r, outside);
    cr_assert(r.state == SCORE_FINE && outside == 0);
    cr_assert(r.gain.resolution < 7e-4 && r.scale.resolution < 9e-4 && r.gain.elements == 32 * 32 * 64);
    problem_free(&p);
}

Test(score, one_key_of_4000_that_is_not_read_is_found_and_named) {
    struct problem p = {
        .tokens = 4, .heads = 32, .kv_heads = 8, .dim = 64, .keys = 4000, .storage = DTYPE_BF16};
    static const struct honest by = {64, 8, DTYPE_BF16, false};
    srand48(8);
    problem_make(&p, uniform);
    const struct mistake m = {.dropped = 2345};
    int64_t outside;
    const struct score_report r = examine(&p, &by, &m, &outside);
    show("key 2345 dropped", &r, outside);
    cr_assert(r.state == SCORE_WRONG && r.worst.direction == SCORE_KEYS);
    cr_assert(r.worst.key == 2345 && r.worst.n_keys == 1 && r.worst.kv_head == 0 && r.worst.seq == 0);
    cr_assert_float_eq(r.worst.estimate, -1, 0.2);
    cr_assert_eq(outside, 0, "level D sees it, too");
    problem_free(&p);
}

static double mean_size(const struct problem *p) {
    const int64_t n = p->tokens * p->heads * p->dim;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += fabs(p->y[i]) / (double)n;
    return sum;
}

Test(score, a_constant_that_is_added_to_the_values_is_found) {
    struct problem p = grid_problem();
    static const struct honest by = {64, 1, DTYPE_BF16, true};
    int64_t outside;
    srand48(6);
    problem_make(&p, uniform);
    struct score_report r = examine(&p, &by, &none, &outside);
    const struct mistake m = {.offset = 4e-4 * mean_size(&p), .dropped = -1};
    cr_assert(r.state == SCORE_FINE && outside == 0);
    r = examine(&p, &by, &m, &outside);
    show("offset 4e-4 mean |o|", &r, outside);
    cr_assert(r.state == SCORE_WRONG && r.worst.direction == SCORE_OFFSET);
    cr_assert_float_eq(r.worst.estimate, 4e-4, 5e-5);
    cr_assert_lt(outside, 100); /* of 67584 */
    problem_free(&p);
}

Test(score, a_block_of_keys_with_half_a_percent_too_much_weight_is_found_and_named) {
    struct problem p = {
        .tokens = 16, .heads = 32, .kv_heads = 4, .dim = 64, .keys = 500, .storage = DTYPE_BF16};
    static const struct honest by = {64, 1, DTYPE_BF16, true};
    static const struct mistake m = {.bias = 0.005, .dropped = -1};
    int64_t outside;
    srand48(9);
    problem_make(&p, uniform);
    struct score_report r = examine(&p, &by, &m, &outside);
    show("keys 64 to 127 + 0.005", &r, outside);
    cr_assert(r.state == SCORE_WRONG && r.worst.direction == SCORE_KEYS);
    cr_assert(r.worst.key == 64 && r.worst.n_keys == 64 && r.worst.kv_head == 0);
    cr_assert_float_eq(r.worst.estimate, 0.005, 1e-3);
    cr_assert_eq(outside, 0, "level D sees it, too");
    r = examine(&p, &by, &none, &outside);
    cr_assert(r.state == SCORE_FINE && outside == 0);
    problem_free(&p);
}

Test(score, one_head_that_is_off_is_named) {
    struct problem p = grid_problem();
    static const struct honest by = {16, 1, DTYPE_F32, false};
    srand48(3);
    problem_make(&p, uniform);
    int64_t outside;
    struct score_report r = examine(&p, &by, &none, &outside);
    cr_assert(r.state == SCORE_FINE && r.gain.resolution < 2e-4);
    for (int64_t t = 0; t < p.tokens; t++) /* head 7 */
        for (int64_t i = (t * p.heads + 7) * p.dim; i < (t * p.heads + 8) * p.dim; i++)
            dtype_store(p.stored, p.storage, i, p.y[i] * 1.004);
    const struct contract contract = contract_of(&p, &by);
    const struct score_case c = {
        .call = &p.call, .contract = &contract, .dtype = p.storage, .stored = p.stored, .y = p.y, .e = p.e};
    ref_score(&c, &r);
    show("head 7 gains 4e-3", &r, 0);
    cr_assert(r.state == SCORE_WRONG && r.worst.direction == SCORE_GAIN && r.worst.head == 7);
    cr_assert_float_eq(r.worst.estimate, 4e-3, 3e-4);
    problem_free(&p);
}

/* ---- linear ---- */

enum { L_ROWS = 16, L_COLS = 512, L_INNER = 9216, L_SPLITS = 32 };

/* Eight products at a time, truncated; the slices of K added up afterwards: what a BLAS may do. */
static float blas_dot(const double *x, const double *w) {
    float sum = 0;
    for (int s = 0; s < L_SPLITS; s++) {
        float part = 0;
        for (int k = s * 8; k < L_INNER; k += 8 * L_SPLITS) {
            double block = (double)part;
            for (int i = k; i < k + 8; i++) block += x[i] * w[i];
            part = toward_zero(block);
        }
        sum += part;
    }
    return sum;
}

Test(score, a_gain_in_a_sum_of_unknown_order_is_found_where_the_weights_have_random_signs) {
    double *const x = calloc(L_ROWS * L_INNER, 8), *const w = calloc(L_COLS * L_INNER, 8);
    enum { N = L_ROWS * L_COLS };
    double *const y = calloc(N, 8), *const e = calloc(N, 8), *const sum = calloc(N, 8);
    void *const stored = calloc(N, 8);
    srand48(4);
    for (int i = 0; i < L_ROWS * L_INNER; i++) x[i] = dtype_round(DTYPE_BF16, uniform());
    for (int i = 0; i < L_COLS * L_INNER; i++) w[i] = dtype_round(DTYPE_BF16, uniform() / 96);
    struct call call = {.op = OP_LINEAR};
    call.u.linear = (struct linear_args){.x = {x, DTYPE_F64, {L_INNER}, 0, L_ROWS * L_INNER},
                                         .w = {w, DTYPE_F64, {0, L_INNER}, 0, L_COLS * L_INNER},
                                         .n_rows = L_ROWS,
                                         .n_cols = L_COLS,
                                         .n_inner = L_INNER,
                                         .n_groups = 1};
    struct contract contract = {.op = OP_LINEAR};
    contract.u.linear.acc =
        (struct accumulator){.block = 8, .fraction = 24, .keep = 24, .splits = L_SPLITS, .order = ORDER_ANY};
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    ref_compute(&call, &contract, NULL, 0, L_ROWS, out);
#pragma omp parallel for
    for (int i = 0; i < N; i++) sum[i] = (double)blas_dot(x + i / L_COLS * L_INNER, w + i % L_COLS * L_INNER);
    for (int gain = 0; gain < 2; gain++)
        for (int signs_known = 0; signs_known < 2; signs_known++) {
            for (int i = 0; i < N; i++) dtype_store(stored, DTYPE_F32, i, sum[i] * (1 + gain * 1.5e-3));
            const struct score_case c = {.call = &call,
                                         .contract = &contract,
                                         .dtype = DTYPE_F32,
                                         .stored = stored,
                                         .y = y,
                                         .e = e,
                                         .random_signs = signs_known};
            struct score_report r;
            int64_t outside = 0;
            ref_score(&c, &r);
            for (int i = 0; i < N; i++)
                outside +=
                    element_judge(DTYPE_F32, dtype_load(stored, DTYPE_F32, i), y[i], e[i]).kind != ELEMENT_OK;
            show(gain ? "linear, gain 1.5e-3" : "linear", &r, outside);
            cr_assert_eq(outside, 0);
            cr_assert_eq(r.state == SCORE_WRONG, gain && signs_known);
            cr_assert(signs_known ? r.gain.resolution < 1.2e-3 : r.gain.resolution > 0.01);
            if (gain) cr_assert_float_eq(r.gain.estimate, 1.5e-3, 2e-4);
        }
    free(x), free(w), free(y), free(e), free(sum), free(stored);
}
