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
 *   E_acc  accumulating P V, rescaling it once per key block and split
 *   E_l    |o| (depth + 8) u          the denominator, its reciprocal, the last product
 *   E_tiny 2^-126 sum |v|             weights flushed to zero
 * each over D = sum w exp(-r), the least the perturbed denominator can be. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Queries one task handles per gathered key and value: enough to pay for the gathering. */
enum { QUERIES = 16 };

/* Query rows [first, end) of one sequence against kv head g. */
struct task {
    int64_t seq, kv_head, first, end;
};

/* One thread's memory; n is the number of keys gathered. */
struct scratch {
    double *row;  /* [D] */
    lanes *k, *v; /* [n / LANES][D] lanes of keys, [D / LANES][n] lanes of dims */
    lanes *size;  /* [D / LANES] sum |v| over the first n_sized keys */
    int64_t n_sized;
    double *k_norm; /* [n] |k_j| */
    double *q;      /* [COLUMNS][D] */
    double *w, *r;  /* [COLUMNS][n] weights; bounds of their log error, then w h */
};

static int64_t group_size(const struct attention_args *a) { return max_i64(a->n_heads / a->n_kv_heads, 1); }
static int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Keys of a sequence; no more than the cache has slots, should a call claim so. */
static int64_t key_count(const struct attention_args *a, int64_t seq) {
    return min_i64(max_i64(view_index(&a->kv_len, seq), 0), a->n_pages * a->page_size);
}

static int64_t visible_keys(const struct attention_args *a, int64_t seq, int64_t token) {
    const int64_t keys = key_count(a, seq);
    if (!a->causal) return keys;
    const int64_t queries_after = view_index(&a->query_start, seq + 1) - 1 - token;
    return max_i64(keys - queries_after, 0);
}

/* ---- gathering ---- */

static void read_slot(double *row, const struct view *cache, const struct attention_args *a, int64_t page,
                      int64_t slot, int64_t kv_head) {
    if (page < 0 || page >= a->n_pages)
        for (int64_t d = 0; d < a->head_dim; d++) row[d] = (double)NAN;
    else
        view_row(row, cache, page * cache->stride[0] + slot * cache->stride[1] + kv_head * cache->stride[2],
                 a->head_dim);
}

static double norm(const double *x, int64_t n) {
    double square = 0;
    for (int64_t i = 0; i < n; i++) square += x[i] * x[i];
    return sqrt(square);
}

/* Bring keys 0..n of the task's sequence and head into lanes; unused lanes are 0. */
static void gather(struct scratch *s, const struct attention_args *a, const struct task *task, int64_t n,
                   bool norms) {
    const int64_t D = a->head_dim;
    memset(s->size, 0, (size_t)round_up(D, LANES) * sizeof(double));
    s->n_sized = 0;
    memset(s->k, 0, (size_t)(round_up(n, LANES) * D) * sizeof(double));
    memset(s->v, 0, (size_t)(round_up(D, LANES) * n) * sizeof(double));
    for (int64_t j = 0; j < n; j++) {
        const int64_t entry = task->seq * a->page_table.stride[0] + j / a->page_size;
        const int64_t page = view_index(&a->page_table, entry), slot = j % a->page_size;
        read_slot(s->row, &a->k_cache, a, page, slot, task->kv_head);
        for (int64_t d = 0; d < D; d++) s->k[j / LANES * D + d][j % LANES] = s->row[d];
        s->k_norm[j] = norms ? norm(s->row, D) : 0;
        read_slot(s->row, &a->v_cache, a, page, slot, task->kv_head);
        for (int64_t d = 0; d < D; d++) s->v[d / LANES * n + j][d % LANES] = s->row[d];
    }
}

/* ---- one query, up to COLUMNS heads that share the kv head ---- */

/* An accumulator's bound is linear in W and S1, but for `tiny`, which counts where anything was
 * added. */
struct slopes {
    double w, s1, tiny;
};

