/* attention_decode_mma_tiles - how attention_decode_mma cuts its work, and who brings it: slices, the
 * keys of a warp, the page table and the end of a sequence are known here alone. What it promises
 * the products: rows of a tile without a key, and rows of q past the last, are zero. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_ATTENTION_ATTENTION_DECODE_MMA_TILES_CUH
#define KERNELS_ATTENTION_ATTENTION_DECODE_MMA_TILES_CUH

#include "kernels/attention/mma_tile.cuh"
#include "kernels/attention/split_keys.cuh"

namespace {

constexpr int WARPS = 4, THREADS = 32 * WARPS, ROWS = 16, STAGES = 3, MAX_QUERIES = 8;

template <int D_, int KEYS_> struct tiling {
    static constexpr int D = D_, KEYS = KEYS_;       /* keys of one warp's tile */
    static constexpr int CHUNKS = D / OCTET;         /* of 16 bytes, per row */
    static constexpr int WARP_TILES = STAGES * KEYS; /* rows of k (v) that a warp keeps */
    static constexpr size_t shared_bytes() {
        return carve_bytes<bf16>(ROWS * D) + 2 * carve_bytes<bf16>(WARPS * WARP_TILES * D) +
               2 * carve_bytes<float>(WARPS * ROWS);
    }
    static_assert(WARPS * WARP_TILES * D * sizeof(bf16) >= WARPS * ROWS * D * sizeof(float),
                  "the warps' outputs fit where k was");
};
using narrow = tiling<64, 32>;
using middle = tiling<128, 16>;
using wide = tiling<256, 16>;

/* ---- how the keys are cut ---- */

constexpr int SLICE_UNIT = WARPS * 32;      /* whole tiles for every warp at any head size */
constexpr int LEAST_SLICE = 2 * SLICE_UNIT; /* below, the merge costs more than it brings */
constexpr int BLOCKS_WANTED = 33;           /* of one kv head: with 8 of them, two a processor at once */

inline int64_t slice_length(const struct attention_args *a) {
    const int64_t wanted = (BLOCKS_WANTED + a->n_seqs - 1) / a->n_seqs;
    const int64_t slices = wanted < MERGE_SLICES ? wanted : MERGE_SLICES;
    const int64_t length = (a->max_kv + slices - 1) / slices;
    return length < LEAST_SLICE ? LEAST_SLICE : (length + SLICE_UNIT - 1) / SLICE_UNIT * SLICE_UNIT;
}
inline int64_t slice_count(const struct attention_args *a) {
    const int64_t length = slice_length(a);
    return (a->max_kv + length - 1) / length;
}

/* ---- what a block works on ---- */

struct slice {
    int seq, kv_head, group; /* query heads of the kv head */
    int64_t first_query;     /* of the sequence, in q and out */
    int first_row, n_rows;   /* rows first_row .. + n_rows of the sequence's queries x heads */
    int past, kv_len;        /* query i is at key position past + i */
    int key0, key1;          /* that some row sees; empty: key0 >= key1 */
    bool causal;
};

/* How many keys row r of the block sees; rows past the last go with it, and are never stored. */
__device__ __forceinline__ int keys_seen(const slice &s, int r) {
    const int query = (s.first_row + min(r, s.n_rows - 1)) / s.group;
    return s.causal ? max(0, min(s.past + query + 1, s.kv_len)) : s.kv_len;
}

__device__ slice find_slice(const struct attention_args &a, int length) {
    slice s;
    s.group = (int)(a.n_heads / a.n_kv_heads);
    s.seq = (int)blockIdx.z;
    s.kv_head = (int)blockIdx.x % (int)a.n_kv_heads;
    s.first_row = (int)blockIdx.x / (int)a.n_kv_heads * ROWS;
    s.causal = a.causal;
    const int32_t *start = (const int32_t *)a.query_start.data + s.seq;
    const int n_queries = start[1] - start[0];
    s.first_query = start[0];
    s.n_rows = max(0, min(ROWS, n_queries * s.group - s.first_row));
    s.kv_len = ((const int32_t *)a.kv_len.data)[s.seq];
    s.past = s.kv_len - n_queries;
    s.key0 = (int)blockIdx.y * length;
    s.key1 = s.n_rows ? min(s.key0 + length, keys_seen(s, ROWS - 1)) : 0;
    return s;
}

/* ---- copies ---- */

/* Where the keys of one warp are, and where they go. */
struct key_stream {
    const bf16 *k, *v; /* [pages, page_size, .., D], at the kv head */
    const int32_t *pages;
    bf16 *k_tiles, *v_tiles; /* [STAGES][KEYS][D], the warp's own */
    int page_size, key0, key1;
    int page, slot; /* of this lane's key of the tile that is copied next */
};

/* Read ahead of the copies, so that they need not wait for it. */
template <class S> __device__ __forceinline__ void look_up(key_stream &keys, int tile) {
    const int key = keys.key0 + tile * S::KEYS + (int)threadIdx.x % S::KEYS;
    if (key >= keys.key1) return;
    const int page = key / keys.page_size;
    keys.slot = key - page * keys.page_size;
    keys.page = keys.pages[page];
}

/* Start the copies of a tile. Rows past the last key become zeros: a weight of 0 does not silence
 * the NaN of an unwritten slot. */
template <class S>
__device__ __forceinline__ void copy_keys(const key_stream &keys, const struct attention_args &a, int tile) {
    const int lane = (int)threadIdx.x % 32, stage = tile % STAGES * S::KEYS;
    bf16 *const k_tile = keys.k_tiles + stage * S::D, *const v_tile = keys.v_tiles + stage * S::D;
    const int n_keys = keys.key1 - keys.key0 - tile * S::KEYS; /* of the tile, or more */
    UNROLL
    for (int i = 0; i < S::KEYS * S::CHUNKS / 32; i++) {
        const int row = (i * 32 + lane) / S::CHUNKS, chunk = lane % S::CHUNKS;
        const int from = min(row, n_keys - 1), bytes = row < n_keys ? 16 : 0;
        const int64_t page = __shfl_sync(WHOLE_WARP, keys.page, from);
        const int slot = __shfl_sync(WHOLE_WARP, keys.slot, from);
        bf16 *const k_to = chunk_of<S>(k_tile, row, chunk), *const v_to = chunk_of<S>(v_tile, row, chunk);
        shared_stale(k_to, 16);
        shared_stale(v_to, 16);
        cp_async_16(k_to, keys.k + page * a.k_cache.stride[0] + slot * a.k_cache.stride[1] + chunk * OCTET,
                    bytes);
        cp_async_16(v_to, keys.v + page * a.v_cache.stride[0] + slot * a.v_cache.stride[1] + chunk * OCTET,
                    bytes);
    }
}

/* The block's rows of q, zeros past the last. */
template <class S>
__device__ __forceinline__ void load_q(bf16 *q_tile, const struct attention_args &a, const slice &s,
                                       bool aligned) {
    for (int at = (int)threadIdx.x; at < ROWS * S::CHUNKS; at += THREADS) {
        const int row = at / S::CHUNKS, chunk = at % S::CHUNKS, index = s.first_row + row;
        const bf16 *const q = (const bf16 *)a.q.data + (s.first_query + index / s.group) * a.q.stride[0] +
                              (s.kv_head * s.group + index % s.group) * a.q.stride[1];
        octet<bf16> o = {};
        if (row < s.n_rows) octet_load_raw(o, q + chunk * OCTET, aligned, OCTET);
        *reinterpret_cast<octet<bf16> *>(chunk_of<S>(q_tile, row, chunk)) = o;
    }
}

} // namespace

#endif
