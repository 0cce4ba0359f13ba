/* What are the arguments of a stage's op? One binder an op: operands by their position in the
 * stage's row, sizes from the tensors' placement, numbers from the layer as the rank sees it. */
/* SPDX-License-Identifier: MIT */
#include "harness/call.h"

struct binding {
    const struct setting *setting;
    const struct stage_row *stage;
    struct layer_spec local;
    const struct operands *operands;
};

static struct view in(const struct binding *b, int i) { return b->operands->in[i]; }
static struct view out(const struct binding *b, int i) { return b->operands->out[i]; }
static int64_t n_tokens(const struct binding *b) { return b->setting->plan->size[AXIS_T]; }

/* A tensor of the stage as a matrix: the size of its first axis, and the product of the others. */
struct matrix {
    int64_t rows, cols;
};

static struct matrix matrix_of(const struct binding *b, enum tensor_id id) {
    int64_t shape[MAX_AXES];
    const int n = slice_shape(b->setting->plan, id, b->setting->rank, shape);
    struct matrix m = {shape[0], 1};
    for (int i = 1; i < n; i++) m.cols *= shape[i];
    return m;
}

static bool of_rows_by_expert(enum tensor_id id) { return tensor_axes(id).axis[0].block[0].name == AXIS_N; }

/* The experts whose rows the stage works on, and where their rows end; one group of all rows
 * otherwise. */
static int64_t groups(const struct binding *b) {
    return of_rows_by_expert(b->stage->in[0]) ? b->setting->plan->rank[b->setting->rank][AXIS_E].count : 1;
}

static void bind_norm(struct call *call, const struct binding *b) {
    call->u.norm = (struct norm_args){.x = in(b, 0),
                                      .w = in(b, 1),
                                      .out = out(b, 0),
                                      .n_tokens = n_tokens(b),
                                      .width = b->local.hidden,
                                      .eps = b->local.norm_eps};
}

static void bind_qk_norm(struct call *call, const struct binding *b) {
    call->u.qk_norm = (struct qk_norm_args){.q = in(b, 0),
                                            .k = in(b, 1),
                                            .w_q = in(b, 2),
                                            .w_k = in(b, 3),
                                            .q_out = out(b, 0),
                                            .k_out = out(b, 1),
                                            .n_tokens = n_tokens(b),
                                            .n_heads = b->local.n_heads,
                                            .n_kv_heads = b->local.n_kv_heads,
                                            .head_dim = b->local.head_dim,
                                            .eps = b->local.norm_eps};
}

/* Two-dimensional whatever the tensors' own axes are. The third operand is the bias, or the rows'
 * offsets. */
static void bind_linear(struct call *call, const struct binding *b) {
    const struct matrix x = matrix_of(b, b->stage->in[0]), y = matrix_of(b, b->stage->out[0]);
    struct linear_args *const a = &call->u.linear;
    *a = (struct linear_args){.x = in(b, 0),
                              .w = in(b, 1),
                              .out = out(b, 0),
                              .n_rows = y.rows,
                              .n_cols = y.cols,
                              .n_inner = x.cols,
                              .n_groups = groups(b)};
    const enum tensor_id third = b->stage->in[2];
    if (third != T_NONE) *(tensor_table[third].dtype == DTYPE_I32 ? &a->offsets : &a->bias) = in(b, 2);
    a->x.stride[0] = x.cols;
    a->w.stride[0] = y.cols * x.cols;
    a->w.stride[1] = x.cols;
    a->out.stride[0] = y.cols;
}

/* A row is q, then k, then v. */
static void bind_split(struct call *call, const struct binding *b) {
    const int64_t q = b->local.n_heads * b->local.head_dim, kv = b->local.n_kv_heads * b->local.head_dim;
    call->u.split = (struct split_args){.in = in(b, 0),
                                        .out = {out(b, 0), out(b, 1), out(b, 2)},
                                        .first = {0, q, q + kv},
                                        .n_tokens = n_tokens(b),
                                        .n_heads = b->local.n_heads,
                                        .n_kv_heads = b->local.n_kv_heads,
                                        .head_dim = b->local.head_dim};
}