static struct slopes bound_slopes(const struct accumulator *acc, int64_t n) {
    if (!isfinite(accumulator_bound(acc, n, 1, 1))) return (struct slopes){.tiny = INFINITY};
    return (struct slopes){.w = accumulator_bound(acc, n, 1, 0),
                           .s1 = accumulator_bound(acc, n, 0, 1),
                           .tiny = accumulator_bound(acc, n, 0x1p-1074, 0x1p-1074)};
}

/* Pass 1: scores s_j = scale q.k_j into w, and how far each can be off into r. */
static void scores(struct scratch *s, const struct attention_args *a, const struct attention_contract *c,
                   int n_heads, int64_t stride, int64_t n, bool bounds) {
    const int64_t D = a->head_dim;
    const struct slopes dot = bounds ? bound_slopes(&c->qk, D) : (struct slopes){0};
    const int want = (dot.w > 0 ? WANT_SPAN : 0) | (dot.s1 > 0 ? WANT_SIZE : 0);
    const double rounded = 1 + c->score_unit, by_dot = fabs(a->scale) * rounded;
    const double by_score = 3 * (c->unit + UNIT_F64) * rounded + c->score_unit;
    for (int64_t tile = 0; tile * LANES < n; tile++) {
        struct dot_sums sums[COLUMNS] = {{.y = {0}}};
        dot_continue(sums, s->q, D, n_heads, s->k + tile * D, D, want);
        for (int h = 0; h < n_heads; h++) {
            const lanes score = a->scale * sums[h].y, span = sums[h].high - sums[h].low, s1 = sums[h].s1;
            lanes_put(s->w + h * stride + tile * LANES, score);
            if (!bounds) continue;
            const lanes error = dot.w * span + dot.s1 * s1 + where_positive(span + s1, dot.tiny);
            lanes_put(s->r + h * stride + tile * LANES, by_dot * error + by_score * lanes_abs(score));
        }
    }
}

/* Rope-table errors in q and k move a score by a fraction of scale |q| |k|. */
static void add_norm_error(struct scratch *s, const struct attention_args *a, double fraction, int h,
                           int64_t stride, int64_t n) {
    const double q_norm = norm(s->q + h * a->head_dim, a->head_dim);
    for (int64_t j = 0; j < n; j++) s->r[h * stride + j] += fraction * fabs(a->scale) * q_norm * s->k_norm[j];
}

struct head_sums {
    double m, l;   /* largest score; sum exp(s - m) */
    double least;  /* D = sum w exp(-r) */
    double h_max;  /* largest h_j */
    double blocks; /* key blocks and splits: rescalings */
};

/* What every log weight may be off by: one exponential for the weight and one per rescaling, and
 * with split-KV the merge of the slices i through lse_i = m_i + log l_i, weight exp(lse_i - L), L
 * the largest lse. The slice's own l_i cancels against its division by l_i; what stays is
 *   2u log l_i    the logarithm (to one place, two units). l_i lies in [1, n] whatever lse_i is: log n
 *   u |lse_i|     rounding the sum m_i + log l_i. Its two halves may cancel, their errors do not
 *   u (L - lse_i) rounding the subtraction in the exponential
 *   4u            the division, and second-order terms
 * A key of the slice has s_j <= lse_i <= L <= lse = m + log l (m, l of all keys), so both L - lse_i
 * and
 * |lse_i| - |lse| are at most (m - s_j) + log l. The two (m - s_j) and the one inside the slices are three of
 * the four units that every weight pays for its subtractions anyway. */
static double common_log_error(const struct head_sums *h, const struct attention_contract *c, int64_t n) {
    const double lse = h->m + log(h->l);
    const double merge = c->splits > 1 ? c->unit * (fabs(lse) + 2 * log(h->l) + 2 * log((double)n) + 4) : 0;
    return (1 + h->blocks) * (c->exp_error + 2 * c->unit) + merge + 4 * UNIT_F64;
}

