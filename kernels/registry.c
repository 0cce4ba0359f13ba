/* registry - every kernel that can be put under test, as one table. Rows of an op stand best first:
 * kernel_pick takes the first that runs on the device and supports the call; on the host, rows that
 * are explicit_on_host must be named. A new kernel is one .cu file and one row here; a row whose
 * launch entry is NULL is not on that device, or not in this build (no nvcc). */
/* SPDX-License-Identifier: MIT */
#include "kernels/kernels.h"

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

DECLARE_KERNEL(rms_norm);
DECLARE_KERNEL(qk_norm);
DECLARE_KERNEL(linear_cublas);
DECLARE_KERNEL(grouped_gemm_wgmma);
DECLARE_KERNEL(linear_simt);
DECLARE_KERNEL(rope);
DECLARE_KERNEL(kv_write);
DECLARE_KERNEL(attention_decode);
size_t attention_decode_scratch_bytes(const struct call *call);
DECLARE_KERNEL(attention_mma);
DECLARE_KERNEL(attention_wgmma);
DECLARE_KERNEL(attention_simt);
DECLARE_KERNEL(route_simt);
DECLARE_KERNEL(permute_simt);
DECLARE_KERNEL(silu_mul);
DECLARE_KERNEL(gated_gemm_wgmma);
DECLARE_KERNEL(combine_simt);
DECLARE_KERNEL(residual);

