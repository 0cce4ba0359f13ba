/* attention_mma - causal or full attention over the paged cache on bf16 tensor cores (sm_80 and
 * newer), after FlashAttention-2 (Dao 2023).
 * Shapes  q, out [T, H, D], row and head strides; k_cache, v_cache [pages, page_size, G, D];
 *         page_table [B, max_pages], query_start [B + 1], kv_len [B], int32. Sequence b owns the
 *         query rows query_start[b] .. query_start[b + 1] - 1.
 * Grid    (ceil(max_queries / ROWS), H, B): a block owns ROWS query rows of one sequence
 *         and one head, the rows that see most keys first. ROWS = 128 (64 when D = 256).
 *         Blocks past the end do nothing.
 * Block   4 warps; a warp owns 2 slabs (1 when D = 256) of 16 rows and all columns, so
 *         a row never leaves it. A warp none of whose rows sees a tile's keys lends a
 *         hand with the copies only.
 * Tile    64 keys (32 when D > 64). Two stages of k and v: while one is multiplied, cp.async
 *         gathers the next key tile through the page table. 16-byte chunks are permuted so that
 *         ldmatrix meets no bank twice. Shared: 48 KiB at D = 64, 64 at 128, 96 at 256.
 * Traffic k and v once per ROWS query rows and query head, q and out once.
 * Numerics Scores: tensor core, fp32; 2^(c score - c top) with c = fl(scale log2 e), one FMA, top
 *         the running maximum. P is rounded to bf16 for P V; the denominator adds it unrounded: a
 *         thread's keys of a tile, then the tiles, then the 4 threads of a row. Output: tensor core
 *         sum, times one reciprocal. A row without keys is 0. Slots past the last key that the
 *         block's rows see are never read; a non-finite v that only later rows see does reach the
 *         block's other rows (0 times infinity). The bits of a row depend on its own q, keys and
 *         place in the sequence only: not on other heads, rows or sequences.
 * Needs   bf16, D = 64, 128 or 256, H % G == 0, scale > 0, a 16-byte aligned cache. */
/* SPDX-License-Identifier: MIT */
#include "kernels/attention/attention_mma_tiles.cuh"
#include "kernels/kernels.h"

