/* conformance - micro-kernels: each uses one instruction wrapper and writes all it can see to
 * `out`. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/ptx.cuh"
#include "tests/kernels/conformance.h"

typedef const struct conformance_input input_t;

static __device__ uint32_t bits_of(float x) { return __float_as_uint(x); }

/* ---- pack ---- */

static __global__ void pack(input_t *in, uint32_t *out, int f16_type) {
    for (int i = (int)threadIdx.x; i < CONFORMANCE_FLOATS / 2; i += (int)blockDim.x) {
        const float low = in->floats[2 * i], high = in->floats[2 * i + 1];
        out[i] = f16_type ? pack_f16(low, high) : pack_bf16(low, high);
    }
}

/* ---- ldmatrix, stmatrix: row i of the matrices lies in row i * 5 % 32 of shared memory ---- */

template <int MATRICES, bool TRANSPOSED> static __global__ void load_matrix(input_t *in, uint32_t *out) {
    DYNAMIC_SHARED(shared);
    uint32_t *words = reinterpret_cast<uint32_t *>(shared);
    const int lane = (int)threadIdx.x;
    for (int i = lane; i < 128; i += 32) words[i] = reinterpret_cast<const uint32_t *>(in->raw)[i];
    __syncwarp();
    uint32_t r[4] = {0, 0, 0, 0};
    const unsigned char *row = shared + lane * 5 % 32 * 16;
    if (MATRICES == 4)
        TRANSPOSED ? ldmatrix_x4_trans(r, row) : ldmatrix_x4(r, row);
    else
        TRANSPOSED ? ldmatrix_x2_trans(r, row) : ldmatrix_x2(r, row);
    for (int m = 0; m < 4; m++) out[lane * 4 + m] = r[m];
}

template <bool TRANSPOSED> static __global__ void store_matrix(input_t *in, uint32_t *out) {
    DYNAMIC_SHARED(shared);
    const uint32_t *words = reinterpret_cast<uint32_t *>(shared);
    const int lane = (int)threadIdx.x;
    uint32_t r[4];
    for (int m = 0; m < 4; m++) r[m] = reinterpret_cast<const uint32_t *>(in->raw)[lane * 4 + m];
    unsigned char *row = shared + lane * 5 % 32 * 16;
    TRANSPOSED ? stmatrix_x4_trans(row, r) : stmatrix_x4(row, r);
    __syncwarp();
    for (int i = lane; i < 128; i += 32) out[i] = words[i];
}

/* ---- mma: one tile a block ---- */

template <class T> static __global__ void multiply(input_t *in, uint32_t *out, int type) {
    const int lane = (int)threadIdx.x, tile = (int)blockIdx.x, g = lane / 4, t = lane % 4 * 2;
    const uint16_t(*a)[16] = in->a[type][tile], (*b)[8] = in->b[type][tile];
    const float(*c)[8] = in->c[tile];
    uint32_t fa[4], fb[2];
    float d[4];
    for (int i = 0; i < 4; i++) {
        const uint16_t *two = &a[g + i % 2 * 8][t + i / 2 * 8];
        fa[i] = two[0] | (uint32_t)two[1] << 16;
        d[i] = c[g + i / 2 * 8][t + i % 2];
    }
    for (int i = 0; i < 2; i++) fb[i] = b[t + 8 * i][g] | (uint32_t)b[t + 8 * i + 1][g] << 16;
    mma_m16n8k16<T>(d, fa, fb);
    for (int i = 0; i < 4; i++) out[tile * 128 + (g + i / 2 * 8) * 8 + t + i % 2] = bits_of(d[i]);
}

/* ---- cp.async: three groups, thread t of group r copies t % 17 bytes ---- */

