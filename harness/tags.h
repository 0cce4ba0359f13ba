/* tags - what a failing stage has read, where fill=tags makes its inputs say where they come from
 * (origin.h): a line like "head 3 of token 5 for head 1 of token 5". It says nothing where nothing is
 * recognised, and never changes a verdict. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_TAGS_H
#define HARNESS_TAGS_H

#include "harness/answer.h"

/* The outcome stored something wrong. `text` stays as it is where nothing can be said. */
void tags_read(const struct placed *at, const struct outcome *o, const struct answer *answer, char *text,
               size_t size);

#endif
