/* Does a rank read its own tensor before the whole one's slice, keep what is nobody else's, and are
 * a mutant's changes seen as changes? */
/* SPDX-License-Identifier: MIT */
#include "harness/crew.h"

#include <criterion/criterion.h>
#include <string.h>

enum { TOKENS = 3, TP = 4, H = 4, D = 2, M = 4 };
static int32_t slots[TOKENS] = {3, 17, 5};
static const struct batch batch = {.n_seqs = 1,
                                   .n_tokens = TOKENS,
                                   .n_pages = 2,
                                   .max_pages = 2,
                                   .max_queries = 3,
                                   .max_kv = 3,
                                   .n_positions = 3,
                                   .slots = slots};
static struct store whole, own[TP], radius[TP];

static struct layer_spec layer(void) {
    struct layer_spec s = layer_defaults();
    s.hidden = M, s.n_heads = H, s.n_kv_heads = 2, s.head_dim = D, s.rot_dim = D;
    s.attn_scale = 0.5, s.moe = true, s.n_experts = 4, s.top_k = 2, s.expert_width = 4, s.shared_width = 4;
    return s;
}

static struct crew crew_of(int64_t tp, int64_t ep, enum part part) {
    struct crew crew = {.storage = DTYPE_F64, .whole = &whole, .own = own};
    const struct layer_spec spec = layer();
    crew_open(&crew, &spec, part, &batch, tp, ep);
    return crew;
}

/* Elements first, first + 1, ... */
static double *store_count(struct store *store, enum tensor_id id, int64_t count, double first) {
    double *const x = store_renew(store, id, DTYPE_F64, count);
    for (int64_t i = 0; i < count; i++) x[i] = first + (double)i;
    return x;
}

static void free_all(void) {
    store_free(&whole);
    for (int r = 0; r < TP; r++) store_free(&own[r]), store_free(&radius[r]);
}

/* ---- own before whole ---- */

Test(crew, a_rank_reads_its_own_tensor_before_the_slice_of_the_whole_one, .fini = free_all) {
    const struct crew crew = crew_of(TP, 1, PART_ATTENTION);
    double got[TOKENS * D];
    store_count(&whole, T_Q, TOKENS * H * D, 0);
    for (int rank = 0; rank < TP; rank++) {
        const struct placed at = {&crew, S_ROPE, rank};
        cr_expect_eq(placed_count(&at, T_Q), TOKENS * D);
        cr_expect_null(placed_stored(&at, T_Q), "the whole tensor passed for a slice");
        placed_dense(&at, T_Q, got);
        for (int i = 0; i < TOKENS * D; i++)
            cr_expect_eq(got[i], i / D * H * D + rank * D + i % D, "rank %d element %d: %g", rank, i, got[i]);
    }
    store_count(&own[2], T_Q, TOKENS * D, 1000);
    for (int rank = 0; rank < TP; rank++) {
        const struct placed at = {&crew, S_ROPE, rank};
        placed_dense(&at, T_Q, got);
        cr_expect_eq(got[0], rank == 2 ? 1000 : rank * D, "rank %d reads %g", rank, got[0]);
        cr_expect_eq(placed_stored(&at, T_Q), rank == 2 ? own[2].of[T_Q].memory.data : NULL);
    }
}

Test(crew, a_tensor_has_the_dtype_that_it_was_stored_in, .fini = free_all) {
    struct crew crew = crew_of(TP, 1, PART_ATTENTION);
    crew.storage = DTYPE_BF16;
    const struct placed mine = {&crew, S_ROPE, 1}, other = {&crew, S_ROPE, 0};
    cr_expect_eq(placed_dtype(&mine, T_Q), DTYPE_BF16);
    store_renew(&own[1], T_Q, DTYPE_F32, TOKENS * D);
    cr_expect_eq(placed_dtype(&mine, T_Q), DTYPE_F32);
    cr_expect_eq(placed_dtype(&other, T_Q), DTYPE_BF16);
    cr_expect_eq(placed_dtype(&mine, T_SLOTS), DTYPE_I32);
}

