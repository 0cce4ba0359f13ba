/* recorded_keys - keys and values of a recording's earlier steps: those that a sequence begins
 * behind. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RECORDED_KEYS_H
#define HARNESS_RECORDED_KEYS_H

#include "harness/recorded_stage.h"

/* A sequence as far as the steps so far have shown it. */
struct kept_sequence {
    int64_t length;  /* keys */
    double **rows;   /* [tp][2] K and V, [length, local kv heads, D]; NULL: not known */
    double **radius; /* the same of how far they may be off; NULL: exact */
};
struct recorded_keys {
    struct kept_sequence *sequence; /* [n] */
    int64_t n;
};
/* Before the stages of a step: into the caches of every rank. A sequence that goes on from none,
 * or from one of several of the same length, is masked. */
void recorded_keys_put(const struct recorded_keys *keys, struct recorded_run *run);
/* After them: every sequence of the step, in the place of the one it went on from. */
void recorded_keys_take(struct recorded_keys *keys, const struct recorded_run *run, int64_t tp);
void recorded_keys_free(struct recorded_keys *keys, int64_t tp);

#endif
