/* memory - host memory that is there or the process ends with one line; large blocks are mapped, so
 * that untouched pages (experts nobody is routed to) cost nothing. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_MEMORY_H
#define HARNESS_MEMORY_H

#include <stddef.h>

void *memory_zeroed(size_t count, size_t size); /* free() it */

struct mapping {
    void *data;
    size_t bytes;
};
/* At least `bytes` of zero pages; an old mapping is given back. */
void mapping_renew(struct mapping *m, size_t bytes);
void mapping_free(struct mapping *m);

#endif
