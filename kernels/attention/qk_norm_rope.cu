/* qk_norm, rope - the two stages between the fused projection and the cache; q and k in one launch each.
 *
 * qk_norm: every head of q and of k times its weight over its root mean square.
 * Shapes  q, q_out [T, H, D], k, k_out [T, G, D], row and head strides; w_q, w_k [D].
 * Grid    ceil(T (H + G) / 128).   Block  4 warps; a thread owns one head of one token.
 * Traffic each head twice (the second time from cache); neighbouring threads read neighbouring heads.
 * Numerics fp32; 8 accumulators over the octets of the head, added in order. The root and the division are
 *         the correctly rounded ones: the same bits on every device.
 *
 * rope: rotate the pairs of the first rot_dim dims of every head, copy the rest.
 * Shapes  as above; table [P, rot_dim] fp32 (cosines, then sines), positions [T] int32.
 * Grid    T: a block owns one token.   Block  4 warps; a thread takes every 128th pair of the token's heads.
 * Traffic each element once; the row of the table stays in cache.
 * Numerics fp32, one product and one fused multiply-add per output.
 *
 * Both may work in place: an element is written by the thread that read it.   Need  one dtype. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/octet.cuh"
#include "kernels/kernels.h"

namespace {

enum { THREADS = 128 };

/* ---- qk_norm ---- */

template <class T>
__device__ void head_norm(T *out, const T *x, const T *w, int head_dim, float eps, bool aligned) {
    float sum[OCTET] = {}, v[OCTET], weight[OCTET];
    for (int d = 0; d < head_dim; d += OCTET) {
        octet_load(v, x + d, aligned, head_dim - d);
        for (int e = 0; e < OCTET; e++) sum[e] = fmaf(v[e], v[e], sum[e]);
    }
    for (int e = 1; e < OCTET; e++) sum[0] += sum[e];
    const float scale = 1.0f / sqrtf(sum[0] / (float)head_dim + eps);

    for (int d = 0; d < head_dim; d += OCTET) {
        octet_load(v, x + d, aligned, head_dim - d);
        octet_load(weight, w + d, aligned, head_dim - d);
        for (int e = 0; e < OCTET; e++) v[e] = v[e] * scale * weight[e];
        octet_store(out + d, v, aligned, head_dim - d);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) qk_norm_kernel(const struct qk_norm_args a, const bool aligned) {
    const int64_t heads = a.n_heads + a.n_kv_heads;
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = i / heads, head = i % heads;
    if (t >= a.n_tokens) return;
    if (head < a.n_heads)
        head_norm((T *)a.q_out.data + t * a.q_out.stride[0] + head * a.q_out.stride[1],
                  (const T *)a.q.data + t * a.q.stride[0] + head * a.q.stride[1], (const T *)a.w_q.data,
                  (int)a.head_dim, (float)a.eps, aligned);
    else
        head_norm((T *)a.k_out.data + t * a.k_out.stride[0] + (head - a.n_heads) * a.k_out.stride[1],
                  (const T *)a.k.data + t * a.k.stride[0] + (head - a.n_heads) * a.k.stride[1],
                  (const T *)a.w_k.data, (int)a.head_dim, (float)a.eps, aligned);
}

template <class T> const char *qk_norm_launch(const struct qk_norm_args *a, void *stream) {
    const bool aligned = view_is_aligned<T>(a->q, 2) && view_is_aligned<T>(a->k, 2) &&
                         view_is_aligned<T>(a->q_out, 2) && view_is_aligned<T>(a->k_out, 2) &&
                         view_is_aligned<T>(a->w_q, 0) && view_is_aligned<T>(a->w_k, 0);
    const int64_t n = a->n_tokens * (a->n_heads + a->n_kv_heads);
    return LAUNCH((qk_norm_kernel<T>), dim3((unsigned)((n + THREADS - 1) / THREADS)), dim3(THREADS), 0,
                  stream, *a, aligned);
}

/* ---- rope ---- */

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

extern "C" const char *KERNEL_SYMBOL(qk_norm)(const struct call *call, void *, void *stream) {
    const struct qk_norm_args *a = &call->u.qk_norm;
    return a->q.dtype == DTYPE_F32 ? qk_norm_launch<float>(a, stream) : qk_norm_launch<bf16>(a, stream);
}

extern "C" const char *KERNEL_SYMBOL(rope)(const struct call *call, void *, void *stream) {
    const struct rope_args *a = &call->u.rope;
    return a->q.dtype == DTYPE_F32 ? rope_launch<float>(a, stream) : rope_launch<bf16>(a, stream);
}

#ifndef __CUDACC__
extern "C" const char *qk_norm_unsupported(const struct call *call) {
    const struct qk_norm_args *a = &call->u.qk_norm;
    const struct view *const views[] = {&a->q, &a->k, &a->q_out, &a->k_out, &a->w_q, &a->w_k};
    return storage_unsupported(views, 6);
}

extern "C" struct contract qk_norm_contract(const struct call *call) {
    struct contract c = contract_exact(OP_QK_NORM);
    c.u.norm.unit = UNIT_F32;
    c.u.norm.depth = (call->u.qk_norm.head_dim + OCTET - 1) / OCTET + (OCTET - 1);
    c.u.norm.rsqrt_error = 2 * UNIT_F32; /* one root, one division */
    return c;
}

extern "C" const char *rope_unsupported(const struct call *call) {
    const struct rope_args *a = &call->u.rope;
    const struct view *const views[] = {&a->q, &a->k, &a->q_out, &a->k_out};
    if (a->table.dtype != DTYPE_F32) return "needs a table of cosines and sines in fp32";
    return storage_unsupported(views, 4);
}

/* In C++ a function may share its name with a struct, but g++ says that it hides the constructor. */
#pragma GCC diagnostic ignored "-Wshadow"
extern "C" struct contract rope_contract(const struct call *) { return contract_exact(OP_ROPE); }
#endif
