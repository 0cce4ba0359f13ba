/* attention_wgmma - attention over the paged cache on Hopper: TMA brings the tiles, wgmma
 * multiplies them (the shape of FlashAttention-3, Shah et al. 2024).
 * Shapes  q, out [T, H, D], row and head strides; k_cache, v_cache [pages, 16, G, D]; page_table
 *         [B, max_pages], query_start [B + 1], kv_len [B], int32. D = 64, 128 or 256.
 * Grid    A block a processor. A piece of work is 128 query rows of one sequence and one head; a block
 *         takes one a round, the rows that see most keys first. While its consumers end one, the
 *         tiles of the next are on their way.
 * Block   3 warpgroups. A warp of the first brings tiles; the other two own 64 query rows
 *         each: S = Q K^T out of shared memory, softmax in registers, O += P V with P from
 *         registers. The products of two tiles overlap: while P V of the last tile runs, the
 *         softmax of this one is computed.
 * Tile    128 keys (64 when D > 128) in slices of 64 columns, 128-byte swizzle; the
 *         caches are matrices of pages * 16 rows x G D columns, a page and slice one box.
 *         K and V are two rings with their own barriers: 144 KiB of shared memory at
 *         D = 64, 160 at 128, 192 at 256.
 * Keys    Pages past the sequence's end are not read: their boxes lie outside the matrix and come
 *         as zeros. Slots past its end in its last page may hold anything, NaN too. A score no row
 *         may see is dropped before the softmax, so K needs no care; P is 0 there, and 0 times NaN
 *         is NaN: the producer zeroes those rows of V before it hands the tile on.
 * Numerics bf16 in and out. Scores: tensor core, 16 dims at a time, rising. Weights 2^(s c - m c),
 *         with c = scale log2(e) rounded to fp32 and m a running maximum, one fused multiply-add
 *         and ex2.approx. The denominator adds the fp32 weights, P V takes them rounded to bf16, 16
 *         keys at a time, rising. One reciprocal, one product. Keys a row does not see enter as
 *         P = 0, so the bits of a row depend on its own q, keys and position in the sequence only;
 *         all keys of a sequence must be finite.
 * Needs   compute capability 9.0, pages of 16 without gaps, scale > 0, 16-byte aligned rows. */
/* SPDX-License-Identifier: MIT */
#include "kernels/attention/attention_wgmma_tiles.cuh"
#include "kernels/lang/ptx_math.cuh"
#include "kernels/kernels.h"

namespace {

/* ---- the consumers: a warpgroup each ---- */

/* Thread 32 u + 4 g + t of a consumer holds of its rows 16 u + g and 16 u + g + 8 the columns
 * 8 i + 2 t and 8 i + 2 t + 1: of a score tile s[4 i + j], of the output o[4 i + j]; j / 2 is
 * the row, j % 2 the column. */
template <int D> struct consumer {
    static constexpr int KEYS = shape<D>::KEYS;
    float o[D / 2];
    float s[KEYS / 2];
    uint32_t p[KEYS / 16][4]; /* the weights of 16 keys each, in bf16, as wgmma takes them */
    float top[2], sum[2];     /* of the two rows: maximum so far times c, own columns' sum */
    float shrink[2];          /* what sums and outputs so far are to be multiplied by */
    int limit[2];             /* keys the two rows see, less the thread's first column */
    int no_mask;              /* tiles that all rows of the warpgroup see whole */
};

__device__ __forceinline__ void wait_full(struct ring &ring, int tile, int stages) {
    const int parity = tile / stages % 2 ^ SEEDED(BUG_WGMMA_WRONG_PARITY);
    mbarrier_wait(&ring.full[tile % stages], (uint32_t)parity);
}

/* Every warp says that it is through: a warp knows only of itself that its products are done. */
__device__ __forceinline__ void release(struct ring &ring, int tile, int stages) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(&ring.empty[tile % stages]);
}

__device__ __forceinline__ void release_q(struct barriers &bars) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(&bars.q_empty);
}

