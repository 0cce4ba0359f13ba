/* ops - the calls: every op as plain data, understood alike by the reference and by kernels.
 * T new tokens, S key positions, M hidden, H query heads, G kv heads, D head dim, E experts, K
 * experts per token, F expert width, B sequences. All counts are the caller's own (a rank passes
 * its local ones). Innermost dimension of every view is dense (stride 1). Preconditions, not
 * errors: sizes positive unless said otherwise, views as large as the counts ask. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_OPS_H
#define LAYER_OPS_H

#include "layer/layer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A strided window into a buffer. Element (i, j, l, c) is data[i*stride[0] + j*stride[1] +
 * l*stride[2] + c]; an op that says [rows, cols] uses stride[0] only, [rows, heads, cols]
 * stride[0..1], and so on.
 * The buffer owns the elements data[lo..hi): the reference reads NaN outside, kernels read what is
 * there (NaN guards). Absent tensors have data == NULL. */
struct view {
    void *data;
    enum dtype dtype;
    int64_t stride[3]; /* elements */
    int64_t lo, hi;    /* elements, relative to data */
};

/* out = x * w / sqrt(mean(x^2) + eps), rows of M.  (RMSNorm, Zhang & Sennrich 2019, eq. 4) */
struct norm_args {
    struct view x, w, out; /* [T, M], [M], [T, M] */
    int64_t n_tokens, width;
    double eps;
};

/* The same over every head of q and of k, before rope. w_q, w_k are [D], shared by the heads. */
struct qk_norm_args {
    struct view q, k, w_q, w_k, q_out, k_out; /* [T, H, D], [T, G, D], [D], [D], as q, as k */
    int64_t n_tokens, n_heads, n_kv_heads, head_dim;
    double eps;
};

/* out[r, :] = w[g(r)] x[r, :] + bias.  One group: dense. Several: rows offsets[i]..offsets[i+1] use group i
 * (rows are sorted by group; empty groups are allowed; offsets[0] = 0, the last one is n_rows). */
struct linear_args {
    struct view x, w, bias, out;               /* [rows, K], [groups, N, K], [N] or absent, [rows, N] */
    struct view offsets;                       /* int32 [groups + 1], or absent when n_groups is 1 */
    int64_t n_rows, n_cols, n_inner, n_groups; /* n_rows may be 0 */
};

/* Rotate the first rot_dim dims of every head; the rest are copied.
 * table[pos] holds rot/2 cosines, then rot/2 sines, fp32. a' = a c - b s, b' = b c + a s over the
 * pairs. */
struct rope_args {
    struct view q, k, q_out, k_out; /* [T, H, D], [T, G, D] */
    struct view table, positions;   /* fp32 [P, rot_dim], int32 [T] */
    int64_t n_tokens, n_heads, n_kv_heads, head_dim, rot_dim;
    enum rope_pairing pairing;
};

/* cache[slots[t] / page_size][slots[t] % page_size][g] = k[t][g], the same for v; bit copies. */
struct kv_write_args {
    struct view k, v, slots;      /* [T, G, D], [T, G, D], int32 [T] */
    struct view k_cache, v_cache; /* [pages, page_size, G, D], written in place */
    int64_t n_tokens, n_kv_heads, head_dim, page_size, n_pages;
};

/* Attention of B sequences over a paged cache that already holds the new keys. Sequence b owns the
 * query rows query_start[b]..query_start[b+1] and kv_len[b] keys; its query i sits at key position
 * kv_len - n_queries + i and (causal, bottom-right) sees keys 0..that position. Head h reads kv
 * head h / (H/G).
 * Key j of sequence b is in page page_table[b][j / page_size], slot j % page_size. */
struct attention_args {
    struct view q, out;                          /* [T, H, D] */
    struct view k_cache, v_cache;                /* [pages, page_size, G, D] */
    struct view page_table, query_start, kv_len; /* int32 [B, max_pages], [B + 1], [B] */
    int64_t n_tokens, n_seqs, n_heads, n_kv_heads, head_dim, page_size, n_pages;
    int64_t max_queries, max_kv; /* over the sequences */
    double scale;
    bool causal;
};

/* Routing (models.md 2.9 in the design notes; docs/numerics.md here): scores = sigmoid or softmax
 * of the logits; choice = score + bias; with n_group > 1 only the topk_group groups with the best
 * group score stay, and experts of the others have choice -inf, or 0 (group_fill); the K largest
 * choices win, listed by falling choice; of equal choices any may win (torch.topk promises
 * nothing), unless the kernel declares that the lower index does;
 * gate = score (without bias), renormalised, scaled. */
struct route_args {
    struct view logits, bias; /* fp32 [T, E], fp32 [E] or absent */
    struct view ids, gates;   /* out: int32 [T, K], fp32 [T, K] */
    int64_t n_tokens, n_experts, top_k, n_group, topk_group;
    enum score_function score;
    enum group_score group_score;
    enum group_fill group_fill;
    bool renormalise;
    double renorm_eps, routed_scale;
};

