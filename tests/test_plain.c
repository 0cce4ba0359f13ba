/* Does the plain layer compute the layer?  Answers worked out by hand, and what it refuses.
 * test_plain_staged.c compares it with the staged reference. */
/* SPDX-License-Identifier: MIT */
#include "reference/plain.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CLOSE(a, b) cr_assert_float_eq(a, b, 1e-12, "%.17g is not %.17g", a, b)
#define COMPUTE(layer, y) cr_assert_null(plain_compute(layer, y))

/* ---- attention by hand: x = 1 throughout, no eps, so that the normed x is norm_w ---- */

static const double ones[8] = {1, 1, 1, 1, 1, 1, 1, 1}, zeros[64];

static struct layer_spec attention_spec(int64_t hidden, int64_t heads, int64_t kv_heads, int64_t dim) {
    struct layer_spec s = layer_defaults();
    s.hidden = hidden, s.n_heads = heads, s.n_kv_heads = kv_heads, s.head_dim = dim;
    s.attn_scale = 1, s.norm_eps = 0;
    return s;
}

/* q = 0: every visible key weighs the same, and y - x is the mean of the visible values. */
Test(plain, a_token_sees_its_own_cached_keys_and_the_new_ones_up_to_itself) {
    struct layer_spec s = attention_spec(1, 1, 1, 1);
    const struct plain_sequence seq[] = {{2, 1}, {0, 1}, {1, 2}};
    const double x[] = {1, -1, 1}, w_v[] = {10}, cached_v[] = {4, 1000, 7, 1}, w_o[] = {1};
    const struct plain_layer l = {.spec = &s,
                                  .n_seqs = 3,
                                  .seq = seq,
                                  .x = x,
                                  .cached_k = zeros,
                                  .cached_v = cached_v,
                                  .norm_w = ones,
                                  .w_q = zeros,
                                  .w_k = zeros,
                                  .w_v = w_v,
                                  .w_o = w_o};
    double y[3];
    COMPUTE(&l, y);
    CLOSE(y[0], 1 + (4 + 10) / 2.0);
    CLOSE(y[1], -1 + (4 + 10 - 10) / 3.0);
    CLOSE(y[2], 1 + (7 + 1 + 10) / 3.0);
    s.causal = false;
    COMPUTE(&l, y);
    CLOSE(y[0], 1 + (4 + 10 - 10) / 3.0);
    CLOSE(y[2], 1 + (7 + 1 + 10) / 3.0);
}

/* One token, so o = v. Four heads, two kv heads with v = 10 and 20; w_o gives every head its own
 * row of y. */
Test(plain, heads_in_a_row_share_a_kv_head_and_biases_are_added_once) {
    struct layer_spec s = attention_spec(4, 4, 2, 1);
    const struct plain_sequence seq[] = {{1, 0}};
    const double w_v[] = {4, 3, 2, 1, 20, 0, 0, 0}, b_v[] = {100, 200}, b_o[] = {0.5, 0.25, 0, 0};
    const double w_o[] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    const struct plain_layer l = {.spec = &s,
                                  .n_seqs = 1,
                                  .seq = seq,
                                  .x = ones,
                                  .norm_w = ones,
                                  .w_q = zeros,
                                  .w_k = zeros,
                                  .w_v = w_v,
                                  .b_q = zeros,
                                  .b_k = zeros,
                                  .b_v = b_v,
                                  .w_o = w_o,
                                  .b_o = b_o};
    const double without[] = {11, 11, 21, 21}, with[] = {111.5, 111.25, 221, 221};
    double y[4];
    COMPUTE(&l, y);
    for (int i = 0; i < 4; i++) CLOSE(y[i], without[i]);
    s.qkv_bias = s.o_bias = true;
    COMPUTE(&l, y);
    for (int i = 0; i < 4; i++) CLOSE(y[i], with[i]);
}

/* The score s of a token at position 3 with a cached key that is 1 in dim d, else 0. The two other
 * cached keys and the token's own are 0, and only the first has a value, 1: o = e^s / (e^s + 3). */
static double score_with(struct layer_spec *s, int d, const double *w_q) {
    const struct plain_sequence seq[] = {{1, 3}};
    const double cached_v[] = {1, 1, 1, 1, 1, 1}, q_norm_w[] = {2, 2, 2, 2, 2, 2};
    const double w_o[] = {1, 0, 0, 0, 0, 0};
    double cached_k[18] = {0}, v[18] = {0}, y[1];
    memcpy(v, cached_v, sizeof cached_v);
    cached_k[d] = 1;
    const struct plain_layer l = {.spec = s,
                                  .n_seqs = 1,
                                  .seq = seq,
                                  .x = ones,
                                  .cached_k = cached_k,
                                  .cached_v = v,
                                  .norm_w = ones,
                                  .w_q = w_q,
                                  .w_k = zeros,
                                  .w_v = zeros,
                                  .q_norm_w = q_norm_w,
                                  .k_norm_w = ones,
                                  .w_o = w_o};
    COMPUTE(&l, y);
    const double o = y[0] - 1;
    return log(3 * o / (1 - o));
}