namespace {

/* ---- one warp ---- */

/* A warp's rows as one thread holds them: of slab i, rows group and group + 8 (half 0 and 1), of
 * which it has columns 2t, 2t + 1 of every eight. */
template <class S> struct warp_rows {
    int row0;                         /* of the warp, in the tile */
    int group, t;                     /* lane / 4, lane % 4 */
    float top[S::SLABS][2];           /* running maximum of score c; one for a row's 4 threads */
    float sum[S::SLABS][2];           /* this thread's part of the denominator */
    float out[S::SLABS][S::D / 8][4]; /* halves 0 0 1 1 */
    uint32_t q[S::SLABS][S::Q_IN_REGISTERS ? S::D / 16 : 1][4];
};

template <class S> __device__ __forceinline__ int row_of(const warp_rows<S> &w, int slab, int half) {
    return w.row0 + 16 * slab + 8 * half + w.group;
}

/* Fragments of q: rows of slab `slab`, columns 16 step .. 16 step + 15. */
template <class S>
__device__ __forceinline__ void read_q(uint32_t (&q)[4], const warp_rows<S> &w, bf16 *q_tile, int slab,
                                       int step) {
    const int lane = (int)threadIdx.x % 32;
    ldmatrix_x4(q, chunk_of<S>(q_tile, w.row0 + 16 * slab + lane % 16, 2 * step + lane / 16));
}

template <class S> __device__ __forceinline__ void warp_init(warp_rows<S> &w, bf16 *q_tile) {
    const int lane = (int)threadIdx.x % 32;
    w.group = lane / 4;
    w.t = lane % 4;
    UNROLL
    for (int slab = 0; slab < S::SLABS; slab++) {
        w.top[slab][0] = w.top[slab][1] = -INFINITY;
        if (S::Q_IN_REGISTERS) {
            UNROLL
            for (int step = 0; step < S::D / 16; step++)
                read_q<S>(w.q[slab][S::Q_IN_REGISTERS ? step : 0], w, q_tile, slab, step);
        }
    }
}

/* A tile's scores, later its weights: keys 8 n + 2t, 8 n + 2t + 1 of halves 0 0 1 1. */
template <class S> using tile_scores = float[S::SLABS][S::KEYS / 8][4];

/* score += q k^T */
template <class S>
__device__ __forceinline__ void multiply_q_k(tile_scores<S> &score, const warp_rows<S> &w, bf16 *q_tile,
                                             bf16 *k_tile) {
    const int lane = (int)threadIdx.x % 32;
    UNROLL
    for (int step = 0; step < S::D / 16; step++) {
        uint32_t q[S::SLABS][4];
        UNROLL
        for (int slab = 0; slab < S::SLABS; slab++) {
            if (!S::Q_IN_REGISTERS) read_q<S>(q[slab], w, q_tile, slab, step);
            UNROLL
            for (int r = 0; r < 4 && S::Q_IN_REGISTERS; r++)
                q[slab][r] = w.q[slab][S::Q_IN_REGISTERS ? step : 0][r];
        }
        UNROLL
        for (int n = 0; n < S::KEYS / 16; n++) {
            uint32_t k[4]; /* keys 16 n + 0..7, then 8..15: columns 0..7, 8..15 of the step */
            ldmatrix_x4(k, chunk_of<S>(k_tile, 16 * n + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
            UNROLL
            for (int slab = 0; slab < S::SLABS; slab++) {
                mma_m16n8k16<bf16>(score[slab][2 * n], q[slab], k);
                mma_m16n8k16<bf16>(score[slab][2 * n + 1], q[slab], k + 2);
            }
        }
    }
}

/* Keys that a row does not see score -infinity. */
template <class S>
__device__ __forceinline__ void mask_scores(tile_scores<S> &score, const warp_rows<S> &w,
                                            const query_tile &tile, int first) {
    if (keys_seen(tile, w.row0) >= first + S::KEYS) return; /* later rows see no fewer */
    UNROLL
    for (int slab = 0; slab < S::SLABS; slab++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int seen = keys_seen(tile, row_of(w, slab, half)) - first - 2 * w.t;
            UNROLL
            for (int n = 0; n < S::KEYS / 8; n++) {
                UNROLL
                for (int e = 0; e < 2; e++)
                    if (8 * n + e >= seen) score[slab][n][2 * half + e] = -INFINITY;
            }
        }
    }
}

/* One online-softmax step of one row: from scores to weights under the row's new maximum;
 * what it has so far shrinks with it. A row that has seen no key keeps its maximum of
 * -infinity, and weights of 0. */
template <class S>
__device__ __forceinline__ void softmax_row(tile_scores<S> &score, warp_rows<S> &w, int slab, int half,
                                            float c) {
    float largest = -INFINITY, total = 0;
    UNROLL
    for (int n = 0; n < S::KEYS / 8; n++)
        largest = fmaxf(largest, fmaxf(score[slab][n][2 * half], score[slab][n][2 * half + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, 2));

    const float before = w.top[slab][half], top = fmaxf(before, largest * c);
    const float shift = top == -INFINITY ? 0.0f : top, shrink = exp2f(before - shift);
    w.top[slab][half] = top;
    UNROLL
    for (int n = 0; n < S::KEYS / 8; n++) {
        UNROLL
        for (int e = 2 * half; e < 2 * half + 2; e++) {
            score[slab][n][e] = exp2f(fmaf(score[slab][n][e], c, -shift));
            total += score[slab][n][e];
        }
    }
    w.sum[slab][half] = fmaf(w.sum[slab][half], shrink, total);
    UNROLL
    for (int n = 0; n < S::D / 8; n++) {
        w.out[slab][n][2 * half] *= shrink;
        w.out[slab][n][2 * half + 1] *= shrink;
    }
}

/* out += bf16(weight) v: a weight fragment is two neighbouring score fragments. */
template <class S>
__device__ __forceinline__ void multiply_p_v(warp_rows<S> &w, const tile_scores<S> &weight, bf16 *v_tile) {
    const int lane = (int)threadIdx.x % 32;
    UNROLL
    for (int step = 0; step < S::KEYS / 16; step++) {
        uint32_t p[S::SLABS][4];
        UNROLL
        for (int slab = 0; slab < S::SLABS; slab++) {
            UNROLL
            for (int r = 0; r < 4; r++)
                p[slab][r] = pack_bf16(weight[slab][2 * step + r / 2][r % 2 * 2],
                                       weight[slab][2 * step + r / 2][r % 2 * 2 + 1]);
        }
        UNROLL
        for (int n = 0; n < S::D / 16; n++) {
            uint32_t v[4]; /* columns 16 n + 0..7, then 8..15: keys 0..7, 8..15 of the step */
            ldmatrix_x4_trans(v, chunk_of<S>(v_tile, 16 * step + lane % 16, 2 * n + lane / 16));
            UNROLL
            for (int slab = 0; slab < S::SLABS; slab++) {
                mma_m16n8k16<bf16>(w.out[slab][2 * n], p[slab], v);
                mma_m16n8k16<bf16>(w.out[slab][2 * n + 1], p[slab], v + 2);
            }
        }
    }
}

template <class S>
__device__ __forceinline__ void attend(warp_rows<S> &w, bf16 *q_tile, bf16 *k_tile, bf16 *v_tile,
                                       const query_tile &tile, int first, float c) {
    tile_scores<S> score = {};
    multiply_q_k<S>(score, w, q_tile, k_tile);
    mask_scores<S>(score, w, tile, first);
    UNROLL
    for (int slab = 0; slab < S::SLABS; slab++) {
        softmax_row<S>(score, w, slab, 0, c);
        softmax_row<S>(score, w, slab, 1, c);
    }
    multiply_p_v<S>(w, score, v_tile);
}

/* Divide, round, and store by way of the warp's rows of the q tile, so that whole chunks leave. */
template <class S>
__device__ __forceinline__ void store_rows(const warp_rows<S> &w, bf16 *q_tile,
                                           const struct attention_args &a, const query_tile &tile,
                                           bool aligned) {
    __syncwarp(WHOLE_WARP);
    UNROLL
    for (int slab = 0; slab < S::SLABS; slab++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int row = row_of(w, slab, half);
            float sum = w.sum[slab][half];
            sum += __shfl_xor_sync(WHOLE_WARP, sum, 1);
            sum += __shfl_xor_sync(WHOLE_WARP, sum, 2);
            const float scale = keys_seen(tile, row) > 0 ? 1.0f / sum : 0.0f;
            UNROLL
            for (int n = 0; n < S::D / 8; n++)
                *reinterpret_cast<uint32_t *>(chunk_of<S>(q_tile, row, n) + 2 * w.t) =
                    pack_bf16(w.out[slab][n][2 * half] * scale, w.out[slab][n][2 * half + 1] * scale);
        }
    }
    __syncwarp(WHOLE_WARP);
    bf16 *const out = (bf16 *)a.out.data + tile.first_row * a.out.stride[0] + tile.head * a.out.stride[1];
    for (int at = (int)threadIdx.x % 32; at < S::WARP_ROWS * S::CHUNKS; at += 32) {
        const int row = w.row0 + at / S::CHUNKS, chunk = at % S::CHUNKS;
        if (row >= tile.n_rows) break;
        octet_store_raw(out + row * a.out.stride[0] + chunk * OCTET,
                        *reinterpret_cast<const octet<bf16> *>(chunk_of<S>(q_tile, row, chunk)), aligned,
                        OCTET);
    }
}

/* ---- one block ---- */

template <class S>
__global__ void __launch_bounds__(THREADS) attention_mma_kernel(const struct attention_args a, const float c,
                                                                const int page_shift, const bool aligned) {
    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    bf16 *const q_tile = carve.take<bf16>(S::ROWS * S::D);     /* [ROWS][D], then out */
    bf16 *const k_tile = carve.take<bf16>(2 * S::KEYS * S::D); /* [2][KEYS][D] */
    bf16 *const v_tile = carve.take<bf16>(2 * S::KEYS * S::D); /* [2][KEYS][D] */

    const query_tile tile = find_query_tile<S::ROWS>(a);
    const key_source keys = find_keys(a, tile, page_shift);
    if (keys.n_keys > 0) copy_keys<S>(k_tile, v_tile, a, keys, 0);
    cp_async_commit();

    warp_rows<S> w = {};
    w.row0 = (int)threadIdx.x / 32 * S::WARP_ROWS;
    load_q<S>(q_tile, a, tile, w.row0, aligned);
    __syncwarp(WHOLE_WARP);
    warp_init<S>(w, q_tile);
    const int warp_keys = w.row0 < tile.n_rows ? keys_seen(tile, w.row0 + S::WARP_ROWS - 1) : 0;

    for (int first = 0, stage = 0; first < keys.n_keys; first += S::KEYS, stage ^= 1) {
        const int next = (stage ^ 1) * S::KEYS * S::D;
        const int current = SEEDED(BUG_MMA_STAGE_OFF_BY_ONE) ? next : stage * S::KEYS * S::D;
        if (first + S::KEYS < keys.n_keys)
            copy_keys<S>(k_tile + next, v_tile + next, a, keys, first + S::KEYS);
        cp_async_commit(); /* also when there is nothing: the wait counts groups */
        if (SEEDED(BUG_MMA_WRONG_WAIT_GROUP))
            cp_async_wait<2>();
        else
            cp_async_wait<1>(); /* all but the next tile's */
        if (!SEEDED(BUG_MMA_NO_SYNC_AFTER_FILL)) __syncthreads();
        if (first < warp_keys) attend<S>(w, q_tile, k_tile + current, v_tile + current, tile, first, c);
        if (!SEEDED(BUG_MMA_NO_SYNC_BEFORE_REFILL)) __syncthreads();
    }
    cp_async_wait<0>();
    store_rows<S>(w, q_tile, a, tile, aligned);
}

int shift_of(int64_t page_size) {
    int shift = 0;
    while ((int64_t)1 << shift < page_size) shift++;
    return (int64_t)1 << shift == page_size ? shift : -1;
}

template <class S> const char *launch_tiling(const struct attention_args *a, void *stream) {
    const bool aligned = view_is_aligned<bf16>(a->q, 2) && view_is_aligned<bf16>(a->out, 2);
    return LAUNCH((attention_mma_kernel<S>), query_grid(*a, S::ROWS), dim3(THREADS), S::shared_bytes(),
                  stream, *a, exponent_factor(a), shift_of(a->page_size), aligned);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(attention_mma)(const struct call *call, void *, void *stream) {
    const struct attention_args *a = &call->u.attention;
    return a->head_dim == narrow::D   ? launch_tiling<narrow>(a, stream)
           : a->head_dim == middle::D ? launch_tiling<middle>(a, stream)
                                      : launch_tiling<wide>(a, stream);
}

#ifndef __CUDACC__
extern "C" const char *attention_mma_unsupported(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const struct view *const views[] = {&a->q, &a->k_cache, &a->v_cache, &a->out};
    for (const struct view *view : views)
        if (view->dtype != DTYPE_BF16) return "stores bf16 only";
    if (a->head_dim != narrow::D && a->head_dim != middle::D && a->head_dim != wide::D)
        return "needs a head size of 64, 128 or 256";
    if (a->n_heads % a->n_kv_heads) return "needs the query heads to be a multiple of the kv heads";
    if (a->n_heads > 65535 || a->n_seqs > 65535) return "needs at most 65535 heads and 65535 sequences";
    if (a->max_kv > INT32_MAX / 2) return "needs fewer than 2^30 keys";
    if (!(exponent_factor(a) > 0)) return "needs a positive scale";
    if (!view_is_aligned<bf16>(a->k_cache, 3) || !view_is_aligned<bf16>(a->v_cache, 3))
        return "needs cache rows at multiples of 16 bytes";
    return NULL;
}

template <class S> static struct tile_sizes tiles_of() {
    struct tile_sizes t = {};
    t.of[EXTENT_QUERIES] = {S::ROWS, 1};
    t.of[EXTENT_KEYS] = {S::KEYS, 1};
    return t;
}

extern "C" struct tile_sizes attention_mma_tiles(const struct call *call) {
    const int64_t head_dim = call->u.attention.head_dim;
    return head_dim == narrow::D   ? tiles_of<narrow>()
           : head_dim == middle::D ? tiles_of<middle>()
                                   : tiles_of<wide>();
}

/* The score error: rounding c costs u |s|; the maximum that the FMA subtracts is the very
 * number that later steps rescale from, so its own rounding cancels, and the FMA costs u
 * |m - s|. The bound grants 3 and 4. */
extern "C" struct contract attention_mma_contract(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const int keys = attention_mma_tiles(call).of[EXTENT_KEYS].size;
    const struct accumulator tensor_core = {/* sm_80; sm_90's (16, 25, 24) errs less */
                                            UNIT_F32, 8, 24, 24, 1, ORDER_INTERVAL, false, 0, false};
    struct contract c = {};
    c.op = OP_ATTENTION;
    c.u.attention.qk = c.u.attention.pv = tensor_core;
    c.u.attention.unit = UNIT_F32;
    c.u.attention.exp_error = 0x1p-22; /* exp2f: at most 2 ulp on the GPU, below 1 on the host */
    c.u.attention.p_unit = UNIT_BF16;
    c.u.attention.p_in_order = true;
    c.u.attention.block = keys;
    /* A term passes the chain of its thread's keys, one addition per tile, and the 4
     * threads of its row. */
    c.u.attention.l_depth = (keys / 4 - 1) + (a->max_kv + keys - 1) / keys + 2;
    c.u.attention.splits = 1;
    return c;
}
#endif
