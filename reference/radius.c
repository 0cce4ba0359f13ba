/* How far is a score or a weighted value off, when q, k and v are known to within radii only? Read
 * straight from the call, key by key: radii are for small calls. The other ops add their radii
 * where they add their errors. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>

void radius_row(double *dst, const double *const *radius, int i, const struct view *v, int64_t first,
                int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        const bool owned = v->data && first + k >= v->lo && first + k < v->hi;
        dst[k] = !has_radius(radius, i) ? 0 : owned ? radius[i][first + k] : (double)NAN;
    }
}

/* First element of key j of a sequence in a cache; -1: the page table leads nowhere. */
static int64_t key_at(const struct attention_args *a, const struct view *cache, int64_t seq, int64_t j,
                      int64_t kv_head) {
    const int64_t page = view_index(&a->page_table, seq * a->page_table.stride[0] + j / a->page_size);
    if (page < 0 || page >= a->n_pages) return -1;
    return page * cache->stride[0] + j % a->page_size * cache->stride[1] + kv_head * cache->stride[2];
}

void score_radii(double *r, const struct attention_args *a, const double *const *radius, int64_t seq,
                 int64_t token, int64_t head, int64_t n) {
    const int64_t D = a->head_dim, kv_head = head / max_i64(a->n_heads / a->n_kv_heads, 1);
    const int64_t at = token * a->q.stride[0] + head * a->q.stride[1];
    double *q = ref_alloc((size_t)D * 4 * sizeof *q), *k = q + D, *rq = k + D, *rk = rq + D;
    view_row(q, &a->q, at, D);
    radius_row(rq, radius, 0, &a->q, at, D);
    for (int64_t j = 0; j < n; j++) {
        const int64_t key = key_at(a, &a->k_cache, seq, j, kv_head);
        if (key < 0) continue;
        view_row(k, &a->k_cache, key, D);
        radius_row(rk, radius, 1, &a->k_cache, key, D);
        double sum = 0;
        for (int64_t d = 0; d < D; d++) sum += fabs(q[d]) * rk[d] + rq[d] * (fabs(k[d]) + rk[d]);
        r[j] += fabs(a->scale) * sum;
    }
    free(q);
}

void value_radii(double *moved, const struct attention_args *a, const double *const *radius, int64_t seq,
                 int64_t kv_head, const double *w, int64_t n) {
    double *rv = ref_alloc((size_t)a->head_dim * sizeof *rv);
    for (int64_t d = 0; d < a->head_dim; d++) moved[d] = 0;
    for (int64_t j = 0; j < n; j++) {
        const int64_t key = key_at(a, &a->v_cache, seq, j, kv_head);
        if (key < 0) continue;
        radius_row(rv, radius, 2, &a->v_cache, key, a->head_dim);
        for (int64_t d = 0; d < a->head_dim; d++) moved[d] += w[j] * rv[d];
    }
    free(rv);
}
