/* Mistakes inside attention: the mask, the scale, the map of heads, the page table, and how slices of
 * the keys are merged. */
/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "harness/batch.h"
#include "harness/mistake.h"
#include "harness/mutants/mutants.h"
#include "reference/plain.h"

enum { SLICE = PAGE_SIZE, SLICES = 4 }; /* keys of a slice where they are so long; how many where so many */

static int64_t integer(const struct view *v, int64_t i) { return (int64_t)dtype_load(v->data, v->dtype, i); }

/* ---- one query row ---- */

struct query {
    int64_t row, seq, first; /* first: row of the sequence's first query */
    int64_t n_keys, sees;    /* of the sequence; of them this row's */
};

static struct query query_at(const struct attention_args *a, int64_t row) {
    struct query q = {.row = row};
    while (integer(&a->query_start, q.seq + 1) <= row) q.seq++;
    q.first = integer(&a->query_start, q.seq);
    q.n_keys = integer(&a->kv_len, q.seq);
    q.sees = a->causal ? q.n_keys - (integer(&a->query_start, q.seq + 1) - 1 - row) : q.n_keys;
    return q;
}

/* Of kv head g and key j; d = 0. */
static int64_t cache_at(const struct attention_args *a, const struct view *cache, const struct query *q,
                        int64_t g, int64_t j) {
    const int64_t page = integer(&a->page_table, q->seq * a->page_table.stride[0] + j / a->page_size);
    return page * cache->stride[0] + j % a->page_size * cache->stride[1] + g * cache->stride[2];
}

/* Softmax over keys first..end of kv head g, [D] into out; returns the logarithm of the sum of the
 * weights, -inf without a key. */
static double attend(const struct attention_args *a, const struct query *q, int64_t h, int64_t g,
                     int64_t first, int64_t end, double *out) {
    double most = -INFINITY, sum = 0;
    for (int64_t d = 0; d < a->head_dim; d++) out[d] = 0;
    for (int64_t j = first; j < end; j++) {
        const int64_t k = cache_at(a, &a->k_cache, q, g, j), v = cache_at(a, &a->v_cache, q, g, j),
                      at = q->row * a->q.stride[0] + h * a->q.stride[1];
        double score = 0;
        for (int64_t d = 0; d < a->head_dim; d++)
            score += dtype_load(a->q.data, a->q.dtype, at + d) *
                     dtype_load(a->k_cache.data, a->k_cache.dtype, k + d);
        score *= a->scale;
        const double old = score > most ? exp(most - score) : 1;
        if (score > most) most = score;
        const double weight = exp(score - most);
        sum = sum * old + weight;
        for (int64_t d = 0; d < a->head_dim; d++)
            out[d] = out[d] * old + weight * dtype_load(a->v_cache.data, a->v_cache.dtype, v + d);
    }
    for (int64_t d = 0; d < a->head_dim && sum > 0; d++) out[d] /= sum;
    return sum > 0 ? most + log(sum) : -INFINITY;
}

/* What `head` makes of every head of every row, [D] each, in the place of the right values. */
static void each_head(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out,
                      void (*head)(const struct attention_args *a, const struct query *q, int64_t h,
                                   double *y)) {
    const struct attention_args *const a = &m->call.u.attention;
    for (int64_t row = row0; row < row1; row++) {
        const struct query q = query_at(a, row);
        for (int64_t h = 0; h < a->n_heads; h++)
            head(a, &q, h, out->y + ((row - row0) * a->n_heads + h) * a->head_dim);
    }
}

static bool in_attention(struct mistake *m) { return m->call.op == OP_ATTENTION; }
static int64_t kv_head(const struct attention_args *a, int64_t h) { return h / (a->n_heads / a->n_kv_heads); }

/* ---- mask, scale, heads ---- */

