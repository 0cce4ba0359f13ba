/* The table of producers, and the keys that a user may change. */
/* SPDX-License-Identifier: MIT */
#include "layer/producers.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
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

/* Exponentials of a fifth-degree polynomial (vLLM's fast_exp for AVX512: 2^-21.3), the largest of those that
 * its back ends and torch use. */
#define VLLM_EXP_ERROR 0x1p-21
/* A product by oneDNN, AMX or cuBLAS: which, and in which order, no file says. */
#define ANY_FP32                                                                                             \
    { .unit = UNIT_F32, .block = 1, .order = ORDER_ANY }

/* What fp32 steps between bf16 tensors have in common, whoever wrote them. */
static struct contract tensor_contract(int stage) {
    struct contract c = contract_exact(stage_table[stage].op);
    switch (c.op) {
    case OP_LINEAR: c.u.linear.acc = (struct accumulator)ANY_FP32; break;
    case OP_GATED_LINEAR: c.u.gated_linear.acc = (struct accumulator)ANY_FP32; break;
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
    {"param2moe", false, false},
    {"glm4_moe", true, false},
    {"mixtral", false, true},
    {"qwen3_moe", false, true},
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

/* vLLM 0.32, CPU back end without AMX: x r before the weight, the rope table and silu before up are rounded;
 * the fused experts keep everything in fp32 but the activation and what leaves a rank, and add up their
 * products from the first on (micro_gemm/cpu_micro_gemm_vec.hpp). q is scaled before q.k. */
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
    case OP_ROUTE: c.u.route.logits = vllm_family(p)->wide_logits ? DTYPE_F64 : p->storage; break;
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

/* Without AVX-512 vLLM's own kernels cut; where the scale multiplies the experts' sum, that is torch's. And
 * there is no all-reduce in shared memory: gloo adds bf16 to bf16 around a ring. */
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

/* transformers 5.19, modeling_*.py in bf16 with eager attention: every op stores its result, but for norm,
 * softmax and routing, which are fp32 inside. The rope table is rounded, and so are its products. Experts:
 * gated rows are fp32 where the gates are, and are added up in fp32 (integrations/moe.py); with
 * experts_implementation="eager" products and sums are rounded one by one: the keys combine.*. */
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
    {0},
};

/* ---- what a user may change ---- */

enum value_kind { VALUE_UNIT, VALUE_DTYPE, VALUE_COUNT, VALUE_SWITCH, VALUE_ORDER };

/* UNIT: a double, the unit of the named dtype; DTYPE, COUNT (int64), SWITCH (bool), ORDER (enum sum_order): as
 * they are. */
static const struct key {
    const char *name, *describes;
    enum op op;
    enum value_kind kind;
    size_t at; /* in struct contract */
} keys[] = {
    {"attention.p", "what P is rounded to before P V", OP_ATTENTION, VALUE_UNIT,
     offsetof(struct contract, u.attention.p_unit)},
    {"attention.p_in_l", "the denominator adds the rounded P", OP_ATTENTION, VALUE_SWITCH,
     offsetof(struct contract, u.attention.p_in_l)},
    {"attention.block", "keys of a softmax tile", OP_ATTENTION, VALUE_COUNT,
     offsetof(struct contract, u.attention.block)},
    {"attention.scores", "what q.k and its product with the scale are rounded to", OP_ATTENTION, VALUE_DTYPE,
     offsetof(struct contract, u.attention.scores)},
    {"attention.weights", "what P over l is rounded to", OP_ATTENTION, VALUE_DTYPE,
     offsetof(struct contract, u.attention.weights)},
    {"combine.products", "what a gated row is rounded to", OP_COMBINE, VALUE_DTYPE,
     offsetof(struct contract, u.combine.products)},
    {"combine.sums", "what every sum of two gated rows is rounded to", OP_COMBINE, VALUE_DTYPE,
     offsetof(struct contract, u.combine.sums)},
    {"linear.order", "how products are added up", OP_LINEAR, VALUE_ORDER,
     offsetof(struct contract, u.linear.acc.order)},
    {"gated_linear.order", "the same, where the activation follows at once", OP_GATED_LINEAR, VALUE_ORDER,
     offsetof(struct contract, u.gated_linear.acc.order)},
    {"norm.mid", "what x r is rounded to before the weight", OP_NORM, VALUE_DTYPE,
     offsetof(struct contract, u.norm.mid)},
    {"qk_norm.mid", "the same, of the heads of q and k", OP_QK_NORM, VALUE_DTYPE,
     offsetof(struct contract, u.norm.mid)},
    {"rope.table", "what cosines and sines are rounded to", OP_ROPE, VALUE_DTYPE,
     offsetof(struct contract, u.rope.table)},
    {"rope.products", "what a c and b s are rounded to before they are added up", OP_ROPE, VALUE_DTYPE,
     offsetof(struct contract, u.rope.products)},
    {"route.logits", "what logits are rounded to before the score", OP_ROUTE, VALUE_DTYPE,
     offsetof(struct contract, u.route.logits)},
    {"route.scores", "what scores are rounded to", OP_ROUTE, VALUE_DTYPE,
     offsetof(struct contract, u.route.scores)},
    {"activation.mid", "what silu is rounded to before up", OP_ACTIVATION, VALUE_DTYPE,
     offsetof(struct contract, u.activation.mid)},
    {"sum.rank", "what the sum of a rank's parts is rounded to before the ranks are added up", OP_SUM,
     VALUE_DTYPE, offsetof(struct contract, u.sum.rank)},
    {"sum.step", "what every addition of two ranks rounds to", OP_SUM, VALUE_DTYPE,
     offsetof(struct contract, u.sum.step)},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* The names of a table, separated by commas, as far as there is room. */
struct names {
    char text[400];
    size_t n;
};
static void add_name(struct names *names, const char *name) {
    if (names->n + strlen(name) + 3 < sizeof names->text)
        names->n += (size_t)snprintf(names->text + names->n, sizeof names->text - names->n, "%s%s",
                                     names->n ? ", " : "", name);
}

static struct names producer_names(void) {
    struct names names = {0};
    for (const struct producer_row *r = producer_table; r->name; r++) add_name(&names, r->name);
    return names;
}

static struct names key_names(void) {
    struct names names = {0};
    for (int i = 0; i < N_KEYS; i++) add_name(&names, keys[i].name);
    add_name(&names, "or a tensor between two steps (o_part, moe_part, act, ...)");
    return names;
}

/* `none`, or a float format narrower than fp64. */
static bool parse_rounding(const char *text, int *value) {
    enum dtype d = DTYPE_F64;
    if (strcmp(text, "none") && (!dtype_parse(text, &d) || d == DTYPE_F64 || d == DTYPE_I32)) return false;
    *value = (int)d;
    return true;
}

static bool parse_value(enum value_kind kind, const char *text, int *value) {
    char *end;
    switch (kind) {
    case VALUE_ORDER:
        *value = strcmp(text, "any") ? ORDER_INTERVAL : ORDER_ANY;
        return !strcmp(text, "any") || !strcmp(text, "runs");
    case VALUE_SWITCH: *value = !strcmp(text, "yes"); return *value || !strcmp(text, "no");
    case VALUE_COUNT: {
        enum { MOST = 1 << 24 };
        const long n = strtol(text, &end, 10);
        *value = (int)n;
        return *text >= '0' && *text <= '9' && !*end && n > 0 && n <= MOST;
    }
    default: return parse_rounding(text, value);
    }
}

static const char *const legal_values[] = {
    [VALUE_UNIT] = "none, fp32, bf16 or fp16",
    [VALUE_DTYPE] = "none, fp32, bf16 or fp16",
    [VALUE_COUNT] = "a whole number from 1 on",
    [VALUE_SWITCH] = "yes or no",
    [VALUE_ORDER] = "any, or runs where every partial sum is one of neighbours",
};

static int key_by_name(const char *name) {
    for (int i = 0; i < N_KEYS; i++)
        if (!strcmp(keys[i].name, name)) return i;
    const enum tensor_id id = tensor_by_name(name);
    const bool rounded = id != T_NONE && tensor_table[id].dtype != DTYPE_I32 &&
                         (tensor_table[id].role == ROLE_ACTIVATION || tensor_table[id].role == ROLE_PARTIAL);
    return rounded ? N_KEYS + (int)id : -1;
}

/* KEY=VALUE */
static struct status add_change(struct producer *p, const char *word, size_t length) {
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)length, word);
    char *const equal = strchr(text, '=');
    if (!equal || length >= sizeof text)
        return status_error("contract %s: '%s' is no KEY=VALUE; keys are %s", p->row->name, text,
                            key_names().text);
    *equal = 0;
    struct producer_change change = {.key = key_by_name(text)};
    if (change.key < 0)
        return status_error("contract %s: no key '%s'; use %s", p->row->name, text, key_names().text);
    const enum value_kind kind = change.key < N_KEYS ? keys[change.key].kind : VALUE_DTYPE;
    if (!parse_value(kind, equal + 1, &change.value))
        return status_error("contract %s: %s=%s; use %s", p->row->name, text, equal + 1, legal_values[kind]);
    if (p->n_changes == MAX_PRODUCER_CHANGES)
        return status_error("contract %s: more than %d keys; use fewer", p->row->name, MAX_PRODUCER_CHANGES);
    p->change[p->n_changes++] = change;
    return status_ok();
}