/* r_j become w_j h_j, h_j >= exp(r_j) - 1. Where all r < 1:
 *   exp(r) - 1 = r + r^2/2 + r^3/6 + ... <= r + r^2 (e - 2) <= r (1 + r)
 *   exp(-r) >= 1 - r + r^2/2 - r^3/6, an alternating series cut after a negative term. */
static void weigh_errors(struct head_sums *sums, const double *w, double *r, double each, double top,
                         int64_t n) {
    lanes least = {0};
    sums->h_max = top < 1 ? top * (1 + top) : expm1(top);
    if (top < 1)
        for (int64_t j = 0; j < n; j += LANES) {
            const lanes x = lanes_at(r + j) + each, weight = lanes_at(w + j);
            least += weight * (1 + x * (x * (0.5 - x * (1.0 / 6)) - 1));
            lanes_put(r + j, weight * (x * (1 + x)));
        }
    else
        for (int64_t j = 0; j < n; j++) {
            const double x = r[j] + each, h = x < 1 ? x * (1 + x) : expm1(x);
            least[0] += w[j] / (1 + h);
            r[j] = w[j] * h;
        }
    sums->least = (least[0] + least[1]) + (least[2] + least[3]);
}

/* Pass 2: weights w_j = exp(s_j - m) / l, and w_j h_j. */
static struct head_sums weigh(double *w, double *r, const struct attention_contract *c, int64_t n,
                              bool bounds) {
    struct head_sums sums = {.m = -INFINITY};
    for (int64_t j = 0; j < n; j++) sums.m = w[j] > sums.m ? w[j] : sums.m;
    lanes top = {0};
    if (bounds) {
        for (int64_t j = n; j % LANES; j++) w[j] = sums.m, r[j] = 0;
        for (int64_t j = 0; j < n; j += LANES) { /* the subtraction of the maximum */
            const lanes x = lanes_at(r + j) + 4 * (c->unit + UNIT_F64) * (sums.m - lanes_at(w + j));
            top = lanes_max(x, top);
            lanes_put(r + j, x);
        }
    }
    for (int64_t j = 0; j < n; j++) {
        w[j] = exp(w[j] - sums.m);
        sums.l += w[j];
    }
    for (int64_t j = 0; j < n; j++) w[j] /= sums.l;
    if (!bounds) return sums;

    for (int64_t j = n; j % LANES; j++) w[j] = 0;
    sums.blocks = (c->block ? (double)((n + c->block - 1) / c->block) : 1) + (c->splits > 1 ? c->splits : 0);
    const double each = common_log_error(&sums, c, n);
    weigh_errors(&sums, w, r, each, fmax(fmax(top[0], top[1]), fmax(top[2], top[3])) + each, n);
    return sums;
}

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

/* E is linear in its sums, with one set of factors for a head. */
struct output_factors {
    double centred, w, s1, o, magnitude, tiny;
};

static struct output_factors output_factors(const struct attention_contract *c, const struct head_sums *h,
                                            int64_t n) {
    const struct slopes sum = bound_slopes(&c->pv, n);
    const double unit = c->unit, depth = (double)(c->l_depth ? c->l_depth : n);
    const double p = c->p_unit * (1 + h->h_max),
                 moved = h->h_max + p; /* of s1: how far the terms w v moved */
    const double rescaled = sum.w + (h->blocks + 1) * unit;
    const double denominator = (depth + 8) * unit + (double)(n + 8) * UNIT_F64;
    return (struct output_factors){.centred = (1.01 + denominator) / h->least,
                                   .w = rescaled / h->least,
                                   .s1 = (p + rescaled * moved + sum.s1 * (1 + moved)) / h->least,
                                   .o = denominator,
                                   .magnitude = unit > UNIT_F64 ? 0x1p-126 / h->least : 0,
                                   .tiny = sum.tiny / h->least};
}

