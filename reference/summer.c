/* Does somebody else add up, and are the bits those of the loops here? */
/* SPDX-License-Identifier: MIT */
#include "reference/summer.h"
#include "reference/internal.h"

#include <stdio.h>
#include <stdlib.h>

static struct ref_summer *in_use;

void ref_use_summer(struct ref_summer *summer) { in_use = summer; }
struct ref_summer *ref_summer(void) {
    return in_use;
}

/* NaN is NaN: which one comes of two is each machine's own. */
static bool same_bits(double a, double b) { return !memcmp(&a, &b, sizeof a) || (isnan(a) && isnan(b)); }

/* `kind` of an element of the call: "the sum", say. */
static void compare_one(struct ref_summer *s, const struct linear_args *a, int64_t row, int64_t column,
                        const char *kind, double theirs, double ours) {
    if (same_bits(theirs, ours)) return;
#pragma omp critical(summer_wrong)
    if (!s->wrong[0])
        snprintf(s->wrong, sizeof s->wrong,
                 "the device's reference disagrees with the CPU's: %s of row %lld, column %lld of a product "
                 "of %lld columns and %lld terms is %a, not %a",
                 kind, (long long)row, (long long)column, (long long)a->n_cols, (long long)a->n_inner, theirs,
                 ours);
}

/* Up to LANES rows of a run, the first of which is row `at` of the sums. */
struct picked {
    struct ref_run rows;
    int64_t at, run; /* the run's number */
    lanes *x;        /* [K] */
};

struct element_sums {
    double y, span, s1;
};

/* Row r of those picked: what was made of the sums of an element. */
static void compare_finished(struct ref_summer *s, const struct ref_sums *sums, const struct picked *p,
                             int64_t r, int64_t column, const struct element_sums *ours) {
    const struct linear_args *const a = sums->args;
    const struct ref_finish *const f = sums->finish;
    const int64_t row = p->rows.first + r, i = (p->at + r) * sums->n_cols + column;
    const double bias = f->bias[column];
    compare_one(s, a, row, column, "the sum", sums->y[i], ours->y + bias);
    compare_one(s, a, row, column, "the bound", sums->e[i],
                linear_bound(&f->bounds, ours->span, ours->s1, bias, 0));
    if (f->sizes) compare_one(s, a, row, column, "the sum of magnitudes", sums->s1[i], ours->s1 + fabs(bias));
    if (!f->row_grid) return;
    const double least = sums->need[p->run * sums->n_cols + column];
    const double need = linear_need(&f->bounds, ours->s1, bias, value_grid(bias), f->row_grid[p->at + r]);
    if (need < least) compare_one(s, a, row, column, "the least grid of the weights", least, need);
}

static void compare_sums(struct ref_summer *s, const struct ref_sums *sums, const struct picked *p,
                         int64_t column) {
    const struct linear_args *const a = sums->args;
    const int n = (int)min_i64(SUM_COLUMNS, a->n_cols - column);
    struct linear_adder adder;
    linear_adder_open(&adder, 1);
    const struct linear_run run = {p->rows, p->x};
    const struct linear_sums ours =
        linear_add_up(&adder, &run, a, column, n, sums->slice, WANT_SPAN | WANT_SIZE);
    for (int64_t r = 0; r < p->rows.n; r++)
        for (int c = 0; c < n; c++) {
            const int64_t i = (p->at + r) * sums->n_cols + column + c, j = r * ours.stride + c;
            const int64_t row = p->rows.first + r;
            if (sums->e) {
                compare_finished(s, sums, p, r, column + c,
                                 &(struct element_sums){ours.y[j], ours.span[j], ours.s1[j]});
                continue;
            }
            compare_one(s, a, row, column + c, "the sum", sums->y[i], ours.y[j]);
            compare_one(s, a, row, column + c, "the span", sums->span[i], ours.span[j]);
            compare_one(s, a, row, column + c, "the sum of magnitudes", sums->s1[i], ours.s1[j]);
        }
    linear_adder_close(&adder);
}

/* The same of an order; column j of those wanted. */
static void compare_replay(struct ref_summer *s, const struct ref_sums *sums, const struct picked *p,
                           int64_t j) {
    const struct linear_args *const a = sums->args;
    const struct linear_run run = {p->rows, p->x};
    const int64_t column = ref_column(sums, &p->rows, j);
    lanes total[REF_PANEL], sum[REF_PANEL];
    if (column >= a->n_cols) return;
    linear_replay_panel(total, sum, &run, a, sums->order, column);
    for (int64_t r = 0; r < p->rows.n; r++)
        for (int64_t c = 0; c < REF_PANEL && column + c < a->n_cols; c++)
            compare_one(s, a, p->rows.first + r, column + c, "the sum in order",
                        sums->y[(p->at + r) * sums->n_cols + j + c], total[c][r]);
}

static void compare(struct ref_summer *s, const struct ref_sums *sums, const struct picked *p) {
    const int64_t step = sums->order ? REF_PANEL : SUM_COLUMNS;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < sums->n_cols; j += step)
        (sums->order ? compare_replay : compare_sums)(s, sums, p, j);
}

/* A tile of rows, which costs as much as one of them: the call's first in its first answer, then anywhere. */
static void recompute(struct ref_summer *s, const struct ref_sums *sums) {
    const uint64_t mix = (uint64_t)s->answers * 0x9e3779b97f4a7c15u;
    struct picked p = {.at = (int64_t)((mix >> 17) % (uint64_t)sums->n_rows)};
    int64_t before = 0, i = 0;
    while (before + sums->run[i].n <= p.at) before += sums->run[i++].n;
    p.rows = sums->run[i];
    p.run = i;
    p.rows.first += p.at - before;
    p.rows.n = min_i64(LANES, p.rows.n - (p.at - before));
    p.x = ref_alloc((size_t)sums->args->n_inner * sizeof *p.x);
    linear_tile(p.x, &p.rows, 0, sums->args);
    compare(s, sums, &p);
    free(p.x);
    s->recomputed += p.rows.n;
}

static bool is_worth_it(const struct ref_summer *s, const struct ref_sums *sums) {
    const double rows = (double)sums->n_rows;
    const double work = rows * (double)sums->n_cols * (double)sums->args->n_inner;
    return work > 0 && work >= s->least_work && rows >= s->least_rows * (double)sums->n_runs;
}

bool summer_adds_up(struct ref_sums *sums) {
    struct ref_summer *const s = in_use;
    if (!s || s->wrong[0] || omp_in_parallel() || !is_worth_it(s, sums)) return false;
    if (!s->sum(s, sums)) return false;
    recompute(s, sums);
    s->answers++;
    s->rows += sums->n_rows;
    return !s->wrong[0];
}
