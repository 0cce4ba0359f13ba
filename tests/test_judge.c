/* Does a wrong element always fail, and is it named? The honest output of a real stage is damaged
 * in one place at a time; what lies on the edge of the acceptance set passes, what lies one step
 * beyond does not. */
/* SPDX-License-Identifier: MIT */
#include "harness/judge.h"
#include "harness/judge_route.h"
#include "harness/where.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/trunk.h"

static struct device *device;
static struct trunk trunk;

/* Runs preset tiny up to and including `stage`; what it stored is in trunk.fresh. */
static void run_to(int stage, enum dtype dtype) {
    struct check_case c = case_defaults();
    struct model model;
    strcpy(c.model, "tiny");
    c.part = stage_table[stage].part;
    c.tokens = 9;
    c.dtype = dtype;
    case_finish(&c);
    cr_assert_eq(model_load(c.model, &model).code, STATUS_OK);
    cr_assert_eq(device_open(DEVICE_HOST, &device).code, STATUS_OK);
    trunk_open(&trunk, &c, &model, NULL, device, NULL);
    for (int s = 0; s <= stage; s++) {
        if (!trunk_has_stage(&trunk, s)) continue;
        cr_assert_eq(trunk_stage(&trunk, s).code, STATUS_OK);
        cr_assert_eq(trunk.edge.state, EDGE_OK, "%s is not honest: %s", stage_table[s].name,
                     trunk.findings.first.note);
        if (s < stage) trunk_stage_done(&trunk, s);
    }
}

static void close_all(void) {
    trunk_close(&trunk);
    device_close(device);
}

struct verdict {
    struct edge_result edge;
    struct findings findings;
};

/* The slice of rank 2 of 4 of the output of a stage, with its right values. */
struct slice {
    struct shard_plan plan;
    struct judged j;
    void *got;
    double *y, *e;
};

static struct slice slice_of(int stage, enum tensor_id id) {
    struct slice s = {0};
    plan_build(&s.plan, &trunk.crew.spec, 4, 1);
    for (enum axis_name a = 0; a < AXIS_COUNT; a++) s.plan.size[a] = trunk.crew.plan.size[a];
    const int64_t n = slice_count(&s.plan, id, 2);
    const enum dtype d = trunk.outcome.got.of[id].dtype;
    s.got = malloc((size_t)n * dtype_bytes(d));
    s.y = malloc((size_t)n * sizeof(double));
    s.e = malloc((size_t)n * sizeof(double));
    slice_copy(&s.plan, id, 2, dtype_bytes(d), s.got, trunk.outcome.got.of[id].memory.data);
    slice_copy(&s.plan, id, 2, sizeof(double), s.y, trunk.answer.y[0]);
    slice_copy(&s.plan, id, 2, sizeof(double), s.e, trunk.answer.e[0]);
    s.j = (struct judged){.stage = stage, .id = id, .rank = 2, .dtype = d, .y = s.y, .e = s.e, .count = n};
    return s;
}

static void slice_free(struct slice *s) {
    free(s->got);
    free(s->y);
    free(s->e);
}

static struct verdict set_verdict(struct slice *s) {
    struct verdict v = {0};
    findings_init(&v.findings);
    s->j.plan = &s->plan;
    s->j.got = s->got;
    judge_set(&s->j, &v.edge, &v.findings);
    return v;
}

/* The stored number `steps` above v: magnitudes count up in the pattern, whatever the format. */
static double bits_away(enum dtype d, double v, int steps) {
    const uint32_t sign = 1u << (8 * dtype_bytes(d) - 1);
    uint32_t bits = 0;
    dtype_store(&bits, d, 0, v);
    const int64_t magnitude = bits & (sign - 1), key = (bits & sign ? -magnitude : magnitude) + steps;
    bits = (uint32_t)llabs(key) | (key < 0 ? sign : 0);
    return dtype_load(&bits, d, 0);
}

