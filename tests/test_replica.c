/* When is a rank taken for the unsharded run's double? Only with the same call on the same bits, and what it
 * stored only where every bit is the same: one thing at a time is made another. */
/* SPDX-License-Identifier: MIT */
#include "harness/inputs.h"
#include "harness/replica.h"

#include <criterion/criterion.h>
#include <omp.h>
#include <string.h>

enum { TOKENS = 5, HIDDEN = 16 };
static struct layer_spec spec;
static struct fill fill;
static struct batch batch;
static struct store whole, own[2];
static struct crew trunk, crew;
static struct desk desk, trunk_desk;
static struct outcome of_rank, of_trunk;

/* The unsharded layer, and ranks that hold what it holds. */
static void open_layer(int64_t tp) {
    struct check_case c = case_defaults();
    omp_set_num_threads(1);
    c.tokens = TOKENS;
    case_finish(&c);
    spec = layer_defaults();
    spec.hidden = HIDDEN, spec.n_heads = 4, spec.n_kv_heads = 2, spec.head_dim = spec.rot_dim = 8;
    spec.attn_scale = 0.3, spec.moe = true;
    spec.n_experts = 4, spec.top_k = 2, spec.expert_width = spec.shared_width = 8;
    fill = (struct fill){.kind = FILL_RANDOM, .seed = 3, .spec = &spec};
    batch_build(&batch, &c, &fill);
    trunk = (struct crew){.storage = DTYPE_F32, .whole = &whole, .own = &whole, .unsharded = true};
    crew = (struct crew){.storage = DTYPE_F32, .layout = LAYOUT_CONTIG, .whole = &whole, .own = own};
    crew_open(&trunk, &spec, PART_ATTENTION, &batch, 1, 1);
    crew_open(&crew, &spec, PART_ATTENTION, &batch, tp, 1);
    crew_indices(&trunk, DTYPE_F32);
    inputs_caches(&trunk, &fill);
    for (int s = 0; s < S_COUNT; s++)
        if (stage_applies(s, PART_ATTENTION, &spec)) inputs_fill(&trunk, &fill, s);
    static const enum tensor_id made[] = {T_NORMED, T_QKV, T_Q, T_K, T_V, T_O};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        const int64_t n = slice_count(&trunk.plan, made[i], -1);
        float *const x = store_renew(&whole, made[i], DTYPE_F32, n);
        for (int64_t k = 0; k < n; k++) x[k] = (float)(k % 13) / 8 - 0.7F;
    }
}

static void close_layer(void) {
    outcome_free(&of_rank), outcome_free(&of_trunk);
    desk_free(&desk), desk_free(&trunk_desk);
    store_free(&whole), store_free(&own[0]), store_free(&own[1]);
    batch_free(&batch);
}

static bool same_call(int stage, int rank) {
    const struct placed at = {&crew, stage, rank}, trunk_at = {&trunk, stage, 0};
    cr_assert_eq(desk_prepare(&trunk_desk, &trunk_at, &of_trunk).code, STATUS_OK);
    cr_assert_eq(desk_prepare(&desk, &at, &of_rank).code, STATUS_OK);
    return replica_calls(&at, &of_rank, &trunk_at, &of_trunk);
}

/* ---- the call ---- */

Test(replica, a_stage_that_is_not_cut_is_every_ranks_double_and_one_that_is_cut_nobodys,
     .fini = close_layer) {
    open_layer(2);
    for (int rank = 0; rank < 2; rank++) {
        cr_expect(same_call(S_ATTN_NORM, rank));
        cr_expect_not(same_call(S_QKV_PROJ, rank));
        cr_expect_not(same_call(S_ATTENTION, rank));
        cr_expect_not(same_call(S_O_PROJ, rank));
    }
}

Test(replica, of_one_rank_every_stage_is_the_double, .fini = close_layer) {
    open_layer(1);
    static const int stages[] = {S_ATTN_NORM, S_QKV_PROJ, S_ROPE, S_KV_WRITE, S_ATTENTION, S_O_PROJ};
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        cr_expect(same_call(stages[i], 0), "%s", stage_table[stages[i]].name);
}

Test(replica, another_number_in_the_call_is_another_call, .fini = close_layer) {
    open_layer(1);
    crew.spec.norm_eps *= 2;
    cr_expect_not(same_call(S_ATTN_NORM, 0));
    cr_expect(same_call(S_ROPE, 0));
    crew.spec.attn_scale *= 2;
    cr_expect_not(same_call(S_ATTENTION, 0));
}

Test(replica, one_bit_of_an_operand_is_another_call, .fini = close_layer) {
    open_layer(1);
    for (const enum tensor_id *id = stage_table[S_KV_WRITE].in; *id != T_NONE; id++) {
        const struct stored *const from = &whole.of[*id];
        const size_t bytes = (size_t)from->count * dtype_bytes(from->dtype);
        char *const to = store_renew(&own[0], *id, from->dtype, from->count);
        memcpy(to, from->memory.data, bytes);
        cr_expect(same_call(S_KV_WRITE, 0), "a copy of %s", tensor_table[*id].name);
        to[bytes - 1] ^= 1;
        cr_expect_not(same_call(S_KV_WRITE, 0), "%s", tensor_table[*id].name);
        store_drop(&own[0], *id);
    }
    const struct stored *const cache = &whole.of[T_K_CACHE]; /* written in place: read, too */
    char *const to = store_renew(&own[0], T_K_CACHE, cache->dtype, cache->count);
    memcpy(to, cache->memory.data, (size_t)cache->count * dtype_bytes(cache->dtype));
    to[0] ^= 1;
    cr_expect_not(same_call(S_KV_WRITE, 0));
}

/* ---- what was stored ---- */

static bool same_store(int stage) {
    return replica_stores(&(struct placed){&crew, stage, 1}, &of_rank, &of_trunk);
}

Test(replica, one_bit_of_what_was_stored_is_another_result, .fini = close_layer) {
    open_layer(2);
    cr_assert(same_call(S_ATTN_NORM, 1));
    struct stored *const got = &of_rank.got.of[T_NORMED], *const other = &of_trunk.got.of[T_NORMED];
    cr_assert(got->count == TOKENS * HIDDEN && other->count == got->count);
    memset(got->memory.data, 7, (size_t)got->count * sizeof(float));
    memset(other->memory.data, 7, (size_t)got->count * sizeof(float));
    cr_expect(same_store(S_ATTN_NORM));
    for (int64_t i = 0; i < got->count; i += got->count - 1) {
        ((uint32_t *)got->memory.data)[i] ^= 1;
        cr_expect_not(same_store(S_ATTN_NORM));
        ((uint32_t *)got->memory.data)[i] ^= 1;
    }
    cr_expect(same_store(S_ATTN_NORM));
}

Test(replica, who_had_a_problem_another_schedule_or_another_kernel_is_nobodys_double, .fini = close_layer) {
    open_layer(2);
    cr_assert(same_call(S_ATTN_NORM, 1));
    cr_expect(same_store(S_ATTN_NORM));
    of_rank.schedule = 3;
    cr_expect_not(same_store(S_ATTN_NORM));
    of_rank.schedule = 0;
    of_rank.kernel = &kernel_table[0];
    cr_expect_not(same_store(S_ATTN_NORM));
    of_rank.kernel = NULL;
    strcpy(of_rank.problem, "it wrote outside its output");
    cr_expect_not(same_store(S_ATTN_NORM));
    of_rank.problem[0] = 0, strcpy(of_trunk.problem, "it wrote outside its output");
    cr_expect_not(same_store(S_ATTN_NORM));
}
