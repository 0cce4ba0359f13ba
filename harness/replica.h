/* replica - a rank that does what the unsharded run did: the same call on the same bits. What the
 * reference says of one it says of the other; and of what is stored, if that is the same, too. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_REPLICA_H
#define HARNESS_REPLICA_H

#include "harness/seat.h"

/* Of two seats of one stage, each prepared: sizes, strides and numbers of the calls, and all bits
 * that they read or write in place. `trunk` may hold operands that are no longer there. */
bool replica_calls(const struct placed *at, const struct outcome *o, const struct placed *trunk_at,
                   const struct outcome *trunk);
/* Filled: by the same kernel, without a problem, under all schedules alike, every bit of every
 * output. */
bool replica_stores(const struct placed *at, const struct outcome *o, const struct outcome *trunk);

#endif
