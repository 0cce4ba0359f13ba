/* Does a binder put every operand where its op looks for it, and do the sizes of a call follow from
 * who holds what? The sizes are worked out here a second time, by hand. */
/* SPDX-License-Identifier: MIT */
#include "harness/call.h"

#include <criterion/criterion.h>
#include <string.h>

/* ---- the second formula: local sizes, and from them the elements of every tensor ---- */

enum { TOKENS = 7, SEQS = 3, PAGES = 5, ENTRIES = 2, POSITIONS = 40 };
static const struct batch batch = {.n_seqs = SEQS,
                                   .n_tokens = TOKENS,
                                   .n_pages = PAGES,
                                   .max_pages = ENTRIES,
                                   .max_queries = 4,
                                   .max_kv = 20,
                                   .n_positions = POSITIONS};

/* What one rank has: heads, kv heads, experts and their first, expert width, shared width, sorted
 * rows. */
struct hand {
    int64_t m, h, g, d, all_e, e, e0, k, f, s, n, rot;
};

static int64_t rows_of_expert(int64_t e) { return e % 3; }

static struct hand by_hand(const struct layer_spec *s, int64_t tp, int64_t ep, int64_t rank) {
    const int64_t etp = tp / ep;
    struct hand h = {.m = s->hidden,
                     .h = s->n_heads / tp,
                     .g = s->n_kv_heads / tp > 0 ? s->n_kv_heads / tp : 1,
                     .d = s->head_dim,
                     .all_e = s->n_experts,
                     .e = s->n_experts / ep,
                     .k = s->top_k,
                     .f = s->expert_width / etp,
                     .s = s->shared_width / tp,
                     .rot = s->rot_dim};
    h.e0 = rank / etp * h.e;
    for (int64_t e = h.e0; e < h.e0 + h.e; e++) h.n += rows_of_expert(e);
    return h;
}

static int64_t elements(enum tensor_id id, const struct hand *h) {
    const int64_t fused = (h->h + 2 * h->g) * h->d, cache = (int64_t)PAGES * PAGE_SIZE * h->g * h->d;
    const int64_t of[T_COUNT] = {
        [T_X] = TOKENS * h->m,
        [T_Y] = TOKENS * h->m,
        [T_NORM_W] = h->m,
        [T_NORMED] = TOKENS * h->m,
        [T_W_QKV] = fused * h->m,
        [T_B_QKV] = fused,
        [T_QKV] = TOKENS * fused,
        [T_Q_NORM_W] = h->d,
        [T_K_NORM_W] = h->d,
        [T_Q] = TOKENS * h->h * h->d,
        [T_K] = TOKENS * h->g * h->d,
        [T_V] = TOKENS * h->g * h->d,
        [T_ROPE_TABLE] = POSITIONS * h->rot,
        [T_POSITIONS] = TOKENS,
        [T_SLOTS] = TOKENS,
        [T_K_CACHE] = cache,
        [T_V_CACHE] = cache,
        [T_PAGE_TABLE] = SEQS * ENTRIES,
        [T_QUERY_START] = SEQS + 1,
        [T_KV_LEN] = SEQS,
        [T_O] = TOKENS * h->h * h->d,
        [T_W_O] = h->m * h->h * h->d,
        [T_B_O] = h->m,
        [T_O_PART] = TOKENS * h->m,
        [T_ATTN_OUT] = TOKENS * h->m,
        [T_W_ROUTER] = h->all_e * h->m,
        [T_LOGITS] = TOKENS * h->all_e,
        [T_SELECT_BIAS] = h->all_e,
        [T_IDS] = TOKENS * h->k,
        [T_GATES] = TOKENS * h->k,
        [T_OFFSETS] = h->e + 1,
        [T_ROW_SLOT] = h->n,
        [T_SLOT_ROW] = TOKENS * h->k,
        [T_ROWS] = h->n * h->m,
        [T_W_GATE_UP] = h->e * 2 * h->f * h->m,
        [T_GATE_UP] = h->n * 2 * h->f,
        [T_ACT] = h->n * h->f,
        [T_W_DOWN] = h->e * h->m * h->f,
        [T_DOWN] = h->n * h->m,
        [T_MOE_PART] = TOKENS * h->m,
        [T_W_SHARED_GATE_UP] = 2 * h->s * h->m,
        [T_SHARED_GATE_UP] = TOKENS * 2 * h->s,
        [T_SHARED_ACT] = TOKENS * h->s,
        [T_W_SHARED_DOWN] = h->m * h->s,
        [T_SHARED_PART] = TOKENS * h->m,
        [T_FFN_OUT] = TOKENS * h->m,
    };
    return of[id];
}

