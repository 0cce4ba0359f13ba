/* residual - out = x + add.
 * Shapes  x, add, out [T, M], each with its own row stride, all alike.
 * Grid    T: a block owns one row.   Block  4 warps; a thread takes every 128th octet.
 * Traffic 3 M elements a row, each once; memory bound.
 * Numerics one fp32 addition an element, rounded once more by the store.   Needs  nothing. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/octet.cuh"
#include "kernels/kernels.h"

namespace {

enum { THREADS = 128 };

template <class T>
__global__ void __launch_bounds__(THREADS) residual_kernel(const struct residual_args a, const bool aligned) {
    const int64_t row = blockIdx.x;
    const T *x = (const T *)a.x.data + row * a.x.stride[0],
            *add = (const T *)a.add.data + row * a.add.stride[0];
    T *out = (T *)a.out.data + row * a.out.stride[0];
    for (int64_t i = threadIdx.x * OCTET; i < a.width; i += THREADS * OCTET) {
        const int n = (int)min((int64_t)OCTET, a.width - i);
        float left[OCTET], right[OCTET];
        octet_load(left, x + i, aligned, n);
        octet_load(right, add + i, aligned, n);
        for (int e = 0; e < OCTET; e++) left[e] += right[e];
        octet_store(out + i, left, aligned, n);
    }
}

template <class T> const char *residual_launch(const struct residual_args *a, void *stream) {
    const bool aligned =
        view_is_aligned<T>(a->x, 1) && view_is_aligned<T>(a->add, 1) && view_is_aligned<T>(a->out, 1);
    return LAUNCH((residual_kernel<T>), dim3((unsigned)a->n_tokens), dim3(THREADS), 0, stream, *a, aligned);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(residual)(const struct call *call, void *, void *stream) {
    const struct residual_args *a = &call->u.residual;
    return with_storage(a->x.dtype, [&](auto t) { return residual_launch<decltype(t)>(a, stream); });
}

#ifndef __CUDACC__
extern "C" const char *residual_unsupported(const struct call *call) {
    const struct residual_args *a = &call->u.residual;
    const struct view *const views[] = {&a->x, &a->add, &a->out};
    return storage_unsupported(views, 3);
}

extern "C" struct contract residual_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_RESIDUAL;
    c.u.sum.unit = UNIT_F32;
    return c;
}
#endif
