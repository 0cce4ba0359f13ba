/* The table of producers: who is found by which text, and what of it a text may change. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <string.h>

#include "layer/producers.h"

static const struct layer_spec moe = {.hidden = 64,
                                      .n_heads = 8,
                                      .rope_theta = 1e4,
                                      .moe = true,
                                      .shared_width = 32,
                                      .n_experts = 8,
                                      .top_k = 2,
                                      .routed_scale = 2.5};
static const struct hf64_range usual = {.n_positions = 64, .logit = 8, .span = 8, .top_k = 8, .spec = &moe};

static struct producer find(const char *text) {
    struct producer p;
    const struct status s = producer_find(text, &p);
    cr_assert_eq(s.code, STATUS_OK, "%s: %s", text, s.message);
    return p;
}

Test(producers, every_row_says_all_there_is_to_say_and_has_a_contract_for_every_stage) {
    for (const struct producer_row *r = producer_table; r->name; r++) {
        cr_expect(r->describes && r->source && r->contract, "%s", r->name);
        const struct producer p = find(r->name);
        cr_expect(p.row == r && p.storage == r->storage && p.n_changes == 0, "%s", r->name);
        for (int stage = 0; stage < S_COUNT; stage++)
            cr_expect_eq(producer_contract(&p, stage, &usual).op, stage_table[stage].op, "%s, %s", r->name,
                         stage_table[stage].name);
        for (enum tensor_id id = 0; id < T_COUNT; id++)
            if (tensor_table[id].dtype == DTYPE_I32)
                cr_expect_eq(producer_between(&p, id), DTYPE_F64, "%s, %s", r->name, tensor_table[id].name);
    }
}

Test(producers, a_key_changes_its_field_and_no_other) {
    const struct producer p = find("exact:attention.p=bf16:attention.p_in_l=yes:attention.block=128");
    const struct contract c = producer_contract(&p, S_ATTENTION, &usual);
    struct contract want = producer_contract(&(struct producer){.row = p.row}, S_ATTENTION, &usual);
    want.u.attention.p_unit = UNIT_BF16, want.u.attention.p_in_l = true, want.u.attention.block = 128;
    cr_expect_eq(memcmp(&c.u.attention, &want.u.attention, sizeof want.u.attention), 0);
    const struct contract norm = producer_contract(&p, S_ATTN_NORM, &usual);
    cr_expect_eq(norm.u.norm.unit, UNIT_F32);
    const struct producer none = find("exact:attention.p=bf16:attention.p=none");
    cr_expect_eq(producer_contract(&none, S_ATTENTION, &usual).u.attention.p_unit, 0);
}

Test(producers, a_tensor_that_is_named_is_rounded_as_it_says) {
    const struct producer p = find("exact:o_part=none:down=fp32");
    cr_expect_eq(producer_between(&p, T_O_PART), DTYPE_F64);
    cr_expect_eq(producer_between(&p, T_DOWN), DTYPE_F32);
    cr_expect_eq(producer_between(&p, T_MOE_PART), DTYPE_BF16);
    cr_expect_eq(producer_between(&p, T_GATES), DTYPE_F32);
}

Test(producers, what_is_wrong_is_named_with_what_is_legal) {
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"", "use exact, hf64"},
        {"exac", "use exact, hf64"},
        {"exact2", "use exact, hf64"},
        {"exact:", "no KEY=VALUE"},
        {"exact:attention.p", "no KEY=VALUE"},
        {"exact:attention.q=bf16", "no key 'attention.q'; use attention.p, "},
        {"exact:attention.p=int32", "none, fp32, bf16 or fp16"},
        {"exact:attention.p=", "none, fp32, bf16 or fp16"},
        {"exact:attention.block=0", "a whole number"},
        {"exact:attention.block=12x", "a whole number"},
        {"exact:attention.p_in_l=true", "yes or no"},
        {"exact:linear.order=some", "use any, or runs"},
        {"exact:ids=bf16", "no key 'ids'"},
        {"exact:w_qkv=bf16", "no key 'w_qkv'"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct producer p;
        const struct status s = producer_find(wrong[i].text, &p);
        cr_expect(s.code && strstr(s.message, wrong[i].says), "%s: %s", wrong[i].text, s.message);
    }
}

Test(producers, vllm_rounds_inside_the_dense_path_and_keeps_the_fused_experts_in_fp32) {
    struct producer p = find("vllm-bf16");
    p.router_fp32 = true, p.model_type = "param2moe";
    cr_expect_eq(producer_contract(&p, S_FFN_NORM, &usual).u.norm.mid, DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_SHARED_ACTIVATION, &usual).u.activation.mid, DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_ACTIVATION, &usual).u.activation.mid, DTYPE_F64);
    cr_expect_eq(producer_contract(&p, S_ROUTE, &usual).u.route.logits, DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_ATTN_SUM, &usual).u.sum.parts_per_rank, 1);
    cr_expect_eq(producer_contract(&p, S_FFN_SUM, &usual).u.sum.parts_per_rank, 2);
    cr_expect_eq(producer_contract(&p, S_FFN_SUM, &usual).u.sum.rank, DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_COMBINE, &usual).u.combine.unscaled, DTYPE_F64);
    cr_expect_eq(producer_contract(&p, S_DOWN, &usual).u.linear.acc.order, ORDER_INTERVAL);
    cr_expect_eq(producer_contract(&p, S_O_PROJ, &usual).u.linear.acc.order, ORDER_ANY);
    const struct producer amx = find("vllm-bf16:attention.p=bf16:linear.order=any:gated_linear.order=any");
    cr_expect_eq(producer_contract(&amx, S_DOWN, &usual).u.linear.acc.order, ORDER_ANY);
    static const enum tensor_id kept[] = {T_GATE_UP, T_DOWN}, wide[] = {T_LOGITS, T_GATES},
                                rounded[] = {T_O_PART, T_ACT, T_MOE_PART, T_SHARED_PART, T_NORMED};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        cr_expect_eq(producer_between(&p, kept[i]), DTYPE_F64, "%s", tensor_table[kept[i]].name);
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        cr_expect_eq(producer_between(&p, wide[i]), DTYPE_F32, "%s", tensor_table[wide[i]].name);
    for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++)
        cr_expect_eq(producer_between(&p, rounded[i]), DTYPE_BF16, "%s", tensor_table[rounded[i]].name);
}

Test(producers, vllm_routes_other_families_otherwise) {
    struct producer p = find("vllm-bf16");
    p.router_fp32 = true, p.model_type = "glm4_moe";
    cr_expect_eq(producer_contract(&p, S_ROUTE, &usual).u.route.logits, DTYPE_F64);
    cr_expect_eq(producer_contract(&p, S_COMBINE, &usual).u.combine.unscaled, DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_COMBINE, &usual).u.combine.scale, 2.5);
    static const char *const softmax[] = {"mixtral", "qwen3_moe", "bailing_moe"};
    p.router_fp32 = false;
    for (size_t i = 0; i < sizeof softmax / sizeof *softmax; i++) {
        p.model_type = softmax[i];
        cr_expect_eq(producer_between(&p, T_LOGITS), DTYPE_BF16, "%s", softmax[i]);
        cr_expect_eq(producer_between(&p, T_GATES), DTYPE_BF16, "%s", softmax[i]);
    }
    struct producer narrow =
        find("vllm-bf16"); /* gates that are not renormalised: by a log-sum-exp in bf16 */
    narrow.model_type = "qwen3_moe";
    cr_expect_eq(producer_contract(&narrow, S_ROUTE, &usual).u.route.logsumexp, DTYPE_BF16);
    narrow.model_type = "param2moe";
    cr_expect_eq(producer_contract(&narrow, S_ROUTE, &usual).u.route.logsumexp, DTYPE_F64);
}

