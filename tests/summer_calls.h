/* summer_calls - linear and gated calls of many shapes whose operands lie in larger arrays: gaps between
 * rows, spans that end early, groups without rows and rows without a group. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SUMMER_CALLS_H
#define TESTS_SUMMER_CALLS_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference/reference.h"
#include "reference/replay.h"
#include "reference/summer.h"

struct summer_shape {
    const char *name;
    int64_t rows, cols, inner, groups, slice;
    enum dtype x, w;
    bool gated, bias;
    bool whole;        /* small whole numbers: every sum is exact */
    int64_t gap;       /* elements between rows of x, of w and between groups */
    int64_t lost;      /* so many elements at either end of x and of w are outside the span */
    int32_t offset[8]; /* of several groups */
};
static const struct summer_shape summer_shapes[] = {
    {"one element", 1, 1, 1, 1, .x = DTYPE_F32, .w = DTYPE_F32},
    {"dense bf16", 37, 70, 65, 1, .x = DTYPE_BF16, .w = DTYPE_BF16, .bias = true},
    {"whole tiles, fp16", 64, 128, 64, 1, .x = DTYPE_F16, .w = DTYPE_F16},
    {"double", 33, 5, 100, 1, .x = DTYPE_F64, .w = DTYPE_F64, .gap = 3},
    {"mixed", 5, 65, 31, 1, .x = DTYPE_F32, .w = DTYPE_BF16, .gap = 1, .lost = 40},
    {"slices", 34, 66, 129, 1, 48, .x = DTYPE_BF16, .w = DTYPE_BF16},
    {"slices of one", 3, 4, 33, 1, 1, .x = DTYPE_BF16, .w = DTYPE_F32},
    {"groups", 70, 67, 40, 5, .x = DTYPE_BF16, .w = DTYPE_BF16, .offset = {0, 1, 1, 36, 68, 70}, .gap = 2},
    {"rows of nobody", 20, 9, 33, 3, .x = DTYPE_F16, .w = DTYPE_F16, .offset = {2, 7, 7, 18}},
    {"spans and slices", 66, 66, 50, 3, 32, .x = DTYPE_F32, .w = DTYPE_F32, .bias = true,
     .offset = {0, 33, 33, 66}, .gap = 5, .lost = 130},
    {"gated", 36, 35, 70, 1, .x = DTYPE_BF16, .w = DTYPE_BF16, .gated = true, .gap = 1},
    {"gated groups", 68, 33, 66, 4, 32, .x = DTYPE_BF16, .w = DTYPE_BF16, .gated = true,
     .offset = {0, 3, 3, 40, 68}, .lost = 70},
    {"whole numbers", 61, 70, 65, 3, .x = DTYPE_BF16, .w = DTYPE_BF16, .bias = true, .whole = true,
     .offset = {0, 5, 44, 61}},
};
enum { N_SUMMER_SHAPES = sizeof summer_shapes / sizeof *summer_shapes };

struct summer_call {
    struct call call;
    struct contract contract;
    void *owned[3];
};

static inline void *summer_values(enum dtype d, int64_t n, bool whole) {
    char *const data = calloc((size_t)n + 1, dtype_bytes(d));
    for (int64_t i = 0; i < n; i++) { /* what is outside the span is a number, too */
        const int large = i % 7 == 3 ? 40 : 1;
        const double value = (drand48() * 2 - 1) * large;
        dtype_store(data, d, i, whole ? round(3 * value / large) : value);
    }
    return data;
}

static inline struct summer_call summer_call_make(const struct summer_shape *s) {
    struct summer_call c = {.call.op = s->gated ? OP_GATED_LINEAR : OP_LINEAR};
    const int64_t row = s->inner + s->gap, halves = s->gated ? 2 : 1, group = halves * s->cols * row + s->gap;
    const int64_t n_x = s->rows * row, n_w = s->groups * group;
    c.owned[0] = summer_values(s->x, n_x, s->whole);
    c.owned[1] = summer_values(s->w, n_w, s->whole);
    c.owned[2] = summer_values(s->w, s->cols, s->whole);
    const struct view x = {c.owned[0], s->x, {row}, s->lost, n_x - s->lost};
    const struct view w = {c.owned[1], s->w, {group, row}, s->lost, n_w - s->lost};
    const struct view offsets = {
        s->groups > 1 ? (void *)(uintptr_t)s->offset : NULL, DTYPE_I32, {1}, 0, s->groups + 1};
    c.contract = contract_exact(c.call.op);
    if (s->gated) {
        c.call.u.gated_linear = (struct gated_linear_args){.x = x,
                                                           .w = w,
                                                           .offsets = offsets,
                                                           .n_rows = s->rows,
                                                           .width = s->cols,
                                                           .n_inner = s->inner,
                                                           .n_groups = s->groups};
        c.call.u.gated_linear.w.stride[1] = s->cols * row;
        c.call.u.gated_linear.w.stride[2] = row;
        c.contract.u.gated_linear.acc.slice = s->slice;
    } else {
        c.call.u.linear = (struct linear_args){.x = x,
                                               .w = w,
                                               .offsets = offsets,
                                               .n_rows = s->rows,
                                               .n_cols = s->cols,
                                               .n_inner = s->inner,
                                               .n_groups = s->groups};
        if (s->bias) c.call.u.linear.bias = (struct view){c.owned[2], s->w, {1}, 0, s->cols};
        c.contract.u.linear.acc.slice = s->slice;
    }
    return c;
}

