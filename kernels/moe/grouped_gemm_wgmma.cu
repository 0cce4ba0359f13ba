/* grouped_gemm_wgmma, gated_gemm_wgmma - the products of the experts on Hopper's own instructions (sm_90a):
 *   linear  out[r, c] = w[i, c] . x[r]                                        for the rows r of group i
 *   gated   out[r, c] = silu(w[i, 0, c] . x[r]) * (w[i, 1, c] . x[r])
 * Shapes  x [rows, K], w [groups, N, K] or [groups, 2, F, K], offsets int32 [groups + 1],
 *         out [rows, N or F]; bf16; any strides that keep rows at 16-byte multiples.
 * Grid    persistent, one block a multiprocessor: block b takes the tiles b, b + blocks, .. of one list:
 *         groups in order, in a group bands of BAND row tiles, in a band column by column, so that blocks
 *         that run together share x and w in the second cache. Every block walks the offsets itself.
 * Block   one or two consumer warpgroups, 64 rows each, then a warpgroup of which one thread copies.
 * Tile    128 rows x 256 rows of w, 4 stages of 64 k; 64 x 128 and 8 stages where groups hold very few rows
 *         (w streams from memory, 128 KiB under way, x is copied 16 rows at a time) or tiles are too few for
 *         the multiprocessors. Gated: half the rows of w are gates, half the ups of the same columns, so one
 *         product leaves both in one thread's registers. Rows past the group belong to another one, or to an
 *         earlier stage, and are dropped at the store; a warpgroup without rows multiplies nothing.
 *         Stage: x [warpgroups][64][64], w [2][COLS / 2][64] with 128-byte rows, swizzled as TMA writes and
 *         wgmma reads them. full[s]: the copies came; empty[s]: every consumer warp is done with the stage.
 * Traffic w once per row tile, x once per column tile, in 128-byte pieces; out once, in 128-byte rows.
 * Numerics tensor core, fp32, k ascending in blocks of 16 from zero: the bits of an element depend on its row
 *         of x and its rows of w alone, not on tile, group or neighbours (TMA fills K up with zeros, which
 *         add nothing). Gated: silu and product in fp32 on the sums. One rounding to bf16 at the end. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/octet.cuh"
#include "kernels/lang/ptx.cuh"
#include "kernels/kernels.h"

namespace {

constexpr int WARPGROUP = 128, SLAB = 64; /* threads of a warpgroup, rows it multiplies */
constexpr int DEPTH = 64, INNER = 16;     /* k of a stage: rows of 128 bytes; k of one instruction */
constexpr int ATOM_BYTES = 8 * DEPTH * 2; /* eight swizzled rows */
constexpr int BAND = 16;                  /* row tiles */
constexpr int PIECE = 64;                 /* columns a warp stores at once */
constexpr int PITCH = PIECE + 8;          /* of them in shared memory: spreads rows over banks */

/* COLS: rows of w; COPY_ROWS: rows of x per copy. */
template <int CONSUMERS_, int COLS_, int COPY_ROWS_, int STAGES_> struct tile_shape {
    static constexpr int CONSUMERS = CONSUMERS_, COLS = COLS_, COPY_ROWS = COPY_ROWS_, STAGES = STAGES_;
    static constexpr int ROWS = CONSUMERS * SLAB, THREADS = (CONSUMERS + 1) * WARPGROUP;
    static constexpr int WARPS = CONSUMERS * 4;
    static constexpr int SUMS = SLAB * COLS / WARPGROUP; /* of a thread */
    static constexpr int X_SLAB = SLAB * DEPTH, W_HALF = COLS / 2 * DEPTH;
    static constexpr int X_TILE = CONSUMERS * X_SLAB, STAGE = X_TILE + 2 * W_HALF; /* elements */
    static constexpr size_t shared_bytes() {
        return carve_bytes<bf16>(STAGES * STAGE) + carve_bytes<bf16>(WARPS * INNER * PITCH) +
               2 * carve_bytes<struct mbarrier>(STAGES);
    }
};
typedef tile_shape<2, 256, SLAB, 4> tall_tile;
typedef tile_shape<1, 128, 16, 8> flat_tile;

struct product_args {
    const int32_t *offsets; /* [n_groups + 1], or NULL: one group */
    bf16 *out;
    int64_t out_stride;
    int n_rows, n_cols, n_groups, steps; /* steps: of DEPTH k */
    int col_tiles, tile_cols;            /* tile_cols: columns of out */
    int half_rows, group_rows; /* rows of w from a tile's first half to its second, between groups */
};

/* ---- which tile ---- */

struct tile_walk {
    int index;         /* of the tile in the list of all */
    int group, before; /* tiles of the groups before `group` */
};
struct tile_place {
    int row, n_rows; /* first row; rows of the group from there on, at most the tile's */
    int col, w_row;  /* first column of out, first row of w */
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
            const int in_band = i - band * a.col_tiles;
            tile.row = first + (band + in_band % height) * S::ROWS;
            tile.n_rows = min(end - tile.row, S::ROWS);
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
        *reinterpret_cast<octet<bf16> *>(at.stages + i / OCTETS * S::STAGE + i % OCTETS * OCTET) = zero;
    fence_proxy_async();
}

