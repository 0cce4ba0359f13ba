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
#include <sys/resource.h>
#include <unistd.h>

#include "layer/copy.h"

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

/* Those that were given back last: the kernel clears pages more slowly than they are written
 * again. */
enum { KEPT = 4 };
static struct mapping kept[KEPT];

static void drop_kept(void) {
    for (int i = 0; i < KEPT; i++) {
        if (kept[i].data) munmap(kept[i].data, kept[i].bytes);
        kept[i] = (struct mapping){0};
    }
}

/* The smallest that has room and is not far too large; NULL: none. */
static struct mapping *kept_for(size_t bytes) {
    struct mapping *best = NULL;
    for (struct mapping *k = kept; k < kept + KEPT; k++)
        if (k->data && bytes <= k->bytes && k->bytes / 4 <= bytes && (!best || k->bytes < best->bytes))
            best = k;
    return best;
}

/* A free place; where there is none, that of the smallest. */
static struct mapping *kept_place(void) {
    struct mapping *place = kept;
    for (struct mapping *k = kept; k < kept + KEPT; k++)
        if (k->bytes < place->bytes) place = k;
    if (place->data) munmap(place->data, place->bytes);
    return place;
}

static struct mapping map_pages(size_t bytes) {
    drop_kept(); /* first: never more memory than without it */
    void *const data =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const struct mapping m = {or_die(data, bytes), bytes, NULL};
    ask_for_large_pages(m.data, bytes);
    return m;
}

/* Warm pages hold what they held before. */
static struct mapping mapping_of(size_t bytes, bool zeroed) {
    struct mapping *const warm = bytes < MAPPED_FROM ? NULL : kept_for(bytes);
    if (bytes < MAPPED_FROM) {
        void *const data = zeroed ? memory_zeroed(bytes, 1) : or_die(malloc(bytes), bytes);
        if (!zeroed) ask_for_large_pages(data, bytes);
        return (struct mapping){data, bytes, NULL};
    }
    if (!warm) return map_pages(bytes);
    const struct mapping m = *warm;
    *warm = (struct mapping){0};
    if (zeroed) set_bytes(m.data, 0, bytes);
    return m;
}

void mapping_renew(struct mapping *m, size_t bytes) {
    mapping_free(m);
    *m = mapping_of(bytes, true);
}

void mapping_new(struct mapping *m, size_t bytes) {
    mapping_free(m);
    *m = mapping_of(bytes, false);
}

void mapping_free(struct mapping *m) {
    if (m->lent)
        *m->lent = false;
    else if (m->bytes < MAPPED_FROM)
        free(m->data);
    else
        *kept_place() = *m;
    *m = (struct mapping){0};
}

/* ---- blocks ---- */

/* Before the data, which stays as aligned as the mapping is. */
union block {
    struct mapping mapping;
    char room[64];
};

static void *block_of(size_t count, size_t size, bool zeroed) {
    if (size && count > (SIZE_MAX - sizeof(union block)) / size) or_die(NULL, SIZE_MAX);
    const struct mapping m = mapping_of(sizeof(union block) + count * size, zeroed);
    ((union block *)m.data)->mapping = m;
    return (char *)m.data + sizeof(union block);
}

void *block_zeroed(size_t count, size_t size) { return block_of(count, size, true); }
void *block_new(size_t count, size_t size) { return block_of(count, size, false); }

void block_free(void *data) {
    if (!data) return;
    struct mapping m = ((union block *)((char *)data - sizeof(union block)))->mapping;
    mapping_free(&m);
}

/* ---- how much ---- */

size_t memory_peak(void) {
    enum { UNIT = 1024 }; /* of ru_maxrss */
    struct rusage self, children;
    if (getrusage(RUSAGE_SELF, &self) || getrusage(RUSAGE_CHILDREN, &children)) return 0;
    return (size_t)(self.ru_maxrss > children.ru_maxrss ? self.ru_maxrss : children.ru_maxrss) * UNIT;
}

/* ---- the heap ---- */

void memory_keep_warm(void) {
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
    mallopt(M_TRIM_THRESHOLD, 4 * MAPPED_FROM);
}
