/* trunk - the whole, unsharded run that a group of cases shares: inputs, stored outputs, and the reference's values and
 * bounds of the stage at hand. It is judged here (kernel edge); ranks are judged against it (ranks.h). */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_TRUNK_H
#define HARNESS_TRUNK_H

#include "fixtures/fixture.h"
#include "harness/judge.h"
#include "harness/seat.h"
#include "harness/world.h"
#include "reference/reference.h"

/* Right values of one call: per output of the op, dense, all rows. */
struct answer {
    int n;
    enum tensor_id id[MAX_REF_OUT]; /* whose placement gives the coordinates */
    int64_t count[MAX_REF_OUT], row_size[MAX_REF_OUT];
    double *y[MAX_REF_OUT], *e[MAX_REF_OUT], *s1[MAX_REF_OUT];
};
void answer_compute(struct answer *a, int stage, const struct call *call, const struct contract *contract);
/* y of a combine call whose `down` is replaced by unrounded values. Free it. Gates are positive, so of magnitudes it makes
 * the magnitudes of the whole chain. */
double *answer_exact_combine(const struct call *call, const struct contract *contract, double *exact_down);
void answer_free(struct answer *a);

struct trunk {
    struct check_case c; /* tp = ep = 1 */
    int64_t layer;
    struct layer_spec spec;
    const struct fixture *fixture; /* NULL: filled */
    struct fill fill;
    struct batch batch;
    struct shard_plan plan; /* one rank */
    struct store store;     /* what the stage at hand reads */
    struct store fresh;     /* what it stored; moves into `store` when the stage is done */
    struct seat seat;
    const struct world *world;

    /* of the stage at hand */
    struct answer answer;
    const struct kernel *kernel; /* NULL for sums */
    struct edge_result edge;     /* kernel edge */
    double seconds_kernel, seconds_reference;
    struct findings findings; /* of the kernel edge, over all stages */
    char unsupported[500];    /* no kernel for a stage: the cases are skipped */
    int fused_end;            /* stages up to here were done by a fused kernel */
    bool declined;            /* no fused kernel takes this call: the stages it stands for run one by one */
    int32_t *offsets;         /* [E + 1] after routing; NULL before */
    double *exact_down,
        *exact_down_s1; /* [n, M] the reference's `down`, unrounded, and its sum of magnitudes */
    double *exact_combined,
        *exact_combined_s1; /* [T, M] combine of them: what the plan edge of combine adds up to */
};

struct status trunk_open(struct trunk *trunk, const struct check_case *c, const struct model *model,
                         const struct fixture *fixture, struct device *device);
bool trunk_has_stage(const struct trunk *trunk, int stage);
/* Inputs, kernel, reference, verdict; or trunk->declined, and nothing happened. The ranks then read `store` and are compared with `fresh`. */
struct status trunk_stage(struct trunk *trunk, int stage);
/* The outputs become the inputs of what follows; weights and answers are given back. */
void trunk_stage_done(struct trunk *trunk, int stage);
void trunk_close(struct trunk *trunk);

/* The token rows that a kv_write call stored, [T, G, D], out of a dense cache. */
void cache_gather(const struct trunk *trunk, const void *cache, size_t row_bytes, void *rows);
/* owned[row] = 1 for the cache rows that the batch's new tokens own. Free it. */
unsigned char *cache_owned(const struct trunk *trunk);
/* The sum of parts as one call on host memory; out has the storage dtype. */
struct call trunk_sum_call(const struct trunk *trunk, void *const *parts, int64_t n_parts, void *out);

#endif
