/* bench_shape - what is timed: one line of text, the sizes it stands for, and what the work is at
 * least. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_BENCH_SHAPE_H
#define HARNESS_BENCH_SHAPE_H

#include <stdint.h>

#include "kernels/device/device.h"
#include "layer/choices.h"

/* Prefill: causal, every key's query is there. Decode: `queries` new tokens of each sequence, the
 * last keys. Experts: gate_up, SiLU and down of rows sorted by expert. Dense: one product. All
 * bf16. */
enum bench_family { BENCH_PREFILL, BENCH_DECODE, BENCH_EXPERTS, BENCH_DENSE, BENCH_FAMILIES };
const char *bench_family_name(enum bench_family family);
static inline bool bench_is_attention(enum bench_family f) { return f == BENCH_PREFILL || f == BENCH_DECODE; }

struct bench_shape {
    enum bench_family family;
    int64_t heads, kv, dim, seqs, keys, queries; /* attention; keys and queries of a sequence */
    int64_t tokens, experts, top, hidden, width; /* experts; tokens is of the layer, top of them each */
    int64_t rows, cols, inner;                   /* dense */
};

enum { BENCH_LINE = 160 };
/* "decode:seqs=64,keys=4096": FAMILY:key=value,...; sizes left out are those of Param2-17B. */
struct status bench_shape_parse(const char *line, struct bench_shape *out);
/* The one line that parses to it: without the sizes that are as they would be anyway. */
void bench_shape_print(const struct bench_shape *shape, char line[BENCH_LINE]);
/* The family and every size. */
bool bench_shape_same(const struct bench_shape *a, const struct bench_shape *b);
/* "heads (32), kv (8), ..., keys": what a line of the family may name; in brackets what it is
 * otherwise. */
void bench_family_describe(enum bench_family family, char *text, size_t size);

/* Shapes of the default run: the i-th of a device; false: there are fewer. */
bool bench_shape_default(enum device_kind device, int i, struct bench_shape *out);
/* The product whose rate is the device's dense rate: a large square one. */
struct bench_shape bench_dense_gauge(enum device_kind device);

/* Rows of every expert: each (token, choice) goes to one at random, the same in every run.
 * offsets [experts + 1] */
void bench_offsets(const struct bench_shape *shape, int32_t *offsets);

/* What has to be done at least: operands read once, results written once (between gate_up and down
 * nothing is), weights of experts that have rows; multiplications and additions of keys that are
 * seen. */
struct bench_work {
    double bytes, flops;
};
struct bench_work bench_work_of(const struct bench_shape *shape);

#endif
