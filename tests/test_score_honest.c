/* Is the statistical test silent about honest kernels, on any values, and about what it cannot
 * judge? */
/* SPDX-License-Identifier: MIT */
#include "tests/score_problem.h"

static double gauss(void) {
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += drand48();
    return sum - 6;
}
static double peaked(void) { return 2 * uniform(); }
static double near_one(void) { return 1 + uniform() / 16; }
static double heavy(void) { return uniform() * exp(gauss()); }
static double positive(void) { return fabs(uniform()) / 4; }

Test(score, honest_kernels_raise_nothing_in_thousands_of_tests) {
    static const struct {
        const char *name;
        double (*draw)(void);
    } fills[] = {{"uniform", uniform},   {"gauss", gauss}, {"peaked", peaked},
                 {"near one", near_one}, {"heavy", heavy}, {"positive", positive}};
    static const int64_t sizes[][3] = {/* tokens, keys, dim */
                                       {33, 33, 64},
                                       {16, 200, 32},
                                       {3, 5, 64},
                                       {2, 700, 128},
                                       {64, 130, 32}};
    static const struct honest by[] = {{64, 1, DTYPE_BF16, true},
                                       {16, 1, DTYPE_BF16, false},
                                       {32, 4, DTYPE_BF16, true},
                                       {16, 3, DTYPE_F32, false},
                                       {128, 1, DTYPE_F32, true}};
    int64_t tests = 0, silent = 0;
    double largest = 0;
    srand48(21);
    for (size_t f = 0; f < sizeof fills / sizeof *fills; f++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t k = 0; k < sizeof by / sizeof *by; k++) {
                struct problem p = {.tokens = sizes[s][0],
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .dim = sizes[s][2],
                                    .keys = sizes[s][1],
                                    .causal = k % 2 == 0,
                                    .storage = (s + k) % 3 ? DTYPE_BF16 : DTYPE_F32};
                int64_t outside;
                problem_make(&p, fills[f].draw);
                const struct score_report r = examine(&p, &by[k], &none, &outside);
                tests += r.tests, silent += r.state == SCORE_SILENT;
                if (r.worst.ratio > largest) largest = r.worst.ratio, show(fills[f].name, &r, outside);
                cr_assert(outside == 0 && r.state != SCORE_WRONG && r.state != SCORE_NONE, "%s %zu %zu",
                          fills[f].name, s, k);
                problem_free(&p);
            }
    fprintf(stderr, "%lld tests, %lld of 150 calls silent, largest statistic %.2f of the threshold\n",
            (long long)tests, (long long)silent, largest);
    cr_assert(tests > 5000 && largest < 0.6);
}

/* ---- where B is sum |c| E ---- */

/* Each value at the end of its set, as far as a gain would have it: no kernel that is inside can be
 * further off together. */
Test(score, a_norm_at_the_far_end_of_every_set_is_below_its_threshold) {
    enum { ROWS = 64, WIDTH = 256, N = ROWS * WIDTH };
    static double x[N], w[WIDTH], y[N], e[N], stored[N];
    struct call call = {.op = OP_NORM};
    call.u.norm = (struct norm_args){.x = {x, DTYPE_F64, {WIDTH}, 0, N},
                                     .w = {w, DTYPE_F64, {1}, 0, WIDTH},
                                     .n_tokens = ROWS,
                                     .width = WIDTH,
                                     .eps = 1e-6};
    const struct contract contract = contract_exact(OP_NORM);
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    srand48(31);
    for (int i = 0; i < N; i++) x[i] = uniform();
    for (int i = 0; i < WIDTH; i++) w[i] = 1 + uniform() / 4;
    ref_compute(&call, &contract, NULL, 0, ROWS, out);
    for (int k = 0; k < 4; k++) {
        const enum dtype storage = k % 2 ? DTYPE_BF16 : DTYPE_F32;
        const double side = k / 2 ? -1 : 1;
        for (int i = 0; i < N; i++) {
            dtype_store(stored, storage, i, y[i] + (y[i] < 0 ? -side : side) * e[i]);
            cr_assert_eq(element_judge(storage, dtype_load(stored, storage, i), y[i], e[i]).kind, ELEMENT_OK);
        }
        const struct score_case c = {.call = &call,
                                     .contract = &contract,
                                     .dtype = storage,
                                     .stored = stored,
                                     .y = y,
                                     .e = e,
                                     .random_signs = true};
        struct score_report r;
        ref_score(&c, &r);
        show("norm, the far end", &r, 0);
        cr_assert(r.state == SCORE_FINE && r.worst.ratio < 1);
        cr_assert(storage == DTYPE_BF16 || r.worst.ratio > 0.9, "the bound is reached");
    }
}

