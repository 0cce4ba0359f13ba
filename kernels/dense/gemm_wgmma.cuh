/* gemm_wgmma - the product that grouped_gemm_wgmma and gated_gemm_wgmma share (sm_90a): TMA
 * fills a ring of stages, wgmma multiplies them, and what an Output makes of the sums
 * leaves through shared memory.
 * Shapes  x [rows, K], w [groups, N, K] or [groups, 2, F, K], offsets int32 [groups + 1],
 *         out [rows, N or F]; bf16; any strides that keep rows at 16-byte multiples.
 * Grid    persistent, one block a multiprocessor: block b takes the tiles b, b + blocks, .. of
 *         one list: groups in order, in a group bands of BAND row tiles, in a band column by
 *         column, so that blocks that run together share x and w in the second cache.
 * Block   one or two consumer warpgroups, then a warpgroup of which one thread copies: it alone walks
 *         the offsets, and leaves each tile's place beside the tile's first stage.
 * Tile    w is the left factor, x the right: a warpgroup multiplies 64 rows of either half of the tile's
 *         rows of w by all of its rows of x, in the narrowest product that holds them. 256 rows of w
 *         by up to 192 of x, 4 stages of 64 k; 128 by up to 64 and 8 stages where groups hold very few
 *         rows (w streams from memory, 128 KiB under way, x is copied 16 rows at a time) or tiles are
 *         too few for the multiprocessors. A group is cut into as few tiles as can be, as alike as 16
 *         rows allow. Rows past the tile's last belong to another one, or to an earlier stage,
 *         and are dropped at the store. Stage: w [2][COLS / 2][64], x [ROWS][64] with 128-byte rows,
 *         swizzled as TMA writes and wgmma reads them. full[s]: the copies came; empty[s]: every
 *         consumer warp is done with the stage. Of the tile's last stage that is when the sums
 *         have left through it.
 * Traffic w once per row tile, x once per column tile, in 128-byte pieces; out once,
 *         in 128-byte rows.
 * Numerics tensor core, fp32, k ascending in blocks of 16 from zero: the bits of an element depend
 *         on its row of x and its rows of w alone, not on tile, group or neighbours (TMA fills K up
 *         with zeros, which add nothing). One rounding to bf16 at the end. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_DENSE_GEMM_WGMMA_CUH
#define KERNELS_DENSE_GEMM_WGMMA_CUH

#include "kernels/dense/gemm_wgmma_tiles.cuh"
#include "kernels/kernels.h"

namespace {

/* ---- the consumers: a warpgroup each ---- */

template <class S> __device__ __forceinline__ void release(const ring<S> &at, int stage) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(&at.empty[stage]);
}

/* sums[h] (+)= the warpgroup's 64 rows of half h of w times the first N rows of x, over the k of a stage. */
template <int N, bool FIRST, class S>
__device__ __forceinline__ void issue(float (&sums)[2][N / 2], const ring<S> &at, int group) {
    const enum shared_swizzle swizzle = SEEDED(BUG_GEMM_WRONG_SWIZZLE) ? SWIZZLE_64B : SWIZZLE_128B;
    mbarrier_wait(&at.full[at.stage], at.parity);
    const bf16 *const stage =
        SEEDED(BUG_GEMM_STAGE_OFF_BY_ONE) ? at.stages + (at.stage + 1) % S::STAGES * S::STAGE : at.data();
    const uint64_t w = wgmma_desc(stage + group * SLAB * DEPTH, 16, ATOM_BYTES, swizzle);
    const uint64_t x = wgmma_desc(stage + S::W_TILE, 16, ATOM_BYTES, swizzle);
    wgmma_fence();
    UNROLL
    for (int k = 0; k < DEPTH; k += INNER) {
        UNROLL
        for (int h = 0; h < 2; h++)
            wgmma_m64nNk16<N, bf16>(sums[h], wgmma_desc_advance(w, (h * S::W_HALF + k) * (int)sizeof(bf16)),
                                    wgmma_desc_advance(x, k * (int)sizeof(bf16)), !FIRST || k > 0);
    }
    wgmma_commit();
}

/* Over all k; returns the last stage, which the warpgroup still has. While a stage is multiplied, the one
 * before is given back. The first step stands alone, so that ptxas sees sums begin there and not live
 * from tile to tile. */
