/* answer_seat - the reference in the seat: what it stores is its own y, unrounded, and beside it
 * how far that may be from the truth. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_ANSWER_SEAT_H
#define HARNESS_ANSWER_SEAT_H

#include "harness/answer.h"

struct answer_seat {
    struct seat seat;
    struct desk desk;
    struct contract (*contract)(enum op op); /* under which the radii hold */
    struct store moved;                      /* radii of the last outputs, double, by tensor */
};
void answer_seat_open(struct answer_seat *seat, struct contract (*contract)(enum op op));
void answer_seat_close(struct answer_seat *seat);

/* An answer, or what is as long as one, into outputs of the stage: rows find their slots. */
void answer_spread(const struct placed *at, struct store *into, enum tensor_id id, int i,
                   const double *values, int64_t count);

#endif