/* Sort the (token, choice) slots t*K + j by expert, keeping only experts first..first+count; those
 * of one expert in any order. offsets[i]: first row of local expert i; row_slot[r]: slot of row r;
 * slot_row[t][j]: its row, or -1 when the expert is elsewhere; rows[r] = x[row_slot[r] / K]. */
struct permute_args {
    struct view x, ids; /* [T, M], int32 [T, K] */
    struct view offsets, row_slot, slot_row,
        rows; /* out: int32 [count + 1], int32 [n], int32 [T, K], [n, M] */
    int64_t n_tokens, top_k, width, expert_first, expert_count, n_rows; /* n_rows may be 0 */
};

/* out[r, c] = silu(gate_up[r, 0, c]) * gate_up[r, 1, c],  silu(x) = x / (1 + exp(-x)) */
struct activation_args {
    struct view gate_up, out; /* [rows, 2, F], [rows, F] */
    int64_t n_rows, width;    /* n_rows may be 0 */
};

/* gate_up and activation in one: out[r, c] = silu(g) * u with g = w[i, 0, c] . x[r], u = w[i, 1, c]
 * . x[r] for the rows of group i (offsets as in linear_args). Nothing is rounded to the storage
 * dtype in between. */
struct gated_linear_args {
    struct view x, w, out;                    /* [rows, K], [groups, 2, F, K] (strides 0..2), [rows, F] */
    struct view offsets;                      /* int32 [groups + 1], or absent when n_groups is 1 */
    int64_t n_rows, width, n_inner, n_groups; /* n_rows may be 0; width = F */
};

/* out[t] = sum over j with slot_row[t][j] >= 0 of gates[t][j] * down[slot_row[t][j]] (zero where
 * there is none) */
struct combine_args {
    struct view down, slot_row, gates, out; /* [n, M], int32 [T, K], fp32 [T, K], [T, M] */
    int64_t n_tokens, top_k, width, n_rows;
};

/* out = sum of the parts, in index order (the all-reduce of a simulated world). */
struct sum_args {
    const struct view *part; /* [n_parts] of [T, M]; the caller's */
    struct view out;         /* [T, M] */
    int64_t n_parts, n_tokens, width;
};

/* q, k and v cut out of the fused rows of a qkv projection. */
struct split_args {
    struct view in;     /* [T, (H + 2G) D] */
    struct view out[3]; /* q, k, v: [T, H, D], [T, G, D], [T, G, D] */
    int64_t first[3];   /* where in a row of `in` each begins */
    int64_t n_tokens, n_heads, n_kv_heads, head_dim;
};

/* out = x + add */
struct residual_args {
    struct view x, add, out; /* [T, M] */
    int64_t n_tokens, width;
};

struct call {
    enum op op;
    union {
        struct norm_args norm;
        struct qk_norm_args qk_norm;
        struct linear_args linear;
        struct rope_args rope;
        struct kv_write_args kv_write;
        struct attention_args attention;
        struct route_args route;
        struct permute_args permute;
        struct activation_args activation;
        struct gated_linear_args gated_linear;
        struct combine_args combine;
        struct sum_args sum;
        struct split_args split;
        struct residual_args residual;
    } u;
};

/* What a call may ask for beyond its plain op: a dense product, rope of whole heads in halves,
 * causal attention, softmax gates that add up to 1, all experts at home. A kernel that does not
 * name a need is not given the call. */
enum need {
    NEED_BIAS = 1 << 0,            /* linear */
    NEED_GROUPS = 1 << 1,          /* linear, gated_linear: rows in groups, cut by offsets */
    NEED_PARTIAL_ROPE = 1 << 2,    /* rot_dim < head_dim */
    NEED_PAIRED_ROPE = 1 << 3,     /* ROPE_GPTJ */
    NEED_UNMASKED = 1 << 4,        /* attention that is not causal */
    NEED_SIGMOID = 1 << 5,         /* route, as all that follow: SCORE_SIGMOID */
    NEED_SELECT_BIAS = 1 << 6,     /* a bias of the selection */
    NEED_GROUP_LIMIT = 1 << 7,     /* n_group > 1 */
    NEED_GROUP_MAX = 1 << 8,       /* and GROUP_MAX */
    NEED_RAW_GATES = 1 << 9,       /* no renormalisation */
    NEED_SCALED_GATES = 1 << 10,   /* routed_scale other than 1 */
    NEED_ABSENT_EXPERTS = 1 << 11, /* permute, combine: slots whose expert is elsewhere */
    NEED_GROUP_ZERO = 1 << 12      /* route, n_group > 1: GROUP_FILL_ZERO */
};
uint64_t call_needs(const struct call *call); /* read off the arguments, so that it is never stale */
uint64_t op_needs(enum op op);                /* all that calls of the op may ask for */
/* In words, one after another. */
void needs_describe(uint64_t needs, enum op op, char *text, size_t room);

#ifdef __cplusplus
}
#endif
#endif
