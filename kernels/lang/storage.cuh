/* storage - a launcher's choice among the instances of its template: one per dtype that weights and
 * activations are stored in. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_STORAGE_CUH
#define KERNELS_LANG_STORAGE_CUH

#include "kernels/lang/kernel.cuh"
#include "layer/ops.h"

/* launch(T()) for the T that d is stored as:
 * with_storage(a.x.dtype, [&](auto t) { return launch<decltype(t)>(a, stream); }) */
template <class F> static inline const char *with_storage(enum dtype d, F launch) {
    switch (d) {
    case DTYPE_F32: return launch(float());
    case DTYPE_BF16: return launch(bf16());
    case DTYPE_F16: return launch(f16());
    default: return "stores " STORAGE_NAMES " only";
    }
}

/* Kernels that store everything in one dtype: NULL, or why these views cannot run. */
static inline const char *storage_unsupported(const struct view *const *views, int n_views) {
    const enum dtype dtype = views[0]->dtype;
    if (!dtype_is_storage(dtype)) return "stores " STORAGE_NAMES " only";
    for (int i = 1; i < n_views; i++)
        if (views[i]->dtype != dtype) return "needs one storage dtype for all its tensors";
    return NULL;
}

#endif
