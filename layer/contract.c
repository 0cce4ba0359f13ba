/* contract - the named contracts: our plain fp32 kernels, Hugging Face modelling code run in
 * float64, and the reference itself.
 * The latter's constants follow from its source: RMSNorm, softmax, cos/sin and routing are
 * float32. */
/* SPDX-License-Identifier: MIT */
#include "layer/contract.h"

/* CUDA's expf and rsqrtf, rounded up to a power of two from what was measured over all of fp32
 * (2^-22.65, 2^-22.94). */
#define EXPF_ERROR 0x1p-22
#define RSQRTF_ERROR 0x1p-22
/* Double-precision libm and SLEEF stay within one ulp; four are allowed. */
#define EXP_ERROR 0x1p-50
/* float32 1 / sqrt(x): two roundings. SLEEF's expf: one ulp, doubled. */
#define TORCH_RSQRTF_ERROR 0x1p-23
#define TORCH_EXPF_ERROR 0x1p-22

/* Cosines and sines of angles computed in float32, against the exact ones rounded to fp32.
 * angle = fl(p / fl(theta^(i/rot))): theta^x is within one ulp = 2 u, the exponent's
 * rounding moves it by x ln(theta) u, reciprocal and product add 1 u each; frequencies below 1
 * scale that, and f(x) = theta^-x gives
 * x ln(theta) f <= 1/e. |d angle| <= 4.37 p u; cosf and the two fp32 tables add 2 u + 1 u: 279 u for p < 64. */
static double table_error(int64_t n_positions) { return (3.7 + 4.37 * (double)(n_positions - 1)) * UNIT_F32; }

/* A frequency and its product with a position are off by a share r of at least 10 u. Linear scaling divides
 * once more. Llama 3.1 mixes f / factor and f by a part that is linear in the turns: it is off by high /
 * (high - low) (r + 3 u), which f multiplies, f itself by r, and 6 u are the mixing's own. */
double rope_angle_growth(const struct layer_spec *s) {
    if (s->rope_scaling == ROPE_UNSCALED) return 1;
    const double linear = 1.1, mixed = 1 + s->rope_high / (s->rope_high - s->rope_low) * 1.3 + 0.6;
    return (s->rope_scaling == ROPE_LINEAR ? linear : mixed) * (s->rope_factor < 1 ? 1 / s->rope_factor : 1);
}

/* A pair (c, s), each off by t, moves |q| by sqrt(2) t; q and k both: 2 sqrt(2) t of scale
 * |q||k|. */
#define SCORE_NORM_ERROR 2.8285

/* float32 gates. The softmax denominator cancels in the renormalisation, so per selected score: logit
 * rounded (1 u |x|), x - max rounded (2 u |x - max|), 2^-22 = 4 u for the exponential, 1 u for the
 * division; a sigmoid is off by less. Twice that for score over sum, K + 6 roundings: 72 u for K = 8
 * and |x|, |x - max| up to 8. Without renormalisation the denominator's own E additions count. */
static double gate_error(const struct hf64_range *r) {
    return (2 * (r->logit + 2 * r->span + 5) + (double)(r->top_k + 6 + r->n_experts)) * UNIT_F32;
}

/* One FMA chain in order. */
#define FP32_CHAIN                                                                                           \
    { .unit = UNIT_F32, .block = 1, .order = ORDER_INTERVAL }
/* A BLAS: lane-strided sums, FMA or not. */
#define FP64_BLAS                                                                                            \
    { .unit = UNIT_F64, .block = 1, .order = ORDER_ANY, .product_rounded = true }
#define FP32_BLAS                                                                                            \
    { .unit = UNIT_F32, .block = 1, .order = ORDER_ANY, .product_rounded = true }

/* Rows without a contract of their own copy: split, kv_write, permute. */
static const struct contract exact[OP_COUNT] = {
    [OP_NORM] = {.u.norm = {.unit = UNIT_F32, .rsqrt_error = RSQRTF_ERROR}},
    [OP_QK_NORM] = {.u.norm = {.unit = UNIT_F32, .rsqrt_error = RSQRTF_ERROR}},
    [OP_LINEAR] = {.u.linear = {.acc = FP32_CHAIN}},
    [OP_ROPE] = {.u.rope = {.unit = UNIT_F32}},
    [OP_ATTENTION] =
        {.u.attention = {.qk = FP32_CHAIN, .pv = FP32_CHAIN, .unit = UNIT_F32, .exp_error = EXPF_ERROR}},
    [OP_ROUTE] = {.u.route = {.unit = UNIT_F32, .exp_error = EXPF_ERROR}},
    [OP_ACTIVATION] = {.u.activation = {.unit = UNIT_F32, .exp_error = EXPF_ERROR}},
    [OP_GATED_LINEAR] = {.u.gated_linear = {.acc = FP32_CHAIN,
                                            .activation = {.unit = UNIT_F32, .exp_error = EXPF_ERROR}}},
    [OP_COMBINE] = {.u.combine = {.unit = UNIT_F32}},
    [OP_SUM] = {.u.sum = {.unit = UNIT_F32}},
    [OP_RESIDUAL] = {.u.sum = {.unit = UNIT_F32}},
};