struct status producer_find(const char *text, struct producer *out) {
    const size_t length = strcspn(text, ":");
    *out = (struct producer){0};
    for (const struct producer_row *r = producer_table; r->name && !out->row; r++)
        if (strlen(r->name) == length && !strncmp(r->name, text, length)) out->row = r;
    if (!out->row)
        return status_error("contract '%.*s': no such producer; use %s", (int)length, text,
                            producer_names().text);
    out->storage = out->row->storage;
    for (const char *at = text + length; *at;) {
        const size_t n = strcspn(++at, ":");
        TRY(add_change(out, at, n));
        at += n;
    }
    return status_ok();
}

/* ---- answers ---- */

static void apply(const struct key *key, int value, struct contract *c) {
    char *const field = (char *)c + key->at;
    switch (key->kind) {
    case VALUE_UNIT: *(double *)(void *)field = value == DTYPE_F64 ? 0 : dtype_unit((enum dtype)value); break;
    case VALUE_DTYPE: *(enum dtype *)(void *)field = (enum dtype)value; break;
    case VALUE_COUNT: *(int64_t *)(void *)field = value; break;
    case VALUE_ORDER: *(enum sum_order *)(void *)field = (enum sum_order)value; break;
    case VALUE_SWITCH: *(bool *)(void *)field = value; break;
    }
}

