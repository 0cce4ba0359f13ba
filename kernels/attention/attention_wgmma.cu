/* attention_wgmma - attention over the paged cache on Hopper: TMA brings the tiles, wgmma
 * multiplies them (the shape of FlashAttention-3, Shah et al. 2024).
 * Shapes  q, out [T, H, D], row and head strides; k_cache, v_cache [pages, 16, G, D]; page_table
 *         [B, max_pages], query_start [B + 1], kv_len [B], int32. D = 64, 128 or 256.
 * Grid    A block a processor. A piece of work is 128 query rows of one sequence and one head; a block
 *         takes one a round, the rows that see most keys first. Its tiles are one stream over all
 *         pieces: while P V of a piece's last tile runs, the first scores of the next one do, too.
 * Block   3 warpgroups. Of the first a warp brings q and K, another V; the other two own 64 query
 *         rows each: S = Q K^T out of shared memory, softmax in registers, O += P V with P from
 *         registers. The products of two tiles overlap: while P V of the last tile runs, the
 *         softmax of this one is computed.
 * Tile    128 keys (64 when D > 128) in slices of 64 columns, 128-byte swizzle; the
 *         caches are matrices of pages * 16 rows x G D columns, a page and slice one box. Of a piece's
 *         last tile a consumer whose rows see its first half only multiplies that half.
 *         K, V and q are three rings with their own barriers: 160 KiB of shared memory at
 *         D = 64, 192 at 128 and 256.
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
#include "kernels/attention/attention_wgmma_rows.cuh"
#include "kernels/kernels.h"

namespace {

/* ---- the consumers: a warpgroup each ---- */

__device__ __forceinline__ void wait_full(struct ring &ring, int tile, int stages) {
    const int parity = tile / stages % 2 ^ SEEDED(BUG_WGMMA_WRONG_PARITY);
    mbarrier_wait(&ring.full[tile % stages], (uint32_t)parity);
}

/* Every warp says that it is through: a warp knows only of itself that its products are done. */
__device__ __forceinline__ void release(struct ring &ring, int tile, int stages) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(&ring.empty[tile % stages]);
}

/* s = Q K^T of the first N keys of one tile, 16 dims at a time. q: the warpgroup's first row. */
template <int N, int D>
__device__ __forceinline__ void issue_scores(float (&s)[N / 2], const bf16 *q, const shared_tiles<D> &tiles,
                                             int tile) {
    const uint64_t a = wgmma_desc(q, 16, 8 * SLICE_ROW, SWIZZLE_128B);
    const uint64_t b = wgmma_desc(tiles.k[tile % shape<D>::STAGES], 16, 8 * SLICE_ROW, SWIZZLE_128B);
    UNROLL
    for (int d = 0; d < D; d += 16) {
        const uint32_t column = d % SLICE * (uint32_t)sizeof(bf16);
        wgmma_m64nNk16<N, bf16>(s, wgmma_desc_advance(a, d / SLICE * (ROWS * SLICE_ROW) + column),
                                wgmma_desc_advance(b, d / SLICE * (shape<D>::KEYS * SLICE_ROW) + column),
                                d > 0);
    }
}

/* o += P V of the first N keys of one tile, 16 at a time. */
template <int N, int D>
__device__ __forceinline__ void issue_values(consumer<D> &c, const shared_tiles<D> &tiles, int tile) {
    const enum shared_swizzle swizzle = SEEDED(BUG_WGMMA_WRONG_SWIZZLE) ? SWIZZLE_64B : SWIZZLE_128B;
    const uint64_t b =
        wgmma_desc(tiles.v[tile % shape<D>::STAGES], shape<D>::KEYS * SLICE_ROW, 8 * SLICE_ROW, swizzle);
    wgmma_fence();
    UNROLL
    for (int i = 0; i < N / 16; i++)
        wgmma_m64nNk16_ra<D, bf16, MN_MAJOR>(c.o, c.p[i], wgmma_desc_advance(b, i * 16 * SLICE_ROW), true);
    wgmma_commit();
}

template <int D>
__device__ __forceinline__ void issue_values(consumer<D> &c, const shared_tiles<D> &tiles, int tile,
                                             bool half) {
    if (half && !SEEDED(BUG_WGMMA_STALE_WEIGHTS))
        issue_values<shape<D>::KEYS / 2>(c, tiles, tile);
    else
        issue_values<shape<D>::KEYS>(c, tiles, tile);
}

