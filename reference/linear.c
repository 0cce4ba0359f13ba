/* linear - out[r, n] = sum over k of x[r, k] w[g(r)][n, k] + bias[n], and how far an honest sum can
 * stray: from each sum, W and S1 (linear_sums.c, or a summer) its bound. Rows that no group owns are NaN. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
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
    struct linear_bounds bounds;
};

/* The bias is one more term, first or last, and of a step of its own, never the last products'. */
static struct sum_bounds bounds_of(const struct linear_args *a, const struct accumulator *acc) {
    const int64_t block = max_i64(acc->block, 1);
    const int64_t terms = a->bias.data ? (a->n_inner + block - 1) / block * block + 1 : a->n_inner;
    return sum_bounds_of(acc, terms);
}

/* Columns [first, first + n). */
struct columns {
    int64_t first, n;
    double *bias, *bias_grid;
    double *needed; /* a grid of the column's weights with which some row's sum is exact; INFINITY: none */
};

static struct columns columns_make(const struct linear_args *a, int64_t first, int64_t n, double *room) {
    const struct columns c = {first, n, room, room + n, room + 2 * n};
    for (int64_t i = 0; i < n; i++) {
        c.bias[i] = a->bias.data ? view_at(&a->bias, first + i) : 0;
        c.bias_grid[i] = value_grid(c.bias[i]);
        c.needed[i] = INFINITY;
    }
    return c;
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

/* The loops over a row have no branch that depends on an element: the machine takes several at
 * once. */
static void put_bounds(const struct finish *f, const struct columns *c, const double *moved,
                       const double *restrict span, const double *restrict s1, double *restrict e) {
    const struct linear_bounds bounds = f->bounds;
    for (int64_t i = 0; i < c->n; i++)
        e[i] = linear_bound(&bounds, span[i], s1[i], c->bias[i], moved ? moved[i] : 0);
}

/* Some row needs the weights to have at least this grid for an exact sum; x is known there. */
static void need_grids(const struct finish *f, const struct columns *c, double row_grid, const double *moved,
                       const double *restrict s1) {
    const struct linear_bounds bounds = f->bounds;
    const double *restrict const bias = c->bias, *restrict const bias_grid = c->bias_grid;
    double *restrict const needed = c->needed;
    const int64_t n = c->n;
    for (int64_t i = 0; i < n; i++) {
        const double need = linear_need(&bounds, s1[i], bias[i], bias_grid[i], row_grid);
        const bool less = !((moved ? moved[i] : 0) > 0) & (need < needed[i]);
        needed[i] = less ? need : needed[i];
    }
}

static void add_bias(double *restrict to, const double *restrict sum, const struct columns *c, bool size) {
    const double *restrict const bias = c->bias;
    const int64_t n = c->n;
    for (int64_t i = 0; i < n; i++) to[i] = sum[i] + (size ? fabs(bias[i]) : bias[i]);
}

static int64_t out_at(const struct finish *f, int64_t row, int64_t column) {
    return (row - f->row0) * f->args->n_cols + column;
}

static void finish_row(const struct finish *f, int64_t row, const struct columns *c, const double *y,
                       const double *span, const double *s1) {
    const int64_t at = out_at(f, row, c->first);
    const double *const moved = f->moved ? f->moved + at : NULL;
    if (f->out->y) add_bias(f->out->y + at, y, c, false);
    if (f->out->e) put_bounds(f, c, moved, span, s1, f->out->e + at);
    if (f->out->s1) add_bias(f->out->s1 + at, s1, c, true);
    if (f->grid) need_grids(f, c, f->grid[row - f->row0], moved, s1);
}

/* E = 0 where a row's sum with a column, the i-th of these, is exact. s1: of the run's first row. */
static void find_exact(const struct finish *f, const struct ref_run *r, const struct columns *c, int64_t i,
                       const double *s1, int64_t stride) {
    const int64_t column = c->first + i;
    const double grid = c->needed[i] < INFINITY ? weight_grid(f->args, r->group, column, c->needed[i]) : 0;
    for (int64_t n = 0; n < r->n && grid > 0; n++) {
        const int64_t row = r->first + n, at = out_at(f, row, column);
        const double least = sum_grid(&f->bounds.sum, s1[n * stride + i] + fabs(c->bias[i]));
        const double row_grid = f->grid[row - f->row0], off = f->moved ? f->moved[at] : 0;
        if (off > 0 || c->bias_grid[i] < least) continue;
        if (row_grid == INFINITY || grid >= least / row_grid) f->out->e[at] = 0;
    }
}

/* A run with some columns: the sums lie in rows. */
static void finish_run(const struct finish *f, const struct ref_run *r, const struct columns *c,
                       const struct linear_sums *s) {
    for (int64_t i = 0, at = 0; i < r->n; i++, at += s->stride)
        finish_row(f, r->first + i, c, s->y + at, s->span + at, s->s1 + at);
    for (int64_t i = 0; i < c->n && f->grid; i++) find_exact(f, r, c, i, s->s1, s->stride);
}

/* The same by all threads, whole rows each; what they need is put together for the columns. */
static void finish_run_together(const struct finish *f, const struct ref_run *r, const struct columns *all,
                                const struct linear_sums *s) {
    const int64_t n = all->n;
#pragma omp parallel
    {
        struct columns own = *all;
        own.needed = ref_alloc((size_t)n * sizeof *own.needed);
        memcpy(own.needed, all->needed, (size_t)n * sizeof *own.needed);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < r->n; i++) {
            const int64_t at = i * s->stride;
            finish_row(f, r->first + i, &own, s->y + at, s->span + at, s->s1 + at);
        }
#pragma omp critical(linear_least)
        for (int64_t i = 0; i < n; i++)
            if (own.needed[i] < all->needed[i]) all->needed[i] = own.needed[i];
        free(own.needed);
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++)
            if (f->grid) find_exact(f, r, all, i, s->s1, s->stride);
    }
}

