/* matrix - fragments of one warp: ldmatrix, stmatrix, mma.sync. Which lane holds
 * what: ptx_mma.cuh. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "kernels/simt/instructions/async.h"
#include "kernels/simt/race/race.h"
#include "kernels/simt/instructions/tensor_core.h"

namespace simt {

typedef uint16_t matrix_8x8[8][8];

static inline uint32_t pair(uint16_t low, uint16_t high) { return low | (uint32_t)high << 16; }

/* ---- ldmatrix, stmatrix ---- */

struct matrix_argument {
    uint32_t *loaded;       /* [matrices] */
    const uint32_t *stored; /* [matrices] */
    unsigned char *row;     /* of lanes below 8 * matrices */
    int matrices;
    bool transposed;
};

static void check_row(const matrix_argument *a, race_kind kind, const char *operation, place at) {
    if (self->lane >= 8 * a->matrices) return;
    check_aligned(a->row, 16, operation, "the row address", at);
    check_shared(a->row, 16, operation, "a row", at);
    race_access(a->row, 16, kind, at);
}

static inline matrix_argument *argument_of(void **arguments, int lane) {
    return static_cast<matrix_argument *>(arguments[lane]);
}

static void ldmatrix_run(void **arguments, uint32_t) {
    const matrix_argument first = *argument_of(arguments, 0);
    for (int m = 0; m < first.matrices; m++) {
        matrix_8x8 matrix;
        for (int i = 0; i < 8; i++) memcpy(matrix[i], argument_of(arguments, 8 * m + i)->row, 16);
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane / 4, t = lane % 4 * 2;
            argument_of(arguments, lane)->loaded[m] = first.transposed ? pair(matrix[t][g], matrix[t + 1][g])
                                                                       : pair(matrix[g][t], matrix[g][t + 1]);
        }
    }
}

static void stmatrix_run(void **arguments, uint32_t) {
    const matrix_argument first = *argument_of(arguments, 0);
    for (int m = 0; m < first.matrices; m++) {
        matrix_8x8 matrix;
        for (int lane = 0; lane < 32; lane++) {
            const int g = lane / 4, t = lane % 4 * 2;
            const uint32_t r = argument_of(arguments, lane)->stored[m];
            (first.transposed ? matrix[t][g] : matrix[g][t]) = (uint16_t)r;
            (first.transposed ? matrix[t + 1][g] : matrix[g][t + 1]) = (uint16_t)(r >> 16);
        }
        for (int i = 0; i < 8; i++) memcpy(argument_of(arguments, 8 * m + i)->row, matrix[i], 16);
    }
}

void ldmatrix(uint32_t *r, int matrices, bool transposed, const void *row, const char *operation, place at) {
    unsigned char *p = static_cast<unsigned char *>(const_cast<void *>(row));
    matrix_argument argument = {r, nullptr, p, matrices, transposed};
    check_row(&argument, RACE_READ, operation, at);
    warp_aligned(operation, ldmatrix_run, &argument, at);
}

void stmatrix(void *row, const uint32_t *r, int matrices, bool transposed, const char *operation, place at) {
    matrix_argument argument = {nullptr, r, static_cast<unsigned char *>(row), matrices, transposed};
    check_row(&argument, RACE_WRITE, operation, at);
    warp_aligned(operation, stmatrix_run, &argument, at);
}

/* ---- mma.sync ---- */

struct mma_argument {
    float *d;
    const uint32_t *a, *b;
    tensor_type type;
};

static inline void split(uint16_t *low, uint16_t *high, uint32_t r) {
    *low = (uint16_t)r;
    *high = (uint16_t)(r >> 16);
}

static void mma_run(void **arguments, uint32_t) {
    uint16_t a[16][16], b[16][8];
    float d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const auto *m = static_cast<const mma_argument *>(arguments[lane]);
        const int g = lane / 4, t = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            uint16_t *pair = &a[g + i % 2 * 8][t + i / 2 * 8];
            split(&pair[0], &pair[1], m->a[i]);
        }
        for (int i = 0; i < 2; i++) split(&b[t + 8 * i][g], &b[t + 8 * i + 1][g], m->b[i]);
        for (int i = 0; i < 4; i++) d[g + i / 2 * 8][t + i % 2] = m->d[i];
    }
    const tensor_type type = static_cast<const mma_argument *>(arguments[0])->type;
    tensor_core_multiply(&d[0][0], &a[0][0], &b[0][0], 16, 8, type, running->of->options.tensor_core);
    for (int lane = 0; lane < 32; lane++) {
        const int g = lane / 4, t = lane % 4 * 2;
        float *out = static_cast<const mma_argument *>(arguments[lane])->d;
        for (int i = 0; i < 4; i++) out[i] = d[g + i / 2 * 8][t + i % 2];
    }
}

void mma_m16n8k16(float *d, const uint32_t *a, const uint32_t *b, tensor_type type, place at) {
    mma_argument argument = {d, a, b, type};
    warp_aligned(type == TENSOR_BF16 ? "mma_m16n8k16<bf16>" : "mma_m16n8k16<f16>", mma_run, &argument, at);
}

} // namespace simt
