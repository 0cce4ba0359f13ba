/* SPDX-License-Identifier: MIT */
#include "harness/call.h"

#include <assert.h>

struct binding {
    const struct stage_row *stage;
    const struct layer_spec *local;
    const struct shard_plan *plan;
    const struct batch *batch;
    const struct operands *operands;
    int rank;
};

static struct view in(const struct binding *b, enum tensor_id id) { return b->operands->in[id]; }
static struct view out(const struct binding *b, enum tensor_id id) { return b->operands->out[id]; }
static int64_t held(const struct binding *b, enum axis_name axis) {
    return b->plan->rank[b->rank][axis].count;
}

static void bind_norm(struct call *call, const struct binding *b) {
    call->u.norm = (struct norm_args){.x = in(b, T_X),
                                      .w = in(b, T_NORM_W),
                                      .out = out(b, T_NORMED),
                                      .n_tokens = b->batch->n_tokens,
                                      .width = b->local->hidden,
                                      .eps = b->local->norm_eps};
}

static void bind_qk_norm(struct call *call, const struct binding *b) {
    call->u.qk_norm = (struct qk_norm_args){.q = in(b, T_Q),
                                            .k = in(b, T_K),
                                            .w_q = in(b, T_Q_NORM_W),
                                            .w_k = in(b, T_K_NORM_W),
                                            .q_out = out(b, T_Q),
                                            .k_out = out(b, T_K),
                                            .n_tokens = b->batch->n_tokens,
                                            .n_heads = b->local->n_heads,
                                            .n_kv_heads = b->local->n_kv_heads,
                                            .head_dim = b->local->head_dim,
                                            .eps = b->local->norm_eps};
}

struct linear_size {
    int64_t rows, cols, inner, groups;
};

static struct linear_size linear_size(const struct binding *b) {
    const struct layer_spec *const l = b->local;
    const int64_t t = b->batch->n_tokens;
    switch ((int)(b->stage - stage_table)) {
    case S_QKV_PROJ:
        return (struct linear_size){t, (l->n_heads + 2 * l->n_kv_heads) * l->head_dim, l->hidden, 1};
    case S_O_PROJ: return (struct linear_size){t, l->hidden, l->n_heads * l->head_dim, 1};
    case S_ROUTER: return (struct linear_size){t, l->n_experts, l->hidden, 1};
    case S_GATE_UP:
        return (struct linear_size){held(b, AXIS_N), 2 * l->expert_width, l->hidden, held(b, AXIS_E)};
    case S_DOWN: return (struct linear_size){held(b, AXIS_N), l->hidden, l->expert_width, held(b, AXIS_E)};
    case S_SHARED_GATE_UP: return (struct linear_size){t, 2 * l->shared_width, l->hidden, 1};
    default: return (struct linear_size){t, l->hidden, l->shared_width, 1}; /* S_SHARED_DOWN */
    }
}

static void bind_linear(struct call *call, const struct binding *b) {
    const struct linear_size n = linear_size(b);
    struct linear_args *const a = &call->u.linear;
    *a = (struct linear_args){.x = in(b, b->stage->in[0]),
                              .w = in(b, b->stage->in[1]),
                              .out = out(b, b->stage->out[0]),
                              .n_rows = n.rows,
                              .n_cols = n.cols,
                              .n_inner = n.inner,
                              .n_groups = n.groups};
    const enum tensor_id third = b->stage->in[2];
    if (third == T_OFFSETS)
        a->offsets = in(b, third);
    else if (third != T_NONE)
        a->bias = in(b, third);
    /* Two-dimensional whatever the tensors' own axes are. */
    a->x.stride[0] = n.inner;
    a->w.stride[0] = n.cols * n.inner;
    a->w.stride[1] = n.inner;
    a->out.stride[0] = n.cols;
}

static void bind_rope(struct call *call, const struct binding *b) {
    call->u.rope = (struct rope_args){.q = in(b, T_Q),
                                      .k = in(b, T_K),
                                      .q_out = out(b, T_Q),
                                      .k_out = out(b, T_K),
                                      .table = in(b, T_ROPE_TABLE),
                                      .positions = in(b, T_POSITIONS),
                                      .n_tokens = b->batch->n_tokens,
                                      .n_heads = b->local->n_heads,
                                      .n_kv_heads = b->local->n_kv_heads,
                                      .head_dim = b->local->head_dim,
                                      .rot_dim = b->local->rot_dim,
                                      .pairing = b->local->rope_pairing};
}

static void bind_kv_write(struct call *call, const struct binding *b) {
    call->u.kv_write = (struct kv_write_args){.k = in(b, T_K),
                                              .v = in(b, T_V),
                                              .slots = in(b, T_SLOTS),
                                              .k_cache = out(b, T_K_CACHE),
                                              .v_cache = out(b, T_V_CACHE),
                                              .n_tokens = b->batch->n_tokens,
                                              .n_kv_heads = b->local->n_kv_heads,
                                              .head_dim = b->local->head_dim,
                                              .page_size = PAGE_SIZE,
                                              .n_pages = b->batch->n_pages};
}

static void bind_attention(struct call *call, const struct binding *b) {
    call->u.attention = (struct attention_args){.q = in(b, T_Q),
                                                .out = out(b, T_O),
                                                .k_cache = in(b, T_K_CACHE),
                                                .v_cache = in(b, T_V_CACHE),
                                                .page_table = in(b, T_PAGE_TABLE),
                                                .query_start = in(b, T_QUERY_START),
                                                .kv_len = in(b, T_KV_LEN),
                                                .n_tokens = b->batch->n_tokens,
                                                .n_seqs = b->batch->n_seqs,
                                                .n_heads = b->local->n_heads,
                                                .n_kv_heads = b->local->n_kv_heads,
                                                .head_dim = b->local->head_dim,
                                                .page_size = PAGE_SIZE,
                                                .n_pages = b->batch->n_pages,
                                                .max_queries = b->batch->max_queries,
                                                .max_kv = b->batch->max_kv,
                                                .scale = b->local->attn_scale,
                                                .causal = b->local->causal};
}

