/* attention_wgmma_rows - what a consumer of attention_wgmma does with its rows in registers: scores
 * become weights, sums and outputs shrink to a new maximum, and at the end of a piece outputs are
 * divided and stored. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_ATTENTION_ATTENTION_WGMMA_ROWS_CUH
#define KERNELS_ATTENTION_ATTENTION_WGMMA_ROWS_CUH

#include "kernels/attention/attention_wgmma_tiles.cuh"
#include "kernels/lang/ptx_math.cuh"

namespace {

/* Thread 32 u + 4 g + t of a consumer holds of its rows 16 u + g and 16 u + g + 8 the columns
 * 8 i + 2 t and 8 i + 2 t + 1: of a score tile s[4 i + j], of the output o[4 i + j]; j / 2 is
 * the row, j % 2 the column. N: keys of a tile, or of its half. */
template <int D> struct consumer {
    static constexpr int KEYS = shape<D>::KEYS;
    float o[D / 2];
    uint32_t p[KEYS / 16][4]; /* the weights of 16 keys each, in bf16, as wgmma takes them */
    float top[2], sum[2];     /* of the two rows: maximum so far times c, own columns' sum */
    float shrink[2];          /* what sums and outputs so far are to be multiplied by */
    float inverse[2];         /* of the piece before: 1 / sum */
    int limit[2];             /* keys the two rows see, less the thread's first column */
    int no_mask;              /* tiles that all rows of the warpgroup see whole */
    int whole;                /* tiles to compute whole; of one more they see the first half at most */
};

/* Drop the scores that a row may not see. */
template <int N, int D>
__device__ __forceinline__ void mask_scores(float (&s)[N / 2], const consumer<D> &c, int tile) {
    const int seen[2] = {c.limit[0] - tile * shape<D>::KEYS, c.limit[1] - tile * shape<D>::KEYS};
    UNROLL
    for (int i = 0; i < N / 8; i++) {
        UNROLL
        for (int j = 0; j < 4; j++) s[4 * i + j] = 8 * i + j % 2 < seen[j / 2] ? s[4 * i + j] : -INFINITY;
    }
}

/* One online-softmax step: scores become weights under the rows' new maxima. factor: c. A row that
 * has seen no key yet keeps the maximum -inf and gets weights 0. */
template <int N, int D>
__device__ __forceinline__ void softmax_step(float (&s)[N / 2], consumer<D> &c, float factor) {
    UNROLL
    for (int r = 0; r < 2; r++) {
        float largest = -INFINITY, others = -INFINITY; /* two chains: half as long */
        UNROLL
        for (int i = 2 * r; i < N / 2; i += 4)
            largest = fmaxf(largest, s[i]), others = fmaxf(others, s[i + 1]);
        largest = fmaxf(largest, others);
        largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(WHOLE_WARP, largest, 2));
        const float top = fmaxf(c.top[r], largest * factor), base = top == -INFINITY ? 0.0f : top;
        c.shrink[r] = exp2_approx(c.top[r] - base);
        c.top[r] = top;
        float total = 0;
        UNROLL
        for (int i = 2 * r; i < N / 2; i += 4) {
            s[i] = exp2_approx(fmaf(s[i], factor, -base));
            s[i + 1] = exp2_approx(fmaf(s[i + 1], factor, -base));
            total += s[i] + s[i + 1];
        }
        c.sum[r] = fmaf(c.sum[r], c.shrink[r], total);
    }
}

/* The weights of the first N keys become the left factor of P V: its registers are the columns of
 * two neighbouring blocks of 8. */
template <int N, int D>
__device__ __forceinline__ void round_weights(const float (&s)[N / 2], consumer<D> &c) {
    UNROLL
    for (int i = 0; i < N / 16; i++) {
        UNROLL
        for (int j = 0; j < 4; j++) c.p[i][j] = pack_bf16(s[8 * i + 2 * j], s[8 * i + 2 * j + 1]);
    }
}

/* Where no maximum of the warp's rows has risen, which is most often so, all factors are 1. */
template <int D> __device__ __forceinline__ void shrink_output(consumer<D> &c) {
    if (!__any_sync(WHOLE_WARP, c.shrink[0] != 1 || c.shrink[1] != 1)) return;
    UNROLL
    for (int i = 0; i < D / 2; i++) c.o[i] *= c.shrink[i / 2 % 2];
}

