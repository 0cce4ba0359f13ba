/* attention_decode - one new token per sequence over a long paged cache, the keys cut into slices.
 *
 * decode_slice: each slice of keys by itself.
 * Shapes  q [T, H, D]; k_cache, v_cache [pages, page_size, G, D]; page_table [B, max_pages],
 *         query_start [B + 1], kv_len [B] int32 -> partial out [T, H, N, D] fp32,
 *         partial lse [T, H, N] fp32, N slices.
 * Grid    (N, G ceil(H / G / 4), B): a block owns one slice of one sequence and up to 4
 *         query heads of one kv head.
 * Block   64 threads, first a key each (scores of the 4 heads), then 16 threads a head, an octet of
 *         the output each (two when D > 128).
 * Tile    64 keys; scores and weights [64][4] in shared memory, k and v straight from the cache.
 * Traffic k and v once per 4 query heads of a group; about 2 S G D elements a
 *         sequence: memory bound.
 * Numerics fp32. Scores: one FMA chain over d, then times scale. Online softmax, one step a tile,
 *         denominators and outputs in key order. The length of a slice depends on max_kv
 *         alone - never on heads or sequences, so that the bits of a head do not depend on the
 *         shard. An empty slice writes lse = -inf and no output.
 *         split_keys.cuh merges the slices.
 *
 * Needs   one query per sequence, D <= 256, H % G == 0, one dtype. */
/* SPDX-License-Identifier: MIT */
#include "kernels/attention/split_keys.cuh"
#include "kernels/kernels.h"

