/* instructions - the emulation behind the ptx_*.cuh wrappers: what each call means stands there. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_INSTRUCTIONS_INSTRUCTIONS_H
#define KERNELS_SIMT_INSTRUCTIONS_INSTRUCTIONS_H

#include "kernels/simt/core/simt.h"

struct mbarrier;
struct tensor_map;

namespace simt {

/* Dynamic shared memory starts at address 1024 of the shared window. */
static const uint32_t SHARED_WINDOW = 1024;
static inline uint32_t shared_address(const void *p) {
    return (uint32_t)(static_cast<const unsigned char *>(p) - dynamic_shared()) + SHARED_WINDOW;
}

enum tensor_type { TENSOR_BF16, TENSOR_F16 };

/* matrix.cpp */
void ldmatrix(uint32_t *r, int matrices, bool transposed, const void *row, const char *operation, place at);
void stmatrix(void *row, const uint32_t *r, int matrices, bool transposed, const char *operation, place at);
void mma_m16n8k16(float *d, const uint32_t *a, const uint32_t *b, tensor_type type, place at);

/* async_copy.cpp */
void cp_async_16(void *dst, const void *src, int src_bytes, place at);
void cp_async_commit(place at);
void cp_async_wait(int groups, place at);

/* mbarrier.cpp */
void mbarrier_init(mbarrier *bar, int count, place at);
void mbarrier_init_fence(place at);
void mbarrier_arrive(mbarrier *bar, uint32_t bytes, const char *operation, place at);
void mbarrier_wait(mbarrier *bar, uint32_t parity, place at);

/* tma.cpp */
void tma_load_2d(void *dst, const tensor_map *map, mbarrier *bar, int x, int y, place at);
void tma_store_2d(const tensor_map *map, const void *src, int x, int y, place at);
void tma_store_commit(place at);
void tma_store_wait(int groups, const char *operation, place at);

/* wgmma.cpp */
template <int N, class T> struct wgmma_shape; /* only what ptx_wgmma.cuh can emit */
#define SIMT_WGMMA_SHAPE(N)                                                                                  \
    template <> struct wgmma_shape<N, bf16> {                                                                \
        static const int columns = N;                                                                        \
        static const tensor_type type = TENSOR_BF16;                                                         \
    };                                                                                                       \
    template <> struct wgmma_shape<N, f16> {                                                                 \
        static const int columns = N;                                                                        \
        static const tensor_type type = TENSOR_F16;                                                          \
    };
SIMT_WGMMA_SHAPE(32)
SIMT_WGMMA_SHAPE(64)
SIMT_WGMMA_SHAPE(96)
SIMT_WGMMA_SHAPE(128)
SIMT_WGMMA_SHAPE(144)
SIMT_WGMMA_SHAPE(160)
SIMT_WGMMA_SHAPE(176)
SIMT_WGMMA_SHAPE(192)
SIMT_WGMMA_SHAPE(256)
#undef SIMT_WGMMA_SHAPE

struct wgmma_operands {
    int columns;
    tensor_type type;
    int a_major, b_major; /* enum wgmma_major */
    bool accumulate;
    float *d;          /* the thread's accumulators, [columns / 2] */
    const uint32_t *a; /* the thread's part of A, [4]; NULL: desc_a */
    uint64_t desc_a, desc_b;
    place at;
};
void wgmma_fence(place at);
void wgmma_issue(const wgmma_operands &operands);
void wgmma_commit(place at);
void wgmma_wait(int groups, place at);
void wgmma_accumulator_ready(const float *d, int count, place at);

/* named_barrier.cpp */
void named_barrier(int id, int threads, bool wait, place at);
void fence_proxy_async(place at);
void set_max_registers(int registers, bool increase, place at);

} // namespace simt

#endif