/* Element i set to `value` fails alone, at these coordinates. */
static void expect_caught(struct slice *s, int64_t i, double value, const char *where) {
    const double honest = dtype_load(s->got, s->j.dtype, i);
    dtype_store(s->got, s->j.dtype, i, value);
    const struct verdict v = set_verdict(s);
    cr_expect_eq(v.edge.state, EDGE_FAIL, "%g in place of %g (y %g +- %g) passed at %s", value, honest,
                 s->y[i], s->e[i], where);
    cr_expect_eq(v.edge.outside, 1);
    cr_expect(v.edge.margin > 1);
    cr_expect_str_eq(v.findings.first.where, where);
    cr_expect_str_eq(v.findings.worst.where, where);
    cr_expect_eq(v.findings.first.rank, 2);
    cr_expect(isnan(value) ? isnan(v.findings.first.got)
                           : v.findings.first.got == dtype_round(s->j.dtype, value));
    cr_expect_eq(v.findings.first.expected, s->y[i]);
    cr_expect_eq(v.findings.first.bound, s->e[i]);
    dtype_store(s->got, s->j.dtype, i, honest);
}

/* [9 tokens, 2 of 8 heads, 16 dims] of rank 2: heads 4 and 5. */
static void attack_attention(enum dtype dtype) {
    run_to(S_ATTENTION, dtype);
    struct slice s = slice_of(S_ATTENTION, T_O);
    cr_assert_eq(s.j.count, 9 * 2 * 16);
    const struct verdict honest = set_verdict(&s);
    cr_expect(honest.edge.state == EDGE_OK && honest.edge.outside == 0 && honest.edge.elements == s.j.count);
    cr_expect(honest.edge.margin <= 1 && honest.findings.stage == -1);
    for (int64_t i = 0; i < s.j.count; i += 5) {
        char where[96];
        snprintf(where, sizeof where, "token %d head %d dim %d", (int)(i / 32), (int)(4 + i / 16 % 2),
                 (int)(i % 16));
        const double low = dtype_round(dtype, s.y[i] - s.e[i]), high = dtype_round(dtype, s.y[i] + s.e[i]);
        expect_caught(&s, i, 0, where);
        expect_caught(&s, i, (double)NAN, where);
        expect_caught(&s, i, INFINITY, where);
        expect_caught(&s, i, -INFINITY, where);
        expect_caught(&s, i, -dtype_load(s.got, dtype, i), where);
        const double neighbour = dtype_load(s.got, dtype, i ? i - 1 : 1);
        if (neighbour < low || neighbour > high) expect_caught(&s, i, neighbour, where);
        expect_caught(&s, i, bits_away(dtype, high, 1), where);
        expect_caught(&s, i, bits_away(dtype, low, -1), where);
        for (int edge = 0; edge < 2; edge++) {
            const double stored = dtype_load(s.got, dtype, i);
            dtype_store(s.got, dtype, i, edge ? high : low);
            const struct verdict v = set_verdict(&s);
            cr_expect(v.edge.state == EDGE_OK && v.edge.margin <= 1, "the edge of the set is part of it");
            dtype_store(s.got, dtype, i, stored);
        }
    }
    slice_free(&s);
    close_all();
}

Test(judge, one_wrong_element_of_an_attention_output_is_caught_and_named_in_bf16) {
    attack_attention(DTYPE_BF16);
}
Test(judge, one_wrong_element_of_an_attention_output_is_caught_and_named_in_fp32) {
    attack_attention(DTYPE_F32);
}
Test(judge, one_wrong_element_of_an_attention_output_is_caught_and_named_in_fp16) {
    attack_attention(DTYPE_F16);
}

static void expect_poison_told(enum dtype dtype) {
    run_to(S_ATTENTION, dtype);
    struct slice s = slice_of(S_ATTENTION, T_O);
    memset((char *)s.got + 5 * dtype_bytes(dtype), POISON_HUGE, dtype_bytes(dtype));
    s.y[5] = dtype_load(s.got, dtype, 5);
    cr_expect_eq(set_verdict(&s).edge.outside, 0, "that very number is right where it is the answer");
    s.y[5] = 1;
    s.e[5] = INFINITY;
    const struct verdict v = set_verdict(&s);
    cr_expect(v.edge.outside == 1 && v.edge.margin == INFINITY);
    cr_expect(strstr(v.findings.first.note, "poison: never written"), "%s", v.findings.first.note);
    slice_free(&s);
    close_all();
}

Test(judge, poison_was_stored_by_nobody_however_wide_the_set_is) {
    expect_poison_told(DTYPE_F32);
    expect_poison_told(DTYPE_F16);
}

