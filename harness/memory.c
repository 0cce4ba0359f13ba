/* Where does host memory come from, and what if there is none? */
/* SPDX-License-Identifier: MIT */
#include "harness/memory.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_FROM ((size_t)8 << 20) /* large pages from here on: fewer faults */
#define MAPPED_FROM (64 << 20)      /* smaller blocks are the heap's, which keeps its pages */

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

/* ---- mappings ---- */

/* The one that was given back last: the kernel clears pages more slowly than they are written again. */
static struct mapping kept;

static bool kept_fits(size_t bytes) { return kept.data && bytes <= kept.bytes && kept.bytes / 4 <= bytes; }

static void drop_kept(void) {
    if (kept.data) munmap(kept.data, kept.bytes);
    kept = (struct mapping){0};
}

static void make_zero(char *data, size_t bytes) {
    enum { PIECE = 4 << 20 };
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < bytes; i += PIECE) memset(data + i, 0, bytes - i < PIECE ? bytes - i : PIECE);
}

static struct mapping map_pages(size_t bytes) {
    drop_kept(); /* first: never more memory than without it */
    void *const data =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const struct mapping m = {or_die(data, bytes), bytes, NULL};
    ask_for_large_pages(m.data, bytes);
    return m;
}

void mapping_renew(struct mapping *m, size_t bytes) {
    mapping_free(m);
    if (bytes < MAPPED_FROM) {
        *m = (struct mapping){memory_zeroed(bytes, 1), bytes, NULL};
    } else if (kept_fits(bytes)) {
        *m = kept;
        kept = (struct mapping){0};
        make_zero(m->data, bytes);
    } else {
        *m = map_pages(bytes);
    }
}

void mapping_free(struct mapping *m) {
    if (m->lent) {
        *m->lent = false;
    } else if (m->bytes < MAPPED_FROM) {
        free(m->data);
    } else {
        drop_kept();
        kept = *m;
    }
    *m = (struct mapping){0};
}

/* ---- the heap ---- */

void memory_keep_warm(void) {
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
    mallopt(M_TRIM_THRESHOLD, 4 * MAPPED_FROM);
}
