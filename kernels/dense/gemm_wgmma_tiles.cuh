/* gemm_wgmma_tiles - which tiles a block of gemm_wgmma works on, where a stage of them lies
 * in shared memory, and the thread that brings them: groups and their offsets are known to it
 * alone. What it promises the consumers: a full stage holds 64 k of the tile's rows of x and
 * of w, zeros where K ends; rows of x behind the tile's last hold another tile's, an
 * earlier stage's, or zeros; and with a tile's first stage it is said which tile it is. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_DENSE_GEMM_WGMMA_TILES_CUH
#define KERNELS_DENSE_GEMM_WGMMA_TILES_CUH

#include "kernels/lang/octet.cuh"
#include "kernels/lang/ptx.cuh"

namespace {

constexpr int WARPGROUP = 128, SLAB = 64; /* threads of a warpgroup, rows it multiplies */
constexpr int DEPTH = 64, INNER = 16;     /* k of a stage (128 bytes), of one instruction */
constexpr int ATOM_BYTES = 8 * DEPTH * 2; /* eight swizzled rows */
constexpr int BAND = 16;                  /* row tiles */
constexpr int UNIT = 16;                  /* rows: tiles of a group differ by one unit at most */
constexpr int PIECE = 64;                 /* rows of out, and columns, that a warpgroup stores at once */

struct tile_place {
    int row, n_rows; /* first row; rows of the group from there on, at most the tile's */
    int col, w_row;  /* first column of out, first row of w */
};

/* ROWS: of x, at most; COPY_ROWS: of them per copy. */
template <int CONSUMERS_, int ROWS_, int COPY_ROWS_, int STAGES_> struct tile_shape {
    static constexpr int CONSUMERS = CONSUMERS_, ROWS = ROWS_, COPY_ROWS = COPY_ROWS_, STAGES = STAGES_;
    static constexpr int HALF = CONSUMERS * SLAB, COLS = 2 * HALF; /* rows of w */
    static constexpr int THREADS = (CONSUMERS + 1) * WARPGROUP, WARPS = CONSUMERS * 4;
    static constexpr int W_HALF = HALF * DEPTH, W_TILE = 2 * W_HALF; /* elements */
    static constexpr int X_TILE = ROWS * DEPTH, STAGE = W_TILE + X_TILE;
    static constexpr size_t shared_bytes() {
        return carve_bytes<bf16>(STAGES * STAGE) + carve_bytes<tile_place>(STAGES) +
               2 * carve_bytes<struct mbarrier>(STAGES);
    }
};
typedef tile_shape<2, 192, 48, 4> tall_tile;
typedef tile_shape<1, SLAB, 16, 8> flat_tile;
static_assert(flat_tile::W_TILE * flat_tile::STAGES * sizeof(bf16) == 128 << 10,
              "of w under way, as gemm_wgmma.cuh says");

struct product_args {
    const int32_t *offsets; /* [n_groups + 1], or NULL: one group */
    bf16 *out;
    int64_t out_stride;
    int n_rows, n_cols, n_groups, steps; /* steps: of DEPTH k */
    int col_tiles, tile_cols;            /* tile_cols: columns of out */
    int half_rows, group_rows;           /* rows of w: from half to half of a tile, of a group */
};

/* ---- which tile ---- */

struct tile_walk {
    int index;         /* of the tile in the list of all */
    int group, before; /* tiles of the groups before `group` */
};