template <int N, class S>
__device__ __forceinline__ int multiply(float (&sums)[2][N / 2], ring<S> &at, int group, int steps) {
    UNROLL
    for (int h = 0; h < 2; h++) accumulator_fresh(sums[h]);
    issue<N, true>(sums, at, group);
    int last = at.stage;
    at.advance();
    for (int k = 1; k < steps; k++, at.advance()) {
        issue<N, false>(sums, at, group);
        wgmma_wait<1>();
        release(at, last);
        last = at.stage;
    }
    wgmma_wait<0>();
    UNROLL
    for (int h = 0; h < 2; h++) accumulator_ready(sums[h]);
    return last;
}

/* ---- the way out ----
 * Output says what the sums become:
 *   ROWS_OF_W         rows of w for one column of out: 1, or 2 (the gates of a tile, then its ups)
 *   pair(sums, h, i)  one column of two neighbouring rows of out, in bf16: from the thread's sums i and
 *                     i + 1 of half h, or, gated, of both */

/* A warpgroup writes PIECE rows of 64 columns into shared memory and reads them row by row, so that
 * eight lanes store a row's 128 bytes. The place is what only it has read of the last stage: its rows
 * of w, a piece of either half; by turns: who writes one has seen all come to the barrier
 * behind the other, and so behind the reading of this one. Octets of a row are permuted as
 * SWIZZLE_128B would. */
template <int N, class S, class Output>
__device__ __forceinline__ void store(const float (&sums)[2][N / 2], bf16 *stage, int group,
                                      const tile_place &tile, const product_args &a) {
    const int thread = (int)threadIdx.x % WARPGROUP, lane = thread % 32;
    const int n_rows = SEEDED(BUG_GEMM_GROUP_BOUNDARY) ? a.n_rows - tile.row : tile.n_rows;
    const int written = thread / 32 * 2 + lane / 8 % 2, octet_at = thread % 8; /* octets of a row */
    int turn = 0;
    named_barrier_sync(1 + group, WARPGROUP); /* a warp knows only of itself that its products are done */
    UNROLL
    for (int h = 0; h < 2 / Output::ROWS_OF_W; h++) {
        const int col = tile.col + h * S::HALF + group * SLAB, own = col + octet_at * OCTET;
        if (col >= a.n_cols) break;
        UNROLL
        for (int first = 0; first < N; first += PIECE) {
            if (first >= n_rows) break;
            bf16 *const piece = stage + turn * S::W_HALF + group * SLAB * DEPTH;
            turn ^= !SEEDED(BUG_GEMM_ONE_PIECE);
            UNROLL
            for (int i = 0; i < min(PIECE, N - first); i += 16) { /* 8 x 8: columns 0, 8, the next rows */
                const int s = (first + i) / 2, row = i + lane / 16 * 8 + lane % 8;
                const uint32_t r[4] = {Output::pair(sums, h, s), Output::pair(sums, h, s + 2),
                                       Output::pair(sums, h, s + 4), Output::pair(sums, h, s + 6)};
                stmatrix_x4_trans(piece + row * PIECE + (written ^ row % 8) * OCTET, r);
            }
            if (!SEEDED(BUG_GEMM_NO_STORE_SYNC)) named_barrier_sync(1 + group, WARPGROUP);
            UNROLL
            for (int i = 0; i < min(PIECE, N - first); i += WARPGROUP / 8) {
                const int row = i + thread / 8;
                const octet<bf16> o = *reinterpret_cast<const octet<bf16> *>(piece + row * PIECE +
                                                                             (octet_at ^ row % 8) * OCTET);
                if (first + row < n_rows && own < a.n_cols) /* octets lie inside or outside */
                    *reinterpret_cast<octet<bf16> *>(a.out + (tile.row + first + row) * a.out_stride + own) =
                        o;
            }
        }
    }
}

/* A tile, N of its rows of x at once: as few as hold them all, and wgmma has here. */
template <int N, class S, class Output>
__device__ __forceinline__ void make(ring<S> &at, int group, const tile_place &tile, const product_args &a) {
    if constexpr (N < S::ROWS)
        if (tile.n_rows > N + (SEEDED(BUG_GEMM_NARROW_TILE) ? 16 : 0))
            return make<(N < 128 ? N + 32 : N + 16), S, Output>(at, group, tile, a);
    float sums[2][N / 2];
    const int last = multiply<N>(sums, at, group, a.steps);
    store<N, S, Output>(sums, at.stages + last * S::STAGE, group, tile, a);
    if (!SEEDED(BUG_GEMM_NO_PROXY_FENCE)) fence_proxy_async();
    __syncwarp();
    release(at, last);
}

