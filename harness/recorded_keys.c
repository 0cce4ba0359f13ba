/* Which keys does a sequence of a later step begin behind? Those of the sequence whose last key lay
 * where the step's table has it; without a table, of the one that had as many. */
/* SPDX-License-Identifier: MIT */
#include "harness/recorded_keys.h"

#include <stdlib.h>
#include <string.h>

static const enum tensor_id caches[2] = {T_K_CACHE, T_V_CACHE};

static int64_t fresh(const struct batch *b, int64_t seq) {
    return b->query_start[seq + 1] - b->query_start[seq];
}
static int64_t behind(const struct batch *b, int64_t seq) { return b->kv_len[seq] - fresh(b, seq); }

void recorded_keys_batch(const struct recorded_batch *step, struct batch *batch) {
    if (step->start) {
        batch_of_positions(batch, step->positions, step->start, step->n_seqs);
        return;
    }
    int64_t *const start = memory_zeroed((size_t)step->n_tokens + 1, sizeof *start), n = 0;
    for (int64_t t = 1; t <= step->n_tokens; t++)
        if (t == step->n_tokens || step->positions[t] != step->positions[t - 1] + 1) start[++n] = t;
    batch_of_positions(batch, step->positions, start, n);
    free(start);
}

/* The one kept sequence that this one of the step goes on from; -1: there is none, or several may be it. */
static int64_t origin(const struct recorded_keys *keys, const struct recorded_run *r, int64_t seq) {
    const struct batch *const b = &r->batch;
    const struct recorded_key *const key = r->of_step.key;
    int64_t found = -1, alike = 0;
    for (int64_t i = 0; i < b->n_seqs; i++) alike += key ? i == seq : behind(b, i) == behind(b, seq);
    for (int64_t i = 0; i < keys->n; i++) {
        const struct kept_sequence *const kept = &keys->sequence[i];
        if (kept->length != behind(b, seq) || (key && kept->slot >= 0 && kept->slot != key[seq].before))
            continue;
        if (found >= 0) return -1;
        found = i;
    }
    return alike == 1 ? found : -1;
}

/* Inside of it, a kept sequence could go on as well. */
static bool may_be_two(const struct recorded_keys *keys, const struct recorded_run *r, int64_t seq) {
    const int32_t *const start = r->batch.query_start;
    bool two = false;
    for (int64_t i = 0; i < keys->n && !r->of_step.start; i++)
        for (int32_t t = start[seq] + 1; t < start[seq + 1]; t++)
            two |= keys->sequence[i].length == r->of_step.positions[t];
    return two;
}

static int64_t row_size(const struct recorded_run *r, int rank) {
    const struct layer_spec local = plan_local_spec(&r->crew.plan, &r->crew.spec, rank);
    return local.n_kv_heads * local.head_dim;
}

/* Rows of a sequence between its pages and a dense array. */
static void copy_rows(const struct recorded_run *r, int64_t seq, int64_t n, int64_t row, double *cache,
                      double *rows, bool into_cache) {
    for (int64_t i = 0; i < n; i++) {
        double *const at = cache + batch_slot(&r->batch, seq, i) * row;
        memcpy(into_cache ? at : rows + i * row, into_cache ? rows + i * row : at, (size_t)row * sizeof *at);
    }
}

static void put_sequence(struct recorded_run *r, const struct kept_sequence *from, int64_t seq, int rank) {
    for (int c = 0; c < 2; c++) {
        const int at = 2 * rank + c;
        const int64_t row = row_size(r, rank);
        copy_rows(r, seq, from->length, row, r->own[rank].of[caches[c]].memory.data, from->rows[at], true);
        if (from->radius[at])
            copy_rows(r, seq, from->length, row, r->radius[rank].of[caches[c]].memory.data, from->radius[at],
                      true);
    }
}

static bool is_known(const struct kept_sequence *s, int64_t tp) {
    for (int i = 0; i < 2 * (int)tp; i++)
        if (!s->rows[i]) return false;
    return true;
}

static void open_caches(struct recorded_run *r, int rank) {
    for (int c = 0; c < 2; c++) {
        const int64_t count = slice_count(&r->crew.plan, caches[c], rank);
        dtype_poison(store_renew(&r->own[rank], caches[c], DTYPE_F64, count), DTYPE_F64, count);
        store_renew(&r->radius[rank], caches[c], DTYPE_F64, count);
    }
}

