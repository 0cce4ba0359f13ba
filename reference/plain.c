/* plain - what does the layer compute?  Read this first: all of it, in numbered passes of straight loops.
 *
 * The letters are those of plain.h: T new tokens, M hidden, H query heads, G kv heads, D head dim,
 * E experts, K experts per token, F expert width. Nothing here knows of ranks, storage types, pages
 * or bounds, and no code comes from the other files of this folder: a mistake in how their stages
 * fit is not made twice. Sources: RMSNorm, Zhang & Sennrich 2019, eq. 4; rope, Su et al. 2021, eq.
 * 34; grouped queries, Ainslie et al. 2023; SwiGLU, Shazeer 2020, eq. 6; groups of experts,
 * DeepSeek-V3 2024, section 2.1.2. */
/* SPDX-License-Identifier: MIT */
#include "reference/plain.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *new_array(int64_t n, size_t size) {
    void *p = calloc((size_t)n + 1, size);
    if (p) return p;
    fprintf(stderr, "shardcheck: the plain layer needs %zu more bytes of memory; use fewer tokens\n",
            (size_t)n * size);
    exit(2);
}

/* ---- what both parts use ---- */

/* x . w, both [n] */
static double dot(const double *x, const double *w, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * w[i];
    return sum;
}

/* out = x w / sqrt(mean(x^2) + eps), all [n]; out may be x */
static void rms_norm(double *out, const double *x, const double *w, int64_t n, double eps) {
    const double rms = sqrt(dot(x, x, n) / (double)n + eps);
    for (int64_t i = 0; i < n; i++) out[i] = x[i] / rms * w[i];
}

/* out [T, N] = x [T, M] times w [N, M] transposed, + b [N] where there is one */
static void linear(double *out, const double *x, const double *w, const double *b, int64_t T, int64_t N,
                   int64_t M) {
    for (int64_t t = 0; t < T; t++)
        for (int64_t n = 0; n < N; n++) out[t * N + n] = dot(x + t * M, w + n * M, M) + (b ? b[n] : 0);
}

/* ---- attention ---- */

/* Radians a position of pair i. A long wave is one of more positions than the trained context has
 * rope_low of. */
static double speed(int64_t i, const struct layer_spec *s) {
    const double plain = pow(s->rope_theta, -2.0 * (double)i / (double)s->rot_dim);
    const double wave = 2 * acos(-1.0) / plain, slow = plain / s->rope_factor;
    if (s->rope_scaling == ROPE_UNSCALED) return plain;
    if (s->rope_scaling == ROPE_LINEAR) return slow;
    if (wave < (double)s->rope_trained / s->rope_high) return plain;
    if (wave > (double)s->rope_trained / s->rope_low) return slow;
    const double smooth = ((double)s->rope_trained / wave - s->rope_low) / (s->rope_high - s->rope_low);
    return slow + smooth * (plain - slow);
}

/* Turn the first rot_dim dims of one head, x [D], by the angles position * speed. */
static void rotate(double *x, int64_t position, const struct layer_spec *s) {
    const int64_t half = s->rot_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const double angle = (double)position * speed(i, s);
        double *a = s->rope_pairing == ROPE_NEOX ? x + i : x + 2 * i;
        double *b = s->rope_pairing == ROPE_NEOX ? x + i + half : x + 2 * i + 1;
        const double a_i = *a, b_i = *b;
        *a = a_i * cos(angle) - b_i * sin(angle);
        *b = b_i * cos(angle) + a_i * sin(angle);
    }
}

/* The heads of n tokens at positions first, first + 1, ...: x [n, n_heads, D], w [D] */
static void norm_and_rotate(double *x, const double *w, int64_t n, int64_t n_heads, int64_t first,
                            const struct layer_spec *s) {
    for (int64_t i = 0; i < n * n_heads; i++) {
        double *x_h = x + i * s->head_dim;
        if (s->qk_norm) rms_norm(x_h, x_h, w, s->head_dim, s->norm_eps);
        rotate(x_h, first + i / n_heads, s);
    }
}

/* o [D] = sum over the first n keys of softmax(scale q . k) v; q [D], k and v [.., G, D], read at
 * kv head g */
static void attend(double *o, const double *q, const double *k, const double *v, int64_t n, int64_t g,
                   const struct layer_spec *s) {
    const int64_t G = s->n_kv_heads, D = s->head_dim;
    double *p = new_array(n, sizeof *p); /* [n] */
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) p[j] = s->attn_scale * dot(q, k + (j * G + g) * D, D);
    for (int64_t j = 0; j < n; j++) max = fmax(max, p[j]);
    for (int64_t j = 0; j < n; j++) sum += p[j] = exp(p[j] - max);
    for (int64_t d = 0; d < D; d++) {
        o[d] = 0;
        for (int64_t j = 0; j < n; j++) o[d] += p[j] / sum * v[(j * G + g) * D + d];
    }
    free(p);
}

