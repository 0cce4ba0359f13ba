/* plain - the second opinion: a whole layer in one call, straight from the published weights to y.
 *
 * It shares no code and no struct with the staged reference (reference.h), so where the two agree
 * the layer was written down twice. Double arithmetic, no error bounds. The spec decides which
 * arrays are read: those it asks for must be there and as large as it says (a precondition);
 * experts that no token chooses are not read. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_PLAIN_H
#define REFERENCE_PLAIN_H

#include "layer/layer.h"

/* New token i sits at position n_cached + i. It sees the keys of positions 0 to its own; not
 * causal: all keys. */
struct plain_sequence {
    int64_t n_tokens, n_cached;
};

/* T new tokens and C cached keys, those of all sequences one after another; M hidden, H query
 * heads, G kv heads, D head dim, E experts, K experts per token, F expert width, S shared (or
 * dense) width. Arrays are dense, row-major, weights [out, in] as Hugging Face publishes them; NULL
 * = absent. */
struct plain_layer {
    const struct layer_spec *spec;
    enum part part; /* PART_ATTENTION: y = x + attention(norm(x)); PART_FFN: y = x + ffn(norm(x)) */
    int64_t n_seqs;
    const struct plain_sequence *seq; /* [n_seqs] */
    const double *x;                  /* [T, M] */
    const double *norm_w;             /* [M] */

    const double *cached_k, *cached_v; /* [C, G, D]; keys already normed and rotated */
    const double *w_q, *w_k, *w_v;     /* [H, D, M], [G, D, M], [G, D, M] */
    const double *b_q, *b_k, *b_v;     /* [H, D], [G, D], [G, D] */
    const double *q_norm_w, *k_norm_w; /* [D] */
    const double *w_o, *b_o;           /* [M, H, D], [M] */

    const double *router_w, *select_bias;  /* [E, M], [E] */
    const double *w_gate, *w_up, *w_down;  /* [E, F, M], [E, F, M], [E, M, F] */
    const double *shared_gate, *shared_up; /* [S, M], [S, M]; without moe they are the dense ffn */
    const double *shared_down;             /* [M, S] */

    /* [T, K] or NULL: the experts somebody else chose. They only break exact ties: a token goes to
     * them if they are just the K that come out on top when they win over experts with the same
     * choice value (and, of groups with the same score, those that hold one of them win, or the
     * others). If not they are ignored: ties go to the lower index. */
    const int32_t *tie_ids;
};

/* Fills y [T, M] and returns NULL. Or returns the name of what the part asks for and plain.c does
 * not know; then y is untouched. */
const char *plain_compute(const struct plain_layer *layer, double *y);

#endif
