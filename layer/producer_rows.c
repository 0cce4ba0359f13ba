/* How does each producer compute?  The table, and the contracts of its rows. */
/* SPDX-License-Identifier: MIT */
#include "layer/producers.h"

#include <assert.h>
#include <string.h>

/* ---- contracts ---- */

/* Softmax tiles of fp32 kernels are at least so many keys. */
enum { SMALLEST_TILE = 16 };

static struct contract exact_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    (void)p, (void)range;
    struct contract c = contract_exact(stage_table[stage].op);
    if (c.op == OP_ATTENTION) c.u.attention.block = SMALLEST_TILE;
    return c;
}

/* q and k come from the file, or from rope with radii: the table's error is in them already. */
static struct contract hf64_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    if (stage == S_ROUTER && p->router_fp32) return contract_hf64_router();
    struct contract c = contract_hf64_of(stage_table[stage].op, range);
    if (c.op == OP_ATTENTION) c.u.attention.score_norm_error = 0;
    return c;
}

/* How many tensors of a rank a sum adds up. */
static int parts_per_rank(int stage, const struct layer_spec *spec) {
    int n = 0;
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        n += tensor_present(*id, spec);
    return n;
}

/* Exponentials of a fifth-degree polynomial (vLLM's fast_exp for AVX512: 2^-21.3), the largest
 * of those that its back ends and torch use. */
#define VLLM_EXP_ERROR 0x1p-21
/* A product by oneDNN, AMX or cuBLAS: which, and in which order, no file says. */
#define ANY_FP32                                                                                             \
    { .unit = UNIT_F32, .block = 1, .order = ORDER_ANY }

/* Exact steps around products of a library. */
static struct contract library_contract(int stage) {
    struct contract c = contract_exact(stage_table[stage].op);
    if (c.op == OP_LINEAR) c.u.linear.acc = (struct accumulator)ANY_FP32;
    if (c.op == OP_GATED_LINEAR) c.u.gated_linear.acc = (struct accumulator)ANY_FP32;
    return c;
}

/* What fp32 steps between bf16 tensors have in common, whoever wrote them. */
static struct contract tensor_contract(int stage) {
    struct contract c = library_contract(stage);
    switch (c.op) {
    case OP_ATTENTION:
        c.u.attention.qk = c.u.attention.pv = (struct accumulator)ANY_FP32;
        c.u.attention.exp_error = VLLM_EXP_ERROR;
        break;
    case OP_ACTIVATION: c.u.activation.exp_error = VLLM_EXP_ERROR; break;
    default: break;
    }
    return c;
}

/* What vLLM does otherwise for a model type than for param2moe and the dense ones. */
static const struct vllm_family {
    const char *model_type;
    bool wide_logits;  /* the experts read the fp32 logits, and the scale multiplies their rounded sum */
    bool narrow_gates; /* a softmax in the dtype of the logits (CPU back end) */
} vllm_families[] = {
    {"param2moe", false, false}, {"glm4_moe", true, false},    {"mixtral", false, true},
    {"qwen3_moe", false, true},  {"bailing_moe", false, true},
};

static const struct vllm_family *vllm_family(const struct producer *p) {
    enum { N = sizeof vllm_families / sizeof *vllm_families };
    for (int i = 0; i < N && p->model_type; i++)
        if (!strcmp(vllm_families[i].model_type, p->model_type)) return &vllm_families[i];
    return &vllm_families[0];
}

static enum dtype vllm_between(const struct producer *p, enum tensor_id id) {
    return id == T_GATES && vllm_family(p)->narrow_gates ? p->storage : tensor_dtype(id, p->storage);
}

static bool is_expert_product(int stage) {
    return stage == S_GATE_UP_ACT || stage == S_GATE_UP || stage == S_DOWN;
}

/* vLLM 0.32, CPU back end without AMX: x r before the weight, the rope table and silu before up
 * are rounded; the fused experts keep everything in fp32 but the activation and what leaves a
 * rank, and add up their products from the first on (micro_gemm/cpu_micro_gemm_vec.hpp). q is
 * scaled before q.k. */
