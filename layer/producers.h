/* producers - whose arithmetic is in a file? One table of named producers: the contract of each
 * stage, and what is rounded between two stages although no file shows it. A producer is named
 * NAME[:KEY=VALUE...]: `vllm-bf16:attention.p=bf16`. Sources and derivations: docs/numerics.md. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_PRODUCERS_H
#define LAYER_PRODUCERS_H

#include "layer/contract.h"
#include "layer/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct producer;
struct producer_row {
    const char *name, *describes, *source;
    enum dtype storage; /* what it rounds the outputs of its steps to; DTYPE_F64: to nothing */
    struct contract (*contract)(const struct producer *producer, int stage, const struct hf64_range *range);
    enum dtype (*between)(const struct producer *producer, enum tensor_id id); /* NULL: to `storage` */
    bool rounds_logits;            /* to `storage`, too, but those that the model computes in fp32 */
    enum tensor_id keeps[T_COUNT]; /* not rounded on the way to the next step, ended by T_NONE */
    /* Are the stage's bf16 outputs cut, not rounded to nearest?  NULL: of none. */
    bool (*cuts)(const struct producer *producer, int stage);
};
extern const struct producer_row producer_table[]; /* ended by a row without a name */

enum { MAX_PRODUCER_CHANGES = 8 };
/* A producer with what the user changed of it, and what is known of the model that it ran. */
struct producer {
    const struct producer_row *row;
    enum dtype storage;     /* the row's; of a row that leaves it open, the file's: the caller sets it */
    const char *model_type; /* set by the caller; NULL: not known */
    bool router_fp32;       /* set by the caller: struct model's */
    int n_changes;
    struct producer_change {
        int key; /* of the keys of producers.c, or a tensor's id beyond them */
        int value;
    } change[MAX_PRODUCER_CHANGES];
};

/* NAME[:KEY=VALUE...]; an error names what is legal. */
struct status producer_find(const char *text, struct producer *out);
/* Its contract of a stage. range: what constants of it depend on, as far as the producer needs
 * it. */
struct contract producer_contract(const struct producer *producer, int stage, const struct hf64_range *range);
/* What it rounds a tensor to that no file shows (image_of of reference/bound.h); DTYPE_F64: it
 * does not. Integers: DTYPE_F64. */
enum dtype producer_between(const struct producer *producer, enum tensor_id id);
/* How the outputs of a stage came into dtype d: d, or DTYPE_BF16_CUT. */
enum dtype producer_rounds(const struct producer *producer, int stage, enum dtype d);

#ifdef __cplusplus
}
#endif
#endif
