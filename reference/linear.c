/* linear - out[r, n] = sum over k of x[r, k] w[g(r)][n, k] + bias[n], and how far an honest sum can
 * stray. Each output is one sequential sum over k in double. Rows of one group are the lanes of a
 * vector, so that a weight is converted once and the condition numbers ride along: W = max - min
 * over the prefix sums, S1 = the sum of magnitudes. Only groups that own rows are read. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the blocked dot product ---- */

static inline __attribute__((always_inline)) void dot_steps(struct dot_sums *sums, const double *w,
                                                            int64_t w_stride, const int n_columns,
                                                            const lanes *x, int64_t n, const int want) {
    struct dot_sums s[COLUMNS];
    for (int c = 0; c < n_columns; c++) s[c] = sums[c];
    for (int64_t k = 0; k < n; k++)
        for (int c = 0; c < n_columns; c++) {
            const lanes term = w[c * w_stride + k] * x[k];
            s[c].y += term;
            if (want & WANT_SPAN) {
                s[c].low = lanes_min(s[c].y, s[c].low);
                s[c].high = lanes_max(s[c].y, s[c].high);
            }
            if (want & WANT_SIZE) s[c].s1 += lanes_abs(term);
        }
    for (int c = 0; c < n_columns; c++) sums[c] = s[c];
}

void dot_continue(struct dot_sums *sums, const double *w, int64_t w_stride, int n_columns, const lanes *x,
                  int64_t n, int want) {
    if (n_columns < COLUMNS)
        for (int c = 0; c < n_columns; c++)
            dot_steps(sums + c, w + c * w_stride, w_stride, 1, x, n, WANT_SPAN | WANT_SIZE);
    else if (want == (WANT_SPAN | WANT_SIZE))
        for (int c = 0; c < COLUMNS; c += 2) /* as many sums as there are registers */
            dot_steps(sums + c, w + c * w_stride, w_stride, 2, x, n, WANT_SPAN | WANT_SIZE);
    else if (want == WANT_SPAN)
        dot_steps(sums, w, w_stride, COLUMNS, x, n, WANT_SPAN);
    else if (want == WANT_SIZE)
        dot_steps(sums, w, w_stride, COLUMNS, x, n, WANT_SIZE);
    else
        dot_steps(sums, w, w_stride, COLUMNS, x, n, 0);
}

void dot_in_slices(struct dot_sums *sums, lanes *spans, const double *w, int64_t w_stride, int n_columns,
                   const lanes *x, int64_t n, int64_t slice, int want) {
    if (!slice) slice = n;
    for (int64_t k = 0; k < n; k += slice) {
        struct dot_sums part[COLUMNS];
        for (int c = 0; c < n_columns; c++)
            part[c] = (struct dot_sums){sums[c].y, sums[c].y, sums[c].y, sums[c].s1};
        dot_continue(part, w + k, w_stride, n_columns, x + k, min_i64(slice, n - k), want);
        for (int c = 0; c < n_columns; c++) {
            spans[c] += part[c].high - part[c].low;
            part[c].low = lanes_min(part[c].low, sums[c].low);
            part[c].high = lanes_max(part[c].high, sums[c].high);
            sums[c] = part[c];
        }
    }
}

/* ---- linear ---- */

/* The groups that own some of the rows [row0, row1), in order. */
static int64_t find_runs(struct linear_run *runs, const struct linear_args *a, int64_t row0, int64_t row1) {
    if (!a->offsets.data) {
        runs[0] = (struct linear_run){.first = row0, .n = row1 - row0};
        return 1;
    }
    int64_t n_runs = 0, next = row0;
    for (int64_t g = 0; g < a->n_groups; g++) {
        const int64_t first = max_i64(view_index(&a->offsets, g), next);
        const int64_t end = min_i64(view_index(&a->offsets, g + 1), row1);
        if (first >= end) continue;
        runs[n_runs++] = (struct linear_run){.group = g, .first = first, .n = end - first};
        next = end;
    }
    return n_runs;
}

static double row_grid(const double *row, int64_t n) {
    double grid = INFINITY;
    for (int64_t k = 0; k < n; k++) {
        const double one = value_grid(row[k]);
        if (one < grid) grid = one;
    }
    return grid;
}

static void transpose_tile(lanes *tile, double *grid, const struct linear_run *r, int64_t first,
                           const struct linear_args *a) {
    double *row = ref_alloc((size_t)a->n_inner * sizeof *row);
    for (int64_t i = first; i < first + LANES; i++) {
        if (i < r->n)
            view_row(row, &a->x, (r->first + i) * a->x.stride[0], a->n_inner);
        else
            for (int64_t k = 0; k < a->n_inner; k++) row[k] = 0;
        for (int64_t k = 0; k < a->n_inner; k++) tile[k][i - first] = row[k];
        if (i < r->n) grid[i] = row_grid(row, a->n_inner);
    }
    free(row);
}

