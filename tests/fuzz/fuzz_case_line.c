/* Any string: a case that is printed and read back to the same line and model, or one clean
 * line. */
/* SPDX-License-Identifier: MIT */
#include "harness/case.h"
#include "tests/fuzz/fuzz.h"

void fuzz_case_line(const uint8_t *data, size_t n) {
    static char line[CASE_LINE], again[CASE_LINE];
    char *const text = fuzz_text(data, n);
    struct check_case c, back;
    bool has_part;
    const struct status s = case_parse(text, &c, &has_part);
    if (s.code) {
        fuzz_check_refusal(&s);
    } else if (case_line_length(&c) < CASE_LINE) {
        case_print(&c, line, sizeof line);
        FUZZ_CHECK(!case_parse(line, &back, &has_part).code && has_part);
        case_print(&back, again, sizeof again);
        FUZZ_CHECK(!strcmp(line, again) && !strcmp(c.model, back.model) && c.part == back.part);
    }
    free(text);
}
