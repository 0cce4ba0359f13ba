/* kernels - the registry of implementations under test. A kernel is one .cu file (built by g++ for
 * the host device and by nvcc for cuda from the same source) and one row in registry.c. Launchers
 * take the very call the reference takes, with device pointers. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include "kernels/device/device.h"
#include "layer/contract.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Queue the op on the device. NULL, or one line that says why it could not be launched
 * (static or thread-local text). `scratch` has scratch_bytes(call) bytes, poisoned.
 * Never synchronises. */
typedef const char *(*launch_fn)(const struct call *call, void *scratch, void *stream);

/* What a kernel may cut into tiles; of calls with several groups or sequences, each one's. */
enum extent {
    EXTENT_QUERIES, /* attention: of a sequence */
    EXTENT_KEYS,    /* attention: of a sequence */
    EXTENT_HEADS,   /* attention: query heads of a kv head */
    EXTENT_ROWS,    /* linear, gated_linear: of a group; norm: tokens */
    EXTENT_COLS,    /* linear, gated_linear: of out */
    EXTENT_INNER,   /* linear, gated_linear: terms of a sum */
    EXTENT_WIDTH,   /* norm, permute, activation, combine: of a row */
    EXTENT_EXPERTS, /* route */
    EXTENT_SLOTS,   /* permute: (token, choice) */
    EXTENT_COUNT
};
const char *extent_name(enum extent extent);
/* How the kernel cuts this call. Where a tile ends, other code runs: sizes on both sides of that are
 * what a test has to show (harness/coverage.h). */
struct tile_sizes {
    struct {
        int size; /* 0: it does not cut that */
        int step; /* the kernel takes multiples of this only */
    } of[EXTENT_COUNT];
};

struct kernel {
    const char *name;
    enum op op;
    const char *describes;          /* one line for `list kernels` */
    launch_fn launch[DEVICE_COUNT]; /* NULL: not on that device (or not in this build) */
    uint64_t handles;               /* needs (layer/ops.h); calls with others are kept from it */
    /* NULL, or why not with these sizes, dtypes and strides; a NULL function takes any. */
    const char *(*unsupported)(const struct call *call);
    struct contract (*contract)(const struct call *call);
    struct tile_sizes (*tiles)(const struct call *call); /* a call that it supports; NULL: none */
    size_t (*scratch_bytes)(const struct call *call);    /* NULL: none */
    bool shard_invariant;  /* a head, column, row has the same bits whatever the call holds */
    int compute;           /* the one compute capability of cuda it runs on: 90 is 9.0; 0: any */
    bool explicit_on_host; /* slow there (emulated instructions): only when named with --kernel */
};

extern const struct kernel kernel_table[]; /* ended by a row without a name */
/* Rows that a program may link in besides; found by name only. NULL: it has none. */
extern const struct kernel more_kernels[] __attribute__((weak));
const struct kernel *kernel_by_name(const char *name);
/* NULL, or why the kernel is not given the call: a need that it does not handle, or
 * what `unsupported` says. */
const char *kernel_refuses(const struct kernel *kernel, const struct call *call);
/* The first row (best first) that runs the op on the device, without having to be named there, and
 * supports the call (NULL call: any). NULL: none; then *why says so for the last candidate. */
const struct kernel *kernel_pick(enum op op, enum device_kind device, const struct call *call,
                                 const char **why);

#ifdef __cplusplus
}
#endif
#endif
