/* Is a simple relation between wrong and right values named, and is nothing said where there is
 * none? What a stage should store is made up; what it stored is made of it by a known mistake. */
/* SPDX-License-Identifier: MIT */
#include "harness/relate.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TP = 4, TOKENS = 9, HIDDEN = 32, HEADS = 8, DIM = 8, KV = 4, TOP = 2 };

static struct layer_spec spec;
static struct batch batch;
static struct store whole_store, own[TP];
static struct crew crew;
static struct outcome outcome;
static struct answer whole, answer;
static struct placed at;
static char text[200];

static double noise(void) { return drand48() * 2 - 1; }

static void answer_open(struct answer *a, int n, const enum tensor_id *id, int rank) {
    *a = (struct answer){.n = n};
    for (int i = 0; i < n; i++) {
        a->id[i] = id[i];
        a->count[i] = slice_count(&crew.plan, id[i], rank);
        a->row_size[i] = a->count[i] / TOKENS;
        a->y[i] = block_zeroed((size_t)a->count[i], sizeof(double));
        a->e[i] = block_zeroed((size_t)a->count[i], sizeof(double));
    }
}

/* Rank 1 of a stage: the whole answer at random, the rank's slice of it, and that stored, rounded. */
static void open_stage(int stage, int n, const enum tensor_id *id) {
    struct check_case c = case_defaults();
    c.tokens = TOKENS;
    case_finish(&c);
    srand48(7);
    spec = layer_defaults();
    spec.hidden = HIDDEN, spec.n_heads = HEADS, spec.n_kv_heads = KV, spec.head_dim = spec.rot_dim = DIM;
    spec.attn_scale = 0.3;
    spec.moe = true, spec.n_experts = 8, spec.top_k = TOP, spec.expert_width = 16;
    const struct fill fill = {.kind = FILL_RANDOM, .seed = 3, .spec = &spec};
    batch_build(&batch, &c, &fill);
    crew = (struct crew){.storage = DTYPE_BF16, .whole = &whole_store, .own = own};
    crew_open(&crew, &spec, stage_table[stage].part, &batch, TP, 1);
    at = (struct placed){&crew, stage, 1};
    outcome = (struct outcome){.by = "fake", .call.op = stage_table[stage].op};
    answer_open(&whole, n, id, -1);
    answer_open(&answer, n, id, 1);
    for (int i = 0; i < n; i++) {
        for (int64_t k = 0; k < whole.count[i]; k++) whole.y[i][k] = noise(), whole.e[i][k] = 1e-4;
        slice_copy(&crew.plan, id[i], 1, sizeof(double), answer.y[i], whole.y[i]);
        slice_copy(&crew.plan, id[i], 1, sizeof(double), answer.e[i], whole.e[i]);
        void *const got = store_renew(&outcome.got, id[i], DTYPE_BF16, answer.count[i]);
        for (int64_t k = 0; k < answer.count[i]; k++) dtype_store(got, DTYPE_BF16, k, answer.y[i][k]);
    }
}

static void fill_whole(enum tensor_id id) {
    const int64_t n = slice_count(&crew.plan, id, -1);
    void *const x = store_renew(&whole_store, id, DTYPE_BF16, n);
    for (int64_t k = 0; k < n; k++) dtype_store(x, DTYPE_BF16, k, noise());
}

/* What attention reads: one sequence, one kv head. */
enum { H = HEADS / TP };
enum { KEYS = TOKENS, PAGE = 4, PAGES = 3 };
static float q_of[TOKENS * H * DIM], k_of[PAGES * PAGE * DIM], v_of[PAGES * PAGE * DIM];
static const int32_t page_table[PAGES] = {2, 0, 1}, query_start[2] = {0, TOKENS}, kv_len[1] = {KEYS};

