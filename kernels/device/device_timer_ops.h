/* device_timer_ops - what an implementation of device_timer.h provides. Private to kernels/device.
 */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_DEVICE_DEVICE_TIMER_OPS_H
#define KERNELS_DEVICE_DEVICE_TIMER_OPS_H

#include "kernels/device/device_timer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct device_timer_ops;

struct device_timer {
    struct device *device;
    const struct device_timer_ops *ops;
    void *event[DEVICE_MARKS]; /* cuda */
    double at[DEVICE_MARKS];   /* host: seconds */
    char *memory;              /* two copies of copy_bytes */
    size_t flush_bytes, copy_bytes;
};

/* As the functions of device_timer.h; `open` gets the memory and says how much of it is used. After
 * an error `close` is called all the same. */
struct device_timer_ops {
    const char *copier;
    struct status (*open)(struct device_timer *timer);
    void (*close)(struct device_timer *timer);
    struct status (*mark)(struct device_timer *timer, int mark);
    struct status (*seconds)(struct device_timer *timer, int from, int to, double *seconds);
    struct status (*flush)(struct device_timer *timer);
    struct status (*copy)(struct device_timer *timer);
    void (*describe)(char *text, size_t size);
};

extern const struct device_timer_ops device_timer_cuda; /* device_timer_cuda.cu, only with SHARDCHECK_CUDA */

#ifdef __cplusplus
}
#endif
#endif
