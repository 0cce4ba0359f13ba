/* recorded_keys - keys and values of a recording's earlier steps: those that a sequence begins
 * behind. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RECORDED_KEYS_H
#define HARNESS_RECORDED_KEYS_H

#include "harness/recorded_stage.h"

/* A sequence as far as the steps so far have shown it. */
struct kept_sequence {
    int64_t length;  /* keys */
    int64_t slot;    /* of the last, in the server's cache; -1: not told */
    double **rows;   /* [tp][2] K and V, [length, local kv heads, D]; NULL: not known */
    double **radius; /* the same of how far they may be off; NULL: exact */
};
struct recorded_keys {
    struct kept_sequence *sequence; /* [n] */
    int64_t n;
};
/* The sequences of a step. Where the dump does not tell them, one goes on as long as positions rise by one. */
void recorded_keys_batch(const struct recorded_batch *step, struct batch *batch);
/* Before the stages of a step: into the caches of every rank. A sequence goes on from the one whose last key
 * lay in the slot before its first, or, where the dump has no slots, from the only one of that length. One
 * that goes on from none is masked, and one that may be two, for all the dump tells. */
void recorded_keys_put(const struct recorded_keys *keys, struct recorded_run *run);
/* After them: every sequence of the step, in the place of the one it went on from. */
void recorded_keys_take(struct recorded_keys *keys, const struct recorded_run *run, int64_t tp);
void recorded_keys_free(struct recorded_keys *keys, int64_t tp);

#endif
