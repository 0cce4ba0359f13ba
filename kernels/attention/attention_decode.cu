/* attention_decode - attention of one new token per sequence over a long paged cache, the keys cut into slices.
 *
 * decode_slice: each slice of keys by itself.
 * Shapes  q [T, H, D]; k_cache, v_cache [pages, page_size, G, D]; page_table [B, max_pages], query_start [B + 1],
 *         kv_len [B] int32 -> partial_out [B, H, N, D] fp32, partial_lse [B, H, N] fp32, N slices.
 * Grid    (N, G ceil(H / G / 4), B): a block owns one slice of one sequence and up to 4 query heads of one kv head.
 * Block   64 threads, first a key each (scores of the 4 heads), then 16 threads a head, an octet of the output each
 *         (two when D > 128).
 * Tile    64 keys; scores and weights [64][4] in shared memory, k and v straight from the cache.
 * Traffic k and v once per 4 query heads of a group; about 2 S G D elements per sequence: memory bound.
 * Numerics fp32. Scores: one FMA chain over d, then times scale. Online softmax, one step a tile, denominators and
 *         outputs in key order. The length of a slice depends on max_kv alone - never on heads or sequences, so that
 *         the bits of a head do not depend on the shard. An empty slice writes lse = -inf and no output.
 *
 * decode_merge: out = sum of exp(lse_i) partial_out_i over sum of exp(lse_i), relative to the largest lse.
 * Grid    ceil(B H ceil(D / 8) / 128).   Block  4 warps; a thread owns an octet of one head of one sequence.
 *
 * Needs   one query per sequence, D <= 256, H % G == 0, one dtype. */
/* SPDX-License-Identifier: MIT */
#include "kernels/device/octet.cuh"
#include "kernels/kernels.h"

/* Loops over neighbouring floats: nvcc must unroll them to keep arrays in registers, g++ must leave them to its
 * vectoriser. */
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define LANE_LOOP _Pragma("unroll")
#else
#define UNROLL
#define LANE_LOOP _Pragma("GCC unroll 1")
#endif

