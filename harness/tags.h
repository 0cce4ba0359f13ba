/* tags - what a failing stage has read, where fill=tags makes its inputs say where they come from:
 * a line like "kv head 1 for 0" or "column 64 was not read". It says nothing where no tag is
 * recognised, and never changes a verdict. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_TAGS_H
#define HARNESS_TAGS_H

#include "harness/answer.h"

/* The outcome stored something wrong. `text` stays as it is where the stage has no tags, or none that
 * tells. */
void tags_read(const struct placed *at, const struct outcome *o, const struct answer *answer, char *text,
               size_t size);

#endif
