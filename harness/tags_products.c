/* What has a product read, each output of which is one column of x? Which part of a sum is missing? */
/* SPDX-License-Identifier: MIT */
#include "fixtures/fill.h"
#include "harness/tags_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static double load(const struct view *v, int64_t i) {
    return i >= v->lo && i < v->hi ? dtype_load(v->data, v->dtype, i) : (double)NAN;
}

/* ---- products: under fill=tags every row of weights has one 1, and zeros ---- */

enum { COLUMNS = 16 }; /* outputs of a row that are looked at, from a wrong one on */

/* out[r, n] = factor * x[r, the column with the 1 of w[group of r, n]] */
struct product {
    struct reading *r;
    const struct view *x, *w, *offsets; /* [rows, K], [groups, N, K], [groups + 1] */
    int64_t n_rows, n_cols, n_inner, n_groups;
    int64_t group_stride, first, col_stride; /* of w, elements */
    double factor;
    int64_t row, col, n, group; /* the wrong outputs: n of this row from this one on */
    int64_t column[COLUMNS];    /* that they should read; -1: none of this rank's */
    const double *got;          /* [n] */
};

static bool product_of(const struct call *call, struct product *p) {
    const struct linear_args *const l = &call->u.linear;
    const struct gated_linear_args *const g = &call->u.gated_linear;
    if (call->op == OP_LINEAR)
        *p = (struct product){.x = &l->x,
                              .w = &l->w,
                              .offsets = &l->offsets,
                              .n_rows = l->n_rows,
                              .n_cols = l->n_cols,
                              .n_inner = l->n_inner,
                              .n_groups = l->n_groups,
                              .group_stride = l->w.stride[0],
                              .col_stride = l->w.stride[1],
                              .factor = 1};
    else
        *p = (struct product){.x = &g->x,
                              .w = &g->w,
                              .offsets = &g->offsets,
                              .n_rows = g->n_rows,
                              .n_cols = g->width,
                              .n_inner = g->n_inner,
                              .n_groups = g->n_groups,
                              .group_stride = g->w.stride[0],
                              .first = g->w.stride[1],
                              .col_stride = g->w.stride[2],
                              .factor = TAG_GATE};
    return p->n_inner >= ORIGIN_FEWEST;
}

/* The column that output n reads with the weights of a group; -1: none. */
static int64_t column_of(const struct product *p, int64_t group, int64_t n) {
    const int64_t at = group * p->group_stride + p->first + n * p->col_stride;
    int64_t k = p->n_inner - 1;
    while (k >= 0 && load(p->w, at + k) != 1) k--;
    return k;
}

static int64_t group_of(const struct product *p, int64_t row) {
    int64_t g = 0;
    while (p->offsets->data && g + 1 < p->n_groups && load(p->offsets, g + 1) <= (double)row) g++;
    return g;
}

/* Would these columns of this row of x give most of what was stored? Where a row of w is read from
 * elsewhere than its beginning, some outputs have columns of two rows. */
static bool gives(const struct product *p, int64_t row, const int64_t *column, int64_t by) {
    int hits = 0, misses = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const int64_t k = column[i] + by;
        const bool inside = column[i] >= 0 && k >= 0 && k < p->n_inner;
        const double x = inside ? load(p->x, row * p->x->stride[0] + k) : 0;
        const bool hit = origin_near(p->got[i], p->factor * x);
        hits += hit && x != 0;
        misses += !hit;
    }
    return hits >= ORIGIN_FEWEST && hits > 2 * misses;
}

/* ---- its places in words ---- */

static const struct stage_row *stage_of(const struct product *p) { return placed_row(p->r->at); }

static void name_row(const struct product *p, int64_t row, char *text, size_t size) {
    const struct origin of = {stage_of(p)->in[0], p->r->at->rank, row * p->n_inner};
    origin_name_row(p->r->at, &of, text, size);
}

/* The rank's column k of x in the whole x. */
static long long whole_column(const struct product *p, int64_t k) {
    const enum tensor_id id = stage_of(p)->in[0];
    const struct place place = slice_place(&p->r->at->crew->plan, id, p->r->at->rank, k);
    int64_t shape[MAX_AXES], column = 0;
    slice_shape(&p->r->at->crew->plan, id, -1, shape);
    for (int i = 1; i < place.n; i++) column = column * shape[i] + place.index[i];
    return (long long)column;
}

static int64_t whole_columns(const struct product *p) {
    int64_t shape[MAX_AXES], n = 1;
    for (int i = slice_shape(&p->r->at->crew->plan, stage_of(p)->in[0], -1, shape); i-- > 1;) n *= shape[i];
    return n;
}

static long long expert(const struct product *p, int64_t group) {
    return (long long)(p->r->at->crew->plan.rank[p->r->at->rank][AXIS_E].first + group);
}

/* ---- guesses, one after another ---- */

static bool another_column(const struct product *p) {
    for (int64_t by = 1 - p->n_inner; by < p->n_inner; by++) {
        int64_t i = 0;
        if (!by || !gives(p, p->row, p->column, by)) continue;
        while (p->column[i] < 0) i++;
        snprintf(p->r->text, p->r->size, "column %lld for column %lld (%+lld)",
                 whole_column(p, p->column[i] + by), whole_column(p, p->column[i]), (long long)by);
        return true;
    }
    return false;
}

