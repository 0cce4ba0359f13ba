/* Is the place of a failure told in the words of the case: its ranks, heads, sequences, pages and
 * experts? Elements are called wrong by a rule; nothing is computed. */
/* SPDX-License-Identifier: MIT */
#include "harness/where.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TP = 2, HEADS = 16, KV = 4, DIM = 8, EXPERTS = 4, TOP = 2 };

static struct layer_spec spec;
static struct batch batch;
static struct store whole;
static struct crew crew;
static struct findings findings;
static char text[256];

/* Three sequences of 40, 39 and 38 tokens. */
static void open_crew(enum part part) {
    struct check_case c = case_defaults();
    c.part = part;
    c.tokens = 40, c.seqs = 3;
    case_finish(&c);
    spec = layer_defaults();
    spec.hidden = 32, spec.n_heads = HEADS, spec.n_kv_heads = KV, spec.head_dim = spec.rot_dim = DIM;
    spec.moe = part == PART_FFN, spec.n_experts = EXPERTS, spec.top_k = TOP, spec.expert_width = 16;
    const struct fill fill = {.kind = FILL_RANDOM, .seed = 3, .spec = &spec};
    batch_build(&batch, &c, &fill);
    crew = (struct crew){.storage = DTYPE_BF16, .whole = &whole};
    crew_open(&crew, &spec, part, &batch, TP, 1);
    findings_init(&findings);
}
static void open_attention(void) { open_crew(PART_ATTENTION); }

static void close_crew(void) {
    store_free(&whole);
    batch_free(&batch);
}

typedef bool rule(int rank, const struct place *place);

/* Judges a tensor of both ranks; wrong is what the rule says. */
static void judge(int stage, enum tensor_id id, rule *wrong) {
    for (int rank = 0; rank < TP; rank++) {
        struct judged j = {.stage = stage, .id = id, .plan = &crew.plan, .rank = rank, .got = &crew};
        j.count = slice_count(&crew.plan, id, rank);
        findings_judged(&findings, &j);
        for (int64_t i = 0; i < j.count; i++) {
            const struct place place = slice_place(&crew.plan, id, rank, i);
            if (wrong(rank, &place)) findings_blame(&findings, &j, i);
        }
    }
}

static const char *where(void) {
    where_describe(&findings, TP, &crew, text, sizeof text);
    findings_init(&findings);
    return text;
}
static const char *attention_where(rule *wrong) {
    judge(S_ATTENTION, T_O, wrong);
    return where();
}

static bool all(int rank, const struct place *p) { return (void)rank, (void)p, true; }
static bool none(int rank, const struct place *p) { return (void)rank, (void)p, false; }
static bool odd_in_group(int rank, const struct place *p) { return (void)rank, p->index[1] % 4 >= 2; }
static bool last_of_group_on_rank_1(int rank, const struct place *p) {
    return rank == 1 && p->index[1] % 4 == 3 && p->index[2] < 4;
}
static bool kv_head_2(int rank, const struct place *p) { return (void)rank, p->index[1] / 4 == 2; }
static bool not_first(int rank, const struct place *p) {
    return (void)rank, p->index[0] != 0 && p->index[0] != 40 && p->index[0] != 79;
}
static bool sequence_1(int rank, const struct place *p) {
    return (void)rank, p->index[0] >= 40 && p->index[0] < 79;
}
static bool page_opener(int rank, const struct place *p) {
    return (void)rank, batch.positions[p->index[0]] % PAGE_SIZE == 0;
}
static bool second_page_on(int rank, const struct place *p) {
    return (void)rank, batch.positions[p->index[0]] >= PAGE_SIZE && p->index[0] < 40;
}
static bool scattered(int rank, const struct place *p) {
    return (p->index[0] * 7919 + p->index[1] * 104729 + p->index[2] * 1299709 + rank) % 11 == 0;
}
static bool half_of_a_token(int rank, const struct place *p) {
    return (void)rank, p->index[0] == 5 && (p->index[1] + p->index[2]) % 2;
}