static void open_attention(void) {
    open_stage(S_ATTENTION, 1, (const enum tensor_id[]){T_O});
    fill_whole(T_Q); /* looks like the output */
    for (size_t i = 0; i < sizeof q_of / sizeof *q_of; i++) q_of[i] = (float)noise();
    for (size_t i = 0; i < sizeof k_of / sizeof *k_of; i++)
        k_of[i] = (float)noise(), v_of[i] = (float)noise();
    outcome.call.u.attention =
        (struct attention_args){.q = {q_of, DTYPE_F32, {H * DIM, DIM}, 0, TOKENS * H * DIM},
                                .k_cache = {k_of, DTYPE_F32, {PAGE * DIM, DIM, DIM}, 0, PAGES * PAGE * DIM},
                                .v_cache = {v_of, DTYPE_F32, {PAGE * DIM, DIM, DIM}, 0, PAGES * PAGE * DIM},
                                .page_table = {(void *)(uintptr_t)page_table, DTYPE_I32, {PAGES}, 0, PAGES},
                                .query_start = {(void *)(uintptr_t)query_start, DTYPE_I32, {0}, 0, 2},
                                .kv_len = {(void *)(uintptr_t)kv_len, DTYPE_I32, {0}, 0, 1},
                                .n_tokens = TOKENS,
                                .n_seqs = 1,
                                .n_heads = H,
                                .n_kv_heads = 1,
                                .head_dim = DIM,
                                .page_size = PAGE,
                                .n_pages = PAGES,
                                .max_queries = TOKENS,
                                .max_kv = KEYS,
                                .scale = 0.3,
                                .causal = true};
}

static void close_stage(void) {
    answer_free(&whole), answer_free(&answer);
    outcome_free(&outcome);
    store_free(&whole_store);
    for (int r = 0; r < TP; r++) store_free(&own[r]);
    batch_free(&batch);
}

static void store(int i, int64_t k, double value) {
    dtype_store(outcome.got.of[answer.id[i]].memory.data, DTYPE_BF16, k, value);
}

static const char *related(void) {
    text[0] = 0;
    relate(&at, &outcome, &answer, &whole, text, sizeof text);
    return text;
}

/* Every element of output i as `by` times the right one, with a few per cent that are anything. */
static void store_scaled(double by, double astray) {
    for (int64_t k = 0; k < answer.count[0]; k++)
        store(0, k, drand48() < astray ? 9 + noise() : by * answer.y[0][k]);
}

Test(relate, a_factor_is_named_and_said_what_it_is, .init = open_attention, .fini = close_stage) {
    store_scaled(4, 0);
    cr_expect_str_eq(related(), "4 x the right value (4 = tp)");
    store_scaled(0.25, 0.04);
    cr_expect_str_eq(related(), "0.25 x the right value (0.25 = 1/tp)", "%s", text);
    store_scaled(-1, 0);
    cr_expect_str_eq(related(), "-1 x the right value");
    store_scaled(1.75, 0);
    cr_expect_eq(strncmp(related(), "1.7", 3), 0, "%s", text);
    cr_expect(strstr(text, " x the right value"), "%s", text);
    store_scaled(4, 0.2);
    cr_expect_str_empty(related(), "one in five is something else: %s", text);
}

Test(relate, nothing_stored_is_zero_or_what_the_buffer_held, .init = open_attention, .fini = close_stage) {
    store_scaled(0, 0);
    cr_expect_str_eq(related(), "zero");
    dtype_poison(outcome.got.of[T_O].memory.data, DTYPE_BF16, answer.count[0]);
    cr_expect(strstr(related(), "what the buffer held before"), "%s", text);
    store(0, 3, (double)NAN);
    for (int64_t k = 0; k < answer.count[0]; k++) store(0, k, k % 2 ? (double)NAN : 7);
    cr_expect_str_empty(related(), "%s", text);
}

static double of_whole(int64_t t, int64_t h, int64_t d) { return whole.y[0][(t * HEADS + h) * DIM + d]; }

