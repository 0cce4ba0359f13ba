/* What may stand on a line? */
/* SPDX-License-Identifier: MIT */
#include "layer/line.h"

#include <stdint.h>
#include <string.h>

static const struct {
    uint32_t first, last;
} unshown[] = {
    {0x00, 0x1f},     {0x7f, 0x9f},     /* C0, DEL and C1 */
    {0x2028, 0x2029},                   /* line and paragraph separator */
    {0x202a, 0x202e}, {0x2066, 0x2069}, /* directional embeddings, overrides and isolates */
};

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. 0: not UTF-8. */
static size_t decode(const unsigned char *s, uint32_t *code) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t n = s[0] < 0x80   ? 1
                     : s[0] < 0xc2 ? 0
                     : s[0] < 0xe0 ? 2
                     : s[0] < 0xf0 ? 3
                     : s[0] < 0xf5 ? 4
                                   : 0;
    *code = n == 1 ? s[0] : s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (s[i] & 0x3fu);
    }
    return *code < least[n] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff) ? 0 : n;
}

size_t line_character(const char *text) {
    uint32_t code;
    const size_t n = decode((const unsigned char *)text, &code);
    for (size_t i = 0; i < sizeof unshown / sizeof *unshown; i++)
        if (code >= unshown[i].first && code <= unshown[i].last) return 0;
    return n;
}

bool line_is_clean(const char *text) {
    for (size_t n; *text; text += n)
        if ((n = line_character(text)) == 0) return false;
    return true;
}

static bool goes_on(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

void line_clean(char *text) {
    char *out = text;
    while (*text) {
        const size_t n = line_character(text);
        memmove(out, n ? text : "?", n ? n : 1);
        out += n ? n : 1;
        text += n ? n : 1;
        while (n == 0 && goes_on(*text)) text++; /* the rest of the same character */
    }
    *out = 0;
}

void line_finish(char *text, size_t size, size_t length) {
    if (length >= size) {
        size_t n = size - sizeof "...";
        while (n > 0 && goes_on(text[n])) n--;
        strcpy(text + n, "...");
    }
    line_clean(text);
}
