/* In which order did a product sum? */
/* SPDX-License-Identifier: MIT */
#include "reference/order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "reference/internal.h"
#include "reference/replay.h"

/* ---- the orders ---- */

static const struct {
    const char *name;
    int block, fraction;
} steps[] = {{"fp32 FMA chain", 1, 0},
             {"tensor core, 16 a step, 25 bits (sm_90)", 16, 25},
             {"tensor core, 8 a step, 24 bits (sm_80)", 8, 24},
             {"tensor core, 16 a step, 24 bits", 16, 24},
             {"tensor core, 4 a step, 23 bits (sm_70)", 4, 23}};
/* K in so many slices of whole `unit` terms. */
static const int splits[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 32}, units[] = {16, 64};
enum { N_STEPS = sizeof steps / sizeof *steps, N_SPLITS = sizeof splits / sizeof *splits, N_UNITS = 2 };

enum { N_ORDERS = N_STEPS * N_SPLITS * N_UNITS };

/* False: n_inner terms cannot be cut so. */
static bool order_at(int number, int64_t n_inner, struct order *out) {
    const int step = number / (N_SPLITS * N_UNITS), split = splits[number / N_UNITS % N_SPLITS];
    const int unit = units[number % N_UNITS];
    const int64_t each = (n_inner + split - 1) / split, slice = (each + unit - 1) / unit * unit;
    if (split > 1 && (slice >= n_inner || (n_inner + slice - 1) / slice != split)) return false;
    if (split == 1 && unit != units[0]) return false;
    out->contract = contract_exact(OP_LINEAR);
    struct accumulator *const acc = &out->contract.u.linear.acc;
    acc->in_order = true;
    acc->block = steps[step].block, acc->fraction = steps[step].fraction, acc->keep = 24;
    acc->splits = split, acc->slice = split > 1 ? slice : 0;
    if (split > 1)
        snprintf(out->name, sizeof out->name, "%d slices of %lld, %s", split, (long long)slice,
                 steps[step].name);
    else
        snprintf(out->name, sizeof out->name, "%s", steps[step].name);
    return true;
}

/* ---- the sample ---- */

enum { TILE_ROWS = 64, TILE_COLS = 128, PIECE_ROWS = LANES, PIECE_COLS = 8 };
enum {
    PIECE = PIECE_ROWS * PIECE_COLS,
    MOST_TOLD = 4 * ORDER_TELLING,
    MOST_PIECES = ORDER_TILES + MOST_TOLD
};

struct sample {
    const struct call *call;
    const struct contract *declared;
    int64_t telling; /* elements, of all pieces */
    int n;
    struct {
        int64_t row, col;
    } piece[MOST_PIECES];
};

static struct view shifted(struct view v, int64_t elements) {
    if (v.data) v.data = (char *)v.data + elements * (int64_t)dtype_bytes(v.dtype);
    v.lo -= elements, v.hi -= elements;
    return v;
}

/* The product of a piece alone. */
static struct call piece_of(const struct sample *s, int i) {
    struct call call = *s->call;
    struct linear_args *const a = &call.u.linear;
    const int64_t row = s->piece[i].row, col = s->piece[i].col;
    a->n_rows = min_i64(PIECE_ROWS, a->n_rows - row);
    a->n_cols = min_i64(PIECE_COLS, a->n_cols - col);
    a->x = shifted(a->x, row * a->x.stride[0]);
    a->w = shifted(a->w, col * a->w.stride[1]);
    a->out = shifted(a->out, row * a->out.stride[0] + col * a->out.stride[1]);
    if (a->bias.data) a->bias = shifted(a->bias, col * a->bias.stride[0]);
    return call;
}

static int64_t piece_size(const struct call *piece) {
    return piece->u.linear.n_rows * piece->u.linear.n_cols;
}

static bool has_bits(const struct linear_args *a, int64_t row, int64_t col, double y) {
    const double stored = view_at(&a->out, row * a->out.stride[0] + col * a->out.stride[1]);
    return stored == dtype_round(a->out.dtype, y);
}

/* Elements that have the bits of y [rows][cols]; where e is infinite y says nothing. */
static int64_t same_bits(const struct linear_args *a, const double *y, const double *e) {
    int64_t same = 0;
    for (int64_t i = 0; i < a->n_rows * a->n_cols; i++)
        same += !(e && isinf(e[i])) && has_bits(a, i / a->n_cols, i % a->n_cols, y[i]);
    return same;
}

/* Piece i of n along an axis of `size`: the first and the last `width` elements, the others evenly. */
static int64_t spread(int64_t i, int64_t n, int64_t size, int64_t width) {
    return n > 1 && size > width ? i * (size - width) / (n - 1) : 0;
}

/* All of it is replayed for an order that gives its bits: the longer the sums, the fewer. */
static int64_t most_tiles(const struct linear_args *a) {
    const int64_t affordable = (INT64_C(1) << 25) / (PIECE * max_i64(a->n_inner, 1));
    return max_i64(16, min_i64(affordable, ORDER_TILES));
}

