/* race_compiler - what g++ and clang++ call for every load, store and atomic under
 * -fsanitize=thread. Kernels of the race build are compiled with it, but libtsan is not
 * linked: these functions stand in its place and know CUDA threads. Accesses of a thread's own
 * stack cost some comparisons. */
/* SPDX-License-Identifier: MIT */
#ifdef SIMT_RACE
#include <string.h>

#include "kernels/simt/race/race_shadow.h"

namespace simt {

static inline __attribute__((always_inline)) void seen(const volatile void *p, size_t bytes, race_kind kind,
                                                       const void *return_address) {
    if (!self) return;
    race_touch(const_cast<const void *>(p), bytes, kind, race_place_of_code(return_address));
}

static inline void seen_atomic(const volatile void *p, size_t bytes, const void *return_address) {
    if (!self) return;
    seen(p, bytes, RACE_ATOMIC, return_address);
    race_device_atomic(const_cast<const void *>(p));
}

} // namespace simt

#define CALLER __builtin_return_address(0)
#define SEEN(name, bytes, kind)                                                                              \
    void __tsan_##name(void *p) { simt::seen(p, bytes, kind, CALLER); }
#define SEEN_BYTES(n)                                                                                        \
    SEEN(read##n, n, simt::RACE_READ)                                                                        \
    SEEN(write##n, n, simt::RACE_WRITE)                                                                      \
    SEEN(unaligned_read##n, n, simt::RACE_READ)                                                              \
    SEEN(unaligned_write##n, n, simt::RACE_WRITE)                                                            \
    SEEN(volatile_read##n, n, simt::RACE_READ)                                                               \
    SEEN(volatile_write##n, n, simt::RACE_WRITE)

#define ATOMIC_UPDATE(bits, T, name)                                                                         \
    T __tsan_atomic##bits##_##name(volatile T *p, T v, int) {                                                \
        simt::seen_atomic(p, sizeof(T), CALLER);                                                             \
        return __atomic_##name(p, v, __ATOMIC_SEQ_CST);                                                      \
    }
#define ATOMIC_COMPARE(bits, T, name)                                                                        \
    int __tsan_atomic##bits##_##name(volatile T *p, T *expected, T v, int, int) {                            \
        simt::seen_atomic(p, sizeof(T), CALLER);                                                             \
        return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
    }
#define ATOMICS(bits, T)                                                                                     \
    T __tsan_atomic##bits##_load(const volatile T *p, int) {                                                 \
        simt::seen_atomic(p, sizeof(T), CALLER);                                                             \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                         \
    }                                                                                                        \
    void __tsan_atomic##bits##_store(volatile T *p, T v, int) {                                              \
        simt::seen_atomic(p, sizeof(T), CALLER);                                                             \
        __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                            \
    }                                                                                                        \
    T __tsan_atomic##bits##_exchange(volatile T *p, T v, int) {                                              \
        simt::seen_atomic(p, sizeof(T), CALLER);                                                             \
        return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                  \
    }                                                                                                        \
    ATOMIC_UPDATE(bits, T, fetch_add)                                                                        \
    ATOMIC_UPDATE(bits, T, fetch_sub)                                                                        \
    ATOMIC_UPDATE(bits, T, fetch_and)                                                                        \
    ATOMIC_UPDATE(bits, T, fetch_or)                                                                         \
    ATOMIC_UPDATE(bits, T, fetch_xor)                                                                        \
    ATOMIC_COMPARE(bits, T, compare_exchange_strong)                                                         \
    ATOMIC_COMPARE(bits, T, compare_exchange_weak)                                                           \
    T __tsan_atomic##bits##_compare_exchange_val(volatile T *p, T expected, T v, int, int) {                 \
        simt::seen_atomic(p, sizeof(T), CALLER);                                                             \
        __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);             \
        return expected;                                                                                     \
    }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}

SEEN_BYTES(1)
SEEN_BYTES(2)
SEEN_BYTES(4)
SEEN_BYTES(8)
SEEN_BYTES(16)
void __tsan_read_range(void *p, size_t bytes) { simt::seen(p, bytes, simt::RACE_READ, CALLER); }
void __tsan_write_range(void *p, size_t bytes) { simt::seen(p, bytes, simt::RACE_WRITE, CALLER); }

/* The build renames the memory functions of kernels to these. */
void *__tsan_memcpy(void *to, const void *from, size_t bytes) {
    simt::seen(from, bytes, simt::RACE_READ, CALLER);
    simt::seen(to, bytes, simt::RACE_WRITE, CALLER);
    return memcpy(to, from, bytes);
}
void *__tsan_memmove(void *to, const void *from, size_t bytes) {
    simt::seen(from, bytes, simt::RACE_READ, CALLER);
    simt::seen(to, bytes, simt::RACE_WRITE, CALLER);
    return memmove(to, from, bytes);
}
void *__tsan_memset(void *to, int byte, size_t bytes) {
    simt::seen(to, bytes, simt::RACE_WRITE, CALLER);
    return memset(to, byte, bytes);
}

ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
}
#endif
