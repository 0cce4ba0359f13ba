/* device - finds the implementation of a device and hands every call on to it (device.h). */
/* SPDX-License-Identifier: MIT */
#include "kernels/device/device.h"

#include <stdlib.h>

#include "kernels/device/device_ops.h"
#include "layer/dtype.h"

static const struct {
    const char *name;
    const struct device_ops *ops; /* NULL: not in this build */
} kinds[DEVICE_COUNT] = {
    [DEVICE_HOST] = {.name = "host", .ops = &device_host_ops},
#ifdef SHARDCHECK_CUDA
    [DEVICE_CUDA] = {.name = "cuda", .ops = &device_cuda_ops},
#else
    [DEVICE_CUDA] = {.name = "cuda"},
#endif
};

const char *device_kind_name(enum device_kind kind) { return kinds[kind].name; }

int device_compute(enum device_kind kind) {
#ifdef SHARDCHECK_CUDA
    if (kind == DEVICE_CUDA) return device_cuda_compute();
#endif
    (void)kind;
    return 0;
}

int device_processors(enum device_kind kind) {
    enum { FEW = 2 };
#ifdef SHARDCHECK_CUDA
    if (kind == DEVICE_CUDA) return device_cuda_processors();
#endif
    (void)kind;
    return FEW;
}

struct status device_open(enum device_kind kind, struct device **out) {
    *out = NULL;
    if (!kinds[kind].ops)
        return status_error("--device %s: this shardcheck was built without nvcc; "
                            "install the CUDA toolkit 12.4 or newer and rebuild",
                            kinds[kind].name);
    struct device *device = calloc(1, sizeof *device);
    if (!device) return status_error("--device %s: out of memory", kinds[kind].name);
    device->kind = kind;
    device->ops = kinds[kind].ops;
    device->poison = POISON_NAN;
    const struct status opened = device->ops->open(device);
    if (opened.code)
        free(device);
    else
        *out = device;
    return opened;
}

void device_close(struct device *device) {
    if (!device) return;
    device->ops->close(device);
    free(device);
}

size_t device_most_bytes(const struct device *device) { return device->most_bytes; }
const char *device_label(const struct device *device) { return device->label; }
void *device_stream(struct device *device) { return device->stream; }
enum device_kind device_kind_of(const struct device *device) { return device->kind; }

struct status device_alloc(struct device *device, const char *name, size_t bytes, size_t guard,
                           struct device_buffer *out) {
    *out = (struct device_buffer){0};
    return device->ops->alloc(device, name, bytes, guard, true, out);
}

void device_free(struct device *device, struct device_buffer *buffer) {
    if (buffer->owner) device->ops->release(device, buffer);
    *buffer = (struct device_buffer){0};
}

struct status device_reuse(struct device *device, const char *name, size_t bytes, size_t guard, bool poison,
                           struct device_buffer *buffer) {
    if (!buffer->owner) return device->ops->alloc(device, name, bytes, guard, poison, buffer);
    return device->ops->reuse(device, name, bytes, guard, poison, buffer);
}

void device_seal(struct device *device, struct device_buffer *buffer, bool sealed) {
    if (buffer->owner && device->ops->seal) device->ops->seal(device, buffer, sealed);
}

struct status device_push(struct device *device, struct device_buffer *buffer) {
    return device->ops->push(device, buffer);
}

struct status device_pull(struct device *device, struct device_buffer *buffer) {
    return device->ops->pull(device, buffer);
}

struct status device_guard_damage(struct device *device, const struct device_buffer *buffer,
                                  size_t *damaged) {
    *damaged = 0;
    return buffer->owner ? device->ops->guard_damage(device, buffer, damaged) : status_ok();
}

void device_set_poison(struct device *device, unsigned char poison) { device->poison = poison; }

struct status device_sync(struct device *device) {
    return device->ops->sync(device);
}

struct status device_set_schedule(struct device *device, const struct simt_options *schedule) {
    if (device->ops->set_schedule) return device->ops->set_schedule(device, schedule);
    return status_error("--device %s: has no schedules to choose from; use --device host",
                        kinds[device->kind].name);
}