static bool another_row(const struct product *p) {
    char has[80], should[80];
    for (int64_t row = 0; row < p->n_rows; row++) {
        if (row == p->row || !gives(p, row, p->column, 0)) continue;
        name_row(p, row, has, sizeof has);
        name_row(p, p->row, should, sizeof should);
        snprintf(p->r->text, p->r->size, "%s for %s", has, should);
        return true;
    }
    return false;
}

static bool another_expert(const struct product *p) {
    int64_t column[COLUMNS];
    char row[80];
    for (int64_t g = 0; g < p->n_groups; g++) {
        for (int64_t i = 0; i < p->n; i++) column[i] = column_of(p, g, p->col + i);
        if (g == p->group || !gives(p, p->row, column, 0)) continue;
        name_row(p, p->row, row, sizeof row);
        snprintf(p->r->text, p->r->size, "weights of expert %lld for those of expert %lld, in %s",
                 expert(p, g), expert(p, p->group), row);
        return true;
    }
    return false;
}

/* Where `column` stands among the columns that all rows of the whole w read; those of one expert
 * where there are several. -1: nowhere. */
static int64_t find_columns(const struct product *p, const int64_t *all, int64_t n_all,
                            const int64_t *column) {
    int64_t at = 0, i = 0;
    for (; at + p->n <= n_all && i < p->n; at++)
        for (i = 0; i < p->n && all[at + i] == column[i];) i++;
    return i == p->n ? at - 1 : -1;
}

static bool another_output(const struct product *p) {
    const enum tensor_id id = stage_of(p)->in[1];
    const struct stored *const w = &p->r->at->crew->whole->of[id];
    const struct view all = {.data = w->memory.data, .dtype = w->dtype, .hi = w->count};
    const int64_t experts = p->offsets->data ? p->r->at->crew->spec.n_experts : 1;
    const int64_t n = w->count / p->n_inner / experts, first = p->offsets->data ? expert(p, p->group) * n : 0;
    struct product whole = *p;
    if (w->count != n * p->n_inner * experts || whole_columns(p) != p->n_inner) return false;
    whole.w = &all, whole.first = first * p->n_inner, whole.col_stride = p->n_inner;
    int64_t *const column = memory_zeroed((size_t)n, sizeof *column);
    for (int64_t i = 0; i < n; i++) column[i] = column_of(&whole, 0, i);
    int64_t read = 0;
    const int64_t want = find_columns(p, column, n, p->column);
    while (read + p->n <= n && (read == want || !gives(p, p->row, column + read, 0))) read++;
    if (want >= 0 && read + p->n <= n) {
        const struct origin of[2] = {{id, -1, (first + read) * p->n_inner},
                                     {id, -1, (first + want) * p->n_inner}};
        const int used = snprintf(p->r->text, p->r->size, "weights of ");
        origin_tell(p->r->at, &of[0], &of[1], p->r->text + used, p->r->size - (size_t)used);
    }
    free(column);
    return p->r->text[0];
}

static bool no_place(const struct product *p) {
    const double got = p->got[0], y = p->r->y[p->row * p->n_cols + p->col];
    const char *const what = reading_is_poison(p->r, got) ? "what nobody has written, for"
                             : got == 0                   ? "nothing, for"
                             : got == 2 * y               ? "twice"
                                                          : NULL;
    char row[80];
    if (!what || p->column[0] < 0) return false;
    name_row(p, p->row, row, sizeof row);
    snprintf(p->r->text, p->r->size, "%s column %lld of %s", what, whole_column(p, p->column[0]), row);
    return true;
}

void read_product(struct reading *r) {
    static bool (*const guesses[])(const struct product *p) = {another_column, another_row, another_expert,
                                                               another_output, no_place};
    struct product p;
    int64_t at = 0;
    if (!product_of(&r->outcome->call, &p)) return;
    while (at < r->count && (reading_same(r, at) || r->y[at] == 0)) at++;
    if (at == r->count) return;
    p.r = r;
    p.row = at / p.n_cols, p.col = at % p.n_cols;
    p.n = p.n_cols - p.col < COLUMNS ? p.n_cols - p.col : COLUMNS;
    p.group = group_of(&p, p.row);
    p.got = r->got + at;
    for (int64_t i = 0; i < p.n; i++) p.column[i] = column_of(&p, p.group, p.col + i);
    for (size_t i = 0; i < sizeof guesses / sizeof *guesses && !guesses[i](&p); i++) continue;
}

/* ---- sums: what every rank brings differs ---- */

void read_sum(struct reading *r) {
    const struct sum_args *const a = &r->outcome->call.u.sum;
    const int64_t per_rank = a->n_parts / r->at->crew->plan.tp;
    int64_t at = 0;
    while (at < r->count && reading_same(r, at)) at++;
    if (at == r->count) return;
    for (int64_t i = 0; i < a->n_parts; i++) {
        const struct view *const part = &a->part[i];
        const double brought = load(part, at / a->width * part->stride[0] + at % a->width);
        const char *const name = tensor_table[placed_row(r->at)->in[i % per_rank]].name;
        const double less = r->y[at] - r->got[at];
        if (brought == 0 || !(less == brought || less == -brought)) continue;
        snprintf(r->text, r->size, "rank %lld's %s %s", (long long)(i / per_rank), name,
                 less == brought ? "not at all" : "twice");
        return;
    }
}