struct linear_rows linear_rows_make(const struct linear_args *a, int64_t row0, int64_t row1) {
    struct linear_rows rows = {.run = ref_alloc((size_t)(a->n_groups + 1) * sizeof *rows.run)};
    int64_t n_tiles = 0;
    rows.n_runs = find_runs(rows.run, a, row0, row1);
    for (int64_t i = 0; i < rows.n_runs; i++) {
        n_tiles += linear_run_tiles(&rows.run[i]);
        rows.most_tiles = max_i64(rows.most_tiles, linear_run_tiles(&rows.run[i]));
    }
    rows.x = ref_alloc((size_t)(n_tiles * a->n_inner) * sizeof *rows.x);
    rows.grid = ref_alloc((size_t)(row1 - row0) * sizeof *rows.grid);
    lanes *x = rows.x;
    for (int64_t i = 0; i < rows.n_runs; i++) {
        double *const grid = rows.grid + (rows.run[i].first - row0);
        const int64_t tiles = linear_run_tiles(&rows.run[i]);
#pragma omp parallel for schedule(static) if (tiles > 1)
        for (int64_t t = 0; t < tiles; t++)
            transpose_tile(x + t * a->n_inner, grid, &rows.run[i], t * LANES, a);
        rows.run[i].x = x;
        rows.run[i].grid = grid;
        x += linear_run_tiles(&rows.run[i]) * a->n_inner;
    }
    return rows;
}

void linear_rows_free(struct linear_rows *rows) { free(rows->run), free(rows->x), free(rows->grid); }

/* Sums of all rows of a run with columns [column, column + n_columns): sums [tiles][COLUMNS], and in
 * spans the sum of the slices' W. */
static void run_dot(struct dot_sums *sums, lanes *spans, const struct linear_run *r,
                    const struct linear_args *a, int64_t column, int n_columns, int64_t slice, int want) {
    enum {
        CHUNK = 256
    }; /* inner terms at a time: 8 KiB of weights and 8 KiB of a tile stay in the first cache */
    double w[COLUMNS][CHUNK];
    const int64_t n_sums = linear_run_tiles(r) * COLUMNS;
    for (int64_t i = 0; i < n_sums; i++) sums[i] = (struct dot_sums){.y = {0}}, spans[i] = lanes_all(0);
    for (int64_t first = 0; first < a->n_inner; first += slice) {
        const int64_t end = min_i64(first + slice, a->n_inner);
        for (int64_t i = 0; i < n_sums; i++) sums[i].low = sums[i].high = sums[i].y;
        for (int64_t k = first; k < end; k += CHUNK) {
            const int64_t n = min_i64(CHUNK, end - k);
            for (int c = 0; c < n_columns; c++)
                view_row(w[c], &a->w, r->group * a->w.stride[0] + (column + c) * a->w.stride[1] + k, n);
            for (int64_t t = 0; t < linear_run_tiles(r); t++)
                dot_continue(sums + t * COLUMNS, w[0], CHUNK, n_columns, r->x + t * a->n_inner + k, n, want);
        }
        for (int64_t i = 0; i < n_sums; i++) spans[i] += sums[i].high - sums[i].low;
    }
}

struct finish {
    const struct linear_args *args;
    const struct linear_contract *contract;
    const struct ref_out *out;
    int64_t row0;
    const double *moved; /* [rows, N] sum |w| r of x's radii; NULL: x is exact */
    double flushed;      /* what products, additions and merges lose where they underflow */
};

