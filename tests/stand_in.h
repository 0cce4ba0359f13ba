/* stand_in - a kernel under test whose launch is the test's own. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_STAND_IN_H
#define TESTS_STAND_IN_H

#include <criterion/criterion.h>

#include "kernels/kernels.h"

static struct kernel fake; /* the honest kernel with another launch */
static const struct kernel *honest;
static int calls; /* launches so far; the first is the unsharded run */

static inline const char *launch_honest(const struct call *call, void *scratch, void *stream) {
    return honest->launch[DEVICE_HOST](call, scratch, stream);
}

static inline void stand_in(const char *name, launch_fn launch) {
    honest = kernel_by_name(name);
    cr_assert(honest, "%s", name);
    fake = *honest;
    fake.name = "fake";
    fake.launch[DEVICE_HOST] = launch;
    calls = 0;
}

#endif
