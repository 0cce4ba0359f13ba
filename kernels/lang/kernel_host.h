/* kernel_host - what kernels/lang/kernel.cuh means under g++: CUDA's keywords, types, intrinsics
 * and launches, carried out by the SIMT executor. Never seen by nvcc. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_KERNEL_HOST_H
#define KERNELS_LANG_KERNEL_HOST_H

#include <tuple>
#include <type_traits>

#include "kernels/simt/core/intrinsics.h"
#include "kernels/simt/core/simt.h"
#include "kernels/simt/core/types.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static thread_local /* a block lives on one OS thread, one block at a time */
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (simt::self->index)
#define blockIdx (simt::self->block->index)
#define blockDim (simt::self->block->threads)
#define gridDim (simt::self->block->blocks)
static constexpr int warpSize = 32;

#define KERNEL_SYMBOL(name) name##_host
#define DYNAMIC_SHARED(name) unsigned char *const name = simt::dynamic_shared()
#define SHARED_RED_ZONE SIMT_RED_ZONE
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                               \
    (static_cast<void>(stream),                                                                              \
     simt::launch({#kernel, {__FILE__, __LINE__}, grid, block, static_cast<size_t>(shared_bytes)}, kernel,   \
                  ##__VA_ARGS__))

/* One launch after another. */
#define LAUNCH_BEHIND LAUNCH
inline void next_launch_may_start() {}
inline void wait_for_launch_before() {}

namespace simt {
template <class... Parameters, class... Arguments>
const char *launch(const launch_config &config, void (*kernel)(Parameters...), Arguments &&...arguments) {
    const std::tuple<std::decay_t<Parameters>...> values(static_cast<std::decay_t<Parameters>>(arguments)...);
    auto thread_body = [&] { std::apply(kernel, values); };
    return run_grid(
        config, [](void *body) { (*static_cast<decltype(thread_body) *>(body))(); }, &thread_body);
}
} // namespace simt

inline void shared_stale(void *p, size_t bytes, SIMT_CALLER) { simt::shared_stale(p, bytes, SIMT_PLACE); }
#ifdef SIMT_ASAN
inline void shared_red_zone(void *p, size_t bytes) { simt::shared_red_zone(p, bytes); }
#else
inline void shared_red_zone(void *, size_t) {}
#endif

#endif
