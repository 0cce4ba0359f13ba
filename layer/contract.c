/* contract - the two named contracts: our plain fp32 kernels, and Hugging Face modelling code run in float64.
 * The latter's constants follow from its source: RMSNorm, softmax, cos/sin and routing are float32. */
/* SPDX-License-Identifier: MIT */
#include "layer/contract.h"

/* CUDA's expf and rsqrtf, rounded up to a power of two from what was measured over all of fp32 (2^-22.65,
 * 2^-22.94). */
#define EXPF_ERROR 0x1p-22
#define RSQRTF_ERROR 0x1p-22
/* Double-precision libm and SLEEF stay within one ulp; four are allowed. */
#define EXP_ERROR 0x1p-50
/* float32 1 / sqrt(x): two roundings. SLEEF's expf: one ulp, doubled. */
#define TORCH_RSQRTF_ERROR 0x1p-23
#define TORCH_EXPF_ERROR 0x1p-22

/* Cosines and sines of angles computed in float32 at positions < 64, against the exact ones rounded to fp32.
 * angle = fl(p / fl(theta^(i/rot))): theta^x is within one ulp = 2 u, the exponent's rounding moves it by x
 * ln(theta) u, reciprocal and product add 1 u each; frequencies below 1 scale that, and f(x) = theta^-x gives
 * x ln(theta) f <= 1/e. |d angle| <= 63 * 4.37 u < 276 u; cosf and the two fp32 tables add 2 u + 1 u. */
#define TABLE_ERROR (279 * UNIT_F32)
/* A pair (c, s), each off by t, moves |q| by sqrt(2) t; q and k both: 2 sqrt(2) t of scale |q||k|. */
#define SCORE_NORM_ERROR (2.8285 * TABLE_ERROR)

/* float32 gates. The softmax denominator cancels in the renormalisation, so per selected score: logit rounded
 * (1 u |x|), x - max rounded (2 u |x - max|), 2^-22 for the exponential, 1 u for the division: < 29 u for |x|
 * and |x - max| up to 8; a sigmoid is off by less. Twice that for score over sum, and k + 5 <= 13 roundings:
 * < 72 u. */
#define GATE_ERROR (72 * UNIT_F32)

static const struct accumulator fp32_chain = {.unit = UNIT_F32, .block = 1, .order = ORDER_INTERVAL};
/* A BLAS: lane-strided sums, FMA or not. */
static const struct accumulator fp64_blas = {
    .unit = UNIT_F64, .block = 1, .order = ORDER_ANY, .product_rounded = true};
static const struct accumulator fp32_blas = {
    .unit = UNIT_F32, .block = 1, .order = ORDER_ANY, .product_rounded = true};

struct contract contract_exact(enum op op) {
    struct contract c = {.op = op};
    switch (op) {
    case OP_NORM:
    case OP_QK_NORM: c.u.norm = (struct norm_contract){.unit = UNIT_F32, .rsqrt_error = RSQRTF_ERROR}; break;
    case OP_LINEAR: c.u.linear = (struct linear_contract){.acc = fp32_chain}; break;
    case OP_ROPE: c.u.rope = (struct rope_contract){.unit = UNIT_F32}; break;
    case OP_ATTENTION:
        c.u.attention = (struct attention_contract){
            .qk = fp32_chain, .pv = fp32_chain, .unit = UNIT_F32, .exp_error = EXPF_ERROR};
        break;
    case OP_ROUTE: c.u.route = (struct route_contract){UNIT_F32, EXPF_ERROR}; break;
    case OP_ACTIVATION:
        c.u.activation = (struct activation_contract){.unit = UNIT_F32, .exp_error = EXPF_ERROR};
        break;
    case OP_GATED_LINEAR:
        c.u.gated_linear.acc = fp32_chain;
        c.u.gated_linear.activation = (struct activation_contract){.unit = UNIT_F32, .exp_error = EXPF_ERROR};
        break;
    case OP_COMBINE: c.u.combine = (struct combine_contract){.unit = UNIT_F32}; break;
    case OP_SUM:
    case OP_RESIDUAL: c.u.sum = (struct sum_contract){UNIT_F32}; break;
    default: break; /* kv_write and permute copy */
    }
    return c;
}

struct contract contract_hf64(enum op op) {
    struct contract c = {.op = op};
    switch (op) {
    case OP_NORM: /* x.to(float32), mean of squares, rsqrt, x * r; the weight multiplies in float64 */
    case OP_QK_NORM:
        c.u.norm = (struct norm_contract){
            .unit = UNIT_F32, .rsqrt_error = TORCH_RSQRTF_ERROR, .input_unit = UNIT_F32};
        break;
    case OP_LINEAR: c.u.linear = (struct linear_contract){.acc = fp64_blas}; break;
    case OP_ROPE: c.u.rope = (struct rope_contract){.unit = UNIT_F64, .table_error = TABLE_ERROR}; break;
    case OP_ATTENTION: /* softmax(scores, dtype=float32): scores rounded in, normalised P rounded out */
        c.u.attention = (struct attention_contract){.qk = fp64_blas,
                                                    .pv = fp64_blas,
                                                    .unit = UNIT_F32,
                                                    .exp_error = TORCH_EXPF_ERROR,
                                                    .p_unit = UNIT_F32,
                                                    .score_unit = UNIT_F32,
                                                    .score_norm_error = SCORE_NORM_ERROR};
        break;
    case OP_ROUTE: c.u.route = (struct route_contract){UNIT_F32, TORCH_EXPF_ERROR}; break;
    case OP_ACTIVATION:
        c.u.activation = (struct activation_contract){.unit = UNIT_F64, .exp_error = EXP_ERROR};
        break;
    case OP_GATED_LINEAR:
        c.u.gated_linear.acc = fp64_blas;
        c.u.gated_linear.activation = (struct activation_contract){.unit = UNIT_F64, .exp_error = EXP_ERROR};
        break;
    case OP_COMBINE:
        c.u.combine = (struct combine_contract){.unit = UNIT_F64, .gate_error = GATE_ERROR};
        break;
    case OP_SUM:
    case OP_RESIDUAL: c.u.sum = (struct sum_contract){UNIT_F64}; break;
    default: break;
    }
    return c;
}

struct contract contract_hf64_router(void) {
    struct contract c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_contract){.acc = fp32_blas, .input_unit = UNIT_F32};
    return c;
}
