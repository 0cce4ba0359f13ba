/* mistake - a mutant at one stage of one rank: the call as it makes it, and what it stores, by the
 * reference. Seeded into a run, a mistake inside a kernel puts that in the place of what the kernel
 * stored, so that no kernel is built again; when a stage fails, what was stored is compared with
 * it (explain.h). */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_MISTAKE_H
#define HARNESS_MISTAKE_H

#include "harness/answer.h"

enum { MISTAKE_BLOCKS = 12 };

struct mistake {
    const struct placed *at;
    const struct mutant *mutant;
    const struct outcome *outcome; /* its call is the right one */
    struct call call;            /* as the mistake makes it, on host memory; its outputs are not written, but
                                      for the integers that `chooses` has changed */
    struct view part[MAX_PARTS]; /* of a sum */
    bool guess;                  /* replayed, not made: not at any price */
    bool inside;                 /* the mistake is in the kernel of this stage */
    void *block[MISTAKE_BLOCKS]; /* what the hooks have allocated */
    int n_blocks;
};

/* False: the mutant changes nothing at this stage. To be closed in any case. */
bool mistake_open(struct mistake *m, const struct placed *at, const struct mutant *mutant,
                  const struct outcome *outcome, bool guess);
void mistake_close(struct mistake *m);
/* No mistake at all: the right call. */
struct mistake mistake_none(const struct placed *at, const struct outcome *outcome);
/* Could it have stored the integers that were stored?  True of ops that have none. From here on gates
 * are computed for the ids that were stored. */
bool mistake_accepts_integers(struct mistake *m);
/* As ref_compute: rows [row0, row1) of every output of the stage, with the mistake. */
void mistake_compute(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out out[MAX_REF_OUT]);
/* What the stage stores with the mutant (NULL: none) seeded; outcome->mistaken says whether it
 * changed anything. */
struct status mistake_fill(struct seat *seat, const struct placed *at, const struct mutant *mutant,
                           struct outcome *outcome);

/* The answer where everybody makes the mistake, the reference too: for compositions (chain.h). Integer
 * outputs are in outcome->got. */
void mistake_answer(struct answer *answer, const struct placed *at, const struct mutant *fault,
                    struct outcome *outcome);

/* ---- for hooks ---- */

/* Zeroed, until the mistake is closed. NULL: more than is worth while for a guess. */
void *mistake_memory(struct mistake *m, int64_t count, size_t size);
/* A dense copy of a tensor's own memory in place of the one that `view` shows, to be changed. False:
 * too large. */
bool mistake_copy(struct mistake *m, struct view *view, int64_t count);
/* The whole tensor that the ranks slice from; NULL: it is not there. */
const struct stored *mistake_whole(const struct mistake *m, enum tensor_id id);
static inline const struct layer_spec *mistake_spec(const struct mistake *m) { return &m->at->crew->spec; }
static inline const struct shard_plan *mistake_plan(const struct mistake *m) { return &m->at->crew->plan; }

#endif