/* Of many runs a thread takes one after the other: a team for each would cost more than its rows. */
static void finish_runs(const struct finish *f, const struct ref_run *run, int64_t n_runs,
                        const struct ref_sums *sums) {
    const int64_t n = sums->n_cols;
    struct linear_sums *const of = ref_alloc((size_t)n_runs * sizeof *of);
    struct columns *const columns = ref_alloc((size_t)n_runs * sizeof *columns);
    double *const room = ref_alloc((size_t)(n_runs * 3 * n) * sizeof *room);
    for (int64_t i = 0, at = 0; i < n_runs; at += run[i++].n * n) {
        of[i] = (struct linear_sums){sums->y + at, sums->span + at, sums->s1 + at, n};
        columns[i] = columns_make(f->args, 0, n, room + i * 3 * n);
    }
    if (n_runs < 2 * omp_get_max_threads()) {
        for (int64_t i = 0; i < n_runs; i++) finish_run_together(f, &run[i], &columns[i], &of[i]);
    } else {
#pragma omp parallel for schedule(dynamic)
        for (int64_t i = 0; i < n_runs; i++) finish_run(f, &run[i], &columns[i], &of[i]);
    }
    free(of), free(columns), free(room);
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
    for (int64_t k = 0; k < n; k++) grid = min_f64(value_grid(row[k]), grid);
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
    const int64_t at_once = pieces_at_once(rows.n_runs * n_blocks);
#pragma omp parallel
    {
        struct linear_adder adder;
        linear_adder_open(&adder, rows.most_tiles);
#pragma omp for collapse(2) schedule(dynamic, at_once)
        for (int64_t i = 0; i < rows.n_runs; i++)
            for (int64_t block = 0; block < n_blocks; block++) {
                const int64_t column = block * SUM_COLUMNS, n = min_i64(SUM_COLUMNS, a->n_cols - column);
                const struct linear_sums s =
                    linear_add_up(&adder, &rows.run[i], a, column, (int)n, slice, want);
                double room[3 * SUM_COLUMNS];
                const struct columns columns = columns_make(a, column, n, room);
                finish_run(f, &rows.run[i].rows, &columns, &s);
            }
        linear_adder_close(&adder);
    }
    linear_rows_free(&rows);
}

/* Has a column weights on a grid with which some of its rows is exact? */
static bool some_exact(const struct linear_args *a, const struct ref_run *run, int64_t n_runs,
                       const double *need) {
    bool some = false;
#pragma omp parallel for collapse(2) schedule(static) reduction(|| : some)
    for (int64_t i = 0; i < n_runs; i++)
        for (int64_t c = 0; c < a->n_cols; c++) {
            const double needed = need[i * a->n_cols + c];
            some = some || (needed < INFINITY && weight_grid(a, run[i].group, c, needed) > 0);
        }
    return some;
}