/* s = Q K^T of one tile, 16 dims at a time. q: the warpgroup's first row. */
template <int D>
__device__ __forceinline__ void issue_scores(consumer<D> &c, const bf16 *q, const shared_tiles<D> &tiles,
                                             int tile) {
    const uint64_t a = wgmma_desc(q, 16, 8 * SLICE_ROW, SWIZZLE_128B);
    const uint64_t b = wgmma_desc(tiles.k[tile % shape<D>::STAGES], 16, 8 * SLICE_ROW, SWIZZLE_128B);
    UNROLL
    for (int d = 0; d < D; d += 16) {
        const uint32_t column = d % SLICE * (uint32_t)sizeof(bf16);
        wgmma_m64nNk16<shape<D>::KEYS, bf16>(
            c.s, wgmma_desc_advance(a, d / SLICE * (ROWS * SLICE_ROW) + column),
            wgmma_desc_advance(b, d / SLICE * (shape<D>::KEYS * SLICE_ROW) + column), d > 0);
    }
}

/* o += P V of one tile, 16 keys at a time. */
template <int D>
__device__ __forceinline__ void issue_values(consumer<D> &c, const shared_tiles<D> &tiles, int tile) {
    constexpr enum shared_swizzle SWIZZLE = SEEDED(BUG_WGMMA_WRONG_SWIZZLE) ? SWIZZLE_64B : SWIZZLE_128B;
    const uint64_t b =
        wgmma_desc(tiles.v[tile % shape<D>::STAGES], shape<D>::KEYS * SLICE_ROW, 8 * SLICE_ROW, SWIZZLE);
    UNROLL
    for (int i = 0; i < shape<D>::KEYS / 16; i++)
        wgmma_m64nNk16_ra<D, bf16, MN_MAJOR>(c.o, c.p[i], wgmma_desc_advance(b, i * 16 * SLICE_ROW), true);
}

/* Drop the scores that a row may not see. */
template <int D> __device__ __forceinline__ void mask_scores(consumer<D> &c, int tile) {
    const int seen[2] = {c.limit[0] - tile * shape<D>::KEYS, c.limit[1] - tile * shape<D>::KEYS};
    UNROLL
    for (int i = 0; i < shape<D>::KEYS / 8; i++) {
        UNROLL
        for (int j = 0; j < 4; j++) c.s[4 * i + j] = 8 * i + j % 2 < seen[j / 2] ? c.s[4 * i + j] : -INFINITY;
    }
}

/* One online-softmax step: scores become weights under the rows' new maxima. factor: c. A row that
 * has seen no key yet keeps the maximum -inf and gets weights 0. */