/* y [T, M] = x + attention(norm(x)) */
static void attention_part(const struct plain_layer *l, int64_t T, double *y) {
    const struct layer_spec *s = l->spec;
    const int64_t M = s->hidden, H = s->n_heads, G = s->n_kv_heads, D = s->head_dim;
    double *normed = new_array(T * M, sizeof *normed);                                 /* [T, M] */
    double *q = new_array(T * H * D, sizeof *q), *o = new_array(T * H * D, sizeof *o); /* [T, H, D] */
    double *k = new_array(T * G * D, sizeof *k), *v = new_array(T * G * D, sizeof *v); /* [T, G, D] */
    assert(!s->qkv_bias || (l->b_q && l->b_k && l->b_v));
    assert(!s->o_bias || l->b_o);

    /* Pass 1: normalise every token. */
    for (int64_t t = 0; t < T; t++) rms_norm(normed + t * M, l->x + t * M, l->norm_w, M, s->norm_eps);

    /* Pass 2: its queries, keys and values. */
    linear(q, normed, l->w_q, s->qkv_bias ? l->b_q : NULL, T, H * D, M);
    linear(k, normed, l->w_k, s->qkv_bias ? l->b_k : NULL, T, G * D, M);
    linear(v, normed, l->w_v, s->qkv_bias ? l->b_v : NULL, T, G * D, M);

    int64_t t0 = 0, c0 = 0; /* first token and first cached key of the sequence */
    for (int64_t b = 0; b < l->n_seqs; b++) {
        const int64_t n = l->seq[b].n_tokens, C = l->seq[b].n_cached;

        /* Pass 3: norm every head of q and k, then turn it by its token's position. */
        norm_and_rotate(q + t0 * H * D, l->q_norm_w, n, H, C, s);
        norm_and_rotate(k + t0 * G * D, l->k_norm_w, n, G, C, s);

        /* Pass 4: the sequence's keys and values, cached ones first. [C + n, G, D] */
        double *keys = new_array((C + n) * G * D, sizeof *keys);
        double *values = new_array((C + n) * G * D, sizeof *values);
        for (int64_t i = 0; i < (C + n) * G * D; i++) {
            const int64_t fresh = i - C * G * D;
            keys[i] = fresh < 0 ? l->cached_k[c0 * G * D + i] : k[t0 * G * D + fresh];
            values[i] = fresh < 0 ? l->cached_v[c0 * G * D + i] : v[t0 * G * D + fresh];
        }

        /* Pass 5: every head of every token attends; H / G heads in a row share a kv head. */
        for (int64_t i = 0; i < n; i++)
            for (int64_t h = 0; h < H; h++) {
                const int64_t at = ((t0 + i) * H + h) * D, visible = s->causal ? C + i + 1 : C + n;
                attend(o + at, q + at, keys, values, visible, h / (H / G), s);
            }
        free(keys), free(values);
        t0 += n, c0 += C;
    }

    /* Pass 6: project the heads back, add the residual. */
    linear(y, o, l->w_o, s->o_bias ? l->b_o : NULL, T, M, H * D);
    for (int64_t i = 0; i < T * M; i++) y[i] += l->x[i];
    free(normed), free(q), free(k), free(v), free(o);
}

/* ---- ffn ---- */

/* y [M] += factor * down (silu(gate x) * up x), silu(z) = z / (1 + exp(-z)); gate, up [F, M], down
 * [M, F] */
static void add_swiglu(double *y, double factor, const double *x, const double *gate, const double *up,
                       const double *down, int64_t F, int64_t M) {
    double *act = new_array(F, sizeof *act); /* [F] */
    for (int64_t f = 0; f < F; f++) {
        const double z = dot(x, gate + f * M, M);
        act[f] = z / (1 + exp(-z)) * dot(x, up + f * M, M);
    }
    for (int64_t m = 0; m < M; m++) y[m] += factor * dot(act, down + m * F, F);
    free(act);
}

/* Mark the n largest of value [count]; of equal ones the wanted come first, then the lower
 * index. */
