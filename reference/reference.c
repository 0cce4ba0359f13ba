/* Which function computes an op, and how large are its outputs? Also how inputs are read (NaN
 * outside a span), and the two ops that are one addition: sum and residual. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- views ---- */

static bool view_owns(const struct view *v, int64_t first, int64_t n) {
    return v->data && first >= v->lo && n <= v->hi - first;
}

double view_at(const struct view *v, int64_t index) {
    return view_owns(v, index, 1) ? dtype_load(v->data, v->dtype, index) : (double)NAN;
}

void view_row(double *dst, const struct view *v, int64_t first, int64_t n) {
    if (view_owns(v, first, n))
        dtype_load_row(dst, v->data, v->dtype, first, n);
    else
        for (int64_t i = 0; i < n; i++) dst[i] = view_at(v, first + i);
}

int64_t view_index(const struct view *v, int64_t index) {
    if (!view_owns(v, index, 1)) return -1;
    return max_i64(((const int32_t *)v->data)[index], -1);
}

void *ref_alloc(size_t bytes) {
    enum { ALIGNMENT = 64 };
    void *p = aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 1) * ALIGNMENT);
    if (!p) {
        fprintf(stderr, "shardcheck: the reference needs %zu more bytes of memory; use fewer tokens\n",
                bytes);
        exit(2);
    }
    return p;
}

/* ---- sum and residual ---- */

/* `running` of internal.h for each of n columns, an array a number: the loops take several columns
 * at once. */
struct row {
    int64_t n;
    double *y, *s1, *moved, *grid;
};

static struct row row_in(double *room, int64_t n) {
    return (struct row){n, room, room + n, room + 2 * n, room + 3 * n};
}

static void row_clear(const struct row *sum) {
    memset(sum->y, 0, (size_t)sum->n * 3 * sizeof(double));
    for (int64_t c = 0; c < sum->n; c++) sum->grid[c] = INFINITY;
}

static void row_add(const struct row *sum, const double *restrict value, const double *restrict radius) {
    double *restrict const y = sum->y, *restrict const s1 = sum->s1, *restrict const moved = sum->moved,
                           *restrict const grid = sum->grid;
    for (int64_t c = 0; c < sum->n; c++) {
        y[c] += value[c], s1[c] += fabs(value[c]), moved[c] += radius[c];
        grid[c] = min_f64(value_grid(value[c]), grid[c]);
    }
}

static void row_end(const struct row *sum, int64_t n, double unit, double *restrict value,
                    double *restrict radius) {
    for (int64_t c = 0; c < sum->n; c++) {
        const struct running one = {sum->y[c], sum->s1[c], sum->moved[c], sum->grid[c]};
        const struct fuzzy end = running_end(&one, n, unit);
        value[c] = end.value, radius[c] = end.radius;
    }
}

/* The last of n - 1 additions is the one into the output format: n - 2 sums of some of the numbers, each at
 * most size (1 + u)^(n - 2), are rounded before. A share of that size. */
static double steps_error(enum dtype step, int64_t n) {
    if (step == DTYPE_F64 || n <= 2) return 0;
    const double u = dtype_unit(step), before = (double)(n - 2);
    return before * u * pow(1 + u, before);
}

/* Parts [i, end) of token t; those of one rank are added up and rounded before they are added to
 * `all`. */
static void add_parts(const struct row *all, const struct row *own, double *part, const struct sum_args *a,
                      const struct sum_contract *c, const double *const *radius, int64_t i, int64_t end,
                      int64_t t) {
    const bool alone = end - i == 1 && c->rank == DTYPE_F64;
    const struct row *const sum = alone ? all : own;
    double *const r = part + a->width;
    if (!alone) row_clear(own);
    for (; i < end; i++) {
        view_row(part, &a->part[i], t * a->part[i].stride[0], a->width);
        radius_row(r, radius, (int)i, &a->part[i], t * a->part[i].stride[0], a->width);
        row_add(sum, part, r);
    }
    if (alone) return;
    row_end(own, end - i, c->unit, part, r);
    image_of(part, r, a->width, c->rank);
    row_add(all, part, r);
}