static void bind_rope(struct call *call, const struct binding *b) {
    call->u.rope = (struct rope_args){.q = in(b, 0),
                                      .k = in(b, 1),
                                      .q_out = out(b, 0),
                                      .k_out = out(b, 1),
                                      .table = in(b, 2),
                                      .positions = in(b, 3),
                                      .n_tokens = n_tokens(b),
                                      .n_heads = b->local.n_heads,
                                      .n_kv_heads = b->local.n_kv_heads,
                                      .head_dim = b->local.head_dim,
                                      .rot_dim = b->local.rot_dim,
                                      .pairing = b->local.rope_pairing};
}

static void bind_kv_write(struct call *call, const struct binding *b) {
    call->u.kv_write = (struct kv_write_args){.k = in(b, 0),
                                              .v = in(b, 1),
                                              .slots = in(b, 2),
                                              .k_cache = out(b, 0),
                                              .v_cache = out(b, 1),
                                              .n_tokens = n_tokens(b),
                                              .n_kv_heads = b->local.n_kv_heads,
                                              .head_dim = b->local.head_dim,
                                              .page_size = PAGE_SIZE,
                                              .n_pages = b->setting->batch->n_pages};
}

static void bind_attention(struct call *call, const struct binding *b) {
    call->u.attention = (struct attention_args){.q = in(b, 0),
                                                .out = out(b, 0),
                                                .k_cache = in(b, 1),
                                                .v_cache = in(b, 2),
                                                .page_table = in(b, 3),
                                                .query_start = in(b, 4),
                                                .kv_len = in(b, 5),
                                                .n_tokens = n_tokens(b),
                                                .n_seqs = b->setting->batch->n_seqs,
                                                .n_heads = b->local.n_heads,
                                                .n_kv_heads = b->local.n_kv_heads,
                                                .head_dim = b->local.head_dim,
                                                .page_size = PAGE_SIZE,
                                                .n_pages = b->setting->batch->n_pages,
                                                .max_queries = b->setting->batch->max_queries,
                                                .max_kv = b->setting->batch->max_kv,
                                                .scale = b->local.attn_scale,
                                                .causal = b->local.causal};
}

static void bind_route(struct call *call, const struct binding *b) {
    call->u.route = (struct route_args){.logits = in(b, 0),
                                        .bias = in(b, 1),
                                        .ids = out(b, 0),
                                        .gates = out(b, 1),
                                        .n_tokens = n_tokens(b),
                                        .n_experts = b->local.n_experts,
                                        .top_k = b->local.top_k,
                                        .n_group = b->local.n_group,
                                        .topk_group = b->local.topk_group,
                                        .score = b->local.score,
                                        .group_score = b->local.group_score,
                                        .group_fill = b->local.group_fill,
                                        .renormalise = b->local.renormalise,
                                        .renorm_eps = b->local.renorm_eps,
                                        .routed_scale = b->local.routed_scale};
}

static void bind_permute(struct call *call, const struct binding *b) {
    const struct span experts = b->setting->plan->rank[b->setting->rank][AXIS_E];
    call->u.permute = (struct permute_args){.x = in(b, 0),
                                            .ids = in(b, 1),
                                            .offsets = out(b, 0),
                                            .row_slot = out(b, 1),
                                            .slot_row = out(b, 2),
                                            .rows = out(b, 3),
                                            .n_tokens = n_tokens(b),
                                            .top_k = b->local.top_k,
                                            .width = b->local.hidden,
                                            .expert_first = experts.first,
                                            .expert_count = experts.count,
                                            .n_rows = matrix_of(b, b->stage->out[3]).rows};
}

static void bind_activation(struct call *call, const struct binding *b) {
    const struct matrix y = matrix_of(b, b->stage->out[0]);
    call->u.activation =
        (struct activation_args){.gate_up = in(b, 0), .out = out(b, 0), .n_rows = y.rows, .width = y.cols};
}

