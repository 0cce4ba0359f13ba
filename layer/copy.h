/* copy - memcpy, memset and memcmp by all cores: half of the time of a copy to new memory is that its pages
 * are made. */
/* SPDX-License-Identifier: MIT */
#ifndef LAYER_COPY_H
#define LAYER_COPY_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void copy_bytes(void *to, const void *from, size_t bytes); /* small ones by the caller alone */
void set_bytes(void *to, unsigned char byte, size_t bytes);
bool same_bytes(const void *a, const void *b, size_t bytes);
bool all_bytes(const void *p, unsigned char byte, size_t bytes); /* are they all that one? */

#ifdef __cplusplus
}
#endif
#endif
