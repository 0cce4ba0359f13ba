/* The facts that are no kernel's: what of a layer, its batch and its cut has once been wrong, or makes
 * other code run. A new fact is a row and its function; sizes and values are those of the call at
 * hand, a rank's as well as the unsharded one's. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>

#include "harness/coverage.h"
#include "harness/memory.h"

static const struct attention_args *attention(const struct sighting *s) { return &s->call->u.attention; }
static const struct route_args *route(const struct sighting *s) { return &s->call->u.route; }
static const struct shard_plan *plan(const struct sighting *s) { return &s->at->crew->plan; }
static int64_t entry(const struct view *v, int64_t i) { return ((const int32_t *)v->data)[i]; }

/* ---- heads ---- */

static int64_t group(const struct sighting *s) { return attention(s)->n_heads / attention(s)->n_kv_heads; }
static bool group_1(const struct sighting *s) { return group(s) == 1; }
static bool group_4(const struct sighting *s) { return group(s) == 4; }
static bool group_6(const struct sighting *s) { return group(s) == 6; }
static bool group_8(const struct sighting *s) { return group(s) == 8; }
static bool group_above_16(const struct sighting *s) { return group(s) > 16; }
static bool group_no_power(const struct sighting *s) { return (group(s) & (group(s) - 1)) != 0; }
static bool tp_above_kv(const struct sighting *s) { return plan(s)->tp > s->at->crew->spec.n_kv_heads; }
static bool dims_128(const struct sighting *s) { return attention(s)->head_dim == 128; }
static bool dims_256(const struct sighting *s) { return attention(s)->head_dim == 256; }
static bool dims_odd(const struct sighting *s) { return attention(s)->head_dim % 8 != 0; }
static bool no_qk_norm(const struct sighting *s) { return !s->at->crew->spec.qk_norm; }
static bool contiguous(const struct sighting *s) { return s->at->crew->layout == LAYOUT_CONTIG; }
static bool partial_rope(const struct sighting *s) {
    return s->call->u.rope.rot_dim < s->call->u.rope.head_dim;
}

/* ---- sequences: B of q_b new tokens and k_b keys ---- */

static int64_t queries(const struct sighting *s, int64_t b) {
    return entry(&attention(s)->query_start, b + 1) - entry(&attention(s)->query_start, b);
}
static int64_t keys(const struct sighting *s, int64_t b) { return entry(&attention(s)->kv_len, b); }

/* Is there a sequence like that? */
static bool some(const struct sighting *s, bool (*like)(int64_t n_queries, int64_t n_keys)) {
    for (int64_t b = 0; b < attention(s)->n_seqs; b++)
        if (like(queries(s, b), keys(s, b))) return true;
    return false;
}
static bool is_step(int64_t n_queries, int64_t n_keys) { return n_queries == 1 && n_keys > 1; }
static bool is_prefill(int64_t n_queries, int64_t n_keys) { return n_queries > 1 && n_queries == n_keys; }
static bool is_chunk(int64_t n_queries, int64_t n_keys) { return n_queries > 1 && n_queries < n_keys; }
static bool is_first_key(int64_t n_queries, int64_t n_keys) { return n_queries == 1 && n_keys == 1; }
static bool has_200_cached(int64_t n_queries, int64_t n_keys) { return n_keys - n_queries >= 200; }
static bool has_5000_cached(int64_t n_queries, int64_t n_keys) { return n_keys - n_queries >= 5000; }
static bool ends_in_new_page(int64_t n_queries, int64_t n_keys) {
    return n_queries > 0 && n_keys > PAGE_SIZE && n_keys % PAGE_SIZE == 1;
}
static bool ends_with_page(int64_t n_queries, int64_t n_keys) {
    return n_queries > 0 && n_keys % PAGE_SIZE == 0;
}

