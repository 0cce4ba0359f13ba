/* explain - which known mistake reproduces a rank's wrong numbers? Every mutant is replayed on the
 * reference's own copy of the rank's call; one is named only when its result accepts every element
 * of the rows that were replayed. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_EXPLAIN_H
#define HARNESS_EXPLAIN_H

#include "harness/answer.h"

/* The outcome stored something wrong; `answer` is what is right. Writes the mutant, its source and
 * the margin of its replay; leaves `likely` as it is when none fits. */
void explain(const struct placed *at, const struct outcome *o, const struct answer *answer, char *likely,
             size_t size);
/* Does the mistake that explain named of another rank or step reproduce this one's, too? */
bool explains_too(const struct placed *at, const struct outcome *o, const struct answer *answer,
                  const char *likely);

#endif
