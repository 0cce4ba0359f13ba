/* Which tests are made of attention, over which rows, and which key is most likely off? Tests are of
 * all rows, of every head, and of queries that see about as many keys: what needs many keys is
 * diluted by short rows. */
/* SPDX-License-Identifier: MIT */
#include "reference/score_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Multiply-adds of one product with all values; of more, blocks of queries are sampled. */
#define SCORE_WORK 8e7

/* Of all rows, heads and buckets. */
static const struct pass first_pass = {
    .n_products = PRODUCTS,
    .direction = {SCORE_GAIN, SCORE_SCALE, SCORE_LAST_KEY, SCORE_OFFSET},
    .scan = true,
};

/* ---- one task, all tasks ---- */

static void look_at_task(struct task_sums *out, struct bench *b, const struct score_case *c,
                         const struct pass *pass) {
    const struct attention_args *const a = &c->call->u.attention;
    const struct attention_contract *const by = &c->contract->u.attention;
    const struct attention_task *const task = &out->task;
    const int64_t D = a->head_dim, group = attention_group(a), first_head = task->kv_head * group;
    keys_gather(&b->keys, a, task, out->n, by->score_norm_error > 0);
    bench_turn_values(b, D);
    for (int64_t token = task->first; token < task->end; token++) {
        const int64_t n = attention_visible(a, task->seq, token); /* one key: o is its value */
        for (int64_t head = first_head; n > 1 && head < min_i64(first_head + group, a->n_heads);
             head += COLUMNS) {
            const int n_heads = (int)min_i64(min_i64(COLUMNS, first_head + group - head), a->n_heads - head);
            struct head_sums sums[COLUMNS];
            struct output_factors factors[COLUMNS];
            keys_weigh(&b->keys, a, by, NULL, task, token, head, n_heads, n, true, sums);
            for (int h = 0; h < n_heads; h++) {
                factors[h] = output_factors(by, &sums[h], n);
                for (int64_t j = n; j % LANES; j++) b->keys.r[h * b->keys.stride + j] = 0;
            }
            bench_meet_values(b, factors, attention_path(by, n).slice, n_heads, D, n);
            for (int h = 0; h < n_heads; h++) {
                const int64_t index = token * a->n_heads + head + h;
                struct row_sums *const row = &out->row[(token - task->first) * group + head - first_head + h];
                struct row r = {.head = &sums[h], .n = n, .index = index, .h = h};
                row->head = head + h, row->keys = n;
                bench_row(row, b, c, pass, &factors[h], &r, index * D, out);
            }
        }
    }
}

static void run_pass(struct task_sums *tasks, int64_t n_tasks, const struct score_case *c,
                     const struct pass *pass) {
    const struct attention_args *const a = &c->call->u.attention;
    int64_t most_keys = 0;
    for (int64_t i = 0; i < n_tasks; i++) most_keys = max_i64(most_keys, tasks[i].n);
#pragma omp parallel
    {
        struct bench b = bench_make(most_keys, a->head_dim);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n_tasks; i++) look_at_task(&tasks[i], &b, c, pass);
        bench_free(&b);
    }
}

static void *zeroed(int64_t n, size_t size) {
    void *const p = ref_alloc((size_t)(n + 1) * size);
    memset(p, 0, (size_t)(n + 1) * size);
    return p;
}

/* The tasks of the blocks of queries that are looked at. */
static int64_t pick_tasks(struct task_sums **tasks, const struct score_case *c, struct score_report *report) {
    const struct attention_args *const a = &c->call->u.attention;
    const int64_t n_all = attention_tasks(NULL, a, 0, a->n_tokens), group = attention_group(a);
    const int64_t n_kv_heads = (a->n_heads + group - 1) / group, n_blocks = n_all / n_kv_heads;
    struct attention_task *const all = zeroed(n_all, sizeof *all);
    double work = 0;
    attention_tasks(all, a, 0, a->n_tokens);
    for (int64_t i = 0; i < n_all; i++)
        work += (double)(attention_visible(a, all[i].seq, all[i].end - 1) * (all[i].end - all[i].first) *
                         group * a->head_dim);
    const double share = work > SCORE_WORK ? SCORE_WORK / work : 1;
    const int64_t most = max_i64((int64_t)((double)n_blocks * share), 1);
    *tasks = zeroed(n_all, sizeof **tasks);
    report->of_rows = a->n_tokens;
    int64_t n = 0;
    for (int64_t i = 0; i < n_all; i++) {
        if (!score_samples(i / n_kv_heads, n_blocks, most)) continue;
        struct task_sums *const t = &(*tasks)[n++];
        t->task = all[i];
        t->n = attention_visible(a, all[i].seq, all[i].end - 1);
        t->n_rows = (all[i].end - all[i].first) * group;
        t->row = zeroed(t->n_rows, sizeof *t->row);
        t->pull = zeroed(t->n, sizeof *t->pull);
        t->noise = zeroed(t->n, sizeof *t->noise);
        if (all[i].kv_head == 0) report->rows += all[i].end - all[i].first;
    }
    free(all);
    return n;
}