static void take_tiles(struct sample *s) {
    const struct linear_args *const a = &s->call->u.linear;
    int64_t rows = 1 + (a->n_rows + TILE_ROWS - 1) / TILE_ROWS;
    int64_t cols = 1 + (a->n_cols + TILE_COLS - 1) / TILE_COLS;
    while (rows * cols > most_tiles(a)) *(rows > cols ? &rows : &cols) -= 1;
    s->n = (int)(rows * cols);
    for (int i = 0; i < s->n; i++) {
        s->piece[i].row = spread(i / cols, rows, a->n_rows, PIECE_ROWS);
        s->piece[i].col = spread(i % cols, cols, a->n_cols, PIECE_COLS);
    }
}

static void count_telling(struct sample *s) {
    int64_t telling = 0;
#pragma omp parallel for reduction(+ : telling)
    for (int i = 0; i < s->n; i++) {
        const struct call piece = piece_of(s, i);
        double y[PIECE];
        struct ref_out out[MAX_REF_OUT] = {{y, NULL, NULL}};
        ref_compute(&piece, s->declared, NULL, 0, piece.u.linear.n_rows, out);
        telling += piece_size(&piece) - same_bits(&piece.u.linear, y, NULL);
    }
    s->telling = telling;
}

/* The pieces around telling elements, which are rare where a sum is stored in few bits. */
static void take_telling(struct sample *s, int64_t row, const double *y) {
    const struct linear_args *const a = &s->call->u.linear;
    const int64_t end = min_i64(PIECE_ROWS, a->n_rows - row);
    for (int64_t col = 0; col < a->n_cols && s->n < MOST_PIECES; col += PIECE_COLS) {
        int64_t telling = 0;
        for (int64_t r = 0; r < end; r++)
            for (int64_t c = col; c < min_i64(col + PIECE_COLS, a->n_cols); c++)
                telling += !has_bits(a, row + r, c, y[r * a->n_cols + c]);
        if (!telling) continue;
        s->piece[s->n].row = row, s->piece[s->n++].col = col;
        s->telling += telling;
    }
}

static void search_telling(struct sample *s) {
    enum { MOST_ELEMENTS = 1 << 17 };
    const struct linear_args *const a = &s->call->u.linear;
    const int64_t n =
        min_i64((a->n_rows + PIECE_ROWS - 1) / PIECE_ROWS, 1 + MOST_ELEMENTS / (PIECE_ROWS * a->n_cols));
    double *const y = ref_alloc((size_t)(PIECE_ROWS * a->n_cols) * sizeof *y);
    struct ref_out out[MAX_REF_OUT] = {{y, NULL, NULL}};
    for (int64_t i = 0; i < n && s->telling < MOST_TOLD; i++) {
        const int64_t row = spread(i, n, a->n_rows, PIECE_ROWS);
        ref_compute(s->call, s->declared, NULL, row, min_i64(row + PIECE_ROWS, a->n_rows), out);
        take_telling(s, row, y);
    }
    free(y);
}

/* ---- the search ---- */

static bool has_order(const struct sample *s, int i, const struct contract *c) {
    const struct call piece = piece_of(s, i);
    double y[PIECE], e[PIECE];
    ref_replay(&piece, c, 0, piece.u.linear.n_rows, 1, y, e);
    return same_bits(&piece.u.linear, y, e) == piece_size(&piece);
}

/* Telling pieces stand last: a few of them refuse most orders. */
static int rest_of(const struct sample *s) {
    enum { FEW = 8 };
    return s->n > FEW ? s->n - FEW : 0;
}

static bool last_have_order(const struct sample *s, const struct contract *c) {
    bool all = true;
    for (int i = s->n - 1; i >= rest_of(s) && all; i--) all = has_order(s, i, c);
    return all;
}

static bool rest_have_order(const struct sample *s, const struct contract *c) {
    bool all = true;
#pragma omp parallel for reduction(&& : all) schedule(dynamic)
    for (int i = 0; i < rest_of(s); i++) all = all && has_order(s, i, c);
    return all;
}

/* Which orders give the bits of the last pieces? A thread each: a team for one piece costs more than
 * the piece. */
static void try_orders(const struct sample *s, bool has[N_ORDERS]) {
    const int64_t n_inner = s->call->u.linear.n_inner;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < N_ORDERS; i++) {
        struct order o;
        has[i] =
            order_at(i, n_inner, &o) && ref_replays(s->call, &o.contract) && last_have_order(s, &o.contract);
    }
}

static bool wider(const struct order *a, const struct order *b, int64_t n) {
    return accumulator_factor(&a->contract.u.linear.acc, n) >
           accumulator_factor(&b->contract.u.linear.acc, n);
}

void order_find(const struct call *call, const struct contract *declared, struct order_found *out) {
    const int64_t n_inner = call->u.linear.n_inner;
    struct sample s = {.call = call, .declared = declared};
    struct order o;
    bool has[N_ORDERS];
    *out = (struct order_found){0};
    take_tiles(&s);
    count_telling(&s);
    if (s.telling < ORDER_TELLING) search_telling(&s);
    out->telling = s.telling;
    for (int i = 0; i < s.n; i++) {
        const struct call piece = piece_of(&s, i);
        out->sampled += piece_size(&piece);
    }
    if (s.telling < ORDER_TELLING) return;
    try_orders(&s, has);
    for (int i = 0; i < N_ORDERS; i++) {
        if (!has[i] || !order_at(i, n_inner, &o) || !rest_have_order(&s, &o.contract)) continue;
        if (!out->found || wider(&o, &out->order, n_inner)) out->order = o;
        out->found = true;
    }
}
