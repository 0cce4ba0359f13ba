/* attention - o = sum over visible keys j of w_j v_j, w = softmax(scale q.k), over a paged cache; and its
 * error. Vaswani et al. 2017, eq. 1; any running maximum cancels, so one formula serves plain and online
 * softmax (Milakov & Gimelshein 2018). A query that sees no key gives 0 (it cannot happen with kv_len >=
 * queries).
 *
 * An honest kernel uses weights w_j (1 + eta_j), |eta_j| <= h_j. Normalised again, the exact identity
 *   o' - o = sum w_j eta_j (v_j - o) / (1 + sum w_j eta_j)
 * centres the values on the output, so a common factor of all weights costs nothing. E is the sum of
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
    double *row;    /* [D] */
    lanes *k, *v;   /* [n / LANES][D] lanes of keys, [D / LANES][n] lanes of dims */
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

/* Bring keys 0..n of the task's sequence and head into lanes; unused lanes are 0. */
static void gather(struct scratch *s, const struct attention_args *a, const struct task *task, int64_t n) {
    const int64_t D = a->head_dim;
    memset(s->k, 0, (size_t)(round_up(n, LANES) * D) * sizeof(double));
    memset(s->v, 0, (size_t)(round_up(D, LANES) * n) * sizeof(double));
    for (int64_t j = 0; j < n; j++) {
        const int64_t entry = task->seq * a->page_table.stride[0] + j / a->page_size;
        const int64_t page = view_index(&a->page_table, entry), slot = j % a->page_size;
        double square = 0;
        read_slot(s->row, &a->k_cache, a, page, slot, task->kv_head);
        for (int64_t d = 0; d < D; d++) {
            s->k[j / LANES * D + d][j % LANES] = s->row[d];
            square += s->row[d] * s->row[d];
        }
        s->k_norm[j] = sqrt(square);
        read_slot(s->row, &a->v_cache, a, page, slot, task->kv_head);
        for (int64_t d = 0; d < D; d++) s->v[d / LANES * n + j][d % LANES] = s->row[d];
    }
}

/* ---- one query, up to COLUMNS heads that share the kv head ---- */

struct head_sums {
    double least;  /* D = sum w exp(-r) */
    double h_max;  /* largest h_j */
    double blocks; /* key blocks and splits: rescalings */
};

/* Pass 1: scores s_j = scale q.k_j into w, and how far each can be off into r. */
static void scores(struct scratch *s, const struct attention_args *a, const struct attention_contract *c,
                   int n_heads, int64_t stride, int64_t n) {
    const int64_t D = a->head_dim;
    for (int64_t tile = 0; tile * LANES < n; tile++) {
        struct dot_sums sums[COLUMNS] = {{.y = {0}}};
        dot_continue(sums, s->q, D, n_heads, s->k + tile * D, D, true);
        for (int h = 0; h < n_heads; h++)
            for (int64_t l = 0; l < LANES && tile * LANES + l < n; l++) {
                const double score = a->scale * sums[h].y[l];
                const double dot =
                    accumulator_bound(&c->qk, D, sums[h].high[l] - sums[h].low[l], sums[h].s1[l]);
                const double error = fabs(a->scale) * dot + 3 * (c->unit + UNIT_F64) * fabs(score);
                s->w[h * stride + tile * LANES + l] = score;
                s->r[h * stride + tile * LANES + l] = error + c->score_unit * (fabs(score) + error);
            }
    }
}

/* Rope-table errors in q and k move a score by a fraction of scale |q| |k|. */
static void add_norm_error(struct scratch *s, const struct attention_args *a, double fraction, int h,
                           int64_t stride, int64_t n) {
    double square = 0;
    for (int64_t d = 0; d < a->head_dim; d++) square += s->q[h * a->head_dim + d] * s->q[h * a->head_dim + d];
    const double q_norm = sqrt(square);
    for (int64_t j = 0; j < n; j++) s->r[h * stride + j] += fraction * fabs(a->scale) * q_norm * s->k_norm[j];
}

/* Pass 2: weights w_j = exp(s_j - m) / l, and w_j h_j with h_j = exp(r_j) - 1, where r_j adds the subtraction
 * of the maximum, one exponential for the weight, one per rescaling and those of the split merge. */
static struct head_sums weigh(double *w, double *r, const struct attention_contract *c, int64_t n) {
    struct head_sums sums = {0};
    double m = -INFINITY, l = 0;
    for (int64_t j = 0; j < n; j++) m = w[j] > m ? w[j] : m;
    const double splits = c->splits > 1 ? c->splits : 0;
    sums.blocks = (c->block ? (double)((n + c->block - 1) / c->block) : 1) + splits;

    for (int64_t j = 0; j < n; j++) {
        r[j] += 4 * (c->unit + UNIT_F64) * (m - w[j]);
        w[j] = exp(w[j] - m);
        l += w[j];
    }
    const double merge = splits > 0 ? 2 * c->unit * fabs(m + log(l)) + 2 * c->exp_error + 4 * c->unit : 0;
    const double each = (1 + sums.blocks) * (c->exp_error + 2 * c->unit) + merge + 4 * UNIT_F64;
    for (int64_t j = 0; j < n; j++) {
        const double log_error = r[j] + each;
        const double h = log_error < 1 ? log_error + log_error * log_error : expm1(log_error);
        w[j] /= l;
        r[j] = w[j] * h;
        sums.least += w[j] / (1 + h);
        sums.h_max = h > sums.h_max ? h : sums.h_max;
    }
    return sums;
}