Test(producers, without_avx512_vllm_cuts_what_its_own_kernels_store_and_torch_rounds_the_rest) {
    const struct producer p = find("vllm-avx2"), nearest = find("vllm-bf16");
    static const int cut[] = {S_ROPE, S_ATTENTION, S_ACTIVATION, S_COMBINE};
    static const int rounded[] = {S_ATTN_NORM, S_QK_NORM, S_QKV_PROJ, S_SHARED_ACTIVATION, S_FFN_SUM};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        cr_expect_eq(producer_rounds(&p, cut[i], DTYPE_BF16), DTYPE_BF16_CUT);
        cr_expect_eq(producer_rounds(&p, cut[i], DTYPE_F32), DTYPE_F32);
        cr_expect_eq(producer_rounds(&nearest, cut[i], DTYPE_BF16), DTYPE_BF16);
    }
    for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++)
        cr_expect_eq(producer_rounds(&p, rounded[i], DTYPE_BF16), DTYPE_BF16);
    struct producer glm = p; /* the experts' sum is cut, torch multiplies it by the scale */
    glm.model_type = "glm4_moe";
    cr_expect_eq(producer_contract(&glm, S_COMBINE, &usual).u.combine.unscaled, DTYPE_BF16_CUT);
    cr_expect_eq(producer_rounds(&glm, S_COMBINE, DTYPE_BF16), DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_COMBINE, &usual).u.combine.unscaled, DTYPE_F64);
}