static void mark_largest(bool *marked, const double *value, const bool *wanted, int64_t count, int64_t n) {
    for (int64_t i = 0; i < count; i++) marked[i] = false;
    for (; n > 0; n--) {
        int64_t best = -1;
        for (int64_t i = 0; i < count; i++) {
            if (marked[i]) continue;
            const bool preferred = best >= 0 && value[i] == value[best] && wanted[i] && !wanted[best];
            if (best < 0 || value[i] > value[best] || preferred) best = i;
        }
        marked[best] = true;
    }
}

/* Shut all but the topk_group groups with the largest group score: their choices become -inf, or 0.
 * The score of a group is the sum of its two largest choices, or the largest. choice, wanted [E] */
static void shut_losing_groups(double *choice, const bool *wanted, const struct layer_spec *s) {
    const int64_t E = s->n_experts, size = E / s->n_group;
    const int64_t n_summed = s->group_score == GROUP_TOP2_SUM && size > 1 ? 2 : 1;
    double *score = new_array(s->n_group, sizeof *score); /* [n_group] */
    bool *kept = new_array(s->n_group, sizeof *kept);     /* [n_group] */
    bool *holds = new_array(s->n_group, sizeof *holds);   /* [n_group]: a wanted one */
    bool *summed = new_array(size, sizeof *summed);       /* [E / n_group] */
    for (int64_t g = 0; g < s->n_group; g++) {
        mark_largest(summed, choice + g * size, wanted + g * size, size, n_summed);
        for (int64_t i = 0; i < size; i++) {
            score[g] += summed[i] ? choice[g * size + i] : 0;
            holds[g] |= wanted[g * size + i];
        }
    }
    mark_largest(kept, score, holds, s->n_group, s->topk_group);
    for (int64_t e = 0; e < E; e++)
        if (!kept[e / size]) choice[e] = s->group_fill == GROUP_FILL_ZERO ? 0 : -INFINITY;
    free(score), free(kept), free(holds), free(summed);
}

/* chosen [E] = the K experts with the largest score + bias behind the limit of groups; the wanted
 * [E] win ties, and groups that hold one of `inside` [E] win ties of groups */
static void choose(bool *chosen, const double *score, const bool *inside, const bool *wanted,
                   const struct plain_layer *l) {
    const struct layer_spec *s = l->spec;
    double *choice = new_array(s->n_experts, sizeof *choice); /* [E] */
    for (int64_t e = 0; e < s->n_experts; e++)
        choice[e] = score[e] + (s->select_bias ? l->select_bias[e] : 0);
    if (s->n_group > 1) shut_losing_groups(choice, inside, s);
    mark_largest(chosen, choice, wanted, s->n_experts, s->top_k);
    free(choice);
}

/* score [E] = softmax or sigmoid of the logits router_w x; x [M] */
static void score_experts(double *score, const double *x, const struct plain_layer *l) {
    const int64_t E = l->spec->n_experts;
    double max = -INFINITY, sum = 0;
    linear(score, x, l->router_w, NULL, 1, E, l->spec->hidden);
    for (int64_t e = 0; e < E; e++) max = fmax(max, score[e]);
    for (int64_t e = 0; e < E; e++) sum += exp(score[e] - max);
    for (int64_t e = 0; e < E; e++)
        score[e] = l->spec->score == SCORE_SOFTMAX ? exp(score[e] - max) / sum : 1 / (1 + exp(-score[e]));
}

/* gate [E] of one token, x [M], 0 where an expert is not chosen; tie_ids [K] of this token or
 * NULL */
static void route(double *gate, const double *x, const int32_t *tie_ids, const struct plain_layer *l) {
    const struct layer_spec *s = l->spec;
    const int64_t E = s->n_experts;
    double *score = new_array(E, sizeof *score);                                         /* [E] */
    bool *chosen = new_array(E, sizeof *chosen);                                         /* [E] */
    bool *wanted = new_array(E, sizeof *wanted), *nobody = new_array(E, sizeof *nobody); /* [E] */
    bool *others = new_array(E, sizeof *others);                                         /* [E] */
    score_experts(score, x, l);

    /* The given experts win ties, but only if that brings in all of them and no other. Where a
     * rejected group counts as 0, they may be of groups that lose a tie. */
    for (int64_t j = 0; j < s->top_k && tie_ids; j++)
        if (tie_ids[j] >= 0 && tie_ids[j] < E) wanted[tie_ids[j]] = true;
    for (int64_t e = 0; e < E; e++) others[e] = !wanted[e];
    choose(chosen, score, wanted, wanted, l);
    if (memcmp(chosen, wanted, (size_t)E * sizeof *chosen)) choose(chosen, score, others, wanted, l);
    if (memcmp(chosen, wanted, (size_t)E * sizeof *chosen)) choose(chosen, score, nobody, nobody, l);

    /* The bias has chosen; the gates are the scores without it. */
    double sum = 0;
    for (int64_t e = 0; e < E; e++) sum += chosen[e] ? score[e] : 0;
    for (int64_t e = 0; e < E; e++) {
        gate[e] = chosen[e] ? s->routed_scale * score[e] : 0;
        if (s->renormalise) gate[e] /= sum + s->renorm_eps;
    }
    free(score), free(chosen), free(wanted), free(nobody), free(others);
}

