/* linear - out[r, n] = sum over k of x[r, k] w[g(r)][n, k] + bias[n], and how far an honest sum can
 * stray: from each sum, W and S1 (linear_sums.c, or a summer) its bound. Rows that no group owns are NaN. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* ---- from sums to bounds ---- */

struct finish {
    const struct linear_args *args;
    const struct linear_contract *contract;
    const struct ref_out *out;
    int64_t row0;
    const double *moved; /* [rows, N] sum |w| r of x's radii; NULL: x is exact */
    const double *grid;  /* [rows] the power of two that all of a row's inputs are multiples of; NULL: no
                            sum is taken for exact */
    double flushed;      /* what products, additions and merges lose where they underflow */
    struct sum_bounds bounds;
};

/* The bias is one more term, first or last, and of a step of its own, never the last products'. */
static struct sum_bounds bounds_of(const struct linear_args *a, const struct accumulator *acc) {
    const int64_t block = max_i64(acc->block, 1);
    const int64_t terms = a->bias.data ? (a->n_inner + block - 1) / block * block + 1 : a->n_inner;
    return sum_bounds_of(acc, terms);
}

struct column {
    double bias, bias_grid;
    double least; /* the grid that some row needs the column's weights to have, for its sum to be exact */
};

/* That a row's sum with a column is exact needs a grid of the column's weights of at least this. */
static inline double weight_grid_needed(const struct finish *f, int64_t row, double row_grid, int64_t column,
                                        const struct column *c, double s1) {
    const double least = sum_grid(&f->bounds, s1 + fabs(c->bias));
    const bool moved = f->moved && f->moved[(row - f->row0) * f->args->n_cols + column] > 0;
    if (moved || f->contract->input_unit > 0 || c->bias_grid < least) return INFINITY;
    return isinf(row_grid) ? 0 : least / row_grid; /* a row of zeros adds up to the bias */
}

/* The grid of a column's weights, or 0 as soon as it is known to be less than `needed`. Weights
 * that are on no grid say so within a few. */
static double weight_grid(const struct linear_args *a, int64_t group, int64_t column, double needed) {
    enum { PIECE = 16 };
    double w[PIECE], grid = INFINITY;
    for (int64_t k = 0; k < a->n_inner; k += PIECE) {
        const int64_t n = min_i64(PIECE, a->n_inner - k);
        view_row(w, &a->w, group * a->w.stride[0] + column * a->w.stride[1] + k, n);
        for (int64_t i = 0; i < n; i++) {
            const double one = value_grid(w[i]);
            if (one < needed) return 0;
            if (one < grid) grid = one;
        }
    }
    return grid;
}

/* Operands rounded to `input_unit` first move every product by at most 2 iu + iu^2 of its magnitude,
 * and every partial sum with it; so do operands that are off by a radius. */
static inline void finish_element(const struct finish *f, int64_t row, int64_t column, double bias, double y,
                                  double w, double s1) {
    const struct linear_args *a = f->args;
    const double moved = f->moved ? f->moved[(row - f->row0) * a->n_cols + column] : 0;
    const double inputs = f->contract->input_unit * (2 + f->contract->input_unit) * (s1 + moved) + moved;
    w += fabs(bias), s1 += fabs(bias);
    const double e = f->out->e ? sum_bound(&f->bounds, w + inputs, s1 + inputs) : 0;
    put(f->out, (row - f->row0) * a->n_cols + column, y + bias, e + inputs + (s1 > 0 ? f->flushed : 0), s1);
}

/* E = 0 where a row's sum with a column is exact. */
static void find_exact(const struct finish *f, const struct ref_run *r, int64_t column,
                       const struct column *c, const double *s1, int64_t stride) {
    const struct linear_args *const a = f->args;
    const double grid = c->least < INFINITY ? weight_grid(a, r->group, column, c->least) : 0;
    for (int64_t i = 0; i < r->n && grid > 0; i++) {
        const int64_t row = r->first + i;
        if (grid >= weight_grid_needed(f, row, f->grid[row - f->row0], column, c, s1[i * stride]))
            f->out->e[(row - f->row0) * a->n_cols + column] = 0;
    }
}

static struct column column_at(const struct linear_args *a, int64_t column) {
    const double bias = a->bias.data ? view_at(&a->bias, column) : 0;
    return (struct column){bias, value_grid(bias), INFINITY};
}

/* Some of a run's rows with n columns from `first` on, the first of them column[0]. */
static void finish_rows(const struct finish *f, const struct ref_run *r, int64_t first, int64_t n,
                        struct column *column, const struct linear_sums *s) {
    for (int64_t i = 0; i < r->n; i++)
        for (int64_t c = 0; c < n; c++) {
            const int64_t at = i * s->stride + c, row = r->first + i;
            finish_element(f, row, first + c, column[c].bias, s->y[at], s->span[at], s->s1[at]);
            if (!f->grid) continue;
            const double needed =
                weight_grid_needed(f, row, f->grid[row - f->row0], first + c, &column[c], s->s1[at]);
            if (needed < column[c].least) column[c].least = needed;
        }
}

