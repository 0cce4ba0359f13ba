/* Is attention off in one direction? Its errors are shared: a score, an exponential or a rounded P
 * belongs to a (row, key) and meets all dims of the value, so that with a_j = c.v_j
 *   B = sum_rows (sum_j w_j h_j |c.(v_j - o)| / D   scores, exponentials: their exact supremum
 *                 + sum_d |c_d| E_acc,d             accumulating P V, private to an element
 *                 + |c.o| (depth + 8) u + 3 u sum_d |c_d o_d|)   denominator, last product
 *   V = sum_(row, j) (u_P (1 + h_max) / D w_j a_j)^2 / 3 + the store's
 * P is rounded to nearest, uniform on its cell, proxy (half cell)^2 / 3. Its mean is measured: the
 * reference's own P under five running maxima. Which key is off? T_j of all keys is one more product
 * with the values; the best candidate is then tested like any direction. */
/* SPDX-License-Identifier: MIT */
#include "reference/score_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct bench bench_make(int64_t most_keys, int64_t D) {
    const size_t n = (size_t)(most_keys + LANES), dims = (size_t)(D + LANES), number = sizeof(double);
    return (struct bench){.keys = keys_make(most_keys, D),
                          .values = ref_alloc(n * dims * number),
                          .square = ref_alloc(n * number),
                          .total = ref_alloc(n * number),
                          .moment = ref_alloc(COLUMNS * n * number),
                          .o = ref_alloc(COLUMNS * dims * number),
                          .accumulated = ref_alloc(COLUMNS * dims * number),
                          .by = ref_alloc(COLUMNS * dims * number),
                          .c = ref_alloc((COLUMNS + 1) * dims * number),
                          .dy = ref_alloc((COLUMNS + 1) * dims * number),
                          .cell = ref_alloc(dims * sizeof(struct score_cell))};
}

void bench_free(struct bench *b) {
    keys_free(&b->keys);
    free(b->values), free(b->square), free(b->total), free(b->moment), free(b->o), free(b->accumulated),
        free(b->by);
    free(b->c), free(b->dy), free(b->cell);
}

static double value_at(const struct attention_keys *s, int64_t j, int64_t d) {
    return s->v[d / LANES * s->n + j][d % LANES];
}

void bench_turn_values(struct bench *b, int64_t D) {
    const struct attention_keys *const s = &b->keys;
    for (int64_t j = 0; j < s->stride; j++) {
        double square = 0, total = 0;
        for (int64_t d = 0; d < D; d++) {
            const double v = j < s->n ? value_at(s, j, d) : 0;
            b->values[j / LANES * D + d][j % LANES] = v;
            square += v * v, total += v;
        }
        b->square[j] = square, b->total[j] = total;
    }
}

/* ---- the outputs of up to COLUMNS heads ---- */

void bench_meet_values(struct bench *b, const struct output_factors *f, int64_t slice, int n_heads, int64_t D,
                       int64_t n) {
    const struct attention_keys *const s = &b->keys;
    for (int h = 0; h < n_heads; h++)
        for (int64_t j = 0; j < n; j++) {
            const double w = s->w[h * s->stride + j];
            b->moment[h * s->stride + j] = w > 0 ? w * log(w) : w;
        }
    for (int64_t tile = 0; tile * LANES < D; tile++) {
        struct dot_sums o[COLUMNS] = {{.y = {0}}}, by[COLUMNS] = {{.y = {0}}};
        lanes spans[COLUMNS] = {{0}};
        dot_in_slices(o, spans, s->w, s->stride, n_heads, s->v + tile * s->n, n, slice,
                      WANT_SPAN | WANT_SIZE);
        dot_continue(by, b->moment, s->stride, n_heads, s->v + tile * s->n, n, 0);
        for (int h = 0; h < n_heads; h++)
            for (int64_t l = 0; l < LANES && tile * LANES + l < D; l++) {
                const int64_t at = h * D + tile * LANES + l;
                b->o[at] = o[h].y[l];
                b->accumulated[at] = f[h].spans * spans[h][l] + f[h].w * (o[h].high[l] - o[h].low[l]) +
                                     f[h].accumulated * o[h].s1[l] + (o[h].s1[l] > 0 ? f[h].tiny : 0);
                b->by[at] = by[h].y[l];
            }
    }
}

/* sum w_j (v_j - o) over some keys. */
static void derive_keys(double *dy, const struct bench *b, int64_t key, int64_t end, int h, int64_t D) {
    const struct attention_keys *const s = &b->keys;
    const double *const o = b->o + h * D, *const w = s->w + h * s->stride;
    for (int64_t d = 0; d < D; d++) {
        dy[d] = 0;
        for (int64_t j = key; j < end; j++) dy[d] += w[j] * (value_at(s, j, d) - o[d]);
    }
}