Test(relate, another_element_is_found_in_the_whole_tensor_along_any_axis, .init = open_attention,
     .fini = close_stage) {
    for (int64_t k = 0; k < answer.count[0]; k++) { /* rank 1 holds heads 2 and 3 */
        const int64_t t = k / (H * DIM), h = H + k / DIM % H, d = k % DIM;
        store(0, k, of_whole(t, h + 2, d));
    }
    cr_expect_str_eq(related(), "head i holds what head i + 2 should");
    for (int64_t k = 0; k < answer.count[0]; k++)
        store(0, k, of_whole(k / (H * DIM), H + k / DIM % H, (k % DIM) ^ 1));
    cr_expect_str_eq(related(), "each dim and its neighbour are swapped");
    for (int64_t k = 0; k < answer.count[0]; k++)
        store(0, k, of_whole(k / (H * DIM), H + k / DIM % H, (k % DIM + DIM / 2) % DIM));
    cr_expect_str_eq(related(), "the halves of the dims are swapped");
    for (int64_t k = 0; k < answer.count[0]; k++) store(0, k, of_whole(4, H + k / DIM % H, k % DIM));
    cr_expect_str_eq(related(), "every token holds what token 4 should");
    store_scaled(1, 0);
    for (int64_t k = H * DIM; k < answer.count[0]; k++)
        store(0, k, of_whole(k / (H * DIM) - 1, H + k / DIM % H, k % DIM));
    cr_expect_str_eq(related(), "token i holds what token i - 1 should");
}

Test(relate, one_output_may_hold_another, .fini = close_stage) {
    open_stage(S_QKV_SPLIT, 3, (const enum tensor_id[]){T_Q, T_K, T_V});
    for (int64_t k = 0; k < answer.count[1]; k++) store(1, k, answer.y[2][k]);
    cr_expect_str_eq(related(), "k: what v should hold");
}

Test(relate, rows_with_a_factor_of_their_own, .init = open_attention, .fini = close_stage) {
    double factor[TOKENS];
    for (int t = 0; t < TOKENS; t++) factor[t] = 2 + t;
    for (int64_t k = 0; k < answer.count[0]; k++) store(0, k, factor[k / (H * DIM)] * answer.y[0][k]);
    cr_expect_str_empty(related(), "a factor times one rounding is no value within 1e-4: %s", text);
    for (int64_t k = 0; k < answer.count[0]; k++) answer.e[0][k] = 0.01;
    cr_expect(strstr(related(), "times a factor that each row has of its own"), "%s", text);
}

Test(relate, an_input_that_was_left_as_it_was, .fini = close_stage) {
    open_stage(S_ATTN_RESIDUAL, 1, (const enum tensor_id[]){T_Y});
    fill_whole(T_X), fill_whole(T_ATTN_OUT);
    for (int64_t k = 0; k < answer.count[0]; k++)
        store(0, k, dtype_load(whole_store.of[T_ATTN_OUT].memory.data, DTYPE_BF16, k));
    cr_expect_str_eq(related(), "the input attn_out, unchanged");
}

Test(relate, a_sum_less_the_part_of_one_rank, .fini = close_stage) {
    static float part[TP][TOKENS * HIDDEN];
    open_stage(S_ATTN_SUM, 1, (const enum tensor_id[]){T_ATTN_OUT});
    for (int p = 0; p < TP; p++) {
        for (int64_t k = 0; k < TOKENS * HIDDEN; k++) part[p][k] = (float)noise();
        outcome.part[p] = (struct view){part[p], DTYPE_F32, {HIDDEN}, 0, TOKENS * HIDDEN};
    }
    outcome.call.u.sum =
        (struct sum_args){.part = outcome.part, .n_parts = TP, .n_tokens = TOKENS, .width = HIDDEN};
    for (int64_t k = 0; k < answer.count[0]; k++) store(0, k, answer.y[0][k] - part[2][k]);
    cr_expect_str_eq(related(), "the right value less what rank 2 brought");
    for (int64_t k = 0; k < answer.count[0]; k++) store(0, k, answer.y[0][k] + part[3][k]);
    cr_expect_str_eq(related(), "the right value plus what rank 3 brought");
}

Test(relate, a_combination_less_one_expert, .fini = close_stage) {
    enum { ROWS = TOKENS * TOP };
    static float down[ROWS * HIDDEN], gates[ROWS];
    static int32_t slot_row[ROWS];
    open_stage(S_COMBINE, 1, (const enum tensor_id[]){T_MOE_PART});
    for (int i = 0; i < ROWS * HIDDEN; i++) down[i] = (float)noise();
    for (int i = 0; i < ROWS; i++) gates[i] = (float)(0.2 + drand48()), slot_row[i] = (i * 7 + 3) % ROWS;
    outcome.call.u.combine = (struct combine_args){.down = {down, DTYPE_F32, {HIDDEN}, 0, ROWS * HIDDEN},
                                                   .slot_row = {slot_row, DTYPE_I32, {TOP}, 0, ROWS},
                                                   .gates = {gates, DTYPE_F32, {TOP}, 0, ROWS},
                                                   .n_tokens = TOKENS,
                                                   .top_k = TOP,
                                                   .width = HIDDEN,
                                                   .n_rows = ROWS};
    for (int64_t k = 0; k < answer.count[0]; k++) {
        const int64_t slot = k / HIDDEN * TOP + 1;
        store(0, k,
              answer.y[0][k] - (double)gates[slot] * (double)down[slot_row[slot] * HIDDEN + k % HIDDEN]);
    }
    cr_expect_str_eq(related(), "the right value less what the expert of choice 1 gives");
}