/* ---- a call's views in the order of the stage's row ---- */

static void views_of(const struct call *c, int stage, struct view in[MAX_STAGE_IO],
                     struct view out[MAX_STAGE_IO]) {
#define VIEWS(op, args, ins, outs)                                                                           \
    case op: {                                                                                               \
        const struct args##_args *a = &c->u.args;                                                            \
        const struct view i[] = {EXPAND ins}, o[] = {EXPAND outs};                                           \
        memcpy(in, i, sizeof i), memcpy(out, o, sizeof o);                                                   \
        break;                                                                                               \
    }
#define EXPAND(...) __VA_ARGS__
    switch (c->op) {
        VIEWS(OP_NORM, norm, (a->x, a->w), (a->out))
        VIEWS(OP_SPLIT, split, (a->in), (a->out[0], a->out[1], a->out[2]))
        VIEWS(OP_QK_NORM, qk_norm, (a->q, a->k, a->w_q, a->w_k), (a->q_out, a->k_out))
        VIEWS(OP_ROPE, rope, (a->q, a->k, a->table, a->positions), (a->q_out, a->k_out))
        VIEWS(OP_KV_WRITE, kv_write, (a->k, a->v, a->slots), (a->k_cache, a->v_cache))
        VIEWS(OP_ATTENTION, attention,
              (a->q, a->k_cache, a->v_cache, a->page_table, a->query_start, a->kv_len), (a->out))
        VIEWS(OP_ROUTE, route, (a->logits, a->bias), (a->ids, a->gates))
        VIEWS(OP_PERMUTE, permute, (a->x, a->ids), (a->offsets, a->row_slot, a->slot_row, a->rows))
        VIEWS(OP_ACTIVATION, activation, (a->gate_up), (a->out))
        VIEWS(OP_GATED_LINEAR, gated_linear, (a->x, a->w, a->offsets), (a->out))
        VIEWS(OP_COMBINE, combine, (a->down, a->slot_row, a->gates), (a->out))
        VIEWS(OP_RESIDUAL, residual, (a->x, a->add), (a->out))
        VIEWS(OP_LINEAR, linear, (a->x, a->w, stage == S_GATE_UP || stage == S_DOWN ? a->offsets : a->bias),
              (a->out))
    case OP_SUM: out[0] = c->u.sum.out; break;
    case OP_COUNT: break;
    }
}

/* ---- every stage of every rank ---- */

typedef void each_stage(const struct setting *s, const struct hand *h);

static void visit_ranks(const struct layer_spec *spec, enum part part, int64_t tp, int64_t ep,
                        each_stage *visit) {
    static struct shard_plan plan;
    int32_t offsets[257] = {0};
    plan_build(&plan, spec, tp, ep);
    batch_sizes(&batch, plan.size);
    for (int64_t e = 0; e < spec->n_experts; e++) offsets[e + 1] = offsets[e] + (int32_t)rows_of_expert(e);
    if (spec->moe) plan_set_rows(&plan, offsets);
    for (int rank = 0; rank < tp; rank++)
        for (int stage = 0; stage < S_COUNT; stage++) {
            const struct stage_row *const row = &stage_table[stage];
            if (row->part != part || (row->present && !row->present(spec))) continue;
            const struct hand h = by_hand(spec, tp, ep, rank);
            visit(&(struct setting){stage, rank, spec, &plan, &batch}, &h);
        }
}