/* Named barriers 1 and 2: consumer i may issue its products. */
__device__ __forceinline__ void await_turn(int group) {
    named_barrier_sync(1 + group, CONSUMERS * WARPGROUP);
}
__device__ __forceinline__ void pass_turn(int group) {
    named_barrier_arrive(1 + (group ^ 1), CONSUMERS * WARPGROUP);
}

/* Where the running piece stands. Both consumers count alike. */
struct progress {
    int tile;     /* of the block, from 0 */
    int of_piece; /* the same of this piece */
    int piece;    /* of those with tiles */
    bool last;    /* tile of the piece */
    bool more;    /* tiles follow, of whatever piece */
    bool half;    /* was all that was computed of the tile before */
};

/* One tile, or the first N keys of it: its scores and weights, and P V of the tile before, which
 * runs beside the softmax. FIRST of its piece: that one ended another, `store` takes its outputs,
 * and while the products run `look_ahead` sees what comes behind this piece. */
template <int N, bool FIRST, int D, class LookAhead, class Store>
__device__ __forceinline__ void consume_tile(consumer<D> &c, const shared_tiles<D> &tiles,
                                             struct barriers &bars, const struct progress &at, float factor,
                                             int group, LookAhead look_ahead, Store store) {
    constexpr int STAGES = shape<D>::STAGES, Q_STAGES = shape<D>::Q_STAGES;
    float s[N / 2];
    if (FIRST) wait_full(bars.q, at.piece, Q_STAGES);
    if (shape<D>::TURNS) await_turn(group);
    accumulator_fresh(s);
    wgmma_fence();
    issue_scores<N>(s, tiles.q[at.piece % Q_STAGES][0][group * OWN_ROWS], tiles, at.tile);
    wgmma_commit();
    wait_full(bars.v, at.tile - 1, STAGES);
    issue_values(c, tiles, at.tile - 1, FIRST && at.half);
    if (shape<D>::TURNS) pass_turn(group);
    if (FIRST) look_ahead();
    if (SEEDED(BUG_WGMMA_RELEASE_BEFORE_WAIT)) release(bars.v, at.tile - 1, STAGES);
    const float early = SEEDED(BUG_WGMMA_COPY_IN_FLIGHT) ? s[0] : 0.0f;
    if (!SEEDED(BUG_WGMMA_USE_BEFORE_WAIT)) wgmma_wait<1>();
    accumulator_ready(s);
    if (SEEDED(BUG_WGMMA_COPY_IN_FLIGHT)) s[0] = early;
    release(bars.k, at.tile, STAGES);
    if (at.last) release(bars.q, at.piece, Q_STAGES);
    if (at.of_piece >= c.no_mask) mask_scores<N>(s, c, at.of_piece);
    softmax_step<N>(s, c, factor);
    /* Here, not where the next tile begins: the branch keeps ptxas from moving the
     * softmax behind the wait. */
    if (at.more) wait_full(bars.k, at.tile + 1, STAGES);
    wgmma_wait<0>();
    if (!SEEDED(BUG_WGMMA_RELEASE_BEFORE_WAIT)) release(bars.v, at.tile - 1, STAGES);
    accumulator_ready(c.o);
    if (FIRST) {
        store();
        clear_output(c);
    } else {
        shrink_output(c);
    }
    round_weights<N>(s, c);
}

/* The block's very first tile, before which there is none. */
template <int D>
__device__ __forceinline__ void consume_first(consumer<D> &c, const shared_tiles<D> &tiles,
                                              struct barriers &bars, const struct progress &at, float factor,
                                              int group) {
    constexpr int KEYS = shape<D>::KEYS, STAGES = shape<D>::STAGES;
    float s[KEYS / 2];
    clear_output(c);
    wait_full(bars.q, 0, shape<D>::Q_STAGES);
    wait_full(bars.k, 0, STAGES);
    accumulator_fresh(s);
    wgmma_fence();
    issue_scores<KEYS>(s, tiles.q[0][0][group * OWN_ROWS], tiles, 0);
    wgmma_commit();
    wgmma_wait<0>();
    accumulator_ready(s);
    release(bars.k, 0, STAGES);
    if (at.last) release(bars.q, 0, shape<D>::Q_STAGES);
    if (!c.no_mask) mask_scores<KEYS>(s, c, 0);
    softmax_step<KEYS>(s, c, factor);
    round_weights<KEYS>(s, c);
    if (at.more) wait_full(bars.k, 1, STAGES);
    if (shape<D>::TURNS && group == 1) pass_turn(group);
}

