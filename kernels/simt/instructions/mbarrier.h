/* mbarrier - what TMA does to an mbarrier. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_INSTRUCTIONS_MBARRIER_H
#define KERNELS_SIMT_INSTRUCTIONS_MBARRIER_H

#include "kernels/simt/instructions/async.h"

namespace simt {

/* Fail unless TMA may signal it. */
void mbarrier_check_tma(mbarrier *bar, const char *operation, place at);
/* `bytes` of the copy have come. Keeps an error when the barrier is gone. */
void mbarrier_complete(block *b, mbarrier *bar, size_t bytes, const tile_copy &copy);

} // namespace simt

#endif
