/* Which keys has attention left out, or taken twice? The weights of the sampled rows are computed
 * once; then y is made again of other keys than it should. */
/* SPDX-License-Identifier: MIT */
#include "harness/relate_keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST_WORK 5e7 /* products of a query and a key */

/* One sample's keys: the visible ones, and the next where the sequence has one. */
struct row {
    int64_t n_visible, n;
    double *weight, *value; /* [n] exp(score - largest), v in the sample's dim */
    double sum, total;      /* of weight * value and of weight, over the visible ones */
};
struct rows {
    const struct evidence *ev;
    const struct attention_args *args;
    struct row row[SAMPLES];
};

static int64_t load_index(const struct view *v, int64_t i) {
    return (int64_t)dtype_load(v->data, DTYPE_I32, i);
}

static int64_t sequence_of(const struct attention_args *a, int64_t token) {
    int64_t b = 0;
    while (b + 1 < a->n_seqs && load_index(&a->query_start, b + 1) <= token) b++;
    return b;
}

static struct row row_of(const struct attention_args *a, int64_t index) {
    const int64_t dim = index % a->head_dim, head = index / a->head_dim % a->n_heads;
    const int64_t token = index / a->head_dim / a->n_heads, g = head / (a->n_heads / a->n_kv_heads);
    const int64_t b = sequence_of(a, token), kv = load_index(&a->kv_len, b);
    const int64_t behind = load_index(&a->query_start, b + 1) - 1 - token;
    struct row r = {.n_visible = a->causal ? kv - behind : kv};
    r.n = r.n_visible < kv ? r.n_visible + 1 : r.n_visible;
    r.weight = memory_zeroed((size_t)r.n, sizeof(double));
    r.value = memory_zeroed((size_t)r.n, sizeof(double));
    double largest = -INFINITY;
    for (int64_t j = 0; j < r.n; j++) {
        const int64_t page = load_index(&a->page_table, b * a->page_table.stride[0] + j / a->page_size);
        const int64_t slot = j % a->page_size;
        const struct view *const k = &a->k_cache, *const v = &a->v_cache;
        for (int64_t d = 0; d < a->head_dim; d++)
            r.weight[j] += evidence_load(&a->q, token * a->q.stride[0] + head * a->q.stride[1] + d) *
                           evidence_load(k, page * k->stride[0] + slot * k->stride[1] + g * k->stride[2] + d);
        r.weight[j] *= a->scale;
        largest = fmax(largest, r.weight[j]);
        r.value[j] = evidence_load(v, page * v->stride[0] + slot * v->stride[1] + g * v->stride[2] + dim);
    }
    for (int64_t j = 0; j < r.n; j++) {
        r.weight[j] = exp(r.weight[j] - largest);
        if (j < r.n_visible) r.sum += r.weight[j] * r.value[j], r.total += r.weight[j];
    }
    return r;
}

/* How often key j of n visible ones is taken; pages of `page` keys. */
typedef int times_fn(int64_t j, int64_t n, int64_t page);
static int no_last(int64_t j, int64_t n, int64_t page) { return (void)page, j < n - 1; }
static int no_first(int64_t j, int64_t n, int64_t page) { return (void)page, j > 0 && j < n; }
static int last_twice(int64_t j, int64_t n, int64_t page) { return (void)page, (j < n) + (j == n - 1); }
static int one_more(int64_t j, int64_t n, int64_t page) { return (void)j, (void)n, (void)page, 1; }
static int no_last_page(int64_t j, int64_t n, int64_t page) { return j < (n - 1) / page * page; }
static int no_first_page(int64_t j, int64_t n, int64_t page) { return j >= page && j < n; }
static int no_page_opener(int64_t j, int64_t n, int64_t page) { return j % page && j < n; }
static int even_weights(int64_t j, int64_t n, int64_t page) { return (void)page, j < n; }
static const struct {
    const char *words;
    times_fn *times;
    bool even; /* of keys that weigh the same */
} choices[] = {{"the last key of every query is missing", no_last, false},
               {"the first key is missing", no_first, false},
               {"the last key of every query is taken twice", last_twice, false},
               {"every query sees one key too many", one_more, false},
               {"the keys of every query's last page are missing", no_last_page, false},
               {"the keys of the first page are missing", no_first_page, false},
               {"the first key of every page is missing", no_page_opener, false},
               {"every visible key weighs the same", even_weights, true}};

static bool made_again(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                       struct guess *out) {
    *out = (struct guess){c->input[s - ev->sample], 2 * s->e};
    return isfinite(out->y);
}

static bool keys_as(const struct rows *rows, times_fn *times, bool even) {
    double y[SAMPLES];
    for (int i = 0; i < rows->ev->n; i++) {
        const struct row *const r = &rows->row[i];
        double sum = 0, total = 0;
        for (int64_t j = 0; j < r->n; j++) {
            const double w = times(j, r->n_visible, rows->args->page_size) * (even ? 1 : r->weight[j]);
            if (w == 0) continue; /* what it does not see may be NaN */
            sum += w * r->value[j];
            total += w;
        }
        y[i] = sum / total;
    }
    return evidence_fits(rows->ev, made_again, &(struct candidate){.input = y});
}

/* One key less (times -1) or once more (1), where the query sees it. */
static bool with_key(const struct rows *rows, int64_t key, double times) {
    double y[SAMPLES];
    for (int i = 0; i < rows->ev->n; i++) {
        const struct row *const r = &rows->row[i];
        const double w = key < r->n_visible ? times * r->weight[key] : 0;
        y[i] = (r->sum + (w == 0 ? 0 : w * r->value[key])) / (r->total + w);
    }
    return evidence_fits(rows->ev, made_again, &(struct candidate){.input = y});
}

static bool find(const struct rows *rows, char *text, size_t size) {
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (!keys_as(rows, choices[i].times, choices[i].even)) continue;
        snprintf(text, size, "%s", choices[i].words);
        return true;
    }
    for (int64_t key = 0; key < rows->args->max_kv; key++)
        for (double times = -1; times <= 1; times += 2) {
            if (!with_key(rows, key, times)) continue;
            snprintf(text, size, "key %lld is %s", (long long)key, times < 0 ? "missing" : "taken twice");
            return true;
        }
    return false;
}

bool relate_keys(const struct evidence *ev, char *text, size_t size) {
    const struct attention_args *const a = &ev->outcome->call.u.attention;
    struct rows rows = {.ev = ev, .args = a};
    if ((double)a->max_kv * (double)a->head_dim * ev->n > MOST_WORK) return false;
    for (int i = 0; i < ev->n; i++) rows.row[i] = row_of(a, ev->sample[i].index);
    const bool found = find(&rows, text, size);
    for (int i = 0; i < ev->n; i++) free(rows.row[i].weight), free(rows.row[i].value);
    return found;
}
