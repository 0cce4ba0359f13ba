/* recorded_stage - one stage of all ranks of a recording: what it read, as far as that is known,
 * and what every rank recorded of what it made. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RECORDED_STAGE_H
#define HARNESS_RECORDED_STAGE_H

#include "harness/crew.h"
#include "harness/recorded.h"
#include "harness/seat.h"
#include "harness/stage.h"

/* Who filled a stage of which records were held against each other, and not against the
 * reference. */
#define ONLY_COPIES "copies only"

struct recorded_reason {
    char text[120]; /* empty: the tensor is known */
};
/* What the first rank that has it holds of a tensor that all ranks should hold alike. */
struct recorded_first {
    double *values;
    int rank;
};

/* Tokens for which the producer's roundings leave several choices of experts. */
enum { RECORDED_SETS = 16 };
enum recorded_fit { FIT_UNSEEN, FIT_YES, FIT_NO };
struct recorded_ties {
    int *n_sets;            /* [n_tokens] legal ones; 0: one only, or too many. NULL: not counted yet */
    int *chosen;            /* [n_tokens] which of them it is taken for */
    enum recorded_fit *fit; /* [n_tokens] what that gives against what was recorded */
    int32_t *set;           /* [n_tokens][RECORDED_SETS][K] */
};

/* The tokens that are judged where a stage is much work (recorded_sample.h). */
struct recorded_sample {
    bool *token; /* [n_tokens]; NULL: all */
    int64_t n;
};

/* One part of one layer of one step. All tensors in double: recorded ones exactly, computed ones
 * with a radius. */
struct recorded_run {
    const struct recorded_source *source;
    int step;
    int64_t layer;
    struct recorded_batch of_step; /* as the dump tells it */
    struct batch batch;
    struct crew crew;                /* of all ranks */
    struct store whole;              /* weights and indices */
    struct store *own, *radius;      /* [tp] */
    struct recorded_reason *unknown; /* [tp][T_COUNT] */
    bool *asked;                     /* [tp][T_COUNT] the dump was asked for this input */
    bool *summed;                    /* [tp] x is the exact sum of two tensors */
    struct desk desk;
    struct recorded_first first[T_COUNT];

    /* Rows that nobody can judge (near ties of the routing, keys of earlier steps), and tensors
     * that are made of them. */
    bool *masked; /* [n_tokens] */
    int64_t n_masked;
    bool doubted[T_COUNT];
    /* Rows that nobody computes, and tensors that are known in the others alone. */
    struct recorded_sample sample;
    bool thin[T_COUNT];

    struct recorded_ties ties;
    bool trial; /* of one of their sets */

    int since[T_COUNT];   /* the first stage of the span in which nobody recorded it; S_COUNT: recorded */
    int span_to[S_COUNT]; /* the stage that is judged for this one, too; 0: none is */

    struct case_result *result; /* takes what is known of the mistake of the first failing stage */
    bool *explained;            /* some rank's share of it was, in this step or another */
    struct stage_result *row;   /* of the stage at hand */
    bool wanted;                /* it is to be judged */
    struct verdict verdict;
};

struct status recorded_stage(struct recorded_run *run, int stage);
/* Does it read what follows from a masked token? */
bool recorded_reads_doubted(const struct recorded_run *run, int stage);

/* ---- recorded_records.c ---- */

/* What is recorded of a version of a tensor: the values of its last name go on. */
struct settled {
    double *values; /* NULL: nothing */
    int64_t count;
    enum dtype dtype;
};
/* Every record of this version of the tensor on the rank, judged. y, e: what the first is held
 * against; NULL: nothing, and `reason` says why. */
struct status recorded_settle(struct recorded_run *run, const struct placed *at, enum tensor_id id, double *y,
                              double *e, const char *reason, struct settled *out);
/* What was settled goes on, and its memory is given back. */
void recorded_put_settled(struct recorded_run *run, int rank, enum tensor_id id, struct settled *settled);
/* The exact values of a tensor of the rank, from now on. */
void recorded_put(struct recorded_run *run, int rank, enum tensor_id id, const double *values, int64_t count);
/* Is there no verdict on this token's row of the tensor? */
bool recorded_is_open(const struct recorded_run *run, enum tensor_id id, int64_t token);
/* What keeps a tensor of the rank from being known; empty: nothing. */
char *recorded_why(const struct recorded_run *run, int rank, enum tensor_id id);
__attribute__((format(printf, 4, 5))) void recorded_unknown(struct recorded_run *run, int rank,
                                                            enum tensor_id id, const char *format, ...);
/* A record that should be a copy, or a cast, of these values, which are called `of`. */
void recorded_judge_copy(struct recorded_run *run, const struct placed *at, enum tensor_id id,
                         const struct record *copy, const char *of, const double *values);
/* The first of the stages whose outputs nobody recorded, up to this one. */
int recorded_span_start(const struct recorded_run *run, int stage);

/* ---- recorded_ties.c ---- */

/* Masks the tokens for which the producer's roundings may have made another choice of experts,
 * and counts them as ambiguous. */
void recorded_mask_ties(struct recorded_run *run, const struct outcome *route);
/* The sets that they are taken for, into ids [T, K]. */
void recorded_put_sets(const struct recorded_run *run, int64_t top_k, int32_t *ids);
/* How the masked rows of a record lie in its acceptance sets; `row` elements a token. */
void recorded_note_fit(struct recorded_run *run, enum tensor_id id, const struct judged *j, int64_t row);
/* After the routing: tries the sets on what was recorded of what follows, and judges by the
 * first that fits. */
struct status recorded_settle_ties(struct recorded_run *run);
void recorded_ties_free(struct recorded_run *run);

#endif