template <int D> __device__ __forceinline__ void softmax_step(consumer<D> &c, float factor) {
    constexpr int N = shape<D>::KEYS / 2;
    UNROLL
    for (int r = 0; r < 2; r++) {
        float largest = -INFINITY;
        UNROLL
        for (int i = 2 * r; i < N; i += 4) largest = fmaxf(largest, fmaxf(c.s[i], c.s[i + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, 2));
        const float top = fmaxf(c.top[r], largest * factor), base = top == -INFINITY ? 0.0f : top;
        c.shrink[r] = exp2_approx(c.top[r] - base);
        c.top[r] = top;
        float total = 0;
        UNROLL
        for (int i = 2 * r; i < N; i += 4) {
            c.s[i] = exp2_approx(fmaf(c.s[i], factor, -base));
            c.s[i + 1] = exp2_approx(fmaf(c.s[i + 1], factor, -base));
            total += c.s[i] + c.s[i + 1];
        }
        c.sum[r] = fmaf(c.sum[r], c.shrink[r], total);
    }
}

/* The weights become the left factor of P V: its registers are the columns of two
 * neighbouring blocks of 8. */
template <int D> __device__ __forceinline__ void round_weights(consumer<D> &c) {
    UNROLL
    for (int i = 0; i < shape<D>::KEYS / 16; i++) {
        UNROLL
        for (int j = 0; j < 4; j++) c.p[i][j] = pack_bf16(c.s[8 * i + 2 * j], c.s[8 * i + 2 * j + 1]);
    }
}

template <int D> __device__ __forceinline__ void shrink_output(consumer<D> &c) {
    UNROLL
    for (int i = 0; i < D / 2; i++) c.o[i] *= c.shrink[i / 2 % 2];
}

/* Named barriers 1 and 2: consumer i may issue its products. */
__device__ __forceinline__ void await_turn(int group) {
    named_barrier_sync(1 + group, CONSUMERS * WARPGROUP);
}
__device__ __forceinline__ void pass_turn(int group) {
    named_barrier_arrive(1 + (group ^ 1), CONSUMERS * WARPGROUP);
}

/* One tile: its scores and weights, and P V of the tile before, which runs beside the softmax.
 * `before` it the block has used so many of other pieces. */
template <int D>
__device__ __forceinline__ void consume_tile(consumer<D> &c, const bf16 *q, const shared_tiles<D> &tiles,
                                             struct barriers &bars, int before, int of_piece, float factor,
                                             int group, bool last) {
    constexpr int STAGES = shape<D>::STAGES;
    const int tile = before + of_piece;
    if (shape<D>::TURNS) await_turn(group);
    wgmma_fence();
    issue_scores(c, q, tiles, tile);
    wgmma_commit();
    wait_full(bars.v, tile - 1, STAGES);
    wgmma_fence();
    issue_values(c, tiles, tile - 1);
    wgmma_commit();
    if (shape<D>::TURNS && !(group == 1 && last)) pass_turn(group);
    if (SEEDED(BUG_WGMMA_RELEASE_BEFORE_WAIT)) release(bars.v, tile - 1, STAGES);
    const float early = SEEDED(BUG_WGMMA_COPY_IN_FLIGHT) ? c.s[0] : 0.0f;
    if (!SEEDED(BUG_WGMMA_USE_BEFORE_WAIT)) wgmma_wait<1>();
    accumulator_ready(c.s);
    if (SEEDED(BUG_WGMMA_COPY_IN_FLIGHT)) c.s[0] = early;
    release(bars.k, tile, STAGES);
    if (last) release_q(bars);
    if (of_piece >= c.no_mask) mask_scores(c, of_piece);
    softmax_step(c, factor);
    /* Here, not where the next tile begins: the branch keeps ptxas from moving the
     * softmax behind the wait. */
    if (!last) wait_full(bars.k, tile + 1, STAGES);
    wgmma_wait<0>();
    if (!SEEDED(BUG_WGMMA_RELEASE_BEFORE_WAIT)) release(bars.v, tile - 1, STAGES);
    accumulator_ready(c.o);
    shrink_output(c);
    round_weights(c);
}

/* out = o / sum for the rows the sequence has; a row that sees no key is 0. */
template <int D>
__device__ __forceinline__ void store_rows(const consumer<D> &c, const struct attention_args &a,
                                           const work &w, int row) {
    UNROLL
    for (int r = 0; r < 2; r++) {
        float sum = c.sum[r];
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 1);
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 2);
        const float inverse = sum == 0 ? 0.0f : 1.0f / sum;
        if (row + 8 * r >= w.n_rows) continue;
        bf16 *const to = (bf16 *)a.out.data + (w.first_row + row + 8 * r) * a.out.stride[0] +
                         w.head * a.out.stride[1] + threadIdx.x % 4 * 2;
        UNROLL
        for (int i = 0; i < D / 8; i++)
            *reinterpret_cast<uint32_t *>(to + 8 * i) =
                pack_bf16(c.o[4 * i + 2 * r] * inverse, c.o[4 * i + 2 * r + 1] * inverse);
    }
}

template <int D>
__device__ __forceinline__ void consume(const shared_tiles<D> &tiles, struct barriers &bars, const work &w,
                                        const struct done &before, const struct attention_args &a,
                                        float factor) {
    constexpr int KEYS = shape<D>::KEYS, STAGES = shape<D>::STAGES;
    const int first = before.tiles, behind = first + w.n_tiles - 1;
    const int group = (int)threadIdx.x / WARPGROUP - 1, thread = (int)threadIdx.x % WARPGROUP;
    const int row = group * OWN_ROWS + thread / 32 * 16 + thread % 32 / 4;
    const bf16 *const q = tiles.q[0][group * OWN_ROWS];
    consumer<D> c;
    c.no_mask = keys_seen(w, group * OWN_ROWS) / KEYS;
    for (int r = 0; r < 2; r++) {
        c.limit[r] = keys_seen(w, row + 8 * r) - thread % 4 * 2;
        c.top[r] = -INFINITY;
        c.sum[r] = 0;
    }
    UNROLL
    for (int i = 0; i < D / 2; i++) c.o[i] = 0;
    if (w.n_tiles) {
        mbarrier_wait(&bars.q, (uint32_t)(before.pieces % 2));
        wait_full(bars.k, first, STAGES);
        wgmma_fence();
        issue_scores(c, q, tiles, first);
        wgmma_commit();
        wgmma_wait<0>();
        accumulator_ready(c.s);
        release(bars.k, first, STAGES);
        if (w.n_tiles == 1) release_q(bars);
        if (!c.no_mask) mask_scores(c, 0);
        softmax_step(c, factor);
        round_weights(c);
        if (w.n_tiles > 1) {
            wait_full(bars.k, first + 1, STAGES);
            if (shape<D>::TURNS && group == 1) pass_turn(group);
        }
        for (int tile = 1; tile < w.n_tiles; tile++)
            consume_tile(c, q, tiles, bars, first, tile, factor, group, tile + 1 == w.n_tiles);
        wait_full(bars.v, behind, STAGES);
        wgmma_fence();
        issue_values(c, tiles, behind);
        wgmma_commit();
        wgmma_wait<0>();
        release(bars.v, behind, STAGES);
        accumulator_ready(c.o);
    }
    store_rows(c, a, w, row);
}