/* Rows of a rank whose experts nobody is sent to: none, whatever the whole tensor holds. */
Test(crew, a_rank_without_rows_reads_nothing, .fini = free_all) {
    struct crew crew = crew_of(2, 2, PART_FFN);
    const int32_t ids[TOKENS * 2] = {0, 1, 1, 0, 0, 1};
    double got[1] = {-7};
    store_count(&whole, T_ROWS, 6 * M, 0);
    crew_count_rows(&crew, ids);
    const struct placed with = {&crew, S_GATE_UP, 0}, without = {&crew, S_GATE_UP, 1};
    cr_expect_eq(placed_count(&with, T_ROWS), 6 * M);
    cr_expect_eq(placed_stored(&with, T_ROWS), whole.of[T_ROWS].memory.data);
    cr_expect_eq(placed_count(&without, T_ROWS), 0);
    placed_dense(&without, T_ROWS, got);
    cr_expect(got[0] == -7 && !placed_stored(&without, T_ROWS));
}

Test(crew, ids_that_no_expert_has_count_for_nobody, .fini = free_all) {
    struct crew crew = crew_of(2, 2, PART_FFN);
    const int32_t ids[TOKENS * 2] = {0, -1, 4, INT32_MIN, INT32_MAX, 3};
    crew_count_rows(&crew, ids);
    cr_expect_eq(crew.plan.size[AXIS_N], 2);
    for (int r = 0; r < 2; r++)
        cr_expect(crew.plan.rank[r][AXIS_N].first == r && crew.plan.rank[r][AXIS_N].count == 1);
}

/* ---- what a rank keeps ---- */

/* So many elements of each output. */
static struct store stored_by(int stage, int64_t n) {
    struct store got = {0};
    for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++)
        store_renew(&got, *id, tensor_dtype(*id, DTYPE_F64), n);
    return got;
}

Test(crew, partial_and_local_tensors_stay_the_ranks_and_others_do_not, .fini = free_all) {
    struct crew crew = crew_of(TP, 1, PART_FFN);
    static const int stages[] = {S_O_PROJ, S_PERMUTE, S_DOWN, S_COMBINE, S_ROUTE, S_KV_WRITE, S_FFN_NORM};
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        struct store got = stored_by(stages[i], 5);
        crew_keep(&crew, stages[i], 1, &got, false);
        for (const enum tensor_id *id = stage_table[stages[i]].out; *id != T_NONE; id++) {
            const enum tensor_role role = tensor_table[*id].role;
            const bool kept = role == ROLE_PARTIAL || role == ROLE_LOCAL;
            cr_expect_eq(own[1].of[*id].count, kept ? 5 : 0, "%s", tensor_table[*id].name);
            cr_expect_eq(got.of[*id].count, kept ? 0 : 5, "%s", tensor_table[*id].name);
            cr_expect_eq(own[0].of[*id].count + own[2].of[*id].count, 0);
        }
        store_free(&got);
    }
    const int64_t n_ids = crew.plan.size[AXIS_T] * crew.spec.top_k; /* they are counted */
    struct store got = stored_by(S_ROUTE, n_ids);
    crew_keep(&crew, S_ROUTE, 1, &got, true);
    cr_expect(own[1].of[T_IDS].count == n_ids && own[1].of[T_GATES].count == n_ids &&
              !got.of[T_IDS].memory.data);
}

/* ---- parts ---- */

Test(crew, parts_of_a_sum_are_every_ranks_in_rank_order, .fini = free_all) {
    struct crew crew = crew_of(TP, 1, PART_FFN);
    struct view parts[MAX_PARTS];
    const double *radii[MAX_PARTS];
    for (int r = 0; r < TP; r++) {
        store_count(&own[r], T_MOE_PART, TOKENS * M, 100 * r);
        store_count(&own[r], T_SHARED_PART, TOKENS * M, 100 * r + 50);
        store_count(&radius[r], T_SHARED_PART, TOKENS * M, 7 * r);
    }
    crew.radius = radius;
    const struct placed at = {&crew, S_FFN_SUM, 0};
    cr_assert_eq(placed_parts(&at, parts, radii), 2 * TP);
    for (int i = 0; i < 2 * TP; i++) {
        const double *const x = parts[i].data;
        cr_expect_eq(x[0], i / 2 * 100 + i % 2 * 50, "part %d is %g", i, x[0]);
        cr_expect(parts[i].hi == TOKENS * M && parts[i].stride[0] == M);
        cr_expect(i % 2 ? radii[i][0] == 7 * (i / 2) : !radii[i], "part %d has another's radius", i);
    }
    crew.spec.shared_width = 0; /* a layer without shared experts has half as many */
    cr_assert_eq(placed_parts(&at, parts, NULL), TP);
    for (int i = 0; i < TP; i++) cr_expect_eq(*(const double *)parts[i].data, 100 * i);
}

/* ---- mutants ---- */

