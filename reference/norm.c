/* norm - RMSNorm of rows (norm) and of the heads of q and k (qk_norm): y = x w / sqrt(mean(x^2) +
 * eps). Zhang & Sennrich 2019, eq. 4. The sum of squares has no cancellation, so all errors are
 * relative to y. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>

struct norm_row {
    int64_t n;
    double eps;
    const struct norm_contract *contract;
    double flushed;  /* of one operation */
    const double *w; /* [n] */
    double *r;       /* [n] radii of the row at hand; NULL: exact */
};

/* E / |y|: the mean is off by (depth + 2) u (its sum, the division, + eps), its square root by half of that;
 * then rsqrt, x*r, *w. An input rounded first counts once in x and once in the mean. */
static double relative_error(const struct norm_row *row) {
    const struct norm_contract *c = row->contract;
    const double mean = (double)((c->depth ? c->depth : row->n) + 2) * c->unit;
    const double own = (double)(row->n + 16) * UNIT_F64;
    return mean / (1 - mean) / 2 + c->rsqrt_error + 4 * c->unit + 2 * c->input_unit + own;
}

/* x' = x + d, |d_i| <= r_i. R = sqrt(mean x^2 + eps) is a norm of (x, sqrt(n eps)) / sqrt(n), so it moves by at most
 * rho = sqrt(mean r^2), and |x'/R' - x/R| <= (|d| + |x| rho / R) / (R - rho). */
static double moved_by(const struct norm_row *row, const double *x, double root, double rho, int64_t i) {
    return root > rho ? (row->r[i] + fabs(x[i]) * rho / root) / (root - rho) : INFINITY;
}

static double radius_of_root(const struct norm_row *row) {
    double square = 0;
    for (int64_t i = 0; i < row->n; i++) square += row->r[i] * row->r[i];
    return sqrt(square / (double)row->n);
}

/* What the errors of a row are made of: relative to y, and absolute ones where numbers end. */
struct norm_errors {
    double relative, tiny;
};

/* y = z w, z = x / R known to within `moved`; nothing is rounded on the way. */
static struct fuzzy weighed(struct norm_errors e, double x, double y, double w, double moved) {
    const double far = fabs(w) * moved, size = fabs(y) + far;
    return (struct fuzzy){y, size != 0 ? e.relative * size + e.tiny * (1 + fabs(x) + fabs(w)) + far : size};
}

/* z is rounded to the contract's mid, then multiplied: E is what is left of the doubt in z, times |w|. */
static struct fuzzy weighed_mid(const struct norm_row *row, struct norm_errors e, double x, double z,
                                double w, double moved) {
    const double size = fabs(z) + moved;
    const double off = size != 0 ? e.relative * size + e.tiny * (1 + fabs(x)) + moved : size;
    struct fuzzy y =
        product(image((struct fuzzy){z, off}, row->contract->mid), known(w), row->contract->unit);
    if (y.value != 0) y.radius += row->flushed;
    return y;
}

static void norm_one(const struct norm_row *row, const double *x, const struct ref_out *out, int64_t at) {
    double sum = 0;
    for (int64_t i = 0; i < row->n; i++) sum += x[i] * x[i];
    const double root = sqrt(sum / (double)row->n + row->eps), r = 1 / root;
    const double rho = row->r ? radius_of_root(row) : 0, unit = row->contract->unit;
    const struct norm_errors errors = {relative_error(row) +
                                           flush_unit(unit) / (root * root), /* squares that vanish */
                                       underflow_unit(unit) + row->flushed};
    for (int64_t i = 0; i < row->n; i++) {
        const double w = row->w[i], moved = row->r ? moved_by(row, x, root, rho, i) : 0;
        const struct fuzzy y = row->contract->mid != DTYPE_F64
                                   ? weighed_mid(row, errors, x[i], x[i] * r, w, moved)
                                   : weighed(errors, x[i], x[i] * r * w, w, moved);
        put(out, at + i, y.value, y.radius, fabs(y.value));
    }
}

void ref_norm(const struct call *call, const struct contract *contract, const double *const *radius,
              int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct norm_args *a = &call->u.norm;
    double *w = ref_alloc((size_t)a->width * sizeof *w);
    view_row(w, &a->w, 0, a->width);
#pragma omp parallel
    {
        double *x = ref_alloc((size_t)a->width * 2 * sizeof *x), *r = x + a->width;
        const struct norm_row row = {
            a->width, a->eps, &contract->u.norm, flushed(contract, 1), w, has_radius(radius, 0) ? r : NULL};
#pragma omp for
        for (int64_t t = row0; t < row1; t++) {
            view_row(x, &a->x, t * a->x.stride[0], a->width);
            radius_row(r, radius, 0, &a->x, t * a->x.stride[0], a->width);
            norm_one(&row, x, out, (t - row0) * a->width);
        }
        free(x);
    }
    free(w);
}

/* Operand i, q or k. */
static void norm_heads(const struct norm_row *row, const struct view *in, const double *const *radius, int i,
                       int64_t n_heads, int64_t row0, int64_t row1, const struct ref_out *out) {
    double *x = ref_alloc((size_t)row->n * sizeof *x);
    for (int64_t t = row0; t < row1; t++)
        for (int64_t h = 0; h < n_heads; h++) {
            view_row(x, in, t * in->stride[0] + h * in->stride[1], row->n);
            if (row->r) radius_row(row->r, radius, i, in, t * in->stride[0] + h * in->stride[1], row->n);
            norm_one(row, x, out, ((t - row0) * n_heads + h) * row->n);
        }
    free(x);
}

void ref_qk_norm(const struct call *call, const struct contract *contract, const double *const *radius,
                 int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct qk_norm_args *a = &call->u.qk_norm;
    double *w = ref_alloc((size_t)a->head_dim * 2 * sizeof *w), *r = w + a->head_dim;
    const struct norm_row row = {a->head_dim,          a->eps, &contract->u.norm,
                                 flushed(contract, 1), w,      radius ? r : NULL};
    view_row(w, &a->w_q, 0, a->head_dim);
    norm_heads(&row, &a->q, radius, 0, a->n_heads, row0, row1, &out[0]);
    view_row(w, &a->w_k, 0, a->head_dim);
    norm_heads(&row, &a->k, radius, 1, a->n_kv_heads, row0, row1, &out[1]);
    free(w);
}