static void bind_route(struct call *call, const struct binding *b) {
    call->u.route = (struct route_args){.logits = in(b, T_LOGITS),
                                        .bias = in(b, T_SELECT_BIAS),
                                        .ids = out(b, T_IDS),
                                        .gates = out(b, T_GATES),
                                        .n_tokens = b->batch->n_tokens,
                                        .n_experts = b->local->n_experts,
                                        .top_k = b->local->top_k,
                                        .n_group = b->local->n_group,
                                        .topk_group = b->local->topk_group,
                                        .score = b->local->score,
                                        .group_score = b->local->group_score,
                                        .renormalise = b->local->renormalise,
                                        .renorm_eps = b->local->renorm_eps,
                                        .routed_scale = b->local->routed_scale};
}

static void bind_permute(struct call *call, const struct binding *b) {
    const struct span experts = b->plan->rank[b->rank][AXIS_E];
    call->u.permute = (struct permute_args){.x = in(b, T_NORMED),
                                            .ids = in(b, T_IDS),
                                            .offsets = out(b, T_OFFSETS),
                                            .row_slot = out(b, T_ROW_SLOT),
                                            .slot_row = out(b, T_SLOT_ROW),
                                            .rows = out(b, T_ROWS),
                                            .n_tokens = b->batch->n_tokens,
                                            .top_k = b->local->top_k,
                                            .width = b->local->hidden,
                                            .expert_first = experts.first,
                                            .expert_count = experts.count,
                                            .n_rows = held(b, AXIS_N)};
}

static void bind_activation(struct call *call, const struct binding *b) {
    const bool routed = b->stage == &stage_table[S_ACTIVATION];
    call->u.activation =
        (struct activation_args){.gate_up = in(b, b->stage->in[0]),
                                 .out = out(b, b->stage->out[0]),
                                 .n_rows = routed ? held(b, AXIS_N) : b->batch->n_tokens,
                                 .width = routed ? b->local->expert_width : b->local->shared_width};
}

static void bind_gated_linear(struct call *call, const struct binding *b) {
    const bool routed = b->stage == &stage_table[S_GATE_UP_ACT];
    const int64_t inner = b->local->hidden, width = routed ? b->local->expert_width : b->local->shared_width;
    struct gated_linear_args *const a = &call->u.gated_linear;
    *a = (struct gated_linear_args){.x = in(b, b->stage->in[0]),
                                    .w = in(b, b->stage->in[1]),
                                    .out = out(b, b->stage->out[0]),
                                    .n_rows = routed ? held(b, AXIS_N) : b->batch->n_tokens,
                                    .width = width,
                                    .n_inner = inner,
                                    .n_groups = routed ? held(b, AXIS_E) : 1};
    if (routed) a->offsets = in(b, T_OFFSETS);
    a->w.stride[0] = 2 * width * inner;
    a->w.stride[1] = width * inner;
    a->w.stride[2] = inner;
}

static void bind_combine(struct call *call, const struct binding *b) {
    call->u.combine = (struct combine_args){.down = in(b, T_DOWN),
                                            .slot_row = in(b, T_SLOT_ROW),
                                            .gates = in(b, T_GATES),
                                            .out = out(b, T_MOE_PART),
                                            .n_tokens = b->batch->n_tokens,
                                            .top_k = b->local->top_k,
                                            .width = b->local->hidden,
                                            .n_rows = held(b, AXIS_N)};
}

static void bind_residual(struct call *call, const struct binding *b) {
    call->u.residual = (struct residual_args){.x = in(b, T_X),
                                              .add = in(b, b->stage->in[1]),
                                              .out = out(b, T_Y),
                                              .n_tokens = b->batch->n_tokens,
                                              .width = b->local->hidden};
}

static void (*const binders[OP_COUNT])(struct call *, const struct binding *) = {
    [OP_NORM] = bind_norm,
    [OP_LINEAR] = bind_linear,
    [OP_QK_NORM] = bind_qk_norm,
    [OP_ROPE] = bind_rope,
    [OP_KV_WRITE] = bind_kv_write,
    [OP_ATTENTION] = bind_attention,
    [OP_ROUTE] = bind_route,
    [OP_PERMUTE] = bind_permute,
    [OP_ACTIVATION] = bind_activation,
    [OP_GATED_LINEAR] = bind_gated_linear,
    [OP_COMBINE] = bind_combine,
    [OP_RESIDUAL] = bind_residual,
};

void call_bind(struct call *call, const struct stage_row *stage, const struct layer_spec *local,
               const struct shard_plan *plan, int rank, const struct batch *batch,
               const struct operands *operands) {
    const struct binding b = {stage, local, plan, batch, operands, rank};
    *call = (struct call){.op = stage->op};
    assert(binders[stage->op]);
    binders[stage->op](call, &b);
}

struct view view_dense(const struct shard_plan *plan, enum tensor_id id, int rank, void *data,
                       enum dtype dtype) {
    struct view v = {.data = data, .dtype = dtype};
    int64_t shape[MAX_AXES], stride = 1;
    for (int i = slice_shape(plan, id, rank, shape); i-- > 0; stride *= shape[i])
        if (i < 3) v.stride[i] = stride;
    v.hi = stride;
    return v;
}
