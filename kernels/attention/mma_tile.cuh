/* mma_tile - what the attention kernels on mma.sync share: how a tile lies in shared memory, and the
 * base of their exponentials. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_ATTENTION_MMA_TILE_CUH
#define KERNELS_ATTENTION_MMA_TILE_CUH

#include "kernels/lang/octet.cuh"
#include "kernels/lang/ptx.cuh"

namespace {

constexpr unsigned WHOLE_WARP = 0xffffffffu;

/* Chunk `chunk` of row `row` of a [rows][D] tile, 16 bytes: eight rows of a column lie in the eight
 * 16-byte banks. */
template <class S> __device__ __forceinline__ bf16 *chunk_of(bf16 *tile, int row, int chunk) {
    return tile + row * S::D + (chunk ^ (row & 7)) * OCTET;
}

/* c: exp(scale score) = 2^(c score). */
inline float exponent_factor(const struct attention_args *a) {
    return (float)(a->scale * 1.4426950408889634);
}

} // namespace

#endif
