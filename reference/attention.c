/* attention - o = sum over visible keys j of w_j v_j, w = softmax(scale q.k), over a paged cache;
 * and its error. Vaswani et al. 2017, eq. 1; any running maximum cancels, so one formula serves
 * plain and online softmax (Milakov & Gimelshein 2018). A query that sees no key gives 0 (it cannot
 * happen with kv_len >= queries).
 *
 * An honest kernel uses weights w_j (1 + eta_j), |eta_j| <= h_j. Normalised again, the exact identity
 *   o' - o = sum w_j eta_j (v_j - o) / (1 + sum w_j eta_j)
 * centres the values on the output, so a common factor of all weights costs nothing. E is the sum
 * of
 *   E_h    sum w h |v - o|            scores and exponentials
 *   E_P    u_P sum w |v|              P rounded before P V
 *   E_split u_split sum w |v|         the outputs of split-KV pieces rounded before they are merged
 *   E_acc  accumulating P V in every slice, rescaling it once per key block; merging the slices
 *   E_l    |o| (depth + 8) u          the denominator, its reciprocal, the last product
 *   E_tiny 2^-126 sum |v|             weights flushed to zero; 2^-25 sum |v| more with P in fp16
 * each over D = sum w exp(-r), the least the perturbed denominator can be. */
/* SPDX-License-Identifier: MIT */
#include "reference/attention_weights.h"

#include <math.h>
#include <stdlib.h>

/* Pass 4 of LANES dims: sum w |v| and sum w h |v - o| of every head. */
static inline __attribute__((always_inline)) void size_steps(struct dot_sums *o, lanes *centred,
                                                             const double *w, const double *wh,
                                                             int64_t stride, const int n_heads,
                                                             const lanes *v, int64_t n) {
    lanes y[COLUMNS], size[COLUMNS], away[COLUMNS];
    for (int h = 0; h < n_heads; h++) y[h] = o[h].y, size[h] = away[h] = lanes_all(0);
    for (int64_t j = 0; j < n; j++) {
        const lanes x = v[j], magnitude = lanes_abs(x);
        for (int h = 0; h < n_heads; h++) {
            size[h] = lanes_fma(lanes_all(w[h * stride + j]), magnitude, size[h]);
            away[h] = lanes_fma(lanes_all(wh[h * stride + j]), lanes_abs(x - y[h]), away[h]);
        }
    }
    for (int h = 0; h < n_heads; h++) o[h].s1 = size[h], centred[h] = away[h];
}

static void value_sizes(struct dot_sums *o, lanes *centred, const double *w, const double *wh, int64_t stride,
                        int n_heads, const lanes *v, int64_t n) {
    if (n_heads == COLUMNS)
        size_steps(o, centred, w, wh, stride, COLUMNS, v, n);
    else
        for (int h = 0; h < n_heads; h++)
            size_steps(o + h, centred + h, w + h * stride, wh + h * stride, stride, 1, v, n);
}

/* What rounds P V: in a slice its chain, a product with every rescaling and with the slice's weight;
 * in the merge one addition a slice, and a product where slices are merged one after the other. Nodes
 * of a slice are at most its own W, those of the merge the W of all; any subset is at most S1. Of g
 * roundings, g / (1 - g) <= g (1 + 2 g). */
struct accumulation {
    double spans, w, s1, tiny;
};

static struct accumulation accumulation(const struct attention_contract *c, int64_t n) {
    const struct attention_path path = attention_path(c, n);
    const struct slopes chain = bound_slopes(&c->pv, path.slice);
    const bool split = path.n_slices > 1, any = c->pv.order == ORDER_ANY;
    const double weights = !split ? 0 : path.slice < n ? 1 : path.n_slices; /* of all slices in one W */
    const double products = (path.rescaled + 1 + weights) * c->unit;
    const double merge = split ? path.n_slices * (path.merged > 1 ? 2 : 1) * c->unit : 0;
    const double inside = chain.w + chain.s1 + products, more = (1 + 2 * inside) * (1 + 2 * merge);
    const double outer = merge * (1 + 2 * merge) + (split ? 4 * (double)n * UNIT_F64 : 0);
    if (inside > 0.5 || merge > 0.5) return (struct accumulation){.tiny = INFINITY};
    return (struct accumulation){.spans = any ? 0 : (chain.w + products) * more,
                                 .w = any ? 0 : outer,
                                 .s1 = any ? (chain.s1 + products) * more + outer : chain.s1 * more,
                                 .tiny = path.n_slices * chain.tiny};
}