/* Only in attention: nothing of a score is rounded, and P before it is divided. */
Test(producers, a_fused_attention_of_transformers_rounds_p_alone) {
    const struct producer p = find("hf-bf16-flash"), eager = find("hf-bf16");
    const struct attention_contract a = producer_contract(&p, S_ATTENTION, &usual).u.attention;
    cr_expect(a.scores == DTYPE_F64 && a.weights == DTYPE_F64 && a.p_unit == UNIT_BF16 && !a.p_in_l);
    cr_expect_eq(producer_contract(&eager, S_ATTENTION, &usual).u.attention.p_unit, 0);
    for (int stage = 0; stage < S_COUNT; stage++) {
        const struct contract x = producer_contract(&p, stage, &usual),
                              y = producer_contract(&eager, stage, &usual);
        if (stage_table[stage].op != OP_ATTENTION)
            cr_expect(!memcmp(&x, &y, sizeof x), "%s", stage_table[stage].name);
    }
}

Test(producers, transformers_rounds_every_op_and_its_gates_in_one_family) {
    struct producer p = find("hf-bf16:combine.sums=bf16");
    p.model_type = "mixtral";
    const struct contract c = producer_contract(&p, S_ATTENTION, &usual);
    cr_expect(c.u.attention.scores == DTYPE_BF16 && c.u.attention.weights == DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_ROPE, &usual).u.rope.products, DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_ACTIVATION, &usual).u.activation.mid, DTYPE_BF16);
    cr_expect_eq(producer_contract(&p, S_COMBINE, &usual).u.combine.products, DTYPE_F64);
    cr_expect_eq(producer_contract(&p, S_COMBINE, &usual).u.combine.sums, DTYPE_BF16);
    cr_expect_eq(producer_between(&p, T_GATES), DTYPE_F32);
    cr_expect_eq(producer_between(&p, T_GATE_UP), DTYPE_BF16);
    p.model_type = "qwen3_moe";
    cr_expect_eq(producer_contract(&p, S_COMBINE, &usual).u.combine.products, DTYPE_BF16);
    cr_expect_eq(producer_between(&p, T_GATES), DTYPE_BF16);
}

/* fa2 stores pieces of no fewer than 128 keys and adds what it stored; fa3 cuts nothing. */
Test(producers, flashinfer_cuts_long_sequences_in_one_of_its_back_ends) {
    const struct producer fa2 = find("fa2"), fa3 = find("fa3");
    for (int64_t n = 128; n <= 512; n += 384) {
        const struct hf64_range range = {.n_positions = n};
        const struct attention_contract a = producer_contract(&fa2, S_ATTENTION, &range).u.attention,
                                        b = producer_contract(&fa3, S_ATTENTION, &range).u.attention;
        cr_expect(a.p_in_l && a.p_unit == UNIT_BF16 && a.splits == (n > 128 ? 4 : 0));
        cr_expect_eq(a.piece, n > 128 ? DTYPE_BF16 : DTYPE_F64);
        cr_expect(!b.p_in_l && b.p_unit == UNIT_BF16 && !b.splits && b.piece == DTYPE_F64);
    }
}
