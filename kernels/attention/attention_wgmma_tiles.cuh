/* attention_wgmma_tiles - which tiles a block of attention_wgmma works on, where they lie in shared
 * memory, and the warps that bring them: the page table, the rings of stages and the end of a
 * sequence are their business alone. What they promise the consumers: a full stage holds finite
 * values in every row of V; rows of K without a key hold anything. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_ATTENTION_ATTENTION_WGMMA_TILES_CUH
#define KERNELS_ATTENTION_ATTENTION_WGMMA_TILES_CUH

#include "kernels/lang/ptx.cuh"
#include "layer/ops.h"

namespace {

constexpr int WARPGROUP = 128, CONSUMERS = 2, CONSUMER_WARPS = CONSUMERS * 4;
constexpr int THREADS = (1 + CONSUMERS) * WARPGROUP;
constexpr int OWN_ROWS = 64, ROWS = CONSUMERS * OWN_ROWS; /* query rows of a consumer, of a block */
constexpr int PAGE = 16, MAX_STAGES = 4;
constexpr int SLICE = 64, SLICE_ROW = 128; /* columns of a slice; bytes of its rows */
constexpr unsigned WHOLE_WARP = 0xffffffffu;

/* Head size decides the tiles, nothing else may: they are part of the contract. */
constexpr int tile_keys(int head_dim) { return head_dim <= 128 ? 128 : 64; }

template <int D> struct shape {
    static constexpr int KEYS = tile_keys(D), STAGES = D <= 64 ? 4 : 2;
    static constexpr int SLICES = D / SLICE, PAGES = KEYS / PAGE;
    static constexpr int Q_STAGES = D <= 128 ? 2 : 1; /* two: q of the next piece comes early */
    static constexpr bool TURNS = D <= 128;           /* consumers alternate: products, softmax */
    static constexpr uint32_t Q_BYTES = ROWS * D * sizeof(bf16), TILE_BYTES = KEYS * D * sizeof(bf16);
    static_assert(PAGES * SLICES <= 32, "every lane of the producer brings one box of a tile");
};

/* [slices][rows][64] each */
template <int D> struct shared_tiles {
    bf16 q[shape<D>::Q_STAGES][shape<D>::SLICES][ROWS][SLICE];
    bf16 k[shape<D>::STAGES][shape<D>::SLICES][shape<D>::KEYS][SLICE];
    bf16 v[shape<D>::STAGES][shape<D>::SLICES][shape<D>::KEYS][SLICE];
};

static_assert(sizeof(shared_tiles<64>) == 160 << 10 && sizeof(shared_tiles<128>) == 192 << 10 &&
                  sizeof(shared_tiles<256>) == 192 << 10,
              "as attention_wgmma.cu says");

struct ring {
    struct mbarrier full[MAX_STAGES], empty[MAX_STAGES];
};
struct barriers {
    struct mbarrier tail; /* the last tile of V has come and wants its zeros */
    struct ring q, k, v;
};

/* ---- what a block works on ---- */

struct work {
    int head, kv_head, seq;
    int first_row; /* of the piece, in q and out */
    int n_rows;    /* 0: nothing to do */
    int past;      /* row i of the piece is at key position past + i */
    int kv_len, n_tiles;
    bool causal;
};

/* How many keys row i of the piece sees; rows past the end of the sequence see no
 * more than the last. */
__device__ __forceinline__ int keys_seen(const work &w, int i) {
    return w.causal ? max(0, min(w.past + i + 1, w.kv_len)) : w.kv_len;
}

__host__ __device__ __forceinline__ int count_row_tiles(const struct attention_args &a) {
    return (int)((a.max_queries + ROWS - 1) / ROWS);
}

/* 128 query rows of one sequence and one head: those that see most keys first, heads side by side. */
__host__ __device__ __forceinline__ int64_t count_pieces(const struct attention_args &a) {
    return count_row_tiles(a) * a.n_seqs * a.n_heads;
}

/* The block's piece of a round; every other round goes backwards, so that no block always has the longer
 * ones. False: there is none, nor in a later round. */
