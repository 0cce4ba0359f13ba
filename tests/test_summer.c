/* Are the sums of somebody else taken where they have the bits of the reference's own loops, and nowhere
 * else? The honest one here is a second plain implementation of what reference/summer.h promises. */
/* SPDX-License-Identifier: MIT */
#include "tests/summer_calls.h"

#include <omp.h>

enum flaw {
    HONEST,
    FALLING,
    LAST_TERM,
    FUSED,
    EMPTY_PREFIX,
    SLICES,
    SIGNED,
    ONE_COLUMN,
    LAZY,
    BOUND,
    SIZE,
    NEED
};

struct plain_summer {
    struct ref_summer base;
    enum flaw flaw;
    bool finishes; /* it makes the bounds, too */
    double *out;
};

static double value_at(const struct view *v, int64_t i) {
    return i >= v->lo && i < v->hi ? dtype_load(v->data, v->dtype, i) : (double)NAN;
}

struct plain_sums {
    double y, span, s1;
};

static struct plain_sums plain_sum(const struct linear_args *a, int64_t group, int64_t row, int64_t column,
                                   int64_t slice, enum flaw flaw) {
    struct plain_sums s = {0};
    double low = 0, high = 0;
    if (flaw == SLICES) slice = a->n_inner;
    for (int64_t i = 0; i < a->n_inner - (flaw == LAST_TERM); i++) {
        const int64_t k = flaw == FALLING ? a->n_inner - 1 - i : i;
        const double x = value_at(&a->x, row * a->x.stride[0] + k);
        const double w = value_at(&a->w, group * a->w.stride[0] + column * a->w.stride[1] + k);
        if (i % slice == 0) s.span += high - low, low = high = s.y;
        s.y = flaw == FUSED ? fma(w, x, s.y) : s.y + w * x;
        if (flaw == EMPTY_PREFIX && i == 0) low = high = s.y;
        if (s.y < low) low = s.y;
        if (s.y > high) high = s.y;
        s.s1 += flaw == SIGNED ? w * x : fabs(w * x);
    }
    s.span += high - low;
    if (flaw == ONE_COLUMN && column == a->n_cols - 1) s.y = nextafter(s.y, 9);
    return s;
}

/* Of element i, in row `row` of all and column c of the `run`th run. */
static void finish_plainly(const struct plain_summer *p, const struct ref_sums *sums, int64_t n, int64_t i,
                           int64_t row, int64_t run, int64_t c) {
    const struct ref_finish *const f = sums->finish;
    double *const y = &p->out[i], *const span = &p->out[n + i], *const s1 = &p->out[2 * n + i];
    double *const need = &p->out[3 * n + run * sums->n_cols + c];
    const double e = linear_bound(&f->bounds, *span, *s1, f->bias[c], 0);
    const double own =
        f->row_grid ? linear_need(&f->bounds, *s1, f->bias[c], value_grid(f->bias[c]), f->row_grid[row])
                    : INFINITY;
    *y += f->bias[c], *s1 += fabs(f->bias[c]);
    if (p->flaw == SIZE) *s1 = nextafter(*s1, 0);
    *span = p->flaw == BOUND ? nextafter(e, 9) : e;
    if (own < *need) *need = p->flaw == NEED ? 2 * own : own;
}

static bool sum_plainly(struct ref_summer *base, struct ref_sums *sums) {
    struct plain_summer *const p = (struct plain_summer *)base;
    const struct linear_args *const a = sums->args;
    const int64_t n = sums->n_rows * a->n_cols, n_need = sums->n_runs * a->n_cols;
    const bool finishes = p->finishes && sums->finish;
    if (p->flaw == LAZY) return false;
    free(p->out);
    double *const out = p->out = calloc((size_t)(n * 3 + n_need), sizeof *out);
    for (int64_t i = 3 * n; i < 3 * n + n_need; i++) out[i] = INFINITY;
    for (int64_t i = 0, at = 0; i < sums->n_runs; i++)
        for (int64_t r = 0; r < sums->run[i].n; r++)
            for (int64_t c = 0; c < a->n_cols; c++, at++) {
                const struct plain_sums s =
                    plain_sum(a, sums->run[i].group, sums->run[i].first + r, c, sums->slice, p->flaw);
                out[at] = s.y, out[n + at] = s.span, out[2 * n + at] = s.s1;
                if (finishes) finish_plainly(p, sums, n, at, at / a->n_cols, i, c);
            }
    sums->y = out, sums->span = out + n, sums->s1 = out + 2 * n;
    if (finishes) sums->e = out + n, sums->need = out + 3 * n;
    return true;
}