/* y [T, M] = x + ffn(norm(x)) */
static void ffn_part(const struct plain_layer *l, int64_t T, double *y) {
    const struct layer_spec *s = l->spec;
    const int64_t M = s->hidden, E = s->n_experts, K = s->top_k, F = s->expert_width;
    double *normed = new_array(M, sizeof *normed); /* [M], of one token */
    double *gate = new_array(E, sizeof *gate);     /* [E] */
    for (int64_t t = 0; t < T; t++) {
        double *y_t = y + t * M;

        /* Pass 1: normalise; the residual. */
        rms_norm(normed, l->x + t * M, l->norm_w, M, s->norm_eps);
        for (int64_t m = 0; m < M; m++) y_t[m] = l->x[t * M + m];

        /* Pass 2: the chosen experts, weighed by their gates. */
        if (s->moe) route(gate, normed, l->tie_ids ? l->tie_ids + t * K : NULL, l);
        for (int64_t e = 0; e < E && s->moe; e++)
            if (gate[e] != 0)
                add_swiglu(y_t, gate[e], normed, l->w_gate + e * F * M, l->w_up + e * F * M,
                           l->w_down + e * M * F, F, M);

        /* Pass 3: the shared experts; or, in a layer without routed ones, the dense ffn. */
        if (s->shared_width > 0)
            add_swiglu(y_t, 1, normed, l->shared_gate, l->shared_up, l->shared_down, s->shared_width, M);
    }
    free(normed), free(gate);
}

/* ---- what is known ---- */

/* All fields of the spec in their order, and the only ones read above. A new field is a missing
 * initialiser here (-Wextra): nothing compiles until it is computed above or, where it is in use,
 * named below. */
static struct layer_spec known_fields(const struct layer_spec *s) {
    return (struct layer_spec){
        s->hidden,      s->n_heads,      s->n_kv_heads,  s->head_dim,    s->attn_scale,   s->qkv_bias,
        s->o_bias,      s->causal,       s->norm_eps,    s->qk_norm,     s->rope_pairing, s->rot_dim,
        s->rope_theta,  s->rope_scaling, s->rope_factor, s->rope_low,    s->rope_high,    s->rope_trained,
        s->moe,         s->shared_width, s->n_experts,   s->top_k,       s->expert_width, s->score,
        s->select_bias, s->n_group,      s->topk_group,  s->group_score, s->group_fill,   s->renormalise,
        s->renorm_eps,  s->routed_scale};
}

/* What the part makes use of and this file does not know, or NULL. */
static const char *unknown_feature(const struct layer_spec *s, enum part part) {
    const bool rotates = part == PART_ATTENTION && s->rot_dim > 0, routes = part == PART_FFN && s->moe;
    if (part != PART_ATTENTION && part != PART_FFN) return "part";
    if (rotates && s->rope_pairing != ROPE_NEOX && s->rope_pairing != ROPE_GPTJ) return "rope_pairing";
    if (rotates && s->rope_scaling > ROPE_LLAMA3) return "rope_scaling";
    if (routes && s->score != SCORE_SOFTMAX && s->score != SCORE_SIGMOID) return "score";
    if (routes && s->group_score != GROUP_TOP2_SUM && s->group_score != GROUP_MAX) return "group_score";
    if (routes && s->group_fill != GROUP_FILL_INF && s->group_fill != GROUP_FILL_ZERO) return "group_fill";
    return NULL;
}

const char *plain_compute(const struct plain_layer *layer, double *y) {
    const struct layer_spec spec = known_fields(layer->spec);
    if (unknown_feature(&spec, layer->part)) return unknown_feature(&spec, layer->part);
    struct plain_layer l = *layer;
    l.spec = &spec;
    int64_t T = 0;
    for (int64_t b = 0; b < l.n_seqs; b++) T += l.seq[b].n_tokens;
    if (l.part == PART_ATTENTION)
        attention_part(&l, T, y);
    else
        ffn_part(&l, T, y);
    return NULL;
}
