/* simt_cases - what tests/test_simt.c launches on the SIMT executor: one kernel that uses every
 * collective right (collectives.cu), and one kernel for each way of using them wrong (misuse.cu).
 * Built for the host device only. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_KERNELS_SIMT_CASES_H
#define TESTS_KERNELS_SIMT_CASES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LANE_RESULTS = 16, MISUSE_FLOATS = 1024 };

/* What thread `linear` of every block found; results[block][thread]. */
struct lane_results {
    int32_t linear, block; /* from threadIdx and blockIdx */
    int32_t index, up, down, xor_,
        even; /* shuffles of 1000 * block + linear; even: among the lanes of one parity */
    uint32_t ballot;
    int32_t any, all, or_, and_, count;
    float warp_sum, block_sum; /* of 1 / (1 + linear): a shuffle tree, and through shared memory */
};

/* counters [5], by use: add, max, min, compare-and-swap, exchange; float_counter [1]. All start as
 * 0. */
const char *collectives_host(struct lane_results *results, int32_t *counters, float *float_counter,
                             void *stream, unsigned blocks_x, unsigned blocks_y, unsigned threads_x,
                             unsigned threads_y);
/* out[i] = float -> bf16 -> float of in[i] */
const char *convert_host(const float *in, float *out, int64_t n, void *stream);

struct misuse {
    const char *name;
    const char *(*launch)(float *buffer); /* buffer: [MISUSE_FLOATS], called "misused" */
    const char *says[3];                  /* parts of the one line */
};
extern const struct misuse misuse_cases[];    /* error at sync; ended by a row without a name */
extern const struct misuse misuse_launches[]; /* refused at launch; ended likewise */
extern const struct misuse instruction_misuse_cases[], copy_misuse_cases[]; /* likewise */
extern const struct misuse copy_misuse_launches[];                          /* likewise */
extern const struct misuse copy_misuse_lazy; /* seen only when copies move late */

#ifdef __cplusplus
}
#endif
#endif
