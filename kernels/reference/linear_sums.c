/* Which launcher of the reference's sums belongs to which device? */
/* SPDX-License-Identifier: MIT */
#include "kernels/reference/linear_sums.h"

sums_fn linear_sums_host, linear_sums_cuda, linear_replay_host, linear_replay_cuda;

sums_fn *const sums_launch[DEVICE_COUNT] = {
    [DEVICE_HOST] = linear_sums_host,
#if SHARDCHECK_CUDA
    [DEVICE_CUDA] = linear_sums_cuda,
#endif
};
sums_fn *const replay_launch[DEVICE_COUNT] = {
    [DEVICE_HOST] = linear_replay_host,
#if SHARDCHECK_CUDA
    [DEVICE_CUDA] = linear_replay_cuda,
#endif
};
