/* registry - every kernel that can be put under test, as one table. Rows of an op stand best first:
 * kernel_pick takes the first that runs on the device and supports the call; on the host, rows that
 * are explicit_on_host must be named. A new kernel is one .cu file and one row here; a row whose
 * launch entry is NULL is not on that device, or not in this build (no nvcc). */
/* SPDX-License-Identifier: MIT */
#include "kernels/kernels.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* What a kernel's .cu file exports. */
#define DECLARE_KERNEL(name)                                                                                 \
    const char *name##_host(const struct call *call, void *scratch, void *stream);                           \
    const char *name##_cuda(const struct call *call, void *scratch, void *stream);                           \
    const char *name##_unsupported(const struct call *call);                                                 \
    struct contract name##_contract(const struct call *call)

#if SHARDCHECK_CUDA
#define ON_CUDA(name) name##_cuda
#else
#define ON_CUDA(name) NULL
#endif
#define BOTH(name)                                                                                           \
    { [DEVICE_HOST] = name##_host, [DEVICE_CUDA] = ON_CUDA(name) }
#define CUDA_ONLY(name)                                                                                      \
    { [DEVICE_CUDA] = ON_CUDA(name) }
static_assert(DEVICE_COUNT == 2, "BOTH and CUDA_ONLY know of two devices");

/* Of one that works in tiles. */
#define DECLARE_TILED(name)                                                                                  \
    DECLARE_KERNEL(name);                                                                                    \
    struct tile_sizes name##_tiles(const struct call *call)

/* A row's name is the prefix of what its file exports. */
#define KERNEL(name_, on)                                                                                    \
    .name = #name_, .launch = on(name_), .unsupported = name_##_unsupported, .contract = name_##_contract
#define TILED(name_, on) KERNEL(name_, on), .tiles = name_##_tiles

DECLARE_TILED(rms_norm);
DECLARE_KERNEL(qk_norm);
DECLARE_KERNEL(linear_cublas);
DECLARE_TILED(grouped_gemm_wgmma);
DECLARE_TILED(linear_simt);
DECLARE_KERNEL(rope);
DECLARE_KERNEL(kv_write);
DECLARE_TILED(attention_decode);
size_t attention_decode_scratch_bytes(const struct call *call);
DECLARE_TILED(attention_decode_mma);
size_t attention_decode_mma_scratch_bytes(const struct call *call);
DECLARE_TILED(attention_mma);
DECLARE_TILED(attention_wgmma);
DECLARE_TILED(attention_simt);
DECLARE_TILED(route_simt);
DECLARE_TILED(permute_simt);
DECLARE_TILED(silu_mul);
DECLARE_TILED(gated_gemm_wgmma);
DECLARE_TILED(combine_simt);
DECLARE_KERNEL(residual);

const struct kernel kernel_table[] = {
    {TILED(rms_norm, BOTH), .op = OP_NORM, .describes = "RMSNorm of rows, a warp per row",
     .shard_invariant = true},
    {KERNEL(qk_norm, BOTH), .op = OP_QK_NORM,
     .describes = "RMSNorm of every head of q and k, a thread per head", .shard_invariant = true},
    {KERNEL(linear_cublas, CUDA_ONLY), .op = OP_LINEAR,
     .describes = "dense product by cuBLAS, fp32 accumulation", .handles = NEED_BIAS,
     .shard_invariant = false}, /* the algorithm follows the sizes */
    {TILED(grouped_gemm_wgmma, BOTH), .op = OP_LINEAR, .describes = "grouped product in bf16, TMA and wgmma",
     .handles = NEED_GROUPS, .shard_invariant = true, .compute = 90, .explicit_on_host = true},
    {TILED(linear_simt, BOTH), .op = OP_LINEAR,
     .describes = "grouped product, one fp32 FMA chain per element", .handles = NEED_BIAS | NEED_GROUPS,
     .shard_invariant = true},
    {KERNEL(rope, BOTH), .op = OP_ROPE, .describes = "rotary embedding from a table",
     .handles = NEED_PARTIAL_ROPE | NEED_PAIRED_ROPE, .shard_invariant = true},
    {KERNEL(kv_write, BOTH), .op = OP_KV_WRITE, .describes = "new keys and values into the paged cache",
     .shard_invariant = true},
    {TILED(attention_decode_mma, BOTH), .op = OP_ATTENTION,
     .describes = "few new tokens per sequence over the paged cache, bf16 mma.sync, heads of 64, 128, 256",
     .handles = NEED_UNMASKED, .scratch_bytes = attention_decode_mma_scratch_bytes, .shard_invariant = true,
     .explicit_on_host = true},
    {TILED(attention_decode, BOTH), .op = OP_ATTENTION,
     .describes = "one new token per sequence over the paged cache, keys cut into slices",
     .handles = NEED_UNMASKED, .scratch_bytes = attention_decode_scratch_bytes, .shard_invariant = true},
    {TILED(attention_wgmma, BOTH), .op = OP_ATTENTION,
     .describes = "online-softmax attention over the paged cache, TMA and wgmma, heads of 64, 128, 256",
     .handles = NEED_UNMASKED, .shard_invariant = true, .compute = 90, .explicit_on_host = true},
    {TILED(attention_mma, BOTH), .op = OP_ATTENTION,
     .describes = "online-softmax attention over the paged cache, bf16 mma.sync, heads of 64, 128, 256",
     .handles = NEED_UNMASKED, .shard_invariant = true, .explicit_on_host = true},
    {TILED(attention_simt, BOTH), .op = OP_ATTENTION,
     .describes = "online-softmax attention over the paged cache, any number of queries",
     .handles = NEED_UNMASKED, .shard_invariant = true},
    {TILED(route_simt, BOTH), .op = OP_ROUTE,
     .describes = "scores, group limit, top-k and gates, a warp per token",
     .handles = NEED_SIGMOID | NEED_SELECT_BIAS | NEED_GROUP_LIMIT | NEED_GROUP_MAX | NEED_GROUP_ZERO |
                NEED_RAW_GATES | NEED_SCALED_GATES,
     .shard_invariant = true},
    {TILED(permute_simt, BOTH), .op = OP_PERMUTE,
     .describes = "stable counting sort of the tokens by local expert", .handles = NEED_ABSENT_EXPERTS,
     .shard_invariant = true},
    {TILED(silu_mul, BOTH), .op = OP_ACTIVATION, .describes = "silu(gate) * up", .shard_invariant = true},
    {TILED(gated_gemm_wgmma, BOTH), .op = OP_GATED_LINEAR,
     .describes = "grouped product of gate and up with silu(gate) * up in registers, TMA and wgmma",
     .handles = NEED_GROUPS, .shard_invariant = true, .compute = 90, .explicit_on_host = true},
    {TILED(combine_simt, BOTH), .op = OP_COMBINE,
     .describes = "gated sum of the experts' rows back into their tokens", .handles = NEED_ABSENT_EXPERTS,
     .shard_invariant = true},
    {KERNEL(residual, BOTH), .op = OP_RESIDUAL, .describes = "x + add", .shard_invariant = true},
    {.name = NULL},
};

const char *extent_name(enum extent extent) {
    static const char *const names[EXTENT_COUNT] = {
        [EXTENT_QUERIES] = "queries", [EXTENT_KEYS] = "keys",       [EXTENT_HEADS] = "heads",
        [EXTENT_ROWS] = "rows",       [EXTENT_COLS] = "cols",       [EXTENT_INNER] = "inner",
        [EXTENT_WIDTH] = "width",     [EXTENT_EXPERTS] = "experts", [EXTENT_SLOTS] = "slots"};
    return names[extent];
}

const struct kernel *kernel_by_name(const char *name) {
    for (const struct kernel *k = kernel_table; k->name; k++)
        if (!strcmp(k->name, name)) return k;
    for (const struct kernel *k = more_kernels; k && k->name; k++)
        if (!strcmp(k->name, name)) return k;
    return NULL;
}

const char *kernel_refuses(const struct kernel *k, const struct call *call) {
    static _Thread_local char text[200];
    const uint64_t unknown = call_needs(call) & ~k->handles;
    if (!unknown) return k->unsupported ? k->unsupported(call) : NULL;
    const int used = snprintf(text, sizeof text, "does not handle ");
    needs_describe(unknown, call->op, text + used, sizeof text - (size_t)used);
    return text;
}

const struct kernel *kernel_pick(enum op op, enum device_kind device, const struct call *call,
                                 const char **why) {
    static _Thread_local char text[200];
    snprintf(text, sizeof text, "no %s kernel in this build runs there", op_name(op));
    for (const struct kernel *k = kernel_table; k->name; k++) {
        if (k->op != op || !k->launch[device] || (k->explicit_on_host && device == DEVICE_HOST)) continue;
        if (k->compute && device == DEVICE_CUDA && k->compute != device_compute(device)) continue;
        const char *problem = call ? kernel_refuses(k, call) : NULL;
        if (!problem) return k;
        snprintf(text, sizeof text, "%s %s", k->name, problem);
    }
    if (why) *why = text;
    return NULL;
}
