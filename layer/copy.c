/* How are many bytes copied, compared, set, or told from others? */
/* SPDX-License-Identifier: MIT */
#include "layer/copy.h"

#include <string.h>

/* A team of one is a team, too: pieces that are small are nobody else's. */
enum { PIECE = 1 << 20 };

static size_t piece(size_t bytes, size_t first) { return bytes - first < PIECE ? bytes - first : PIECE; }

void copy_bytes(void *to, const void *from, size_t bytes) {
    if (bytes <= PIECE) {
        memcpy(to, from, bytes);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < bytes; i += PIECE) memcpy((char *)to + i, (const char *)from + i, piece(bytes, i));
}

void set_bytes(void *to, unsigned char byte, size_t bytes) {
    if (bytes <= PIECE) {
        memset(to, byte, bytes);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < bytes; i += PIECE) memset((char *)to + i, byte, piece(bytes, i));
}

bool same_bytes(const void *a, const void *b, size_t bytes) {
    bool same = true;
    if (bytes <= PIECE) return !memcmp(a, b, bytes);
#pragma omp parallel for schedule(static) reduction(&& : same)
    for (size_t i = 0; i < bytes; i += PIECE)
        same = same && !memcmp((const char *)a + i, (const char *)b + i, piece(bytes, i));
    return same;
}

/* The first is, and every other one is as the one before it. */
bool all_bytes(const void *p, unsigned char byte, size_t bytes) {
    const unsigned char *const first = p;
    return !bytes || (*first == byte && same_bytes(first, first + 1, bytes - 1));
}

/* Lanes do not wait for one another's products. */
static uint64_t hash_piece(const unsigned char *p, size_t bytes, size_t first) {
    enum { LANES = 4 };
    const uint64_t odd = UINT64_C(0xff51afd7ed558ccd);
    uint64_t h[LANES], word[LANES];
    size_t i = 0;
    for (int l = 0; l < LANES; l++) h[l] = UINT64_C(0x9e3779b97f4a7c15) * (LANES * first + l + 1) ^ bytes;
    for (; i + sizeof word <= bytes; i += sizeof word) {
        memcpy(word, p + i, sizeof word);
#pragma GCC unroll 4
        for (int l = 0; l < LANES; l++) {
            h[l] = (h[l] ^ word[l]) * odd;
            h[l] ^= h[l] >> 32;
        }
    }
    for (; i < bytes; i++) h[0] = (h[0] ^ p[i]) * odd;
    for (int l = 1; l < LANES; l++) h[0] = (h[0] ^ h[l] ^ h[0] >> 32) * odd;
    return h[0] ^ h[0] >> 32;
}

uint64_t hash_bytes(const void *p, size_t bytes) {
    uint64_t h = 0;
    if (bytes <= PIECE) return hash_piece(p, bytes, 0);
#pragma omp parallel for schedule(static) reduction(+ : h)
    for (size_t i = 0; i < bytes; i += PIECE)
        h += hash_piece((const unsigned char *)p + i, piece(bytes, i), i);
    return h;
}
