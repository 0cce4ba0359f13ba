/* tensor_map - a matrix in global memory as the TMA unit sees it. A launcher makes one and passes
 * it by value; both devices keep their own kind of map in the same 128 bytes. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_TENSOR_MAP_H
#define KERNELS_LANG_TENSOR_MAP_H

#include "kernels/lang/ptx_base.cuh"

struct alignas(64) tensor_map {
    unsigned char opaque[128];
};

enum tensor_map_element { TENSOR_MAP_BF16, TENSOR_MAP_F16, TENSOR_MAP_F32 };

/* matrix [rows][cols], its rows row_bytes apart; one copy moves box_rows x box_cols of it. */
struct tensor_map_2d {
    const void *matrix;
    enum tensor_map_element element;
    int64_t cols, rows, row_bytes;
    int box_cols, box_rows;
    enum shared_swizzle swizzle;
};

static inline int tensor_map_element_bytes(enum tensor_map_element element) {
    return element == TENSOR_MAP_F32 ? 4 : 2;
}

/* NULL, or what TMA cannot do (CUDA driver API, cuTensorMapEncodeTiled). A swizzled box of narrower
 * rows, which the driver takes, would have gaps in shared memory: not emulated, so not offered. */
static inline const char *tensor_map_refused(const struct tensor_map_2d *of) {
    const int64_t box_row_bytes = (int64_t)of->box_cols * tensor_map_element_bytes(of->element);
    const struct {
        bool refused;
        const char *why;
    } rules[] = {
        {(uintptr_t)of->matrix % 16 != 0, "TMA needs the matrix at a multiple of 16 bytes"},
        {of->row_bytes <= 0 || of->row_bytes % 16 != 0 || of->row_bytes >= INT64_C(1) << 40,
         "TMA needs rows a multiple of 16 bytes apart"},
        {of->cols < 1 || of->rows < 1 || of->cols >= INT64_C(1) << 32 || of->rows >= INT64_C(1) << 32,
         "TMA needs a matrix of 1 to 2^32 - 1 rows and columns"},
        {of->box_cols < 1 || of->box_cols > 256 || of->box_rows < 1 || of->box_rows > 256,
         "TMA moves boxes of 1 to 256 rows and columns"},
        {box_row_bytes % 16 != 0, "TMA needs boxes whose rows are a multiple of 16 bytes"},
        {of->swizzle == SWIZZLE_128B && box_row_bytes != 128, "a 128B swizzled box has rows of 128 bytes"},
        {of->swizzle == SWIZZLE_64B && box_row_bytes != 64, "a 64B swizzled box has rows of 64 bytes"},
    };
    for (const auto &rule : rules)
        if (rule.refused) return rule.why;
    return NULL;
}

/* NULL, or one line that says why there is no such map. */
extern "C" const char *KERNEL_SYMBOL(tensor_map_encode)(struct tensor_map *map,
                                                        const struct tensor_map_2d *of);
static inline const char *tensor_map_encode(struct tensor_map *map, const struct tensor_map_2d &of) {
    return KERNEL_SYMBOL(tensor_map_encode)(map, &of);
}

#endif
