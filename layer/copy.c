/* How are many bytes copied, compared, or set? */
/* SPDX-License-Identifier: MIT */
#include "layer/copy.h"

#include <string.h>

enum { PIECE = 4 << 20 };

void copy_bytes(void *to, const void *from, size_t bytes) {
    const size_t n = (bytes + PIECE - 1) / PIECE;
    if (n < 2) {
        memcpy(to, from, bytes);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        memcpy((char *)to + i * PIECE, (const char *)from + i * PIECE, i + 1 < n ? PIECE : bytes - i * PIECE);
}

bool same_bytes(const void *a, const void *b, size_t bytes) {
    bool same = true;
#pragma omp parallel for schedule(static) reduction(&& : same) if (bytes > PIECE)
    for (size_t i = 0; i < bytes; i += PIECE)
        same =
            same && !memcmp((const char *)a + i, (const char *)b + i, bytes - i < PIECE ? bytes - i : PIECE);
    return same;
}

void set_bytes(void *to, unsigned char value, size_t bytes) {
#pragma omp parallel for schedule(static) if (bytes > PIECE)
    for (size_t i = 0; i < bytes; i += PIECE)
        memset((char *)to + i, value, bytes - i < PIECE ? bytes - i : PIECE);
}
