/* query_tile - which query rows a block of an attention kernel owns, and how many keys each of them
 * sees: the rows of one sequence and one query head, cut into tiles of ROWS. Blocks whose rows see
 * most keys come first; a block past the end of its sequence has no rows.
 * Grid    (ceil(max_queries / ROWS), H, B) */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_ATTENTION_QUERY_TILE_CUH
#define KERNELS_ATTENTION_QUERY_TILE_CUH

#include "kernels/lang/kernel.cuh"
#include "layer/ops.h"

namespace {

struct query_tile {
    int seq, head, kv_head;
    int64_t first_row; /* of the tile, in q and out */
    int n_rows;        /* 0: nothing to do */
    int past;          /* row i of the tile is at key position past + i */
    int kv_len;
    bool causal;
};

/* How many keys row i of the tile sees; rows past the end go with the last live one,
 * and are never stored. */
__device__ __forceinline__ int keys_seen(const query_tile &tile, int i) {
    const int row = min(i, tile.n_rows - 1);
    return tile.causal ? max(0, min(tile.past + row + 1, tile.kv_len)) : tile.kv_len;
}

/* How many the rows together see: no row sees more than the last. */
__device__ __forceinline__ int keys_seen(const query_tile &tile) {
    return tile.n_rows ? keys_seen(tile, tile.n_rows - 1) : 0;
}

template <int ROWS> __device__ __forceinline__ query_tile find_query_tile(const struct attention_args &a) {
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * ROWS;
    query_tile tile;
    tile.seq = (int)blockIdx.z;
    tile.head = (int)blockIdx.y;
    tile.kv_head = SEEDED(BUG_SIMT_WRONG_GQA_HEAD) || SEEDED(BUG_MMA_WRONG_GQA_HEAD)
                       ? tile.head % (int)a.n_kv_heads
                       : tile.head / (int)(a.n_heads / a.n_kv_heads);
    const int32_t *start = (const int32_t *)a.query_start.data + tile.seq;
    const int n_queries = start[1] - start[0];
    tile.first_row = (int64_t)start[0] + first;
    tile.n_rows = max(0, min(ROWS, n_queries - first));
    tile.kv_len = ((const int32_t *)a.kv_len.data)[tile.seq];
    tile.past = tile.kv_len - n_queries + first;
    tile.causal = a.causal;
    if (SEEDED(BUG_SIMT_UNWRITTEN_SLOT)) tile.past++, tile.kv_len++;
    return tile;
}

inline dim3 query_grid(const struct attention_args &a, int rows) {
    return dim3((unsigned)((a.max_queries + rows - 1) / rows), (unsigned)a.n_heads, (unsigned)a.n_seqs);
}

} // namespace

#endif
