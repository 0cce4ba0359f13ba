/* Does somebody else add up, and are the bits those of the loops here? */
/* SPDX-License-Identifier: MIT */
#include "reference/summer.h"
#include "reference/internal.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

static struct ref_summer *in_use;

void ref_use_summer(struct ref_summer *summer) { in_use = summer; }
struct ref_summer *ref_summer(void) {
    return in_use;
}

/* NaN is NaN: which one comes of two is each machine's own. */
static bool same_bits(double a, double b) { return !memcmp(&a, &b, sizeof a) || (isnan(a) && isnan(b)); }

/* Element (row, column) of the call, in `kind`: "y", say. */
static void note_difference(struct ref_summer *s, const struct linear_args *a, int64_t row, int64_t column,
                            const char *kind, double theirs, double ours) {
#pragma omp critical(summer_wrong)
    if (!s->wrong[0])
        snprintf(s->wrong, sizeof s->wrong,
                 "the device's reference disagrees with the CPU's: %s of row %lld, column %lld of a product "
                 "of %lld columns and %lld terms is %a, not %a",
                 kind, (long long)row, (long long)column, (long long)a->n_cols, (long long)a->n_inner, theirs,
                 ours);
}

static void compare_block(struct ref_summer *s, const struct ref_sums *sums, const struct ref_run *run,
                          int64_t at, int64_t column, int n_columns, const struct linear_sums *ours) {
    for (int64_t r = 0; r < run->n; r++)
        for (int c = 0; c < n_columns; c++) {
            const int64_t i = (at + r) * sums->args->n_cols + column + c, j = r * ours->stride + c;
            const struct {
                const char *kind;
                double theirs, ours;
            } all[] = {{"the sum", sums->y[i], ours->y[j]},
                       {"the span", sums->span[i], ours->span[j]},
                       {"the sum of magnitudes", sums->s1[i], ours->s1[j]}};
            for (size_t k = 0; k < sizeof all / sizeof *all; k++)
                if (!same_bits(all[k].theirs, all[k].ours))
                    note_difference(s, sums->args, run->first + r, column + c, all[k].kind, all[k].theirs,
                                    all[k].ours);
        }
}

/* Rows of one run, of which the first is row `at` of the sums. */
static void compare(struct ref_summer *s, const struct ref_sums *sums, const struct ref_run *run,
                    int64_t at) {
    const struct linear_args *const a = sums->args;
    const int64_t n_blocks = (a->n_cols + COLUMNS - 1) / COLUMNS;
    lanes *const x = ref_alloc((size_t)a->n_inner * sizeof *x);
    const struct linear_run with_inputs = {*run, x};
    linear_tile(x, run, 0, a);
#pragma omp parallel
    {
        struct linear_adder adder;
        linear_adder_open(&adder, linear_run_tiles(run));
#pragma omp for schedule(static)
        for (int64_t block = 0; block < n_blocks; block++) {
            const int64_t column = block * COLUMNS;
            const int n = (int)min_i64(COLUMNS, a->n_cols - column);
            const struct linear_sums ours =
                linear_add_up(&adder, &with_inputs, a, column, n, sums->slice, WANT_SPAN | WANT_SIZE);
            compare_block(s, sums, run, at, column, n, &ours);
        }
        linear_adder_close(&adder);
    }
    free(x);
}

/* A tile of rows, which costs as much as one of them: the call's first in its first answer, then anywhere. */
static void recompute(struct ref_summer *s, const struct ref_sums *sums) {
    const uint64_t mix = (uint64_t)s->answers * 0x9e3779b97f4a7c15u;
    const int64_t picked = (int64_t)((mix >> 17) % (uint64_t)sums->n_rows);
    int64_t before = 0, i = 0;
    while (before + sums->run[i].n <= picked) before += sums->run[i++].n;
    struct ref_run rows = sums->run[i];
    rows.first += picked - before;
    rows.n = min_i64(LANES, rows.n - (picked - before));
    compare(s, sums, &rows, picked);
    s->recomputed += rows.n;
}

static bool is_worth_it(const struct ref_summer *s, const struct ref_sums *sums) {
    const double rows = (double)sums->n_rows;
    const double work = rows * (double)sums->args->n_cols * (double)sums->args->n_inner;
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