Test(judge, a_concatenated_axis_names_the_head_within_its_block) {
    run_to(S_QKV_PROJ, DTYPE_BF16);
    struct slice s = slice_of(S_QKV_PROJ, T_QKV); /* rank 2: heads 4, 5, kv head 2 as k, kv head 2 as v */
    cr_assert_eq(s.j.count, 9 * 4 * 16);
    expect_caught(&s, 0, 1e9, "token 0 head 4 dim 0");
    expect_caught(&s, 31, 1e9, "token 0 head 5 dim 15");
    expect_caught(&s, 32, 1e9, "token 0 kv head 2 of k dim 0");
    expect_caught(&s, 3 * 64 + 48, 1e9, "token 3 kv head 2 of v dim 0");
    slice_free(&s);
    close_all();
}

Test(judge, many_wrong_elements_are_counted_and_their_place_is_named) {
    run_to(S_ATTENTION, DTYPE_BF16);
    struct slice s = slice_of(S_ATTENTION, T_O);
    char where[256];
    for (int64_t t = 3; t < 9; t++)
        for (int64_t d = 0; d < 16; d++)
            dtype_store(s.got, DTYPE_BF16, t * 32 + 16 + d, t == 6 && d == 2 ? 100 : 3);
    const struct verdict v = set_verdict(&s);
    cr_expect_eq(v.edge.outside, 6 * 16);
    where_describe(&v.findings, 4, NULL, where, sizeof where);
    cr_expect_str_eq(where, "stage attention, rank 2 of 4, tokens 3-8, head 5");
    cr_expect_str_eq(v.findings.first.where, "token 3 head 5 dim 0");
    cr_expect(v.findings.worst.got == 100 || v.findings.worst.bound < v.findings.first.bound);
    cr_expect_str_eq(v.findings.first.stage, "attention");
    cr_expect_str_eq(v.findings.first.tensor, "o");
    slice_free(&s);
    close_all();
}

Test(judge, identical_means_the_same_bits) {
    run_to(S_ATTENTION, DTYPE_BF16);
    struct slice s = slice_of(S_ATTENTION, T_O);
    const size_t bytes = (size_t)s.j.count * 2;
    uint16_t *const expected = malloc(bytes);
    memcpy(expected, s.got, bytes);
    s.j.plan = &s.plan;
    s.j.got = s.got;
    for (int64_t i = -1; i < s.j.count; i += 17) {
        struct verdict v = {0};
        findings_init(&v.findings);
        if (i >= 0) ((uint16_t *)s.got)[i] ^= 1;
        judge_identical(&s.j, expected, &v.edge, &v.findings);
        cr_expect_eq(v.edge.state, i < 0 ? EDGE_OK : EDGE_FAIL);
        cr_expect_eq(v.edge.outside, i >= 0);
        cr_expect_eq(v.edge.elements, s.j.count);
        if (i >= 0) {
            char where[96];
            snprintf(where, sizeof where, "token %d head %d dim %d", (int)(i / 32), (int)(4 + i / 16 % 2),
                     (int)(i % 16));
            cr_expect_str_eq(v.findings.first.where, where);
            ((uint16_t *)s.got)[i] ^= 1;
        }
    }
    static const uint16_t zeros[2] = {0, 0x8000}, nans[2] = {0x7fff, 0xffff};
    struct judged one = s.j;
    one.count = 1;
    for (int i = 0; i < 2; i++) {
        struct verdict v = {0};
        findings_init(&v.findings);
        one.got = i ? &nans[0] : &zeros[0];
        judge_identical(&one, i ? &nans[1] : &zeros[1], &v.edge, &v.findings);
        cr_expect_eq(v.edge.state, EDGE_FAIL, "a zero or a NaN of the other sign has other bits");
    }
    free(expected);
    slice_free(&s);
    close_all();
}

