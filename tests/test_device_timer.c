/* Does the host's timer measure what lies between two marks? (That of cuda: docs/gpu.md.) */
/* SPDX-License-Identifier: MIT */
#include "kernels/device/device_timer.h"

#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

Test(device_timer, what_lies_between_two_marks_is_timed) {
    struct device *device;
    struct device_timer *timer;
    double outer, inner;
    const struct timespec while_ = {.tv_nsec = 5000000};
    cr_assert(!device_open(DEVICE_HOST, &device).code);
    cr_assert(!device_timer_open(device, &timer).code);
    cr_expect(!device_timer_mark(timer, 0).code);
    cr_expect(!device_timer_flush(timer).code && !device_timer_copy(timer).code);
    cr_expect(!device_timer_mark(timer, 1).code);
    nanosleep(&while_, NULL);
    cr_expect(!device_timer_mark(timer, DEVICE_MARKS - 1).code);
    cr_expect(!device_timer_seconds(timer, 0, DEVICE_MARKS - 1, &outer).code);
    cr_expect(!device_timer_seconds(timer, 1, DEVICE_MARKS - 1, &inner).code);
    cr_expect(inner >= 0.005 && outer > inner, "%g %g", inner, outer);
    device_timer_close(timer);
    device_close(device);
}

Test(device_timer, it_says_what_it_is) {
    struct device *device;
    struct device_timer *timer;
    char text[200];
    cr_assert(!device_open(DEVICE_HOST, &device).code);
    cr_assert(!device_timer_open(device, &timer).code);
    device_timer_describe(timer, text, sizeof text);
    cr_expect(text[0] && !strchr(text, '\n'), "%s", text);
    cr_expect_str_eq(device_timer_copier(timer), "memcpy");
    cr_expect(device_timer_copy_bytes(timer) >= 1 << 20 && device_timer_flush_bytes(timer) >= 1 << 20);
    device_timer_close(timer);
    device_timer_close(NULL);
    device_close(device);
}