struct output_factors output_factors(const struct attention_contract *c, const struct head_sums *h,
                                     int64_t n) {
    const struct accumulation sum = accumulation(c, n);
    const double unit = c->unit, depth = (double)(c->l_depth ? c->l_depth : n);
    const double p = c->p_in_l ? 0 : fmin(c->p_unit * (1 + h->h_max), h->p_off), /* else it is in h */
        piece = c->splits > 1 && c->piece != DTYPE_F64 ? dtype_unit(c->piece) * (1 + h->h_max + p) : 0,
                 moved = h->h_max + p + piece; /* of s1: how far the terms w v moved */
    const double accumulated = (sum.spans + sum.w) * moved + sum.s1 * (1 + moved);
    /* Of a P that is subnormal, unless all others are 0. */
    const double lost = c->p_unit == UNIT_F16 && isinf(h->p_off) ? 0x1p-25 : 0;
    const double rounded_pieces = piece * (1 + sum.spans + sum.s1); /* what they accumulated, too */
    const double denominator = (depth + 8) * unit + (double)(n + 8) * UNIT_F64 +
                               (c->p_in_l ? (double)n * lost / (h->l * h->least) : 0);
    const double divided = (1 + denominator) / h->least;
    return (struct output_factors){
        .centred = (1.01 + denominator) / h->least,
        .spans = sum.spans * divided,
        .w = sum.w * divided,
        .s1 = (p + rounded_pieces + accumulated) * divided,
        .accumulated = accumulated / h->least,
        .o = denominator,
        .magnitude = ((unit > UNIT_F64 ? 0x1p-126 : 0) + lost * (1 + denominator)) / h->least,
        .tiny =
            (sum.tiny + 3 * (double)n * flush_unit(unit) + (piece > 0 ? dtype_tiny(c->piece) : 0)) * divided};
}

static lanes output_error(const struct output_factors *f, const struct dot_sums *o, lanes spans,
                          lanes centred, lanes magnitude) {
    return f->centred * centred + f->spans * spans + f->w * (o->high - o->low) + f->s1 * o->s1 +
           f->o * lanes_abs(o->y) + f->magnitude * magnitude + where_positive(o->s1, f->tiny);
}

/* Passes 3 and 4: o = sum w v with its condition sums, then E. */
static void weighted_values(struct attention_keys *s, const struct attention_contract *c,
                            const struct head_sums *heads, int n_heads, int64_t D, int64_t n,
                            const struct ref_out *out, int64_t at) {
    struct output_factors factors[COLUMNS];
    const int64_t slice = attention_path(c, n).slice;
    for (int h = 0; h < n_heads && out->e && n; h++) factors[h] = output_factors(c, &heads[h], n);
    for (int64_t tile = 0; tile * LANES < D; tile++) {
        const lanes *v = s->v + tile * s->n;
        struct dot_sums o[COLUMNS] = {{.y = {0}}};
        lanes centred[COLUMNS], spans[COLUMNS] = {{0}};
        dot_in_slices(o, spans, s->w, s->stride, n_heads, v, n, slice,
                      out->e    ? WANT_SPAN
                      : out->s1 ? WANT_SIZE
                                : 0);
        if (out->e) value_sizes(o, centred, s->w, s->r, s->stride, n_heads, v, n);
        for (int h = 0; h < n_heads; h++) {
            lanes e = {0};
            if (out->e && n) e = output_error(&factors[h], &o[h], spans[h], centred[h], s->size[tile]);
            for (int64_t l = 0; l < LANES && tile * LANES + l < D; l++)
                put(out, at + h * D + tile * LANES + l, o[h].y[l], e[l], o[h].s1[l]);
        }
    }
}

/* Values off by radii, rho = sum w r_v of an element. Weights are at most w (1 + h) / D; whatever is linear in |v| grows
 * with it: S1 by rho, W and the sum of the slices' W by 2 rho, the centred sum by 2 h_max rho. */
static void add_value_radii(const struct output_factors *f, const struct head_sums *h, const double *rho,
                            int64_t D, const struct ref_out *out, int64_t at) {
    const double factor =
        (1 + h->h_max) / h->least + f->s1 + 2 * (f->spans + f->w) + 2 * h->h_max * f->centred + f->o;
    for (int64_t d = 0; d < D; d++) out->e[at + d] += factor * rho[d];
}

/* ---- weights that are rounded ---- */

/* The weights w of a head with w h in r become R(w) with what is left of the doubt: w' / w - 1 = (eta - S) /
 * (1 + S) with |eta| <= h and S = sum w eta, at least `least` - 1; then the denominator's own roundings. */
static void round_weights(double *w, double *r, const struct attention_contract *c,
                          const struct head_sums *sums, int64_t n, bool bounds) {
    const double depth = (double)(c->l_depth ? c->l_depth : n), own = (depth + 8) * (c->unit + 2 * UNIT_F64);
    double all = 0;
    for (int64_t j = 0; j < n; j++) all += bounds ? r[j] : 0;
    for (int64_t j = 0; j < n; j++) {
        const double moved = bounds ? (r[j] + w[j] * all) / sums->least : 0;
        const double off = bounds ? moved + own * (w[j] + moved) + flush_unit(c->unit) : 0;
        const struct fuzzy rounded = image((struct fuzzy){w[j], off}, c->weights);
        w[j] = rounded.value, r[j] = rounded.radius;
    }
}