static bool all_alike(const struct sighting *s) {
    for (int64_t b = 1; b < attention(s)->n_seqs; b++)
        if (queries(s, b) != queries(s, 0) || keys(s, b) != keys(s, 0)) return false;
    return attention(s)->n_seqs > 1;
}
static bool sequences_equal(const struct sighting *s) { return all_alike(s); }
static bool sequences_unequal(const struct sighting *s) { return attention(s)->n_seqs > 1 && !all_alike(s); }
static bool uniform_queries(const struct sighting *s) { return all_alike(s) && queries(s, 0) > 1; }
static bool mixed_batch(const struct sighting *s) { return some(s, is_step) && some(s, is_prefill); }
static bool prefill(const struct sighting *s) { return some(s, is_prefill); }
static bool chunk(const struct sighting *s) { return some(s, is_chunk); }
static bool decode(const struct sighting *s) { return attention(s)->max_queries == 1; }
static bool first_key(const struct sighting *s) { return some(s, is_first_key); }
static bool cached_200(const struct sighting *s) { return some(s, has_200_cached); }
static bool cached_5000(const struct sighting *s) { return some(s, has_5000_cached); }
static bool opens_page(const struct sighting *s) { return some(s, ends_in_new_page); }
static bool fills_page(const struct sighting *s) { return some(s, ends_with_page); }
static bool pages_256(const struct sighting *s) { return attention(s)->n_pages > 256; }

/* ---- products ---- */

static bool bias_qkv(const struct sighting *s) {
    return s->at->stage == S_QKV_PROJ && s->call->u.linear.bias.data;
}
static bool bias_o(const struct sighting *s) {
    return s->at->stage == S_O_PROJ && s->call->u.linear.bias.data;
}
static bool stored_f32(const struct sighting *s) {
    return s->at->stage == S_QKV_PROJ && s->call->u.linear.x.dtype == DTYPE_F32;
}
static bool stored_f16(const struct sighting *s) {
    return s->at->stage == S_QKV_PROJ && s->call->u.linear.x.dtype == DTYPE_F16;
}

/* Rows of the groups of a product with routed rows: from the fewest to the most; false: it is none. */
static bool rows_range(const struct sighting *s, int64_t *least, int64_t *most) {
    const struct linear_args *const a = &s->call->u.linear;
    if (!a->offsets.data) return false;
    *least = INT64_MAX, *most = 0;
    for (int64_t g = 0; g < a->n_groups; g++) {
        const int64_t n = entry(&a->offsets, g + 1) - entry(&a->offsets, g);
        if (n < *least) *least = n;
        if (n > *most) *most = n;
    }
    return true;
}
static bool expert_idle(const struct sighting *s) {
    int64_t least, most;
    return rows_range(s, &least, &most) && least == 0 && most > 0;
}
static bool experts_all_read(const struct sighting *s) {
    int64_t least, most;
    return s->at->crew->unsharded && s->call->u.linear.n_groups >= 64 && rows_range(s, &least, &most) &&
           least > 0;
}
static bool rank_idle(const struct sighting *s) {
    int64_t least, most;
    return !s->at->crew->unsharded && rows_range(s, &least, &most) && most == 0;
}

/* ---- experts ---- */

static bool experts_128_top_8(const struct sighting *s) {
    return route(s)->n_experts >= 128 && route(s)->top_k == 8;
}
static bool top_1(const struct sighting *s) { return route(s)->top_k == 1; }
static bool one_token(const struct sighting *s) { return route(s)->n_tokens == 1; }
static bool sigmoid(const struct sighting *s) { return route(s)->score == SCORE_SIGMOID; }
static bool softmax(const struct sighting *s) { return route(s)->score == SCORE_SOFTMAX; }
static bool raw_gates(const struct sighting *s) { return !route(s)->renormalise; }
static bool select_bias(const struct sighting *s) { return route(s)->bias.data != NULL; }
static bool no_select_bias(const struct sighting *s) { return !route(s)->bias.data; }
static bool group_limit(const struct sighting *s) { return route(s)->topk_group < route(s)->n_group; }

static int64_t chosen(const struct route_args *a, int64_t t, int64_t j) {
    return entry(&a->ids, t * a->ids.stride[0] + j);
}

/* What experts are chosen by; of softmax scores a logit, which grows with the score. */
static double choice(const struct route_args *a, int64_t t, int64_t e) {
    const double z = (double)((const float *)a->logits.data)[t * a->logits.stride[0] + e];
    return (a->score == SCORE_SIGMOID ? 1 / (1 + exp(-z)) : z) +
           (a->bias.data ? (double)((const float *)a->bias.data)[e] : 0);
}

