/* memory - host memory that is there or the process ends with one line. Large blocks are mapped, so
 * that untouched pages (experts nobody is routed to) cost nothing; of those given back a few are
 * kept. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_MEMORY_H
#define HARNESS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

void *memory_zeroed(size_t count, size_t size); /* free() it */

struct mapping {
    void *data;
    size_t bytes;
    bool *lent; /* NULL: its own; else somebody else's, who reads here that it was given back */
};
/* `bytes` of zeros; an old mapping is given back. One thread at a time. */
void mapping_renew(struct mapping *m, size_t bytes);
void mapping_new(struct mapping *m, size_t bytes); /* with anything in it */
void mapping_free(struct mapping *m);
/* The same as plain memory. */
void *block_zeroed(size_t count, size_t size);
void *block_new(size_t count, size_t size); /* with anything in it */
void block_free(void *data);                /* NULL: nothing */

/* Bytes that this process, or one that it has waited for, had in use at most. */
size_t memory_peak(void);
/* Of a process that runs cases: the heap keeps what is freed for what comes next. */
void memory_keep_warm(void);

#endif
