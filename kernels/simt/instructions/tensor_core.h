/* tensor_core - the arithmetic of mma and wgmma: what a tensor core makes of 16 products and an
 * accumulator. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_INSTRUCTIONS_TENSOR_CORE_H
#define KERNELS_SIMT_INSTRUCTIONS_TENSOR_CORE_H

#include "kernels/simt/instructions/instructions.h"
#include "kernels/simt/simt_options.h"

namespace simt {

static const int TENSOR_K = 16;            /* products summed at once */
static const int TENSOR_MAX_COLUMNS = 256; /* a multiple of 8 each time */

/* d[rows][columns] += a[rows][16] b[16][columns], a and b as bits of `type`. */
void tensor_core_multiply(float *d, const uint16_t *a, const uint16_t *b, int rows, int columns,
                          tensor_type type, simt_tensor_core mode);

} // namespace simt

#endif
