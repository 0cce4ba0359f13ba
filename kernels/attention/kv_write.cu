/* kv_write - put the new keys and values into their slots of the paged cache; bit copies.
 * Shapes  k, v [T, G, D], row and head strides; slots [T] int32; k_cache, v_cache
 *         [pages, page_size, G, D].
 * Grid    T: a block owns one token.   Block  4 warps; a thread takes every 128th
 *         octet of the token's heads.
 * Traffic 2 G D elements in, as many out; consecutive threads touch consecutive octets.
 * Numerics none.   Needs  the four tensors in one dtype. */
/* SPDX-License-Identifier: MIT */
#include "kernels/lang/octet.cuh"
#include "kernels/kernels.h"

namespace {

enum { THREADS = 128 };

template <class T>
__device__ void heads_copy(T *dst, int64_t dst_stride, const T *src, int64_t src_stride, int n_heads,
                           int head_dim, bool aligned) {
    const int octets = (head_dim + OCTET - 1) / OCTET;
    if (SEEDED(BUG_KV_WRITE_HEAD_TOO_MANY)) n_heads++;
    for (int i = threadIdx.x; i < n_heads * octets; i += THREADS) {
        const int head = i / octets, d = i % octets * OCTET;
        octet<T> o;
        octet_load_raw(o, src + head * src_stride + d, aligned, head_dim - d);
        octet_store_raw(dst + head * dst_stride + d, o, aligned, head_dim - d);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) kv_write_kernel(const struct kv_write_args a, const bool aligned) {
    const int64_t t = blockIdx.x;
    const int64_t slot = ((const int32_t *)a.slots.data)[SEEDED(BUG_KV_WRITE_SLOT_OVERRUN) ? t + 1 : t];
    const int64_t page = slot / a.page_size, place = slot % a.page_size;
    heads_copy((T *)a.k_cache.data + page * a.k_cache.stride[0] + place * a.k_cache.stride[1],
               a.k_cache.stride[2], (const T *)a.k.data + t * a.k.stride[0], a.k.stride[1], (int)a.n_kv_heads,
               (int)a.head_dim, aligned);
    heads_copy((T *)a.v_cache.data + page * a.v_cache.stride[0] + place * a.v_cache.stride[1],
               a.v_cache.stride[2], (const T *)a.v.data + t * a.v.stride[0], a.v.stride[1], (int)a.n_kv_heads,
               (int)a.head_dim, aligned);
}

template <class T> const char *kv_write_launch(const struct kv_write_args *a, void *stream) {
    const bool aligned = view_is_aligned<T>(a->k, 2) && view_is_aligned<T>(a->v, 2) &&
                         view_is_aligned<T>(a->k_cache, 3) && view_is_aligned<T>(a->v_cache, 3);
    return LAUNCH((kv_write_kernel<T>), dim3((unsigned)a->n_tokens), dim3(THREADS), 0, stream, *a, aligned);
}

} // namespace

extern "C" const char *KERNEL_SYMBOL(kv_write)(const struct call *call, void *, void *stream) {
    const struct kv_write_args *a = &call->u.kv_write;
    return with_storage(a->k.dtype, [&](auto t) { return kv_write_launch<decltype(t)>(a, stream); });
}

#ifndef __CUDACC__
extern "C" const char *kv_write_unsupported(const struct call *call) {
    const struct kv_write_args *a = &call->u.kv_write;
    const struct view *const views[] = {&a->k, &a->v, &a->k_cache, &a->v_cache};
    return storage_unsupported(views, 4);
}

/* Bit copies: nothing is computed. */
extern "C" struct contract kv_write_contract(const struct call *) {
    struct contract c = {};
    c.op = OP_KV_WRITE;
    return c;
}
#endif