struct contract producer_contract(const struct producer *p, int stage, const struct hf64_range *range) {
    struct contract c = p->row->contract(p, stage, range);
    for (int i = 0; i < p->n_changes; i++)
        if (p->change[i].key < N_KEYS && keys[p->change[i].key].op == c.op)
            apply(&keys[p->change[i].key], p->change[i].value, &c);
    return c;
}

enum dtype producer_between(const struct producer *p, enum tensor_id id) {
    if (tensor_table[id].dtype == DTYPE_I32) return DTYPE_F64;
    for (int i = p->n_changes; i-- > 0;)
        if (p->change[i].key == N_KEYS + (int)id) return (enum dtype)p->change[i].value;
    for (const enum tensor_id *keeps = p->row->keeps; *keeps != T_NONE; keeps++)
        if (*keeps == id) return DTYPE_F64;
    if (id == T_LOGITS && p->router_fp32) return DTYPE_F32;
    if (id == T_LOGITS && p->row->rounds_logits) return p->storage;
    return p->row->between ? p->row->between(p, id) : tensor_dtype(id, p->storage);
}

enum dtype producer_rounds(const struct producer *p, int stage, enum dtype d) {
    return d == DTYPE_BF16 && p->row->cuts && p->row->cuts(p, stage) ? DTYPE_BF16_CUT : d;
}