/* Pass 4: sum w h |v - o| and sum |v| of LANES dims. */
static void centred_sums(lanes *centred, lanes *magnitude, const double *wh, const lanes *v, const lanes *o,
                         int64_t n) {
    lanes sum = {0}, size = {0};
    for (int64_t j = 0; j < n; j++) {
        const lanes away = v[j] - *o, x = v[j];
        for (int l = 0; l < LANES; l++) sum[l] += wh[j] * fabs(away[l]);
        for (int l = 0; l < LANES; l++) size[l] += fabs(x[l]);
    }
    *centred = sum;
    *magnitude = size;
}

static double output_error(const struct attention_contract *c, const struct head_sums *h, int64_t n, double o,
                           double w, double s1, double centred, double magnitude) {
    const double unit = c->unit;
    const double depth = (double)(c->l_depth ? c->l_depth : n);
    const double moved = s1 * (h->h_max + c->p_unit * (1 + h->h_max)); /* how far the terms w v have moved */
    const double weights = centred / h->least;
    const double p = c->p_unit * (1 + h->h_max) * s1;
    const double sum =
        accumulator_bound(&c->pv, n, w + moved, s1 + moved) + (h->blocks + 1) * unit * (w + moved);
    const double denominator = (fabs(o) + weights) * ((depth + 8) * unit + (double)(n + 8) * UNIT_F64);
    const double tiny = c->unit > UNIT_F64 ? 0x1p-126 * magnitude : 0;
    return 1.01 * weights + (p + sum + tiny) / h->least + denominator;
}

/* Passes 3 and 4: o = sum w v with its condition sums, then E. */
static void weighted_values(struct scratch *s, const struct attention_args *a,
                            const struct attention_contract *c, const struct head_sums *heads, int n_heads,
                            int64_t stride, int64_t n, int64_t n_gathered, const struct ref_out *out,
                            int64_t at) {
    const int64_t D = a->head_dim;
    for (int64_t tile = 0; tile * LANES < D; tile++) {
        const lanes *v = s->v + tile * n_gathered;
        struct dot_sums sums[COLUMNS] = {{.y = {0}}};
        dot_continue(sums, s->w, stride, n_heads, v, n, out->e || out->s1);
        for (int h = 0; h < n_heads; h++) {
            const struct dot_sums *o = &sums[h];
            lanes centred = {0}, magnitude = {0};
            if (out->e) centred_sums(&centred, &magnitude, s->r + h * stride, v, &o->y, n);
            for (int64_t l = 0; l < LANES && tile * LANES + l < D; l++) {
                const double e = out->e && n ? output_error(c, &heads[h], n, o->y[l], o->high[l] - o->low[l],
                                                            o->s1[l], centred[l], magnitude[l])
                                             : 0;
                put(out, at + h * D + tile * LANES + l, o->y[l], e, o->s1[l]);
            }
        }
    }
}

static void attend(struct scratch *s, const struct attention_args *a, const struct attention_contract *c,
                   const struct task *task, int64_t token, int64_t n_gathered, const struct ref_out *out,
                   int64_t row0) {
    const int64_t D = a->head_dim, stride = round_up(n_gathered, LANES);
    const int64_t n = visible_keys(a, task->seq, token);
    const int64_t head_end = min_i64((task->kv_head + 1) * group_size(a), a->n_heads);
    for (int64_t head = task->kv_head * group_size(a); head < head_end; head += COLUMNS) {
        const int n_heads = (int)min_i64(COLUMNS, head_end - head);
        struct head_sums sums[COLUMNS];
        for (int h = 0; h < n_heads; h++)
            view_row(s->q + h * D, &a->q, token * a->q.stride[0] + (head + h) * a->q.stride[1], D);
        scores(s, a, c, n_heads, stride, n);
        for (int h = 0; h < n_heads; h++) {
            if (c->score_norm_error > 0) add_norm_error(s, a, c->score_norm_error, h, stride, n);
            sums[h] = weigh(s->w + h * stride, s->r + h * stride, c, n);
        }
        weighted_values(s, a, c, sums, n_heads, stride, n, n_gathered, out,
                        ((token - row0) * a->n_heads + head) * D);
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
        .k_norm = ref_alloc(keys * number),
        .q = ref_alloc(COLUMNS * dims * number),
        .w = ref_alloc(COLUMNS * keys * number),
        .r = ref_alloc(COLUMNS * keys * number),
    };
}

static void scratch_free(struct scratch *s) {
    free(s->row), free(s->k), free(s->v), free(s->k_norm), free(s->q), free(s->w), free(s->r);
}

void ref_attention(const struct call *call, const struct contract *contract, int64_t row0, int64_t row1,
                   const struct ref_out *out) {
    const struct attention_args *a = &call->u.attention;
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
            gather(&s, a, &tasks[i], n);
            for (int64_t t = tasks[i].first; t < tasks[i].end; t++)
                attend(&s, a, &contract->u.attention, &tasks[i], t, n, out, row0);
        }
        scratch_free(&s);
    }
    free(tasks);
}
