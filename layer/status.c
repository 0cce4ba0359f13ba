/* One line that says what went wrong. */
/* SPDX-License-Identifier: MIT */
#include "layer/status.h"

#include <stdarg.h>
#include <stdio.h>

struct status status_ok(void) {
    return (struct status){.code = STATUS_OK};
}

struct status status_error(const char *format, ...) {
    struct status s = {.code = STATUS_ERROR};
    va_list args;
    va_start(args, format);
    vsnprintf(s.message, sizeof s.message, format, args);
    va_end(args);
    return s;
}
