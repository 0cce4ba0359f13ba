/* reference - the right answers: naive double-precision C, one function an op.
 *
 * ref_compute(call, contract, row0, row1, out) computes rows [row0, row1) of every output tensor of
 * the call, in the order of the op's outputs in ops.h. A row is a token, or a sorted row where the
 * tensor is [n, ...].
 * out[i] arrays are dense, row-major, (row1 - row0) x the tensor's row size; any of y, e, s1 may be
 * NULL.
 * It reads the call's inputs through spans (NaN outside) and never writes through the call's output
 * views.
 * Same call, same rows -> same bits, whatever the row range or thread count.
 * Exact data movement has e = 0. s1 is filled by linear, combine and sum: the sum of magnitudes of
 * the terms.
 *
 * radius: how far the stored operands may be from those that the right answer is about; what that
 * does to the outputs is added to e. radius[i][j] >= 0 belongs to element data[j] of operand i, in
 * the order of the stage's inputs (parts, for a sum). NULL, as a whole or for an operand: exact.
 * Weights, tables and indices always are.
 *
 * outputs:  norm {out}  qk_norm {q, k}  linear {out}  split {q, k, v}  rope {q, k}  kv_write {k, v: the values that must be found
 * at slots[t], [T, G, D]}  attention {out}  route {gates, for the call's own ids}  permute {rows}  activation
 * combine sum residual {out}. The integer outputs of route and permute have functions of their own
 * below. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_REFERENCE_H
#define REFERENCE_REFERENCE_H

#include "reference/bound.h"

struct ref_out {
    double *y, *e, *s1;
};
enum { MAX_REF_OUT = 3 };

void ref_compute(const struct call *call, const struct contract *contract, const double *const *radius,
                 int64_t row0, int64_t row1, struct ref_out out[MAX_REF_OUT]);
int ref_n_outputs(enum op op);
int64_t ref_n_rows(const struct call *call);               /* rows of the call's outputs */
int64_t ref_row_size(const struct call *call, int output); /* elements in one row of output i */

/* Routing as sets. lo, hi [row1-row0, E]: interval of each expert's choice, score + bias, whatever
 * its group. */
void ref_route_choices(const struct call *call, const struct contract *contract, const double *const *radius,
                       int64_t row0, int64_t row1, double *lo, double *hi);
/* The K winners of rows [row0, row1) in exact arithmetic, ties to the lower index, by falling
 * choice. */
void ref_route_ids(const struct call *call, int64_t row0, int64_t row1, int32_t *ids);
enum route_verdict { ROUTE_CERTAIN, ROUTE_AMBIGUOUS, ROUTE_REJECTED };
/* May `ids[0..K)` be the top k of a row whose choices lie in [lo, hi], under the group limits of the
 * call?  CERTAIN: the only legal set. A repeated or out-of-range id is REJECTED. */
enum route_verdict ref_route_judge(const struct route_args *a, const struct route_contract *contract,
                                   const double *lo, const double *hi, const int32_t *ids);

/* Intervals of a row's choices behind the limit of groups: an expert whose group may be rejected
 * may count as the fill, -inf or 0. low, high [E] out. */
void ref_route_limit(const struct route_args *a, const struct route_contract *contract, const double *lo,
                     const double *hi, double *low, double *high);

/* Token t's ids hold an expert but not a lower one that is surely its equal: of the same group with
 * the same logit and the same bias, or, low and high being ref_route_limit's, known to be the same
 * number: *loser and the lowest *winner. False: there is none. Unknown ids are skipped. */
bool ref_route_tie(const struct route_args *a, const double *low, const double *high, int64_t t,
                   const int32_t *ids, int64_t *loser, int64_t *winner);

/* Interval of group g's score, from its experts' choices. */
void ref_route_group(const struct route_args *a, const struct route_contract *contract, const double *lo,
                     const double *hi, int64_t g, double *low, double *high);

/* Integer outputs of permute, from the call's ids: offsets [count+1], row_slot [n], slot_row [T*K].
 * Rows of one expert may stand in any order: as in the row_slot that the call has stored, if that is
 * an order of the expert's slots, else by rising slot. The call's rows follow the same order.
 * Returns n; any array may be NULL. Ids outside 0..2^31 are treated as belonging to nobody. */
int64_t ref_permute(const struct call *call, int32_t *offsets, int32_t *row_slot, int32_t *slot_row);

/* Rope table of `rot_dim` dims: [n_positions, rot_dim], cosines then sines, rounded to d. The
 * inverse frequencies theta^(-2i/rot), scaled as the spec says, and the product with the position are
 * computed in double. */
void ref_rope_table(void *table, enum dtype d, int64_t n_positions, int64_t rot_dim,
                    const struct layer_spec *spec);

#endif