/* P V of the block's very last tile. */
template <int D>
__device__ __forceinline__ void consume_last(consumer<D> &c, const shared_tiles<D> &tiles,
                                             struct barriers &bars, int tile, bool half, int group) {
    if (shape<D>::TURNS && group == 0) await_turn(group); /* the other's last pass */
    wait_full(bars.v, tile, shape<D>::STAGES);
    issue_values(c, tiles, tile, half);
    wgmma_wait<0>();
    release(bars.v, tile, shape<D>::STAGES);
    accumulator_ready(c.o);
}

template <int D>
__device__ __forceinline__ void consume(const shared_tiles<D> &tiles, struct barriers &bars,
                                        const struct attention_args &a, float factor) {
    constexpr int KEYS = shape<D>::KEYS;
    const int group = warp_uniform((int)threadIdx.x / WARPGROUP - 1), thread = (int)threadIdx.x % WARPGROUP;
    const int row = group * OWN_ROWS + thread / 32 * 16 + thread % 32 / 4;
    consumer<D> c;
    work w = {}, before = {}, next = {};
    const auto nothing_seen = [&](const work &of) { store_zeros<D>(a, of, row); };
    int round = 0;
    struct progress at = {};
    if (!next_piece(a, KEYS, round, w, nothing_seen)) return;
    begin_piece(c, w, group, row);
    bool more = next_piece(a, KEYS, ++round, next, nothing_seen);
    const auto step = [&] { at.last = at.of_piece + 1 == w.n_tiles, at.more = more || !at.last; };
    const auto look_ahead = [&] {
        more = next_piece(a, KEYS, ++round, next, nothing_seen);
        step();
    };
    const auto store = [&] { store_rows(c, a, SEEDED(BUG_WGMMA_STORE_AT_NEXT) ? w : before, row); };
    const auto nothing = [] {};
    step();
    consume_first(c, tiles, bars, at, factor, group);
    for (;;) {
        for (at.of_piece++, at.tile++; at.of_piece < c.whole; at.of_piece++, at.tile++) {
            step();
            consume_tile<KEYS, false>(c, tiles, bars, at, factor, group, nothing, nothing);
        }
        at.half = at.of_piece < warp_uniform(w.n_tiles);
        if (at.half) {
            step();
            consume_tile<KEYS / 2, false>(c, tiles, bars, at, factor, group, nothing, nothing);
            at.of_piece++, at.tile++;
        }
        end_piece(c);
        if (!more) break;
        before = w, w = next;
        at.tile = warp_uniform(at.tile), at.piece = warp_uniform(at.piece);
        begin_piece(c, w, group, row);
        at.of_piece = 0, at.piece++;
        consume_tile<KEYS, true>(c, tiles, bars, at, factor, group, look_ahead, store);
    }
    consume_last(c, tiles, bars, at.tile - 1, at.half, group);
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
    if (threadIdx.x == 0) {
        mbarrier_init(&bars.tail, 1);
        for (int i = 0; i < shape<D>::STAGES; i++) {
            struct ring *const rings[] = {&bars.q, &bars.k, &bars.v};
            for (struct ring *ring : rings) {
                mbarrier_init(&ring->full[i], 1);
                mbarrier_init(&ring->empty[i], CONSUMER_WARPS);
            }
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        set_max_registers_dec<40>();
        const int warp = warp_uniform((int)threadIdx.x / 32);
        const producer<D> p = producer_of(tiles, bars, a);
        if (warp == 0) produce_keys(p, a, &q_map, &k_map);
        if (warp == 1) produce_values(p, a, &v_map);
    } else {
        set_max_registers_inc<232>();
        consume<D>(tiles, bars, a, factor);
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
    if (!aligned(&a->out, 16, a->out.stride[0]) || a->out.stride[1] % 8)
        return "needs heads of out that start at multiples of 16 bytes";
    if (a->n_tokens > INT32_MAX / 2 || a->max_kv > INT32_MAX / 2 || a->n_pages > INT32_MAX / PAGE - 1)
        return "needs fewer than 2^30 tokens and keys, and 2^31 cache slots";
    if (a->n_seqs > INT32_MAX / 2 || count_pieces(*a) > INT32_MAX / 2)
        return "needs fewer than 2^30 sequences, and pieces of 128 query rows";
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
