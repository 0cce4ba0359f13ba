/* How is a path with spaces, quotes and odd bytes written on a command line? */
/* SPDX-License-Identifier: MIT */
#include "harness/quote.h"

#include "layer/line.h"

/* Inside the single quotes; `format`: printf reads what stands there. */
static void print_character(FILE *file, const char *at, size_t length, bool format) {
    if (*at == '\'')
        fputs("'\\''", file);
    else if (length == 0 || (format && (*at == '\\' || *at == '%')))
        fprintf(file, *at == '%' ? "%%%%" : "\\%03o", (unsigned char)*at);
    else
        fwrite(at, 1, length, file);
}

void quote_print(FILE *file, const char *word) {
    const bool clean = line_is_clean(word);
    fputs(clean ? "'" : "\"$(printf -- '", file);
    for (size_t n; *word; word += n ? n : 1) {
        n = line_character(word);
        print_character(file, word, n, !clean);
    }
    fputs(clean ? "'" : "')\"", file);
}
