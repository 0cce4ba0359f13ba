/* attention_decode_mma - a few new tokens per sequence over a long paged cache on bf16 tensor cores
 * (sm_80 and newer): every key is read once for all query heads of its kv head.
 *
 * decode_slice_kernel: each slice of keys by itself.
 * Shapes  q [T, H, D]; k_cache, v_cache [pages, page_size, G, D]; page_table [B, max_pages],
 *         query_start [B + 1], kv_len [B] int32 -> partial out [T, H, N, D] fp32,
 *         partial lse [T, H, N] fp32, binary logarithms, N slices.
 *         split_keys.cuh merges the slices.
 * Grid    (G ceil(max_queries (H / G) / 16), N, B): a block owns one slice of one sequence and 16
 *         rows: queries x heads of one kv head, heads first. kv heads come first in the grid, so
 *         that the blocks that share pages run side by side.
 * Block   4 warps. A warp owns a quarter of the slice's keys and all 16 rows; it copies, multiplies
 *         and rescales by itself, and the four meet once, at the end.
 * Tile    32 keys of one warp (16 when D > 64), three of them in flight: cp.async gathers through
 *         the page table, whose entries are read a tile ahead. 16-byte chunks are permuted so that
 *         ldmatrix meets no bank twice. Shared: 98 KiB at D = 64, 100 at 128, 200 at 256.
 * Traffic k and v once per 16 rows: memory bound.
 * Numerics Scores: tensor core, fp32; 2^(c score - c top) with c = fl(scale log2 e), one FMA, top
 *         the warp's running maximum. P is rounded to bf16 for P V; the denominator adds it
 *         unrounded: a thread's keys of a tile, the tiles, the 4 threads of a row, then the warps
 *         relative to the largest maximum. The length of a slice depends on max_kv and the number
 *         of sequences, never on heads: the bits of a head do not depend on the shard. Slots past
 *         the last key that the block's rows see are never read.
 * Needs   bf16, D = 64, 128 or 256, H % G == 0, at most 8 queries per sequence, scale > 0, a
 *         16-byte aligned cache. */
/* SPDX-License-Identifier: MIT */
#include "kernels/attention/attention_decode_mma_tiles.cuh"
#include "kernels/attention/split_keys.cuh"
#include "kernels/kernels.h"