/* The tile walk.index; false: past the last one. The index only grows. */
template <class S>
__device__ __forceinline__ bool find_tile(tile_place &tile, tile_walk &walk, const product_args &a) {
    for (; walk.group < a.n_groups; walk.group++) {
        const int first = a.offsets ? a.offsets[walk.group] : 0;
        const int end = a.offsets ? a.offsets[walk.group + 1] : a.n_rows;
        const int row_tiles = (max(end - first, 0) + S::ROWS - 1) / S::ROWS;
        const int i = walk.index - walk.before;
        if (i < row_tiles * a.col_tiles) {
            const int band = i / (BAND * a.col_tiles) * BAND, height = min(BAND, row_tiles - band);
            const int in_band = i - band * a.col_tiles, at = band + in_band % height;
            const int units = (end - first + UNIT - 1) / UNIT, each = units / row_tiles;
            const int longer = units % row_tiles; /* so many tiles, the first, have one more */
            tile.row = first + (at * each + min(at, longer)) * UNIT;
            tile.n_rows = min(end - tile.row, (each + (at < longer)) * UNIT);
            tile.col = in_band / height * a.tile_cols;
            tile.w_row = walk.group * a.group_rows + tile.col;
            return true;
        }
        walk.before += row_tiles * a.col_tiles;
    }
    return false;
}

/* ---- the ring of stages ---- */

template <class S> struct ring {
    bf16 *stages;                  /* [STAGES][STAGE] */
    tile_place *places;            /* [STAGES]: at a tile's first stage, the tile; n_rows 0: no more */
    struct mbarrier *full, *empty; /* [STAGES] */
    int stage;
    uint32_t parity; /* of the phase of full[stage] that is being filled or read */

    __device__ __forceinline__ bf16 *data() const { return stages + stage * S::STAGE; }
    __device__ __forceinline__ void advance() {
        if (++stage == S::STAGES) stage = 0, parity ^= 1;
    }
};

/* Rows that no copy fills are multiplied too, and dropped. */
template <class S> __device__ __forceinline__ void clear_x(const ring<S> &at) {
    constexpr int OCTETS = S::X_TILE / OCTET;
    const octet<bf16> zero = {};
    for (int i = (int)threadIdx.x; i < S::STAGES * OCTETS; i += S::THREADS)
        *reinterpret_cast<octet<bf16> *>(at.stages + i / OCTETS * S::STAGE + S::W_TILE + i % OCTETS * OCTET) =
            zero;
    fence_proxy_async();
}

/* One thread: copy every tile of the block, stage by stage, as the consumers give stages back, and say
 * which it is. */
template <class S>
__device__ __forceinline__ void produce(ring<S> at, const struct tensor_map *x_map,
                                        const struct tensor_map *w_map, const product_args &a) {
    const auto wait_empty = [&] {
        if (!SEEDED(BUG_GEMM_NO_EMPTY_WAIT)) mbarrier_wait(&at.empty[at.stage], at.parity ^ 1);
    };
    tile_walk walk = {(int)blockIdx.x, 0, 0};
    for (tile_place tile; find_tile<S>(tile, walk, a); walk.index += (int)gridDim.x) {
        const int copies = (tile.n_rows + S::COPY_ROWS - 1) / S::COPY_ROWS;
        const int elements = copies * S::COPY_ROWS * DEPTH + S::W_TILE;
        const uint32_t bytes =
            (uint32_t)(elements * sizeof(bf16)) + (SEEDED(BUG_GEMM_WRONG_TX_BYTES) ? 16 : 0);
        for (int k = 0; k < a.steps; k++, at.advance()) {
            wait_empty();
            if (k == 0) at.places[at.stage] = tile;
            struct mbarrier *const full = &at.full[at.stage];
            bf16 *const w = at.data(), *const x = w + S::W_TILE;
            mbarrier_arrive_expect_tx(full, bytes);
            UNROLL
            for (int i = 0; i < S::ROWS / S::COPY_ROWS; i++) {
                if (i >= copies) break;
                const int row = i * S::COPY_ROWS;
                tma_load_2d(x + row * DEPTH, x_map, full, k * DEPTH, tile.row + row);
            }
            tma_load_2d(w, w_map, full, k * DEPTH, tile.w_row);
            tma_load_2d(w + S::W_HALF, w_map, full, k * DEPTH, tile.w_row + a.half_rows);
        }
    }
    wait_empty();
    at.places[at.stage] = {};
    mbarrier_arrive(&at.full[at.stage]);
}

} // namespace

#endif
