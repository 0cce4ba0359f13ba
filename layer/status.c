/* One line that says what went wrong. */
/* SPDX-License-Identifier: MIT */
#include "layer/status.h"

#include <stdarg.h>
#include <stdio.h>

#include "layer/line.h"

struct status status_ok(void) {
    return (struct status){.code = STATUS_OK};
}

struct status status_error(const char *format, ...) {
    struct status s = {.code = STATUS_ERROR};
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(s.message, sizeof s.message, format, args);
    va_end(args);
    line_finish(s.message, sizeof s.message, n < 0 ? 0 : (size_t)n);
    return s;
}