namespace {

/* ---- one warp ---- */

/* The 16 rows as one thread holds them: rows lane / 4 and + 8 (half 0 and 1), columns 2 (lane % 4)
 * and + 1 of every eight. */
template <class S> struct warp_rows {
    float top[2], sum[2];   /* running maximum of c score; this thread's part of the denominator */
    float out[S::D / 8][4]; /* halves 0 0 1 1 */
};

template <class S> using tile_scores = float[S::KEYS / 8][4]; /* keys 8 n + 2t, + 1 of halves 0 0 1 1 */

template <class S>
__device__ __forceinline__ void multiply_q_k(tile_scores<S> &score, bf16 *q_tile, bf16 *k_tile) {
    const int lane = (int)threadIdx.x % 32;
    UNROLL
    for (int step = 0; step < S::D / 16; step++) {
        uint32_t q[4];
        ldmatrix_x4(q, chunk_of<S>(q_tile, lane % 16, 2 * step + lane / 16));
        UNROLL
        for (int n = 0; n < S::KEYS / 16; n++) {
            uint32_t k[4]; /* keys 16 n + 0..7, then 8..15: columns 0..7, 8..15 of the step */
            ldmatrix_x4(k, chunk_of<S>(k_tile, 16 * n + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
            mma_m16n8k16<bf16>(score[2 * n], q, k);
            mma_m16n8k16<bf16>(score[2 * n + 1], q, k + 2);
        }
    }
}

/* Keys that a row does not see score -infinity. */
template <class S>
__device__ __forceinline__ void mask_scores(tile_scores<S> &score, const slice &s, int first) {
    const int lane = (int)threadIdx.x % 32;
    if (keys_seen(s, 0) >= first + S::KEYS) return; /* later rows see no fewer */
    UNROLL
    for (int half = 0; half < 2; half++) {
        const int seen = keys_seen(s, lane / 4 + 8 * half) - first - lane % 4 * 2;
        UNROLL
        for (int n = 0; n < S::KEYS / 8; n++) {
            UNROLL
            for (int e = 0; e < 2; e++)
                if (8 * n + e >= seen) score[n][2 * half + e] = -INFINITY;
        }
    }
}

/* One online-softmax step of one row: from scores to weights under the row's new maximum. Returns
 * what everything so far shrinks by. A row that has seen no key keeps its maximum of -infinity. */
template <class S>
__device__ __forceinline__ float softmax_row(tile_scores<S> &score, warp_rows<S> &w, int half, float c) {
    float largest = -INFINITY, total = 0;
    UNROLL
    for (int n = 0; n < S::KEYS / 8; n++)
        largest = fmaxf(largest, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, 2));

    const float before = w.top[half], top = fmaxf(before, largest * c);
    const float shift = top == -INFINITY ? 0.0f : top, shrink = exp2f(before - shift);
    w.top[half] = top;
    UNROLL
    for (int n = 0; n < S::KEYS / 8; n++) {
        UNROLL
        for (int e = 2 * half; e < 2 * half + 2; e++) {
            score[n][e] = exp2f(fmaf(score[n][e], c, -shift));
            total += score[n][e];
        }
    }
    w.sum[half] = fmaf(w.sum[half], shrink, total);
    return shrink;
}

/* out += bf16(weight) v: a weight fragment is two neighbouring score fragments. */
template <class S>
__device__ __forceinline__ void multiply_p_v(warp_rows<S> &w, const tile_scores<S> &weight, bf16 *v_tile) {
    const int lane = (int)threadIdx.x % 32;
    UNROLL
    for (int step = 0; step < S::KEYS / 16; step++) {
        uint32_t p[4];
        UNROLL
        for (int r = 0; r < 4; r++)
            p[r] = pack_bf16(weight[2 * step + r / 2][r % 2 * 2], weight[2 * step + r / 2][r % 2 * 2 + 1]);
        UNROLL
        for (int n = 0; n < S::D / 16; n++) {
            uint32_t v[4]; /* columns 16 n + 0..7, then 8..15: keys 0..7, 8..15 of the step */
            ldmatrix_x4_trans(v, chunk_of<S>(v_tile, 16 * step + lane % 16, 2 * n + lane / 16));
            mma_m16n8k16<bf16>(w.out[2 * n], p, v);
            mma_m16n8k16<bf16>(w.out[2 * n + 1], p, v + 2);
        }
    }
}

template <class S>
__device__ __forceinline__ void attend(warp_rows<S> &w, bf16 *q_tile, const key_stream &keys, int tile,
                                       const slice &s, float c) {
    const int stage = tile % STAGES * S::KEYS * S::D;
    tile_scores<S> score = {};
    multiply_q_k<S>(score, q_tile, keys.k_tiles + stage);
    mask_scores<S>(score, s, keys.key0 + tile * S::KEYS);
    const float shrink[2] = {softmax_row<S>(score, w, 0, c), softmax_row<S>(score, w, 1, c)};
    if (__any_sync(WHOLE_WARP, shrink[0] != 1 || shrink[1] != 1)) { /* times 1 changes nothing */
        UNROLL
        for (int n = 0; n < S::D / 8; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) w.out[n][e] *= shrink[e / 2];
        }
    }
    multiply_p_v<S>(w, score, keys.v_tiles + stage);
}

template <class S> __device__ __forceinline__ int tile_count(const key_stream &keys) {
    return (keys.key1 - keys.key0 + S::KEYS - 1) / S::KEYS;
}

/* Send the first STAGES - 1 tiles on their way. */
template <class S>
__device__ __forceinline__ void start_copies(key_stream &keys, const struct attention_args &a) {
    look_up<S>(keys, 0);
    UNROLL
    for (int tile = 0; tile < STAGES - 1; tile++) {
        if (tile < tile_count<S>(keys)) copy_keys<S>(keys, a, tile);
        cp_async_commit(); /* also when there is nothing: the wait counts groups */
        look_up<S>(keys, tile + 1);
    }
}

/* The warp's keys from first to last: STAGES - 1 tiles are on their way while one is multiplied. */
template <class S>
__device__ __forceinline__ void stream_keys(warp_rows<S> &w, bf16 *q_tile, key_stream &keys,
                                            const struct attention_args &a, const slice &s, float c) {
    const int n_tiles = tile_count<S>(keys);
    for (int tile = 0; tile < n_tiles; tile++) {
        if (SEEDED(BUG_DECODE_MMA_WRONG_WAIT))
            cp_async_wait<STAGES - 1>();
        else
            cp_async_wait<STAGES - 2>();
        if (!SEEDED(BUG_DECODE_MMA_NO_WARP_SYNC))
            __syncwarp(WHOLE_WARP); /* everybody's copies; and all are past the tile before */
        if (tile + STAGES - 1 < n_tiles) copy_keys<S>(keys, a, tile + STAGES - 1);
        cp_async_commit();
        look_up<S>(keys, tile + STAGES);
        attend<S>(w, q_tile, keys, tile, s, c);
    }
    cp_async_wait<0>();
}

/* ---- one block ---- */

/* [WARPS][ROWS] maxima and denominators, [WARPS][ROWS][D] outputs in shared memory. */
struct warp_results {
    float *top, *sum, *out;
};

template <class S>
__device__ __forceinline__ void leave_results(const warp_rows<S> &w, const warp_results &r) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    UNROLL
    for (int half = 0; half < 2; half++) {
        const int row = warp * ROWS + lane / 4 + 8 * half;
        float sum = w.sum[half];
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 1);
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 2);
        if (lane % 4 == 0) r.top[row] = w.top[half], r.sum[row] = sum;
        UNROLL
        for (int n = 0; n < S::D / 8; n++) {
            UNROLL
            for (int e = 0; e < 2; e++) r.out[row * S::D + 8 * n + lane % 4 * 2 + e] = w.out[n][2 * half + e];
        }
    }
}