static void bind_gated_linear(struct call *call, const struct binding *b) {
    const struct matrix x = matrix_of(b, b->stage->in[0]), y = matrix_of(b, b->stage->out[0]);
    struct gated_linear_args *const a = &call->u.gated_linear;
    *a = (struct gated_linear_args){.x = in(b, 0),
                                    .w = in(b, 1),
                                    .out = out(b, 0),
                                    .n_rows = y.rows,
                                    .width = y.cols,
                                    .n_inner = x.cols,
                                    .n_groups = groups(b)};
    if (b->stage->in[2] != T_NONE) a->offsets = in(b, 2);
    a->w.stride[0] = 2 * y.cols * x.cols;
    a->w.stride[1] = y.cols * x.cols;
    a->w.stride[2] = x.cols;
}

static void bind_combine(struct call *call, const struct binding *b) {
    call->u.combine = (struct combine_args){.down = in(b, 0),
                                            .slot_row = in(b, 1),
                                            .gates = in(b, 2),
                                            .out = out(b, 0),
                                            .n_tokens = n_tokens(b),
                                            .top_k = b->local.top_k,
                                            .width = b->local.hidden,
                                            .n_rows = matrix_of(b, b->stage->in[0]).rows};
}

static void bind_sum(struct call *call, const struct binding *b) {
    call->u.sum = (struct sum_args){.part = b->operands->part,
                                    .out = out(b, 0),
                                    .n_parts = b->operands->n_parts,
                                    .n_tokens = n_tokens(b),
                                    .width = b->local.hidden};
}

static void bind_residual(struct call *call, const struct binding *b) {
    call->u.residual = (struct residual_args){
        .x = in(b, 0), .add = in(b, 1), .out = out(b, 0), .n_tokens = n_tokens(b), .width = b->local.hidden};
}

static void (*const binders[OP_COUNT])(struct call *, const struct binding *) = {
    [OP_NORM] = bind_norm,
    [OP_LINEAR] = bind_linear,
    [OP_SPLIT] = bind_split,
    [OP_QK_NORM] = bind_qk_norm,
    [OP_ROPE] = bind_rope,
    [OP_KV_WRITE] = bind_kv_write,
    [OP_ATTENTION] = bind_attention,
    [OP_ROUTE] = bind_route,
    [OP_PERMUTE] = bind_permute,
    [OP_ACTIVATION] = bind_activation,
    [OP_GATED_LINEAR] = bind_gated_linear,
    [OP_COMBINE] = bind_combine,
    [OP_SUM] = bind_sum,
    [OP_RESIDUAL] = bind_residual,
};

void call_bind(struct call *call, const struct setting *setting, const struct operands *operands) {
    const struct stage_row *const stage = &stage_table[setting->stage];
    const struct binding b = {setting, stage, plan_local_spec(setting->plan, setting->spec, setting->rank),
                              operands};
    *call = (struct call){.op = stage->op};
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

void call_sketch(struct call *call, const struct setting *setting, enum dtype storage) {
    void *const anywhere = (void *)(uintptr_t)4096; /* only its alignment is looked at */
    const struct stage_row *const stage = &stage_table[setting->stage];
    const struct layer_spec local = plan_local_spec(setting->plan, setting->spec, setting->rank);
    struct operands operands = {.n_parts = 0};
    for (int i = 0; stage->in[i] != T_NONE; i++)
        if (tensor_present(stage->in[i], &local))
            operands.in[i] = view_dense(setting->plan, stage->in[i], setting->rank, anywhere,
                                        tensor_dtype(stage->in[i], storage));
    for (int i = 0; stage->out[i] != T_NONE; i++)
        operands.out[i] = view_dense(setting->plan, stage->out[i], setting->rank, anywhere,
                                     tensor_dtype(stage->out[i], storage));
    call_bind(call, setting, &operands);
}