/* factor: scale log2(e) */
template <int D>
__global__ void __launch_bounds__(THREADS, 1)
    attention_wgmma_kernel(const __grid_constant__ struct tensor_map q_map,
                           const __grid_constant__ struct tensor_map k_map,
                           const __grid_constant__ struct tensor_map v_map, const struct attention_args a,
                           const float factor) {
    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    shared_tiles<D> &tiles = *carve.take_tile<shared_tiles<D>>(1);
    struct barriers &bars = *carve.take<struct barriers>(1);
    struct done before = {0, 0};
    work w;
    if (threadIdx.x == 0) {
        mbarrier_init(&bars.q, 1);
        mbarrier_init(&bars.q_empty, CONSUMER_WARPS);
        mbarrier_init(&bars.tail, 1);
        for (int i = 0; i < shape<D>::STAGES; i++) {
            mbarrier_init(&bars.k.full[i], 1);
            mbarrier_init(&bars.v.full[i], 1);
            mbarrier_init(&bars.k.empty[i], CONSUMER_WARPS);
            mbarrier_init(&bars.v.empty[i], CONSUMER_WARPS);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        set_max_registers_dec<40>();
        int tails = 0;
        if (threadIdx.x < 32)
            for (int round = 0; find_work(a, shape<D>::KEYS, round, w); round++, before.add(w))
                produce<D>(tiles, bars, w, before, tails, a, &q_map, &k_map, &v_map);
    } else {
        set_max_registers_inc<232>();
        for (int round = 0; find_work(a, shape<D>::KEYS, round, w); before.add(w), round++)
            if (w.n_rows) consume<D>(tiles, bars, w, before, a, factor);
    }
}

/* ---- launching ---- */

/* Rows of `heads` heads of D columns as a matrix; what lies beyond a row belongs to the next. */
const char *encode_rows(struct tensor_map *map, const struct view &of, int64_t rows, int64_t row_stride,
                        int64_t heads, int64_t head_stride, int64_t head_dim, int box_rows) {
    const int64_t cols = (heads - 1) * head_stride + head_dim;
    return tensor_map_encode(map, {of.data, TENSOR_MAP_BF16, cols < row_stride ? cols : row_stride, rows,
                                   row_stride * (int64_t)sizeof(bf16), SLICE, box_rows, SWIZZLE_128B});
}

template <int D> const char *launch_size(const struct attention_args *a, void *stream) {
    struct tensor_map q_map, k_map, v_map;
    const struct view &k = a->k_cache, &v = a->v_cache;
    const char *refused =
        encode_rows(&q_map, a->q, a->n_tokens, a->q.stride[0], a->n_heads, a->q.stride[1], D, ROWS);
    if (!refused)
        refused = encode_rows(&k_map, k, a->n_pages * PAGE, k.stride[1], a->n_kv_heads, k.stride[2], D, PAGE);
    if (!refused)
        refused = encode_rows(&v_map, v, a->n_pages * PAGE, v.stride[1], a->n_kv_heads, v.stride[2], D, PAGE);
    if (refused) return refused;
    const double log2_e = 1.4426950408889634;
    const size_t bytes = carve_tile_bytes<shared_tiles<D>>(1) + carve_bytes<struct barriers>(1);
#ifdef __CUDACC__
    const int64_t blocks = device_processors(DEVICE_CUDA);
#else
    const int64_t blocks = device_processors(DEVICE_HOST);
#endif
    const int64_t pieces = count_pieces(*a);
    const dim3 grid((unsigned)(pieces < blocks ? pieces : blocks));
    return LAUNCH((attention_wgmma_kernel<D>), grid, dim3(THREADS), bytes, stream, q_map, k_map, v_map, *a,
                  (float)(a->scale * log2_e));
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(attention_wgmma)(const struct call *call, void *, void *stream) {
    const struct attention_args *a = &call->u.attention;
#ifdef __CUDACC__
    if (device_compute(DEVICE_CUDA) != 90) return "attention_wgmma needs a GPU of compute capability 9.0";
#endif
    if (a->head_dim == 64) return launch_size<64>(a, stream);
    if (a->head_dim == 128) return launch_size<128>(a, stream);
    return launch_size<256>(a, stream);
}

#ifndef __CUDACC__
static bool aligned(const struct view *v, int64_t bytes, int64_t row_stride) {
    return (uintptr_t)v->data % bytes == 0 && row_stride * (int64_t)sizeof(bf16) % bytes == 0;
}

extern "C" const char *attention_wgmma_unsupported(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const struct view *const views[] = {&a->q, &a->k_cache, &a->v_cache, &a->out};
    for (const struct view *v : views)
        if (v->dtype != DTYPE_BF16) return "stores bf16 only";
    if (a->head_dim != 64 && a->head_dim != 128 && a->head_dim != 256)
        return "needs a head size of 64, 128 or 256";
    if (a->page_size != PAGE) return "needs pages of 16 keys: a page is one box of the copy engine";
    if (a->n_heads % a->n_kv_heads) return "needs the query heads to be a multiple of the kv heads";
    if (!(a->scale > 0)) return "needs a scale above 0: it takes the maximum before scaling";
    for (int i = 1; i <= 2; i++) {
        const struct view *const v = views[i];
        if (v->stride[0] != PAGE * v->stride[1]) return "needs pages that follow each other without gaps";
        if (!aligned(v, 16, v->stride[1])) return "needs cache slots that start at multiples of 16 bytes";
    }
    if (!aligned(&a->q, 16, a->q.stride[0])) return "needs rows of q that start at multiples of 16 bytes";
    if (!aligned(&a->out, 4, a->out.stride[0]) || a->out.stride[1] % 2)
        return "needs heads of out that start at multiples of 4 bytes";
    if (a->n_seqs > 65535 || a->max_queries > 65535 * ROWS)
        return "needs at most 65535 sequences and 2^23 queries in each";
    if (a->n_tokens > INT32_MAX / 2 || a->max_kv > INT32_MAX / 2 || a->n_pages > INT32_MAX / PAGE - 1)
        return "needs fewer than 2^30 tokens and keys, and 2^31 cache slots";
    return NULL;
}

extern "C" struct contract attention_wgmma_contract(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const struct accumulator tensor_core = {.unit = UNIT_F32,
                                            .block = 16,
                                            .fraction = 25,
                                            .keep = 24,
                                            .splits = 1,
                                            .order = ORDER_INTERVAL,
                                            .product_rounded = false,
                                            .slice = 0,
                                            .in_order = false};
    const int64_t keys = tile_keys((int)a->head_dim);
    struct contract c = {};
    c.op = OP_ATTENTION;
    c.u.attention.qk = c.u.attention.pv = tensor_core;
    c.u.attention.unit = UNIT_F32;
    c.u.attention.exp_error = 0x1p-22; /* ex2.approx.ftz; exp2f on the host: less than 1 ulp */
    c.u.attention.p_unit = UNIT_BF16;
    c.u.attention.p_in_order = true;
    c.u.attention.block = keys;
    /* A weight is added to its neighbour, then to the chain of its thread's keys of the tile; then
     * come one addition a tile and two among the four threads of a row. */
    c.u.attention.l_depth = 1 + (keys / 8 - 1) + (a->max_kv + keys - 1) / keys + 2;
    c.u.attention.splits = 1;
    return c;
}

extern "C" struct tile_sizes attention_wgmma_tiles(const struct call *call) {
    struct tile_sizes t = {};
    t.of[EXTENT_QUERIES] = {ROWS, 1};
    t.of[EXTENT_KEYS] = {tile_keys((int)call->u.attention.head_dim), 1};
    return t;
}
#endif