/* Query i at key position i: as if nothing was cached. */
static bool align_top_left(struct mistake *m) {
    struct attention_args *const a = &m->call.u.attention;
    bool changed = false;
    if (m->call.op != OP_ATTENTION || !a->causal || !mistake_copy(m, &a->kv_len, a->n_seqs)) return false;
    for (int64_t b = 0; b < a->n_seqs; b++) {
        const int64_t fresh = integer(&a->query_start, b + 1) - integer(&a->query_start, b);
        changed |= fresh != integer(&a->kv_len, b);
        dtype_store(a->kv_len.data, DTYPE_I32, b, (double)fresh);
    }
    return changed;
}

static void own_keys_only(const struct attention_args *a, const struct query *q, int64_t h, double *y) {
    const int64_t cached = q->sees - 1 - (q->row - q->first);
    if (a->causal && cached > 0) attend(a, q, h, kv_head(a, h), cached, q->sees, y);
}
static void skip_cached(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    each_head(m, row0, row1, out, own_keys_only);
}

static void lose_own(const struct attention_args *a, const struct query *q, int64_t h, double *y) {
    if (q->sees > 1) attend(a, q, h, kv_head(a, h), 0, q->sees - 1, y);
}
static void lose_own_key(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    each_head(m, row0, row1, out, lose_own);
}

static void lose_first(const struct attention_args *a, const struct query *q, int64_t h, double *y) {
    if (q->sees > 1) attend(a, q, h, kv_head(a, h), 1, q->sees, y);
}
static void lose_first_key(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    each_head(m, row0, row1, out, lose_first);
}

static void tiled_head(const struct attention_args *a, const struct query *q, int64_t h, double *y) {
    if (h % a->n_kv_heads != kv_head(a, h)) attend(a, q, h, h % a->n_kv_heads, 0, q->sees, y);
}
static void tile_heads(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    each_head(m, row0, row1, out, tiled_head);
}

static double hidden_scale(const struct layer_spec *s) {
    return 1 / sqrt((double)s->hidden / (double)s->n_heads);
}
static bool scale_of_hidden(struct call *call, const struct layer_spec *whole,
                            const struct layer_spec *local) {
    const double scale = hidden_scale(whole);
    (void)local;
    if (call->op != OP_ATTENTION || call->u.attention.scale == scale) return false;
    call->u.attention.scale = scale;
    return true;
}

static bool no_scale(struct call *call, const struct layer_spec *whole, const struct layer_spec *local) {
    (void)whole, (void)local;
    if (call->op != OP_ATTENTION || call->u.attention.scale == 1) return false;
    call->u.attention.scale = 1;
    return true;
}

static void scale_plain_of_hidden(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->attn_scale = hidden_scale(spec);
}
static void scale_plain_by_1(struct plain_layer *l, struct layer_spec *spec) {
    (void)l;
    spec->attn_scale = 1;
}

/* ---- pages ---- */

/* 0 times what nobody has written, where the last page is not full. */
static void read_tail(const struct attention_args *a, const struct query *q, int64_t h, double *y) {
    const int64_t end = (q->n_keys + a->page_size - 1) / a->page_size * a->page_size;
    for (int64_t j = q->n_keys; j < end; j++) {
        const int64_t at = cache_at(a, &a->v_cache, q, kv_head(a, h), j);
        for (int64_t d = 0; d < a->head_dim; d++)
            y[d] += 0 * dtype_load(a->v_cache.data, a->v_cache.dtype, at + d);
    }
}
static void read_tails(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    each_head(m, row0, row1, out, read_tail);
}

static bool narrow_pages(struct mistake *m) {
    struct attention_args *const a = &m->call.u.attention;
    const int64_t n = a->n_seqs * a->page_table.stride[0];
    bool changed = false;
    if (m->call.op != OP_ATTENTION || !mistake_copy(m, &a->page_table, n)) return false;
    int32_t *const page = a->page_table.data;
    for (int64_t i = 0; i < n; i++) {
        changed |= page[i] > 0xff;
        if (page[i] > 0xff) page[i] &= 0xff;
    }
    return changed;
}