/* That a row's sum with a column is exact needs a grid of the column's weights of at least this. */
static double weight_grid_needed(const struct finish *f, int64_t row, double row_grid, int64_t column,
                                 double bias, double s1) {
    const double least = accumulator_grid(&f->contract->acc, s1 + fabs(bias));
    const bool moved = f->moved && f->moved[(row - f->row0) * f->args->n_cols + column] > 0;
    if (moved || f->contract->input_unit > 0 || value_grid(bias) < least) return INFINITY;
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

/* The bias is one more term, first or last, and of a step of its own, never the last products'.
 * Operands rounded to `input_unit` first move every product by at most 2 iu + iu^2 of its magnitude,
 * and every partial sum with it; so do operands that are off by a radius. */
static void finish_element(const struct finish *f, int64_t row, int64_t column, double y, double w,
                           double s1) {
    const struct linear_args *a = f->args;
    const bool biased = a->bias.data != NULL;
    const double bias = biased ? view_at(&a->bias, column) : 0;
    const double moved = f->moved ? f->moved[(row - f->row0) * a->n_cols + column] : 0;
    const double inputs = f->contract->input_unit * (2 + f->contract->input_unit) * (s1 + moved) + moved;
    const int64_t block = max_i64(f->contract->acc.block, 1);
    const int64_t terms = biased ? (a->n_inner + block - 1) / block * block + 1 : a->n_inner;
    w += fabs(bias), s1 += fabs(bias);
    const double e =
        f->out->e ? accumulator_slices_bound(&f->contract->acc, terms, w + inputs, s1 + inputs) : 0;
    put(f->out, (row - f->row0) * a->n_cols + column, y + bias, e + inputs + (s1 > 0 ? f->flushed : 0), s1);
}

/* E = 0 where a row's sum with this column is exact. */
static void find_exact(const struct finish *f, const struct linear_run *r, int64_t column,
                       const struct dot_sums *sums) {
    const struct linear_args *const a = f->args;
    const double bias = a->bias.data ? view_at(&a->bias, column) : 0;
    double needed = INFINITY;
    for (int64_t i = 0; i < r->n; i++)
        needed = fmin(needed, weight_grid_needed(f, r->first + i, r->grid[i], column, bias,
                                                 sums[i / LANES * COLUMNS].s1[i % LANES]));
    const double grid = needed < INFINITY ? weight_grid(a, r->group, column, needed) : 0;
    for (int64_t i = 0; i < r->n && grid > 0; i++)
        if (grid >= weight_grid_needed(f, r->first + i, r->grid[i], column, bias,
                                       sums[i / LANES * COLUMNS].s1[i % LANES]))
            f->out->e[(r->first + i - f->row0) * a->n_cols + column] = 0;
}

/* sum over k of |w[g(r)][n, k]| r[r, k], [rows, N]; rows that no group owns stay 0. */
static double *moved_sums(const struct linear_args *a, const double *const *radius, int64_t row0,
                          int64_t row1) {
    double *const moved = ref_alloc((size_t)((row1 - row0) * a->n_cols) * sizeof *moved);
    memset(moved, 0, (size_t)((row1 - row0) * a->n_cols) * sizeof *moved);
    struct linear_run *const runs = ref_alloc((size_t)(a->n_groups + 1) * sizeof *runs);
    const int64_t n_runs = find_runs(runs, a, row0, row1);
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

static void put_nothing(const struct ref_out *out, int64_t n) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) put(out, i, (double)NAN, (double)NAN, (double)NAN);
}

void ref_linear(const struct call *call, const struct contract *contract, const double *const *radius,
                int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct linear_args *a = &call->u.linear;
    double *const moved = has_radius(radius, 0) ? moved_sums(a, radius, row0, row1) : NULL;
    const double operations = 2 * (double)a->n_inner + contract->u.linear.acc.splits + 1;
    const struct finish f = {a, &contract->u.linear, out, row0, moved, flushed(contract, operations)};
    const int want = out->e || out->s1 ? WANT_SPAN | WANT_SIZE : 0;
    const int64_t slice = f.contract->acc.slice ? f.contract->acc.slice : max_i64(a->n_inner, 1);

    if (a->offsets.data) put_nothing(out, (row1 - row0) * a->n_cols); /* stays where no group owns a row */
    struct linear_rows rows = linear_rows_make(a, row0, row1);
    const int64_t n_blocks = (a->n_cols + COLUMNS - 1) / COLUMNS;
#pragma omp parallel
    {
        const size_t n_sums = (size_t)rows.most_tiles * COLUMNS;
        struct dot_sums *sums = ref_alloc(n_sums * sizeof *sums);
        lanes *spans = ref_alloc(n_sums * sizeof *spans);
#pragma omp for collapse(2) schedule(dynamic, 16)
        for (int64_t i = 0; i < rows.n_runs; i++)
            for (int64_t block = 0; block < n_blocks; block++) {
                const int64_t column = block * COLUMNS;
                const int n_columns = (int)min_i64(COLUMNS, a->n_cols - column);
                const struct linear_run *const run = &rows.run[i];
                run_dot(sums, spans, run, a, column, n_columns, slice, want);
                for (int64_t r = 0; r < run->n; r++)
                    for (int c = 0; c < n_columns; c++) {
                        const int64_t at = r / LANES * COLUMNS + c, l = r % LANES;
                        finish_element(&f, run->first + r, column + c, sums[at].y[l], spans[at][l],
                                       sums[at].s1[l]);
                    }
                for (int c = 0; c < n_columns && out->e && !contract->flushes; c++)
                    find_exact(&f, run, column + c, sums + c);
            }
        free(sums), free(spans);
    }
    linear_rows_free(&rows);
    free(moved);
}