/* One thread: copy every tile of the block, stage by stage, as the consumers give stages back. */
template <class S>
__device__ __forceinline__ void produce(ring<S> at, const struct tensor_map *x_map,
                                        const struct tensor_map *w_map, const product_args &a) {
    tile_walk walk = {(int)blockIdx.x, 0, 0};
    for (tile_place tile; find_tile<S>(tile, walk, a); walk.index += (int)gridDim.x) {
        const int copies = (tile.n_rows + S::COPY_ROWS - 1) / S::COPY_ROWS;
        uint32_t bytes = (uint32_t)((copies * S::COPY_ROWS * DEPTH + 2 * S::W_HALF) * sizeof(bf16));
#ifdef BUG_GEMM_WRONG_TX_BYTES
        bytes += 16;
#endif
        for (int k = 0; k < a.steps; k++, at.advance()) {
#ifndef BUG_GEMM_NO_EMPTY_WAIT
            mbarrier_wait(&at.empty[at.stage], at.parity ^ 1);
#endif
            struct mbarrier *const full = &at.full[at.stage];
            bf16 *const x = at.data(), *const w = x + S::X_TILE;
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
}

template <class S> __device__ __forceinline__ void release(const ring<S> &at, int stage) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(&at.empty[stage]);
}

/* sums = the warpgroup's slab of x times the tile of w, over all k. While a stage is multiplied, the one
 * before is given back. */
template <class S>
__device__ __forceinline__ void multiply(float (&sums)[S::SUMS], ring<S> &at, int slab, int steps) {
    int last = 0;
    for (int k = 0; k < steps; k++, at.advance()) {
        mbarrier_wait(&at.full[at.stage], at.parity);
        const bf16 *stage = at.data();
#ifdef BUG_GEMM_STAGE_OFF_BY_ONE
        stage = at.stages + (at.stage + 1) % S::STAGES * S::STAGE;
#endif
        enum shared_swizzle swizzle = SWIZZLE_128B;
#ifdef BUG_GEMM_WRONG_SWIZZLE
        swizzle = SWIZZLE_64B;
#endif
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

/* The tile has no row for this warpgroup: only keep in step. A lane that gave a stage back before the others
 * saw it full would let the barrier run a phase ahead of them; in multiply, wgmma keeps lanes together. */
template <class S> __device__ __forceinline__ void pass(ring<S> &at, int steps) {
    for (int k = 0; k < steps; k++, at.advance()) {
        mbarrier_wait(&at.full[at.stage], at.parity);
        __syncwarp();
        release(at, at.stage);
    }
}

/* ---- the way out ---- */

/* exp(-x) overflows only where silu is 0 to storage. Two ulp each for exp2f and the quotient. */
__device__ __forceinline__ float silu(float x) {
    const float denominator = 1.0f + exp2f(x * -0x1.715476p+0f); /* log2 e */
#ifdef __CUDACC__
    return __fdividef(x, denominator);
#else
    return x / denominator;
#endif
}

/* Columns c, c + 1 of two neighbouring sums of the thread, rounded. */
template <bool GATED, int SUMS> __device__ __forceinline__ uint32_t finish(const float (&s)[SUMS], int i) {
    if (GATED) return pack_bf16(silu(s[i]) * s[SUMS / 2 + i], silu(s[i + 1]) * s[SUMS / 2 + i + 1]);
    return pack_bf16(s[i], s[i + 1]);
}

/* A warp's 16 rows go out PIECE columns at a time through its own 16 x PITCH of shared memory, so that eight
 * lanes store a row's 128 bytes. */
template <class S, bool GATED>
__device__ __forceinline__ void store(const float (&sums)[S::SUMS], bf16 *staging, const tile_place &tile,
                                      const product_args &a) {
    constexpr int COLS = GATED ? S::COLS / 2 : S::COLS;
    const int lane = (int)threadIdx.x % 32, warp_row = (int)threadIdx.x / 32 * INNER;
    int n_rows = tile.n_rows - warp_row;
#ifdef BUG_GEMM_GROUP_BOUNDARY
    n_rows = a.n_rows - tile.row - warp_row;
#endif
    bf16 *const out = a.out + (tile.row + warp_row) * a.out_stride + tile.col;
    UNROLL
    for (int col = 0; col < COLS; col += PIECE) {
        if (tile.col + col >= a.n_cols || n_rows <= 0) break;
        UNROLL
        for (int c = 0; c < PIECE; c += 16) { /* four 8 x 8 matrices: rows 0, rows 8, the next 8 columns */
            const int i = (col + c) / 2;
            const uint32_t r[4] = {finish<GATED>(sums, i), finish<GATED>(sums, i + 2),
                                   finish<GATED>(sums, i + 4), finish<GATED>(sums, i + 6)};
            stmatrix_x4(staging + lane % 16 * PITCH + c + lane / 16 * 8, r);
        }
        __syncwarp();
        UNROLL
        for (int row = lane / 8; row < INNER; row += 4) {
            const int c = lane % 8 * OCTET;
            const octet<bf16> o = *reinterpret_cast<const octet<bf16> *>(staging + row * PITCH + c);
            if (row < n_rows && tile.col + col + c < a.n_cols) /* an octet lies wholly inside or outside */
                *reinterpret_cast<octet<bf16> *>(out + row * a.out_stride + col + c) = o;
        }
        __syncwarp();
    }
}

template <class S, bool GATED>
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
        store<S, GATED>(sums, staging, tile, a);
    }
}

template <class S, bool GATED>
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
        consume<S, GATED>(at, staging + threadIdx.x / 32 * INNER * PITCH, a);
    }
}

