/* Is whatever fills a stage held to the answer? A seat of this test stores what the reference says,
 * but for one thing at a time. */
/* SPDX-License-Identifier: MIT */
#include "harness/inputs.h"
#include "harness/stage.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* ---- a fake seat ---- */

typedef void damage(const struct placed *at, struct outcome *o);
struct fake_seat {
    struct seat seat;
    struct desk desk;
    damage *damage; /* NULL: honest */
};

static struct status fake_prepare(struct seat *seat, const struct placed *at, struct outcome *o) {
    return desk_prepare(&((struct fake_seat *)seat)->desk, at, o);
}

static struct status fake_fill(struct seat *seat, const struct placed *at, const struct mutant *seeded,
                               struct outcome *o) {
    struct answer a;
    (void)seeded;
    o->by = "fake";
    o->problem[0] = 0;
    o->contract = contract_exact(o->call.op);
    if (placed_op(at)->choose) placed_op(at)->choose(&o->call);
    answer_compute(&a, at->stage, o, NULL);
    for (int i = 0; i < a.n; i++) {
        struct stored *const got = &o->got.of[a.id[i]];
        if (placed_op(at)->spread)
            placed_op(at)->spread(at, &o->got, i, a.y[i]);
        else
            for (int64_t n = 0; n < a.count[i]; n++) dtype_store(got->memory.data, got->dtype, n, a.y[i][n]);
    }
    answer_free(&a);
    if (((struct fake_seat *)seat)->damage) ((struct fake_seat *)seat)->damage(at, o);
    return status_ok();
}

/* ---- a small layer, whole and over two ranks ---- */

enum { RANKS = 2 };
static struct layer_spec spec;
static struct fill fill;
static struct batch batch;
static struct store whole, own[RANKS];
static struct crew trunk, crew;
static struct fake_seat fake = {.seat = {fake_prepare, fake_fill}};

static struct {
    struct edge_result edge;
    struct findings findings;
} last;

static void run(const struct crew *c, int stage, int rank, damage *how, struct outcome *o) {
    const struct placed at = {c, stage, rank};
    const struct verdict v = {&last.edge, &last.findings};
    struct answer a;
    memset(&last.edge, 0, sizeof last.edge);
    findings_init(&last.findings);
    fake.damage = how;
    fake.seat.prepare(&fake.seat, &at, o);
    fake.seat.fill(&fake.seat, &at, NULL, o);
    judge_running(&at, o, v);
    answer_compute(&a, stage, o, NULL);
    judge_answer(&at, o, &a, v);
    judge_choice(&at, o, v);
    judge_own(&at, o, v);
    answer_free(&a);
}

static void run_rank(int stage, int rank, damage *how) {
    struct outcome o = {.by = NULL};
    run(&crew, stage, rank, how, &o);
    outcome_free(&o);
}

static void open_layer(enum part part, int64_t ep, int64_t tokens) {
    struct check_case c = case_defaults();
    omp_set_num_threads(1); /* many tiny calls */
    c.phase = PHASE_CHUNKED, c.tokens = tokens, c.cached = 19, c.seqs = 1;
    spec = layer_defaults();
    spec.hidden = 16, spec.n_heads = 4, spec.n_kv_heads = 2, spec.head_dim = spec.rot_dim = 8;
    spec.attn_scale = 0.3, spec.qk_norm = spec.moe = true;
    spec.n_experts = 4, spec.top_k = 2, spec.expert_width = spec.shared_width = 8;
    fill = (struct fill){.kind = FILL_RANDOM, .seed = 3, .spec = &spec};
    batch_build(&batch, &c, &fill);
    trunk = (struct crew){.storage = DTYPE_F32, .whole = &whole, .own = &whole, .unsharded = true};
    crew = (struct crew){.storage = DTYPE_F32, .layout = LAYOUT_PACKED, .whole = &whole, .own = own};
    crew_open(&trunk, &spec, part, &batch, 1, 1);
    crew_open(&crew, &spec, part, &batch, RANKS, ep);
    if (part == PART_FFN) return;
    crew_indices(&trunk, DTYPE_F32);
    inputs_caches(&trunk, &fill);
}

