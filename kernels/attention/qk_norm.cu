/* qk_norm - every head of q and of k times its weight over its root mean square; both
 * in one launch.
 * Shapes  q, q_out [T, H, D], k, k_out [T, G, D], row and head strides; w_q, w_k [D].
 * Grid    ceil(T (H + G) / 128).   Block  4 warps; a thread owns one head of one token.
 * Traffic each head twice (the second time from cache); neighbouring threads read
 *         neighbouring heads.
 * Numerics fp32; 8 accumulators over the octets of the head, added in order. The root and the
 *         division are the correctly rounded ones: the same bits on every device.
 * Needs   one dtype. May work in place: an element is written by the thread that read it. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/octet.cuh"
#include "kernels/kernels.h"

namespace {

enum { THREADS = 128 };

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

} // namespace

extern "C" const char *KERNEL_SYMBOL(qk_norm)(const struct call *call, void *, void *stream) {
    const struct qk_norm_args *a = &call->u.qk_norm;
    return with_storage(a->q.dtype, [&](auto t) { return qk_norm_launch<decltype(t)>(a, stream); });
}

#ifndef __CUDACC__
extern "C" const char *qk_norm_unsupported(const struct call *call) {
    const struct qk_norm_args *a = &call->u.qk_norm;
    const struct view *const views[] = {&a->q, &a->k, &a->q_out, &a->k_out, &a->w_q, &a->w_k};
    return storage_unsupported(views, 6);
}

extern "C" struct contract qk_norm_contract(const struct call *call) {
    struct contract c = {};
    c.op = OP_QK_NORM;
    c.u.norm.unit = UNIT_F32;
    c.u.norm.depth = (call->u.qk_norm.head_dim + OCTET - 1) / OCTET + (OCTET - 1);
    c.u.norm.rsqrt_error = 2 * UNIT_F32; /* one root, one division */
    return c;
}
#endif