__device__ __forceinline__ bool find_work(const struct attention_args &a, int tile_keys, int round, work &w) {
    const int blocks = (int)gridDim.x, self = (int)blockIdx.x;
    const int index = round * blocks + (round % 2 ? blocks - 1 - self : self);
    if (index >= (int)count_pieces(a)) return false;
    const int heads = (int)a.n_heads, of_all_heads = index / heads, row_tiles = count_row_tiles(a);
    const int first = (row_tiles - 1 - of_all_heads / (int)a.n_seqs) * ROWS;
    w.head = index % heads;
    w.kv_head = w.head / (heads / (int)a.n_kv_heads);
    w.seq = of_all_heads % (int)a.n_seqs;
    const int32_t *const start = (const int32_t *)a.query_start.data + w.seq;
    const int n_queries = start[1] - start[0];
    w.first_row = start[0] + first;
    w.n_rows = max(0, min(ROWS, n_queries - first));
    w.kv_len = max(0, ((const int32_t *)a.kv_len.data)[w.seq]);
    w.past = w.kv_len - n_queries + first;
    w.causal = a.causal;
    w.n_tiles = w.n_rows ? (keys_seen(w, w.n_rows - 1) + tile_keys - 1) / tile_keys : 0;
    return true;
}

/* The block's next piece from a round on that has tiles, and its round; false: there is none. */
template <class Else>
__device__ __forceinline__ bool next_piece(const struct attention_args &a, int tile_keys, int &round, work &w,
                                           Else without_tiles) {
    for (; find_work(a, tile_keys, round, w); round++) {
        if (w.n_tiles) return true;
        without_tiles(w);
    }
    return false;
}
__device__ __forceinline__ bool next_piece(const struct attention_args &a, int tile_keys, int &round,
                                           work &w) {
    return next_piece(a, tile_keys, round, w, [](const work &) {});
}

/* ---- the producers: a warp brings q and K, another V ---- */

/* Where the tiles of a piece come from. */
struct source {
    const int32_t *pages; /* of the sequence */
    int n_pages, kv_len;  /* of it that hold keys; keys */
    int column;           /* of the kv head */
    int first;            /* so many tiles came before */
};

__device__ __forceinline__ source source_of(const struct attention_args &a, const work &w,
                                            const struct view &cache, int first) {
    const int32_t *const pages = (const int32_t *)a.page_table.data + w.seq * a.page_table.stride[0];
    return {pages, (w.kv_len + PAGE - 1) / PAGE, w.kv_len, w.kv_head * (int)cache.stride[2], first};
}

/* Columns [64 slice, 64 slice + 64) of a page: lane l brings box l of every tile, if
 * there are as many. */
