/* rope - rotate the pairs of the first rot_dim dims of every head of q and k, copy
 * the rest; both in one launch.
 * Shapes  q, q_out [T, H, D], k, k_out [T, G, D], row and head strides; table [P, rot_dim] fp32
 *         (cosines, then sines), positions [T] int32.
 * Grid    T: a block owns one token.   Block  4 warps; a thread takes every 128th
 *         pair of the token's heads.
 * Traffic each element once; the row of the table stays in cache.
 * Numerics fp32, one product and one fused multiply-add per output.
 * Needs   one dtype. May work in place: an element is written by the thread that read it. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/octet.cuh"
#include "kernels/kernels.h"

namespace {

enum { THREADS = 128 };

template <class T>
__device__ void heads_rotate(const struct view &out_view, const struct view &x_view, int64_t t, int n_heads,
                             const float *table, const struct rope_args &a) {
    T *out = (T *)out_view.data + t * out_view.stride[0];
    const T *x = (const T *)x_view.data + t * x_view.stride[0];
    const int half = (int)a.rot_dim / 2, rest = (int)(a.head_dim - a.rot_dim);
    const bool neox = a.pairing == ROPE_NEOX;
    for (int i = threadIdx.x; i < n_heads * half; i += THREADS) {
        const int head = i / half, pair = i % half;
        const int first = neox ? pair : 2 * pair, second = neox ? pair + half : 2 * pair + 1;
        const T *from = x + head * x_view.stride[1];
        T *to = out + head * out_view.stride[1];
        const float p = to_float(from[first]), q = to_float(from[second]);
        const float cosine = table[pair], sine = table[half + pair];
        to[first] = from_float<T>(fmaf(p, cosine, -(q * sine)));
        to[second] = from_float<T>(fmaf(q, cosine, p * sine));
    }
    for (int i = threadIdx.x; i < n_heads * rest; i += THREADS) {
        const int head = i / rest, d = (int)a.rot_dim + i % rest;
        out[head * out_view.stride[1] + d] = x[head * x_view.stride[1] + d];
    }
}

template <class T> __global__ void __launch_bounds__(THREADS) rope_kernel(const struct rope_args a) {
    const int64_t t = blockIdx.x, position = ((const int32_t *)a.positions.data)[t];
    const float *table = (const float *)a.table.data + position * a.table.stride[0];
    heads_rotate<T>(a.q_out, a.q, t, (int)a.n_heads, table, a);
    heads_rotate<T>(a.k_out, a.k, t, (int)a.n_kv_heads, table, a);
}

template <class T> const char *rope_launch(const struct rope_args *a, void *stream) {
    return LAUNCH((rope_kernel<T>), dim3((unsigned)a->n_tokens), dim3(THREADS), 0, stream, *a);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(rope)(const struct call *call, void *, void *stream) {
    const struct rope_args *a = &call->u.rope;
    return with_storage(a->q.dtype, [&](auto t) { return rope_launch<decltype(t)>(a, stream); });
}

#ifndef __CUDACC__
extern "C" const char *rope_unsupported(const struct call *call) {
    const struct rope_args *a = &call->u.rope;
    const struct view *const views[] = {&a->q, &a->k, &a->q_out, &a->k_out};
    if (a->table.dtype != DTYPE_F32) return "needs a table of cosines and sines in fp32";
    return storage_unsupported(views, 4);
}

/* In C++ a function may share its name with a struct, but g++ says that it hides the
 * constructor. */
#pragma GCC diagnostic ignored "-Wshadow"
extern "C" struct contract rope_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_ROPE;
    c.u.rope.unit = UNIT_F32;
    return c;
}
#endif
