/* axes - the placement strings: which axes a tensor has, and over which ranks each is cut.
 *
 * Letters: t new tokens, m hidden, h query heads, g kv heads, d head dim, e experts, k experts per
 * token, f expert width, s shared (or dense) width, n rows sorted by expert, p positions of the
 * rope table, r rotary dims, b sequences, page / slot of the kv cache, entry of a page table.
 * Grammar, per axis: `a` whole, `a/g` cut over rank group g (tp, ep or etp), `(a/g b/g)` blocks one
 * after another, a number; `+1` behind an axis: one element more (offsets: where the last expert
 * ends); a trailing `+g` says partial sums over group g.
 * Groups: tp = all ranks; ep divides tp and cuts the experts; etp = tp/ep cuts inside an expert. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_AXES_H
#define LAYER_AXES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum axis_name {
    AXIS_NUMBER,
    AXIS_T,
    AXIS_M,
    AXIS_H,
    AXIS_G,
    AXIS_D,
    AXIS_E,
    AXIS_K,
    AXIS_F,
    AXIS_S,
    AXIS_N,
    AXIS_P,
    AXIS_R,
    AXIS_B,
    AXIS_PAGE,
    AXIS_SLOT,
    AXIS_ENTRY,
    AXIS_COUNT
};
enum rank_group { GROUP_NONE, GROUP_TP, GROUP_EP, GROUP_ETP };
const char *axis_label(enum axis_name a); /* "token", "head", "expert", ... for reports */

/* A parsed axes string. */
struct axis_block {
    enum axis_name name;
    enum rank_group group;
    int64_t number; /* size when name is AXIS_NUMBER */
};
struct axis {
    int n_blocks;
    struct axis_block block[3];
    int64_t extra; /* elements behind the blocks, not cut: on every rank */
};
enum { MAX_AXES = 5 };
struct axes {
    int n;
    struct axis axis[MAX_AXES];
    enum rank_group partial;
};
/* Returns NULL, or what is wrong with the string. */
const char *axes_parse(const char *text, struct axes *out);

#ifdef __cplusplus
}
#endif
#endif