Test(judge, the_reference_twice_agrees_bit_for_bit_or_within_its_slack) {
    struct shard_plan plan;
    const struct layer_spec spec = {.hidden = 3, .n_heads = 1, .n_kv_heads = 1, .head_dim = 3};
    plan_build(&plan, &spec, 1, 1);
    plan.size[AXIS_T] = 1;
    const struct judged j = {.stage = S_O_PROJ, .id = T_O_PART, .plan = &plan, .count = 3};
    const double slack[3] = {0, 1e-12, 1e-12};
    const struct {
        double a[3];
        bool exact, within;
    } rows[] = {
        {{1, 2, 3}, true, true},
        {{nextafter(1, 2), 2, 3}, false, false}, /* slack 0 */
        {{1, 2 + 0.9e-12, 3}, false, true},
        {{1, 2, 3 + 1.1e-12}, false, false},
        {{1, 2, (double)NAN}, false, false},
        {{1, INFINITY, 3}, false, false},
    };
    const double nans[3] = {1, (double)NAN, -INFINITY}, others[3] = {1, -(double)NAN, -INFINITY};
    const double b[3] = {1, 2, 3};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int with_slack = 0; with_slack < 2; with_slack++) {
            struct verdict v = {0};
            findings_init(&v.findings);
            judge_plan(&j, rows[i].a, b, with_slack ? slack : NULL, &v.edge, &v.findings);
            const bool ok = with_slack ? rows[i].within : rows[i].exact;
            cr_expect_eq(v.edge.state, ok ? EDGE_OK : EDGE_FAIL, "row %zu slack %d", i, with_slack);
            cr_expect(ok ? v.edge.margin <= 1 : v.edge.margin > 1);
        }
    for (int with_slack = 0; with_slack < 2; with_slack++) { /* a kernel's NaN in, NaN out on either side */
        struct verdict plan_edge = {0}, chain_edge = {0};
        findings_init(&plan_edge.findings);
        findings_init(&chain_edge.findings);
        judge_plan(&j, nans, others, with_slack ? slack : NULL, &plan_edge.edge, &plan_edge.findings);
        judge_chain(&j, nans, others, slack, &chain_edge.edge, &chain_edge.findings);
        cr_expect(plan_edge.edge.state == EDGE_OK && plan_edge.edge.margin == 0);
        cr_expect(chain_edge.edge.state == EDGE_FAIL && chain_edge.edge.outside == 2, "no kernel is in it");
    }
    struct verdict v = {0};
    struct judged sampled = j, together = j;
    char where[256];
    findings_init(&v.findings);
    together.rank = 1, together.to_rank = 3;
    judge_plan(&together, rows[3].a, b, slack, &v.edge, &v.findings);
    where_describe(&v.findings, 4, NULL, where, sizeof where);
    cr_expect_str_eq(where, "stage o_proj, ranks 1-3 of 4, channel 2");
    cr_expect(v.findings.first.rank == 1 && v.findings.first.to_rank == 3);
    v = (struct verdict){0};
    findings_init(&v.findings);
    plan.size[AXIS_T] = 7;
    sampled.first = 6 * 3; /* a sampled row is named by its own place */
    judge_plan(&sampled, rows[3].a, b, NULL, &v.edge, &v.findings);
    cr_expect_str_eq(v.findings.first.where, "token 6 channel 2");
}

/* ---- routing ---- */

enum { TOKENS = 5, EXPERTS = 32, K = 8 };

static void route_intervals(struct call *call, float *logits, int32_t *ids, double *lo, double *hi) {
    srand48(11);
    for (int i = 0; i < TOKENS * EXPERTS; i++) logits[i] = (float)(drand48() * 8 - 4);
    *call = (struct call){.op = OP_ROUTE};
    call->u.route = (struct route_args){.logits = {logits, DTYPE_F32, {EXPERTS}, 0, TOKENS * EXPERTS},
                                        .ids = {ids, DTYPE_I32, {K}, 0, TOKENS * K},
                                        .n_tokens = TOKENS,
                                        .n_experts = EXPERTS,
                                        .top_k = K,
                                        .n_group = 1,
                                        .topk_group = 1,
                                        .score = SCORE_SIGMOID,
                                        .renormalise = true,
                                        .routed_scale = 1};
    const struct contract contract = contract_exact(OP_ROUTE);
    ref_route_ids(call, 0, TOKENS, ids);
    ref_route_choices(call, &contract, NULL, 0, TOKENS, lo, hi);
}

