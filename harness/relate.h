/* relate - what do the wrong values of a stage look like? A table of simple relations between what
 * was stored and what is right: a factor, a neighbour's value, an input left as it was, a term too
 * few. A relation is stated when it fits more than nine in ten of the sampled wrong elements, and
 * does not fit when they are mixed up: then it would fit anything. It is a hint, never a verdict. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RELATE_H
#define HARNESS_RELATE_H

#include "harness/answer.h"

/* The outcome stored something wrong; `answer` is what is right, `whole` the unsharded run's, whose
 * slice it is (NULL: of nothing). "4 x the right value (4 = tp)", "head h holds what head h + 4
 * should"; leaves `text` as it is where nothing fits. */
void relate(const struct placed *at, const struct outcome *o, const struct answer *answer,
            const struct answer *whole, char *text, size_t size);

#endif