static void close_all(void) {
    desk_free(&fake.desk);
    store_free(&whole);
    for (int r = 0; r < RANKS; r++) store_free(&own[r]);
    batch_free(&batch);
}

static void count_rows(void) {
    crew_count_rows(&trunk, whole.of[T_IDS].memory.data);
    crew_count_rows(&crew, whole.of[T_IDS].memory.data);
}

/* The honest trunk through stages [0, stage); inputs of `stage` are there. */
static void run_to(int stage) {
    for (int s = 0; s <= stage; s++) {
        struct outcome o = {.by = NULL};
        if (!stage_applies(s, trunk.part, &spec)) continue;
        inputs_fill(&trunk, &fill, s);
        if (s < stage) {
            run(&trunk, s, 0, NULL, &o);
            cr_assert(last.edge.state == EDGE_OK && last.edge.outside == 0, "%s: %s", stage_table[s].name,
                      last.findings.first.note);
            crew_keep(&trunk, s, 0, &o.got, true);
            if (s == S_ROUTE) count_rows();
        }
        outcome_free(&o);
    }
}

/* What ranks add up is what they stored themselves. */
static bool has_parts(int stage) { return stage_table[stage].op == OP_SUM; }

/* ---- the right answer, and one element that is not it ---- */

static int hit; /* which answer */
static int64_t element;
static double with;

/* In place of element `element` of answer `hit`; kv_write's stands in the cache. */
static void spoil(const struct placed *at, struct outcome *o) {
    const enum tensor_id answer = answer_tensor(at->stage, hit);
    const bool cached = placed_op(at)->answers_inputs;
    const enum tensor_id id = cached ? placed_row(at)->out[hit] : answer;
    const int64_t row = placed_count(at, answer) / batch.n_tokens;
    const int64_t place = cached ? batch.slots[element / row] * row + element % row : element;
    dtype_store(o->got.of[id].memory.data, o->got.of[id].dtype, place, with);
}

static void expect_caught(int stage, int rank, const char *note) {
    run_rank(stage, rank, spoil);
    const enum tensor_id id = answer_tensor(stage, hit);
    cr_expect_eq(last.edge.state, EDGE_FAIL, "%s: %g passed", stage_table[stage].name, with);
    cr_expect(last.edge.outside == 1 && last.edge.margin > 1, "%s", stage_table[stage].name);
    cr_expect_str_eq(last.findings.first.tensor, tensor_table[id].name);
    cr_expect_eq(last.findings.first.rank, rank);
    cr_expect(strstr(last.findings.first.note, note), "%s", last.findings.first.note);
}

static void attack_stage(int stage, int rank) {
    const struct placed at = {&crew, stage, rank};
    run_rank(stage, rank, NULL);
    cr_expect(last.edge.state == EDGE_OK && last.edge.margin <= 1 && last.findings.stage == -1, "%s: %s",
              stage_table[stage].name, last.findings.first.note);
    for (hit = 0; hit < ref_n_outputs(stage_table[stage].op); hit++) {
        const int64_t n = placed_count(&at, answer_tensor(stage, hit));
        for (element = n - 1; element >= 0; element -= 1 + n / 3) {
            with = 1e9, expect_caught(stage, rank, "outside");
            with = (double)NAN, expect_caught(stage, rank, "NaN");
            with = INFINITY, expect_caught(stage, rank, "not finite");
        }
    }
}

static void attack_part(enum part part) {
    for (int stage = 0; stage < S_COUNT; stage++) {
        if (stage_table[stage].part != part || has_parts(stage)) continue;
        open_layer(part, 1, 5);
        if (stage_applies(stage, part, &spec)) {
            run_to(stage);
            for (int rank = 0; rank < RANKS; rank++) attack_stage(stage, rank);
        }
        close_all();
    }
}

