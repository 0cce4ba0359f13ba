/* How is a path with spaces and quotes written on a command line? */
/* SPDX-License-Identifier: MIT */
#include "harness/quote.h"

#include <stdio.h>

size_t quote_for_shell(char *text, size_t size, const char *word) {
    size_t n = 0;
    text[n++] = '\'';
    for (; *word && n + 6 < size; word++) {
        if (*word == '\'')
            n += (size_t)snprintf(text + n, size - n, "'\\''");
        else
            text[n++] = *word;
    }
    text[n++] = '\'';
    text[n] = 0;
    return n;
}