Test(where, heads_and_tokens_are_told_by_group_rank_sequence_and_page, .init = open_attention,
     .fini = close_crew) {
    const struct {
        rule *wrong;
        const char *words;
    } rows[] = {
        {all, "stage attention, ranks 0-1 of 2, every element"},
        {odd_in_group, "stage attention, ranks 0-1 of 2, heads h % 4 >= 2 (8 of 16; a group has 4)"},
        {last_of_group_on_rank_1, "stage attention, rank 1 of 2, heads 11, 15, dims 0-3"},
        {kv_head_2, "stage attention, rank 1 of 2, heads of kv head 2"},
        {not_first, "stage attention, ranks 0-1 of 2, every token but the first of a sequence"},
        {sequence_1, "stage attention, ranks 0-1 of 2, tokens of sequence 1"},
        {page_opener,
         "stage attention, ranks 0-1 of 2, positions p % 16 = 0 (3 of 40; the first of every page)"},
        {second_page_on, "stage attention, ranks 0-1 of 2, tokens 16-39"},
        {half_of_a_token, "stage attention, ranks 0-1 of 2, token 5, 64 of 128 elements there"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_str_eq(attention_where(rows[i].wrong), rows[i].words, "%zu: %s", i, text);
}

Test(where, a_scatter_is_a_count_and_no_pattern, .init = open_attention, .fini = close_crew) {
    attention_where(scattered);
    cr_expect_eq(strncmp(text, "stage attention, ranks 0-1 of 2, ", 33), 0, "%s", text);
    long long wrong, there;
    cr_assert_eq(sscanf(text + 33, "%lld of %lld elements there", &wrong, &there), 2, "%s", text);
    cr_expect_eq(there, 117 * HEADS * DIM);
    cr_expect(wrong > there / 22 && wrong < there / 5, "%s", text);
}

Test(where, of_several_outputs_those_that_are_wrong, .init = open_attention, .fini = close_crew) {
    judge(S_ROPE, T_Q, none);
    judge(S_ROPE, T_K, all);
    cr_expect_str_eq(where(), "stage rope, ranks 0-1 of 2, only k, every element");
    judge(S_QKV_SPLIT, T_Q, none);
    judge(S_ROPE, T_Q, odd_in_group); /* what was right before does not count */
    judge(S_ROPE, T_K, none);
    judge(S_ATTENTION, T_O, all); /* nor what fails after */
    cr_expect_str_eq(where(),
                     "stage rope, ranks 0-1 of 2, only q, heads h % 4 >= 2 (8 of 16; a group has 4)");
}

static bool end_of_12(int rank, const struct place *p) { return (void)rank, p->index[0] % 12 == 11; }
static bool end_of_8(int rank, const struct place *p) { return (void)rank, p->index[1] % 8 == 7; }

Test(where, tiles_of_the_kernel_have_their_name, .init = open_attention, .fini = close_crew) {
    judge(S_ATTN_NORM, T_NORMED, end_of_12);
    cr_expect_str_eq(where(), "stage attn_norm, ranks 0-1 of 2, tokens t % 12 = 11 (9 of 117)");
    judge(S_ATTN_NORM, T_NORMED, end_of_12);
    findings.tiles.of[EXTENT_ROWS].size = 12;
    cr_expect_str_eq(
        where(), "stage attn_norm, ranks 0-1 of 2, tokens t % 12 = 11 (9 of 117; the last of every tile)");
    judge(S_ATTN_NORM, T_NORMED, end_of_8);
    findings.tiles.of[EXTENT_WIDTH].size = 8;
    cr_expect_str_eq(where(),
                     "stage attn_norm, ranks 0-1 of 2, channels m % 8 = 7 (4 of 32; the last of every tile)");
}

static bool block_of_v(int rank, const struct place *p) { return (void)rank, p->block[1] == 2; }
static bool of_v_one_head(int rank, const struct place *p) { return block_of_v(rank, p) && p->index[1] == 3; }

Test(where, of_fused_rows_q_k_or_v, .init = open_attention, .fini = close_crew) {
    judge(S_QKV_PROJ, T_QKV, block_of_v);
    cr_expect_str_eq(where(), "stage qkv_proj, ranks 0-1 of 2, only v, every element");
    judge(S_QKV_PROJ, T_QKV, of_v_one_head);
    cr_expect_str_eq(where(), "stage qkv_proj, rank 1 of 2, only v, kv head 3");
}

static bool of_expert_2(int rank, const struct place *p) {
    return (void)rank, p->index[0] >= 15 && p->index[0] < 100;
}
static bool last_of_an_expert(int rank, const struct place *p) {
    return (void)rank, p->index[0] == 9 || p->index[0] == 14 || p->index[0] == 99 || p->index[0] == 233;
}

/* 10, 5, 85 and 134 rows of the four experts. */
Test(where, rows_are_told_by_expert, .fini = close_crew) {
    open_crew(PART_FFN);
    int32_t *const ids = store_renew(&whole, T_IDS, DTYPE_I32, batch.n_tokens * TOP);
    for (int i = 0; i < 117 * TOP; i++) ids[i] = i < 10 ? 0 : i < 15 ? 1 : i < 100 ? 2 : 3;
    crew_count_rows(&crew, ids);
    judge(S_DOWN, T_DOWN, of_expert_2);
    cr_expect_str_eq(where(), "stage down, ranks 0-1 of 2, rows of expert 2");
    judge(S_DOWN, T_DOWN, last_of_an_expert);
    cr_expect_str_eq(where(), "stage down, ranks 0-1 of 2, the last row of every expert");
}
