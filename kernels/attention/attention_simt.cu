/* attention_simt - causal or full attention over the paged cache, many query rows per sequence.
 * Shapes  q, out [T, H, D], row and head strides; k_cache, v_cache [pages, page_size, G, D];
 *         page_table [B, max_pages], query_start [B + 1], kv_len [B], int32. Sequence b owns the
 *         query rows query_start[b] .. query_start[b + 1] - 1.
 * Grid    (ceil(max_queries / 64), H, B): a block owns 64 query rows of one sequence and one head,
 *         the rows that see most keys first. Blocks past the end of their sequence do nothing.
 * Block   4 warps; a thread owns 4 rows (a group). 8 neighbouring threads share a group and split
 *         first the keys of a tile, then the columns of the output, so a row never leaves its warp.
 * Tile    64 keys (32 when D > 128), in shared memory as floats: q and k with rows and keys as
 *         columns (a step of the dot product reads neighbours), v as it is, the weights: 68 KiB at
 *         D = 64, 116 at 128, 140 at 256.
 * Traffic k and v once per 64 query rows and query head (no reuse across a group of
 *         heads), q and out once.
 * Numerics fp32. Scores: one FMA chain over d, then times scale. Online softmax, one step a tile;
 *         weights stay fp32; the denominator adds a thread's neighbouring keys, then the 8 threads,
 *         then the tiles, all in key order. Output: one FMA chain over the keys, one division. A
 *         key that a row may not see is never multiplied into it, whatever it holds; a row without
 *         keys is 0. The bits of a row depend on its own q, keys and position in the sequence only:
 *         not on other heads, rows or sequences.
 * Needs   D <= 256, H % G == 0, one dtype. */
/* SPDX-License-Identifier: MIT */
#include "kernels/attention/query_tile.cuh"
#include "kernels/lang/octet.cuh"
#include "kernels/kernels.h"

