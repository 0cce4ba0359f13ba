/* exhibit - every tensor that one stage of one rank read and stored, beside what is right: for a case
 * so small that this can be read. At most 8 rows of 8 elements each. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_EXHIBIT_H
#define HARNESS_EXHIBIT_H

#include <stdio.h>

#include "harness/answer.h"

void exhibit(FILE *file, const struct placed *at, const struct outcome *o, const struct answer *a);

#endif
