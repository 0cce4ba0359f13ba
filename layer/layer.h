/* layer - what is computed: the layer's sizes and switches, and the two tables (tensors, stages)
 * from which slicing, unsharding, the run and every report are driven. The placement strings are
 * read by axes.h. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_LAYER_H
#define LAYER_LAYER_H

#include "layer/axes.h"
#include "layer/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

enum part { PART_ATTENTION, PART_FFN, PART_COUNT };
const char *part_name(enum part part);                         /* "attention", "ffn" */
bool part_by_name(const char *name, enum part *out);           /* false: no such part */
enum rope_pairing { ROPE_NEOX, ROPE_GPTJ };                    /* pairs (i, i + rot/2) | (2i, 2i + 1) */
enum rope_scaling { ROPE_UNSCALED, ROPE_LINEAR, ROPE_LLAMA3 }; /* reference/rope.c */
enum score_function { SCORE_SOFTMAX, SCORE_SIGMOID };
enum group_score { GROUP_TOP2_SUM, GROUP_MAX };
enum group_fill { GROUP_FILL_INF, GROUP_FILL_ZERO }; /* of rejected groups, as choices: -inf | 0 */

/* Real-number maths only: no roundings, no ranks. All sizes in elements. */
struct layer_spec {
    int64_t hidden, n_heads, n_kv_heads, head_dim;
    double attn_scale; /* multiplies q.k; head_dim^-1/2 unless the model says otherwise */
    bool qkv_bias, o_bias, causal;
    double norm_eps;
    bool qk_norm; /* RMSNorm of every head of q and k, one weight [head_dim] each, before rope */
    enum rope_pairing rope_pairing;
    int64_t rot_dim; /* leading dims that rotate, even, 0 = none */
    double rope_theta;
    enum rope_scaling rope_scaling;
    double rope_factor;         /* the frequencies are divided by it: all, or the low ones */
    double rope_low, rope_high; /* llama3: turns over the trained context below and above which */
    int64_t rope_trained;       /* llama3: positions of the context before scaling */

    bool moe;             /* routed experts; otherwise the shared path alone is the dense ffn */
    int64_t shared_width; /* total width of the shared experts, or of the dense ffn; 0 = none */
    int64_t n_experts, top_k, expert_width;
    enum score_function score;
    bool select_bias; /* added to the score for the selection only */
    int64_t n_group, topk_group;
    enum group_score group_score;
    enum group_fill group_fill;
    bool renormalise;
    double renorm_eps; /* weights /= sum + renorm_eps */
    double routed_scale;
};

struct layer_spec layer_defaults(void); /* a plain Llama layer without sizes */

enum tensor_id {
    T_X,
    T_Y,
    T_NORM_W,
    T_NORMED,
    /* attention */
    T_W_QKV,
    T_B_QKV,
    T_QKV,
    T_Q_NORM_W,
    T_K_NORM_W,
    T_Q,
    T_K,
    T_V,
    T_ROPE_TABLE,
    T_POSITIONS,
    T_SLOTS,
    T_K_CACHE,
    T_V_CACHE,
    T_PAGE_TABLE,
    T_QUERY_START,
    T_KV_LEN,
    T_O,
    T_W_O,
    T_B_O,
    T_O_PART,
    T_ATTN_OUT,
    /* ffn */
    T_W_ROUTER,
    T_LOGITS,
    T_SELECT_BIAS,
    T_IDS,
    T_GATES,
    T_OFFSETS,
    T_ROW_SLOT,
    T_SLOT_ROW,
    T_ROWS,
    T_W_GATE_UP,
    T_GATE_UP,
    T_ACT,
    T_W_DOWN,
    T_DOWN,
    T_MOE_PART,
    T_W_SHARED_GATE_UP,
    T_SHARED_GATE_UP,
    T_SHARED_ACT,
    T_W_SHARED_DOWN,
    T_SHARED_PART,
    T_FFN_OUT,
    T_COUNT,
    T_NONE = -1
};

enum tensor_role {
    ROLE_INPUT,      /* filled or read from a file, never computed */
    ROLE_WEIGHT,     /* the same, and alive for one stage only */
    ROLE_ACTIVATION, /* some stage's output; a rank's part is a slice of the whole one */
    ROLE_PARTIAL,    /* an output that must be summed over `+g`: judged against the rank's own call */
    ROLE_LOCAL,      /* an output of indices into the rank's own rows: judged against the rank's own call */
    ROLE_INDEX       /* integer input made by the harness (positions, page table); the same on every rank */
};