Test(summer, plain_sums_are_taken_and_no_bit_of_an_answer_changes) {
    struct plain_summer p = {.base.sum = sum_plainly};
    for (int i = 0; i < N_SUMMER_SHAPES; i++) expect_answers_of_the_loops(&p.base, &summer_shapes[i]);
    cr_expect_str_eq(p.base.wrong, "");
    cr_expect_gt(p.base.answers, 2 * N_SUMMER_SHAPES);
    cr_expect_gt(p.base.rows, p.base.recomputed);
    cr_expect_geq(p.base.recomputed, p.base.answers);
    free(p.out);
}

Test(summer, bounds_of_somebody_else_are_taken_and_no_bit_of_an_answer_changes) {
    struct plain_summer p = {.base.sum = sum_plainly, .finishes = true};
    for (int i = 0; i < N_SUMMER_SHAPES; i++) expect_answers_of_the_loops(&p.base, &summer_shapes[i]);
    cr_expect_str_eq(p.base.wrong, "");
    cr_expect_gt(p.base.answers, 2 * N_SUMMER_SHAPES);
    free(p.out);
}

enum { DOUBLE = 3, IN_SLICES = 5 }; /* of summer_shapes */

struct found {
    enum flaw flaw;
    int shape;
    const char *says;
};

static void expect_found(const struct found *f, bool finishes) {
    struct plain_summer p = {.base.sum = sum_plainly, .flaw = f->flaw, .finishes = finishes};
    omp_set_num_threads(1); /* the first difference is the one that is told */
    expect_answers_of_the_loops(&p.base, &summer_shapes[f->shape]);
    cr_expect(strstr(p.base.wrong, f->says), "flaw %d: '%s'", (int)f->flaw, p.base.wrong);
    cr_expect_eq(p.base.answers, 1, "once wrong, never asked again");
    free(p.out);
}

Test(summer, one_other_bit_is_found_and_the_loops_answer) {
    static const struct found rows[] = {
        {FALLING, DOUBLE, "the sum of row 0, column 0 "},
        {FALLING, IN_SLICES, "the span of row 0, column 0 "},
        {LAST_TERM, IN_SLICES, "the sum of row 0, column 0 "},
        {FUSED, DOUBLE, "the sum of row 0, column 0 "}, /* products of bf16 are exact */
        {EMPTY_PREFIX, IN_SLICES, "the span of row"},
        {SLICES, IN_SLICES, "the span of row"},
        {SIGNED, IN_SLICES, "the sum of magnitudes of row"},
        {ONE_COLUMN, IN_SLICES, "the sum of row 0, column 65 of a product of 66 columns"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) expect_found(&rows[i], false);
}

Test(summer, one_other_bit_of_bounds_is_found_and_the_loops_answer) {
    static const struct found rows[] = {{LAST_TERM, IN_SLICES, "the sum of row 0, column 0 "},
                                        {SLICES, IN_SLICES, "the bound of row"},
                                        {BOUND, IN_SLICES, "the bound of row 0, column 0 "},
                                        {SIZE, IN_SLICES, "the sum of magnitudes of row 0, column 0 "},
                                        {NEED, IN_SLICES, "the least grid of the weights of row"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) expect_found(&rows[i], true);
}

Test(summer, small_calls_and_those_it_cannot_do_are_done_here) {
    struct plain_summer lazy = {.base.sum = sum_plainly, .flaw = LAZY};
    expect_answers_of_the_loops(&lazy.base, &summer_shapes[1]);
    cr_expect_eq(lazy.base.answers, 0);
    cr_expect_eq(lazy.base.rows + lazy.base.recomputed, 0);
    struct plain_summer large = {.base = {.sum = sum_plainly, .least_work = 37 * 70 * 65}};
    expect_answers_of_the_loops(&large.base, &summer_shapes[1]); /* all rows; but for the first; .. */
    cr_expect_eq(large.base.answers, 1);
    free(large.out);
}
