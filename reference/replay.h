/* replay - what a declared order gives. Where a contract says that sums are `in_order`, the stored value
 * is one value (or, where something follows the sum, within a bound that no sum has a part in); where it
 * says that P is, the value is within a bound that P's rounding has next to no part in. The declared
 * arithmetic is done once more, in code that shares nothing with the kernels. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_REPLAY_H
#define REFERENCE_REPLAY_H

#include "reference/reference.h"

/* OP_LINEAR and OP_GATED_LINEAR in bf16 or, chains of FMA, fp32, under a contract with an order; and
 * OP_ATTENTION with P in bf16 in one slice, under one with `p_in_order`. */
bool ref_replays(const struct call *call, const struct contract *contract);

/* Of so many blocks of columns one is worth its time, a third of the reference's: all of an FMA chain
 * costs a quarter of that, 0.4 of it where groups have few rows, and tensor cores' steps three times
 * as much (bench/bounds.c). */
int64_t ref_replay_each(const struct call *call, const struct contract *contract);

/* Rows [row0, row1) of the output, as in ref_compute: y in fp32 before the storage rounding (of a gated
 * product: its activation in double on such sums), e what may follow the sums: 0 for linear. Where
 * fp32 ends (y would be infinite or no number), in rows that no group owns, and in all but every
 * each-th block of columns (another one in every group), y is 0 and e infinite. */
void ref_replay(const struct call *call, const struct contract *contract, int64_t row0, int64_t row1,
                int64_t each, double *y, double *e);

/* replay_attention.c: the same of attention; a block is queries that share a kv head. */
bool attention_replays(const struct contract *contract);
void attention_replay(const struct call *call, const struct contract *contract, int64_t row0, int64_t row1,
                      int64_t each, double *y, double *e);

#endif
