/* intrinsics - CUDA's device functions for kernels compiled by g++: barriers, warp
 * collectives, atomics, maths. Only the mask-carrying collectives exist: what relies on an
 * implicit warp does not compile. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_SIMT_CORE_INTRINSICS_H
#define KERNELS_SIMT_CORE_INTRINSICS_H

#include <cmath>
#include <math.h>
#include <string.h>

#include "kernels/simt/race/race.h"
#include "kernels/simt/core/simt.h"

/* Barriers of the block */
static inline void __syncthreads(SIMT_CALLER) { simt::barrier_wait(simt::VOTE_NONE, 0, SIMT_PLACE); }
static inline int __syncthreads_or(int predicate, SIMT_CALLER) {
    return simt::barrier_wait(simt::VOTE_OR, predicate, SIMT_PLACE);
}
static inline int __syncthreads_and(int predicate, SIMT_CALLER) {
    return simt::barrier_wait(simt::VOTE_AND, predicate, SIMT_PLACE);
}
static inline int __syncthreads_count(int predicate, SIMT_CALLER) {
    return simt::barrier_wait(simt::VOTE_COUNT, predicate, SIMT_PLACE);
}

/* Shuffles */
namespace simt {
enum shuffle_kind { SHUFFLE_INDEX, SHUFFLE_UP, SHUFFLE_DOWN, SHUFFLE_XOR };

template <class T> struct shuffle_argument {
    T in, out;
    shuffle_kind kind;
    int selector, width;
    place at;
};

int shuffle_source(int lane, shuffle_kind kind, int selector, int width);
[[noreturn]] void shuffle_fail(place at, int lane, int source, uint32_t mask);
void shuffle_check_width(place at, int width);

template <class T> void shuffle_run(void **arguments, uint32_t mask) {
    for (uint32_t left = mask; left; left &= left - 1) {
        const int lane = __builtin_ctz(left);
        auto *mine = static_cast<shuffle_argument<T> *>(arguments[lane]);
        const int source = shuffle_source(lane, mine->kind, mine->selector, mine->width);
        if (!(mask >> source & 1)) shuffle_fail(mine->at, lane, source, mask);
        mine->out = static_cast<shuffle_argument<T> *>(arguments[source])->in;
    }
}

template <class T>
inline T shuffle(uint32_t mask, T value, shuffle_kind kind, int selector, int width, const char *name,
                 place at) {
    if (__builtin_expect(width != 32, 0)) shuffle_check_width(at, width);
    shuffle_argument<T> argument{value, value, kind, selector, width, at};
    warp_collective(mask, name, shuffle_run<T>, &argument, at);
    return argument.out;
}
} // namespace simt

template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_CALLER) {
    return simt::shuffle(mask, value, simt::SHUFFLE_INDEX, source, width, "__shfl_sync", SIMT_PLACE);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_CALLER) {
    return simt::shuffle(mask, value, simt::SHUFFLE_UP, (int)delta, width, "__shfl_up_sync", SIMT_PLACE);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_CALLER) {
    return simt::shuffle(mask, value, simt::SHUFFLE_DOWN, (int)delta, width, "__shfl_down_sync", SIMT_PLACE);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIMT_CALLER) {
    return simt::shuffle(mask, value, simt::SHUFFLE_XOR, bits, width, "__shfl_xor_sync", SIMT_PLACE);
}

/* Votes, and __syncwarp */
namespace simt {
uint32_t ballot(uint32_t mask, bool predicate, const char *name, place at);
void warp_barrier(uint32_t mask, place at);
} // namespace simt

static inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_CALLER) {
    return simt::ballot(mask, predicate != 0, "__ballot_sync", SIMT_PLACE);
}
static inline int __any_sync(unsigned mask, int predicate, SIMT_CALLER) {
    return simt::ballot(mask, predicate != 0, "__any_sync", SIMT_PLACE) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, SIMT_CALLER) {
    return simt::ballot(mask, predicate != 0, "__all_sync", SIMT_PLACE) == mask;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_CALLER) {
    simt::warp_barrier(mask, SIMT_PLACE);
}

static inline void __nanosleep(unsigned, SIMT_CALLER) { simt::yield(SIMT_PLACE); }
static inline void __threadfence_block() {}
static inline void __threadfence() {
#ifdef SIMT_RACE
    simt::race_device_fence();
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Atomics: real ones, because blocks run on several OS threads */
namespace simt {
template <class T, class F> inline T atomic_update(T *p, F next) {
    T old;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    for (;;) {
        T value = next(old);
        if (__atomic_compare_exchange(p, &old, &value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return old;
    }
}
} // namespace simt

#define SIMT_INTEGER_ATOMICS(T)                                                                              \
    static inline T atomicAdd(T *p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }              \
    static inline T atomicSub(T *p, T v) { return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED); }              \
    static inline T atomicOr(T *p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }                \
    static inline T atomicAnd(T *p, T v) { return __atomic_fetch_and(p, v, __ATOMIC_RELAXED); }              \
    static inline T atomicExch(T *p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }            \
    static inline T atomicMax(T *p, T v) {                                                                   \
        return simt::atomic_update(p, [v](T old) { return old > v ? old : v; });                             \
    }                                                                                                        \
    static inline T atomicMin(T *p, T v) {                                                                   \
        return simt::atomic_update(p, [v](T old) { return old < v ? old : v; });                             \
    }                                                                                                        \
    static inline T atomicCAS(T *p, T expected, T v) {                                                       \
        __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);             \
        return expected;                                                                                     \
    }
SIMT_INTEGER_ATOMICS(int)
SIMT_INTEGER_ATOMICS(unsigned)
SIMT_INTEGER_ATOMICS(unsigned long long)
#undef SIMT_INTEGER_ATOMICS

static inline float atomicAdd(float *p, float v) {
    return simt::atomic_update(p, [v](float old) { return old + v; });
}
static inline float atomicExch(float *p, float v) {
    return simt::atomic_update(p, [v](float) { return v; });
}

/* Bits and maths. Names a C library may declare itself are macros. */
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline unsigned __float_as_uint(float x) {
    unsigned u;
    memcpy(&u, &x, 4);
    return u;
}
static inline int __float_as_int(float x) {
    int i;
    memcpy(&i, &x, 4);
    return i;
}
static inline float __uint_as_float(unsigned u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
static inline float __int_as_float(int i) {
    float x;
    memcpy(&x, &i, 4);
    return x;
}
/* Rounded by themselves: nothing here is contracted (-ffp-contract=off). */
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> constexpr T min(T a, T b) { return b < a ? b : a; }
template <class T> constexpr T max(T a, T b) { return a < b ? b : a; }

namespace simt {
inline float reciprocal_root(float x) { return 1.0f / sqrtf(x); }
} // namespace simt
#define rsqrtf(x) simt::reciprocal_root(x)
#define __expf(x) expf(x)
#define __logf(x) logf(x)

#endif