/* dy of head h into dy[D]. */
static void derive(double *dy, const struct bench *b, const struct pass *pass, int direction, int h,
                   int64_t D, int64_t n) {
    const double *const o = b->o + h * D, *const moments = b->moment + h * b->keys.stride;
    double moment = 0;
    switch (pass->direction[direction]) {
    case SCORE_SCALE:
        for (int64_t j = 0; j < n; j++) moment += moments[j];
        for (int64_t d = 0; d < D; d++) dy[d] = b->by[h * D + d] - moment * o[d];
        break;
    case SCORE_LAST_KEY: derive_keys(dy, b, n - 1, n, h, D); break;
    case SCORE_KEYS: derive_keys(dy, b, pass->key, min_i64(pass->key + pass->n_keys, n), h, D); break;
    case SCORE_OFFSET:
        for (int64_t d = 0; d < D; d++) dy[d] = pass->offset;
        break;
    default: memcpy(dy, o, (size_t)D * sizeof *dy);
    }
}

/* ---- all keys of a row, in all directions ---- */

typedef uint64_t lane_words __attribute__((vector_size(sizeof(lanes))));

/* Positive x to nearest even, `drop` bits of a double less. */
static inline lanes lanes_round(lanes x, int drop) {
    const lane_words bits = (lane_words)x, unit = {1, 1, 1, 1};
    const lane_words rounded = bits + ((unit << (drop - 1)) - 1) + ((bits >> drop) & 1);
    return (lanes)(rounded & ~((unit << drop) - 1));
}

static double lanes_sum(lanes x) { return (x[0] + x[1]) + (x[2] + x[3]); }

struct key_sums {
    lanes away, square, size; /* sum w h |c.(v - o)|, (w c.v)^2, |c.v| */
    lanes mean[SCORE_MAXIMA];
};

/* w_j times the relative rounding of p_j = w_j / max w under each maximum; 0 where p is 1, as in
 * every kernel, or vanishes. */
static inline void round_weights(lanes rounding[SCORE_MAXIMA], lanes w, const double *factor, double top,
                                 int drop) {
    const lane_bits live = (w < lanes_all(top)) & (w > lanes_all(top * 0x1p-100));
    for (int i = 0; i < SCORE_MAXIMA; i++) {
        const lanes p = w * factor[i];
        rounding[i] = (lanes)((lane_bits)((lanes_round(p, drop) - p) * (1 / factor[i])) & live);
    }
}

static inline void meet(struct key_sums *sums, lanes cv, double co, lanes w, lanes wh,
                        const lanes *rounding) {
    sums->away += wh * lanes_abs(cv - co);
    sums->square += w * cv * w * cv;
    sums->size += lanes_abs(cv);
    for (int i = 0; i < SCORE_MAXIMA && rounding; i++) sums->mean[i] += rounding[i] * cv;
}

/* One sweep over the keys: what each direction meets; the scan's column is the last one. */
static void sweep_keys(struct key_sums sums[PRODUCTS + 1], const struct bench *b, const struct pass *pass,
                       const struct row *r, int64_t D, double p_unit, struct task_sums *out) {
    const struct attention_keys *const s = &b->keys;
    const double *const w_row = s->w + r->h * s->stride, *const wh_row = s->r + r->h * s->stride;
    const double golden = 0.6180339887498949 * (double)r->index;
    const int drop = p_unit > 0 ? 53 + ilogb(p_unit) : 0;
    double factor[SCORE_MAXIMA];
    for (int i = 0; i < SCORE_MAXIMA; i++) { /* times l: p = exp(s - m) */
        const double shift = golden + i / 4.0;
        factor[i] = r->head->l * (i < 4 ? exp2(floor(shift) - shift) : 1);
    }
    for (int64_t tile = 0; tile * LANES < r->n; tile++) {
        struct dot_sums met[COLUMNS] = {{.y = {0}}};
        lanes rounding[SCORE_MAXIMA] = {{0}};
        const lanes w = lanes_at(w_row + tile * LANES), wh = lanes_at(wh_row + tile * LANES);
        dot_continue(met, b->c, D, COLUMNS, b->values + tile * D, D, 0);
        if (p_unit > 0) round_weights(rounding, w, factor, 1 / r->head->l, drop);
        for (int d = 0; d < pass->n_products; d++)
            meet(&sums[d], met[d].y, r->co[d], w, wh, p_unit > 0 ? rounding : NULL);
        if (pass->offset > 0) /* its c is the same for all dims */
            meet(&sums[PRODUCTS], b->c[COLUMNS * D] * lanes_at(b->total + tile * LANES), r->co[COLUMNS], w,
                 wh, p_unit > 0 ? rounding : NULL);
        if (!pass->scan) continue;
        for (int64_t l = 0; l < LANES && tile * LANES + l < r->n; l++) {
            const int64_t j = tile * LANES + l;
            const double far = b->square[j] + (1 - 2 * met[0].y[l]) / r->omega; /* |v - o|^2 */
            out->pull[j] += w[l] * (met[COLUMNS - 1].y[l] - r->co[COLUMNS - 1]);
            out->noise[j] += w[l] * w[l] * r->omega * r->omega * r->spread * far;
        }
    }
}

/* ---- one row ---- */