/* A run with a block of columns. */
static void finish_block(const struct finish *f, const struct ref_run *r, int64_t first, int64_t n,
                         const struct linear_sums *s) {
    struct column column[SUM_COLUMNS];
    for (int64_t c = 0; c < n; c++) column[c] = column_at(f->args, first + c);
    finish_rows(f, r, first, n, column, s);
    for (int64_t c = 0; c < n && f->grid; c++) find_exact(f, r, first + c, &column[c], s->s1 + c, s->stride);
}

/* A run with all columns: the sums lie in rows. */
static void finish_run(const struct finish *f, const struct ref_run *r, const struct linear_sums *s) {
    const int64_t n = f->args->n_cols;
    struct column *const column = ref_alloc((size_t)n * sizeof *column);
    for (int64_t c = 0; c < n; c++) column[c] = column_at(f->args, c);
    finish_rows(f, r, 0, n, column, s);
    for (int64_t c = 0; c < n && f->grid; c++) find_exact(f, r, c, &column[c], s->s1 + c, s->stride);
    free(column);
}

/* The same by all threads, a few whole rows at a time. */
static void finish_run_together(const struct finish *f, const struct ref_run *r,
                                const struct linear_sums *s) {
    enum { ROWS = 8 };
    const int64_t n = f->args->n_cols;
    struct column *const all = ref_alloc((size_t)n * sizeof *all);
    for (int64_t c = 0; c < n; c++) all[c] = column_at(f->args, c);
#pragma omp parallel
    {
        struct column *const own = ref_alloc((size_t)n * sizeof *own);
        memcpy(own, all, (size_t)n * sizeof *own);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < r->n; i += ROWS) {
            const struct ref_run some = {r->group, r->first + i, min_i64(ROWS, r->n - i)};
            const int64_t at = i * s->stride;
            finish_rows(f, &some, 0, n, own,
                        &(struct linear_sums){s->y + at, s->span + at, s->s1 + at, s->stride});
        }
#pragma omp critical(linear_least)
        for (int64_t c = 0; c < n; c++)
            if (own[c].least < all[c].least) all[c].least = own[c].least;
        free(own);
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t c = 0; c < n; c++)
            if (f->grid) find_exact(f, r, c, &all[c], s->s1 + c, s->stride);
    }
    free(all);
}

/* Of many runs a thread takes one after the other: a team for each would cost more than its rows. */
static void finish_runs(const struct finish *f, const struct ref_run *run, int64_t n_runs,
                        const struct ref_sums *sums) {
    const int64_t n = sums->n_cols;
    struct linear_sums *const of = ref_alloc((size_t)n_runs * sizeof *of);
    for (int64_t i = 0, at = 0; i < n_runs; at += run[i++].n * n)
        of[i] = (struct linear_sums){sums->y + at, sums->span + at, sums->s1 + at, n};
    if (n_runs < 2 * omp_get_max_threads()) {
        for (int64_t i = 0; i < n_runs; i++) finish_run_together(f, &run[i], &of[i]);
    } else {
#pragma omp parallel for schedule(dynamic)
        for (int64_t i = 0; i < n_runs; i++) finish_run(f, &run[i], &of[i]);
    }
    free(of);
}

/* ---- the rows of a call ---- */

/* sum over k of |w[g(r)][n, k]| r[r, k], [rows, N]; rows that no group owns stay 0. */
static double *moved_sums(const struct linear_args *a, const double *const *radius, int64_t row0,
                          int64_t row1) {
    double *const moved = ref_alloc((size_t)((row1 - row0) * a->n_cols) * sizeof *moved);
    memset(moved, 0, (size_t)((row1 - row0) * a->n_cols) * sizeof *moved);
    struct ref_run *const runs = ref_alloc((size_t)(a->n_groups + 1) * sizeof *runs);
    const int64_t n_runs = linear_runs(runs, a, row0, row1);
    double *const r = ref_alloc((size_t)a->n_inner * 2 * sizeof *r), *const w = r + a->n_inner;
    for (int64_t i = 0; i < n_runs; i++)
        for (int64_t row = runs[i].first; row < runs[i].first + runs[i].n; row++) {
            radius_row(r, radius, 0, &a->x, row * a->x.stride[0], a->n_inner);
            for (int64_t n = 0; n < a->n_cols; n++) {
                double *const sum = &moved[(row - row0) * a->n_cols + n];
                view_row(w, &a->w, runs[i].group * a->w.stride[0] + n * a->w.stride[1], a->n_inner);
                for (int64_t k = 0; k < a->n_inner; k++) *sum += fabs(w[k]) * r[k];
            }
        }
    free(runs), free(r);
    return moved;
}