/* norm: x.to(float32), mean of squares, rsqrt, x * r; the weight multiplies in float64. attention:
 * softmax(scores, dtype=float32), scores rounded in, normalised P rounded out. */
static const struct contract hf64[OP_COUNT] = {
    [OP_NORM] = {.u.norm = {.unit = UNIT_F32, .rsqrt_error = TORCH_RSQRTF_ERROR, .input_unit = UNIT_F32}},
    [OP_QK_NORM] = {.u.norm = {.unit = UNIT_F32, .rsqrt_error = TORCH_RSQRTF_ERROR, .input_unit = UNIT_F32}},
    [OP_LINEAR] = {.u.linear = {.acc = FP64_BLAS}},
    [OP_ROPE] = {.u.rope = {.unit = UNIT_F64}}, /* table_error: by range */
    [OP_ATTENTION] = {.u.attention = {.qk = FP64_BLAS,
                                      .pv = FP64_BLAS,
                                      .unit = UNIT_F32,
                                      .exp_error = TORCH_EXPF_ERROR,
                                      .p_unit = UNIT_F32,
                                      .score_unit = UNIT_F32}}, /* score_norm_error: by range */
    [OP_ROUTE] = {.u.route = {.unit = UNIT_F32, .exp_error = TORCH_EXPF_ERROR}},
    [OP_ACTIVATION] = {.u.activation = {.unit = UNIT_F64, .exp_error = EXP_ERROR}},
    [OP_GATED_LINEAR] = {.u.gated_linear = {.acc = FP64_BLAS,
                                            .activation = {.unit = UNIT_F64, .exp_error = EXP_ERROR}}},
    [OP_COMBINE] = {.u.combine = {.unit = UNIT_F64}}, /* gate_error: by range */
    [OP_SUM] = {.u.sum = {.unit = UNIT_F64}},
    [OP_RESIDUAL] = {.u.sum = {.unit = UNIT_F64}},
};

/* 1 / sqrt(x): two roundings. Table: an angle is position times theta^-x, x ln(theta) theta^-x <=
 * 1/e, so at positions below 64 it is off by 64 times four units, 2^-45; the cosine and the sine
 * add their own unit. */
#define DOUBLE_ROOT_ERROR 0x1p-51
#define DOUBLE_TABLE_ERROR 0x1p-44
static const struct contract f64[OP_COUNT] = {
    [OP_NORM] = {.u.norm = {.unit = UNIT_F64, .rsqrt_error = DOUBLE_ROOT_ERROR}},
    [OP_QK_NORM] = {.u.norm = {.unit = UNIT_F64, .rsqrt_error = DOUBLE_ROOT_ERROR}},
    [OP_LINEAR] = {.u.linear = {.acc = FP64_BLAS}},
    [OP_ROPE] = {.u.rope = {.unit = UNIT_F64, .table_error = DOUBLE_TABLE_ERROR}},
    [OP_ATTENTION] =
        {.u.attention = {.qk = FP64_BLAS, .pv = FP64_BLAS, .unit = UNIT_F64, .exp_error = EXP_ERROR}},
    [OP_ROUTE] = {.u.route = {.unit = UNIT_F64, .exp_error = EXP_ERROR}},
    [OP_ACTIVATION] = {.u.activation = {.unit = UNIT_F64, .exp_error = EXP_ERROR}},
    [OP_GATED_LINEAR] = {.u.gated_linear = {.acc = FP64_BLAS,
                                            .activation = {.unit = UNIT_F64, .exp_error = EXP_ERROR}}},
    [OP_COMBINE] = {.u.combine = {.unit = UNIT_F64}},
    [OP_SUM] = {.u.sum = {.unit = UNIT_F64}},
    [OP_RESIDUAL] = {.u.sum = {.unit = UNIT_F64}},
};

static struct contract of_op(const struct contract table[OP_COUNT], enum op op) {
    struct contract c = table[op];
    c.op = op;
    return c;
}

struct contract contract_exact(enum op op) {
    return of_op(exact, op);
}
struct contract contract_hf64_of(enum op op, const struct hf64_range *range) {
    struct contract c = of_op(hf64, op);
    if (op == OP_ROPE) c.u.rope.table_error = table_error(range->n_positions);
    if (op == OP_ATTENTION)
        c.u.attention.score_norm_error = SCORE_NORM_ERROR * table_error(range->n_positions);
    if (op == OP_COMBINE) c.u.combine.gate_error = gate_error(range);
    return c;
}
struct contract contract_hf64(enum op op) {
    const struct hf64_range usual = {.n_positions = 64, .logit = 8, .span = 8, .top_k = 8};
    return contract_hf64_of(op, &usual);
}
struct contract contract_f64(enum op op) {
    return of_op(f64, op);
}

struct contract contract_hf64_router(void) {
    struct contract c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_contract){.acc = FP32_BLAS, .input_unit = UNIT_F32};
    return c;
}