static inline void summer_call_free(struct summer_call *c) {
    for (int i = 0; i < 3; i++) free(c->owned[i]);
}

/* y, then E, then S1 of all rows but the first `skip`. */
static inline double *summer_answer(const struct summer_call *c, int64_t skip, int64_t *n) {
    const int64_t rows = ref_n_rows(&c->call) - skip;
    *n = rows * ref_row_size(&c->call, 0);
    double *const all = calloc((size_t)*n * 3, sizeof *all);
    struct ref_out out[MAX_REF_OUT] = {{all, all + *n, all + 2 * *n}};
    ref_compute(&c->call, &c->contract, NULL, skip, skip + rows, out);
    return all;
}

/* Whoever is registered, the answer has the bits of the loops of the reference: of all rows, and of those
 * from the second and the third on. */
static inline void expect_same_answers(struct ref_summer *summer, const struct summer_call *c,
                                       const char *name) {
    for (int64_t skip = 0; skip < 3 && skip < ref_n_rows(&c->call); skip++) {
        int64_t n;
        ref_use_summer(NULL);
        double *const loops = summer_answer(c, skip, &n);
        ref_use_summer(summer);
        double *const theirs = summer_answer(c, skip, &n);
        ref_use_summer(NULL);
        for (int64_t i = 0; i < 3 * n; i++)
            cr_assert(!memcmp(&loops[i], &theirs[i], sizeof *loops) || (isnan(loops[i]) && isnan(theirs[i])),
                      "%s: %s of element %lld is %a, not %a", name,
                      i < n       ? "y"
                      : i < 2 * n ? "E"
                                  : "S1",
                      (long long)(i % n), theirs[i], loops[i]);
        free(loops);
        free(theirs);
    }
}

/* Under a contract with an order: the same of what it gives, y, then e, of one panel in `each`. */
static inline void expect_same_replays(struct ref_summer *summer, const struct summer_shape *shape,
                                       struct accumulator acc, int64_t each) {
    struct summer_call c = summer_call_make(shape);
    acc.in_order = true;
    acc.slice = shape->slice;
    acc.splits = shape->slice ? (int)((shape->inner + shape->slice - 1) / shape->slice) : 1;
    *(shape->gated ? &c.contract.u.gated_linear.acc : &c.contract.u.linear.acc) = acc;
    const int64_t rows = ref_n_rows(&c.call), n = rows * ref_row_size(&c.call, 0);
    double *const loops = calloc((size_t)n * 4, sizeof *loops), *const theirs = loops + 2 * n;
    cr_assert(ref_replays(&c.call, &c.contract), "%s", shape->name);
    ref_use_summer(NULL);
    ref_replay(&c.call, &c.contract, 0, rows, each, loops, loops + n);
    ref_use_summer(summer);
    ref_replay(&c.call, &c.contract, 0, rows, each, theirs, theirs + n);
    ref_use_summer(NULL);
    for (int64_t i = 0; i < 2 * n; i++)
        cr_assert(!memcmp(&loops[i], &theirs[i], sizeof *loops), "%s: %s of element %lld is %a, not %a",
                  shape->name, i < n ? "y" : "e", (long long)(i % n), theirs[i], loops[i]);
    free(loops);
    summer_call_free(&c);
}

static inline void expect_answers_of_the_loops(struct ref_summer *summer, const struct summer_shape *shape) {
    struct summer_call c = summer_call_make(shape);
    expect_same_answers(summer, &c, shape->name);
    summer_call_free(&c);
}

#endif