/* ---- slices ---- */

/* 0/0, merged with weight exp(-inf): as many slices as the longest sequence fills. */
static void merge_empty(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const struct attention_args *const a = &m->call.u.attention;
    const int64_t slice = (a->max_kv + SLICES - 1) / SLICES, width = a->n_heads * a->head_dim;
    for (int64_t row = row0; row < row1; row++) {
        if ((SLICES - 1) * slice < query_at(a, row).n_keys) continue;
        for (int64_t c = 0; c < width; c++) out->y[(row - row0) * width + c] = (double)NAN;
    }
}

/* The weight of a slice is 2^lse, and lse is its natural logarithm: or the other way round. */
static void merged_base_2(const struct attention_args *a, const struct query *q, int64_t h, double *y) {
    double part[CONFIG_MAX_HEAD_DIM], most = -INFINITY, sum = 0;
    if (q->sees <= SLICE) return;
    for (int64_t d = 0; d < a->head_dim; d++) y[d] = 0;
    for (int64_t first = 0; first < q->sees; first += SLICE) {
        const int64_t end = first + SLICE < q->sees ? first + SLICE : q->sees;
        const double lse = attend(a, q, h, kv_head(a, h), first, end, part) / log(2);
        const double old = lse > most ? exp(most - lse) : 1;
        if (lse > most) most = lse;
        const double weight = exp(lse - most);
        sum = sum * old + weight;
        for (int64_t d = 0; d < a->head_dim; d++) y[d] = y[d] * old + weight * part[d];
    }
    for (int64_t d = 0; d < a->head_dim; d++) y[d] /= sum;
}
static void merge_base_2(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    each_head(m, row0, row1, out, merged_base_2);
}

