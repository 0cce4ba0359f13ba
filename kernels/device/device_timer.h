/* device_timer - how long does what is queued on a device take?  Marks stand in the stream of
 * launches; what lies between two of them is timed by the device's own clock (cuda: events; host:
 * launches have ended when they return, so the clock of the machine). */
/* SPDX-License-Identifier: MIT */
#ifndef KERNELS_DEVICE_DEVICE_TIMER_H
#define KERNELS_DEVICE_DEVICE_TIMER_H

#include "kernels/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DEVICE_MARKS = 32 };

struct device_timer; /* opaque */

struct status device_timer_open(struct device *device, struct device_timer **out);
void device_timer_close(struct device_timer *timer); /* accepts NULL */

/* Queued: mark number `mark` is when all that was queued before it has ended. */
struct status device_timer_mark(struct device_timer *timer, int mark);
/* After device_sync. Both were set since the last one. */
struct status device_timer_seconds(struct device_timer *timer, int from, int to, double *seconds);

/* Queued: writes so many bytes of memory of its own that nothing else is left in the last cache. */
struct status device_timer_flush(struct device_timer *timer);
size_t device_timer_flush_bytes(const struct device_timer *timer);
/* Queued: copies memory to memory. As many bytes are read and as many are written. */
struct status device_timer_copy(struct device_timer *timer);
size_t device_timer_copy_bytes(const struct device_timer *timer);
const char *device_timer_copier(const struct device_timer *timer); /* "cudaMemcpy", "memcpy" */

/* What else decides how fast it is: "driver 580.159.04, at most 1980 MHz"; of host the processor.
 */
void device_timer_describe(const struct device_timer *timer, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