static struct contract vllm_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    struct contract c = tensor_contract(stage);
    const struct layer_spec *const spec = range->spec;
    assert(spec);
    if (is_expert_product(stage) && c.op == OP_LINEAR) c.u.linear.acc.order = ORDER_INTERVAL;
    switch (c.op) {
    case OP_NORM:
    case OP_QK_NORM: c.u.norm.mid = p->storage; break;
    case OP_GATED_LINEAR:
        if (is_expert_product(stage)) c.u.gated_linear.acc.order = ORDER_INTERVAL;
        c.u.gated_linear.activation.exp_error = VLLM_EXP_ERROR;
        break;
    case OP_ROPE:
        c.u.rope.table = p->storage, c.u.rope.theta = spec->rope_theta;
        c.u.rope.growth = rope_angle_growth(spec);
        break;
    case OP_ATTENTION:
        c.u.attention.qk.product_rounded = true;
        c.u.attention.block = SMALLEST_TILE;
        break;
    case OP_ROUTE:
        c.u.route.logits = vllm_family(p)->wide_logits ? DTYPE_F64 : p->storage;
        if (vllm_family(p)->narrow_gates) c.u.route.logsumexp = p->storage; /* cpu_router.py */
        break;
    case OP_COMBINE:
        if (!vllm_family(p)->wide_logits) break;
        c.u.combine.unscaled = p->storage, c.u.combine.scale = spec->routed_scale;
        break;
    case OP_ACTIVATION: c.u.activation.mid = stage == S_ACTIVATION ? DTYPE_F64 : p->storage; break;
    case OP_SUM: c.u.sum.rank = p->storage, c.u.sum.parts_per_rank = parts_per_rank(stage, spec); break;
    default: break;
    }
    return c;
}

/* Without AVX-512 vLLM's own kernels cut; where the scale multiplies the experts' sum, that is
 * torch's. And there is no all-reduce in shared memory: gloo adds bf16 to bf16 around a ring. */
static bool vllm_avx2_cuts(const struct producer *p, int stage) {
    if (stage == S_COMBINE) return !vllm_family(p)->wide_logits;
    return stage == S_ROPE || stage == S_ATTENTION || stage == S_ACTIVATION;
}

static struct contract vllm_avx2_contract(const struct producer *p, int stage,
                                          const struct hf64_range *range) {
    struct contract c = vllm_contract(p, stage, range);
    if (c.op == OP_SUM) c.u.sum.step = p->storage;
    if (c.op == OP_COMBINE && c.u.combine.unscaled == DTYPE_BF16) c.u.combine.unscaled = DTYPE_BF16_CUT;
    return c;
}

/* transformers 5.19: does this model type round its gates? (Qwen3MoeTopKRouter does.) */
static bool hf_narrow_gates(const struct producer *p) {
    return p->model_type && !strcmp(p->model_type, "qwen3_moe");
}
static enum dtype hf_between(const struct producer *p, enum tensor_id id) {
    return id == T_GATES && hf_narrow_gates(p) ? p->storage : tensor_dtype(id, p->storage);
}

/* transformers 5.19, modeling_*.py in bf16 with eager attention: every op stores its result, but
 * for norm, softmax and routing, which are fp32 inside. The rope table is rounded, and so are
 * its products. Experts: gated rows are fp32 where the gates are, and are added up in fp32
 * (integrations/moe.py); with experts_implementation="eager" products and sums are rounded one
 * by one: the keys combine.*. */
static struct contract hf_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    struct contract c = tensor_contract(stage);
    const struct layer_spec *const spec = range->spec;
    assert(spec);
    switch (c.op) {
    case OP_NORM:
    case OP_QK_NORM: c.u.norm.mid = p->storage; break;
    case OP_ROPE:
        c.u.rope.table = c.u.rope.products = p->storage, c.u.rope.theta = spec->rope_theta;
        c.u.rope.growth = rope_angle_growth(spec);
        break;
    case OP_ATTENTION: c.u.attention.scores = c.u.attention.weights = p->storage; break;
    case OP_ACTIVATION: c.u.activation.mid = p->storage; break;
    case OP_COMBINE: c.u.combine.products = hf_narrow_gates(p) ? p->storage : DTYPE_F64; break;
    default: break;
    }
    return c;
}

/* The exponentials enter P V in bf16 before they are divided by their sum, which adds them as
 * they were. */
static struct contract hf_flash_contract(const struct producer *p, int stage,
                                         const struct hf64_range *range) {
    struct contract c = hf_contract(p, stage, range);
    if (c.op != OP_ATTENTION) return c;
    c.u.attention.scores = c.u.attention.weights = DTYPE_F64;
    c.u.attention.p_unit = dtype_unit(p->storage);
    c.u.attention.block = SMALLEST_TILE;
    return c;
}

