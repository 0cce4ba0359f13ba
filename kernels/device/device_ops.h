/* device_ops - what an implementation of device.h provides. Private to kernels/device. */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_DEVICE_DEVICE_OPS_H
#define KERNELS_DEVICE_DEVICE_OPS_H

#include "kernels/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

struct device_ops;

struct device {
    enum device_kind kind;
    const struct device_ops *ops;
    void *stream;
    char label[300];
    unsigned char poison;     /* of what is allocated next */
    size_t bytes, most_bytes; /* of the device's own memory: now, and at most so far */
};

/* As the functions of device.h they stand behind; `open` fills stream and label. */
struct device_ops {
    struct status (*open)(struct device *device);
    void (*close)(struct device *device);
    struct status (*alloc)(struct device *device, const char *name, size_t bytes, size_t guard, bool poison,
                           struct device_buffer *out);
    void (*release)(struct device *device, struct device_buffer *buffer); /* owner is not NULL */
    struct status (*reuse)(struct device *device, const char *name, size_t bytes, size_t guard, bool poison,
                           struct device_buffer *buffer); /* owner is not NULL */
    struct status (*push)(struct device *device, struct device_buffer *buffer);
    struct status (*pull)(struct device *device, struct device_buffer *buffer);
    struct status (*guard_damage)(struct device *device, const struct device_buffer *buffer, size_t *damaged);
    struct status (*sync)(struct device *device);
    struct status (*set_schedule)(struct device *device,
                                  const struct simt_options *schedule); /* NULL: has no choice */
    /* owner is not NULL; NULL: the host's copy is another one */
    void (*seal)(struct device *device, struct device_buffer *buffer, bool sealed);
};

extern const struct device_ops device_host_ops; /* host/device_host.cpp */
extern const struct device_ops device_cuda_ops; /* cuda/device_cuda.cu, only with SHARDCHECK_CUDA */
int device_cuda_compute(void);                  /* the same */
int device_cuda_processors(void);               /* at least 1 */

#ifdef __cplusplus
}
#endif
#endif
