/* octet - eight consecutive elements, the unit in which the row kernels move data: one 16-byte
 * access for 16-bit types and two for fp32 where the view is aligned, single elements where it is not,
 * zeros past the end of the row. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_LANG_OCTET_CUH
#define KERNELS_LANG_OCTET_CUH

#include "kernels/lang/storage.cuh"

constexpr int OCTET = 8;

template <class T> struct alignas(16) octet { T v[OCTET]; };

/* o = src[0..n) and zeros; n >= 8 means a whole octet. aligned: src is a multiple of 16 bytes. */
template <class T>
__device__ __forceinline__ void octet_load_raw(octet<T> &o, const T *src, bool aligned, int n) {
    if (aligned && n >= OCTET) {
        o = *reinterpret_cast<const octet<T> *>(src);
        return;
    }
    for (int e = 0; e < OCTET; e++) o.v[e] = e < n ? src[e] : from_float<T>(0.0f);
}

template <class T>
__device__ __forceinline__ void octet_store_raw(T *dst, const octet<T> &o, bool aligned, int n) {
    if (aligned && n >= OCTET) {
        *reinterpret_cast<octet<T> *>(dst) = o;
        return;
    }
    for (int e = 0; e < OCTET && e < n; e++) dst[e] = o.v[e];
}

template <class T>
__device__ __forceinline__ void octet_load(float (&dst)[OCTET], const T *src, bool aligned, int n) {
    octet<T> o;
    octet_load_raw(o, src, aligned, n);
    for (int e = 0; e < OCTET; e++) dst[e] = to_float(o.v[e]);
}

template <class T>
__device__ __forceinline__ void octet_store(T *dst, const float (&src)[OCTET], bool aligned, int n) {
    octet<T> o;
    for (int e = 0; e < OCTET; e++) o.v[e] = from_float<T>(src[e]);
    octet_store_raw(dst, o, aligned, n);
}

/* Launchers: does every octet of the view start at a multiple of 16 bytes? */
template <class T> static inline bool view_is_aligned(const struct view &view, int n_strides) {
    bool aligned = (uintptr_t)view.data % 16 == 0;
    for (int i = 0; i < n_strides; i++) aligned = aligned && view.stride[i] * (int64_t)sizeof(T) % 16 == 0;
    return aligned;
}

#endif
