/* How large can the rounding errors of all sums of a linear be together, if the signs of its
 * weights are independent coin flips? A theorem about the fill: for any order of summation that
 * does not look at the data, and for additions that round or truncate.
 *
 * A node of the summation trees is, in the sum of row r and column n, sum over k in S of x_rk w_nk.
 * The square sum of one node over rows and columns is a quadratic form in the signs of w; its trace
 * is at most tr = sum_rnk (x_rk w_nk)^2, its norm at most that of one column, lambda = max_n sum_rk
 * (x_rk w_nk)^2, because columns share no sign. Hsu, Kakade & Zhang 2012: it exceeds
 *   phi^2 tr,  phi^2 = 1 + 2 sqrt(z) + 2 z,  z = x lambda / tr
 * with probability e^-x at most. Each node moves its sum by its share of the accumulator's g; over
 * elements the errors weighted with c add up to at most sqrt(sum c^2) times the root of the square
 * sum (Cauchy & Schwarz), whatever c depends on. */
/* SPDX-License-Identifier: MIT */
#include "reference/score_sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_A_GROUP = 4 }; /* with fewer, reading all weights once more costs as much as the sums */

struct traces {
    double all, largest; /* tr, lambda */
    double bias;         /* sum over the elements of bias^2 */
};

/* Adds what the columns of group g make with rows of squares x2[k] = sum_r x_rk^2. */
static void add_columns(struct traces *t, const struct linear_args *a, int64_t g, const double *x2) {
    double all = 0, largest = 0;
    double *const columns = ref_alloc((size_t)a->n_cols * sizeof *columns);
#pragma omp parallel
    {
        double *const w = ref_alloc((size_t)a->n_inner * sizeof *w);
#pragma omp for schedule(static)
        for (int64_t n = 0; n < a->n_cols; n++) {
            lanes sum = {0};
            view_row(w, &a->w, g * a->w.stride[0] + n * a->w.stride[1], a->n_inner);
            int64_t k = 0;
            for (; k + LANES <= a->n_inner; k += LANES)
                sum += lanes_at(w + k) * lanes_at(w + k) * lanes_at(x2 + k);
            for (; k < a->n_inner; k++) sum[0] += w[k] * w[k] * x2[k];
            columns[n] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        }
        free(w);
    }
    for (int64_t n = 0; n < a->n_cols; n++) {
        all += columns[n];
        if (!(columns[n] <= largest)) largest = columns[n];
    }
    t->all += all;
    if (!(largest <= t->largest)) t->largest = largest;
    free(columns);
}

static struct traces find_traces(const struct linear_args *a, const bool *picked) {
    struct traces t = {0};
    double *const x2 = ref_alloc((size_t)a->n_inner * 2 * sizeof *x2), *const row = x2 + a->n_inner;
    double bias = 0;
    for (int64_t n = 0; a->bias.data && n < a->n_cols; n++)
        bias += view_at(&a->bias, n) * view_at(&a->bias, n);
    for (int64_t g = 0, next = 0; g < a->n_groups; g++) {
        const int64_t end = a->offsets.data ? min_i64(view_index(&a->offsets, g + 1), a->n_rows) : a->n_rows;
        int64_t rows = 0;
        memset(x2, 0, (size_t)a->n_inner * sizeof *x2);
        for (; next < end; next++) {
            if (!picked[next]) continue;
            view_row(row, &a->x, next * a->x.stride[0], a->n_inner);
            for (int64_t k = 0; k < a->n_inner; k++) x2[k] += row[k] * row[k];
            rows++;
        }
        if (!rows) continue;
        t.bias += bias * (double)rows;
        add_columns(&t, a, g, x2);
    }
    free(x2);
    return t;
}

double score_linear_node(const struct score_case *c, const bool *picked) {
    const struct linear_args *const a = &c->call->u.linear;
    const struct linear_contract *const by = &c->contract->u.linear;
    const struct accumulator *const acc = &by->acc;
    const int64_t terms = a->n_inner + (a->bias.data != NULL);
    const double g = accumulator_factor(acc, terms), steps = (double)terms / fmax(acc->block, 1);
    if (!(g < 0.5) || by->input_unit > 0 || acc->product_rounded) return INFINITY;
    if (a->n_rows < ROWS_A_GROUP * a->n_groups) return INFINITY;
    const struct traces t = find_traces(a, picked);
    if (!(t.all > 0) || !isfinite(t.all)) return INFINITY;
    /* One more event a node: fewer than two for each term and split. */
    const double x = score_log_tests() + log(2 * (double)(terms + acc->splits));
    const double z = x * t.largest / t.all, phi_square = 1 + 2 * sqrt(z) + 2 * z;
    /* A tensor core cuts relative to the largest of its products and the old sum; their squares,
     * spread over the steps, are tr once more. Computed nodes carry the errors before them: 1 - g. */
    const double extra = acc->block > 1 ? 1 / steps : 0;
    const double node = sqrt(t.all * (phi_square + extra)) + sqrt(t.bias);
    return g / (1 - g) * node + 4 * (double)terms * UNIT_F64 * sqrt(t.all);
}
