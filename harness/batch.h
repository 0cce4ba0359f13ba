/* batch - the sequences of one case: how many new tokens each has, how many keys are cached, which
 * pages hold them. Every kernel gets a sequence table and a shuffled page table, whatever the
 * phase. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_BATCH_H
#define HARNESS_BATCH_H

#include "harness/case.h"

enum { PAGE_SIZE = 16 };

/* Of B sequences, sequence b has, of the case's tokens and cached keys (decode: one token):
 * ragged  b mod 3 fewer: so that no size divides everything;
 * equal   all of them: what kernels for uniform batches are picked for;
 * spread  b/(B - 1) of the tokens, at least one, behind (B - 1 - b)/(B - 1) of the keys: from a
 *         decode step to a prefill. In decode b/(B - 1) of the keys, from none on. */

struct batch {
    int64_t n_seqs, n_tokens, n_pages, max_pages; /* max_pages: width of the page table */
    int64_t max_queries, max_kv, max_cached, n_positions;
    int32_t *query_start; /* [n_seqs + 1] first query row of each sequence */
    int32_t *kv_len;      /* [n_seqs] keys, the new ones included */
    int32_t *page_table;  /* [n_seqs, max_pages], poison behind a sequence's last page */
    int32_t *positions;   /* [n_tokens] */
    int32_t *slots;       /* [n_tokens] page * PAGE_SIZE + slot where the new key goes */
};
int64_t batch_tokens(const struct check_case *c); /* n_tokens, from the sizes alone */
void batch_build(struct batch *batch, const struct check_case *c, const struct fill *fill);
/* Of tokens that somebody else's run had: sequence b has rows start[b] to start[b + 1] - 1, whose positions
 * (>= 0) rise by one, and its keys are all those up to its last position. start [n_seqs + 1]. */
void batch_of_positions(struct batch *batch, const int32_t *positions, const int64_t *start, int64_t n_seqs);
void batch_free(struct batch *batch);
/* An index tensor (positions, slots, page table, query starts, key counts), dense; NULL: not the
 * batch's. */
const int32_t *batch_tensor(const struct batch *batch, enum tensor_id id);
/* The axes that a batch fixes: tokens, sequences, positions, pages, their slots, entries of the
 * page table. */
void batch_sizes(const struct batch *batch, int64_t size[AXIS_COUNT]);
/* Cache slot of key `position` of sequence b. */
int64_t batch_slot(const struct batch *batch, int64_t b, int64_t position);

#endif
