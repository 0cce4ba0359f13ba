/* mutate - known mistakes as code. A mutant can be seeded into a run (--mutant NAME) to see it
 * caught, and is replayed on the reference when a run fails: if it reproduces the wrong numbers,
 * the report names it and its source. The rows are in harness/mutants, a file an area. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_MUTATE_H
#define HARNESS_MUTATE_H

#include "harness/case.h"
#include "layer/ops.h"
#include "layer/plan.h"
#include "reports/result.h"

struct placed;
struct mistake;
struct plain_layer;
struct ref_out;

/* Where a mistake can be made. The first four change one thing of the call under test, which the
 * kernel then runs with, and say whether they did. The others are inside a kernel, or in what it was
 * given to read (mistake.h): the reference stores what it would. NULL: not there. */
struct mutant_hooks {
    bool (*spec)(struct layer_spec *whole);                                /* the layer as it is understood */
    bool (*plan)(struct shard_plan *plan, const struct layer_spec *whole); /* who holds what */
    bool (*call)(struct call *call, const struct layer_spec *whole,
                 const struct layer_spec *local); /* one rank's call */
    /* The partial sums, rank by rank; parts [MAX_PARTS]. */
    bool (*sum)(const struct placed *at, struct view *parts, int64_t *n_parts);
    /* Is the mistake in the kernel of this stage? Then m->call becomes the call whose outputs it
     * stores, with operands of its own (mistake_memory) where they are others. */
    bool (*inside)(struct mistake *m);
    void (*chooses)(const struct mistake *m); /* changes the integer outputs of m->call: route, permute */
    /* Changes rows [row0, row1) of the outputs, where no call has them. */
    void (*stores)(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out);
    /* The layer as someone writes it down (reference/plain.h) who makes the mistake everywhere; `spec`
     * is what l->spec points to, to be changed. NULL: it is none of the layer, or has no such form. */
    void (*plain)(struct plain_layer *l, struct layer_spec *spec);
};

struct mutant {
    const char *name, *source, *describes;
    const char *missing; /* the feature of a layer in which the mistake is made and that no model of
                            this program has: the row is listed and nothing else; NULL: it can be made */
    enum edge edge;      /* which edge sees it in `exposes` */
    enum part part;
    unsigned layouts; /* in which the mistake exists, a set of 1 << enum layout; 0: in all */
    bool unsharded;   /* the unsharded run makes it too */
    struct mutant_hooks hooks;
    const char *exposes; /* a case line in which it must be caught */
    const char *clean;   /* a case line in which it cannot be seen; NULL: it shows in every case */
    const char *same_as; /* a mutant that stores the same in `exposes`, earlier in the table; NULL: none */
};
/* Row i of all files; NULL: there are fewer. */
const struct mutant *mutant_at(int i);
const struct mutant *mutant_by_name(const char *name); /* also one that cannot be made */

#endif
