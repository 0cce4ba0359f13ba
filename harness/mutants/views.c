/* Rows of q, k and v read as if they lay elsewhere. Both are halves of vLLM PR #39707 (Param2MoE):
 * the attention object was built with the model's global head counts while q, k and v were already
 * cut over the ranks, and q, k, v were strided views of the fused qkv tensor that were read as
 * packed. Both change the row strides of q and of the new k, v; never of the cache. */
/* SPDX-License-Identifier: MIT */
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
    {0},
};