/* y = sum of the parts, those of a rank added up and rounded first where the contract says so. */
void ref_sum(const struct call *call, const struct contract *contract, const double *const *radius,
             int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct sum_args *a = &call->u.sum;
    const struct sum_contract *c = &contract->u.sum;
    const int64_t each = c->rank != DTYPE_F64 ? max_i64(c->parts_per_rank, 1) : 1;
    const int64_t n_ranks = (a->n_parts + each - 1) / each, width = a->width;
    const double tiny = flushed(contract, (double)(a->n_parts - 1)), steps = steps_error(c->step, n_ranks);
    double *const room = ref_alloc((size_t)width * 10 * sizeof *room), *const part = room + 8 * width;
    const struct row all = row_in(room, width), own = row_in(room + 4 * width, width);
    for (int64_t t = row0; t < row1; t++) {
        row_clear(&all);
        for (int64_t i = 0; i < a->n_parts; i += each)
            add_parts(&all, &own, part, a, c, radius, i, min_i64(i + each, a->n_parts), t);
        row_end(&all, n_ranks, c->unit, part, part + width);
        for (int64_t i = 0; i < width; i++) {
            const double e = part[width + i] + (steps > 0 ? steps * (all.s1[i] + all.moved[i]) : 0);
            put(out, (t - row0) * width + i, part[i], e + (all.s1[i] > 0 ? tiny : 0), all.s1[i]);
        }
    }
    free(room);
}

/* y = x + add. Where the addition rounds straight into the output format, that rounding is the
 * final one and only the reference's own is left: a set of one value. */
void ref_residual(const struct call *call, const struct contract *contract, const double *const *radius,
                  int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct residual_args *a = &call->u.residual;
    const double unit = contract->u.sum.unit;
    const double factor = (unit == dtype_unit(a->out.dtype) ? 0 : unit) + UNIT_F64;
    const double tiny = flushed(contract, 1);
    double *x = ref_alloc((size_t)a->width * 4 * sizeof *x), *add = x + a->width;
    double *rx = add + a->width, *ra = rx + a->width;
    for (int64_t t = row0; t < row1; t++) {
        view_row(x, &a->x, t * a->x.stride[0], a->width);
        view_row(add, &a->add, t * a->add.stride[0], a->width);
        radius_row(rx, radius, 0, &a->x, t * a->x.stride[0], a->width);
        radius_row(ra, radius, 1, &a->add, t * a->add.stride[0], a->width);
        for (int64_t c = 0; c < a->width; c++) {
            const double y = x[c] + add[c], r = rx[c] + ra[c], s1 = fabs(x[c]) + fabs(add[c]);
            const bool exact =
                r == 0 && min_f64(value_grid(x[c]), value_grid(add[c])) >= addition_grid(unit, s1);
            const double e = exact ? 0 : factor * (fabs(y) + r) + r;
            put(out, (t - row0) * a->width + c, y, e + (y != 0 ? tiny : 0), s1);
        }
    }
    free(x);
}

/* ---- the table of ops ---- */

struct extent {
    int64_t rows, size[MAX_REF_OUT]; /* rows of the call, elements of one row of each output */
};