/* The slice's output and log-sum-exp from those of the warps, relative to the largest maximum. A
 * slice that is all alone is the output. */
template <class S>
__device__ __forceinline__ void store_slice(const warp_results &r, const struct attention_args &a,
                                            const slice &s, const struct partials &part, bool aligned) {
    for (int at = (int)threadIdx.x; at < s.n_rows * S::CHUNKS; at += THREADS) {
        const int row = at / S::CHUNKS, chunk = at % S::CHUNKS, index = s.first_row + row;
        float top = -INFINITY, sum = 0, scale[WARPS];
        UNROLL
        for (int warp = 0; warp < WARPS; warp++) top = fmaxf(top, r.top[warp * ROWS + row]);
        UNROLL
        for (int warp = 0; warp < WARPS; warp++) {
            scale[warp] = exp2f(r.top[warp * ROWS + row] - (top == -INFINITY ? 0.0f : top));
            sum = fmaf(r.sum[warp * ROWS + row], scale[warp], sum);
        }
        octet<float> o = {};
        UNROLL
        for (int warp = 0; warp < WARPS; warp++) {
            const float *const from = r.out + (warp * ROWS + row) * S::D + chunk * OCTET;
            UNROLL
            for (int e = 0; e < OCTET; e++) o.v[e] = fmaf(from[e], scale[warp], o.v[e]);
        }
        UNROLL
        for (int e = 0; e < OCTET; e++) o.v[e] = top == -INFINITY ? 0.0f : o.v[e] / sum;
        const int64_t query = s.first_query + index / s.group, head = s.kv_head * s.group + index % s.group;
        if (part.n_slices == 1) {
            bf16 *const out = (bf16 *)a.out.data + query * a.out.stride[0] + head * a.out.stride[1];
            octet_store(out + chunk * OCTET, o.v, aligned, OCTET);
            continue;
        }
        const int64_t to = (query * a.n_heads + head) * part.n_slices + blockIdx.y;
        if (chunk == 0) part.lse[to] = top == -INFINITY ? -INFINITY : top + log2f(sum);
        if (top != -INFINITY) octet_store_raw(part.out + to * S::D + chunk * OCTET, o, true, OCTET);
    }
}

template <class S>
__global__ void __launch_bounds__(THREADS)
    decode_slice_kernel(const struct attention_args a, const struct partials part, const float c,
                        const bool aligned) {
    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    bf16 *const q_tile = carve.take<bf16>(ROWS * S::D);                   /* [ROWS][D] */
    bf16 *const k_tiles = carve.take<bf16>(WARPS * S::WARP_TILES * S::D); /* [WARPS][STAGES][KEYS][D] */
    bf16 *const v_tiles = carve.take<bf16>(WARPS * S::WARP_TILES * S::D); /* the same */
    const warp_results results = {carve.take<float>(WARPS * ROWS), carve.take<float>(WARPS * ROWS),
                                  reinterpret_cast<float *>(k_tiles)};

    const slice s = find_slice(a, part.slice_length);
    const int warp = (int)threadIdx.x / 32, quarter = part.slice_length / WARPS;
    key_stream keys;
    keys.k = (const bf16 *)a.k_cache.data + s.kv_head * a.k_cache.stride[2];
    keys.v = (const bf16 *)a.v_cache.data + s.kv_head * a.v_cache.stride[2];
    keys.pages = (const int32_t *)a.page_table.data + s.seq * a.page_table.stride[0];
    keys.k_tiles = k_tiles + warp * S::WARP_TILES * S::D;
    keys.v_tiles = v_tiles + warp * S::WARP_TILES * S::D;
    keys.page_size = (int)a.page_size;
    keys.key0 = s.key0 + warp * quarter;
    keys.key1 = min(keys.key0 + quarter, s.key1);
    keys.page = keys.slot = 0;
    start_copies<S>(keys, a);
    load_q<S>(q_tile, a, s, aligned);
    __syncthreads();

    warp_rows<S> w = {{-INFINITY, -INFINITY}, {}, {}};
    stream_keys<S>(w, q_tile, keys, a, s, c);
    next_launch_may_start();                                    /* the merge, which waits */
    if (!SEEDED(BUG_DECODE_MMA_NO_BLOCK_SYNC)) __syncthreads(); /* the outputs go where k was */
    leave_results<S>(w, results);
    __syncthreads();
    store_slice<S>(results, a, s, part, aligned);
}