/* ---- where roundings are not independent ---- */

static void repeat_rows(double *x, int64_t n, int64_t size, int64_t distinct) {
    for (int64_t i = distinct; i < n; i++)
        memcpy(x + i * size, x + i % distinct * size, (size_t)size * sizeof *x);
}

static void all_to(double *x, int64_t n, double value) {
    for (int64_t i = 0; i < n; i++) x[i] = value;
}

static void signs(double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = x[i] < 0 ? -1 : 1;
}

Test(score, equal_rows_equal_keys_and_constant_values_are_no_alarm) {
    enum { EQUAL_ROWS, FOUR_ROWS, EQUAL_KEYS, FOUR_KEYS, SIGNS, CONSTANT, POWERS, ONE_HOT, NO_QUERY, CASES };
    static const char *const names[CASES] = {"equal rows",      "four rows",   "equal keys",
                                             "four keys",       "q, k of +-1", "v constant",
                                             "v powers of two", "one-hot",     "q = 0"};
    static const struct honest by[] = {{64, 1, DTYPE_BF16, true}, {32, 5, DTYPE_BF16, false}};
    srand48(77);
    for (int i = 0; i < CASES; i++)
        for (int k = 0; k < 2; k++) {
            struct problem p = {
                .tokens = 64, .heads = 2, .kv_heads = 1, .dim = 32, .keys = 200, .storage = DTYPE_BF16};
            problem_make(&p, uniform);
            const int64_t rows = p.tokens * p.heads, D = p.dim;
            if (i == EQUAL_ROWS) repeat_rows(p.q, rows, D, 1);
            if (i == FOUR_ROWS) repeat_rows(p.q, rows, D, 4);
            if (i == EQUAL_KEYS) repeat_rows(p.k, p.keys, D, 1);
            if (i == FOUR_KEYS) repeat_rows(p.k, p.keys, D, 4);
            if (i == SIGNS) signs(p.q, rows * D), signs(p.k, p.keys * D);
            if (i == CONSTANT) all_to(p.v, p.keys * D, dtype_round(DTYPE_BF16, 1 / 3.0));
            if (i == POWERS)
                for (int64_t j = 0; j < p.keys * D; j++) p.v[j] = exp2(floor(p.v[j] * 2));
            if (i == ONE_HOT)
                for (int64_t j = 0; j < rows * D; j++) p.q[j] *= 64;
            if (i == NO_QUERY) all_to(p.q, rows * D, 0);
            int64_t outside;
            const struct score_report r = examine(&p, &by[k], &none, &outside);
            show(names[i], &r, outside);
            cr_assert(r.state != SCORE_WRONG && outside == 0, "%s", names[i]);
            if (i == EQUAL_ROWS || i == CONSTANT) cr_assert_gt(r.gain.resolution, 1e-2, "%s", names[i]);
            problem_free(&p);
        }
}

Test(score, what_is_no_number_is_never_fine_and_a_lattice_is_not_tested) {
    struct problem p = {.tokens = 8, .heads = 2, .kv_heads = 1, .dim = 32, .keys = 50, .storage = DTYPE_F32};
    static const struct honest by = {64, 1, DTYPE_F32, false};
    srand48(2);
    problem_make(&p, uniform);
    const struct contract contract = contract_of(&p, &by);
    struct score_case c = {
        .call = &p.call, .contract = &contract, .dtype = p.storage, .stored = p.stored, .y = p.y, .e = p.e};
    int64_t outside;
    struct score_report r = examine(&p, &by, &none, &outside);
    cr_assert_eq(r.state, SCORE_FINE);
    static const double bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        dtype_store(p.stored, p.storage, 77, bad[i]);
        ref_score(&c, &r);
        cr_assert(r.state == SCORE_SILENT && r.gain.silence == SILENT_NUMBERS);
    }
    c.lattice = true;
    ref_score(&c, &r);
    cr_assert(r.state == SCORE_SILENT && r.gain.silence == SILENT_LATTICE && r.tests == 0);
    problem_free(&p);
}