namespace {

constexpr int TILE = 64;                   /* keys, and threads of a slice's block */
constexpr int HEADS = 4;                   /* query heads of a block */
constexpr int HEAD_THREADS = TILE / HEADS; /* that share the output of one head */
constexpr int MAX_OCTETS = 2;              /* of one thread */
static_assert(HEAD_THREADS * MAX_OCTETS * OCTET == 256, "the largest head size that is supported");
constexpr int MAX_SLICES = 64;
static_assert(MAX_SLICES <= MERGE_SLICES, "as the merge needs it");

/* Whole tiles, and at most MAX_SLICES slices: 64 keys up to 4096 keys, more beyond. */
inline int64_t slice_length(const struct attention_args *a) {
    const int64_t least = (a->max_kv + MAX_SLICES - 1) / MAX_SLICES;
    return (least + TILE - 1) / TILE * TILE;
}
inline int64_t slice_count(const struct attention_args *a) {
    const int64_t length = slice_length(a);
    return (a->max_kv + length - 1) / length;
}

__host__ __device__ inline int query_width(const struct attention_args &a) {
    return (int)(a.head_dim + OCTET - 1) / OCTET * OCTET;
}

/* q[d][h], zeros for absent heads and for the dims that fill the last octet. */
template <class T>
__device__ void load_queries(float *q, int width, const struct attention_args &a, int64_t row, int head0,
                             int n_heads) {
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

/* What one block works on. */
struct slice {
    int seq, kv_head, head0, n_heads; /* up to HEADS query heads from head0 */
    int64_t row;                      /* of the query, in q and out */
    int key0, key1;                   /* empty: key0 >= key1 */
};

__device__ slice find_slice(const struct attention_args &a, int length) {
    const int group = (int)(a.n_heads / a.n_kv_heads); /* query heads of a kv head */
    const int blocks = (group + HEADS - 1) / HEADS;
    const int first = (int)blockIdx.y % blocks * HEADS;
    slice s;
    s.seq = (int)blockIdx.z;
    s.kv_head = (int)blockIdx.y / blocks;
    s.head0 = s.kv_head * group + first;
    const int32_t *start = (const int32_t *)a.query_start.data + s.seq;
    s.n_heads = start[0] < start[1] ? min(HEADS, group - first) : 0;
    s.row = start[0];
    s.key0 = (int)blockIdx.x * length;
    if (SEEDED(BUG_DECODE_SPLIT_BOUNDARY)) s.key0 -= s.key0 > 0;
    s.key1 = s.n_heads ? min(s.key0 + length, ((const int32_t *)a.kv_len.data)[s.seq]) : 0;
    return s;
}

/* Where `key` of the slice's sequence lies in a cache, in elements. */
__device__ __forceinline__ int64_t key_offset(const struct view &cache, const struct attention_args &a,
                                              const slice &s, int key) {
    const int page_size = (int)a.page_size;
    const int32_t *pages = (const int32_t *)a.page_table.data + s.seq * a.page_table.stride[0];
    return pages[key / page_size] * cache.stride[0] + key % page_size * cache.stride[1] +
           s.kv_head * cache.stride[2];
}

/* largest[h] = max(largest[h], scores[j][h] for j < n). Every thread does all of it: 64 broadcasts
 * cost less than a tree of shuffles. */
__device__ __forceinline__ void raise_to_maxima(float (&largest)[HEADS], const float *__restrict__ scores,
                                                int n) {
    for (int j = 0; j < n; j++) {
        LANE_LOOP
        for (int h = 0; h < HEADS; h++) {
            const float other = scores[j * HEADS + h];
            largest[h] = other > largest[h] ? other : largest[h];
        }
    }
}

/* One head's part of the output in one thread: octets first, first + HEAD_THREADS. */
struct head_output {
    float out[MAX_OCTETS][OCTET], sum;
    int head, first; /* head: 0..HEADS */
};

/* Add n keys under a maximum that shrinks what is there. */
template <class T>
__device__ __forceinline__ void add_values(head_output &o, float shrink, const float *weights,
                                           const T *values, const int64_t *offsets, int n, int head_dim,
                                           bool aligned) {
    o.sum *= shrink;
    UNROLL
    for (int u = 0; u < MAX_OCTETS; u++)
        for (int e = 0; e < OCTET; e++) o.out[u][e] *= shrink;
    for (int j = 0; j < n; j++) {
        const float p = weights[j * HEADS + o.head];
        o.sum += p;
        UNROLL
        for (int u = 0; u < MAX_OCTETS; u++) {
            const int d = (o.first + u * HEAD_THREADS) * OCTET;
            if (d >= head_dim) continue;
            float value[OCTET];
            octet_load(value, values + offsets[j] + d, aligned, head_dim - d);
            for (int e = 0; e < OCTET; e++) o.out[u][e] = fmaf(p, value[e], o.out[u][e]);
        }
    }
}

__device__ void store_partial(const head_output &o, float largest, const struct partials &part, int64_t index,
                              int head_dim, bool empty) {
    if (o.first == 0) part.lse[index] = empty ? -INFINITY : largest + logf(o.sum);
    if (empty) return;
    UNROLL
    for (int u = 0; u < MAX_OCTETS; u++)
        for (int e = 0; e < OCTET; e++) {
            const int d = (o.first + u * HEAD_THREADS) * OCTET + e;
            if (d < head_dim) part.out[index * head_dim + d] = o.out[u][e] / o.sum;
        }
}

template <class T>
__global__ void __launch_bounds__(TILE)
    decode_slice_kernel(const struct attention_args a, const struct partials part, const bool aligned) {
    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    float *const q = carve.take<float>(query_width(a) * HEADS); /* [D in octets][HEADS] */
    float *const scores = carve.take<float>(TILE * HEADS);      /* [TILE][HEADS] */
    float *const weights = carve.take<float>(TILE * HEADS);     /* [TILE][HEADS] */
    int64_t *const offsets = carve.take<int64_t>(TILE);         /* of the tile's values */

    const slice s = find_slice(a, part.slice_length);
    const int head_dim = (int)a.head_dim, self = (int)threadIdx.x;
    if (s.key0 < s.key1) load_queries<T>(q, query_width(a), a, s.row, s.head0, s.n_heads);
    __syncthreads();

    head_output own = {{}, 0, self / HEAD_THREADS, self % HEAD_THREADS};
    float top[HEADS], own_top = -INFINITY; /* running maxima of the scores, that of the own head */
    UNROLL
    for (int h = 0; h < HEADS; h++) top[h] = -INFINITY;

    for (int base = s.key0; base < s.key1; base += TILE) {
        const int n = min(TILE, s.key1 - base), key = base + self;
        float score[HEADS] = {};
        if (self < n)
            score_key(score, q, (const T *)a.k_cache.data + key_offset(a.k_cache, a, s, key), head_dim,
                      aligned);
        UNROLL
        for (int h = 0; h < HEADS; h++) {
            score[h] *= (float)a.scale;
            scores[self * HEADS + h] = score[h];
        }
        __syncthreads();

        /* weights and offsets are free: everybody is past the values of the last tile. */
        raise_to_maxima(top, scores, n);
        const float last = own_top;
        UNROLL
        for (int h = 0; h < HEADS; h++) {
            if (h == own.head) own_top = top[h];
            if (self < n) weights[self * HEADS + h] = expf(score[h] - top[h]);
        }
        if (self < n) offsets[self] = key_offset(a.v_cache, a, s, key);
        __syncthreads();

        const float shrink = last == own_top ? 1.0f : expf(last - own_top);
        if (own.head < s.n_heads)
            add_values(own, shrink, weights, (const T *)a.v_cache.data, offsets, n, head_dim, aligned);
    }

    if (own.head < s.n_heads)
        store_partial(own, own_top, part,
                      (s.row * a.n_heads + s.head0 + own.head) * part.n_slices + blockIdx.x, head_dim,
                      s.key0 >= s.key1);
}

template <class T> const char *launch_dtype(const struct attention_args *a, void *scratch, void *stream) {
    const struct partials part = partials_in(scratch, a, slice_count(a), slice_length(a));
    const bool aligned = view_is_aligned<T>(a->k_cache, 3) && view_is_aligned<T>(a->v_cache, 3);
    const int64_t group = a->n_heads / a->n_kv_heads, blocks = (group + HEADS - 1) / HEADS;
    const dim3 grid((unsigned)part.n_slices, (unsigned)(a->n_kv_heads * blocks), (unsigned)a->n_seqs);
    const size_t bytes = carve_bytes<float>(query_width(*a) * HEADS) + 2 * carve_bytes<float>(TILE * HEADS) +
                         carve_bytes<int64_t>(TILE);
    const char *problem =
        LAUNCH((decode_slice_kernel<T>), grid, dim3(TILE), bytes, stream, *a, part, aligned);
    if (problem) return problem;
    return launch_merge<T, false>(a, part, stream);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(attention_decode)(const struct call *call, void *scratch, void *stream) {
    const struct attention_args *a = &call->u.attention;
    return with_storage(a->q.dtype, [&](auto t) { return launch_dtype<decltype(t)>(a, scratch, stream); });
}

#ifndef __CUDACC__
extern "C" const char *attention_decode_unsupported(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const struct view *const views[] = {&a->q, &a->k_cache, &a->v_cache, &a->out};
    if (a->max_queries != 1) return "needs one query per sequence";
    if (a->head_dim > 256) return "needs a head size of at most 256";
    if (a->n_heads % a->n_kv_heads) return "needs the query heads to be a multiple of the kv heads";
    if (a->n_heads > 65535 || a->n_seqs > 65535) return "needs at most 65535 heads and 65535 sequences";
    if (a->max_kv < 1) return "needs at least one key";
    if (a->max_kv > INT32_MAX / 2) return "needs fewer than 2^30 keys";
    return storage_unsupported(views, 4);
}

extern "C" size_t attention_decode_scratch_bytes(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    return partials_bytes(a, slice_count(a));
}

extern "C" struct contract attention_decode_contract(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const int64_t n_slices = slice_count(a), length = n_slices > 1 ? slice_length(a) : a->max_kv;
    const struct accumulator fma_chain = {UNIT_F32, 1, 0, 0, 0, ORDER_INTERVAL, false, 0, false};
    struct contract c = {};
    c.op = OP_ATTENTION;
    c.u.attention.qk = c.u.attention.pv = fma_chain;
    c.u.attention.unit = UNIT_F32;
    c.u.attention.exp_error = 0x1p-22; /* expf: at most 2 ulp on the GPU, less than 1 on the host */
    c.u.attention.block = TILE;
    /* A term passes the chain of its slice, one rescaling per tile, and the chain of the slices. */
    c.u.attention.l_depth = length + (length + TILE - 1) / TILE + n_slices;
    c.u.attention.splits = (int)n_slices;
    c.u.attention.slice = slice_length(a);
    c.u.attention.merges = 1; /* relative to the largest lse of all */
    return c;
}

extern "C" struct tile_sizes attention_decode_tiles(const struct call *) {
    struct tile_sizes t = {};
    t.of[EXTENT_KEYS] = {TILE, 1};
    t.of[EXTENT_HEADS] = {HEADS, 1};
    return t;
}
#endif
