/* Which probe launcher belongs to which device? */
/* SPDX-License-Identifier: MIT */
#include "kernels/device/elementary.h"

const char *probe_host(int function, uint32_t first_bits, uint32_t n, float *out, void *stream);
const char *probe_cuda(int function, uint32_t first_bits, uint32_t n, float *out, void *stream);

const probe_fn probe_launch[DEVICE_COUNT] = {
    [DEVICE_HOST] = probe_host,
#if SHARDCHECK_CUDA
    [DEVICE_CUDA] = probe_cuda,
#endif
};