static void for_every_stage(each_stage *visit) {
    static const char *const presets[] = {"tiny", "param2-17b"};
    for (int p = 0; p < 2; p++)
        for (enum part part = 0; part < PART_COUNT; part++)
            for (int64_t tp = 1; tp <= 8; tp++)
                for (int64_t ep = 1; ep <= 2; ep++) {
                    struct model model;
                    struct check_case c = case_defaults();
                    cr_assert_eq(model_load(presets[p], &model).code, STATUS_OK);
                    c.part = part, c.tp = tp, c.ep = ep;
                    if (part == PART_ATTENTION ? ep > 1 || 8 % tp : case_check(&c, &model, NULL).code)
                        continue;
                    struct layer_spec spec = model_layer(&model, case_layer(&c, &model));
                    visit_ranks(&spec, part, tp, ep, visit);
                    spec.qkv_bias = spec.o_bias = spec.select_bias = true;
                    visit_ranks(&spec, part, tp, ep, visit);
                    spec.qkv_bias = spec.o_bias = spec.select_bias = spec.qk_norm = false;
                    visit_ranks(&spec, part, tp, ep, visit);
                }
}

/* ---- views ---- */

static int n_views;

static bool has(const struct setting *s, enum tensor_id id) {
    return tensor_present(id, s->spec) && (id != T_B_O || s->rank == 0);
}

static void check_views(const struct setting *s, const struct hand *h) {
    struct call call;
    struct view in[MAX_STAGE_IO] = {0}, out[MAX_STAGE_IO] = {0};
    const struct stage_row *const row = &stage_table[s->stage];
    call_sketch(&call, s, DTYPE_BF16);
    views_of(&call, s->stage, in, out);
    for (int i = 0; row->in[i] != T_NONE && row->op != OP_SUM; i++) {
        const char *const name = tensor_table[row->in[i]].name;
        cr_expect_eq(in[i].data != NULL, has(s, row->in[i]), "%s of %s", name, row->name);
        if (!in[i].data) continue;
        cr_expect(in[i].lo == 0 && in[i].hi == elements(row->in[i], h), "%s of %s: %lld, not %lld", name,
                  row->name, (long long)in[i].hi, (long long)elements(row->in[i], h));
        n_views++;
    }
    for (int i = 0; row->out[i] != T_NONE; i++) {
        const char *const name = tensor_table[row->out[i]].name;
        cr_expect_not_null(out[i].data, "%s of %s", name, row->name);
        cr_expect_eq(out[i].hi, elements(row->out[i], h), "%s of %s: %lld, not %lld", name, row->name,
                     (long long)out[i].hi, (long long)elements(row->out[i], h));
        n_views++;
    }
}

Test(call, a_view_per_operand_of_the_size_that_the_rank_holds) {
    n_views = 0;
    for_every_stage(check_views);
    cr_expect_gt(n_views, 5000, "%d", n_views);
}

static char place[2][MAX_STAGE_IO];

static void check_positions(const struct setting *s, const struct hand *h) {
    (void)h;
    struct call call;
    struct operands operands = {0};
    struct view in[MAX_STAGE_IO] = {0}, out[MAX_STAGE_IO] = {0};
    const struct stage_row *const row = &stage_table[s->stage];
    int n_in = 0, n_out = 0;
    for (; row->in[n_in] != T_NONE; n_in++) operands.in[n_in] = (struct view){.data = &place[0][n_in]};
    for (; row->out[n_out] != T_NONE; n_out++) operands.out[n_out] = (struct view){.data = &place[1][n_out]};
    operands.part = &operands.in[0], operands.n_parts = 3;
    call_bind(&call, s, &operands);
    views_of(&call, s->stage, in, out);
    for (int i = 0; i < n_in && row->op != OP_SUM; i++)
        cr_expect_eq(in[i].data, &place[0][i], "input %d of %s", i, row->name);
    for (int i = 0; i < n_out; i++) cr_expect_eq(out[i].data, &place[1][i], "output %d of %s", i, row->name);
    if (row->op == OP_SUM) cr_expect(call.u.sum.part == operands.part && call.u.sum.n_parts == 3);
    if (row->op == OP_LINEAR) {
        const bool grouped = s->stage == S_GATE_UP || s->stage == S_DOWN;
        cr_expect_eq((grouped ? call.u.linear.bias : call.u.linear.offsets).data, NULL, "%s has both",
                     row->name);
    }
}