static void scale_row(double *c, const double *dy, double omega, int64_t D) {
    for (int64_t d = 0; d < D; d++) c[d] = omega * dy[d];
}

static double dot(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* About the variance of an element: the store's and P's. */
static double row_spread(const struct bench *b, const struct score_cell *cell, int h, int64_t D, int64_t n,
                         double p_unit) {
    const double *const w = b->keys.w + h * b->keys.stride;
    double store = 0, p = 0;
    for (int64_t d = 0; d < D; d++) store += cell[d].proxy;
    for (int64_t j = 0; j < n && p_unit > 0; j++) p += w[j] * w[j] * b->square[j];
    return (store + p_unit * p_unit / 3 * p) / (double)D + 0x1p-1000;
}

/* Weights that are equal share a rounding; computed in one order, equal scores have equal bits but
 * for the last few. */
static int64_t equal_weights(struct bench *b, int h, int64_t n) {
    double *const w = b->moment + h * b->keys.stride; /* no longer needed */
    for (int64_t j = 0; j < n; j++) {
        uint64_t bits;
        memcpy(&bits, &b->keys.w[h * b->keys.stride + j], sizeof bits);
        bits &= ~UINT64_C(0xfff);
        memcpy(&w[j], &bits, sizeof bits);
    }
    return score_multiplicity(w, n);
}

/* Where the denominator adds the rounded P, its roundings are in h. */
static double rounded_p(const struct attention_contract *by) { return by->p_in_l ? 0 : by->p_unit; }

/* What is not swept: the store, and the errors private to an element or common to the row. */
static void finish_row(struct score_sums *sums, const struct key_sums *met, const double *c, const double *dy,
                       const struct score_cell *cell, const struct bench *b, const struct output_factors *f,
                       const struct row *r, double co, int64_t D, const struct attention_contract *by) {
    const double p_unit = rounded_p(by), moved = (1 + r->head->h_max) / r->head->least * (1.01 + f->o);
    const double *const o = b->o + r->h * D, *const accumulated = b->accumulated + r->h * D;
    double private = 0;
    for (int64_t d = 0; d < D; d++) {
        score_store(sums, c[d], &cell[d]);
        sums->i += c[d] * dy[d];
        private += fabs(c[d]) * ((1.01 + f->o) * accumulated[d] + 3 * by->unit * fabs(o[d]));
    }
    sums->b +=
        f->centred * lanes_sum(met->away) + f->magnitude * lanes_sum(met->size) + private + fabs(co) * f->o;
    sums->v_p += p_unit * p_unit / 3 * moved * moved * lanes_sum(met->square);
    for (int i = 0; i < SCORE_MAXIMA; i++) sums->mean[i] += moved * lanes_sum(met->mean[i]);
}

/* Of direction d: the offset's is behind those that meet the values. */
static int column_of(int d) { return d < PRODUCTS ? d : COLUMNS; }
static bool is_tested(const struct pass *pass, int d) {
    return d < PRODUCTS ? d < pass->n_products : pass->offset > 0;
}

void bench_row(struct row_sums *out, struct bench *b, const struct score_case *c, const struct pass *pass,
               const struct output_factors *f, struct row *r, int64_t at, struct task_sums *task) {
    const int64_t D = c->call->u.attention.head_dim;
    const double p_unit = rounded_p(&c->contract->u.attention);
    const double *const o = b->o + r->h * D;
    const double square = dot(o, o, D);
    struct key_sums met[PRODUCTS + 1] = {{.away = {0}}};
    if (!(square > 0)) return;
    r->omega = 1 / square;
    struct score_cell *const cell = b->cell;
    double *const dy = b->dy;
    memset(b->c, 0, (size_t)((COLUMNS + 1) * D) * sizeof *b->c);
    for (int64_t d = 0; d < D; d++) {
        cell[d] = score_cell(c->dtype, dtype_load(c->stored, c->dtype, at + d), c->y[at + d], c->e[at + d]);
        b->c[(COLUMNS - 1) * D + d] = r->omega * cell[d].moved;
    }
    for (int d = 0; d <= PRODUCTS; d++) {
        if (!is_tested(pass, d)) continue;
        const int64_t column = column_of(d) * D;
        derive(dy + column, b, pass, d, r->h, D, r->n);
        scale_row(b->c + column, dy + column, r->omega, D);
    }
    for (int d = 0; d <= COLUMNS; d++) r->co[d] = dot(b->c + d * D, o, D);
    r->spread = row_spread(b, cell, r->h, D, r->n, p_unit);
    sweep_keys(met, b, pass, r, D, p_unit, task);
    for (int d = 0; d <= PRODUCTS; d++) {
        if (!is_tested(pass, d)) continue;
        const int64_t column = column_of(d) * D;
        finish_row(&out->of[d], &met[d], b->c + column, dy + column, cell, b, f, r, r->co[column_of(d)], D,
                   &c->contract->u.attention);
    }
    out->equal_weights = p_unit > 0 ? equal_weights(b, r->h, r->n) : 1;
}