/* ---- launchers ---- */

/* Either op, in elements. */
struct product {
    struct view x, w, out, offsets;
    int64_t rows, cols, inner, groups;
    int64_t w_row, w_half, w_group; /* from a row of w to the next, from gate to up, from group to group */
};

struct product linear_product(const struct linear_args &a) {
    return {a.x,       a.w,        a.out,         a.offsets, a.n_rows,     a.n_cols,
            a.n_inner, a.n_groups, a.w.stride[1], 0,         a.w.stride[0]};
}
struct product gated_product(const struct gated_linear_args &a) {
    return {a.x,       a.w,        a.out,         a.offsets,     a.n_rows,     a.width,
            a.n_inner, a.n_groups, a.w.stride[2], a.w.stride[1], a.w.stride[0]};
}

/* At most so many tiles: every group may end in one that is not full. */
int64_t max_tiles(const struct product &p, int64_t tile_rows, int64_t tile_cols) {
    return (p.rows / tile_rows + p.groups) * ((p.cols + tile_cols - 1) / tile_cols);
}

int64_t processors() {
#ifdef __CUDACC__
    int device = 0, n = 0;
    const cudaError_t error = cudaGetDevice(&device);
    return error || cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) ? 1 : n;
#else
    return 4; /* few, so that a block sees several tiles there too */
#endif
}

template <class S, bool GATED> const char *launch_tile(const struct product &p, void *stream) {
    constexpr int TILE_COLS = GATED ? S::COLS / 2 : S::COLS;
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
    return LAUNCH((product_kernel<S, GATED>), dim3((unsigned)blocks), dim3(S::THREADS), S::shared_bytes(),
                  stream, x_map, w_map, a);
}

template <bool GATED> const char *launch(const struct product &p, void *stream) {
    if (!p.rows) return nullptr;
    const bool few_rows = p.rows <= p.groups * flat_tile::COPY_ROWS; /* on average */
    const int64_t tall_tiles = max_tiles(p, tall_tile::ROWS, tall_tile::COLS / (GATED ? 2 : 1));
    return few_rows || tall_tiles < processors() ? launch_tile<flat_tile, GATED>(p, stream)
                                                 : launch_tile<tall_tile, GATED>(p, stream);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(grouped_gemm_wgmma)(const struct call *call, void *scratch,
                                                         void *stream) {
    (void)scratch;
    return launch<false>(linear_product(call->u.linear), stream);
}
extern "C" const char *KERNEL_SYMBOL(gated_gemm_wgmma)(const struct call *call, void *scratch, void *stream) {
    (void)scratch;
    return launch<true>(gated_product(call->u.gated_linear), stream);
}

#ifndef __CUDACC__
/* One chain of tensor-core blocks of 16, k ascending, on sm_90: 25 bits are aligned, 24 kept. */
static const struct accumulator sm_90_chain = {0, 16, 25, 24, 0, ORDER_INTERVAL, false};

extern "C" struct contract grouped_gemm_wgmma_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_LINEAR;
    c.u.linear.acc = sm_90_chain;
    return c;
}

/* The activation is what silu_mul does, on the unrounded sums: x log2(e) is off by 1.3 units of x, exp2f by
 * 2 ulp (2^-22), 1 + e by one unit, the quotient by 2 ulp, the product by one unit. */
extern "C" struct contract gated_gemm_wgmma_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_GATED_LINEAR;
    c.u.gated_linear.acc = sm_90_chain;
    c.u.gated_linear.activation.unit = UNIT_F32;
    c.u.gated_linear.activation.exp_error = 0x1p-22;
    return c;
}

static bool rows_start_at_16_bytes(const struct view &v, int64_t stride) {
    return (uintptr_t)v.data % 16 == 0 && stride % OCTET == 0;
}

static const char *unsupported(const struct product &p) {
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

extern "C" const char *grouped_gemm_wgmma_unsupported(const struct call *call) {
    if (call->u.linear.bias.data) return "adds no bias";
    return unsupported(linear_product(call->u.linear));
}
extern "C" const char *gated_gemm_wgmma_unsupported(const struct call *call) {
    return unsupported(gated_product(call->u.gated_linear));
}
#endif