/* Where a kernel that masks rejected groups with 0 takes them for better. */
static bool negative_choice(const struct sighting *s) {
    const struct route_args *const a = route(s);
    if (!group_limit(s) || !a->bias.data || a->score != SCORE_SIGMOID) return false;
    for (int64_t t = 0; t < a->n_tokens; t++)
        for (int64_t e = 0; e < a->n_experts; e++)
            if (choice(a, t, e) < 0) return true;
    return false;
}

/* Experts of more groups than are kept: some are of rejected ones. */
static bool rejected_taken(const struct sighting *s) {
    const struct route_args *const a = route(s);
    const int64_t size = a->n_experts / a->n_group;
    if (a->group_fill != GROUP_FILL_ZERO) return false;
    for (int64_t t = 0; t < a->n_tokens; t++) {
        int64_t n = 0;
        for (int64_t j = 0; j < a->top_k; j++) {
            bool first = true; /* of its group */
            for (int64_t i = 0; i < j; i++) first &= chosen(a, t, i) / size != chosen(a, t, j) / size;
            n += first;
        }
        if (n > a->topk_group) return true;
    }
    return false;
}

static bool is_taken(const struct route_args *a, int64_t t, int64_t e) {
    bool taken = false;
    for (int64_t j = 0; j < a->top_k; j++) taken |= chosen(a, t, j) == e;
    return taken;
}

/* The least choice that was taken is one that was left. Of softmax scores with a bias, and of groups,
 * it is not known here. */
static bool tie(const struct sighting *s) {
    const struct route_args *const a = route(s);
    if (a->n_group > 1 || (a->score == SCORE_SOFTMAX && a->bias.data)) return false;
    for (int64_t t = 0; t < a->n_tokens; t++) {
        double taken = INFINITY, left = -INFINITY;
        for (int64_t e = 0; e < a->n_experts; e++) {
            if (is_taken(a, t, e))
                taken = fmin(taken, choice(a, t, e));
            else
                left = fmax(left, choice(a, t, e));
        }
        if (taken == left) return true;
    }
    return false;
}
static bool ambiguous(const struct sighting *s) { return s->edge->ambiguous > 0; }

static bool slots_512(const struct sighting *s) {
    return s->call->u.permute.n_tokens * s->call->u.permute.top_k > 512;
}
static bool ep(const struct sighting *s) { return plan(s)->ep > 1; }
static bool ep_and_etp(const struct sighting *s) { return plan(s)->ep > 1 && plan(s)->etp > 1; }

static bool gate_below_tenth(const struct sighting *s) {
    const struct combine_args *const a = &s->call->u.combine;
    for (int64_t t = 0; t < a->n_tokens; t++)
        for (int64_t j = 0; j < a->top_k; j++) {
            const float gate = ((const float *)a->gates.data)[t * a->gates.stride[0] + j];
            if (gate > 0 && gate < 0.1f) return true;
        }
    return false;
}

static bool no_shared(const struct sighting *s) {
    return s->at->crew->part == PART_FFN && s->at->crew->spec.moe && !s->at->crew->spec.shared_width;
}
static bool dense_ffn(const struct sighting *s) {
    return s->at->crew->part == PART_FFN && !s->at->crew->spec.moe;
}
static bool parts_8(const struct sighting *s) { return plan(s)->tp >= 8; }

