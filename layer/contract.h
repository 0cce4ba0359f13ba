/* contract - how an implementation computes an op: accumulators, intermediate roundings, elementary
 * functions. A contract sizes E, the half-width of the interval before the final rounding to the storage
 * dtype, and may say where else a value is rounded: that, and nothing else, moves the right answer y.
 * Constants and formulas: docs/numerics.md. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_CONTRACT_H
#define LAYER_CONTRACT_H

#include "layer/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A sum of products. `unit` is the relative error of one addition; a block of `block` products
 * enters per addition. Tensor cores (block > 1) align all products and the accumulator to the
 * largest exponent, keep `fraction` bits, truncate, and keep `keep` bits of the result. */
enum sum_order {
    ORDER_INTERVAL, /* every node of the summation tree is a contiguous run of terms: |nodes| <= W */
    ORDER_ANY       /* lane-strided or unknown: |nodes| <= S1 */
};
struct accumulator {
    double unit; /* 2^-24 fp32, 2^-53 fp64; unused when block > 1 */
    int block;   /* 1: scalar FMA chain; 16: sm_90 bf16 tensor core; ... */
    int fraction, keep;
    int splits; /* partial sums added afterwards in fp32; 0 and 1 mean none */
    enum sum_order order;
    bool product_rounded; /* products are rounded to `unit` before the addition (no FMA, fp32 operands) */
    int64_t
        slice; /* terms of every partial sum but the last, from the first on; 0: not known, or no splits */
    bool
        in_order; /* terms are added one after the other (`block` at a time) to 0, the slices as they end, the
                      bias last, and nothing else is done: one value, that of reference/replay.c */
};

struct norm_contract {
    double unit;        /* arithmetic: 2^-24 or 2^-53 */
    int64_t depth;      /* roundings on the longest path of the sum of squares; 0: width */
    double rsqrt_error; /* relative */
    enum dtype mid;     /* x*r is rounded to it before the weight; DTYPE_F64: not rounded */
    double input_unit;  /* unit of the dtype the input is rounded to first; 0: not rounded */
};
struct linear_contract {
    struct accumulator acc;
    double input_unit; /* operands rounded to this unit first (a float32 router in a float64 model); 0: not */
};
struct rope_contract {
    double unit;
    double table_error; /* absolute error of each cosine and sine; 0: the given table is the truth */
    /* The producer's own table: cosines and sines of angles computed in fp32, rounded to this dtype;
     * DTYPE_F64: the given one. It needs the base of the frequencies, and what scaling them multiplies
     * their errors by (rope_angle_growth). */
    enum dtype table;
    double theta, growth;
    enum dtype products; /* a c and b s are rounded to it before they are added up; DTYPE_F64: not */
};
/* 1 for unscaled frequencies; docs/numerics.md. */
double rope_angle_growth(const struct layer_spec *spec);
struct attention_contract {
    struct accumulator qk, pv;
    double unit;       /* of the softmax arithmetic */
    double exp_error;  /* relative */
    double q_unit;     /* scale q rounded to this unit before q.k, not to fp16 (whose subnormal
                              * numbers are not counted here); 0: not */
    double p_unit;     /* unit of the dtype P is rounded to before P V; 0: not rounded. P is
                              * exp(score - the largest one so far, its own included), or that over l */
    bool p_in_l;       /* the denominator adds the rounded P, too */
    bool p_in_order;   /* the largest so far is that of all blocks from the first key on, to the
                              * key's own one; P is rounded to nearest */
    double score_unit; /* scores rounded to this unit, as q, before the softmax; 0: not */
    /* What tensor code rounds, where attention is one op after the other: q.k and its product with the scale,
     * and the normalised P; DTYPE_F64: not. */
    enum dtype scores, weights;
    double score_norm_error; /* score error as a multiple of scale*|q||k| (rope table errors); 0: none */
    int64_t block;           /* keys per online-softmax step; 0: one step over all keys, rescaled once */
    int64_t l_depth;         /* roundings on the longest path of the denominator; 0: number of keys */
    int splits;              /* split-KV pieces merged through their log-sum-exp; 0 and 1 mean none */
    int64_t slice;           /* keys of every piece but the last, from the first on; 0: not known */
    enum dtype piece; /* every split-KV piece's output is rounded to it before the merge; DTYPE_F64: not */
    int merges; /* exponentials that a piece passes when merged: 1 relative to the largest of all; 0: splits,
                   as when they are merged one after the other */
};
/* The dtypes are those of values that are rounded to them before the next step; DTYPE_F64: none. */
struct route_contract {
    double unit, exp_error;
    int64_t depth;      /* roundings on the longest path of a softmax's sum; 0: number of experts */
    double tanh_error;  /* a sigmoid is tanh(x/2)/2 + 1/2, tanh with this relative error; 0: by exp */
    enum dtype logits;  /* before the score function */
    enum dtype scores;  /* selected by and weighed with */
    enum dtype choices; /* selection bias, its sum with the score, a group's sum */
    double gate_unit; /* of the dtype of the sum of the selected, the quotient, the product, with the range of
                         fp32; 0: not rounded */
    /* Gates of a softmax that are not renormalised are exp(x - logsumexp(x)), every step of which is
     * rounded to it; DTYPE_F64: they are the scores. */
    enum dtype logsumexp;
    /* Equal logits and biases make equal choices, and of two such experts of a group the lower wins.
     * False: either may. */
    bool ties_lower;
};
struct activation_contract {
    double unit, exp_error;
    enum dtype mid; /* silu(gate) is rounded to it before * up; DTYPE_F64: not rounded */
};
struct gated_linear_contract {
    struct accumulator acc;
    struct activation_contract activation; /* on the unrounded accumulators */
};
struct combine_contract {
    double unit;
    double gate_error; /* relative error of the gates, when a stage before rounded them; 0: none */
    /* The sum with gates that lack the factor `scale` is rounded to `unscaled`, then multiplied; DTYPE_F64: the
     * gates hold it. */
    enum dtype unscaled;
    double scale;
    enum dtype products; /* gate * row is rounded to it; DTYPE_F64: not */
    enum dtype sums;     /* every sum of two is, from the row of the lowest expert on; DTYPE_F64: none */
};
struct sum_contract {
    double unit; /* of one addition */
    /* OP_SUM: every `parts_per_rank` parts in a row are added up and rounded to `rank` before the ranks are;
     * DTYPE_F64: all parts are added up in one. */
    int parts_per_rank;
    enum dtype rank;
    enum dtype
        step; /* OP_SUM: what every addition of two ranks rounds to, in any order; DTYPE_F64: nothing */
};