/* FlashInfer 0.6.6 (attention/prefill.cuh, scheduler.cuh, hopper/): tensor cores as of sm_90, P in the dtype of
 * q. fa2 adds the rounded P to l and cuts long sequences into pieces of no fewer than 128 keys, each stored in
 * the dtype of the output; how many, no file says. fa3 does neither. Its norm, activation and rope are fp32 with
 * one rounding. */
static struct contract fa3_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    struct contract c = library_contract(stage);
    (void)range;
    if (c.op != OP_ATTENTION) return c;
    c.u.attention.qk = c.u.attention.pv = (struct accumulator){.block = 16, .fraction = 25, .keep = 24};
    c.u.attention.p_unit = dtype_unit(p->storage);
    c.u.attention.block = SMALLEST_TILE;
    return c;
}

static struct contract fa2_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    enum { SMALLEST_PIECE = 128 };
    struct contract c = fa3_contract(p, stage, range);
    const int64_t pieces = (range->n_positions + SMALLEST_PIECE - 1) / SMALLEST_PIECE;
    if (c.op != OP_ATTENTION) return c;
    c.u.attention.p_in_l = true;
    if (pieces > 1) c.u.attention.splits = (int)pieces, c.u.attention.piece = p->storage;
    return c;
}

const struct producer_row producer_table[] = {
    {.name = "exact",
     .describes = "fp32 arithmetic, one rounding a stage",
     .source = "kernels of this project and others that round nothing inside",
     .storage = DTYPE_BF16,
     .contract = exact_contract,
     .keeps = {T_NONE}},
    {.name = "hf64",
     .describes = "Hugging Face transformers in float64, with the float32 steps of its code",
     .source = "transformers 5.17, modeling_llama.py and its kin",
     .storage = DTYPE_F64,
     .contract = hf64_contract,
     .keeps = {T_NONE}},
    {.name = "hf-bf16",
     .describes = "Hugging Face transformers in bf16, eager attention",
     .source = "transformers 5.19, modeling_llama.py and its kin, integrations/moe.py",
     .storage = DTYPE_BF16,
     .contract = hf_contract,
     .between = hf_between,
     .rounds_logits = true,
     .keeps = {T_NONE}},
    {.name = "hf-bf16-flash",
     .describes = "hf-bf16 with a fused attention (sdpa, FlashAttention): scores in fp32, P in bf16",
     .source = "PyTorch 2.11 aten/native/transformers; Dao 2023, algorithm 1",
     .storage = DTYPE_BF16,
     .contract = hf_flash_contract,
     .between = hf_between,
     .rounds_logits = true,
     .keeps = {T_NONE}},
    {.name = "vllm-bf16",
     .describes = "vLLM's model code in bf16 on its CPU back end, attention with P in fp32",
     .source = "vLLM 0.32: csrc/cpu, model_executor/layers; measured on tp 1, 2 and 4 of Param2MoE",
     .storage = DTYPE_BF16,
     .contract = vllm_contract,
     .between = vllm_between,
     .rounds_logits = true,
     .keeps = {T_GATE_UP, T_DOWN, T_NONE}},
    {.name = "vllm-avx2",
     .describes = "vllm-bf16 on a CPU without AVX-512: rope, attention and experts cut, not rounded, to bf16",
     .source = "vLLM 0.32: csrc/cpu; measured on tp 1, 2 and 4 of Param2MoE",
     .storage = DTYPE_BF16,
     .contract = vllm_avx2_contract,
     .between = vllm_between,
     .rounds_logits = true,
     .keeps = {T_GATE_UP, T_DOWN, T_NONE},
     .cuts = vllm_avx2_cuts},
    {.name = "fa2",
     .describes =
         "FlashInfer's kernels, attention by fa2: P in bf16, split keys; decode with tensor cores, too",
     .source = "FlashInfer 0.6.6: attention/prefill.cuh, scheduler.cuh",
     .storage = DTYPE_BF16,
     .contract = fa2_contract,
     .keeps = {T_NONE}},
    {.name = "fa3",
     .describes = "FlashInfer's kernels, attention by fa3: P in bf16",
     .source = "FlashInfer 0.6.6: attention/hopper",
     .storage = DTYPE_BF16,
     .contract = fa3_contract,
     .keeps = {T_NONE}},
    {0},
};
