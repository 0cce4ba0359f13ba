/* coverage - what a run has shown of the kernels and of the cut: facts about single calls, counted
 * while cases run. A fact is a place where other code runs, or where a mistake of the past showed; a
 * green run in which one is not met says nothing of it. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_COVERAGE_H
#define HARNESS_COVERAGE_H

#include "harness/seat.h"
#include "reports/result.h"

/* One call, as it was made. Views hold what was read and stored. */
struct sighting {
    const struct placed *at;
    const struct call *call;
    const struct kernel *kernel;    /* NULL: none of the table: a view, the world */
    const struct edge_result *edge; /* what became of it */
};

struct fact {
    const char *name, *describes;
    enum op op; /* of the calls that are looked at */
    bool (*met)(const struct sighting *s);
};
extern const struct fact fact_table[]; /* coverage_facts.c; ended by {0} */

/* All facts, by number: the table's, then those that the kernels' tiles make: of every size that a
 * kernel cuts (struct tile_sizes) one step below the end of a tile, at it and above it, and several
 * tiles; of keys more than LONG_KEYS. */
enum { LONG_KEYS = 4096 };
int coverage_count(void); /* at most MAX_FACTS */
void coverage_name(int fact, char *text, size_t size);
const char *coverage_describe(int fact);
enum op coverage_op(int fact);
bool coverage_applies(int fact, enum device_kind device); /* its kernel runs there */

/* Adds what the call meets, once it is judged. */
void coverage_see(struct fact_set *met, const struct placed *at, const struct outcome *outcome,
                  const struct edge_result *edge);

#endif
