/* Where does host memory come from, and what if there is none? */
/* SPDX-License-Identifier: MIT */
#include "harness/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_FROM ((size_t)8 << 20) /* large pages from here on: fewer faults */

static void *or_die(void *p, size_t bytes) {
    if (p && p != MAP_FAILED) return p;
    fprintf(stderr, "shardcheck: out of memory asking for %zu MiB; use a smaller model or fewer tokens\n",
            bytes >> 20);
    exit(2);
}

/* Whole pages of [p, p + bytes), not touched yet. */
static void ask_for_large_pages(void *p, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)p + page - 1) / page * page,
                    end = ((uintptr_t)p + bytes) / page * page;
    if (bytes >= HUGE_FROM) madvise((void *)begin, end - begin, MADV_HUGEPAGE);
}

void *memory_zeroed(size_t count, size_t size) {
    void *const p = or_die(calloc(count ? count : 1, size), count * size);
    ask_for_large_pages(p, count * size);
    return p;
}

void mapping_renew(struct mapping *m, size_t bytes) {
    mapping_free(m);
    m->bytes = bytes ? bytes : 1;
    m->data = or_die(
        mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
        bytes);
    ask_for_large_pages(m->data, m->bytes);
}

void mapping_free(struct mapping *m) {
    if (m->data) munmap(m->data, m->bytes);
    *m = (struct mapping){0};
}
