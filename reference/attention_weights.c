/* The weights of attention: which keys a query sees, what it makes of them, and by how much an
 * honest kernel's may differ. Weights are w_j (1 + eta_j), |eta_j| <= h_j; docs/numerics.md,
 * section 4. */
/* SPDX-License-Identifier: MIT */
#include "reference/attention_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Queries one task handles per gathered key and value: enough to pay for the gathering. */
enum { QUERIES = 16 };

static int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

int64_t attention_group(const struct attention_args *a) { return max_i64(a->n_heads / a->n_kv_heads, 1); }

/* Keys of a sequence; no more than the cache has slots, should a call claim so. */
static int64_t key_count(const struct attention_args *a, int64_t seq) {
    return min_i64(max_i64(view_index(&a->kv_len, seq), 0), a->n_pages * a->page_size);
}

int64_t attention_visible(const struct attention_args *a, int64_t seq, int64_t token) {
    const int64_t keys = key_count(a, seq);
    if (!a->causal) return keys;
    const int64_t queries_after = view_index(&a->query_start, seq + 1) - 1 - token;
    return max_i64(keys - queries_after, 0);
}

int64_t attention_tasks(struct attention_task *tasks, const struct attention_args *a, int64_t row0,
                        int64_t row1) {
    const int64_t n_kv_heads = (a->n_heads + attention_group(a) - 1) / attention_group(a);
    int64_t n = 0, next = row0;
    for (int64_t b = 0; b < a->n_seqs; b++) {
        const int64_t start = max_i64(view_index(&a->query_start, b), next);
        const int64_t end = min_i64(view_index(&a->query_start, b + 1), row1);
        for (int64_t first = start; first < end; first += QUERIES)
            for (int64_t g = 0; g < n_kv_heads; g++, n++)
                if (tasks) tasks[n] = (struct attention_task){b, g, first, min_i64(first + QUERIES, end)};
        next = max_i64(next, end);
    }
    return n;
}

int64_t attention_most_keys(const struct attention_args *a, const struct attention_task *tasks, int64_t n) {
    int64_t most = 0;
    for (int64_t i = 0; i < n; i++)
        most = max_i64(most, attention_visible(a, tasks[i].seq, tasks[i].end - 1));
    return most;
}

/* ---- memory ---- */

