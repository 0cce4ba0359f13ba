/* relate_keys - the relation of attention: right but for some keys. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_RELATE_KEYS_H
#define HARNESS_RELATE_KEYS_H

#include "harness/evidence.h"

/* "the last key of every query is missing", "key 16 is taken twice"; false: no such thing fits. */
bool relate_keys(const struct evidence *ev, char *text, size_t size);

#endif
