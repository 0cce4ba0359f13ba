/* conformance - one micro-kernel per instruction wrapper (conformance.cu, built for both devices),
 * its inputs, and its result in plain C, written from the PTX ISA (conformance_expected.c). Outputs
 * are compared bit by bit: host device, C and, through fixtures/golden, a GPU. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_KERNELS_CONFORMANCE_H
#define TESTS_KERNELS_CONFORMANCE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CONFORMANCE_TILES = 48,          /* products of one mma case */
    CONFORMANCE_IMAGE = 24576,       /* 16-bit elements of shared memory of a wgmma case */
    CONFORMANCE_FLOATS = 1024,       /* of the pack case */
    CONFORMANCE_MATRIX_WORDS = 8192, /* of the matrices TMA reads and writes */
};

struct conformance_input {
    uint16_t raw[2 * CONFORMANCE_MATRIX_WORDS];                               /* any bits */
    uint16_t image[2][CONFORMANCE_IMAGE];                                     /* bf16, f16 */
    uint16_t a[2][CONFORMANCE_TILES][16][16], b[2][CONFORMANCE_TILES][16][8]; /* bf16, f16 */
    float c[CONFORMANCE_TILES][16][8], accumulators[64][256], floats[CONFORMANCE_FLOATS];
};

enum conformance_kind {
    CONFORM_PACK,
    CONFORM_LDMATRIX,
    CONFORM_STMATRIX,
    CONFORM_MMA,
    CONFORM_CP_ASYNC,
    CONFORM_MBARRIER,
    CONFORM_TMA_LOAD,
    CONFORM_TMA_STORE,
    CONFORM_NAMED_BARRIER,
    CONFORM_REGISTERS,
    CONFORM_WGMMA,
    CONFORM_KINDS
};

/* Swizzles are enum shared_swizzle: 0 none, 1 128B, 2 64B. */
struct conformance_box { /* TMA: matrix [rows][cols] in `raw`, or in the output */
    int element;         /* enum tensor_map_element */
    int cols, rows, row_bytes, box_cols, box_rows, swizzle, x, y;
};
struct conformance_operand { /* wgmma: where a matrix lies in `image`, see wgmma_desc */
    int start, leading, stride, swizzle, mn_major,
        advance; /* bytes; advance: from one step of 16 k to the next */
};
struct conformance_product { /* [64][64] x [64][columns], four steps of 16 k */
    int columns, a_in_registers, accumulate;
    struct conformance_operand a, b;
};

struct conformance {
    const char *name;
    enum conformance_kind kind;
    size_t words;             /* of output, which starts with all bits set */
    int type;                 /* 0 bf16, 1 f16 */
    int matrices, transposed; /* ldmatrix, stmatrix */
    struct conformance_box box;
    struct conformance_product product;
};

extern const struct conformance conformance_cases[]; /* ended by a row without a name */

void conformance_fill(struct conformance_input *input);
/* Expected output; truncating: tensor cores as in sm_90, otherwise sums in fp32. */
void conformance_expected(const struct conformance *c, const struct conformance_input *input, int truncating,
                          uint32_t *out);

uint64_t conformance_hash(const uint32_t *words, size_t n);

/* input and out are device addresses. NULL, or why the launch was refused. */
typedef const char *conformance_launch(const struct conformance *c, const struct conformance_input *input,
                                       uint32_t *out, void *stream);
conformance_launch conformance_host, conformance_cuda;

#ifdef __cplusplus
}
#endif
#endif