static lanes output_error(const struct output_factors *f, const struct dot_sums *o, lanes centred,
                          lanes magnitude) {
    return f->centred * centred + f->w * (o->high - o->low) + f->s1 * o->s1 + f->o * lanes_abs(o->y) +
           f->magnitude * magnitude + where_positive(o->s1, f->tiny);
}

/* Passes 3 and 4: o = sum w v with its condition sums, then E. */
static void weighted_values(struct scratch *s, const struct attention_contract *c,
                            const struct head_sums *heads, int n_heads, int64_t D, int64_t stride, int64_t n,
                            int64_t n_gathered, const struct ref_out *out, int64_t at) {
    struct output_factors factors[COLUMNS];
    for (int h = 0; h < n_heads && out->e && n; h++) factors[h] = output_factors(c, &heads[h], n);
    for (int64_t tile = 0; tile * LANES < D; tile++) {
        const lanes *v = s->v + tile * n_gathered;
        struct dot_sums o[COLUMNS] = {{.y = {0}}};
        lanes centred[COLUMNS];
        dot_continue(o, s->w, stride, n_heads, v, n, out->e ? WANT_SPAN : out->s1 ? WANT_SIZE : 0);
        if (out->e) value_sizes(o, centred, s->w, s->r, stride, n_heads, v, n);
        for (int h = 0; h < n_heads; h++) {
            lanes e = {0};
            if (out->e && n) e = output_error(&factors[h], &o[h], centred[h], s->size[tile]);
            for (int64_t l = 0; l < LANES && tile * LANES + l < D; l++)
                put(out, at + h * D + tile * LANES + l, o[h].y[l], e[l], o[h].s1[l]);
        }
    }
}

/* sum |v| of the keys up to n; the queries of a task see more and more keys. */
static void extend_sizes(struct scratch *s, int64_t D, int64_t n, int64_t n_gathered) {
    for (int64_t tile = 0; tile * LANES < D; tile++)
        for (int64_t j = s->n_sized; j < n; j++) s->size[tile] += lanes_abs(s->v[tile * n_gathered + j]);
    s->n_sized = max_i64(s->n_sized, n);
}

/* Values off by radii, rho = sum w r_v of an element. Weights are at most w (1 + h) / D; whatever is linear in |v| grows
 * with it: S1 by rho, W by 2 rho, the centred sum by 2 h_max rho. */
static void add_value_radii(const struct output_factors *f, const struct head_sums *h, const double *rho,
                            int64_t D, const struct ref_out *out, int64_t at) {
    const double factor = (1 + h->h_max) / h->least + f->s1 + 2 * f->w + 2 * h->h_max * f->centred + f->o;
    for (int64_t d = 0; d < D; d++) out->e[at + d] += factor * rho[d];
}

static void attend(struct scratch *s, const struct attention_args *a, const struct attention_contract *c,
                   const double *const *radius, const struct task *task, int64_t token, int64_t n_gathered,
                   const struct ref_out *out, int64_t row0) {
    const int64_t D = a->head_dim, stride = round_up(n_gathered, LANES);
    const int64_t n = visible_keys(a, task->seq, token);
    const int64_t head_end = min_i64((task->kv_head + 1) * group_size(a), a->n_heads);
    const bool bounds = out->e && n;
    if (bounds) extend_sizes(s, D, n, n_gathered);
    for (int64_t head = task->kv_head * group_size(a); head < head_end; head += COLUMNS) {
        const int n_heads = (int)min_i64(COLUMNS, head_end - head);
        struct head_sums sums[COLUMNS];
        for (int h = 0; h < n_heads; h++)
            view_row(s->q + h * D, &a->q, token * a->q.stride[0] + (head + h) * a->q.stride[1], D);
        scores(s, a, c, n_heads, stride, n, bounds);
        for (int h = 0; h < n_heads; h++) {
            if (bounds && c->score_norm_error > 0) add_norm_error(s, a, c->score_norm_error, h, stride, n);
            if (bounds && radius) score_radii(s->r + h * stride, a, radius, task->seq, token, head + h, n);
            sums[h] = weigh(s->w + h * stride, s->r + h * stride, c, n, bounds);
        }
        const int64_t at = ((token - row0) * a->n_heads + head) * D;
        weighted_values(s, c, sums, n_heads, D, stride, n, n_gathered, out, at);
        for (int h = 0; h < n_heads && bounds && radius; h++) {
            const struct output_factors factors = output_factors(c, &sums[h], n);
            value_radii(s->q, a, radius, task->seq, task->kv_head, s->w + h * stride, n);
            add_value_radii(&factors, &sums[h], s->q, D, out, at + h * D);
        }
    }
}

