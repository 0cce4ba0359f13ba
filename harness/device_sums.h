/* device_sums - the device as the reference's summer (reference/summer.h): operands packed and sent, sums
 * fetched. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_DEVICE_SUMS_H
#define HARNESS_DEVICE_SUMS_H

#include "kernels/device/device.h"
#include "reference/summer.h"

/* Who adds up; by default a GPU, where the call is worth the way. */
enum sums_place { SUMS_AUTO, SUMS_CPU, SUMS_DEVICE, SUMS_PLACES };
const char *sums_place_name(enum sums_place place); /* "auto", "cpu", "device" */

struct device_sums {
    struct ref_summer summer; /* the first member */
    struct device *device;
    struct device_buffer x, w, tile, grids, out; /* warm, as large as the largest call so far */
};
/* Registers the device, or nobody where it is not wanted: who was registered before stays. With
 * SUMS_DEVICE it gets every call, however small. */
void device_sums_open(struct device_sums *sums, struct device *device, enum sums_place place);
void device_sums_close(struct device_sums *sums);
/* An error: the sums of whoever is registered were wrong. */
struct status device_sums_status(void);
/* What was added up where since `before`, a copy of who is registered; "" where that is nothing to speak of. */
void device_sums_describe(const struct ref_summer *before, char *text, size_t size);

#endif