Test(call, operands_are_taken_by_their_position_in_the_row) { for_every_stage(check_positions); }

Test(call, a_call_is_plain_data_below_a_kibibyte) { cr_expect_lt(sizeof(struct call), 1024); }

/* ---- numbers ---- */

static void check_linear(const struct linear_args *a, int stage, const struct hand *h) {
    const struct {
        int64_t rows, cols, inner, groups;
    } want[S_COUNT] = {
        [S_QKV_PROJ] = {TOKENS, (h->h + 2 * h->g) * h->d, h->m, 1},
        [S_O_PROJ] = {TOKENS, h->m, h->h * h->d, 1},
        [S_ROUTER] = {TOKENS, h->all_e, h->m, 1},
        [S_GATE_UP] = {h->n, 2 * h->f, h->m, h->e},
        [S_DOWN] = {h->n, h->m, h->f, h->e},
        [S_SHARED_GATE_UP] = {TOKENS, 2 * h->s, h->m, 1},
        [S_SHARED_DOWN] = {TOKENS, h->m, h->s, 1},
    };
    const int64_t rows = want[stage].rows, cols = want[stage].cols, inner = want[stage].inner;
    cr_expect(a->n_rows == rows && a->n_cols == cols && a->n_inner == inner, "%s: [%lld, %lld, %lld]",
              stage_table[stage].name, (long long)a->n_rows, (long long)a->n_cols, (long long)a->n_inner);
    cr_expect_eq(a->n_groups, want[stage].groups, "%s", stage_table[stage].name);
    cr_expect(a->x.stride[0] == inner && a->out.stride[0] == cols && a->w.stride[1] == inner &&
              a->w.stride[0] == cols * inner);
}

static void check_heads(const struct call *c, const struct hand *h) {
    const int64_t *n = NULL; /* [T, H, G, D] one after another in every struct that has them */
    if (c->op == OP_QK_NORM) n = &c->u.qk_norm.n_tokens;
    if (c->op == OP_ROPE) n = &c->u.rope.n_tokens;
    if (c->op == OP_SPLIT) n = &c->u.split.n_tokens;
    if (n) cr_expect(n[0] == TOKENS && n[1] == h->h && n[2] == h->g && n[3] == h->d, "%s", op_name(c->op));
    if (c->op == OP_ROPE) cr_expect_eq(c->u.rope.rot_dim, h->rot);
    if (c->op == OP_SPLIT) {
        const int64_t *const first = c->u.split.first;
        cr_expect(first[0] == 0 && first[1] == h->h * h->d && first[2] == (h->h + h->g) * h->d);
    }
    if (c->op == OP_KV_WRITE) {
        const struct kv_write_args *const a = &c->u.kv_write;
        cr_expect(a->n_tokens == TOKENS && a->n_kv_heads == h->g && a->head_dim == h->d);
        cr_expect(a->page_size == PAGE_SIZE && a->n_pages == PAGES);
        cr_expect(a->k_cache.stride[0] == PAGE_SIZE * h->g * h->d && a->k_cache.stride[2] == h->d);
    }
    if (c->op == OP_ATTENTION) {
        const struct attention_args *const a = &c->u.attention;
        cr_expect(a->n_tokens == TOKENS && a->n_seqs == SEQS && a->max_queries == 4 && a->max_kv == 20);
        cr_expect(a->n_heads == h->h && a->n_kv_heads == h->g && a->head_dim == h->d);
        cr_expect(a->q.stride[0] == h->h * h->d && a->q.stride[1] == h->d);
        cr_expect(a->k_cache.stride[1] == h->g * h->d && a->v_cache.stride[2] == h->d);
    }
}