static void free_tasks(struct task_sums *tasks, int64_t n) {
    for (int64_t i = 0; i < n; i++) free(tasks[i].row), free(tasks[i].pull), free(tasks[i].noise);
    free(tasks);
}

/* ---- the tests ---- */

/* How many share one rounding: equal rows of q, equal weights in a row, equal values. */
struct shared {
    double store, p;
};

static double hash_row(const double *x, int64_t n) {
    uint64_t hash = 14695981039346656037u;
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        hash = (hash ^ bits) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return 1 + (double)(hash >> 12) * 0x1p-52;
}

static struct shared find_shared(const struct score_case *c, const struct task_sums *tasks, int64_t n_tasks) {
    const struct attention_args *const a = &c->call->u.attention;
    const int64_t D = a->head_dim, group = attention_group(a);
    int64_t rows = 0, n = 0, m = 0, weights = 1;
    for (int64_t i = 0; i < n_tasks; i++) rows += tasks[i].n_rows;
    double *const q = zeroed(D, sizeof *q), *const hash = zeroed(rows, sizeof *hash);
    double *const values = zeroed(rows * D, sizeof *values);
    for (int64_t i = 0; i < n_tasks; i++)
        for (int64_t k = 0; k < tasks[i].n_rows; k++) {
            const int64_t token = tasks[i].task.first + k / group, head = tasks[i].row[k].head;
            if (!tasks[i].row[k].keys) continue;
            const int64_t at = (token * a->n_heads + head) * D;
            view_row(q, &a->q, token * a->q.stride[0] + head * a->q.stride[1], D);
            hash[m++] = hash_row(q, D);
            for (int64_t d = 0; d < D; d++)
                if (c->e[at + d] > 0) values[n++] = c->y[at + d];
            weights = max_i64(weights, tasks[i].row[k].equal_weights);
        }
    const struct shared s = {(double)score_multiplicity(values, n),
                             (double)(score_multiplicity(hash, m) * weights)};
    free(q), free(hash), free(values);
    return s;
}

/* Rows of one head, or that see [keys, 2 keys) keys; -1: any. */
static void test_rows(struct score_report *report, const struct task_sums *tasks, int64_t n_tasks,
                      const struct pass *pass, int d, struct score s, struct shared shared) {
    struct score_sums all = {0};
    for (int64_t i = 0; i < n_tasks; i++)
        for (int64_t k = 0; k < tasks[i].n_rows; k++) {
            const struct row_sums *const row = &tasks[i].row[k];
            if (s.head >= 0 && row->head != s.head) continue;
            if (s.keys >= 0 && (row->keys < s.keys || row->keys >= 2 * s.keys)) continue;
            score_add(&all, &row->of[d]);
        }
    s.direction = pass->direction[d];
    score_conclude(&s, &all, shared.store, shared.p);
    score_report_add(report, &s);
}

/* Buckets of visible keys that are not all rows. */
static void test_groups(struct score_report *report, const struct task_sums *tasks, int64_t n_tasks,
                        const struct attention_args *a, struct shared shared) {
    int64_t least = INT64_MAX, most = 0;
    for (int64_t i = 0; i < n_tasks; i++)
        for (int64_t k = 0; k < tasks[i].n_rows; k++) {
            least = min_i64(least, tasks[i].row[k].keys);
            most = max_i64(most, tasks[i].row[k].keys);
        }
    for (int d = 0; d <= PRODUCTS; d++) {
        test_rows(report, tasks, n_tasks, &first_pass, d, (struct score){.head = -1, .keys = -1}, shared);
        for (int64_t h = 0; h < a->n_heads && a->n_heads > 1; h++)
            test_rows(report, tasks, n_tasks, &first_pass, d, (struct score){.head = h, .keys = -1}, shared);
        for (int64_t keys = 1; keys <= most; keys *= 2)
            if (least < keys || 2 * keys <= most)
                test_rows(report, tasks, n_tasks, &first_pass, d, (struct score){.head = -1, .keys = keys},
                          shared);
    }
}

