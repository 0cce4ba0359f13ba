/* device - where kernels run. One narrow interface over two implementations: `host`,
 * the SIMT executor on the CPU (kernels/simt), and `cuda` (device_cuda.cu). No
 * CUDA type leaves this folder.
 *
 * Memory: every buffer stands between two guards of readable poison, so that a wrong stride
 * shows wrong values instead of a fault; past the guards the host device reports the
 * access and names the buffer. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_DEVICE_DEVICE_H
#define KERNELS_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layer/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum device_kind { DEVICE_HOST, DEVICE_CUDA, DEVICE_COUNT };
const char *device_kind_name(enum device_kind kind); /* "host", "cuda" */
int device_compute(enum device_kind kind);           /* of cuda: 90 is 9.0; 0: host, or no GPU */
/* How many blocks a kernel starts that hands out its work itself; the host: few, so that each has several
 * pieces of it. */
int device_processors(enum device_kind kind);

struct device; /* opaque */

/* Fails with cause and remedy: built without nvcc, no driver, no GPU. */
struct status device_open(enum device_kind kind, struct device **out);
void device_close(struct device *device); /* accepts NULL */
size_t device_most_bytes(const struct device *device); /* of its own memory, so far; 0: it has none */
/* "host (SIMT executor, 2 cores)", "NVIDIA H200 (cuda)" */
const char *device_label(const struct device *device);
void *device_stream(struct device *device);
enum device_kind device_kind_of(const struct device *device);

struct device_buffer {
    void *data;           /* device address of the first byte */
    size_t bytes, guard;  /* guard bytes on each side */
    unsigned char poison; /* what its guards are made of */
    void *host;           /* where the CPU reads and writes: `data` on host, a copy on cuda */
    void *owner;          /* opaque */
};

/* Data and guards start as poison. `name` (copied) appears in error
 * lines. bytes may be 0. */
struct status device_alloc(struct device *device, const char *name, size_t bytes, size_t guard,
                           struct device_buffer *out);
void device_free(struct device *device, struct device_buffer *buffer); /* back to {0}, from {0} */
/* Shrink or grow a warm buffer to `bytes` and `guard` without giving memory back where it is large
 * enough; guards poisoned; data poisoned when `poison`, otherwise undefined. */
struct status device_reuse(struct device *device, const char *name, size_t bytes, size_t guard, bool poison,
                           struct device_buffer *buffer);
/* From now on a kernel may only read it, until it is opened again (`sealed` false). host: a write to it ends
 * the launch with an error; cuda: nothing, data is a copy there. */
void device_seal(struct device *device, struct device_buffer *buffer, bool sealed);
struct status device_push(struct device *device, struct device_buffer *buffer); /* host -> data */
struct status device_pull(struct device *device, struct device_buffer *buffer); /* data -> host */
/* Bytes of the guards that are no longer poison: something wrote outside the buffer. */
struct status device_guard_damage(struct device *device, const struct device_buffer *buffer, size_t *damaged);
/* The poison of the allocations that follow: a byte of dtype.h, POISON_NAN until this is called. */
void device_set_poison(struct device *device, unsigned char poison);
/* Wait for the launches. An error is the kernel's: one line (file:line, kernel,
 * block, thread where known). */
struct status device_sync(struct device *device);
/* In which order the threads of the next launches run, and when asynchronous copies move:
 * order, async and seed of simt_options.h; what else stands there is left as it is. Refused on
 * cuda: a GPU has its own order. */
struct simt_options;
struct status device_set_schedule(struct device *device, const struct simt_options *schedule);

#ifdef __cplusplus
}
#endif
#endif
