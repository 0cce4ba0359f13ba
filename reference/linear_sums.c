/* The sums under linear: each output is one sequential sum over k in double, and the condition numbers
 * ride along: W = max - min over the prefix sums, S1 = the sum of magnitudes. Columns are the lanes of a
 * vector, and a weight is converted once for all rows of its group. Only groups that own rows are read. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <stdlib.h>

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

/* Columns are the lanes, not rows: an expert has few rows, and 3 of 4 lanes would compute nothing. */
enum {
    VECTORS = SUM_COLUMNS / LANES,
    CHUNK = 128 /* inner terms at a time: 16 KiB of weights stay in the first cache */
};
struct row_sums {
    lanes y[VECTORS], low[VECTORS], high[VECTORS], s1[VECTORS], span[VECTORS];
};

void linear_adder_open(struct linear_adder *adder, int64_t most_tiles) {
    adder->sums = ref_alloc((size_t)most_tiles * LANES * sizeof *adder->sums);
}

void linear_adder_close(struct linear_adder *adder) { free(adder->sums); }

/* Rows of weights lie a page apart, and the machine does not see what comes next. */
static void read_ahead(const struct view *v, int64_t first) {
    enum { LINE = 64 };
    const int64_t size = (int64_t)dtype_bytes(v->dtype);
    for (int64_t i = 0; i < CHUNK * size && v->data; i += LINE)
        __builtin_prefetch((const char *)v->data + first * size + i);
}

/* Weights k, k + 1.. of up to LANES columns, the first of which begins at `first`, are vector v of
 * panel[0], panel[1]..; 0 where there is no such column. */
static void turn_columns(lanes (*panel)[VECTORS], int v, const struct linear_args *a, int64_t first,
                         int64_t n_columns, int64_t k, int64_t n) {
    const int64_t stride = a->w.stride[1], next = k + CHUNK < a->n_inner ? k + CHUNK : SUM_COLUMNS * stride;
    double w[LANES][CHUNK];
    if (n_columns < LANES) memset(w, 0, sizeof w);
    for (int64_t c = 0; c < n_columns; c++) {
        view_row(w[c], &a->w, first + c * stride + k, n);
        read_ahead(&a->w, first + c * stride + next);
    }
    for (int64_t i = 0; i < n; i += LANES) {
        const lanes w0 = lanes_at(w[0] + i), w1 = lanes_at(w[1] + i), w2 = lanes_at(w[2] + i),
                    w3 = lanes_at(w[3] + i);
        const lanes even01 = __builtin_shufflevector(w0, w1, 0, 4, 2, 6),
                    odd01 = __builtin_shufflevector(w0, w1, 1, 5, 3, 7),
                    even23 = __builtin_shufflevector(w2, w3, 0, 4, 2, 6),
                    odd23 = __builtin_shufflevector(w2, w3, 1, 5, 3, 7);
        panel[i][v] = __builtin_shufflevector(even01, even23, 0, 1, 4, 5);
        panel[i + 1][v] = __builtin_shufflevector(odd01, odd23, 0, 1, 4, 5);
        panel[i + 2][v] = __builtin_shufflevector(even01, even23, 2, 3, 6, 7);
        panel[i + 3][v] = __builtin_shufflevector(odd01, odd23, 2, 3, 6, 7);
    }
}

/* Goes on over n terms of `vectors` vectors of columns; x: the row's inputs, in a tile. */
static inline __attribute__((always_inline)) void row_steps(struct row_sums *sums, int first,
                                                            const int vectors, lanes (*w)[VECTORS],
                                                            const double *x, int64_t n, const int want) {
    lanes y[VECTORS], low[VECTORS], high[VECTORS], s1[VECTORS];
    for (int v = 0; v < vectors; v++) {
        y[v] = sums->y[first + v], s1[v] = sums->s1[first + v];
        low[v] = sums->low[first + v], high[v] = sums->high[first + v];
    }
    for (int64_t k = 0; k < n; k++) {
        const lanes row = lanes_all(x[k * LANES]);
        for (int v = 0; v < vectors; v++) {
            const lanes term = w[k][first + v] * row;
            y[v] += term;
            if (want & WANT_SPAN) low[v] = lanes_min(y[v], low[v]), high[v] = lanes_max(y[v], high[v]);
            if (want & WANT_SIZE) s1[v] += lanes_abs(term);
        }
    }
    for (int v = 0; v < vectors; v++) {
        sums->y[first + v] = y[v], sums->s1[first + v] = s1[v];
        sums->low[first + v] = low[v], sums->high[first + v] = high[v];
    }
}

static void row_continue(struct row_sums *sums, lanes (*w)[VECTORS], const double *x, int64_t n, int want) {
    if (want)
        for (int v = 0; v < VECTORS; v += 2) /* as many sums as there are registers */
            row_steps(sums, v, 2, w, x, n, WANT_SPAN | WANT_SIZE);
    else
        row_steps(sums, 0, VECTORS, w, x, n, 0);
}

struct linear_sums linear_add_up(const struct linear_adder *adder, const struct linear_run *r,
                                 const struct linear_args *a, int64_t column, int n_columns, int64_t slice,
                                 int want) {
    const int64_t w = r->rows.group * a->w.stride[0] + column * a->w.stride[1];
    lanes panel[CHUNK][VECTORS];
    struct row_sums *const sums = adder->sums;
    memset(sums, 0, (size_t)r->rows.n * sizeof *sums);
    for (int64_t first = 0; first < a->n_inner; first += slice) {
        const int64_t end = min_i64(first + slice, a->n_inner);
        for (int64_t row = 0; row < r->rows.n; row++) {
            memcpy(sums[row].low, sums[row].y, sizeof sums[row].low);
            memcpy(sums[row].high, sums[row].y, sizeof sums[row].high);
        }
        for (int64_t k = first; k < end; k += CHUNK) {
            const int64_t n = min_i64(CHUNK, end - k);
            for (int v = 0; v < VECTORS; v++)
                turn_columns(panel, v, a, w + v * LANES * a->w.stride[1],
                             min_i64(LANES, n_columns - v * LANES), k, n);
            for (int64_t row = 0; row < r->rows.n; row++)
                row_continue(&sums[row], panel,
                             (const double *)(r->x + row / LANES * a->n_inner + k) + row % LANES, n, want);
        }
        for (int64_t row = 0; row < r->rows.n; row++)
            for (int v = 0; v < VECTORS; v++) sums[row].span[v] += sums[row].high[v] - sums[row].low[v];
    }
    return (struct linear_sums){(const double *)sums->y, (const double *)sums->span, (const double *)sums->s1,
                                sizeof *sums / sizeof(double)};
}