static __global__ void copy_groups(input_t *in, uint32_t *out) {
    DYNAMIC_SHARED(shared);
    const int t = (int)threadIdx.x;
    const unsigned char *raw = reinterpret_cast<const unsigned char *>(in->raw);
    for (int group = 0; group < 3; group++) {
        unsigned char *dst = shared + (group * 64 + t) * 16;
        shared_stale(dst, 16);
        cp_async_16(dst, raw + ((group * 64 + t) * 7 % 256) * 16, (t + group) % 17);
        cp_async_commit();
    }
    cp_async_wait<1>();
    __syncthreads();
    for (int group = 0; group < 2; group++) {
        const uint32_t *from = reinterpret_cast<uint32_t *>(shared + (group * 64 + (t + 1) % 64) * 16);
        for (int i = 0; i < 4; i++) out[(group * 64 + (t + 1) % 64) * 4 + i] = from[i];
    }
    cp_async_wait<0>();
    __syncthreads();
    const uint32_t *from = reinterpret_cast<uint32_t *>(shared + (2 * 64 + (t + 1) % 64) * 16);
    for (int i = 0; i < 4; i++) out[(2 * 64 + (t + 1) % 64) * 4 + i] = from[i];
}

/* ---- mbarrier: a ring of two stages, one warp fills, the other empties, eight rounds ---- */

static __global__ void ring(input_t *in, uint32_t *out) {
    DYNAMIC_SHARED(shared);
    struct carve c {
        shared
    };
    uint32_t *stages = c.take<uint32_t>(2 * 32);
    struct mbarrier *full = c.take<struct mbarrier>(2), *empty = c.take<struct mbarrier>(2);
    const int lane = (int)threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int s = 0; s < 2; s++) {
            mbarrier_init(&full[s], 32);
            mbarrier_init(&empty[s], 32);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    for (int round = 0; round < 8; round++) {
        const int s = round % 2, parity = round / 2 % 2;
        uint32_t *stage = stages + 32 * s;
        if (threadIdx.x < 32) {
            mbarrier_wait(&empty[s], (uint32_t)parity ^ 1);
            stage[lane] = in->raw[round * 32 + lane];
            mbarrier_arrive(&full[s]);
        } else {
            mbarrier_wait(&full[s], (uint32_t)parity);
            out[round * 32 + lane] = stage[31 - lane];
            mbarrier_arrive(&empty[s]);
        }
    }
}

/* ---- TMA ---- */

static __global__ void load_box(const __grid_constant__ struct tensor_map map, uint32_t *out, int x, int y,
                                int words) {
    DYNAMIC_SHARED(shared);
    struct carve c {
        shared
    };
    uint32_t *tile = c.take_tile<uint32_t>((size_t)words);
    struct mbarrier *bar = c.take<struct mbarrier>(1);
    if (threadIdx.x == 0) {
        mbarrier_init(bar, 1);
        mbarrier_init_fence();
        mbarrier_arrive_expect_tx(bar, (uint32_t)words * 4);
        tma_load_2d(tile, &map, bar, x, y);
    }
    __syncthreads();
    mbarrier_wait(bar, 0);
    for (int i = (int)threadIdx.x; i < words; i += (int)blockDim.x) out[i] = tile[i];
}

static __global__ void store_box(const __grid_constant__ struct tensor_map map, input_t *in, int x, int y,
                                 int words) {
    DYNAMIC_SHARED(shared);
    struct carve c {
        shared
    };
    uint32_t *tile = c.take_tile<uint32_t>((size_t)words);
    for (int i = (int)threadIdx.x; i < words; i += (int)blockDim.x)
        tile[i] = reinterpret_cast<const uint32_t *>(in->raw)[i];
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store_2d(&map, tile, x, y);
        tma_store_commit();
        tma_store_wait_read<0>();
        tma_store_wait<0>();
    }
}

/* ---- named barriers: two pairs of warps hand values over, each pair with a barrier of its own
 * ---- */

static __global__ void hand_over(input_t *in, uint32_t *out) {
    DYNAMIC_SHARED(shared);
    uint32_t *slots = reinterpret_cast<uint32_t *>(shared);
    const int t = (int)threadIdx.x, pair = t / 64, lane = t % 32;
    for (int round = 0; round < 4; round++) {
        if (t % 64 < 32) {
            if (round) named_barrier_sync(3 + pair, 64);
            slots[pair * 32 + lane] = (uint32_t)in->raw[round * 128 + t];
            named_barrier_arrive(1 + pair, 64);
        } else {
            named_barrier_sync(1 + pair, 64);
            out[(round * 2 + pair) * 32 + lane] = slots[pair * 32 + 31 - lane];
            if (round < 3) named_barrier_arrive(3 + pair, 64);
        }
    }
}

/* ---- setmaxnreg: only that it does no harm can be seen ---- */

