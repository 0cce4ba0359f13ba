/* How does any string stand in XML or HTML, in attributes and text alike?  XML 1.0 has no way to write
 * most control characters, and bytes that are not UTF-8 would spoil the document: both become '?'. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "reports/report.h"

void report_escape(FILE *file, const char *text) {
    static const char *const entity[128] = {
        ['&'] = "&amp;",   ['<'] = "&lt;",  ['>'] = "&gt;",   ['"'] = "&quot;",
        ['\''] = "&apos;", ['\t'] = "&#9;", ['\n'] = "&#10;", ['\r'] = "&#13;",
    };
    while (*text) {
        const unsigned char c = (unsigned char)*text;
        const int n = report_utf8_length(text);
        if (c < 128 && entity[c])
            fputs(entity[c], file);
        else if (n == 0 || c < ' ' || c == 0x7f ||
                 (n == 3 && !memcmp(text, "\xef\xbf", 2) && (unsigned char)text[2] > 0xbd))
            fputc('?', file); /* the last: U+FFFE and U+FFFF */
        else
            fwrite(text, 1, (size_t)n, file);
        text += n ? n : 1;
    }
}