Test(judge, what_was_not_replayed_is_not_held_against_an_order) {
    struct shard_plan plan;
    const struct layer_spec spec = {.hidden = 3, .n_heads = 1, .n_kv_heads = 1, .head_dim = 3};
    plan_build(&plan, &spec, 1, 1);
    plan.size[AXIS_T] = 1;
    const double y[3] = {1, 0, 2}, e[3] = {0, INFINITY, 0};
    float got[3] = {1, 5, 2};
    const struct judged j = {.stage = S_O_PROJ,
                             .id = T_O_PART,
                             .plan = &plan,
                             .dtype = DTYPE_F32,
                             .count = 3,
                             .got = got,
                             .y = y,
                             .e = e,
                             .in_order = true};
    for (int wrong = 0; wrong < 2; wrong++) {
        struct verdict v = {.edge = {.state = EDGE_OK}};
        findings_init(&v.findings);
        got[2] = wrong ? 2.0000002f : 2;
        judge_set(&j, &v.edge, &v.findings);
        cr_expect_eq(v.edge.in_order, 2);
        cr_expect_eq(v.edge.outside, wrong);
        cr_expect_eq(v.edge.state, wrong ? EDGE_FAIL : EDGE_OK);
    }
}

Test(judge, a_top_k_set_fails_with_a_swapped_a_repeated_or_an_impossible_expert) {
    float logits[TOKENS * EXPERTS];
    int32_t ids[TOKENS * K];
    double lo[TOKENS * EXPERTS], hi[TOKENS * EXPERTS];
    struct call call;
    struct shard_plan plan;
    const struct layer_spec spec = {.hidden = 4,
                                    .n_heads = 1,
                                    .n_kv_heads = 1,
                                    .head_dim = 4,
                                    .moe = true,
                                    .n_experts = EXPERTS,
                                    .top_k = K,
                                    .expert_width = 4};
    plan_build(&plan, &spec, 1, 1);
    plan.size[AXIS_T] = TOKENS;
    route_intervals(&call, logits, ids, lo, hi);
    const struct contract contract = contract_exact(OP_ROUTE);
    const struct judged j = {
        .stage = S_ROUTE, .id = T_IDS, .plan = &plan, .dtype = DTYPE_I32, .got = ids, .count = TOKENS * K};
    struct verdict v = {0};
    findings_init(&v.findings);
    judge_topk(&j, &call, &contract, lo, hi, &v.edge, &v.findings);
    cr_assert(v.edge.state == EDGE_OK && v.edge.ambiguous == 0);
    int32_t ninth = -1; /* of token 3 */
    for (int32_t e = 0; e < EXPERTS; e++) {
        bool chosen = false;
        for (int i = 0; i < K; i++) chosen |= ids[3 * K + i] == e;
        if (!chosen && (ninth < 0 || lo[3 * EXPERTS + e] > lo[3 * EXPERTS + ninth])) ninth = e;
    }
    const int32_t honest = ids[3 * K + K - 1];
    const int32_t wrong[] = {ninth, ids[3 * K], -1, EXPERTS, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        v = (struct verdict){0};
        findings_init(&v.findings);
        ids[3 * K + K - 1] = wrong[i];
        judge_topk(&j, &call, &contract, lo, hi, &v.edge, &v.findings);
        cr_expect_eq(v.edge.state, EDGE_FAIL, "expert %d passed", wrong[i]);
        cr_expect(isinf(v.edge.margin) && v.edge.outside > 0);
        cr_expect_eq(strncmp(v.findings.first.where, "token 3 ", 8), 0, "%s", v.findings.first.where);
        const struct mismatch *const m = &v.findings.first;
        char note[200];
        if (i == 0)
            snprintf(note, sizeof note, "expert %d (%.9g to %.9g) chosen, not expert %d (%.9g to %.9g)",
                     ninth, lo[3 * EXPERTS + ninth], hi[3 * EXPERTS + ninth], honest,
                     lo[3 * EXPERTS + honest], hi[3 * EXPERTS + honest]);
        else
            snprintf(note, sizeof note, i == 1 ? "expert %d is chosen twice" : "expert %d does not exist",
                     wrong[i]);
        int n = (int)strlen(note);
        n += snprintf(note + n, sizeof note - (size_t)n, "; the top 8:");
        for (int k = 0; k < K - 1; k++)
            n += snprintf(note + n, sizeof note - (size_t)n, " %d", ids[3 * K + k]);
        snprintf(note + n, sizeof note - (size_t)n, " %d", honest);
        cr_expect_str_eq(m->note, note);
        cr_expect_str_eq(m->where, "token 3 choice 7");
        cr_expect(m->got == wrong[i] && m->expected == honest && m->bound == 0);
    }
    ids[3 * K + K - 1] = honest;
    v = (struct verdict){0};
    lo[3 * EXPERTS + honest] = lo[3 * EXPERTS + ninth]; /* now either may be the eighth */
    ids[3 * K + K - 1] = ninth;
    judge_topk(&j, &call, &contract, lo, hi, &v.edge, &v.findings);
    cr_expect(v.edge.state == EDGE_OK && v.edge.ambiguous == 1, "a near tie is counted and passes");
    lo[3 * EXPERTS + 5] = hi[3 * EXPERTS + 5] = (double)NAN;
    findings_init(&v.findings);
    judge_topk(&j, &call, &contract, lo, hi, &v.edge, &v.findings);
    cr_expect_str_eq(v.findings.first.note, "the score of expert 5 is no number: no choice is right");
}