/* ---- from piece to piece ---- */

/* Lane t of four holds columns 2 t and 2 t + 1 of four neighbouring blocks of 8 columns, a word
 * each: what comes back are all 8 columns of block t. Half of the words go to the neighbour, then
 * half to the lane two away. */
__device__ __forceinline__ uint4 transpose_words(const uint32_t (&word)[4]) {
    const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
    uint32_t pair[2][2]; /* of blocks odd and 2 + odd: what both neighbours hold */
    UNROLL
    for (int i = 0; i < 2; i++) {
        const uint32_t kept = odd ? word[2 * i + 1] : word[2 * i];
        const uint32_t come = __shfl_xor_sync(WHOLE_WARP, odd ? word[2 * i] : word[2 * i + 1], 1);
        pair[i][0] = odd ? come : kept;
        pair[i][1] = odd ? kept : come;
    }
    const uint32_t x = __shfl_xor_sync(WHOLE_WARP, high ? pair[0][0] : pair[1][0], 2);
    const uint32_t y = __shfl_xor_sync(WHOLE_WARP, high ? pair[0][1] : pair[1][1], 2);
    return high ? make_uint4(x, y, pair[1][0], pair[1][1]) : make_uint4(pair[0][0], pair[0][1], x, y);
}

/* out = o / sum for the rows the sequence has; a row that sees no key is 0. row: the thread's first. */
template <int D>
__device__ __forceinline__ void store_rows(const consumer<D> &c, const struct attention_args &a,
                                           const work &w, int row) {
    UNROLL
    for (int r = 0; r < 2; r++) {
        bf16 *const to = (bf16 *)a.out.data + (w.first_row + row + 8 * r) * a.out.stride[0] +
                         w.head * a.out.stride[1] + threadIdx.x % 4 * 8;
        UNROLL
        for (int i = 0; i < D / 8; i += 4) {
            uint32_t word[4];
            UNROLL
            for (int k = 0; k < 4; k++)
                word[k] = pack_bf16(c.o[4 * (i + k) + 2 * r] * c.inverse[r],
                                    c.o[4 * (i + k) + 2 * r + 1] * c.inverse[r]);
            const uint4 block = transpose_words(word);
            if (row + 8 * r < w.n_rows) *reinterpret_cast<uint4 *>(to + 8 * i) = block;
        }
    }
}

/* The same where no row sees a key. */
template <int D>
__device__ __forceinline__ void store_zeros(const struct attention_args &a, const work &w, int row) {
    for (int r = row; r < w.n_rows && r <= row + 8; r += 8) {
        bf16 *const to = (bf16 *)a.out.data + (w.first_row + r) * a.out.stride[0] + w.head * a.out.stride[1] +
                         threadIdx.x % 4 * 8;
        for (int i = 0; i < D; i += 32) *reinterpret_cast<uint4 *>(to + i) = make_uint4(0, 0, 0, 0);
    }
}

/* What the sums of a piece come to, whose last P V may still run. */
template <int D> __device__ __forceinline__ void end_piece(consumer<D> &c) {
    UNROLL
    for (int r = 0; r < 2; r++) {
        float sum = c.sum[r];
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 1);
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 2);
        c.inverse[r] = sum == 0 ? 0.0f : 1.0f / sum;
    }
}

template <int D>
__device__ __forceinline__ void begin_piece(consumer<D> &c, const work &w, int group, int row) {
    const int of_last = keys_seen(w, (group + 1) * OWN_ROWS - 1); /* by the last of its rows */
    c.no_mask = keys_seen(w, group * OWN_ROWS) / shape<D>::KEYS;
    const int in_half = w.n_tiles * shape<D>::KEYS - shape<D>::KEYS / 2 + SEEDED(BUG_WGMMA_HALF_TOO_LONG);
    c.whole = warp_uniform(w.n_tiles - (of_last <= in_half));
    for (int r = 0; r < 2; r++) {
        c.limit[r] = keys_seen(w, row + 8 * r) - threadIdx.x % 4 * 2;
        c.top[r] = -INFINITY;
        c.sum[r] = 0;
    }
}

template <int D> __device__ __forceinline__ void clear_output(consumer<D> &c) {
    UNROLL
    for (int i = 0; i < D / 2; i++) c.o[i] = 0;
}

} // namespace

#endif
