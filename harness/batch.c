/* Which tokens and keys does a case have, and on which pages? */
/* SPDX-License-Identifier: MIT */
#include "harness/batch.h"

#include <stdlib.h>

#include "harness/memory.h"

struct lengths_of {
    int64_t fresh, cached;
};

static int64_t count_seqs(const struct check_case *c) {
    return c->phase == PHASE_DECODE ? c->tokens : c->seqs;
}

/* What sequence b has of n. */
static int64_t share(const struct check_case *c, int64_t b, int64_t n, bool falling) {
    const int64_t last = count_seqs(c) - 1;
    if (c->lengths == LENGTHS_RAGGED) return n > b % 3 ? n - b % 3 : 0;
    if (c->lengths == LENGTHS_EQUAL || last == 0) return n;
    return n * (falling ? last - b : b) / last;
}

static struct lengths_of sequence(const struct check_case *c, int64_t b) {
    if (c->phase == PHASE_DECODE) return (struct lengths_of){1, share(c, b, c->cached, false)};
    const int64_t fresh = share(c, b, c->tokens, false);
    const int64_t cached = c->lengths == LENGTHS_SPREAD ? share(c, b, c->cached, true) : c->cached;
    return (struct lengths_of){fresh > 0 ? fresh : 1, c->phase == PHASE_PREFILL ? 0 : cached};
}

static int64_t pages_for(int64_t keys) { return (keys + PAGE_SIZE - 1) / PAGE_SIZE; }

int64_t batch_slot(const struct batch *batch, int64_t b, int64_t position) {
    return (int64_t)batch->page_table[b * batch->max_pages + position / PAGE_SIZE] * PAGE_SIZE +
           position % PAGE_SIZE;
}

int64_t batch_tokens(const struct check_case *c) {
    const int64_t n_seqs = count_seqs(c);
    int64_t n = 0;
    for (int64_t b = 0; b < n_seqs; b++) n += sequence(c, b).fresh;
    return n;
}

static void count_sequence(struct batch *batch, struct lengths_of s) {
    const int64_t b = batch->n_seqs++, keys = s.fresh + s.cached;
    batch->query_start[b + 1] = batch->query_start[b] + (int32_t)s.fresh;
    batch->kv_len[b] = (int32_t)keys;
    batch->n_pages += pages_for(keys);
    if (s.fresh > batch->max_queries) batch->max_queries = s.fresh;
    if (s.cached > batch->max_cached) batch->max_cached = s.cached;
    if (keys > batch->max_kv) batch->max_kv = keys;
}

static void finish_counts(struct batch *batch) {
    batch->n_tokens = batch->query_start[batch->n_seqs];
    batch->n_positions = batch->max_kv;
    batch->max_pages = pages_for(batch->max_kv) + 1; /* one column that nobody may read */
    batch->n_pages += 2;                             /* two pages that belong to nobody */
}

static void measure(struct batch *batch, const struct check_case *c) {
    const int64_t n_seqs = count_seqs(c);
    batch->query_start = memory_zeroed((size_t)n_seqs + 1, sizeof(int32_t));
    batch->kv_len = memory_zeroed((size_t)n_seqs, sizeof(int32_t));
    for (int64_t b = 0; b < n_seqs; b++) count_sequence(batch, sequence(c, b));
    finish_counts(batch);
}

/* Where every token stands, and which of the shuffled pages are whose. */
static void lay_pages(struct batch *batch, const int32_t *shuffled) {
    int64_t next = 0;
    dtype_poison(batch->page_table, DTYPE_I32, batch->n_seqs * batch->max_pages);
    for (int64_t b = 0; b < batch->n_seqs; b++) {
        for (int64_t p = 0; p < pages_for(batch->kv_len[b]); p++)
            batch->page_table[b * batch->max_pages + p] = shuffled[next++];
        const int64_t first = batch->query_start[b], n = batch->query_start[b + 1] - first;
        for (int64_t i = 0; i < n; i++) {
            const int64_t position = batch->kv_len[b] - n + i;
            batch->positions[first + i] = (int32_t)position;
            batch->slots[first + i] = (int32_t)batch_slot(batch, b, position);
        }
    }
}

static void make_tables(struct batch *batch) {
    batch->page_table = memory_zeroed((size_t)(batch->n_seqs * batch->max_pages), sizeof(int32_t));
    batch->positions = memory_zeroed((size_t)batch->n_tokens, sizeof(int32_t));
    batch->slots = memory_zeroed((size_t)batch->n_tokens, sizeof(int32_t));
}

void batch_build(struct batch *batch, const struct check_case *c, const struct fill *fill) {
    *batch = (struct batch){0};
    measure(batch, c);
    make_tables(batch);
    int32_t *const shuffled = memory_zeroed((size_t)batch->n_pages, sizeof(int32_t));
    fill_permutation(fill, batch->n_pages, shuffled);
    lay_pages(batch, shuffled);
    free(shuffled);
}

void batch_of_positions(struct batch *batch, const int32_t *positions, const int64_t *start, int64_t n_seqs) {
    *batch = (struct batch){0};
    batch->query_start = memory_zeroed((size_t)n_seqs + 1, sizeof(int32_t));
    batch->kv_len = memory_zeroed((size_t)n_seqs, sizeof(int32_t));
    for (int64_t b = 0; b < n_seqs; b++)
        count_sequence(batch, (struct lengths_of){start[b + 1] - start[b], positions[start[b]]});
    finish_counts(batch);
    make_tables(batch);
    int32_t *const in_order = memory_zeroed((size_t)batch->n_pages, sizeof(int32_t));
    for (int64_t p = 0; p < batch->n_pages; p++) in_order[p] = (int32_t)p;
    lay_pages(batch, in_order);
    free(in_order);
}

const int32_t *batch_tensor(const struct batch *b, enum tensor_id id) {
    const struct {
        enum tensor_id id;
        const int32_t *data;
    } made[] = {{T_POSITIONS, b->positions},
                {T_SLOTS, b->slots},
                {T_PAGE_TABLE, b->page_table},
                {T_QUERY_START, b->query_start},
                {T_KV_LEN, b->kv_len}};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        if (made[i].id == id) return made[i].data;
    return NULL;
}

void batch_sizes(const struct batch *batch, int64_t size[AXIS_COUNT]) {
    size[AXIS_T] = batch->n_tokens;
    size[AXIS_B] = batch->n_seqs;
    size[AXIS_P] = batch->n_positions;
    size[AXIS_PAGE] = batch->n_pages;
    size[AXIS_SLOT] = PAGE_SIZE;
    size[AXIS_ENTRY] = batch->max_pages;
}

void batch_free(struct batch *batch) {
    free(batch->query_start);
    free(batch->kv_len);
    free(batch->page_table);
    free(batch->positions);
    free(batch->slots);
    *batch = (struct batch){0};
}
