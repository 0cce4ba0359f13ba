/* bench_calls - the operands of a shape on a device, and the kernels that can do it: one, or
 * several that run one after another. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_BENCH_CALLS_H
#define HARNESS_BENCH_CALLS_H

#include "harness/bench_shape.h"
#include "kernels/kernels.h"

enum bench_slot {
    BENCH_IN,
    BENCH_OUT,
    BENCH_W1, /* keys, gate_up */
    BENCH_W2, /* values, down */
    BENCH_GATE_UP,
    BENCH_ACT,
    BENCH_INDEX,
    BENCH_SCRATCH,
    BENCH_SLOTS
};

struct bench_operands {
    struct bench_shape shape;
    struct device *device;
    struct device_buffer buffer[BENCH_SLOTS]; /* warm from shape to shape */
};
/* Operands filled with random values, all else poisoned. `operands` is {0}, or of the shape before.
 */
struct status bench_operands_lay(struct bench_operands *operands, struct device *device,
                                 const struct bench_shape *shape);
void bench_operands_free(struct bench_operands *operands);

enum { BENCH_STEPS = 3, BENCH_CHAIN_NAME = 120 };
/* Each step's call twice: with pointers of the device, and of the host's copies of the same
 * buffers. */
struct bench_chain {
    char name[BENCH_CHAIN_NAME]; /* "gated_gemm_wgmma+grouped_gemm_wgmma" */
    int n;
    const struct kernel *kernel[BENCH_STEPS];
    enum bench_slot out[BENCH_STEPS]; /* where each step stores */
    struct call call[BENCH_STEPS], seen[BENCH_STEPS];
    char refused[200]; /* why one of them is not given its call; else empty */
};
/* The i-th way to do the shape; false: there are fewer. wanted [n_wanted]: only ways with one of
 * these in them, which need not stand in the registry; none: every way. */
bool bench_chain_at(const struct bench_operands *operands, const struct kernel *const *wanted, int n_wanted,
                    int i, struct bench_chain *out);
/* Every output poisoned, and scratch of the very size that the chain asks for. */
struct status bench_chain_prepare(struct bench_operands *operands, const struct bench_chain *chain);
size_t bench_chain_scratch(const struct bench_chain *chain); /* bytes */
/* Scratch for several chains that are launched by turns: of the largest. */
struct status bench_lay_scratch(struct bench_operands *operands, size_t bytes);
/* Queued. Never waits. */
struct status bench_chain_launch(struct bench_operands *operands, const struct bench_chain *chain);

#endif