struct tensor_row {
    const char *name;
    const char *axes; /* placement string, axes.h */
    enum tensor_role role;
    int dtype;                                      /* an enum dtype, or -1 = the case's storage dtype */
    bool (*present)(const struct layer_spec *spec); /* NULL: always */
    bool routed; /* filled for the experts that tokens are routed to, poison elsewhere */
};
extern const struct tensor_row tensor_table[T_COUNT];
enum tensor_id tensor_by_name(const char *name); /* T_NONE: no such tensor */
struct axes tensor_axes(enum tensor_id id);      /* its placement string, parsed */

enum op {
    OP_NORM,
    OP_LINEAR,
    OP_SPLIT,
    OP_QK_NORM,
    OP_ROPE,
    OP_KV_WRITE,
    OP_ATTENTION,
    OP_ROUTE,
    OP_PERMUTE,
    OP_ACTIVATION,
    OP_GATED_LINEAR,
    OP_COMBINE,
    OP_SUM,
    OP_RESIDUAL,
    OP_COUNT
};
const char *op_name(enum op op);

enum stage_id {
    S_ATTN_NORM,
    S_QKV_PROJ,
    S_QKV_SPLIT,
    S_QK_NORM,
    S_ROPE,
    S_KV_WRITE,
    S_ATTENTION,
    S_O_PROJ,
    S_ATTN_SUM,
    S_ATTN_RESIDUAL,
    S_FFN_NORM,
    S_ROUTER,
    S_ROUTE,
    S_PERMUTE,
    S_GATE_UP_ACT,
    S_GATE_UP,
    S_ACTIVATION,
    S_DOWN,
    S_COMBINE,
    S_SHARED_GATE_UP_ACT,
    S_SHARED_GATE_UP,
    S_SHARED_ACTIVATION,
    S_SHARED_DOWN,
    S_FFN_SUM,
    S_FFN_RESIDUAL,
    S_COUNT
};

enum { MAX_STAGE_IO = 8 };
struct stage_row {
    const char *name;
    enum part part;
    enum op op;
    bool exact; /* moves or selects data: ranks and trunk must agree bit for bit whatever the kernel */
    enum tensor_id in[MAX_STAGE_IO + 1], out[MAX_STAGE_IO + 1]; /* ended by T_NONE */
    bool (*present)(const struct layer_spec *spec);             /* NULL: always */
    int fuses; /* > 0: a kernel may do this and the next fuses - 1 more stages at once; run only when one is picked */
};
extern const struct stage_row stage_table[S_COUNT];
int stage_by_name(const char *name); /* -1: no such stage */
/* Is it one of the part's own steps in this layer?  Fused stages are not: they stand for steps
 * that are. */
bool stage_applies(int stage, enum part part, const struct layer_spec *spec);
/* What a tensor is stored as in a case of dtype `storage`. DTYPE_F64: whatever is no integer is
 * double. */
enum dtype tensor_dtype(enum tensor_id id, enum dtype storage);
/* Whether the layer has this tensor (a bias it lacks, a shared expert it lacks: no). */
bool tensor_present(enum tensor_id id, const struct layer_spec *spec);

/* ---- what follows from the rows; size[] are whole axes, as in layer_sizes or a plan ---- */

/* The axes that the layer fixes; those of a batch or of the routing are 0. */
void layer_sizes(const struct layer_spec *spec, int64_t size[AXIS_COUNT]);
/* How many products an element of the stage's output adds up: the sizes of the axes that the op
 * contracts, and for a partial input those of the stage it came from, since its rounding is no
 * rounding of the sum. 0: it adds up none. */
int64_t stage_terms(int stage, const int64_t size[AXIS_COUNT]);
/* Terms of the stage whose weight it is; 0: of none. */
int64_t tensor_fan_in(enum tensor_id id, const int64_t size[AXIS_COUNT]);
/* A partial output that another stage than a sum reads: what it adds up to is known only there. */
bool tensor_continues(enum tensor_id id);

#ifdef __cplusplus
}
#endif
#endif
