/* Any string: a shape that is printed and read back to the same sizes, whose work is finite, or one
 * clean line. */
/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "harness/bench_shape.h"
#include "tests/fuzz/fuzz.h"

void fuzz_bench_shape(const uint8_t *data, size_t n) {
    char line[BENCH_LINE];
    char *const text = fuzz_text(data, n);
    struct bench_shape shape, back;
    const struct status s = bench_shape_parse(text, &shape);
    if (s.code) {
        fuzz_check_refusal(&s);
    } else {
        const struct bench_work work = bench_work_of(&shape);
        FUZZ_CHECK(isfinite(work.bytes) && work.bytes > 0 && isfinite(work.flops) && work.flops > 0);
        bench_shape_print(&shape, line);
        FUZZ_CHECK(!bench_shape_parse(line, &back).code && !memcmp(&shape, &back, sizeof shape));
    }
    free(text);
}