static void check_experts(const struct call *c, int stage, const struct hand *h) {
    const bool shared = stage == S_SHARED_ACTIVATION || stage == S_SHARED_GATE_UP_ACT;
    const int64_t rows = shared ? TOKENS : h->n, width = shared ? h->s : h->f;
    if (c->op == OP_ROUTE)
        cr_expect(c->u.route.n_tokens == TOKENS && c->u.route.n_experts == h->all_e &&
                  c->u.route.top_k == h->k);
    if (c->op == OP_PERMUTE) {
        const struct permute_args *const a = &c->u.permute;
        cr_expect(a->n_tokens == TOKENS && a->top_k == h->k && a->width == h->m);
        cr_expect(a->expert_first == h->e0 && a->expert_count == h->e && a->n_rows == h->n);
    }
    if (c->op == OP_ACTIVATION)
        cr_expect(c->u.activation.n_rows == rows && c->u.activation.width == width &&
                  c->u.activation.gate_up.stride[1] == width);
    if (c->op == OP_GATED_LINEAR) {
        const struct gated_linear_args *const a = &c->u.gated_linear;
        cr_expect(a->n_rows == rows && a->width == width && a->n_inner == h->m);
        cr_expect_eq(a->n_groups, shared ? 1 : h->e);
        cr_expect(a->w.stride[0] == 2 * width * h->m && a->w.stride[1] == width * h->m &&
                  a->w.stride[2] == h->m);
    }
    if (c->op == OP_COMBINE) {
        const struct combine_args *const a = &c->u.combine;
        cr_expect(a->n_tokens == TOKENS && a->top_k == h->k && a->width == h->m && a->n_rows == h->n);
    }
}

static void check_numbers(const struct setting *s, const struct hand *h) {
    struct call c;
    call_sketch(&c, s, DTYPE_F64);
    cr_expect_eq(c.op, stage_table[s->stage].op);
    if (c.op == OP_NORM) cr_expect(c.u.norm.n_tokens == TOKENS && c.u.norm.width == h->m);
    if (c.op == OP_RESIDUAL) cr_expect(c.u.residual.n_tokens == TOKENS && c.u.residual.width == h->m);
    if (c.op == OP_SUM) cr_expect(c.u.sum.n_tokens == TOKENS && c.u.sum.width == h->m);
    if (c.op == OP_LINEAR) check_linear(&c.u.linear, s->stage, h);
    check_heads(&c, h);
    check_experts(&c, s->stage, h);
}

Test(call, sizes_follow_from_who_holds_what) { for_every_stage(check_numbers); }

/* Rank 3 of 4 is not rank 0: what a size must not be. */
Test(call, a_rank_does_not_get_the_whole_layers_sizes) {
    struct model model;
    struct call c;
    struct shard_plan plan;
    cr_assert_eq(model_load("tiny", &model).code, STATUS_OK);
    const struct layer_spec spec = model_layer(&model, 0);
    plan_build(&plan, &spec, 4, 1);
    batch_sizes(&batch, plan.size);
    call_sketch(&c, &(struct setting){S_ATTENTION, 3, &spec, &plan, &batch}, DTYPE_BF16);
    cr_expect(c.u.attention.n_heads == 2 && c.u.attention.n_kv_heads == 1);
    cr_expect(c.u.attention.q.stride[0] == 2 * 16, "the row stride of PR #39707");
    plan_build(&plan, &spec, 8, 1); /* more ranks than kv heads: one each, never none */
    batch_sizes(&batch, plan.size);
    call_sketch(&c, &(struct setting){S_KV_WRITE, 7, &spec, &plan, &batch}, DTYPE_BF16);
    cr_expect_eq(c.u.kv_write.n_kv_heads, 1);
}