Test(relate, noise_resembles_nothing, .init = open_attention, .fini = close_stage) {
    for (int draw = 0; draw < 20; draw++) {
        for (int64_t k = 0; k < answer.count[0]; k++) store(0, k, noise());
        cr_expect_str_empty(related(), "%s", text);
    }
    for (int64_t k = 0; k < answer.count[0]; k++) answer.e[0][k] = whole.e[0][k] = 0.5;
    for (int64_t k = 0; k < whole.count[0]; k++) whole.e[0][k] = 0.5; /* wide: much of the whole fits */
    for (int draw = 0; draw < 20; draw++) {
        for (int64_t k = 0; k < answer.count[0]; k++)
            store(0, k, answer.y[0][k] + (noise() < 0 ? -0.7 : 0.7));
        cr_expect_str_empty(related(), "%s", text);
    }
}

Test(relate, nothing_wrong_and_few_wrong_elements_resemble_nothing, .init = open_attention,
     .fini = close_stage) {
    cr_expect_str_empty(related(), "%s", text);
    for (int64_t k = 0; k < 15; k++) store(0, k, 4 * answer.y[0][k]);
    cr_expect_str_empty(related(), "%s", text);
}

/* ---- keys of attention ---- */

/* One kv head, one sequence; y as the reference has it with every key as often as `times` says. */
static void attention(double *y, int (*times)(int64_t j, int64_t visible)) {
    const struct attention_args *const a = &outcome.call.u.attention;
    for (int64_t i = 0; i < TOKENS * H * DIM; i++) {
        double sum = 0, total = 0;
        for (int64_t j = 0; j < KEYS; j++) {
            const int64_t row = (page_table[j / PAGE] * PAGE + j % PAGE) * DIM;
            double score = 0;
            for (int64_t d = 0; d < DIM; d++)
                score += (double)q_of[i / DIM * DIM + d] * (double)k_of[row + d] * a->scale;
            const double w = times(j, i / DIM / H + 1) * exp(score);
            sum += w * (double)v_of[row + i % DIM], total += w;
        }
        y[i] = sum / total;
    }
}

static int visible_keys(int64_t j, int64_t n) { return j < n; }
static int but_the_last(int64_t j, int64_t n) { return j < n - (n > 1); }
static int and_one_more(int64_t j, int64_t n) { return j <= n; }
static int but_the_first(int64_t j, int64_t n) { return j < n && (j || n == 1); }
static int but_key_2(int64_t j, int64_t n) { return j < n && j != 2; }
static int key_3_twice(int64_t j, int64_t n) { return (j < n) + (j < n && j == 3); }
static int but_random(int64_t j, int64_t n) { return j < n && (j == 0 || drand48() < 0.5); }

Test(relate, keys_that_attention_leaves_out_or_sees_too_many, .init = open_attention, .fini = close_stage) {
    static const struct {
        int (*times)(int64_t j, int64_t visible);
        const char *words;
    } rows[] = {{but_the_last, "the last key of every query is missing"},
                {and_one_more, "every query sees one key too many"},
                {but_the_first, "the first key is missing"},
                {but_key_2, "key 2 is missing"},
                {key_3_twice, "key 3 is taken twice"},
                {but_random, ""},
                {visible_keys, ""}};
    static double wrong[TOKENS * H * DIM];
    attention(answer.y[0], visible_keys);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        attention(wrong, rows[r].times);
        for (int64_t i = 0; i < answer.count[0]; i++) store(0, i, wrong[i]);
        cr_expect_str_eq(related(), rows[r].words, "%zu: %s", r, text);
    }
}
