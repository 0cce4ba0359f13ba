/* attention_mma_tiles - how attention_mma cuts its work, where a tile lies in shared memory,
 * and who brings it: the page table, the two stages of k and v and the end of a sequence are
 * known here alone. What it promises the products: rows of a tile without a key, and rows of q
 * past the last, are zero. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_ATTENTION_ATTENTION_MMA_TILES_CUH
#define KERNELS_ATTENTION_ATTENTION_MMA_TILES_CUH

#include "kernels/attention/mma_tile.cuh"
#include "kernels/attention/query_tile.cuh"

/* Copies are unrolled only by two, or their addresses fill the registers that the
 * fragments need. */
#ifdef __CUDACC__
#define UNROLL_COPY _Pragma("unroll 2")
#else
#define UNROLL_COPY
#endif

namespace {

constexpr int WARPS = 4, THREADS = 32 * WARPS;

/* SLABS: of 16 query rows, per warp; KEYS: per tile. */
template <int D_, int SLABS_, int KEYS_> struct tiling {
    static constexpr int D = D_, SLABS = SLABS_, KEYS = KEYS_;
    static constexpr int WARP_ROWS = 16 * SLABS, ROWS = WARPS * WARP_ROWS;
    static constexpr int CHUNKS = D / OCTET;        /* of 16 bytes, per row */
    static constexpr bool Q_IN_REGISTERS = D <= 64; /* else read again for every tile */
    static constexpr int TILE_BYTES = (ROWS + 4 * KEYS) * D * sizeof(bf16);
    static constexpr size_t shared_bytes() {
        return carve_bytes<bf16>(ROWS * D) + 2 * carve_bytes<bf16>(2 * KEYS * D);
    }
};
using narrow = tiling<64, 2, 64>;
using middle = tiling<128, 2, 32>;
using wide = tiling<256, 1, 32>;
static_assert(narrow::TILE_BYTES == 48 << 10 && middle::TILE_BYTES == 64 << 10 &&
                  wide::TILE_BYTES == 96 << 10,
              "as attention_mma.cu says");

/* ---- copies ---- */

/* The two caches of one head and the way to a key's row. */
struct key_source {
    const bf16 *k, *v; /* [pages, page_size, .., D], at the kv head */
    const int32_t *pages;
    int page_size, page_shift; /* page_size = 2^page_shift, or page_shift < 0 */
    int n_keys;                /* that the tile's rows see: no other is read */
};

__device__ __forceinline__ key_source find_keys(const struct attention_args &a, const query_tile &tile,
                                                int page_shift) {
    key_source keys;
    keys.k = (const bf16 *)a.k_cache.data + tile.kv_head * a.k_cache.stride[2];
    keys.v = (const bf16 *)a.v_cache.data + tile.kv_head * a.v_cache.stride[2];
    keys.pages = (const int32_t *)a.page_table.data + tile.seq * a.page_table.stride[0];
    keys.page_size = (int)a.page_size;
    keys.page_shift = page_shift;
    keys.n_keys = keys_seen(tile);
    return keys;
}

/* Start the copies of keys first .. first + KEYS - 1 into a stage. Rows past the last key become
 * zeros: a weight of 0 does not silence the NaN of an unwritten slot. */
template <class S>
__device__ __forceinline__ void copy_keys(bf16 *k_tile, bf16 *v_tile, const struct attention_args &a,
                                          const key_source &keys, int first) {
    UNROLL_COPY
    for (int i = 0; i < S::KEYS * S::CHUNKS / THREADS; i++) {
        const int at = i * THREADS + (int)threadIdx.x, row = at / S::CHUNKS, chunk = at % S::CHUNKS;
        const int key = first + row, last = keys.n_keys - 1;
        int from = min(key, last), bytes = key <= last ? 16 : 0;
        if (SEEDED(BUG_MMA_PAGE_TABLE_OVERRUN)) from = key, bytes = 16;
        const int page = keys.page_shift >= 0 ? from >> keys.page_shift : from / keys.page_size;
        int slot = from - page * keys.page_size;
        if (SEEDED(BUG_MMA_COPY_PAST_END)) slot += key - from, bytes = 16;
        bf16 *const k_to = chunk_of<S>(k_tile, row, chunk), *const v_to = chunk_of<S>(v_tile, row, chunk);
        shared_stale(k_to, 16);
        shared_stale(v_to, 16);
        if (SEEDED(BUG_MMA_NO_ZERO_FILL) && bytes == 0) continue;
        const int64_t number = keys.pages[page];
        cp_async_16(k_to, keys.k + number * a.k_cache.stride[0] + slot * a.k_cache.stride[1] + chunk * OCTET,
                    bytes);
        cp_async_16(v_to, keys.v + number * a.v_cache.stride[0] + slot * a.v_cache.stride[1] + chunk * OCTET,
                    bytes);
    }
}

/* A warp's own rows of q, zeros past the last. */
template <class S>
__device__ __forceinline__ void load_q(bf16 *q_tile, const struct attention_args &a, const query_tile &tile,
                                       int row0, bool aligned) {
    const bf16 *const q = (const bf16 *)a.q.data + tile.first_row * a.q.stride[0] + tile.head * a.q.stride[1];
    UNROLL
    for (int i = 0; i < S::WARP_ROWS * S::CHUNKS / 32; i++) {
        const int at = i * 32 + (int)threadIdx.x % 32, row = row0 + at / S::CHUNKS, chunk = at % S::CHUNKS;
        octet<bf16> o = {};
        if (row < tile.n_rows) octet_load_raw(o, q + row * a.q.stride[0] + chunk * OCTET, aligned, OCTET);
        *reinterpret_cast<octet<bf16> *>(chunk_of<S>(q_tile, row, chunk)) = o;
    }
}

} // namespace

#endif