static void take_rows(const struct finish *f, const struct ref_run *run, int64_t n_runs,
                      const struct ref_sums *sums) {
    const int64_t n = sums->n_cols;
    const size_t bytes = (size_t)n * sizeof(double);
#pragma omp parallel
    for (int64_t i = 0, before = 0; i < n_runs; before += run[i++].n) {
#pragma omp for schedule(static) nowait
        for (int64_t r = 0; r < run[i].n; r++) {
            const int64_t from = (before + r) * n, to = out_at(f, run[i].first + r, 0);
            if (f->out->y) memcpy(f->out->y + to, sums->y + from, bytes);
            if (f->out->e) memcpy(f->out->e + to, sums->e + from, bytes);
            if (f->out->s1) memcpy(f->out->s1 + to, sums->s1 + from, bytes);
        }
    }
}

/* The summer makes the bounds, too, where x is known and no sum is exact: then nothing is left to
 * be done. */
static bool finish_elsewhere(const struct finish *f, struct ref_sums *sums) {
    const int64_t n = sums->n_cols;
    double *const bias = ref_alloc((size_t)(n + sums->n_rows) * sizeof *bias), *const grid = bias + n;
    const struct ref_finish finish = {f->bounds, bias, f->grid ? grid : NULL, f->out->s1 != NULL};
    for (int64_t c = 0; c < n; c++) bias[c] = f->args->bias.data ? view_at(&f->args->bias, c) : 0;
    for (int64_t i = 0, at = 0; i < sums->n_runs && f->grid; at += sums->run[i++].n)
        memcpy(grid + at, f->grid + (sums->run[i].first - f->row0), (size_t)sums->run[i].n * sizeof *grid);
    sums->finish = &finish;
    const bool added = summer_adds_up(sums);
    sums->finish = NULL;
    free(bias);
    return added;
}

static bool add_up_elsewhere(const struct finish *f, int64_t slice, const struct ref_run *run,
                             int64_t n_runs) {
    const struct linear_args *const a = f->args;
    struct ref_sums sums = {
        .args = a, .run = run, .n_runs = n_runs, .slice = slice, .each = 1, .n_cols = a->n_cols};
    for (int64_t i = 0; i < n_runs; i++) sums.n_rows += run[i].n;
    if (f->out->e && !f->moved) {
        if (!finish_elsewhere(f, &sums)) return false;
        if (sums.e && !(f->grid && some_exact(a, run, n_runs, sums.need))) {
            take_rows(f, run, n_runs, &sums);
            return true;
        }
    }
    if (sums.e || !sums.y) { /* bounds that do not hold, or nothing yet: the sums alone */
        sums.e = NULL;
        if (!summer_adds_up(&sums)) return false;
    }
    finish_runs(f, run, n_runs, &sums);
    return true;
}

void ref_linear(const struct call *call, const struct contract *contract, const double *const *radius,
                int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct linear_args *a = &call->u.linear;
    double *const moved = has_radius(radius, 0) ? moved_sums(a, radius, row0, row1) : NULL;
    const bool exactly = !contract->flushes && !(contract->u.linear.input_unit > 0);
    double *const grid = out->e && exactly ? row_grids(a, row0, row1) : NULL;
    const double operations = 2 * (double)a->n_inner + contract->u.linear.acc.splits + 1;
    const struct finish f = {a,
                             &contract->u.linear,
                             out,
                             row0,
                             moved,
                             grid,
                             {bounds_of(a, &contract->u.linear.acc), contract->u.linear.input_unit,
                              flushed(contract, operations)}};
    const int want = out->e || out->s1 ? WANT_SPAN | WANT_SIZE : 0;
    const int64_t slice = f.contract->acc.slice ? f.contract->acc.slice : max_i64(a->n_inner, 1);

    struct ref_run *const run = ref_alloc((size_t)(a->n_groups + 1) * sizeof *run);
    const int64_t n_runs = linear_runs(run, a, row0, row1);
    put_nothing(&f, row1, run, n_runs);
    if (!add_up_elsewhere(&f, slice, run, n_runs)) add_up_here(&f, row1, slice, want);
    free(moved), free(grid), free(run);
}