struct contract {
    enum op op;
    bool flushes; /* subnormal results of its fp32 operations may be 0 (FTZ); operands are as stored */
    union {
        struct norm_contract norm; /* OP_NORM and OP_QK_NORM */
        struct linear_contract linear;
        struct rope_contract rope;
        struct attention_contract attention;
        struct route_contract route;
        struct activation_contract activation;
        struct gated_linear_contract gated_linear;
        struct combine_contract combine;
        struct sum_contract sum; /* OP_SUM and OP_RESIDUAL */
    } u;
};

/* fp32 arithmetic throughout, FMA chains in order, no intermediate rounding: what a plain SIMT
 * kernel does. */
struct contract contract_exact(enum op op);
/* A float64 Hugging Face model whose code casts some steps to float32 (norms, softmax, cos/sin,
 * routing). Two constants depend on values: the rope table's, and the gates'. */
struct hf64_range {
    int64_t n_positions; /* positions are below */
    double logit, span;  /* largest |logit|; largest difference of two of a token */
    int64_t top_k;
    int64_t n_experts; /* whose softmax does not cancel, for gates are not renormalised; else 0 */
    /* For producers whose contracts follow from it; exact and hf64: may be NULL. */
    const struct layer_spec *spec;
};
struct contract contract_hf64_of(enum op op, const struct hf64_range *range);
/* At positions below 64 and logits up to 8, as far apart, 8 experts a token, renormalised. */
struct contract contract_hf64(enum op op);
/* Double precision throughout, any order of the sums: what the reference itself and plain.c do.
 * Rope: at positions below 64. */
struct contract contract_f64(enum op op);
/* The hf64 contract for the fp32 router of some families: logits computed in float32. */
struct contract contract_hf64_router(void);

#define UNIT_F32 0x1p-24
#define UNIT_F64 0x1p-53
#define UNIT_BF16 0x1p-8
#define UNIT_F16 0x1p-11

#ifdef __cplusplus
}
#endif
#endif
