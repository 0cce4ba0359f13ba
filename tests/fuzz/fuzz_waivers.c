/* Any bytes: waivers that are whole, or one clean line. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/waivers.h"
#include "tests/fuzz/fuzz.h"

void fuzz_waivers(const uint8_t *data, size_t n) {
    struct waivers w;
    const struct status s = waivers_parse("w", fuzz_text(data, n), n, &w);
    if (s.code) fuzz_check_refusal(&s);
    for (int i = 0; i < w.n; i++)
        FUZZ_CHECK(w.of[i].line > 0 && w.of[i].pattern[0] && w.of[i].stage[0] && w.of[i].until[0] &&
                   w.of[i].reason[0]);
    waivers_free(&w);
}
