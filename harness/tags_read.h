/* tags_read - one output of a failing stage as the readers of fill=tags see it: a reader an op, in
 * tags.c where values are moved, in tags_products.c where they are added up. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_TAGS_READ_H
#define HARNESS_TAGS_READ_H

#include "harness/answer.h"
#include "harness/origin.h"

struct reading {
    const struct placed *at;
    const struct outcome *outcome;
    enum tensor_id id;
    enum dtype dtype;
    int64_t count;
    const double *y, *got; /* [count] what is right, what was stored */
    char *text;            /* stays empty where nothing can be said */
    size_t size;
};
bool reading_same(const struct reading *r, int64_t i); /* element i is right */
bool reading_is_poison(const struct reading *r, double got);

void read_moved(struct reading *r);
void read_product(struct reading *r);
void read_sum(struct reading *r);

#endif
