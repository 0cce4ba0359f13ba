/* gemm_wgmma - the product that grouped_gemm_wgmma and gated_gemm_wgmma share (sm_90a): TMA
 * fills a ring of stages, wgmma multiplies them, and what an Output makes of the sums
 * leaves through shared memory.
 * Shapes  x [rows, K], w [groups, N, K] or [groups, 2, F, K], offsets int32 [groups + 1],
 *         out [rows, N or F]; bf16; any strides that keep rows at 16-byte multiples.
 * Grid    persistent, one block a multiprocessor: block b takes the tiles b, b + blocks, .. of
 *         one list: groups in order, in a group bands of BAND row tiles, in a band column by
 *         column, so that blocks that run together share x and w in the second cache. Every
 *         block walks the offsets itself.
 * Block   one or two consumer warpgroups, 64 rows each, then a warpgroup of which one
 *         thread copies.
 * Tile    128 rows x 256 rows of w, 4 stages of 64 k; 64 x 128 and 8 stages where groups hold very
 *         few rows (w streams from memory, 128 KiB under way, x is copied 16 rows at a time) or
 *         tiles are too few for the multiprocessors. Rows past the group belong to another one, or
 *         to an earlier stage, and are dropped at the store; a warpgroup without rows multiplies
 *         nothing. Stage: x [warpgroups][64][64], w [2][COLS / 2][64] with 128-byte rows, swizzled
 *         as TMA writes and wgmma reads them. full[s]: the copies came; empty[s]: every consumer
 *         warp is done with the stage.
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

/* sums = the warpgroup's slab of x times the tile of w, over all k. While a stage is multiplied,
 * the one before is given back. */
template <class S>
__device__ __forceinline__ void multiply(float (&sums)[S::SUMS], ring<S> &at, int slab, int steps) {
    const enum shared_swizzle swizzle = SEEDED(BUG_GEMM_WRONG_SWIZZLE) ? SWIZZLE_64B : SWIZZLE_128B;
    int last = 0;
    for (int k = 0; k < steps; k++, at.advance()) {
        mbarrier_wait(&at.full[at.stage], at.parity);
        const bf16 *const stage =
            SEEDED(BUG_GEMM_STAGE_OFF_BY_ONE) ? at.stages + (at.stage + 1) % S::STAGES * S::STAGE : at.data();
        const uint64_t x = wgmma_desc(stage + slab * S::X_SLAB, 16, ATOM_BYTES, swizzle);
        const uint64_t w = wgmma_desc(stage + S::X_TILE, 16, ATOM_BYTES, swizzle);
        wgmma_fence();
        UNROLL
        for (int j = 0; j < DEPTH / INNER; j++)
            wgmma_m64nNk16<S::COLS, bf16>(sums, wgmma_desc_advance(x, j * INNER * 2),
                                          wgmma_desc_advance(w, j * INNER * 2), k + j > 0);
        wgmma_commit();
        wgmma_wait<1>();
        if (k > 0) release(at, last);
        last = at.stage;
    }
    wgmma_wait<0>();
    accumulator_ready(sums);
    release(at, last);
}

/* The tile has no row for this warpgroup: only keep in step. A lane that gave a stage back
 * before the others saw it full would let the barrier run a phase ahead of them; in multiply,
 * wgmma keeps lanes together. */
template <class S> __device__ __forceinline__ void pass(ring<S> &at, int steps) {
    for (int k = 0; k < steps; k++, at.advance()) {
        mbarrier_wait(&at.full[at.stage], at.parity);
        __syncwarp();
        release(at, at.stage);
    }
}

/* ---- the way out ----
 * Output says what the sums become:
 *   ROWS_OF_W         rows of w for one column of out: 1, or 2 (the gates of a tile, then its ups)
 *   pair(sums, i)     two neighbouring columns of out, in bf16: from the thread's sums i and i + 1,
 *                     and, gated, from those half of all further on */

/* A warp's 16 rows go out PIECE columns at a time through its own 16 x PITCH of shared memory, so
 * that eight lanes store a row's 128 bytes. */
template <class S, class Output>
__device__ __forceinline__ void store(const float (&sums)[S::SUMS], bf16 *staging, const tile_place &tile,
                                      const product_args &a) {
    constexpr int COLS = S::COLS / Output::ROWS_OF_W;
    const int lane = (int)threadIdx.x % 32, warp_row = (int)threadIdx.x / 32 * INNER;
    const int n_rows = (SEEDED(BUG_GEMM_GROUP_BOUNDARY) ? a.n_rows - tile.row : tile.n_rows) - warp_row;
    bf16 *const out = a.out + (tile.row + warp_row) * a.out_stride + tile.col;
    UNROLL
    for (int col = 0; col < COLS; col += PIECE) {
        if (tile.col + col >= a.n_cols || n_rows <= 0) break;
        UNROLL
        for (int c = 0; c < PIECE; c += 16) { /* 8 x 8 matrices: rows 0, rows 8, the next columns */
            const int i = (col + c) / 2;
            const uint32_t r[4] = {Output::pair(sums, i), Output::pair(sums, i + 2),
                                   Output::pair(sums, i + 4), Output::pair(sums, i + 6)};
            stmatrix_x4(staging + lane % 16 * PITCH + c + lane / 16 * 8, r);
        }
        __syncwarp();
        UNROLL
        for (int row = lane / 8; row < INNER; row += 4) {
            const int c = lane % 8 * OCTET;
            const octet<bf16> o = *reinterpret_cast<const octet<bf16> *>(staging + row * PITCH + c);
            if (row < n_rows && tile.col + col + c < a.n_cols) /* octets lie inside or outside */
                *reinterpret_cast<octet<bf16> *>(out + row * a.out_stride + col + c) = o;
        }
        __syncwarp();
    }
}

template <class S, class Output>
__device__ __forceinline__ void consume(ring<S> at, bf16 *staging, const product_args &a) {
    const int slab = (int)threadIdx.x / WARPGROUP;
    tile_walk walk = {(int)blockIdx.x, 0, 0};
    for (tile_place tile; find_tile<S>(tile, walk, a); walk.index += (int)gridDim.x) {
        if (tile.n_rows <= slab * SLAB) {
            pass(at, a.steps);
            continue;
        }
        float sums[S::SUMS];
        multiply(sums, at, slab, a.steps);
        store<S, Output>(sums, staging, tile, a);
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
    bf16 *const staging = carve.take<bf16>(S::WARPS * INNER * PITCH);
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
        if (S::CONSUMERS == 2) set_max_registers_dec<40>();
        if (threadIdx.x == S::CONSUMERS * WARPGROUP) produce<S>(at, &x_map, &w_map, a);
    } else {
        if (S::CONSUMERS == 2) set_max_registers_inc<232>();
        consume<S, Output>(at, staging + threadIdx.x / 32 * INNER * PITCH, a);
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
    const int64_t half_rows = GATED ? p.w_half / p.w_row : S::COLS / 2, group_rows = p.w_group / p.w_row;
    const int64_t w_rows = (p.groups - 1) * group_rows + (GATED ? half_rows : 0) + p.cols;
    const struct tensor_map_2d x = {p.x.data,          TENSOR_MAP_BF16, p.inner,      p.rows,
                                    p.x.stride[0] * 2, DEPTH,           S::COPY_ROWS, SWIZZLE_128B};
    const struct tensor_map_2d w = {p.w.data,    TENSOR_MAP_BF16, p.inner,     w_rows,
                                    p.w_row * 2, DEPTH,           S::COLS / 2, SWIZZLE_128B};
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