template <int D> struct producer {
    shared_tiles<D> &tiles;
    struct barriers &bars;
    int outside;           /* a row behind the caches */
    int lane, page, slice; /* the lane's box */

    __device__ __forceinline__ bool has_box() const { return lane < shape<D>::PAGES * shape<D>::SLICES; }

    /* First row of the lane's page in the caches. */
    __device__ __forceinline__ int cache_row(const source &of, int tile) const {
        const int i = tile * shape<D>::PAGES + page;
        return has_box() && i < of.n_pages ? of.pages[i] * PAGE : outside;
    }

    __device__ __forceinline__ void wait_empty(struct ring &ring, int tile) const {
        if (!SEEDED(BUG_WGMMA_NO_EMPTY_WAIT))
            mbarrier_wait(&ring.empty[tile % shape<D>::STAGES], tile / shape<D>::STAGES % 2 ^ 1);
    }

    __device__ __forceinline__ void load(bf16 (&to)[shape<D>::SLICES][shape<D>::KEYS][SLICE],
                                         const struct tensor_map *map, struct mbarrier *full, int column,
                                         int row) const {
        const uint32_t bytes = shape<D>::TILE_BYTES + (SEEDED(BUG_WGMMA_WRONG_TX_BYTES) ? 16 : 0);
        if (lane == 0) mbarrier_arrive_expect_tx(full, bytes);
        __syncwarp(WHOLE_WARP);
        if (has_box()) tma_load_2d(to[slice][page * PAGE], map, full, column + slice * SLICE, row);
    }

    /* piece: so many came before. */
    __device__ __forceinline__ void load_q(const struct tensor_map *map, const work &w, int piece,
                                           int head_stride) const {
        const int stage = piece % shape<D>::Q_STAGES;
        if (!SEEDED(BUG_WGMMA_NO_Q_WAIT))
            mbarrier_wait(&bars.q.empty[stage], piece / shape<D>::Q_STAGES % 2 ^ 1);
        if (lane) return;
        mbarrier_arrive_expect_tx(&bars.q.full[stage], shape<D>::Q_BYTES);
        for (int s = 0; s < shape<D>::SLICES; s++)
            tma_load_2d(tiles.q[stage][s], map, &bars.q.full[stage], w.head * head_stride + s * SLICE,
                        w.first_row);
    }

    __device__ __forceinline__ void load_k(const struct tensor_map *map, const source &of, int tile) const {
        const int row = cache_row(of, tile), stage = (of.first + tile) % shape<D>::STAGES;
        wait_empty(bars.k, of.first + tile);
        load(tiles.k[stage], map, &bars.k.full[stage], of.column, row);
    }

    /* The last tile is handed on when the rows of its last page that hold no key are zero. tails:
     * how often that was so. */
    __device__ __forceinline__ void load_v(const struct tensor_map *map, const source &of, int tile,
                                           int &tails) const {
        const int row = cache_row(of, tile), stage = (of.first + tile) % shape<D>::STAGES;
        const int n_keys = of.kv_len - tile * shape<D>::KEYS; /* of the sequence, from here on */
        const bool tail = n_keys < shape<D>::KEYS && n_keys % PAGE;
        wait_empty(bars.v, of.first + tile);
        load(tiles.v[stage], map, tail ? &bars.tail : &bars.v.full[stage], of.column, row);
        if (!tail) return;
        mbarrier_wait(&bars.tail, (uint32_t)(tails++ % 2));
        zero_rows(tiles.v[stage], n_keys, (n_keys + PAGE - 1) / PAGE * PAGE);
        if (!SEEDED(BUG_WGMMA_NO_PROXY_FENCE)) fence_proxy_async();
        __syncwarp(WHOLE_WARP);
        if (lane == 0) mbarrier_arrive(&bars.v.full[stage]);
    }

    /* Whole rows of all slices, where the swizzle does not matter. */
    __device__ __forceinline__ void zero_rows(bf16 (&tile)[shape<D>::SLICES][shape<D>::KEYS][SLICE],
                                              int begin, int end) const {
        constexpr int CHUNKS = SLICE_ROW / sizeof(uint4); /* of a row */
        const int chunks = (end - begin) * CHUNKS;
        for (int i = lane; i < chunks * shape<D>::SLICES; i += 32) {
            uint4 *const rows = reinterpret_cast<uint4 *>(tile[i / chunks][begin]);
            rows[i % chunks] = make_uint4(0, 0, 0, 0);
        }
    }
};

template <int D>
__device__ __forceinline__ producer<D> producer_of(shared_tiles<D> &tiles, struct barriers &bars,
                                                   const struct attention_args &a) {
    const int lane = (int)threadIdx.x % 32;
    return {tiles, bars, (int)a.n_pages * PAGE, lane, lane % shape<D>::PAGES, lane / shape<D>::PAGES};
}

/* In the order in which the consumers need them, piece after piece: q behind the first tile of K,
 * which has its place earlier. */
template <int D>
__device__ __forceinline__ void produce_keys(const producer<D> &p, const struct attention_args &a,
                                             const struct tensor_map *q_map, const struct tensor_map *k_map) {
    work w;
    int tiles = 0;
    for (int round = 0, piece = 0; next_piece(a, shape<D>::KEYS, round, w); round++, piece++) {
        const source of = source_of(a, w, a.k_cache, tiles);
        for (int tile = 0; tile < w.n_tiles; tile++) {
            p.load_k(k_map, of, tile);
            if (tile == 0) p.load_q(q_map, w, piece, (int)a.q.stride[1]);
        }
        tiles += w.n_tiles;
    }
}

template <int D>
__device__ __forceinline__ void produce_values(const producer<D> &p, const struct attention_args &a,
                                               const struct tensor_map *v_map) {
    work w;
    int tiles = 0, tails = 0;
    for (int round = 0; next_piece(a, shape<D>::KEYS, round, w); round++) {
        const source of = source_of(a, w, a.v_cache, tiles);
        for (int tile = 0; tile < w.n_tiles; tile++) p.load_v(v_map, of, tile, tails);
        tiles += w.n_tiles;
    }
}

} // namespace

#endif
