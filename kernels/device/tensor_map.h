/* tensor_map - a matrix in global memory as the TMA unit sees it. A launcher makes one and passes it by value;
 * both devices make their own kind behind the same 128 bytes. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_DEVICE_TENSOR_MAP_H
#define KERNELS_DEVICE_TENSOR_MAP_H

#include "kernels/device/ptx_base.cuh"

struct alignas(64) tensor_map {
    unsigned char opaque[128];
};

enum tensor_map_element { TENSOR_MAP_BF16, TENSOR_MAP_F16, TENSOR_MAP_F32 };

/* matrix [rows][cols], its rows row_bytes apart; one copy moves box_rows x box_cols of it. */
struct tensor_map_2d {
    const void *matrix;                 /* 16-byte aligned */
    enum tensor_map_element element;
    int64_t cols, rows, row_bytes;      /* row_bytes: a multiple of 16 */
    int box_cols, box_rows;             /* at most 256 each; a row of the box is a multiple of 16 bytes, */
    enum shared_swizzle swizzle;        /* and at most 128 (64) of them with SWIZZLE_128B (_64B) */
};

/* NULL, or one line that says why there is no such map. */
extern "C" const char *KERNEL_SYMBOL(tensor_map_encode)(struct tensor_map *map, const struct tensor_map_2d *of);
static inline const char *tensor_map_encode(struct tensor_map *map, const struct tensor_map_2d &of) {
    return KERNEL_SYMBOL(tensor_map_encode)(map, &of);
}

#endif
