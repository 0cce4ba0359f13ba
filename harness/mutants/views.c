/* Rows of q, k and v read as if they lay elsewhere. Both are halves of vLLM PR #39707 (Param2MoE):
 * the attention object was built with the model's global head counts while q, k and v were already
 * cut over the ranks, and q, k, v were strided views of the fused qkv tensor that were read as
 * packed. Both change the row strides of q and of the new k, v; never of the cache. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "harness/mistake.h"
#include "harness/mutants/mutants.h"

struct row_strides {
    int64_t q, kv;
};

static bool set_stride(struct view *view, int64_t stride) {
    const bool changed = view->stride[0] != stride;
    view->stride[0] = stride;
    return changed;
}

static bool set_row_strides(struct call *call, struct row_strides s) {
    if (call->op == OP_ATTENTION) return set_stride(&call->u.attention.q, s.q);
    if (call->op != OP_KV_WRITE) return false;
    const bool changed = set_stride(&call->u.kv_write.k, s.kv);
    return set_stride(&call->u.kv_write.v, s.kv) || changed;
}

static bool use_global_head_count(struct call *call, const struct layer_spec *whole,
                                  const struct layer_spec *local) {
    (void)local;
    return set_row_strides(
        call, (struct row_strides){whole->n_heads * whole->head_dim, whole->n_kv_heads * whole->head_dim});
}

static bool read_view_as_packed(struct call *call, const struct layer_spec *whole,
                                const struct layer_spec *local) {
    (void)whole;
    return set_row_strides(
        call, (struct row_strides){local->n_heads * local->head_dim, local->n_kv_heads * local->head_dim});
}

/* Rows of all ranks' heads: one holds the tokens of as many ranks, and each of them reads its first heads. */
static bool share_rows(struct mistake *m) {
    struct attention_args *const a = &m->call.u.attention;
    const int64_t tp = mistake_plan(m)->tp, row = a->n_heads * a->head_dim;
    if (m->call.op != OP_ATTENTION || tp < 2 || a->n_tokens < 2) return false;
    const size_t size = dtype_bytes(a->q.dtype);
    char *const own = mistake_memory(m, a->n_tokens * row, size);
    if (!own) return false;
    for (int64_t t = 0; t < a->n_tokens; t++)
        for (int64_t h = 0; h < a->n_heads; h++)
            memcpy(own + (size_t)(t * row + h * a->head_dim) * size,
                   (const char *)a->q.data +
                       (size_t)((t - t % tp) * a->q.stride[0] + h * a->q.stride[1]) * size,
                   (size_t)a->head_dim * size);
    a->q = (struct view){own, a->q.dtype, {row, a->head_dim}, 0, a->n_tokens * row};
    return true;
}

const struct mutant mutants_of_views[] = {
    {.name = "global-head-count",
     .source = PR_39707,
     .describes = "rows of the rank's own q, k, v are as far apart as if it held the whole model's heads",
     .edge = EDGE_SHARD,
     .part = PART_ATTENTION,
     .layouts = 1u << LAYOUT_CONTIG,
     .hooks.call = use_global_head_count,
     .exposes = "tiny/attention:layout=contig,tp=2",
     .clean = "tiny/attention:layout=contig,tp=1"},
    {.name = "packed-view",
     .source = PR_39707,
     .describes = "q, k, v views of the fused qkv rows are read as if each were a packed tensor",
     .edge = EDGE_SHARD,
     .part = PART_ATTENTION,
     .layouts = 1u << LAYOUT_PACKED,
     .hooks.call = read_view_as_packed,
     .exposes = "tiny/attention:tp=1",
     .clean = "tiny/attention:tp=1,tokens=1"},
    {.name = "rows-of-all-heads",
     .source = PR_39707,
     .describes = "q is seen as rows of the whole model's heads: tokens that share one read its first heads",
     .edge = EDGE_SHARD,
     .part = PART_ATTENTION,
     .hooks.inside = share_rows,
     .exposes = "tiny/attention:tp=2",
     .clean = "tiny/attention:tp=1"},
    {0},
};