struct attention_keys keys_make(int64_t n, int64_t D) {
    const size_t keys = (size_t)round_up(n, LANES), dims = (size_t)round_up(D, LANES),
                 number = sizeof(double);
    return (struct attention_keys){
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

void keys_free(struct attention_keys *s) {
    free(s->row), free(s->k), free(s->v), free(s->size), free(s->k_norm), free(s->q), free(s->w), free(s->r);
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

void keys_gather(struct attention_keys *s, const struct attention_args *a, const struct attention_task *task,
                 int64_t n, bool norms) {
    const int64_t D = a->head_dim;
    memset(s->size, 0, (size_t)round_up(D, LANES) * sizeof(double));
    s->n_sized = 0;
    s->n = n;
    s->stride = round_up(n, LANES);
    memset(s->k, 0, (size_t)(s->stride * D) * sizeof(double));
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

void keys_extend_sizes(struct attention_keys *s, int64_t D, int64_t n) {
    for (int64_t tile = 0; tile * LANES < D; tile++)
        for (int64_t j = s->n_sized; j < n; j++) s->size[tile] += lanes_abs(s->v[tile * s->n + j]);
    s->n_sized = max_i64(s->n_sized, n);
}

/* ---- one query, up to COLUMNS heads that share the kv head ---- */

struct slopes bound_slopes(const struct accumulator *acc, int64_t n) {
    if (!isfinite(accumulator_bound(acc, n, 1, 1))) return (struct slopes){.tiny = INFINITY};
    return (struct slopes){.w = accumulator_bound(acc, n, 1, 0),
                           .s1 = accumulator_bound(acc, n, 0, 1),
                           .tiny = accumulator_bound(acc, n, 0x1p-1074, 0x1p-1074)};
}

/* What of a score its scaling and storing may move, after q.k. */
static double score_slope(const struct attention_contract *c) {
    return 3 * (c->unit + UNIT_F64) * (1 + c->score_unit) + c->score_unit;
}

/* Pass 1: scores s_j = scale q.k_j into w, and how far each can be off into r. Where scale q is
 * rounded first, the terms of the dot product move by `moved` in all: W by twice that, S1 by once. */
static void scores(struct attention_keys *s, const struct attention_args *a,
                   const struct attention_contract *c, int n_heads, int64_t n, bool bounds) {
    const int64_t D = a->head_dim;
    const struct slopes dot = bounds ? bound_slopes(&c->qk, D) : (struct slopes){0};
    const int want = (dot.w > 0 ? WANT_SPAN : 0) | (dot.s1 > 0 || c->q_unit > 0 ? WANT_SIZE : 0);
    const double rounded = 1 + c->score_unit, by_dot = fabs(a->scale) * rounded;
    const double by_score = score_slope(c);
    for (int64_t tile = 0; tile * LANES < n; tile++) {
        struct dot_sums sums[COLUMNS] = {{.y = {0}}};
        dot_continue(sums, s->q, D, n_heads, s->k + tile * D, D, want);
        for (int h = 0; h < n_heads; h++) {
            const lanes score = a->scale * sums[h].y, span = sums[h].high - sums[h].low, s1 = sums[h].s1;
            lanes_put(s->w + h * s->stride + tile * LANES, score);
            if (!bounds) continue;
            const lanes moved = c->q_unit > 0 ? c->q_unit * s1 : lanes_all(0);
            const lanes size = c->q_unit > 0 || dot.s1 > 0 ? s1 + moved : lanes_all(0);
            const lanes error =
                dot.w * (span + 2 * moved) + dot.s1 * size + moved + where_positive(span + s1, dot.tiny);
            lanes_put(s->r + h * s->stride + tile * LANES, by_dot * error + by_score * lanes_abs(score));
        }
    }
}

/* Rope-table errors in q and k move a score by a fraction of scale |q| |k|. */
static void add_norm_error(struct attention_keys *s, const struct attention_args *a, double fraction, int h,
                           int64_t n) {
    const double q_norm = norm(s->q + h * a->head_dim, a->head_dim);
    for (int64_t j = 0; j < n; j++)
        s->r[h * s->stride + j] += fraction * fabs(a->scale) * q_norm * s->k_norm[j];
}

/* q.k is rounded to d, then its product with the scale: [n] scores w, each known to within r (NULL: exactly). */
static void round_scores(double *w, double *r, int64_t n, double scale, enum dtype d) {
    const struct fuzzy factor = {scale, fabs(scale - (double)(float)scale)};
    for (int64_t j = 0; j < n; j++) {
        const struct fuzzy dot = {w[j] / scale, r ? r[j] / fabs(scale) : 0};
        const struct fuzzy score = image(product(image(dot, d), factor, UNIT_F32), d);
        w[j] = score.value;
        if (r) r[j] = score.radius;
    }
}

struct attention_path attention_path(const struct attention_contract *c, int64_t n) {
    const bool split = c->splits > 1, known = split && c->slice > 0;
    const int64_t slice = known ? min_i64(c->slice, n) : n;
    return (struct attention_path){
        .slice = slice,
        .rescaled = c->block ? (double)((slice + c->block - 1) / c->block - 1) : 1,
        .merged = split ? c->merges ? c->merges : c->splits : 0,
        .n_slices = known   ? (double)((n + slice - 1) / slice)
                    : split ? c->splits
                            : 1,
    };
}

/* What every log weight may be off by: one exponential for the weight, one for every block after it
 * that rescales its slice, and with split-KV the merge of the slices i through lse_i = m_i + log l_i, weight exp(lse_i - L), L
 * the largest lse. The slice's own l_i cancels against its division by l_i; what stays is
 *   2u log l_i    the logarithm (to one place, two units). l_i lies in [1, n] whatever lse_i is: log n
 *   u |lse_i|     rounding the sum m_i + log l_i. Its two halves may cancel, their errors do not
 *   u (L - lse_i) rounding the subtraction in the exponential
 *   4u            the division, and second-order terms
 * A key of the slice has s_j <= lse_i <= L <= lse = m + log l (m, l of all keys), so both L - lse_i
 * and
 * |lse_i| - |lse| are at most (m - s_j) + log l. The two (m - s_j) and the one inside the slices are three of
 * the four units that every weight pays for its subtractions anyway.
 * P rounded by 1 + d, |d| <= u_P, for numerator and denominator alike is an error of the weight:
 * |log(1 + d)| <= u_P / (1 - u_P). */
static double common_log_error(const struct head_sums *h, const struct attention_contract *c, int64_t n) {
    const struct attention_path path = attention_path(c, n);
    const double lse = h->m + log(h->l);
    const double merge = c->splits > 1 ? c->unit * (fabs(lse) + 2 * log(h->l) + 2 * log((double)n) + 4) : 0;
    return (1 + path.rescaled + path.merged) * (c->exp_error + 2 * c->unit) + merge + 4 * UNIT_F64 +
           (c->p_in_l ? c->p_unit / (1 - c->p_unit) : 0);
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

/* How many scores are the largest, where it is so far above all others, errors below 1 included, that
 * their weights are 0 in any arithmetic: exp(-104) < 2^-150. 0: it is not. */
static int64_t all_of_the_weight(const double *score, double m, double top, int64_t n) {
    int64_t equal = 0;
    for (int64_t j = 0; j < n; j++) {
        if (score[j] <= m - 106) continue;
        if (score[j] != m) return 0;
        equal++;
    }
    return top < 1 ? equal : 0;
}

/* Is q.k_j the same number whatever the order of its sum? All its terms lie on a grid that is coarse
 * enough for the accumulator (numerics.md, section 3). */
static bool dot_is_exact(const struct attention_keys *s, const double *q, const struct accumulator *acc,
                         int64_t D, int64_t j) {
    double grid = INFINITY, s1 = 0;
    for (int64_t d = 0; d < D; d++) {
        const double k = s->k[j / LANES * D + d][j % LANES];
        if (q[d] * k == 0) continue;
        grid = min_f64(value_grid(q[d]) * value_grid(k), grid);
        s1 += fabs(q[d] * k);
    }
    return grid >= accumulator_grid(acc, s1);
}

/* Equal keys that have all the weight have equal scores where q.k is exact: what is left of their
 * errors is the scale's. False: some q.k is not. */
static bool level_scores(const struct attention_keys *s, const struct attention_contract *c, const double *q,
                         int64_t D, int64_t n, const double *score, double m, double *r) {
    bool all = true;
    for (int64_t j = 0; j < n; j++) {
        if (score[j] != m) continue;
        if (dot_is_exact(s, q, &c->qk, D, j))
            r[j] = score_slope(c) * fabs(m);
        else
            all = false;
    }
    return all;
}

/* How far P of n such keys is from 1, or that over l from 1/n, at most, n a power of two. The score and
 * the largest one are one number on two ways, each off by at most 3u |m|, then the exponential; l is the
 * sum of n such P, rounded n times at most. */
static double level_p_off(const struct attention_contract *c, double m, int64_t n) {
    const double one = 6.1 * (c->unit + UNIT_F64) * fabs(m) + c->exp_error + 2 * c->unit;
    return n == 1 ? expm1(one) : expm1(2 * one + (double)(n + 2) * (c->unit + UNIT_F64));
}

/* Pass 2: weights w_j = exp(s_j - m) / l, and w_j h_j. `plain`: nothing but arithmetic moves q.k. */
static struct head_sums weigh(const struct attention_keys *s, int h, int64_t D,
                              const struct attention_contract *c, int64_t n, bool bounds, bool plain) {
    double *const w = s->w + h * s->stride, *const r = s->r + h * s->stride;
    struct head_sums sums = {.m = -INFINITY, .p_off = INFINITY};
    for (int64_t j = 0; j < n; j++) sums.m = w[j] > sums.m ? w[j] : sums.m;
    lanes top = {0};
    double far = 0;
    if (bounds) {
        for (int64_t j = n; j % LANES; j++) w[j] = sums.m, r[j] = 0;
        for (int64_t j = 0; j < n; j += LANES) { /* the subtraction of the maximum */
            const lanes x = lanes_at(r + j) + 4 * (c->unit + UNIT_F64) * (sums.m - lanes_at(w + j));
            top = lanes_max(x, top);
            lanes_put(r + j, x);
        }
        far = fmax(fmax(top[0], top[1]), fmax(top[2], top[3]));
        const int64_t equal = all_of_the_weight(w, sums.m, far, n);
        const bool level = equal > 1 && plain && level_scores(s, c, s->q + h * D, D, n, w, sums.m, r);
        if (c->p_unit > 0 && (equal == 1 || (level && (equal & (equal - 1)) == 0)))
            sums.p_off = level_p_off(c, sums.m, equal);
    }
    for (int64_t j = 0; j < n; j++) {
        w[j] = exp(w[j] - sums.m);
        sums.l += w[j];
    }
    for (int64_t j = 0; j < n; j++) w[j] /= sums.l;
    if (!bounds) return sums;

    for (int64_t j = n; j % LANES; j++) w[j] = 0;
    const double each = common_log_error(&sums, c, n);
    weigh_errors(&sums, w, r, each, far + each, n);
    return sums;
}

void keys_weigh(struct attention_keys *s, const struct attention_args *a, const struct attention_contract *c,
                const double *const *radius, const struct attention_task *task, int64_t token, int64_t head,
                int n_heads, int64_t n, bool bounds, struct head_sums sums[COLUMNS]) {
    const int64_t D = a->head_dim;
    for (int h = 0; h < n_heads; h++)
        view_row(s->q + h * D, &a->q, token * a->q.stride[0] + (head + h) * a->q.stride[1], D);
    scores(s, a, c, n_heads, n, bounds);
    const bool plain = !radius && !(c->score_norm_error > 0) && !(c->q_unit > 0) && c->scores == DTYPE_F64;
    for (int h = 0; h < n_heads; h++) {
        double *const r = s->r + h * s->stride;
        if (bounds && c->score_norm_error > 0) add_norm_error(s, a, c->score_norm_error, h, n);
        if (bounds && radius) score_radii(r, a, radius, task->seq, token, head + h, n);
        if (c->scores != DTYPE_F64)
            round_scores(s->w + h * s->stride, bounds ? r : NULL, n, a->scale, c->scores);
        sums[h] = weigh(s, h, D, c, n, bounds, plain);
    }
}