static bool is_padding(const struct recorded_run *r, int64_t token) {
    return r->of_step.padding && r->of_step.padding[token];
}

void recorded_keys_put(const struct recorded_keys *keys, struct recorded_run *r) {
    if (r->crew.part != PART_ATTENTION) return;
    for (int64_t t = 0; t < r->batch.n_tokens; t++)
        if (is_padding(r, t)) r->masked[t] = true, r->n_masked++;
    for (int rank = 0; rank < r->crew.plan.tp; rank++) open_caches(r, rank);
    for (int64_t seq = 0; seq < r->batch.n_seqs; seq++) {
        const bool two = may_be_two(keys, r, seq);
        if (!behind(&r->batch, seq) && !two) continue;
        const int64_t from = two ? -1 : origin(keys, r, seq);
        if (from >= 0 && is_known(&keys->sequence[from], r->crew.plan.tp)) {
            for (int rank = 0; rank < r->crew.plan.tp; rank++)
                put_sequence(r, &keys->sequence[from], seq, rank);
            continue;
        }
        for (int32_t t = r->batch.query_start[seq]; t < r->batch.query_start[seq + 1]; t++)
            if (!r->masked[t]) r->masked[t] = true, r->n_masked++;
    }
}

/* ---- after a step ---- */

static void sequence_free(struct kept_sequence *s, int64_t tp) {
    for (int i = 0; i < 2 * (int)tp; i++) free(s->rows[i]), free(s->radius[i]);
    free(s->rows), free(s->radius);
    *s = (struct kept_sequence){0};
}

static struct kept_sequence take_sequence(const struct recorded_run *r, int64_t seq, int64_t tp) {
    const int64_t length = r->batch.kv_len[seq];
    struct kept_sequence s = {.length = length,
                              .slot = r->of_step.key ? r->of_step.key[seq].last : -1,
                              .rows = memory_zeroed((size_t)(2 * tp), sizeof *s.rows),
                              .radius = memory_zeroed((size_t)(2 * tp), sizeof *s.radius)};
    for (int rank = 0; rank < tp && !r->masked[r->batch.query_start[seq]]; rank++)
        for (int c = 0; c < 2; c++) {
            const struct stored *const from[2] = {&r->own[rank].of[caches[c]],
                                                  &r->radius[rank].of[caches[c]]};
            double **const to[2] = {&s.rows[2 * rank + c], &s.radius[2 * rank + c]};
            const int64_t row = row_size(r, rank);
            for (int i = 0; i < 2; i++) {
                if (!from[i]->count || r->unknown[rank * T_COUNT + (int)caches[c]].text[0]) continue;
                *to[i] = memory_zeroed((size_t)(length * row), sizeof(double));
                copy_rows(r, seq, length, row, from[i]->memory.data, *to[i], false);
            }
        }
    return s;
}

void recorded_keys_take(struct recorded_keys *keys, const struct recorded_run *r, int64_t tp) {
    if (r->crew.part != PART_ATTENTION) return;
    struct kept_sequence *const grown = memory_zeroed((size_t)(keys->n + r->batch.n_seqs), sizeof *grown);
    int64_t n = 0;
    bool *const gone = memory_zeroed((size_t)keys->n + 1, sizeof *gone);
    for (int64_t seq = 0; seq < r->batch.n_seqs; seq++) {
        const int64_t from = behind(&r->batch, seq) ? origin(keys, r, seq) : -1;
        if (from >= 0) gone[from] = true;
    }
    for (int64_t i = 0; i < keys->n; i++)
        if (gone[i])
            sequence_free(&keys->sequence[i], tp);
        else
            grown[n++] = keys->sequence[i];
    for (int64_t seq = 0; seq < r->batch.n_seqs; seq++)
        if (!is_padding(r, r->batch.query_start[seq])) grown[n++] = take_sequence(r, seq, tp);
    free(gone);
    free(keys->sequence);
    *keys = (struct recorded_keys){grown, n};
}

void recorded_keys_free(struct recorded_keys *keys, int64_t tp) {
    for (int64_t i = 0; i < keys->n; i++) sequence_free(&keys->sequence[i], tp);
    free(keys->sequence);
    *keys = (struct recorded_keys){0};
}