const struct fact fact_table[] = {
    {"group-1", "a kv head for every query head", OP_ATTENTION, group_1},
    {"group-4", "4 query heads to a kv head", OP_ATTENTION, group_4},
    {"group-6", "6 query heads to a kv head", OP_ATTENTION, group_6},
    {"group-8", "8 query heads to a kv head", OP_ATTENTION, group_8},
    {"group-above-16", "more than 16 query heads to a kv head", OP_ATTENTION, group_above_16},
    {"group-no-power", "a group that is no power of two", OP_ATTENTION, group_no_power},
    {"tp-above-kv", "more ranks than kv heads", OP_ATTENTION, tp_above_kv},
    {"dims-128", "heads of 128 dims", OP_ATTENTION, dims_128},
    {"dims-256", "heads of 256 dims", OP_ATTENTION, dims_256},
    {"dims-odd", "heads of dims that are no multiple of 8", OP_ATTENTION, dims_odd},
    {"no-qk-norm", "q and k go to rope as they are", OP_ATTENTION, no_qk_norm},
    {"contiguous", "q, k and v copied out of the fused rows", OP_ATTENTION, contiguous},
    {"partial-rope", "dims that do not rotate", OP_ROPE, partial_rope},

    {"prefill", "a sequence from its first token", OP_ATTENTION, prefill},
    {"chunked", "several tokens behind cached keys", OP_ATTENTION, chunk},
    {"decode", "one token a sequence", OP_ATTENTION, decode},
    {"first-key", "a token that sees itself only", OP_ATTENTION, first_key},
    {"sequences-equal", "several sequences, all alike", OP_ATTENTION, sequences_equal},
    {"sequences-unequal", "several sequences of different lengths", OP_ATTENTION, sequences_unequal},
    {"uniform-queries", "several sequences with the same number of new tokens, above 1", OP_ATTENTION,
     uniform_queries},
    {"mixed-batch", "a decode step beside a prefill", OP_ATTENTION, mixed_batch},
    {"cached-200", "200 cached keys", OP_ATTENTION, cached_200},
    {"cached-5000", "5000 cached keys", OP_ATTENTION, cached_5000},
    {"pages-over-256", "page numbers that need more than a byte", OP_ATTENTION, pages_256},
    {"opens-page", "the last key is the first of its page", OP_ATTENTION, opens_page},
    {"fills-page", "the last key is the last of its page", OP_ATTENTION, fills_page},

    {"bias-qkv", "a bias of q, k and v", OP_LINEAR, bias_qkv},
    {"bias-o", "a bias of the output projection", OP_LINEAR, bias_o},
    {"fp32", "fp32 storage", OP_LINEAR, stored_f32},
    {"fp16", "fp16 storage", OP_LINEAR, stored_f16},
    {"expert-idle", "an expert without rows beside others with rows", OP_LINEAR, expert_idle},
    {"experts-all-read", "64 experts or more, and every one has rows", OP_LINEAR, experts_all_read},
    {"rank-idle", "a rank whose experts have no rows", OP_LINEAR, rank_idle},

    {"experts-128-top-8", "128 experts, 8 a token", OP_ROUTE, experts_128_top_8},
    {"top-1", "one expert a token", OP_ROUTE, top_1},
    {"one-token", "a single token", OP_ROUTE, one_token},
    {"softmax", "softmax scores", OP_ROUTE, softmax},
    {"sigmoid", "sigmoid scores", OP_ROUTE, sigmoid},
    {"raw-gates", "gates that are not renormalised", OP_ROUTE, raw_gates},
    {"select-bias", "a bias of the choice", OP_ROUTE, select_bias},
    {"no-select-bias", "a choice by the scores alone", OP_ROUTE, no_select_bias},
    {"group-limit", "experts of some groups only", OP_ROUTE, group_limit},
    {"negative-choice", "a group limit and choices below zero", OP_ROUTE, negative_choice},
    {"rejected-taken", "experts of rejected groups, which count as 0", OP_ROUTE, rejected_taken},
    {"tie", "a choice that is taken and an equal one that is left", OP_ROUTE, tie},
    {"ambiguous", "choices that rounding leaves open", OP_ROUTE, ambiguous},
    {"slots-over-512", "more than 512 routed slots", OP_PERMUTE, slots_512},
    {"ep-above-1", "experts dealt to several groups of ranks", OP_PERMUTE, ep},
    {"ep-and-etp", "and each cut over several ranks", OP_PERMUTE, ep_and_etp},
    {"gate-below-0.1", "a gate between 0 and 0.1", OP_COMBINE, gate_below_tenth},
    {"no-shared", "routed experts without a shared one", OP_SUM, no_shared},
    {"dense-ffn", "an ffn without experts", OP_SUM, dense_ffn},
    {"parts-8", "8 partial sums or more", OP_SUM, parts_8},
    {0},
};
