/* pattern - which indices of an axis are wrong, in words: the simplest description that is true of
 * every index that was judged, of the wrong ones and of the right ones. Integers only. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_PATTERN_H
#define HARNESS_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATTERN_INDICES = 16384 }; /* of a larger axis only the extent is known */

/* The indices 0 to size - 1 of one axis. */
struct index_set {
    int64_t size;
    bool any;                                                           /* something is wrong */
    int64_t low, high;                                                  /* the extent of what is */
    uint64_t judged[PATTERN_INDICES / 64], wrong[PATTERN_INDICES / 64]; /* a bit an index */
};
void index_judge(struct index_set *s, int64_t first, int64_t count);
void index_blame(struct index_set *s, int64_t index); /* wrong, and so judged */
bool index_is_wrong(const struct index_set *s, int64_t index);
int64_t index_wrong_in(const struct index_set *s, int64_t first, int64_t count); /* how many are */

/* A way to number the indices. What is wrong can be told by it only if indices with one number are
 * wrong together. */
struct pattern_period {
    int64_t size;
    const char *unit; /* "group", "page", "rank" */
};
struct pattern_view {
    const char *before, *label, *letter; /* "rows of ", "expert", "e"; before: may be NULL */
    const int32_t *number;               /* [size]; NULL: the index itself */
    const char *unit; /* the numbers count from the first of every such unit, or ...; NULL: they do not */
    bool from_last;   /* ... from its last, back */
    struct pattern_period period[4]; /* sizes that mean something; the others are 0 */
};
/* From the simplest on. None: no description but how many there are. */
enum pattern_kind {
    PATTERN_ALL,
    PATTERN_ONE,
    PATTERN_RANGE,
    PATTERN_ALL_BUT_ONE,
    PATTERN_PERIOD,
    PATTERN_RUNS,
    PATTERN_NONE
};
/* In the view [n_views] that says it most simply, the earlier one of two: "heads h % 8 >= 4 (16 of
 * 32)", "rows of expert 3", "every token but the first of a sequence". All that was judged: empty. */
enum pattern_kind pattern_describe(const struct index_set *s, const struct pattern_view *view, int n_views,
                                   char *text, size_t size);

#endif
