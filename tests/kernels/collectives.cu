/* collectives - one kernel that uses every barrier, vote, shuffle and atomic as a correct kernel
 * does. Its results do not depend on the order in which threads or blocks run; tests/test_simt.c
 * recomputes them one by one. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/kernel.cuh"
#include "tests/kernels/simt_cases.h"

struct collectives_args {
    struct lane_results *results; /* [blocks][threads] */
    int32_t *counters;            /* [5] */
    float *float_counter;         /* [1] */
};

/* Of the first `lanes` lanes, which are the ones in mask; a lane without a partner reads itself and
 * adds nothing. */
static __device__ float tree_sum(unsigned mask, float value, int lane, int lanes) {
    for (int by = 16; by; by /= 2) {
        const bool paired = lane + by < lanes;
        const float other = __shfl_sync(mask, value, paired ? lane + by : lane);
        if (paired) value += other;
    }
    return __shfl_sync(mask, value, 0);
}

static __device__ void use_atomics(struct collectives_args a, int block, int linear) {
    const int id = block * (int)(blockDim.x * blockDim.y) + linear;
    atomicAdd(&a.counters[0], id);
    atomicMax(&a.counters[1], id * 7 % 1000);
    atomicMin(&a.counters[2], -(id * 11 % 1000));
    for (int seen = 0, old; (old = atomicCAS(&a.counters[3], seen, seen + 2)) != seen;) seen = old;
    if (atomicExch(&a.counters[4], 1) == 0)
        atomicAdd(a.float_counter, 0.5f); /* one thread only is the first */
    atomicAdd(a.float_counter, 1.0f);
}

static __global__ void __launch_bounds__(1024) collectives(struct collectives_args a) {
    DYNAMIC_SHARED(shared);
    struct carve c {
        shared
    };
    const int linear = (int)(threadIdx.x + threadIdx.y * blockDim.x),
              threads = (int)(blockDim.x * blockDim.y);
    const int block = (int)(blockIdx.x + blockIdx.y * gridDim.x);
    const int lane = linear % 32, lanes = min(32, threads - linear / 32 * 32);
    const unsigned mask = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
    const unsigned parity = mask & (lane % 2 ? 0xaaaaaaaau : 0x55555555u);
    float *warp_sums = c.take<float>(32);
    bf16 *odd_sized = c.take<bf16>(3);
    int *votes = c.take<int>((size_t)threads);
    const int value = 1000 * block + linear;

    struct lane_results r;
    r.linear = linear;
    r.block = block;
    r.index = __shfl_sync(mask, value, lane * 7 % lanes);
    r.up = __shfl_up_sync(mask, value, 3, 16);
    r.down = __shfl_down_sync(mask, value, 1, 8);
    r.xor_ = __shfl_xor_sync(mask, value, 5, 8);
    if (lane % 2)
        r.even = __shfl_xor_sync(parity, value, 2);
    else
        r.even = __shfl_xor_sync(parity, value, 4);
    r.ballot = __ballot_sync(mask, value % 3 == 0);
    r.any = __any_sync(mask, linear == 40);
    r.all = __all_sync(mask, linear < 64);
    r.or_ = __syncthreads_or(linear == threads - 1);
    r.and_ = __syncthreads_and(linear != 3);
    r.count = __syncthreads_count(linear % 3 == 1);

    r.warp_sum = tree_sum(mask, 1.0f / (float)(1 + linear), lane, lanes);
    if (lane == 0) warp_sums[linear / 32] = r.warp_sum;
    if (linear < 3) odd_sized[linear] = from_float<bf16>((float)linear);
    votes[linear] = linear;
    __syncthreads();
    r.block_sum = to_float(odd_sized[0]) + (float)(votes[threads - 1 - linear] - (threads - 1 - linear));
    for (int w = 0; w * 32 < threads; w++) r.block_sum += warp_sums[w];
    __syncwarp(mask);
    use_atomics(a, block, linear);
    a.results[block * threads + linear] = r;
}

extern "C" const char *KERNEL_SYMBOL(collectives)(struct lane_results *results, int32_t *counters,
                                                  float *float_counter, void *stream, unsigned blocks_x,
                                                  unsigned blocks_y, unsigned threads_x, unsigned threads_y) {
    const struct collectives_args a = {results, counters, float_counter};
    const size_t shared =
        carve_bytes<float>(32) + carve_bytes<bf16>(3) + carve_bytes<int>(threads_x * threads_y);
    return LAUNCH(collectives, dim3(blocks_x, blocks_y), dim3(threads_x, threads_y), shared, stream, a);
}

template <class T> static __global__ void convert(const float *in, float *out, int64_t n) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = to_float(from_float<T>(in[i]));
}

extern "C" const char *KERNEL_SYMBOL(convert)(const float *in, float *out, int64_t n, void *stream) {
    return LAUNCH((convert<bf16>), dim3((unsigned)((n + 255) / 256)), dim3(256), 0, stream, in, out, n);
}