Test(seat, the_answer_passes_and_one_element_that_is_not_it_fails_in_attention) {
    attack_part(PART_ATTENTION);
}
Test(seat, the_answer_passes_and_one_element_that_is_not_it_fails_in_the_ffn) { attack_part(PART_FFN); }

Test(seat, a_wrong_element_is_named_by_its_place_in_the_whole_layer) {
    static const struct {
        int stage, hit, element;
        const char *where; /* on rank 1 of 2: heads 2 and 3, kv head 1 */
    } rows[] = {
        {S_ATTENTION, 0, 2 * 16 + 8 + 3, "token 2 head 3 dim 3"},
        {S_KV_WRITE, 1, 4 * 8 + 5, "token 4 kv head 1 dim 5"},
        {S_QKV_PROJ, 0, 32 + 16 + 1, "token 1 kv head 1 of k dim 1"},
        {S_QKV_PROJ, 0, 32 + 24 + 7, "token 1 kv head 1 of v dim 7"},
        {S_O_PROJ, 0, 16 + 4, "token 1 channel 4"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        open_layer(PART_ATTENTION, 1, 5);
        run_to(rows[i].stage);
        hit = rows[i].hit, element = rows[i].element, with = -1e9;
        run_rank(rows[i].stage, 1, spoil);
        cr_expect_str_eq(last.findings.first.where, rows[i].where);
        cr_expect_eq(last.findings.first.got, -1e9f);
        close_all();
    }
}

static void store_nothing(const struct placed *at, struct outcome *o) {
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE; id++)
        dtype_poison(o->got.of[*id].memory.data, o->got.of[*id].dtype, o->got.of[*id].count);
}

Test(seat, what_was_never_written_fails_element_by_element, .fini = close_all) {
    open_layer(PART_ATTENTION, 1, 5);
    run_to(S_ATTENTION);
    run_rank(S_ATTENTION, 0, store_nothing);
    cr_expect(last.edge.outside == 5 * 2 * 8 && strstr(last.findings.first.note, "never written"));
}

static void run_into_trouble(const struct placed *at, struct outcome *o) {
    (void)at;
    strcpy(o->problem, "fake fell over");
}

Test(seat, trouble_while_running_fails_whatever_was_stored, .fini = close_all) {
    open_layer(PART_ATTENTION, 1, 5);
    run_to(S_ROPE);
    run_rank(S_ROPE, 1, run_into_trouble);
    cr_expect(last.edge.state == EDGE_FAIL && last.edge.outside == 1);
    cr_expect_str_eq(last.findings.first.note, "fake fell over");
    cr_expect_eq(last.findings.first.rank, 1);
}

/* ---- what only one op can do wrong ---- */

static int32_t other_expert;
static void choose_another(const struct placed *at, struct outcome *o) {
    (void)at;
    ((int32_t *)o->got.of[T_IDS].memory.data)[3 * 2 + 1] = other_expert;
}

Test(seat, a_set_of_experts_that_the_scores_do_not_allow_fails, .fini = close_all) {
    open_layer(PART_FFN, 1, 5);
    run_to(S_PERMUTE);
    const int32_t *const ids = (const int32_t *)whole.of[T_IDS].memory.data + 3 * 2;
    for (other_expert = -1; other_expert <= 4; other_expert++) {
        run_rank(S_ROUTE, 0, choose_another);
        cr_expect_eq(last.edge.state, other_expert == ids[1] ? EDGE_OK : EDGE_FAIL, "expert %d beside %d",
                     other_expert, ids[0]);
        if (other_expert != ids[1])
            cr_expect_eq(strncmp(last.findings.first.where, "token 3 ", 8), 0, "%s",
                         last.findings.first.where);
    }
}

static enum tensor_id index_tensor;
static int64_t index_element;
static void point_elsewhere(const struct placed *at, struct outcome *o) {
    (void)at;
    ((int32_t *)o->got.of[index_tensor].memory.data)[index_element] ^= 1;
}