static double row_grid(const double *row, int64_t n) {
    double grid = INFINITY;
    for (int64_t k = 0; k < n; k++) {
        const double one = value_grid(row[k]);
        if (one < grid) grid = one;
    }
    return grid;
}

/* Of x's rows [row0, row1). */
static double *row_grids(const struct linear_args *a, int64_t row0, int64_t row1) {
    double *const grid = ref_alloc((size_t)(row1 - row0) * sizeof *grid);
#pragma omp parallel if (row1 - row0 > LANES)
    {
        double *const row = ref_alloc((size_t)a->n_inner * sizeof *row);
#pragma omp for schedule(static)
        for (int64_t r = row0; r < row1; r++) {
            view_row(row, &a->x, r * a->x.stride[0], a->n_inner);
            grid[r - row0] = row_grid(row, a->n_inner);
        }
        free(row);
    }
    return grid;
}

/* NaN in rows that no group owns. */
static void put_nothing(const struct finish *f, int64_t row1, const struct ref_run *run, int64_t n_runs) {
    const int64_t width = f->args->n_cols;
    int64_t next = f->row0;
    for (int64_t i = 0; i <= n_runs; i++) {
        const int64_t end = i < n_runs ? run[i].first : row1;
        for (int64_t n = (next - f->row0) * width; n < (end - f->row0) * width; n++)
            put(f->out, n, (double)NAN, (double)NAN, (double)NAN);
        if (i < n_runs) next = run[i].first + run[i].n;
    }
}

/* ---- who adds up ---- */

/* The loops here: a block of columns of a run after the other, finished as soon as it is there. */
static void add_up_here(const struct finish *f, int64_t row1, int64_t slice, int want) {
    const struct linear_args *const a = f->args;
    struct linear_rows rows = linear_rows_make(a, f->row0, row1);
    const int64_t n_blocks = (a->n_cols + SUM_COLUMNS - 1) / SUM_COLUMNS;
#pragma omp parallel
    {
        struct linear_adder adder;
        linear_adder_open(&adder, rows.most_tiles);
#pragma omp for collapse(2) schedule(dynamic, 16)
        for (int64_t i = 0; i < rows.n_runs; i++)
            for (int64_t block = 0; block < n_blocks; block++) {
                const int64_t column = block * SUM_COLUMNS, n = min_i64(SUM_COLUMNS, a->n_cols - column);
                const struct linear_sums s =
                    linear_add_up(&adder, &rows.run[i], a, column, (int)n, slice, want);
                finish_block(f, &rows.run[i].rows, column, n, &s);
            }
        linear_adder_close(&adder);
    }
    linear_rows_free(&rows);
}

static bool add_up_elsewhere(const struct finish *f, int64_t slice, const struct ref_run *run,
                             int64_t n_runs) {
    const struct linear_args *const a = f->args;
    struct ref_sums sums = {
        .args = a, .run = run, .n_runs = n_runs, .slice = slice, .each = 1, .n_cols = a->n_cols};
    for (int64_t i = 0; i < n_runs; i++) sums.n_rows += run[i].n;
    if (!summer_adds_up(&sums)) return false;
    finish_runs(f, run, n_runs, &sums);
    return true;
}

void ref_linear(const struct call *call, const struct contract *contract, const double *const *radius,
                int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct linear_args *a = &call->u.linear;
    double *const moved = has_radius(radius, 0) ? moved_sums(a, radius, row0, row1) : NULL;
    double *const grid = out->e && !contract->flushes ? row_grids(a, row0, row1) : NULL;
    const double operations = 2 * (double)a->n_inner + contract->u.linear.acc.splits + 1;
    const struct finish f = {a,
                             &contract->u.linear,
                             out,
                             row0,
                             moved,
                             grid,
                             flushed(contract, operations),
                             bounds_of(a, &contract->u.linear.acc)};
    const int want = out->e || out->s1 ? WANT_SPAN | WANT_SIZE : 0;
    const int64_t slice = f.contract->acc.slice ? f.contract->acc.slice : max_i64(a->n_inner, 1);

    struct ref_run *const run = ref_alloc((size_t)(a->n_groups + 1) * sizeof *run);
    const int64_t n_runs = linear_runs(run, a, row0, row1);
    put_nothing(&f, row1, run, n_runs);
    if (!add_up_elsewhere(&f, slice, run, n_runs)) add_up_here(&f, row1, slice, want);
    free(moved), free(grid), free(run);
}