/* What a warp has in common is made known as such, for the tensor cores' descriptors. */
template <class S, class Output> __device__ __forceinline__ void consume(ring<S> at, const product_args &a) {
    const int group = warp_uniform((int)threadIdx.x / WARPGROUP);
    for (;;) {
        at.stage = warp_uniform(at.stage), at.parity = (uint32_t)warp_uniform((int)at.parity);
        mbarrier_wait(&at.full[at.stage], at.parity);
        tile_place tile = at.places[at.stage];
        if (!SEEDED(BUG_GEMM_NO_PLACE_SYNC)) __syncwarp(); /* lane 0 gives the stage back for all */
        tile.n_rows = warp_uniform(tile.n_rows);
        if (!tile.n_rows) break;
        make<32, S, Output>(at, group, tile, a);
    }
}

template <class S, class Output>
__global__ void __launch_bounds__(S::THREADS, 1)
    product_kernel(const __grid_constant__ struct tensor_map x_map,
                   const __grid_constant__ struct tensor_map w_map, const struct product_args a) {
    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    ring<S> at = {};
    at.stages = carve.take<bf16>(S::STAGES * S::STAGE);
    at.places = carve.take<tile_place>(S::STAGES);
    at.full = carve.take<struct mbarrier>(S::STAGES);
    at.empty = carve.take<struct mbarrier>(S::STAGES);
    if (S::COPY_ROWS < SLAB) clear_x(at);
    if (threadIdx.x == 0) {
        for (int s = 0; s < S::STAGES; s++) {
            mbarrier_init(&at.full[s], 1);
            mbarrier_init(&at.empty[s], S::WARPS);
        }
        mbarrier_init_fence();
    }
    __syncthreads();

    if (threadIdx.x >= S::CONSUMERS * WARPGROUP) {
        if (S::CONSUMERS == 2) set_max_registers_dec<24>();
        if (threadIdx.x == S::CONSUMERS * WARPGROUP) produce<S>(at, &x_map, &w_map, a);
    } else {
        if (S::CONSUMERS == 2) set_max_registers_inc<240>();
        consume<S, Output>(at, a);
    }
}

/* ---- launchers ---- */

/* Either op's call, in elements. */
struct product {
    struct view x, w, out, offsets;
    int64_t rows, cols, inner, groups;
    int64_t w_row, w_half, w_group; /* from row to row of w, from gate to up, from group to group */
};

/* At most so many tiles: every group may end in one that is not full. */
inline int64_t max_tiles(const struct product &p, int64_t tile_rows, int64_t tile_cols) {
    return (p.rows / tile_rows + p.groups) * ((p.cols + tile_cols - 1) / tile_cols);
}

inline int64_t processors() {
#ifdef __CUDACC__
    int device = 0, n = 0;
    const cudaError_t error = cudaGetDevice(&device);
    return error || cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) ? 1 : n;
#else
    return 4; /* few, so that a block sees several tiles there too */
#endif
}

template <class S, class Output> const char *launch_tile(const struct product &p, void *stream) {
    constexpr int TILE_COLS = S::COLS / Output::ROWS_OF_W;
    constexpr bool GATED = Output::ROWS_OF_W == 2;
    const int64_t half_rows = GATED ? p.w_half / p.w_row : S::HALF, group_rows = p.w_group / p.w_row;
    const int64_t w_rows = (p.groups - 1) * group_rows + (GATED ? half_rows : 0) + p.cols;
    const struct tensor_map_2d x = {p.x.data,          TENSOR_MAP_BF16, p.inner,      p.rows,
                                    p.x.stride[0] * 2, DEPTH,           S::COPY_ROWS, SWIZZLE_128B};
    const struct tensor_map_2d w = {p.w.data,    TENSOR_MAP_BF16, p.inner, w_rows,
                                    p.w_row * 2, DEPTH,           S::HALF, SWIZZLE_128B};
    struct tensor_map x_map, w_map;
    const char *problem = tensor_map_encode(&x_map, x);
    if (!problem) problem = tensor_map_encode(&w_map, w);
    if (problem) return problem;
    struct product_args a = {};
    a.offsets = static_cast<const int32_t *>(p.offsets.data);
    a.out = static_cast<bf16 *>(p.out.data);
    a.out_stride = p.out.stride[0];
    a.n_rows = (int)p.rows, a.n_cols = (int)p.cols, a.n_groups = (int)p.groups;
    a.steps = (int)((p.inner + DEPTH - 1) / DEPTH);
    a.tile_cols = TILE_COLS, a.col_tiles = (a.n_cols + TILE_COLS - 1) / TILE_COLS;
    a.half_rows = (int)half_rows, a.group_rows = (int)group_rows;
    const int64_t blocks = min(processors(), max_tiles(p, S::ROWS, TILE_COLS));
    return LAUNCH((product_kernel<S, Output>), dim3((unsigned)blocks), dim3(S::THREADS), S::shared_bytes(),
                  stream, x_map, w_map, a);
}