Test(seat, every_index_of_a_permutation_is_looked_at, .fini = close_all) {
    open_layer(PART_FFN, 2, 5);
    run_to(S_PERMUTE);
    for (int rank = 0; rank < RANKS; rank++)
        for (index_tensor = T_OFFSETS; index_tensor <= T_SLOT_ROW; index_tensor++) {
            const struct placed at = {&crew, S_PERMUTE, rank};
            for (index_element = 0; index_element < placed_count(&at, index_tensor); index_element++) {
                run_rank(S_PERMUTE, rank, point_elsewhere);
                cr_expect(last.edge.state == EDGE_FAIL && last.edge.outside == 1);
                cr_expect_str_eq(last.findings.first.tensor, tensor_table[index_tensor].name);
            }
        }
}

static int64_t foreign_slot;
static void write_a_slot(const struct placed *at, struct outcome *o) {
    const struct stored *const cache = &o->got.of[T_V_CACHE];
    dtype_store(cache->memory.data, cache->dtype, foreign_slot * placed_count(at, T_V) / batch.n_tokens, 0.5);
}

Test(seat, a_cache_slot_that_is_nobodys_of_this_call_may_not_be_written, .fini = close_all) {
    open_layer(PART_ATTENTION, 1, 5);
    run_to(S_KV_WRITE);
    for (foreign_slot = 0; foreign_slot < batch.n_pages * PAGE_SIZE; foreign_slot++) {
        bool own_slot = false;
        for (int64_t t = 0; t < batch.n_tokens; t++) own_slot |= batch.slots[t] == foreign_slot;
        run_rank(S_KV_WRITE, 1, write_a_slot);
        cr_expect_eq(last.edge.state, EDGE_FAIL, "slot %lld", (long long)foreign_slot);
        cr_expect_eq(strstr(last.findings.first.note, "does not own") != NULL, !own_slot);
        cr_expect_str_eq(last.findings.first.tensor, own_slot ? "v" : "v_cache");
    }
}

/* ---- few tokens, no rows ---- */

static void store_a_little(const struct placed *at, struct outcome *o) {
    (void)at;
    ((float *)o->got.of[T_MOE_PART].memory.data)[7] = 0x1p-140f;
}

Test(seat, a_rank_without_rows_has_nothing_to_store_and_zeros_to_bring, .fini = close_all) {
    open_layer(PART_FFN, 2, 1);
    run_to(S_PERMUTE);
    for (int i = 0; i < 2; i++)
        ((int32_t *)whole.of[T_IDS].memory.data)[i] = i; /* experts 0 and 1: rank 0's */
    count_rows();
    for (int stage = S_PERMUTE; stage <= S_COMBINE; stage++)
        for (int rank = 0; rank < RANKS && stage_applies(stage, PART_FFN, &spec); rank++) {
            struct outcome o = {.by = NULL};
            inputs_fill(&trunk, &fill, stage);
            run(&crew, stage, rank, NULL, &o);
            cr_expect(last.edge.state == EDGE_OK && last.edge.outside == 0, "%s, rank %d: %s",
                      stage_table[stage].name, rank, last.findings.first.note);
            crew_keep(&crew, stage, rank, &o.got, true);
            outcome_free(&o);
        }
    for (int i = 0; i < 16; i++) cr_expect_eq(((float *)own[1].of[T_MOE_PART].memory.data)[i], 0);
    run_rank(S_COMBINE, 1, store_a_little);
    cr_expect(last.edge.outside == 1, "the smallest number is not zero");
    ((int32_t *)own[0].of[T_SLOT_ROW].memory.data)[0] = 2; /* a row that is not there */
    run_rank(S_COMBINE, 0, NULL);
    cr_expect(last.edge.outside == 16 && last.edge.state == EDGE_FAIL, "NaN agreed with NaN");
}
