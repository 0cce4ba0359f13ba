/* copy - memcpy, memset, memcmp and a hash by all cores: half of the time of a copy to new memory
 * is that its pages are made. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_COPY_H
#define LAYER_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void copy_bytes(void *to, const void *from, size_t bytes); /* small ones by the caller alone */
void set_bytes(void *to, unsigned char byte, size_t bytes);
bool same_bytes(const void *a, const void *b, size_t bytes);
bool all_bytes(const void *p, unsigned char byte, size_t bytes); /* are they all that one? */
/* Nearly always another one where a byte is another one; however many cores there are, the same. */
uint64_t hash_bytes(const void *p, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