static struct extent norm_extent(const struct call *c) {
    return (struct extent){c->u.norm.n_tokens, {c->u.norm.width}};
}
static struct extent linear_extent(const struct call *c) {
    return (struct extent){c->u.linear.n_rows, {c->u.linear.n_cols}};
}
static struct extent qk_norm_extent(const struct call *c) {
    const struct qk_norm_args *a = &c->u.qk_norm;
    return (struct extent){a->n_tokens, {a->n_heads * a->head_dim, a->n_kv_heads * a->head_dim}};
}
static struct extent split_extent(const struct call *c) {
    const struct split_args *a = &c->u.split;
    const int64_t q = a->n_heads * a->head_dim, kv = a->n_kv_heads * a->head_dim;
    return (struct extent){a->n_tokens, {q, kv, kv}};
}
static struct extent rope_extent(const struct call *c) {
    const struct rope_args *a = &c->u.rope;
    return (struct extent){a->n_tokens, {a->n_heads * a->head_dim, a->n_kv_heads * a->head_dim}};
}
static struct extent kv_write_extent(const struct call *c) {
    const struct kv_write_args *a = &c->u.kv_write;
    return (struct extent){a->n_tokens, {a->n_kv_heads * a->head_dim, a->n_kv_heads * a->head_dim}};
}
static struct extent attention_extent(const struct call *c) {
    return (struct extent){c->u.attention.n_tokens, {c->u.attention.n_heads * c->u.attention.head_dim}};
}
static struct extent route_extent(const struct call *c) {
    return (struct extent){c->u.route.n_tokens, {c->u.route.top_k}};
}
static struct extent permute_extent(const struct call *c) {
    return (struct extent){c->u.permute.n_rows, {c->u.permute.width}};
}
static struct extent activation_extent(const struct call *c) {
    return (struct extent){c->u.activation.n_rows, {c->u.activation.width}};
}
static struct extent gated_linear_extent(const struct call *c) {
    return (struct extent){c->u.gated_linear.n_rows, {c->u.gated_linear.width}};
}
static struct extent combine_extent(const struct call *c) {
    return (struct extent){c->u.combine.n_tokens, {c->u.combine.width}};
}
static struct extent sum_extent(const struct call *c) {
    return (struct extent){c->u.sum.n_tokens, {c->u.sum.width}};
}
static struct extent residual_extent(const struct call *c) {
    return (struct extent){c->u.residual.n_tokens, {c->u.residual.width}};
}

static const struct {
    int n_outputs;
    struct extent (*extent)(const struct call *call);
    ref_op *compute;
    bool serial; /* one thread computes the rows that it is given */
} ops[OP_COUNT] = {
    [OP_NORM] = {1, norm_extent, ref_norm},
    [OP_LINEAR] = {1, linear_extent, ref_linear},
    [OP_SPLIT] = {3, split_extent, ref_split, .serial = true},
    [OP_QK_NORM] = {2, qk_norm_extent, ref_qk_norm, .serial = true},
    [OP_ROPE] = {2, rope_extent, ref_rope, .serial = true},
    [OP_KV_WRITE] = {2, kv_write_extent, ref_kv_write, .serial = true},
    [OP_ATTENTION] = {1, attention_extent, ref_attention},
    [OP_ROUTE] = {1, route_extent, ref_route, .serial = true},
    [OP_PERMUTE] = {1, permute_extent, ref_permute_rows},
    [OP_ACTIVATION] = {1, activation_extent, ref_activation},
    [OP_GATED_LINEAR] = {1, gated_linear_extent, ref_gated_linear},
    [OP_COMBINE] = {1, combine_extent, ref_combine},
    [OP_SUM] = {1, sum_extent, ref_sum, .serial = true},
    [OP_RESIDUAL] = {1, residual_extent, ref_residual, .serial = true},
};

int ref_n_outputs(enum op op) { return ops[op].n_outputs; }
int64_t ref_n_rows(const struct call *call) { return ops[call->op].extent(call).rows; }
int64_t ref_row_size(const struct call *call, int output) { return ops[call->op].extent(call).size[output]; }

/* Rows do not see each other: each thread has some. */
static void compute_rows(const struct call *call, const struct contract *contract,
                         const double *const *radius, int64_t row0, int64_t row1,
                         const struct ref_out out[MAX_REF_OUT]) {
    enum { ROWS = 16 };
#pragma omp parallel for schedule(static) if (row1 - row0 > ROWS)
    for (int64_t row = row0; row < row1; row += ROWS) {
        struct ref_out some[MAX_REF_OUT] = {0};
        for (int i = 0; i < ops[call->op].n_outputs; i++) {
            const int64_t at = (row - row0) * ref_row_size(call, i);
            some[i] = (struct ref_out){out[i].y ? out[i].y + at : NULL, out[i].e ? out[i].e + at : NULL,
                                       out[i].s1 ? out[i].s1 + at : NULL};
        }
        ops[call->op].compute(call, contract, radius, row, min_i64(row + ROWS, row1), some);
    }
}

void ref_compute(const struct call *call, const struct contract *contract, const double *const *radius,
                 int64_t row0, int64_t row1, struct ref_out out[MAX_REF_OUT]) {
    assert(call->op == contract->op && 0 <= row0 && row1 <= ref_n_rows(call));
    if (row0 >= row1) return;
    (ops[call->op].serial ? compute_rows : ops[call->op].compute)(call, contract, radius, row0, row1, out);
}
