/* split_keys - what the decode kernels share: slices of keys leave an output and a log-sum-exp of
 * their own each, and split_merge_kernel makes one output of them.
 *   out = sum of e^(lse_i) out_i over sum of e^(lse_i), relative to the largest lse; e is 2 where
 *   the logarithms are binary.
 * A slice in which a row sees no key has lse = -inf, and its out is never read. A row without keys
 * is 0.
 * Grid    T H.   Block  4 warps, for one head of one row: as many threads as there are octets
 *         take a run of slices each, and the runs meet in shared memory. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_ATTENTION_SPLIT_KEYS_CUH
#define KERNELS_ATTENTION_SPLIT_KEYS_CUH

#include "kernels/lang/octet.cuh"

namespace {

/* Scratch; 16-byte aligned. */
struct partials {
    float *out, *lse; /* [T, H, N, D], [T, H, N], N slices */
    int n_slices, slice_length;
};

inline size_t partials_bytes(const struct attention_args *a, int64_t n_slices) {
    return sizeof(float) * (size_t)(a->n_tokens * a->n_heads * n_slices * (a->head_dim + 1));
}

inline struct partials partials_in(void *scratch, const struct attention_args *a, int64_t n_slices,
                                   int64_t slice_length) {
    float *const out = (float *)scratch;
    return {out, out + a->n_tokens * a->n_heads * n_slices * a->head_dim, (int)n_slices, (int)slice_length};
}

constexpr int MERGE_THREADS = 128;
constexpr int MERGE_SLICES = 128; /* at most */
constexpr int AHEAD = 4;

template <bool BINARY> __device__ __forceinline__ float merge_weight(float lse, float largest) {
    return BINARY ? exp2f(lse - largest) : expf(lse - largest);
}

/* Relative to the largest; all 0 where no slice has a key. */
template <bool BINARY>
__device__ __forceinline__ void slice_weights(float *weights, const float *lse, int n) {
    const int self = (int)threadIdx.x;
    float largest = -INFINITY;
    if (self < n) weights[self] = lse[self];
    __syncthreads();
    for (int s = 0; s < n; s++) largest = fmaxf(largest, weights[s]);
    __syncthreads();
    if (self < n) weights[self] = largest == -INFINITY ? 0.0f : merge_weight<BINARY>(weights[self], largest);
    __syncthreads();
}

template <class T, bool BINARY>
__global__ void __launch_bounds__(MERGE_THREADS)
    split_merge_kernel(const struct attention_args a, const struct partials part) {
    __shared__ float weights[MERGE_SLICES], runs[MERGE_THREADS * OCTET];
    const int head_dim = (int)a.head_dim, octets = (head_dim + OCTET - 1) / OCTET;
    const int64_t row = blockIdx.x / (int)a.n_heads, head = blockIdx.x % (int)a.n_heads;
    wait_for_launch_before();
    if (row >= ((const int32_t *)a.query_start.data)[a.n_seqs]) return;

    const int n_runs = MERGE_THREADS / octets, run = (int)threadIdx.x / octets;
    const int d0 = (int)threadIdx.x % octets * OCTET, n = min(OCTET, head_dim - d0);
    const int length = (part.n_slices + n_runs - 1) / n_runs, first = run * length;
    const int64_t at = (row * a.n_heads + head) * part.n_slices;
    slice_weights<BINARY>(weights, part.lse + at, part.n_slices);

    float out[OCTET] = {};
    const int end = run < n_runs ? min(first + length, part.n_slices) : first;
    for (int s = first; s < end; s += AHEAD) { /* so many loads are on their way at once */
        octet<float> partial[AHEAD] = {};
        UNROLL
        for (int i = 0; i < AHEAD; i++) { /* one without a key may never have been written */
            const bool written = s + i < end && (SEEDED(BUG_DECODE_EMPTY_SPLIT) || weights[s + i] != 0);
            if (written)
                octet_load_raw(partial[i], part.out + (at + s + i) * head_dim + d0, head_dim % OCTET == 0, n);
        }
        UNROLL
        for (int i = 0; i < AHEAD; i++) {
            if (s + i >= end || (!SEEDED(BUG_DECODE_EMPTY_SPLIT) && weights[s + i] == 0)) continue;
            UNROLL
            for (int e = 0; e < OCTET; e++) out[e] = fmaf(weights[s + i], partial[i].v[e], out[e]);
        }
    }
    UNROLL
    for (int e = 0; e < OCTET; e++) runs[(int)threadIdx.x * OCTET + e] = out[e];
    __syncthreads();
    if (run > 0) return;

    float sum = 0;
    for (int s = 0; s < part.n_slices; s++) sum += weights[s];
    for (int r = 1; r < n_runs; r++) {
        UNROLL
        for (int e = 0; e < OCTET; e++) out[e] += runs[(r * octets + (int)threadIdx.x) * OCTET + e];
    }
    T *to = (T *)a.out.data + row * a.out.stride[0] + head * a.out.stride[1] + d0;
    UNROLL
    for (int e = 0; e < OCTET; e++)
        if (e < n) to[e] = from_float<T>(sum == 0 ? 0.0f : out[e] / sum);
}

template <class T, bool BINARY>
const char *launch_merge(const struct attention_args *a, const struct partials &part, void *stream) {
    const dim3 grid((unsigned)(a->n_tokens * a->n_heads));
    return LAUNCH_BEHIND((split_merge_kernel<T, BINARY>), grid, dim3(MERGE_THREADS), 0, stream, *a, part);
}

} // namespace

#endif
