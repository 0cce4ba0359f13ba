/* The sums under linear: each output is one sequential sum over k in double. Rows of one group are the
 * lanes of a vector, so that a weight is converted once and the condition numbers ride along: W = max -
 * min over the prefix sums, S1 = the sum of magnitudes. Only groups that own rows are read. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <stdlib.h>

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

/* ---- rows ---- */

int64_t linear_runs(struct ref_run *runs, const struct linear_args *a, int64_t row0, int64_t row1) {
    if (!a->offsets.data) {
        runs[0] = (struct ref_run){.first = row0, .n = row1 - row0};
        return 1;
    }
    int64_t n_runs = 0, next = row0;
    for (int64_t g = 0; g < a->n_groups; g++) {
        const int64_t first = max_i64(view_index(&a->offsets, g), next);
        const int64_t end = min_i64(view_index(&a->offsets, g + 1), row1);
        if (first >= end) continue;
        runs[n_runs++] = (struct ref_run){.group = g, .first = first, .n = end - first};
        next = end;
    }
    return n_runs;
}

void linear_tile(lanes *tile, const struct ref_run *r, int64_t first, const struct linear_args *a) {
    double *row = ref_alloc((size_t)a->n_inner * sizeof *row);
    for (int64_t i = first; i < first + LANES; i++) {
        if (i < r->n)
            view_row(row, &a->x, (r->first + i) * a->x.stride[0], a->n_inner);
        else
            for (int64_t k = 0; k < a->n_inner; k++) row[k] = 0;
        for (int64_t k = 0; k < a->n_inner; k++) tile[k][i - first] = row[k];
    }
    free(row);
}

struct linear_rows linear_rows_make(const struct linear_args *a, int64_t row0, int64_t row1) {
    struct ref_run *const runs = ref_alloc((size_t)(a->n_groups + 1) * sizeof *runs);
    struct linear_rows rows = {.run = ref_alloc((size_t)(a->n_groups + 1) * sizeof *rows.run)};
    int64_t n_tiles = 0;
    rows.n_runs = linear_runs(runs, a, row0, row1);
    for (int64_t i = 0; i < rows.n_runs; i++) {
        n_tiles += linear_run_tiles(&runs[i]);
        rows.most_tiles = max_i64(rows.most_tiles, linear_run_tiles(&runs[i]));
    }
    lanes *x = rows.x = ref_alloc((size_t)(n_tiles * a->n_inner) * sizeof *x);
    for (int64_t i = 0; i < rows.n_runs; i++) {
        const int64_t tiles = linear_run_tiles(&runs[i]);
#pragma omp parallel for schedule(static) if (tiles > 1)
        for (int64_t t = 0; t < tiles; t++) linear_tile(x + t * a->n_inner, &runs[i], t * LANES, a);
        rows.run[i] = (struct linear_run){runs[i], x};
        x += tiles * a->n_inner;
    }
    free(runs);
    return rows;
}

void linear_rows_free(struct linear_rows *rows) { free(rows->run), free(rows->x); }

/* ---- sums of a run's rows with some columns ---- */

void linear_adder_open(struct linear_adder *adder, int64_t most_tiles) {
    const size_t n = (size_t)most_tiles * COLUMNS;
    *adder = (struct linear_adder){.sums = ref_alloc(n * sizeof *adder->sums),
                                   .spans = ref_alloc(n * sizeof *adder->spans),
                                   .out = ref_alloc(n * LANES * 3 * sizeof *adder->out)};
}

void linear_adder_close(struct linear_adder *adder) {
    free(adder->sums), free(adder->spans), free(adder->out);
}

static void run_dot(const struct linear_adder *adder, const struct linear_run *r, const struct linear_args *a,
                    int64_t column, int n_columns, int64_t slice, int want) {
    enum {
        CHUNK = 256
    }; /* inner terms at a time: 8 KiB of weights and 8 KiB of a tile stay in the first cache */
    double w[COLUMNS][CHUNK];
    struct dot_sums *const sums = adder->sums;
    lanes *const spans = adder->spans;
    const int64_t n_sums = linear_run_tiles(&r->rows) * COLUMNS;
    for (int64_t i = 0; i < n_sums; i++) sums[i] = (struct dot_sums){.y = {0}}, spans[i] = lanes_all(0);
    for (int64_t first = 0; first < a->n_inner; first += slice) {
        const int64_t end = min_i64(first + slice, a->n_inner);
        for (int64_t i = 0; i < n_sums; i++) sums[i].low = sums[i].high = sums[i].y;
        for (int64_t k = first; k < end; k += CHUNK) {
            const int64_t n = min_i64(CHUNK, end - k);
            for (int c = 0; c < n_columns; c++)
                view_row(w[c], &a->w, r->rows.group * a->w.stride[0] + (column + c) * a->w.stride[1] + k, n);
            for (int64_t t = 0; t < n_sums; t += COLUMNS)
                dot_continue(sums + t, w[0], CHUNK, n_columns, r->x + t / COLUMNS * a->n_inner + k, n, want);
        }
        for (int64_t i = 0; i < n_sums; i++) spans[i] += sums[i].high - sums[i].low;
    }
}

struct linear_sums linear_add_up(const struct linear_adder *adder, const struct linear_run *r,
                                 const struct linear_args *a, int64_t column, int n_columns, int64_t slice,
                                 int want) {
    const int64_t rows = linear_run_tiles(&r->rows) * LANES;
    double *const y = adder->out, *const span = y + rows * COLUMNS, *const s1 = span + rows * COLUMNS;
    run_dot(adder, r, a, column, n_columns, slice, want);
    for (int64_t row = 0; row < r->rows.n; row++)
        for (int c = 0; c < n_columns; c++) {
            const int64_t from = row / LANES * COLUMNS + c, lane = row % LANES, to = row * COLUMNS + c;
            y[to] = adder->sums[from].y[lane];
            span[to] = adder->spans[from][lane];
            s1[to] = adder->sums[from].s1[lane];
        }
    return (struct linear_sums){y, span, s1, COLUMNS};
}
