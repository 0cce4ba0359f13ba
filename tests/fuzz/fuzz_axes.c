/* Any string: axes within their limits, or what is wrong with it. */
/* SPDX-License-Identifier: MIT */
#include "layer/axes.h"
#include "tests/fuzz/fuzz.h"

void fuzz_axes(const uint8_t *data, size_t n) {
    char *const text = fuzz_text(data, n);
    struct axes axes;
    if (!axes_parse(text, &axes)) {
        FUZZ_CHECK(axes.n >= 1 && axes.n <= MAX_AXES);
        for (int a = 0; a < axes.n; a++) {
            FUZZ_CHECK(axes.axis[a].n_blocks >= 1 && axes.axis[a].n_blocks <= 3 && axes.axis[a].extra >= 0);
            for (int b = 0; b < axes.axis[a].n_blocks; b++) FUZZ_CHECK(axes.axis[a].block[b].number >= 0);
        }
    }
    free(text);
}