static bool more_heads(struct layer_spec *s) {
    const bool changed = s->n_heads != 2 * H;
    s->n_heads = 2 * H;
    return changed;
}
static bool same_spec(struct layer_spec *s) {
    const bool changed = s->hidden != M;
    s->hidden = M;
    return changed;
}
static bool swap_ranks(struct shard_plan *plan, const struct layer_spec *spec) {
    (void)spec;
    const struct span first = plan->rank[0][AXIS_G];
    plan->rank[0][AXIS_G] = plan->rank[plan->tp - 1][AXIS_G];
    plan->rank[plan->tp - 1][AXIS_G] = (struct span){first.first, first.count + 1};
    return plan->tp > 1;
}
static bool same_plan(struct shard_plan *plan, const struct layer_spec *spec) {
    (void)plan, (void)spec;
    return false;
}
static bool other_scale(struct call *call, const struct layer_spec *spec, const struct layer_spec *local) {
    (void)spec, (void)local;
    if (call->op != OP_ATTENTION) return false;
    call->u.attention.scale *= 2;
    return true;
}
static int64_t seen_heads[2];
static bool note_specs(struct call *call, const struct layer_spec *w, const struct layer_spec *l) {
    (void)call;
    seen_heads[0] = w->n_heads, seen_heads[1] = l->n_heads;
    return false;
}

static bool bind_with(struct mutant_hooks hooks, int stage, int rank, struct call *call) {
    static struct crew crew;
    const struct mutant m = {.name = "m", .hooks = hooks};
    const struct operands operands = {.n_parts = 0};
    crew = crew_of(TP, 1, PART_ATTENTION);
    const struct placed at = {&crew, stage, rank};
    return placed_bind(&at, &m, &operands, call);
}

Test(crew, a_mutant_says_whether_it_changed_anything_and_changes_that_alone) {
    struct call right, call;
    const struct crew crew = crew_of(TP, 1, PART_ATTENTION);
    const struct operands operands = {.n_parts = 0};
    const struct placed at = {&crew, S_ATTENTION, 3};
    cr_expect_not(placed_bind(&at, NULL, &operands, &right), "no mutant, no change");
    static const struct {
        struct mutant_hooks hooks;
        bool changes;
    } rows[] = {{{.spec = same_spec}, false},
                {{.plan = swap_ranks}, true},
                {{.plan = same_plan}, false},
                {{.call = other_scale}, true},
                {{.call = note_specs}, false},
                {{.spec = same_spec, .call = other_scale}, true},
                {{.spec = same_spec, .plan = swap_ranks}, true},
                {{.call = NULL}, false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(bind_with(rows[i].hooks, S_ATTENTION, 3, &call), rows[i].changes, "row %zu", i);
        cr_expect_eq(!memcmp(&call, &right, sizeof call), !rows[i].changes, "row %zu", i);
    }
    cr_expect_not(bind_with((struct mutant_hooks){.call = other_scale}, S_ROPE, 3, &call),
                  "another op has no scale to change");
    cr_expect(bind_with((struct mutant_hooks){.plan = swap_ranks}, S_ATTENTION, 3, &call));
    cr_expect_eq(call.u.attention.n_kv_heads, 2, "the changed plan is bound: %lld",
                 (long long)call.u.attention.n_kv_heads);
    cr_expect_eq(crew.plan.rank[3][AXIS_G].count, 1, "the crew's own plan stays as it was");
}

Test(crew, a_call_hook_sees_the_layer_and_the_plan_that_the_spec_hook_left) {
    struct call call;
    cr_expect(
        bind_with((struct mutant_hooks){.spec = more_heads, .call = note_specs}, S_ATTENTION, 1, &call));
    cr_expect(seen_heads[0] == 2 * H && seen_heads[1] == 2 * H / TP, "whole %lld, local %lld",
              (long long)seen_heads[0], (long long)seen_heads[1]);
}

/* A fault is everybody's: it is in the call without being a mutant's. */
Test(crew, a_fault_is_in_every_call_and_no_change) {
    struct call right, call;
    struct crew crew = crew_of(TP, 1, PART_ATTENTION);
    const struct mutant fault = {.hooks.call = other_scale};
    const struct operands operands = {.n_parts = 0};
    const struct placed at = {&crew, S_ATTENTION, 0};
    placed_bind(&at, NULL, &operands, &right);
    crew.fault = &fault;
    cr_expect_not(placed_bind(&at, NULL, &operands, &call));
    cr_expect_eq(call.u.attention.scale, 2 * right.u.attention.scale);
}