Test(plain, q_is_normed_by_head_then_turned_by_position_times_theta_to_the_minus_2i_over_rot) {
    struct layer_spec s = attention_spec(1, 1, 1, 6);
    const double q[] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6};
    const double c0 = cos(3), s0 = sin(3), c1 = cos(0.3), s1 = sin(0.3); /* 3 * 100^(-2/4) = 0.3 */
    s.rot_dim = 4, s.rope_theta = 100, s.norm_eps = 1e-300;              /* so that k = 0 has a norm */
    const double neox[] = {
        0.1 * c0 - 0.3 * s0, 0.2 * c1 - 0.4 * s1, 0.3 * c0 + 0.1 * s0, 0.4 * c1 + 0.2 * s1, 0.5, 0.6};
    const double gptj[] = {
        0.1 * c0 - 0.2 * s0, 0.2 * c0 + 0.1 * s0, 0.3 * c1 - 0.4 * s1, 0.4 * c1 + 0.3 * s1, 0.5, 0.6};
    for (int d = 0; d < 6; d++) {
        s.rope_pairing = ROPE_NEOX, s.qk_norm = false, s.attn_scale = 1;
        CLOSE(score_with(&s, d, q), neox[d]);
        s.rope_pairing = ROPE_GPTJ, s.attn_scale = 0.5;
        CLOSE(score_with(&s, d, q), gptj[d] / 2);
        s.qk_norm = true; /* mean(q^2) = 0.91 / 6 */
        CLOSE(score_with(&s, d, q), gptj[d] / sqrt(0.91 / 6));
    }
}

/* ---- ffn by hand: M = 1, x = 1; the logit of expert e is logits[e], its output (e + 1) silu(1)
 * ---- */

enum { E = 8 };
static double logits[E], bias[E];
static int32_t ids[2];

static struct layer_spec ffn_spec(enum score_function score) {
    struct layer_spec s = layer_defaults();
    s.hidden = 1, s.norm_eps = 0, s.moe = true, s.renormalise = false;
    s.n_experts = E, s.top_k = 2, s.expert_width = 1, s.score = score;
    return s;
}