/* ---- the scan ---- */

struct candidate {
    int64_t seq, kv_head, key, n_keys;
    double rank;
};

/* Blocks of 1, 2, 4, ... keys of one kv head, aligned; pull and noise [n] are used up. */
static void rank_blocks(struct candidate *best, double *pull, double *noise, int64_t n, int64_t seq,
                        int64_t kv_head, struct score_report *report) {
    for (int64_t size = 1; n > 0; size *= 2) {
        report->tests += n;
        for (int64_t j = 0; j < n; j++) {
            const double rank = noise[j] > 0 ? fabs(pull[j]) / sqrt(noise[j]) : 0;
            if (rank > best->rank) *best = (struct candidate){seq, kv_head, j * size, size, rank};
        }
        for (int64_t j = 0; j < n / 2; j++) {
            pull[j] = pull[2 * j] + pull[2 * j + 1];
            noise[j] = noise[2 * j] + noise[2 * j + 1];
        }
        n /= 2;
    }
}

/* Tasks are in the order of sequences. Every block of keys of every kv head counts as a test. */
static struct candidate find_keys(const struct task_sums *tasks, int64_t n_tasks, int64_t n_kv_heads,
                                  struct score_report *report) {
    struct candidate best = {.key = -1};
    for (int64_t i = 0, end; i < n_tasks; i = end) {
        int64_t keys = 0;
        for (end = i; end < n_tasks && tasks[end].task.seq == tasks[i].task.seq; end++)
            keys = max_i64(keys, tasks[end].n);
        double *const pull = zeroed(n_kv_heads * keys, sizeof *pull);
        double *const noise = zeroed(n_kv_heads * keys, sizeof *noise);
        for (int64_t t = i; t < end; t++)
            for (int64_t j = 0, at = tasks[t].task.kv_head * keys; j < tasks[t].n; j++)
                pull[at + j] += tasks[t].pull[j], noise[at + j] += tasks[t].noise[j];
        for (int64_t g = 0; g < n_kv_heads; g++)
            rank_blocks(&best, pull + g * keys, noise + g * keys, keys, tasks[i].task.seq, g, report);
        free(pull), free(noise);
    }
    return best;
}

static void test_keys(struct score_report *report, struct task_sums *tasks, int64_t n_tasks,
                      const struct score_case *c, struct candidate best, struct shared shared) {
    const struct pass pass = {
        .n_products = 1, .direction = {SCORE_KEYS}, .key = best.key, .n_keys = best.n_keys};
    struct task_sums *const of_key = zeroed(n_tasks, sizeof *of_key);
    int64_t n = 0;
    for (int64_t i = 0; i < n_tasks; i++) {
        const struct attention_task *const t = &tasks[i].task;
        if (t->seq != best.seq || t->kv_head != best.kv_head || tasks[i].n <= best.key) continue;
        memset(tasks[i].row, 0, (size_t)tasks[i].n_rows * sizeof *tasks[i].row);
        of_key[n++] = tasks[i];
    }
    run_pass(of_key, n, c, &pass);
    const struct score s = {.head = -1,
                            .keys = -1,
                            .seq = best.seq,
                            .kv_head = best.kv_head,
                            .key = best.key,
                            .n_keys = best.n_keys};
    test_rows(report, of_key, n, &pass, 0, s, shared);
    free(of_key);
}

void score_attention(const struct score_case *c, struct score_report *report) {
    const struct attention_args *const a = &c->call->u.attention;
    const int64_t group = attention_group(a), of = a->n_tokens * a->n_heads * a->head_dim;
    struct task_sums *tasks;
    const int64_t n = pick_tasks(&tasks, c, report);
    struct pass pass = first_pass;
    for (int64_t i = 0; i < of; i++) pass.offset += fabs(c->y[i]) / (double)of;
    run_pass(tasks, n, c, &pass);
    const struct shared shared = find_shared(c, tasks, n);
    test_groups(report, tasks, n, a, shared);
    const struct candidate best = find_keys(tasks, n, (a->n_heads + group - 1) / group, report);
    if (best.key >= 0) test_keys(report, tasks, n, c, best, shared);
    free_tasks(tasks, n);
}
