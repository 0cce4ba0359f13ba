/* How does a long text stay on a screen? */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "reports/report.h"

/* Columns of the first n bytes: one a character of UTF-8. */
static int columns_of(const char *text, size_t n) {
    int columns = 0;
    for (size_t i = 0; i < n; i++) columns += (text[i] & 0xc0) != 0x80;
    return columns;
}

void report_wrapped(FILE *file, int indent, const char *text) {
    int at = indent;
    for (bool first = true; *text; first = false) {
        const size_t n = strcspn(text, " ");
        const int columns = columns_of(text, n);
        if (!first && at + 1 + columns > REPORT_COLUMNS) {
            fprintf(file, "\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            fputc(' ', file);
            at++;
        }
        fwrite(text, 1, n, file);
        at += columns;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', file);
}