/* o = sum w v of weights known to within r, values to within rho / w: the terms move by `moved` in all. */
static void rounded_values(const struct attention_keys *s, const struct attention_contract *c, int h,
                           int64_t D, int64_t n, const double *rho, const struct ref_out *out, int64_t at) {
    const double *const w = s->w + h * s->stride, *const r = s->r + h * s->stride;
    for (int64_t d = 0; d < D; d++) {
        double y = 0, low = 0, high = 0, s1 = 0, moved = rho ? rho[d] : 0;
        for (int64_t j = 0; j < n; j++) {
            const double v = s->v[d / LANES * s->n + j][d % LANES], term = w[j] * v;
            y += term, s1 += fabs(term), moved += r[j] * fabs(v);
            low = fmin(low, y), high = fmax(high, y);
        }
        const double e = accumulator_bound(&c->pv, n, high - low + 2 * moved, s1 + moved);
        put(out, at + d, y, moved + e, s1);
    }
}

static void attend_rounded(struct attention_keys *s, const struct attention_args *a,
                           const struct attention_contract *c, const double *const *radius,
                           const struct attention_task *task, const struct head_sums *sums, int n_heads,
                           int64_t n, const struct ref_out *out, int64_t at) {
    const int64_t D = a->head_dim;
    double *const rho = ref_alloc((size_t)D * 2 * sizeof *rho);
    for (int h = 0; h < n_heads; h++) {
        double *const w = s->w + h * s->stride, *const r = s->r + h * s->stride;
        round_weights(w, r, c, &sums[h], n, out->e != NULL);
        if (radius) value_radii(rho, a, radius, task->seq, task->kv_head, w, n);
        if (radius) value_radii(rho + D, a, radius, task->seq, task->kv_head, r, n);
        for (int64_t d = 0; d < D && radius; d++) rho[d] += rho[D + d];
        rounded_values(s, c, h, D, n, radius ? rho : NULL, out, at + h * D);
    }
    free(rho);
}

static void attend(struct attention_keys *s, const struct attention_args *a,
                   const struct attention_contract *c, const double *const *radius,
                   const struct attention_task *task, int64_t token, const struct ref_out *out,
                   int64_t row0) {
    const int64_t D = a->head_dim;
    const int64_t n = attention_visible(a, task->seq, token);
    const int64_t head_end = min_i64((task->kv_head + 1) * attention_group(a), a->n_heads);
    const bool bounds = out->e && n;
    if (bounds) keys_extend_sizes(s, D, n);
    for (int64_t head = task->kv_head * attention_group(a); head < head_end; head += COLUMNS) {
        const int n_heads = (int)min_i64(COLUMNS, head_end - head);
        struct head_sums sums[COLUMNS];
        keys_weigh(s, a, c, radius, task, token, head, n_heads, n, bounds, sums);
        const int64_t at = ((token - row0) * a->n_heads + head) * D;
        if (c->weights != DTYPE_F64) {
            attend_rounded(s, a, c, radius, task, sums, n_heads, n, out, at);
            continue;
        }
        weighted_values(s, c, sums, n_heads, D, n, out, at);
        for (int h = 0; h < n_heads && bounds && radius; h++) {
            const struct output_factors factors = output_factors(c, &sums[h], n);
            value_radii(s->q, a, radius, task->seq, task->kv_head, s->w + h * s->stride, n);
            add_value_radii(&factors, &sums[h], s->q, D, out, at + h * D);
        }
    }
}

/* ---- the whole call ---- */

void ref_attention(const struct call *call, const struct contract *contract, const double *const *radius,
                   int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct attention_args *a = &call->u.attention;
    const struct attention_contract *c = &contract->u.attention;
    const int64_t row_size = a->n_heads * a->head_dim;
    /* rows of no sequence stay NaN */
    for (int64_t i = 0; i < (row1 - row0) * row_size; i++) put(out, i, (double)NAN, (double)NAN, (double)NAN);

    const int64_t n_tasks = attention_tasks(NULL, a, row0, row1);
    struct attention_task *tasks = ref_alloc((size_t)n_tasks * sizeof *tasks);
    attention_tasks(tasks, a, row0, row1);
    const int64_t most_keys = attention_most_keys(a, tasks, n_tasks);
#pragma omp parallel
    {
        struct attention_keys s = keys_make(most_keys, a->head_dim);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n_tasks; i++) {
            const int64_t n = attention_visible(a, tasks[i].seq, tasks[i].end - 1);
            keys_gather(&s, a, &tasks[i], n, out->e && c->score_norm_error > 0);
            for (int64_t t = tasks[i].first; t < tasks[i].end; t++)
                attend(&s, a, c, radius, &tasks[i], t, out, row0);
        }
        keys_free(&s);
    }
    free(tasks);
}