#define IN_KERNEL .edge = EDGE_KERNEL, .part = PART_ATTENTION, .unsharded = true
const struct mutant mutants_of_softmax[] = {
    {.name = "causal-top-left",
     .source = "onnx PR #8068, flash-attention PR #436",
     .describes = "the causal mask counts from the first key, as if nothing was cached",
     IN_KERNEL,
     .hooks.inside = align_top_left,
     .exposes = "tiny/attention:tp=1,phase=decode,tokens=1,cached=1",
     .clean = "tiny/attention:tp=1,tokens=9"},
    {.name = "cached-keys-skipped",
     .source = "gpt-oss PR #196",
     .describes = "the loop over the keys begins at the first new one",
     IN_KERNEL,
     .hooks.inside = in_attention,
     .hooks.stores = skip_cached,
     .exposes = "tiny/attention:tp=1,phase=chunked,tokens=3,cached=20",
     .clean = "tiny/attention:tp=1,tokens=9"},
    {.name = "own-key-lost",
     .source = A_SLIP,
     .describes = "a query sees the keys before it, not its own",
     IN_KERNEL,
     .hooks.inside = in_attention,
     .hooks.stores = lose_own_key,
     .exposes = "tiny/attention:tp=1,phase=decode,tokens=3,cached=40",
     .clean = "tiny/attention:tp=1,tokens=1"},
    {.name = "first-key-lost",
     .source = A_SLIP,
     .describes = "the loop over the keys begins at the second one",
     IN_KERNEL,
     .hooks.inside = in_attention,
     .hooks.stores = lose_first_key,
     .exposes = "tiny/attention:tp=1,phase=decode,tokens=3,cached=40",
     .clean = "tiny/attention:tp=1,tokens=1"},
    {.name = "kv-heads-tiled",
     .source = "jax-js PR #180",
     .describes = "head h reads kv head h % G, not h / (H/G)",
     IN_KERNEL,
     .hooks.inside = in_attention,
     .hooks.stores = tile_heads,
     .exposes = "tiny/attention:tp=1,tokens=5",
     .clean = "tiny/attention:tp=4,tokens=5,kv=8"},
    {.name = "scale-of-hidden",
     .source = "ipex-llm PR #12619, vLLM PR #2622",
     .describes = "the softmax scale is that of hidden / heads dims, not of the head's own",
     IN_KERNEL,
     .hooks.call = scale_of_hidden,
     .hooks.plain = scale_plain_of_hidden,
     .exposes = "tiny/attention:tp=1,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=1"},
    {.name = "scale-missing",
     .source = "mlc-llm PR #3426",
     .describes = "the softmax scale is 1",
     IN_KERNEL,
     .hooks.call = no_scale,
     .hooks.plain = scale_plain_by_1,
     .exposes = "tiny/attention:tp=1,tokens=5",
     .clean = "tiny/attention:tp=1,tokens=1"},
    {.name = "page-tail-read",
     .source = "vLLM PR #47305",
     .describes = "keys behind the last one are masked in the score, and their values multiplied by 0",
     IN_KERNEL,
     .hooks.inside = in_attention,
     .hooks.stores = read_tails,
     .exposes = "tiny/attention:tp=1,phase=decode,tokens=2,cached=16",
     .clean = "tiny/attention:tp=1,phase=decode,tokens=1,cached=15"},
    {.name = "page-id-narrow",
     .source = "ATOM issue #702, with 8 bits in the place of 16",
     .describes = "the number of a page is read as 8 bits",
     IN_KERNEL,
     .hooks.inside = narrow_pages,
     .exposes = "tiny/attention:tp=1,phase=decode,tokens=30,cached=150",
     .clean = "tiny/attention:tp=1,phase=decode,tokens=15,cached=150"},
    {.name = "empty-slice-merged",
     .source = "flashinfer PR #4054",
     .describes = "a slice of the keys that is empty has no maximum, and is merged all the same",
     IN_KERNEL,
     .hooks.inside = in_attention,
     .hooks.stores = merge_empty,
     .exposes = "tiny/attention:tp=1,phase=decode,tokens=3,cached=7",
     .clean = "tiny/attention:tp=1,phase=decode,tokens=1,cached=7"},
    {.name = "lse-base-2",
     .source = "vLLM PR #28840",
     .describes = "slices of 16 keys are merged by logarithms of base 2, read as natural ones",
     IN_KERNEL,
     .hooks.inside = in_attention,
     .hooks.stores = merge_base_2,
     .exposes = "tiny/attention:tp=1,tokens=33",
     .clean = "tiny/attention:tp=1,tokens=16"},
    {.name = "window-one-more",
     .source = "onnxruntime PR #25927",
     .describes = "the sliding window is one key longer",
     .part = PART_ATTENTION,
     .missing = "sliding window"},
    {.name = "window-dropped",
     .source = "mistral.rs issue #2094, LightLLM PR #1311",
     .describes = "one phase is not given the sliding window",
     .part = PART_ATTENTION,
     .missing = "sliding window"},
    {.name = "soft-cap-dropped",
     .source = "vllm-metal PR #666",
     .describes = "one phase leaves the cap of the logits out",
     .part = PART_ATTENTION,
     .missing = "cap of the logits"},
    {.name = "slopes-local",
     .source = "flashinfer issue #1606",
     .describes = "the slopes of ALiBi are made of the rank's own head numbers",
     .part = PART_ATTENTION,
     .missing = "ALiBi"},
    {.name = "sinks-local",
     .source = "tokenspeed PR #254",
     .describes = "the sinks are read by the rank's own head numbers",
     .part = PART_ATTENTION,
     .missing = "attention sinks"},
    {.name = "block-stride-ignored",
     .source = "aiter PR #3498, flashinfer PR #527",
     .describes = "blocks are found as if keys and values did not alternate",
     .part = PART_ATTENTION,
     .missing = "cache of interleaved keys and values"},
    {.name = "kv-scale-of-one-head",
     .source = "sgl-kernel-xpu PR #252",
     .describes = "the scale of the first kv head serves all",
     .part = PART_ATTENTION,
     .missing = "fp8 cache"},
    {0},
};