/* ---- the whole call ---- */

/* Cut rows [row0, row1) into tasks, or only count them when `tasks` is NULL. */
static int64_t list_tasks(struct task *tasks, const struct attention_args *a, int64_t row0, int64_t row1) {
    const int64_t n_kv_heads = (a->n_heads + group_size(a) - 1) / group_size(a);
    int64_t n = 0, next = row0;
    for (int64_t b = 0; b < a->n_seqs; b++) {
        const int64_t start = max_i64(view_index(&a->query_start, b), next);
        const int64_t end = min_i64(view_index(&a->query_start, b + 1), row1);
        for (int64_t first = start; first < end; first += QUERIES)
            for (int64_t g = 0; g < n_kv_heads; g++, n++)
                if (tasks) tasks[n] = (struct task){b, g, first, min_i64(first + QUERIES, end)};
        next = max_i64(next, end);
    }
    return n;
}

static struct scratch scratch_make(int64_t n, int64_t D) {
    const size_t keys = (size_t)round_up(n, LANES), dims = (size_t)round_up(D, LANES),
                 number = sizeof(double);
    return (struct scratch){
        .row = ref_alloc(dims * number),
        .k = ref_alloc(keys * dims * number),
        .v = ref_alloc(keys * dims * number),
        .size = ref_alloc(dims * number),
        .k_norm = ref_alloc(keys * number),
        .q = ref_alloc(COLUMNS * dims * number),
        .w = ref_alloc(COLUMNS * keys * number),
        .r = ref_alloc(COLUMNS * keys * number),
    };
}

static void scratch_free(struct scratch *s) {
    free(s->row), free(s->k), free(s->v), free(s->size), free(s->k_norm), free(s->q), free(s->w), free(s->r);
}

void ref_attention(const struct call *call, const struct contract *contract, const double *const *radius,
                   int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct attention_args *a = &call->u.attention;
    const struct attention_contract *c = &contract->u.attention;
    const int64_t row_size = a->n_heads * a->head_dim;
    /* rows of no sequence stay NaN */
    for (int64_t i = 0; i < (row1 - row0) * row_size; i++) put(out, i, (double)NAN, (double)NAN, (double)NAN);

    const int64_t n_tasks = list_tasks(NULL, a, row0, row1);
    struct task *tasks = ref_alloc((size_t)n_tasks * sizeof *tasks);
    list_tasks(tasks, a, row0, row1);
    int64_t max_keys = 0;
    for (int64_t i = 0; i < n_tasks; i++)
        max_keys = max_i64(max_keys, visible_keys(a, tasks[i].seq, tasks[i].end - 1));
#pragma omp parallel
    {
        struct scratch s = scratch_make(max_keys, a->head_dim);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n_tasks; i++) {
            const int64_t n = visible_keys(a, tasks[i].seq, tasks[i].end - 1);
            gather(&s, a, &tasks[i], n, out->e && c->score_norm_error > 0);
            for (int64_t t = tasks[i].first; t < tasks[i].end; t++)
                attend(&s, a, c, radius, &tasks[i], t, n, out, row0);
        }
        scratch_free(&s);
    }
    free(tasks);
}