/* Few rows a group, on average, or too few tiles to keep every processor busy. */
template <class Output> bool takes_flat_tiles(const struct product &p) {
    const int64_t tall_tiles = max_tiles(p, tall_tile::ROWS, tall_tile::COLS / Output::ROWS_OF_W);
    return p.rows <= p.groups * flat_tile::COPY_ROWS || tall_tiles < processors();
}

template <class Output> const char *launch_product(const struct product &p, void *stream) {
    if (!p.rows) return nullptr;
    return takes_flat_tiles<Output>(p) ? launch_tile<flat_tile, Output>(p, stream)
                                       : launch_tile<tall_tile, Output>(p, stream);
}

#ifndef __CUDACC__
/* ---- what is said of both kernels ---- */

/* One chain of tensor-core blocks of 16, k ascending, on sm_90: 25 bits are aligned, 24 kept. */
constexpr struct accumulator sm_90_chain = {0, 16, 25, 24, 0, ORDER_INTERVAL, false, 0, true};

inline bool rows_start_at_16_bytes(const struct view &v, int64_t stride) {
    return (uintptr_t)v.data % 16 == 0 && stride % OCTET == 0;
}

inline const char *product_unsupported(const struct product &p) {
    if (p.x.dtype != DTYPE_BF16 || p.w.dtype != DTYPE_BF16 || p.out.dtype != DTYPE_BF16)
        return "needs x, w and out in bf16";
    if (p.groups > 1 && !p.offsets.data) return "needs offsets for several groups";
    if (!rows_start_at_16_bytes(p.x, p.x.stride[0]) || !rows_start_at_16_bytes(p.w, p.w_row) ||
        !rows_start_at_16_bytes(p.out, p.out.stride[0]))
        return "needs rows of x, w and out that start at multiples of 16 bytes (K and N multiples of 8)";
    if (p.cols % OCTET) return "needs N to be a multiple of 8";
    if (p.x.stride[0] < p.inner || p.w_row < p.inner) return "needs rows of x and w that do not overlap";
    if (p.w_half % p.w_row || p.w_group % p.w_row || p.w_half < 0 || p.w_group < 0)
        return "needs groups of w that are whole rows apart";
    const int64_t w_rows = p.groups * (p.w_group / p.w_row) + p.w_half / p.w_row + p.cols;
    if (p.rows > INT32_MAX / 2 || p.inner > INT32_MAX / 2 || p.groups > INT32_MAX / 2 ||
        w_rows > INT32_MAX / 2 || max_tiles(p, SLAB, SLAB) > INT32_MAX / 2)
        return "needs sizes whose rows and tiles number less than 2^30";
    return nullptr;
}

template <class S, class Output> struct tile_sizes tiles_of() {
    struct tile_sizes t = {};
    t.of[EXTENT_ROWS] = {S::ROWS, 1};
    t.of[EXTENT_COLS] = {S::COLS / Output::ROWS_OF_W, OCTET};
    t.of[EXTENT_INNER] = {DEPTH, OCTET};
    return t;
}

/* On this machine: on a GPU with other processors it may be the other tile. */
template <class Output> struct tile_sizes product_tiles(const struct product &p) {
    return takes_flat_tiles<Output>(p) ? tiles_of<flat_tile, Output>() : tiles_of<tall_tile, Output>();
}
#endif

} // namespace

#endif