namespace {

constexpr int ROWS = 64, GROUP = 4, COLUMNS = 8, THREADS = ROWS / GROUP * COLUMNS;
constexpr unsigned WHOLE_WARP = 0xffffffffu;

/* Where key `key` of the tile's sequence lies in a cache: [pages, page_size, G, D]. */
template <class T>
__device__ __forceinline__ const T *key_address(const struct view &cache, const struct attention_args &a,
                                                const query_tile &tile, int key) {
    const int page_size = (int)a.page_size;
    const int32_t *pages = (const int32_t *)a.page_table.data + tile.seq * a.page_table.stride[0];
    return (const T *)cache.data + pages[key / page_size] * cache.stride[0] +
           key % page_size * cache.stride[1] + tile.kv_head * cache.stride[2];
}

/* transposed[d][i] = source row i, for i < n; zeros for the rest of the `width` columns.
 * Neighbouring threads take neighbouring rows, so that the stores do not collide in a bank. */
template <class T, class Address>
__device__ void load_transposed(float *transposed, int width, int n, int head_dim, bool aligned,
                                Address address) {
    const int octets = (head_dim + OCTET - 1) / OCTET;
    for (int i = threadIdx.x; i < width * octets; i += THREADS) {
        const int row = i % width, d0 = i / width * OCTET;
        if (SEEDED(BUG_SIMT_NO_ZERO_FILL) && row >= n) continue;
        float v[OCTET] = {};
        if (row < n) octet_load<T>(v, address(row) + d0, aligned, head_dim - d0);
        for (int e = 0; e < OCTET && d0 + e < head_dim; e++) transposed[(d0 + e) * width + row] = v[e];
    }
}

/* values[i][d] = source row i, for i < n, zero beyond head_dim; the rows past n are nobody's. */
template <class T, class Address>
__device__ void load_rows(float *values, int width, int n_rows, int n, int head_dim, bool aligned,
                          Address address) {
    const int octets = width / OCTET;
    for (int i = threadIdx.x; i < n * octets; i += THREADS) {
        const int row = i / octets, d0 = i % octets * OCTET;
        float v[OCTET] = {};
        if (d0 < head_dim) octet_load<T>(v, address(row) + d0, aligned, head_dim - d0);
        for (int e = 0; e < OCTET; e++) values[row * width + d0 + e] = v[e];
    }
    if (threadIdx.x == 0) shared_stale(values + n * width, (size_t)(n_rows - n) * width * sizeof(float));
    for (int d = threadIdx.x; SEEDED(BUG_SIMT_SHARED_OVERRUN) && d < width; d += THREADS)
        values[n_rows * width + d] = 0;
}

/* score[r][j] = sum over d of q[d][r] k[d][j]; q and k point at the group's first row and
 * the thread's first key. */
template <int KEYS>
__device__ __forceinline__ void multiply_q_k(float (&score)[GROUP][KEYS], const float *__restrict__ q,
                                             const float *__restrict__ k, int head_dim) {
    for (int d = 0; d < head_dim; d++) {
        UNROLL
        for (int r = 0; r < GROUP; r++) {
            LANE_LOOP
            for (int j = 0; j < KEYS; j++)
                score[r][j] = fmaf(q[d * ROWS + r], k[d * COLUMNS * KEYS + j], score[r][j]);
        }
    }
}

/* out[r] += weight[j][r] v[j] for keys j0 <= j < j1 and rows r >= r0. A thread's columns are runs
 * of RUN, one out of every 8 RUN. */
template <int RUNS, int RUN>
__device__ __forceinline__ void multiply_p_v(float (&out)[GROUP][RUNS][RUN], const float *__restrict__ weight,
                                             const float *__restrict__ v, int j0, int j1, int r0) {
    for (int j = j0; j < j1; j++) {
        UNROLL
        for (int r = 0; r < GROUP; r++) {
            if (r < r0) continue;
            UNROLL
            for (int i = 0; i < RUNS; i++) {
                LANE_LOOP
                for (int e = 0; e < RUN; e++)
                    out[r][i][e] =
                        fmaf(weight[j * ROWS + r], v[(j * RUNS + i) * COLUMNS * RUN + e], out[r][i][e]);
            }
        }
    }
}

/* The rows of a group as one thread holds them; top and sum are the same in all
 * threads of the group. */
template <int RUNS, int RUN> struct group_state {
    int row0;         /* of the group, in the tile */
    int column;       /* which eighth of keys and output columns is ours */
    int limit[GROUP]; /* keys each row sees */
    float top[GROUP], sum[GROUP], out[GROUP][RUNS][RUN];
};

template <int RUNS, int RUN>
__device__ __forceinline__ void group_init(group_state<RUNS, RUN> &g, const query_tile &tile) {
    g.row0 = (int)threadIdx.x / COLUMNS * GROUP;
    g.column = (int)threadIdx.x % COLUMNS;
    UNROLL
    for (int r = 0; r < GROUP; r++) {
        g.limit[r] = g.row0 < tile.n_rows ? keys_seen(tile, g.row0 + r) : 0;
        g.top[r] = -INFINITY;
        g.sum[r] = 0;
        UNROLL
        for (int i = 0; i < RUNS; i++) {
            LANE_LOOP
            for (int e = 0; e < RUN; e++) g.out[r][i][e] = 0;
        }
    }
}

/* Shared memory through which the 8 threads of a group talk, and their weights. */
struct exchange {
    float *weight;              /* [TILE][ROWS] */
    float *part_max, *part_sum; /* [COLUMNS][ROWS] */
};

/* One online-softmax step: from scaled scores to weights under the rows' new maxima. Keys
 * that a row does not see take no part. shrink[r]: what the row's sums and outputs so far
 * are to be multiplied by. */
template <int KEYS, int RUNS, int RUN>
__device__ __forceinline__ void softmax_step(group_state<RUNS, RUN> &g, const float (&score)[GROUP][KEYS],
                                             const int (&seen)[GROUP], const exchange &x,
                                             float (&shrink)[GROUP]) {
    float *const own_max = x.part_max + g.column * ROWS + g.row0, *const own_sum =
                                                                      x.part_sum + (own_max - x.part_max);
    const int key0 = g.column * KEYS;
    UNROLL
    for (int r = 0; r < GROUP; r++) {
        float largest = -INFINITY;
        UNROLL
        for (int j = 0; j < KEYS; j++)
            largest = key0 + j < seen[r] && score[r][j] > largest ? score[r][j] : largest;
        own_max[r] = largest;
    }
    if (!SEEDED(BUG_SIMT_NO_WARP_SYNC)) __syncwarp(WHOLE_WARP);
    UNROLL
    for (int r = 0; r < GROUP; r++) {
        float largest = g.top[r], total = 0;
        UNROLL
        for (int c = 0; c < COLUMNS; c++) {
            const float other = x.part_max[c * ROWS + g.row0 + r];
            largest = other > largest ? other : largest;
        }
        shrink[r] = g.top[r] == largest ? 1.0f : expf(g.top[r] - largest);
        g.top[r] = largest;
        UNROLL
        for (int j = 0; j < KEYS; j++) {
            const float p = key0 + j < seen[r] ? expf(score[r][j] - largest) : 0.0f;
            x.weight[(key0 + j) * ROWS + g.row0 + r] = p;
            total += p;
        }
        own_sum[r] = total;
    }
    __syncwarp(WHOLE_WARP);
    UNROLL
    for (int r = 0; r < GROUP; r++) {
        float total = 0;
        UNROLL
        for (int c = 0; c < COLUMNS; c++) total += x.part_sum[c * ROWS + g.row0 + r];
        g.sum[r] = fmaf(g.sum[r], shrink[r], total);
    }
}

template <int RUNS, int RUN>
__device__ __forceinline__ void add_values(group_state<RUNS, RUN> &g, const float (&shrink)[GROUP],
                                           const int (&seen)[GROUP], const float *weight, const float *v) {
    UNROLL
    for (int r = 0; r < GROUP; r++) {
        UNROLL
        for (int i = 0; i < RUNS; i++) {
            LANE_LOOP
            for (int e = 0; e < RUN; e++) g.out[r][i][e] *= shrink[r];
        }
    }
    /* Rows of a group see almost the same keys: first those that all see, then what
     * the later rows see more. */
    multiply_p_v<RUNS, RUN>(g.out, weight + g.row0, v + g.column * RUN, 0, seen[0], 0);
    UNROLL
    for (int r = 1; r < GROUP; r++)
        multiply_p_v<RUNS, RUN>(g.out, weight + g.row0, v + g.column * RUN, seen[r - 1], seen[r], r);
}

template <class T, int RUNS, int RUN>
__device__ __forceinline__ void store_group(const group_state<RUNS, RUN> &g, const struct attention_args &a,
                                            const query_tile &tile) {
    UNROLL
    for (int r = 0; r < GROUP; r++) {
        if (g.row0 + r >= tile.n_rows) continue;
        T *to =
            (T *)a.out.data + (tile.first_row + g.row0 + r) * a.out.stride[0] + tile.head * a.out.stride[1];
        UNROLL
        for (int i = 0; i < RUNS; i++) {
            UNROLL
            for (int e = 0; e < RUN; e++) {
                const int d = (i * COLUMNS + g.column) * RUN + e;
                if (d < a.head_dim) to[d] = from_float<T>(g.limit[r] ? g.out[r][i][e] / g.sum[r] : 0.0f);
            }
        }
    }
}

/* KEYS per thread and tile; the output is padded to RUNS * 8 * RUN columns. */
template <class T, int KEYS, int RUNS, int RUN>
__global__ void __launch_bounds__(THREADS)
    attention_simt_kernel(const struct attention_args a, const bool aligned) {
    constexpr int TILE = COLUMNS * KEYS, WIDTH = RUNS * COLUMNS * RUN;
    const int head_dim = (int)a.head_dim;
    DYNAMIC_SHARED(shared);
    struct carve carve = {shared};
    float *const q = carve.take<float>(head_dim * ROWS); /* [D][ROWS] */
    float *const k = carve.take<float>(head_dim * TILE); /* [D][TILE] */
    float *const v = carve.take<float>(TILE * WIDTH);    /* [TILE][WIDTH] */
    exchange x;
    x.weight = carve.take<float>(TILE * ROWS);
    x.part_max = carve.take<float>(COLUMNS * ROWS);
    x.part_sum = carve.take<float>(COLUMNS * ROWS);

    const query_tile tile = find_query_tile<ROWS>(a);
    const int n_keys = keys_seen(tile);
    group_state<RUNS, RUN> g;
    group_init(g, tile);
    load_transposed<T>(q, ROWS, tile.n_rows, head_dim, aligned, [&](int row) {
        return (const T *)a.q.data + (tile.first_row + row) * a.q.stride[0] + tile.head * a.q.stride[1];
    });

    for (int first = 0; first < n_keys; first += TILE) {
        const int n = SEEDED(BUG_SIMT_READ_PAST_END) ? TILE : min(TILE, n_keys - first);
        load_transposed<T>(k, TILE, n, head_dim, aligned,
                           [&](int key) { return key_address<T>(a.k_cache, a, tile, first + key); });
        load_rows<T>(v, WIDTH, TILE, n, head_dim, aligned,
                     [&](int key) { return key_address<T>(a.v_cache, a, tile, first + key); });
        if (!SEEDED(BUG_SIMT_NO_SYNC_AFTER_FILL)) __syncthreads();

        int seen[GROUP]; /* of the keys of this tile */
        float score[GROUP][KEYS] = {}, shrink[GROUP];
        UNROLL
        for (int r = 0; r < GROUP; r++) seen[r] = max(0, min(g.limit[r] - first, n));
        if (g.column * KEYS < seen[GROUP - 1]) multiply_q_k(score, q + g.row0, k + g.column * KEYS, head_dim);
        UNROLL
        for (int r = 0; r < GROUP; r++) {
            LANE_LOOP
            for (int j = 0; j < KEYS; j++) score[r][j] *= (float)a.scale;
        }
        softmax_step(g, score, seen, x, shrink);
        add_values(g, shrink, seen, x.weight, v);
        if (!SEEDED(BUG_SIMT_NO_SYNC_BEFORE_REFILL)) __syncthreads();
    }
    store_group<T>(g, a, tile);
}

template <class T, int KEYS, int RUNS, int RUN>
const char *launch_width(const struct attention_args *a, void *stream) {
    constexpr int TILE = COLUMNS * KEYS, WIDTH = RUNS * COLUMNS * RUN;
    const bool aligned =
        view_is_aligned<T>(a->q, 2) && view_is_aligned<T>(a->k_cache, 3) && view_is_aligned<T>(a->v_cache, 3);
    const size_t bytes = carve_bytes<float>(a->head_dim * ROWS) + carve_bytes<float>(a->head_dim * TILE) +
                         carve_bytes<float>(TILE * WIDTH) + carve_bytes<float>(TILE * ROWS) +
                         2 * carve_bytes<float>(COLUMNS * ROWS);
    return LAUNCH((attention_simt_kernel<T, KEYS, RUNS, RUN>), query_grid(*a, ROWS), dim3(THREADS), bytes,
                  stream, *a, aligned);
}

/* Keys per thread and tile: fewer where shared memory is short. Part of the contract:
 * head size alone decides. */
constexpr int KEYS_NARROW = 8, KEYS_WIDE = 4, NARROW_HEAD_DIM = 128;

template <class T> const char *launch_dtype(const struct attention_args *a, void *stream) {
    if (a->head_dim <= 8) return launch_width<T, KEYS_NARROW, 1, 1>(a, stream);
    if (a->head_dim <= 16) return launch_width<T, KEYS_NARROW, 1, 2>(a, stream);
    if (a->head_dim <= 32) return launch_width<T, KEYS_NARROW, 1, 4>(a, stream);
    if (a->head_dim <= 64) return launch_width<T, KEYS_NARROW, 1, 8>(a, stream);
    if (a->head_dim <= NARROW_HEAD_DIM) return launch_width<T, KEYS_NARROW, 2, 8>(a, stream);
    return launch_width<T, KEYS_WIDE, 4, 8>(a, stream);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(attention_simt)(const struct call *call, void *, void *stream) {
    const struct attention_args *a = &call->u.attention;
    return with_storage(a->q.dtype, [&](auto t) { return launch_dtype<decltype(t)>(a, stream); });
}

#ifndef __CUDACC__
extern "C" const char *attention_simt_unsupported(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const struct view *const views[] = {&a->q, &a->k_cache, &a->v_cache, &a->out};
    if (a->head_dim > 256) return "needs a head size of at most 256";
    if (a->n_heads % a->n_kv_heads) return "needs the query heads to be a multiple of the kv heads";
    if (a->n_heads > 65535 || a->n_seqs > 65535) return "needs at most 65535 heads and 65535 sequences";
    if (a->max_kv > INT32_MAX / 2) return "needs fewer than 2^30 keys";
    return storage_unsupported(views, 4);
}

static int thread_keys(int64_t head_dim) { return head_dim <= NARROW_HEAD_DIM ? KEYS_NARROW : KEYS_WIDE; }

extern "C" struct contract attention_simt_contract(const struct call *call) {
    const struct attention_args *a = &call->u.attention;
    const int keys = thread_keys(a->head_dim);
    const struct accumulator fma_chain = {UNIT_F32, 1, 0, 0, 0, ORDER_INTERVAL, false, 0, false};
    struct contract c = {};
    c.op = OP_ATTENTION;
    c.u.attention.qk = c.u.attention.pv = fma_chain;
    c.u.attention.unit = UNIT_F32;
    c.u.attention.exp_error = 0x1p-22; /* expf: at most 2 ulp on the GPU, less than 1 on the host */
    c.u.attention.block = COLUMNS * keys;
    /* A term passes the chain of its thread's keys, that of the group's threads, and
     * one addition per tile. */
    c.u.attention.l_depth = (keys - 1) + (COLUMNS - 1) + (a->max_kv + COLUMNS * keys - 1) / (COLUMNS * keys);
    c.u.attention.splits = 1;
    return c;
}

extern "C" struct tile_sizes attention_simt_tiles(const struct call *call) {
    struct tile_sizes t = {};
    t.of[EXTENT_QUERIES] = {ROWS, 1};
    t.of[EXTENT_KEYS] = {COLUMNS * thread_keys(call->u.attention.head_dim), 1};
    return t;
}
#endif
