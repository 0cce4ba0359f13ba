/* linear_sums - the sums of reference/summer.h on a device: not under test, but what the tests of large
 * products are derived from. Nothing here is shared with the kernels under test but the language. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_REFERENCE_LINEAR_SUMS_H
#define KERNELS_REFERENCE_LINEAR_SUMS_H

#include "kernels/device/device.h"
#include "layer/dtype.h"
#include "reference/bound.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SUMS_TILE_ROWS = 32 };

/* Rows [first, first + n) of x and out, 0 < n <= SUMS_TILE_ROWS, which use w[run]. */
struct sums_tile {
    int32_t run, first, n;
};

/* Of row r and column c, over k rising from 0, each product and each addition rounded to double:
 *   y = sum of w[run][c][k] x[r][k]     s1 = sum of the magnitudes of these products
 *   span = sum over slices of k of the largest minus the smallest y in and before the slice
 * Or, of an order of fp32 additions (`accumulator` of layer/contract.h; reference/replay.c): y alone, as it
 * gives that. Everything dense and on the device. */
struct sums_args {
    const void *x, *w;            /* [rows, n_inner], [runs, n_cols, n_inner] */
    enum dtype x_dtype, w_dtype;  /* fp64, fp32, bf16 or fp16 */
    const struct sums_tile *tile; /* [n_tiles] */
    double *y, *span, *s1;        /* [rows, n_cols]; s1 NULL: not wanted */
    int64_t n_tiles, n_cols, n_inner, slice;
    int block, fraction, keep; /* of an order; block 0: none */
    /* Of the `finish` of reference/summer.h; e NULL: none, else span is not given. */
    struct linear_bounds bounds;
    const double *bias, *row_grid; /* [n_cols], [rows] or NULL */
    double *e;                     /* [rows, n_cols] */
    double *need;                  /* [runs, n_cols], INFINITY before */
};

/* NULL, or one line that says why it could not be launched. Never synchronises. */
typedef const char *sums_fn(const struct sums_args *args, void *stream);
extern sums_fn *const sums_launch[DEVICE_COUNT],
    *const replay_launch[DEVICE_COUNT]; /* NULL: not in this build */

#ifdef __cplusplus
}
#endif
#endif
