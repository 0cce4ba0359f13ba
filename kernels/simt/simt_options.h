/* simt_options - how the SIMT executor runs the next launches. C, so that the harness and the tests
 * can set it. Correct kernels give the same bits under every order, seed and thread count; a kernel
 * that does not has a race. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_SIMT_OPTIONS_H
#define KERNELS_SIMT_SIMT_OPTIONS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which of the threads that can run goes next. Blocks start in the same spirit. */
enum simt_order { SIMT_ASCENDING, SIMT_DESCENDING, SIMT_RANDOM_LANES, SIMT_RANDOM_WARPS, SIMT_ORDER_COUNT };
/* When an asynchronous copy moves its data: at the wait, at the issue, or at random in between. */
enum simt_async { SIMT_LAZY, SIMT_EAGER, SIMT_RANDOM_ASYNC, SIMT_ASYNC_COUNT };
/* How mma and wgmma sum: as sm_90's tensor cores do, or one product after the other in fp32. */
enum simt_tensor_core { SIMT_TRUNCATING, SIMT_PLAIN, SIMT_TENSOR_CORE_COUNT };

struct simt_options {
    enum simt_order order;
    uint64_t seed; /* of the random orders */
    enum simt_async async;
    int threads; /* OS threads; 0: one per core */
    enum simt_tensor_core tensor_core;
};

struct simt_options simt_get_options(void);
void simt_set_options(struct simt_options options);
void simt_set_threads(int threads); /* 0: one per core */
int simt_threads(void);             /* how many will be used */

/* The first error since the last call, one line, or NULL. The text lives until the
 * next launch fails. */
const char *simt_take_error(void);

#ifdef __cplusplus
}
#endif
#endif
