/* How are many bytes copied? */
/* SPDX-License-Identifier: MIT */
#include "layer/copy.h"

#include <string.h>

void copy_bytes(void *to, const void *from, size_t bytes) {
    enum { PIECE = 4 << 20 };
    const size_t n = (bytes + PIECE - 1) / PIECE;
    if (n < 2) {
        memcpy(to, from, bytes);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        memcpy((char *)to + i * PIECE, (const char *)from + i * PIECE, i + 1 < n ? PIECE : bytes - i * PIECE);
}
