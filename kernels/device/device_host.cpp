/* device_host - the device interface over the SIMT executor. Launches have finished when they
 * return, data is where the CPU reads it, so push, pull and the stream are nothing here; sync hands
 * out the error that was kept. */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <unistd.h>

#include "kernels/device/device_ops.h"
#include "kernels/simt/core/buffers.h"
#include "kernels/simt/simt_options.h"

using simt::host_buffer;

static struct status host_open(struct device *device) {
    const long cores =
        sysconf(_SC_NPROCESSORS_ONLN); /* of the machine: how many work is no part of a result */
    device->stream = nullptr;
    snprintf(device->label, sizeof device->label, "host (SIMT executor, %ld core%s)", cores,
             cores == 1 ? "" : "s");
    return status_ok();
}

static void host_close(struct device *) {}

static void show(const host_buffer *mapped, struct device_buffer *out) {
    out->data = out->host = mapped->data;
    out->bytes = mapped->bytes;
    out->guard = mapped->guard;
    out->poison = mapped->poison;
    out->owner = const_cast<host_buffer *>(mapped);
}

static void lay_poison(const struct device *device, host_buffer *mapped, bool data) {
    mapped->poison = device->poison;
    data ? simt::buffer_poison(mapped) : simt::buffer_poison_guards(mapped);
}

static struct status host_alloc(struct device *device, const char *name, size_t bytes, size_t guard,
                                bool poison, struct device_buffer *out) {
    host_buffer *mapped = simt::buffer_new(name, bytes, guard);
    if (!mapped)
        return status_error("buffer %s: no memory for %zu bytes and two guards of %zu; use a smaller case",
                            name, bytes, guard);
    lay_poison(device, mapped, poison);
    show(mapped, out);
    return status_ok();
}

static void host_release(struct device *, struct device_buffer *buffer) {
    simt::buffer_free(static_cast<host_buffer *>(buffer->owner));
}

static struct status host_reuse(struct device *device, const char *name, size_t bytes, size_t guard,
                                bool poison, struct device_buffer *buffer) {
    host_buffer *mapped = static_cast<host_buffer *>(buffer->owner);
    if (!simt::buffer_resize(mapped, name, bytes, guard)) {
        simt::buffer_free(mapped);
        *buffer = {};
        return host_alloc(device, name, bytes, guard, poison, buffer);
    }
    lay_poison(device, mapped, poison);
    show(mapped, buffer);
    return status_ok();
}

static struct status host_copy(struct device *, struct device_buffer *) { return status_ok(); }

static struct status host_guard_damage(struct device *, const struct device_buffer *buffer, size_t *damaged) {
    *damaged = simt::buffer_guard_damage(static_cast<const host_buffer *>(buffer->owner));
    return status_ok();
}

static void host_seal(struct device *, struct device_buffer *buffer, bool sealed) {
    simt::buffer_seal(static_cast<host_buffer *>(buffer->owner), sealed);
}

static struct status host_sync(struct device *) {
    const char *error = simt_take_error();
    return error ? status_error("%s", error) : status_ok();
}

static struct status host_set_schedule(struct device *, const struct simt_options *schedule) {
    struct simt_options options = simt_get_options();
    options.order = schedule->order;
    options.async = schedule->async;
    options.seed = schedule->seed;
    simt_set_options(options);
    return status_ok();
}

extern "C" const struct device_ops device_host_ops = {
    host_open, host_close,        host_alloc, host_release,      host_reuse, host_copy,
    host_copy, host_guard_damage, host_sync,  host_set_schedule, host_seal};