const struct kernel kernel_table[] = {
    {.name = "rms_norm",
     .op = OP_NORM,
     .describes = "RMSNorm of rows, a warp per row",
     .launch = BOTH(rms_norm),
     .unsupported = rms_norm_unsupported,
     .contract = rms_norm_contract,
     .shard_invariant = true},
    {.name = "qk_norm",
     .op = OP_QK_NORM,
     .describes = "RMSNorm of every head of q and k, a thread per head",
     .launch = BOTH(qk_norm),
     .unsupported = qk_norm_unsupported,
     .contract = qk_norm_contract,
     .shard_invariant = true},
    {.name = "linear_cublas",
     .op = OP_LINEAR,
     .describes = "dense product by cuBLAS, fp32 accumulation",
     .launch = CUDA_ONLY(linear_cublas),
     .handles = NEED_BIAS,
     .unsupported = linear_cublas_unsupported,
     .contract = linear_cublas_contract,
     .shard_invariant = false}, /* the algorithm follows the sizes */
    {.name = "grouped_gemm_wgmma",
     .op = OP_LINEAR,
     .describes = "grouped product in bf16, TMA and wgmma",
     .launch = BOTH(grouped_gemm_wgmma),
     .handles = NEED_GROUPS,
     .unsupported = grouped_gemm_wgmma_unsupported,
     .contract = grouped_gemm_wgmma_contract,
     .shard_invariant = true,
     .compute = 90,
     .explicit_on_host = true},
    {.name = "linear_simt",
     .op = OP_LINEAR,
     .describes = "grouped product, one fp32 FMA chain per element",
     .launch = BOTH(linear_simt),
     .handles = NEED_BIAS | NEED_GROUPS,
     .unsupported = linear_simt_unsupported,
     .contract = linear_simt_contract,
     .shard_invariant = true},
    {.name = "rope",
     .op = OP_ROPE,
     .describes = "rotary embedding from a table",
     .launch = BOTH(rope),
     .handles = NEED_PARTIAL_ROPE | NEED_PAIRED_ROPE,
     .unsupported = rope_unsupported,
     .contract = rope_contract,
     .shard_invariant = true},
    {.name = "kv_write",
     .op = OP_KV_WRITE,
     .describes = "new keys and values into the paged cache",
     .launch = BOTH(kv_write),
     .unsupported = kv_write_unsupported,
     .contract = kv_write_contract,
     .shard_invariant = true},
    {.name = "attention_decode",
     .op = OP_ATTENTION,
     .describes = "one new token per sequence over the paged cache, keys cut into slices",
     .launch = BOTH(attention_decode),
     .handles = NEED_UNMASKED,
     .unsupported = attention_decode_unsupported,
     .contract = attention_decode_contract,
     .scratch_bytes = attention_decode_scratch_bytes,
     .shard_invariant = true},
    {.name = "attention_wgmma",
     .op = OP_ATTENTION,
     .describes = "online-softmax attention over the paged cache, TMA and wgmma, heads of 64, 128, 256",
     .launch = BOTH(attention_wgmma),
     .handles = NEED_UNMASKED,
     .unsupported = attention_wgmma_unsupported,
     .contract = attention_wgmma_contract,
     .shard_invariant = true,
     .compute = 90,
     .explicit_on_host = true},
    {.name = "attention_mma",
     .op = OP_ATTENTION,
     .describes = "online-softmax attention over the paged cache, bf16 mma.sync, heads of 64, 128, 256",
     .launch = BOTH(attention_mma),
     .handles = NEED_UNMASKED,
     .unsupported = attention_mma_unsupported,
     .contract = attention_mma_contract,
     .shard_invariant = true,
     .explicit_on_host = true},
    {.name = "attention_simt",
     .op = OP_ATTENTION,
     .describes = "online-softmax attention over the paged cache, any number of queries",
     .launch = BOTH(attention_simt),
     .handles = NEED_UNMASKED,
     .unsupported = attention_simt_unsupported,
     .contract = attention_simt_contract,
     .shard_invariant = true},
    {.name = "route_simt",
     .op = OP_ROUTE,
     .describes = "scores, group limit, top-k and gates, a warp per token",
     .launch = BOTH(route_simt),
     .handles = NEED_SIGMOID | NEED_SELECT_BIAS | NEED_GROUP_LIMIT | NEED_GROUP_MAX | NEED_RAW_GATES |
                NEED_SCALED_GATES,
     .unsupported = route_simt_unsupported,
     .contract = route_simt_contract,
     .shard_invariant = true},
    {.name = "permute_simt",
     .op = OP_PERMUTE,
     .describes = "stable counting sort of the tokens by local expert",
     .launch = BOTH(permute_simt),
     .handles = NEED_ABSENT_EXPERTS,
     .unsupported = permute_simt_unsupported,
     .contract = permute_simt_contract,
     .shard_invariant = true},
    {.name = "silu_mul",
     .op = OP_ACTIVATION,
     .describes = "silu(gate) * up",
     .launch = BOTH(silu_mul),
     .unsupported = silu_mul_unsupported,
     .contract = silu_mul_contract,
     .shard_invariant = true},
    {.name = "gated_gemm_wgmma",
     .op = OP_GATED_LINEAR,
     .describes = "grouped product of gate and up with silu(gate) * up in registers, TMA and wgmma",
     .launch = BOTH(gated_gemm_wgmma),
     .handles = NEED_GROUPS,
     .unsupported = gated_gemm_wgmma_unsupported,
     .contract = gated_gemm_wgmma_contract,
     .shard_invariant = true,
     .compute = 90,
     .explicit_on_host = true},
    {.name = "combine_simt",
     .op = OP_COMBINE,
     .describes = "gated sum of the experts' rows back into their tokens",
     .launch = BOTH(combine_simt),
     .handles = NEED_ABSENT_EXPERTS,
     .unsupported = combine_simt_unsupported,
     .contract = combine_simt_contract,
     .shard_invariant = true},
    {.name = "residual",
     .op = OP_RESIDUAL,
     .describes = "x + add",
     .launch = BOTH(residual),
     .unsupported = residual_unsupported,
     .contract = residual_contract,
     .shard_invariant = true},
    {.name = NULL},
};

const struct kernel *kernel_by_name(const char *name) {
    for (const struct kernel *k = kernel_table; k->name; k++)
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