namespace {

constexpr int TILE = 64;                              /* keys, and threads of a slice's block */
constexpr int HEADS = 4, HEAD_THREADS = TILE / HEADS; /* query heads of a block; threads that share one's output */
constexpr int MAX_OCTETS = 2;                         /* of a thread */
static_assert(HEAD_THREADS * MAX_OCTETS * OCTET == 256, "the largest head size that is supported");
constexpr int MAX_SLICES = 64;
constexpr int MERGE_THREADS = 128;

/* Whole tiles, and at most MAX_SLICES slices: 64 keys up to 4096 keys, more beyond. */
inline int64_t slice_length(const struct attention_args *a) {
    const int64_t least = (a->max_kv + MAX_SLICES - 1) / MAX_SLICES;
    return (least + TILE - 1) / TILE * TILE;
}
inline int64_t slice_count(const struct attention_args *a) {
    const int64_t length = slice_length(a);
    return (a->max_kv + length - 1) / length;
}

/* Scratch. */
struct partials {
    float *out, *lse; /* [B, H, N, D], [B, H, N] */
    int n_slices, slice_length;
};

__host__ __device__ inline int query_width(const struct attention_args &a) {
    return (int)(a.head_dim + OCTET - 1) / OCTET * OCTET;
}

/* q[d][h], zeros for absent heads and for the dims that fill the last octet. */
template <class T>
__device__ void load_queries(float *q, int width, const struct attention_args &a, int64_t row, int head0, int n_heads) {
    for (int i = threadIdx.x; i < HEADS * width; i += TILE) {
        const int h = i / width, d = i % width;
        const T *from = (const T *)a.q.data + row * a.q.stride[0] + (head0 + h) * a.q.stride[1];
        q[d * HEADS + h] = h < n_heads && d < a.head_dim ? to_float(from[d]) : 0.0f;
    }
}

/* score[h] = sum over d of q[d][h] key[d]; what fills the last octet adds exact zeros. */
template <class T>
__device__ __forceinline__ void score_key(float (&score)[HEADS], const float *__restrict__ q, const T *key,
                                          int head_dim, bool aligned) {
    for (int d0 = 0; d0 < head_dim; d0 += OCTET) {
        float k[OCTET];
        octet_load(k, key + d0, aligned, head_dim - d0);
        UNROLL
        for (int e = 0; e < OCTET; e++) {
            LANE_LOOP
            for (int h = 0; h < HEADS; h++) score[h] = fmaf(q[(d0 + e) * HEADS + h], k[e], score[h]);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(TILE)
decode_slice_kernel(const struct attention_args a, const struct partials part, const bool aligned) {
    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    const int head_dim = (int)a.head_dim, page_size = (int)a.page_size, self = (int)threadIdx.x;
    float *const q = carve.take<float>(query_width(a) * HEADS); /* [D in octets][HEADS] */
    float *const scores = carve.take<float>(TILE * HEADS);      /* [TILE][HEADS] */
    float *const weights = carve.take<float>(TILE * HEADS);     /* [TILE][HEADS] */
    int64_t *const offsets = carve.take<int64_t>(TILE);         /* of the tile's values in the cache */

    const int group = (int)(a.n_heads / a.n_kv_heads), blocks = (group + HEADS - 1) / HEADS; /* per kv head */
    const int seq = (int)blockIdx.z, kv_head = (int)blockIdx.y / blocks, first = (int)blockIdx.y % blocks * HEADS;
    const int head0 = kv_head * group + first, n_heads = min(HEADS, group - first);
    const int32_t *start = (const int32_t *)a.query_start.data + seq;
    const int32_t *pages = (const int32_t *)a.page_table.data + seq * a.page_table.stride[0];
    const int kv_len = start[0] < start[1] ? ((const int32_t *)a.kv_len.data)[seq] : 0;
    const int key0 = (int)blockIdx.x * part.slice_length, key1 = min(key0 + part.slice_length, kv_len);
    if (key0 < key1) load_queries<T>(q, query_width(a), a, start[0], head0, n_heads);
    __syncthreads();

    const int head = self / HEAD_THREADS, octet0 = self % HEAD_THREADS;
    float out[MAX_OCTETS][OCTET] = {}, sum = 0, top[HEADS];
    UNROLL
    for (int h = 0; h < HEADS; h++) top[h] = -INFINITY;

    for (int base = key0; base < key1; base += TILE) {
        const int n = min(TILE, key1 - base);
        float score[HEADS] = {};
        int64_t value_offset = 0;
        if (self < n) {
            const int key = base + self;
            const int64_t page = pages[key / page_size], slot = key % page_size;
            const T *k = (const T *)a.k_cache.data + page * a.k_cache.stride[0] + slot * a.k_cache.stride[1] +
                         kv_head * a.k_cache.stride[2];
            score_key(score, q, k, head_dim, aligned);
            value_offset = page * a.v_cache.stride[0] + slot * a.v_cache.stride[1] + kv_head * a.v_cache.stride[2];
        }
        UNROLL
        for (int h = 0; h < HEADS; h++) {
            score[h] *= (float)a.scale;
            scores[self * HEADS + h] = score[h];
        }
        __syncthreads();

        /* Every thread finds the new maxima of the 4 heads: 64 broadcasts cost less than a tree of shuffles here. */
        float largest[HEADS], shrink = 1.0f;
        UNROLL
        for (int h = 0; h < HEADS; h++) largest[h] = top[h];
        for (int j = 0; j < n; j++) {
            LANE_LOOP
            for (int h = 0; h < HEADS; h++) {
                const float other = scores[j * HEADS + h];
                largest[h] = other > largest[h] ? other : largest[h];
            }
        }
        offsets[self] = value_offset; /* not earlier: the others were still reading those of the last tile */
        UNROLL
        for (int h = 0; h < HEADS; h++) {
            if (self < n) weights[self * HEADS + h] = expf(score[h] - largest[h]);
            if (h == head && top[h] != largest[h]) shrink = expf(top[h] - largest[h]);
            top[h] = largest[h];
        }
        __syncthreads();

        sum *= shrink;
        UNROLL
        for (int u = 0; u < MAX_OCTETS; u++)
            for (int e = 0; e < OCTET; e++) out[u][e] *= shrink;
        if (head >= n_heads) continue;
        for (int j = 0; j < n; j++) {
            const float p = weights[j * HEADS + head];
            const T *v = (const T *)a.v_cache.data + offsets[j];
            sum += p;
            UNROLL
            for (int u = 0; u < MAX_OCTETS; u++) {
                const int d = (octet0 + u * HEAD_THREADS) * OCTET;
                if (d >= head_dim) continue;
                float value[OCTET];
                octet_load(value, v + d, aligned, head_dim - d);
                for (int e = 0; e < OCTET; e++) out[u][e] = fmaf(p, value[e], out[u][e]);
            }
        }
    }

    if (head < n_heads) {
        const int64_t slice = (seq * a.n_heads + head0 + head) * part.n_slices + blockIdx.x;
        float own = top[0];
        UNROLL
        for (int h = 1; h < HEADS; h++) own = h == head ? top[h] : own;
        if (octet0 == 0) part.lse[slice] = key0 < key1 ? own + logf(sum) : -INFINITY;
        UNROLL
        for (int u = 0; u < MAX_OCTETS && key0 < key1; u++)
            for (int e = 0; e < OCTET; e++) {
                const int d = (octet0 + u * HEAD_THREADS) * OCTET + e;
                if (d < head_dim) part.out[slice * head_dim + d] = out[u][e] / sum;
            }
    }
}

template <class T>
__global__ void __launch_bounds__(MERGE_THREADS)
decode_merge_kernel(const struct attention_args a, const struct partials part) {
    const int head_dim = (int)a.head_dim, octets = (head_dim + OCTET - 1) / OCTET;
    const int64_t i = (int64_t)blockIdx.x * MERGE_THREADS + threadIdx.x;
    const int64_t seq = i / octets / a.n_heads, head = i / octets % a.n_heads;
    if (seq >= a.n_seqs) return;
    const int32_t *start = (const int32_t *)a.query_start.data + seq;
    if (start[0] >= start[1]) return;

    const int d0 = (int)(i % octets) * OCTET, n = min(OCTET, head_dim - d0);
    const float *lse = part.lse + (seq * a.n_heads + head) * part.n_slices;
    const float *partial = part.out + (seq * a.n_heads + head) * part.n_slices * head_dim + d0;
    float largest = -INFINITY, sum = 0, out[OCTET] = {};
    for (int s = 0; s < part.n_slices; s++) largest = lse[s] > largest ? lse[s] : largest;
    for (int s = 0; s < part.n_slices; s++) {
        if (lse[s] == -INFINITY) continue; /* empty: its output was never written */
        const float weight = expf(lse[s] - largest);
        sum += weight;
        UNROLL
        for (int e = 0; e < OCTET; e++)
            if (e < n) out[e] = fmaf(weight, partial[(int64_t)s * head_dim + e], out[e]);
    }
    T *to = (T *)a.out.data + start[0] * a.out.stride[0] + head * a.out.stride[1] + d0;
    UNROLL
    for (int e = 0; e < OCTET; e++)
        if (e < n) to[e] = from_float<T>(sum == 0 ? 0.0f : out[e] / sum);
}

template <class T> const char *launch_dtype(const struct attention_args *a, void *scratch, void *stream) {
    const int64_t n_slices = slice_count(a), n_partials = a->n_seqs * a->n_heads * n_slices;
    struct partials part;
    part.lse = (float *)scratch;
    part.out = part.lse + n_partials;
    part.n_slices = (int)n_slices;
    part.slice_length = (int)slice_length(a);

    const bool aligned = view_is_aligned<T>(a->k_cache, 3) && view_is_aligned<T>(a->v_cache, 3);
    const int64_t group = a->n_heads / a->n_kv_heads, blocks = (group + HEADS - 1) / HEADS;
    const dim3 grid((unsigned)n_slices, (unsigned)(a->n_kv_heads * blocks), (unsigned)a->n_seqs);
    const size_t bytes =
        carve_bytes<float>(query_width(*a) * HEADS) + 2 * carve_bytes<float>(TILE * HEADS) + carve_bytes<int64_t>(TILE);
    const char *problem = LAUNCH((decode_slice_kernel<T>), grid, dim3(TILE), bytes, stream, *a, part, aligned);
    if (problem) return problem;

    const int64_t n_octets = a->n_seqs * a->n_heads * ((a->head_dim + OCTET - 1) / OCTET);
    const dim3 merge_grid((unsigned)((n_octets + MERGE_THREADS - 1) / MERGE_THREADS));
    return LAUNCH((decode_merge_kernel<T>), merge_grid, dim3(MERGE_THREADS), 0, stream, *a, part);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(attention_decode)(const struct call *call, void *scratch, void *stream) {
    const struct attention_args *a = &call->u.attention;
    return a->q.dtype == DTYPE_F32 ? launch_dtype<float>(a, scratch, stream) : launch_dtype<bf16>(a, scratch, stream);
}

#ifndef __CUDACC__
extern "C" const char *attention_decode_unsupported(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const struct view *const views[] = {&a->q, &a->k_cache, &a->v_cache, &a->out};
    if (a->max_queries != 1) return "needs one query per sequence";
    if (a->head_dim > 256) return "needs a head size of at most 256";
    if (a->n_heads % a->n_kv_heads) return "needs the query heads to be a multiple of the kv heads";
    if (a->n_heads > 65535 || a->n_seqs > 65535) return "needs at most 65535 heads and 65535 sequences";
    if (a->max_kv > INT32_MAX / 2) return "needs fewer than 2^30 keys";
    return storage_unsupported(views, 4);
}

extern "C" size_t attention_decode_scratch_bytes(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    return sizeof(float) * (size_t)(a->n_seqs * a->n_heads * slice_count(a) * (a->head_dim + 1));
}

extern "C" struct contract attention_decode_contract(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const int64_t n_slices = slice_count(a), length = n_slices > 1 ? slice_length(a) : a->max_kv;
    struct contract c = contract_exact(OP_ATTENTION);
    c.u.attention.unit = UNIT_F32;
    c.u.attention.exp_error = 0x1p-22; /* expf: at most 2 ulp on the GPU, less than 1 on the host */
    c.u.attention.block = TILE;
    /* A term passes the chain of its slice, one rescaling per tile, and the chain of the slices. */
    c.u.attention.l_depth = length + (length + TILE - 1) / TILE + n_slices;
    c.u.attention.splits = (int)n_slices;
    return c;
}
#endif