static __global__ void __launch_bounds__(256, 1) registers(input_t *in, uint32_t *out) {
    const int t = (int)threadIdx.x;
    if (t < 128)
        set_max_registers_dec<40>();
    else
        set_max_registers_inc<216>();
    out[t] = in->raw[t];
}

/* ---- wgmma ---- */

struct product_args {
    input_t *in;
    uint32_t *out; /* [64][N] */
    int type;
    struct conformance_product p;
};

static __device__ uint64_t operand(const unsigned char *image, const struct conformance_operand &o,
                                   int step) {
    const uint64_t desc = wgmma_desc(image + o.start, (uint32_t)o.leading, (uint32_t)o.stride,
                                     static_cast<enum shared_swizzle>(o.swizzle));
    return wgmma_desc_advance(desc, (uint32_t)(step * o.advance));
}

template <int N, class T, int A_MAJOR, int B_MAJOR, bool A_IN_REGISTERS>
static __global__ void __launch_bounds__(128) group_multiply(struct product_args args) {
    DYNAMIC_SHARED(image);
    const int t = (int)threadIdx.x, row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
    const uint16_t *from = args.in->image[args.type];
    for (int i = t; i < CONFORMANCE_IMAGE; i += 128) reinterpret_cast<uint16_t *>(image)[i] = from[i];
    fence_proxy_async();
    __syncthreads();
    float d[N / 2];
    for (int i = 0; i < N / 2; i++)
        d[i] = args.in->accumulators[row + i / 2 % 2 * 8][i / 4 * 8 + column + i % 2];
    uint32_t a[4][4];
    for (int step = 0; step < 4; step++)
        for (int i = 0; i < 4; i++) {
            const uint16_t *two = from + (row + i % 2 * 8) * 64 + step * 16 + column + i / 2 * 8;
            a[step][i] = two[0] | (uint32_t)two[1] << 16;
        }
    wgmma_fence();
    for (int step = 0; step < 4; step++) {
        const bool accumulate = args.p.accumulate || step;
        if (A_IN_REGISTERS)
            wgmma_m64nNk16_ra<N, T, B_MAJOR>(d, a[step], operand(image, args.p.b, step), accumulate);
        else
            wgmma_m64nNk16<N, T, A_MAJOR, B_MAJOR>(d, operand(image, args.p.a, step),
                                                   operand(image, args.p.b, step), accumulate);
    }
    wgmma_commit();
    wgmma_wait<0>();
    accumulator_ready(d);
    for (int i = 0; i < N / 2; i++)
        args.out[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + column + i % 2] = bits_of(d[i]);
}

template <int N, class T, int A_MAJOR, int B_MAJOR, bool A_IN_REGISTERS>
static const char *launch_product(const struct product_args &args, void *stream) {
    return LAUNCH((group_multiply<N, T, A_MAJOR, B_MAJOR, A_IN_REGISTERS>), dim3(1), dim3(128),
                  CONFORMANCE_IMAGE * 2, stream, args);
}

static const struct {
    int columns, type, a_major, b_major, a_in_registers;
    const char *(*launch)(const struct product_args &args, void *stream);
} products[] = {
#define PRODUCT(N, TYPE, T, A, B, REGISTERS)                                                                 \
    {N, TYPE, A, B, REGISTERS, launch_product<N, T, A, B, REGISTERS != 0>},
#define PRODUCTS_64(TYPE, T)                                                                                 \
    PRODUCT(64, TYPE, T, K_MAJOR, K_MAJOR, 0)                                                                \
    PRODUCT(64, TYPE, T, K_MAJOR, MN_MAJOR, 0)                                                               \
    PRODUCT(64, TYPE, T, MN_MAJOR, K_MAJOR, 0)                                                               \
    PRODUCT(64, TYPE, T, MN_MAJOR, MN_MAJOR, 0)                                                              \
    PRODUCT(64, TYPE, T, K_MAJOR, K_MAJOR, 1)                                                                \
    PRODUCT(64, TYPE, T, K_MAJOR, MN_MAJOR, 1)
#define PRODUCTS_N(N)                                                                                        \
    PRODUCT(N, 0, bf16, K_MAJOR, K_MAJOR, 0)                                                                 \
    PRODUCT(N, 0, bf16, K_MAJOR, MN_MAJOR, 1)
    PRODUCTS_64(0, bf16) PRODUCTS_64(1, f16) PRODUCTS_N(32) PRODUCTS_N(96) PRODUCTS_N(128) PRODUCTS_N(144)
        PRODUCTS_N(160) PRODUCTS_N(176) PRODUCTS_N(192) PRODUCTS_N(256)};