/* ---- caches and bookkeeping ---- */

Test(judge, a_cache_slot_that_nobody_owns_may_not_change) {
    enum { PAGES = 3, SLOTS = 16, ROW = 2 * 4 };
    struct shard_plan plan;
    const struct layer_spec spec = {.hidden = 8, .n_heads = 4, .n_kv_heads = 4, .head_dim = 4};
    plan_build(&plan, &spec, 2, 1);
    plan.size[AXIS_PAGE] = PAGES;
    plan.size[AXIS_SLOT] = SLOTS;
    uint16_t before[PAGES * SLOTS * ROW], after[PAGES * SLOTS * ROW];
    unsigned char owned[PAGES * SLOTS] = {0};
    memset(before, 0xff, sizeof before);
    memcpy(after, before, sizeof after);
    owned[20] = 1;
    after[20 * ROW + 3] = 0x3f80;
    const struct judged j = {.stage = S_KV_WRITE,
                             .id = T_K_CACHE,
                             .plan = &plan,
                             .rank = 1,
                             .dtype = DTYPE_BF16,
                             .got = after,
                             .count = PAGES * SLOTS * ROW};
    struct verdict v = {0};
    findings_init(&v.findings);
    judge_untouched(&j, before, after, owned, PAGES * SLOTS, ROW * 2, &v.edge, &v.findings);
    cr_expect_eq(v.edge.state, EDGE_OK);
    after[PAGES * SLOTS * ROW - 1] ^= 1; /* one bit of NaN poison, at the very end */
    judge_untouched(&j, before, after, owned, PAGES * SLOTS, ROW * 2, &v.edge, &v.findings);
    cr_expect(v.edge.state == EDGE_FAIL && isinf(v.edge.margin));
    cr_expect_eq(strcmp(v.findings.first.where, "page 2 slot 15 kv head 3 dim 3"), 0, "%s",
                 v.findings.first.where);
    cr_expect_eq(v.findings.first.rank, 1);
}

Test(judge, only_the_first_failing_stage_is_described) {
    struct findings f;
    char where[256];
    findings_init(&f);
    where_describe(&f, 4, NULL, where, sizeof where);
    cr_expect_str_empty(where);
    findings_note(&f, S_ROPE, 3, "the launch failed");
    findings_note(&f, S_ROPE, 1, "again");
    findings_note(&f, S_O_PROJ, 0, "later");
    where_describe(&f, 4, NULL, where, sizeof where);
    cr_expect_str_eq(where, "stage rope, ranks 1, 3 of 4");
    cr_expect_str_eq(f.first.note, "the launch failed");
    cr_expect_str_eq(f.first.stage, "rope");
}

Test(judge, merging_edges_keeps_the_worst) {
    struct edge_result a = {.state = EDGE_OK, .margin = 0.5, .elements = 3};
    edge_merge(&a,
               &(struct edge_result){.state = EDGE_FAIL, .margin = INFINITY, .elements = 4, .outside = 1});
    edge_merge(&a, &(struct edge_result){.state = EDGE_OK, .margin = 0.1, .elements = 5, .ambiguous = 2});
    edge_merge(&a, &(struct edge_result){0});
    cr_expect(a.state == EDGE_FAIL && isinf(a.margin) && a.elements == 12 && a.outside == 1 &&
              a.ambiguous == 2);
}
