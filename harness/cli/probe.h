/* probe - measures the elementary-function errors that contracts assume, on the device that will run the
 * kernels. A bound that rests on a constant is worth what the constant is worth there. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_PROBE_H
#define HARNESS_CLI_PROBE_H

#include <stdio.h>

#include "kernels/device/device.h"

/* Prints the table; *exceeded counts the constants that a measured error is above. A status: it could not be
 * measured. */
struct status probe(enum device_kind kind, FILE *file, int *exceeded);

#endif
