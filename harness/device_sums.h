/* device_sums - the device as the reference's summer (reference/summer.h): operands packed and sent, sums
 * fetched. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_DEVICE_SUMS_H
#define HARNESS_DEVICE_SUMS_H

#include "kernels/device/device.h"
#include "reference/summer.h"

struct device_sums {
    struct ref_summer summer; /* the first member */
    struct device *device;
    struct device_buffer x, w, tile, out; /* warm, as large as the largest call so far */
};
/* Calls that are worth the way are summed there; the caller registers `summer`. */
void device_sums_open(struct device_sums *sums, struct device *device);
void device_sums_close(struct device_sums *sums);

#endif