/* ---- launching ---- */

static const char *run_product(const struct conformance *c, input_t *in, uint32_t *out, void *stream) {
    const struct conformance_product &p = c->product;
    for (const auto &row : products)
        if (row.columns == p.columns && row.type == c->type && row.a_major == p.a.mn_major &&
            row.b_major == p.b.mn_major && row.a_in_registers == p.a_in_registers)
            return row.launch({in, out, c->type, p}, stream);
    return "no such product is compiled";
}

static const char *run_box(const struct conformance *c, input_t *in, uint32_t *out, void *stream) {
    const struct conformance_box &b = c->box;
    const bool load = c->kind == CONFORM_TMA_LOAD;
    struct tensor_map map;
    const struct tensor_map_2d matrix = {load ? static_cast<const void *>(in) : out,
                                         static_cast<enum tensor_map_element>(b.element),
                                         b.cols,
                                         b.rows,
                                         b.row_bytes,
                                         b.box_cols,
                                         b.box_rows,
                                         static_cast<enum shared_swizzle>(b.swizzle)};
    const char *refused = tensor_map_encode(&map, matrix);
    if (refused) return refused;
    const int words = b.box_cols * b.box_rows * tensor_map_element_bytes(matrix.element) / 4;
    const size_t shared = carve_tile_bytes<uint32_t>((size_t)words) + carve_bytes<struct mbarrier>(1);
    if (load) return LAUNCH(load_box, dim3(1), dim3(64), shared, stream, map, out, b.x, b.y, words);
    return LAUNCH(store_box, dim3(1), dim3(64), shared, stream, map, in, b.x, b.y, words);
}

static const char *run_matrix(const struct conformance *c, input_t *in, uint32_t *out, void *stream) {
    const dim3 one(1), warp(32);
    if (c->kind == CONFORM_STMATRIX)
        return c->transposed ? LAUNCH((store_matrix<true>), one, warp, 512, stream, in, out)
                             : LAUNCH((store_matrix<false>), one, warp, 512, stream, in, out);
    if (c->matrices == 4)
        return c->transposed ? LAUNCH((load_matrix<4, true>), one, warp, 512, stream, in, out)
                             : LAUNCH((load_matrix<4, false>), one, warp, 512, stream, in, out);
    return c->transposed ? LAUNCH((load_matrix<2, true>), one, warp, 512, stream, in, out)
                         : LAUNCH((load_matrix<2, false>), one, warp, 512, stream, in, out);
}

extern "C" const char *KERNEL_SYMBOL(conformance)(const struct conformance *c, input_t *in, uint32_t *out,
                                                  void *stream) {
    const dim3 one(1);
    switch (c->kind) {
    case CONFORM_PACK: return LAUNCH(pack, one, dim3(64), 0, stream, in, out, c->type);
    case CONFORM_LDMATRIX:
    case CONFORM_STMATRIX: return run_matrix(c, in, out, stream);
    case CONFORM_MMA:
        return c->type ? LAUNCH((multiply<f16>), dim3(CONFORMANCE_TILES), dim3(32), 0, stream, in, out, 1)
                       : LAUNCH((multiply<bf16>), dim3(CONFORMANCE_TILES), dim3(32), 0, stream, in, out, 0);
    case CONFORM_CP_ASYNC: return LAUNCH(copy_groups, one, dim3(64), 3 * 64 * 16, stream, in, out);
    case CONFORM_MBARRIER:
        return LAUNCH(ring, one, dim3(64), carve_bytes<uint32_t>(64) + 2 * carve_bytes<struct mbarrier>(2),
                      stream, in, out);
    case CONFORM_TMA_LOAD:
    case CONFORM_TMA_STORE: return run_box(c, in, out, stream);
    case CONFORM_NAMED_BARRIER: return LAUNCH(hand_over, one, dim3(128), 256, stream, in, out);
    case CONFORM_REGISTERS: return LAUNCH(registers, one, dim3(256), 0, stream, in, out);
    default: return run_product(c, in, out, stream);
    }
}
