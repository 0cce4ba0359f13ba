/* zip_file - a zip file in memory, entry by entry. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_ZIP_FILE_H
#define TESTS_ZIP_FILE_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

struct zip_file {
    unsigned char bytes[16384], directory[4096];
    size_t n, n_directory;
    int n_entries;
};

static inline void zip_put(unsigned char *at, uint64_t value, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) at[i] = (unsigned char)(value >> 8 * i);
}

static inline void zip_add_as(struct zip_file *z, const char *name, int method, const void *data, size_t n,
                              size_t n_plain, uint32_t crc) {
    const size_t length = strlen(name);
    unsigned char *const local = z->bytes + z->n, *const row = z->directory + z->n_directory;
    cr_assert(z->n + 30 + length + n < sizeof z->bytes && z->n_directory + 46 + length < sizeof z->directory);
    memcpy(local, "PK\3\4", 4);
    zip_put(local + 26, length, 2);
    memcpy(local + 30, name, length);
    memcpy(local + 30 + length, data, n);
    memcpy(row, "PK\1\2", 4);
    zip_put(row + 10, (uint64_t)method, 2);
    zip_put(row + 16, crc, 4);
    zip_put(row + 20, n, 4);
    zip_put(row + 24, n_plain, 4);
    zip_put(row + 28, length, 2);
    zip_put(row + 42, z->n, 4);
    memcpy(row + 46, name, length);
    z->n += 30 + length + n;
    z->n_directory += 46 + length;
    z->n_entries++;
}

static inline void zip_add(struct zip_file *z, const char *name, const void *data, size_t n) {
    zip_add_as(z, name, 0, data, n, n, 0);
}

static inline void zip_add_deflated(struct zip_file *z, const char *name, const void *data, size_t n) {
    unsigned char packed[4096];
    z_stream s = {.next_in = (unsigned char *)data,
                  .avail_in = (uInt)n,
                  .next_out = packed,
                  .avail_out = sizeof packed};
    cr_assert(deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    cr_assert(deflate(&s, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&s);
    zip_add_as(z, name, 8, packed, sizeof packed - s.avail_out, n, (uint32_t)crc32(0, data, (uInt)n));
}

/* After the last entry. */
static inline void zip_end(struct zip_file *z) {
    unsigned char *const end = z->bytes + z->n + z->n_directory;
    cr_assert(z->n + z->n_directory + 22 < sizeof z->bytes);
    memcpy(z->bytes + z->n, z->directory, z->n_directory);
    memcpy(end, "PK\5\6", 4);
    zip_put(end + 10, (uint64_t)z->n_entries, 2);
    zip_put(end + 12, z->n_directory, 4);
    zip_put(end + 16, z->n, 4);
    z->n += z->n_directory + 22;
}

#endif