/* (y - x) / silu(1) */
static double ffn(const struct layer_spec *s, const int32_t *tie_ids) {
    static const double up[E] = {1, 2, 3, 4, 5, 6, 7, 8}, shared_down[] = {64};
    static const struct plain_sequence seq[] = {{1, 5}};
    const struct plain_layer l = {.spec = s,
                                  .part = PART_FFN,
                                  .n_seqs = 1,
                                  .seq = seq,
                                  .x = ones,
                                  .norm_w = ones,
                                  .router_w = logits,
                                  .select_bias = bias,
                                  .w_gate = ones,
                                  .w_up = up,
                                  .w_down = ones,
                                  .shared_gate = ones,
                                  .shared_up = ones,
                                  .shared_down = shared_down,
                                  .tie_ids = tie_ids};
    double y;
    COMPUTE(&l, &y);
    return (y - 1) * (1 + exp(-1));
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static const int32_t *pick(int32_t a, int32_t b) {
    ids[0] = a, ids[1] = b;
    return ids;
}

Test(plain, gates_are_scores_renormalised_and_scaled_as_the_spec_says) {
    struct layer_spec s = ffn_spec(SCORE_SOFTMAX);
    logits[3] = log(9), logits[5] = log(3); /* of 9 + 3 + 6 = 18 */
    CLOSE(ffn(&s, NULL), 4 * 9 / 18.0 + 6 * 3 / 18.0);
    s.renormalise = true, s.renorm_eps = 1 / 3.0;
    CLOSE(ffn(&s, NULL), 4 * 9 / 18.0 + 6 * 3 / 18.0); /* 12/18 + 1/3 = 1 */
    s.renorm_eps = 0, s.routed_scale = 2.5;
    CLOSE(ffn(&s, NULL), 2.5 * (4 * 9 + 6 * 3) / 12.0);
}

Test(plain, the_bias_chooses_and_does_not_weigh) {
    struct layer_spec s = ffn_spec(SCORE_SIGMOID);
    logits[1] = 2, logits[4] = 1, bias[6] = 1;
    CLOSE(ffn(&s, NULL), 2 * sigmoid(2) + 5 * sigmoid(1));
    s.select_bias = true;
    CLOSE(ffn(&s, NULL), 2 * sigmoid(2) + 7 * 0.5);
}

Test(plain, only_the_best_groups_take_part) {
    struct layer_spec s = ffn_spec(SCORE_SIGMOID);
    logits[1] = 4, logits[0] = -9; /* group 0 has the best expert, group 2 the best two */
    logits[4] = 1, logits[5] = 1.5;
    CLOSE(ffn(&s, NULL), 2 * sigmoid(4) + 6 * sigmoid(1.5));
    s.n_group = 4, s.group_score = GROUP_TOP2_SUM;
    CLOSE(ffn(&s, NULL), 6 * sigmoid(1.5) + 5 * sigmoid(1));
    s.group_score = GROUP_MAX;
    CLOSE(ffn(&s, NULL), 2 * sigmoid(4) + 1 * sigmoid(-9));
    s.topk_group = 2;
    CLOSE(ffn(&s, NULL), 2 * sigmoid(4) + 6 * sigmoid(1.5));
}

Test(plain, experts_of_rejected_groups_count_as_minus_infinity_or_as_zero) {
    struct layer_spec s = ffn_spec(SCORE_SIGMOID);
    s.n_group = 4, s.select_bias = true, s.topk_group = 1;
    logits[0] = 1, logits[1] = 2;
    for (int e = 0; e < E; e++) bias[e] = -2;
    CLOSE(ffn(&s, NULL), 1 * sigmoid(1) + 2 * sigmoid(2));
    s.group_fill = GROUP_FILL_ZERO;
    CLOSE(ffn(&s, NULL), (3 + 4) * 0.5); /* six equals */
    CLOSE(ffn(&s, pick(7, 4)), (8 + 5) * 0.5);
    CLOSE(ffn(&s, pick(0, 2)), (3 + 4) * 0.5);
    logits[2] = 1, logits[3] = 2; /* group 1 may be the one that is kept, and then 0 and 1 count as 0 */
    CLOSE(ffn(&s, NULL), 3 * sigmoid(1) + 4 * sigmoid(2));
    CLOSE(ffn(&s, pick(0, 1)), 1 * sigmoid(1) + 2 * sigmoid(2));
    CLOSE(ffn(&s, pick(2, 3)), 3 * sigmoid(1) + 4 * sigmoid(2));
    bias[1] = -0.5; /* above zero, and group 0 alone */
    CLOSE(ffn(&s, NULL), 2 * sigmoid(2) + 3 * sigmoid(1));
    CLOSE(ffn(&s, pick(1, 6)), 2 * sigmoid(2) + 7 * 0.5);
}

Test(plain, shared_experts_are_added_and_are_all_of_a_dense_ffn) {
    struct layer_spec s = ffn_spec(SCORE_SIGMOID);
    s.shared_width = 1, s.routed_scale = 2;
    CLOSE(ffn(&s, NULL), 64 + 2 * (1 + 2) * 0.5);
    s.moe = false;
    CLOSE(ffn(&s, NULL), 64.0);
}

Test(plain, given_experts_are_taken_at_an_exact_tie_and_nowhere_else) {
    struct layer_spec s = ffn_spec(SCORE_SIGMOID);
    logits[2] = 3; /* then seven equal ones */
    const double own = 3 * sigmoid(3) + 1 * 0.5;
    CLOSE(ffn(&s, NULL), own);
    CLOSE(ffn(&s, pick(7, 2)), 3 * sigmoid(3) + 8 * 0.5);
    CLOSE(ffn(&s, pick(6, 7)), own); /* the winner is missing */
    CLOSE(ffn(&s, pick(2, 2)), own);
    CLOSE(ffn(&s, pick(2, E)), own);
    CLOSE(ffn(&s, pick(2, INT32_MIN)), own);
    logits[0] = 1e-9; /* no tie any more, however close */
    CLOSE(ffn(&s, pick(7, 2)), 3 * sigmoid(3) + 1 * sigmoid(1e-9));
}

Test(plain, given_experts_are_taken_where_groups_tie) {
    struct layer_spec s = ffn_spec(SCORE_SIGMOID);
    s.n_group = 4;
    logits[0] = logits[1] = logits[6] = logits[7] = 1;
    CLOSE(ffn(&s, NULL), (1 + 2) * sigmoid(1));
    CLOSE(ffn(&s, pick(6, 7)), (7 + 8) * sigmoid(1));
    CLOSE(ffn(&s, pick(0, 7)), (1 + 2) * sigmoid(1)); /* of two groups, and one may stay */
    CLOSE(ffn(&s, pick(2, 3)), (1 + 2) * sigmoid(1)); /* of a group that loses */
}

/* ---- what it does not know ---- */

Test(plain, a_choice_that_it_does_not_know_is_named_where_it_is_in_use) {
    struct layer_spec s = attention_spec(1, 1, 1, 2);
    struct plain_layer l = {.spec = &s};
    double y = 42;
    s.rope_pairing = (enum rope_pairing)(ROPE_GPTJ + 1);
    cr_assert_null(plain_compute(&l, &y));
    s.rot_dim = 2;
    cr_assert_str_eq(plain_compute(&l, &y), "rope_pairing");
    l.part = PART_FFN; /* which does not rotate */
    s.score = (enum score_function)(SCORE_SIGMOID + 1);
    cr_assert_null(plain_compute(&l, &y));
    s.moe = true;
    cr_assert_str_eq(plain_compute(&l, &y), "score");
    s.score = SCORE_SIGMOID, s.group_score = (enum group_score)(GROUP_MAX + 1);
    cr_assert_str_eq(plain_compute(&l, &y), "group_score");
    s.group_score = GROUP_MAX, s.group_fill = (enum group_fill)(GROUP_FILL_ZERO + 1);
    cr_assert_str_eq(plain_compute(&l, &y), "group_fill");
    l.part = PART_COUNT;
    cr_assert_str_eq(plain_compute(&l, &y), "part");
    cr_assert_eq(y, 42);
}