template <class S> const char *launch_tiling(const struct attention_args *a, void *scratch, void *stream) {
    const struct partials part = partials_in(scratch, a, slice_count(a), slice_length(a));
    const int64_t rows = a->max_queries * (a->n_heads / a->n_kv_heads), tiles = (rows + ROWS - 1) / ROWS;
    const dim3 grid((unsigned)(a->n_kv_heads * tiles), (unsigned)part.n_slices, (unsigned)a->n_seqs);
    const char *const problem =
        LAUNCH((decode_slice_kernel<S>), grid, dim3(THREADS), S::shared_bytes(), stream, *a, part,
               exponent_factor(a), view_is_aligned<bf16>(a->q, 2) && view_is_aligned<bf16>(a->out, 2));
    return problem || part.n_slices == 1 ? problem : launch_merge<bf16, true>(a, part, stream);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(attention_decode_mma)(const struct call *call, void *scratch,
                                                           void *stream) {
    const struct attention_args *a = &call->u.attention;
    return a->head_dim == narrow::D   ? launch_tiling<narrow>(a, scratch, stream)
           : a->head_dim == middle::D ? launch_tiling<middle>(a, scratch, stream)
                                      : launch_tiling<wide>(a, scratch, stream);
}

#ifndef __CUDACC__
extern "C" const char *attention_decode_mma_unsupported(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const struct view *const views[] = {&a->q, &a->k_cache, &a->v_cache, &a->out};
    for (const struct view *view : views)
        if (view->dtype != DTYPE_BF16) return "stores bf16 only";
    if (a->max_queries > MAX_QUERIES) return "needs at most 8 queries per sequence";
    if (a->head_dim != narrow::D && a->head_dim != middle::D && a->head_dim != wide::D)
        return "needs a head size of 64, 128 or 256";
    if (a->n_heads % a->n_kv_heads) return "needs the query heads to be a multiple of the kv heads";
    if (a->n_seqs > 65535) return "needs at most 65535 sequences";
    if (a->max_kv < 1) return "needs at least one key";
    if (a->max_kv > INT32_MAX / 2) return "needs fewer than 2^30 keys";
    if (!(exponent_factor(a) > 0)) return "needs a positive scale";
    if (!view_is_aligned<bf16>(a->k_cache, 3) || !view_is_aligned<bf16>(a->v_cache, 3))
        return "needs cache rows at multiples of 16 bytes";
    return NULL;
}

extern "C" size_t attention_decode_mma_scratch_bytes(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    return partials_bytes(a, slice_count(a));
}

extern "C" struct tile_sizes attention_decode_mma_tiles(const struct call *call) {
    struct tile_sizes t = {};
    t.of[EXTENT_KEYS] = {call->u.attention.head_dim == narrow::D ? narrow::KEYS : middle::KEYS, 1};
    t.of[EXTENT_HEADS] = {ROWS, 1};
    return t;
}

/* Scores as in attention_mma. In its slice a term passes the tiles of its warp and the merge of the
 * warps: no more rescalings than the slice has tiles after the first, for the merge of a single warp
 * with keys is a product with 2^0. In the denominator it passes its thread's keys, its tiles, the 4
 * threads of its row, the warps and the slices. */
extern "C" struct contract attention_decode_mma_contract(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const int64_t keys = attention_decode_mma_tiles(call).of[EXTENT_KEYS].size, slices = slice_count(a);
    const struct accumulator tensor_core = {/* sm_80; sm_90's (16, 25, 24) errs less */
                                            UNIT_F32, 8, 24, 24, 1, ORDER_INTERVAL, false, 0, false};
    struct contract c = {};
    c.op = OP_ATTENTION;
    c.u.attention.qk = c.u.attention.pv = tensor_core;
    c.u.attention.pv.splits = WARPS;
    c.u.attention.unit = UNIT_F32;
    c.u.attention.exp_error = 0x1p-22; /* exp2f: at most 2 ulp on the GPU, below 1 on the host */
    c.u.attention.p_unit = UNIT_BF16;
    c.u.attention.block = keys;
    c.u.attention.l_depth = (keys / 4 - 1) + slice_length(a) / WARPS / keys + 2 + WARPS + slices;
    c.u.attention.splits = (int)slices;
    c.u.attention.slice = slice_length(a);
    c.u.attention.merges = 1; /* relative to the largest lse of all */
    return c;
}
#endif
