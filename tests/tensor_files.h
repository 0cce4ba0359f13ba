/* tensor_files - what tests of files of named tensors ask of one. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_TENSOR_FILES_H
#define TESTS_TENSOR_FILES_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fixtures/tensor_file.h"
#include "layer/line.h"
#include "tests/folder.h"

static inline void write_file(const char *path, const void *bytes, size_t n) {
    FILE *const file = fopen(path, "wb");
    cr_assert(file && fwrite(bytes, 1, n, file) == n && !fclose(file));
}

static inline struct tensor_file *opened(const char *path) {
    struct tensor_file *file;
    const struct status s = tensor_file_open(path, &file);
    cr_assert(!s.code, "%s", s.message);
    return file;
}

static inline void refused(const char *path, const char *cause) {
    struct tensor_file *file;
    const struct status s = tensor_file_open(path, &file);
    cr_expect(s.code && !file, "accepted, expected: %s", cause);
    cr_expect(strstr(s.message, cause) && strstr(s.message, path) && line_is_clean(s.message), "%s\n%s",
              cause, s.message);
    tensor_file_close(file);
}

/* All elements of a tensor are these. */
static inline void holds(struct tensor_file *file, const char *name, int n, const double *wanted) {
    const struct named_tensor *const t = tensor_file_find(file, name);
    cr_assert(t, "%s", name);
    cr_assert_eq(t->count, n, "%s: %lld", name, (long long)t->count);
    double got[64] = {0};
    const struct status s = tensor_read(file, t, 0, n, got);
    cr_assert(!s.code, "%s", s.message);
    for (int i = 0; i < n; i++)
        cr_expect(got[i] == wanted[i] || (isnan(got[i]) && isnan(wanted[i])), "%s[%d]: %g, not %g", name, i,
                  got[i], wanted[i]);
}
#define HOLDS(file, name, ...)                                                                               \
    holds(file, name, sizeof((double[]){__VA_ARGS__}) / sizeof(double), (double[]){__VA_ARGS__})

/* A file of fixtures/golden, copied here and opened. */
static inline struct tensor_file *golden(const char *name) {
    char command[200];
    snprintf(command, sizeof command, "cp \"$ROOT/fixtures/golden/%s\" .", name);
    cr_assert_eq(system(command), 0);
    return opened(name);
}

/* No prefix of a file is accepted; with any one byte turned over it is read or refused, in one line.
 * In place: thousands of files written anew are what takes long. */
static inline void survives_damage(const char *path) {
    static char bytes[8192];
    FILE *const file = fopen(path, "rb");
    cr_assert(file);
    const size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    cr_assert(n > 0 && n < sizeof bytes);
    write_file("damaged", bytes, n);
    const int damaged = open("damaged", O_RDWR);
    cr_assert(damaged >= 0);
    for (size_t at = 0; at < n; at++) {
        struct tensor_file *f;
        const char turned = (char)(bytes[at] ^ (at % 2 ? 0xff : 1 << at / 2 % 8));
        cr_assert(pwrite(damaged, &turned, 1, (off_t)at) == 1);
        const struct status s = tensor_file_open("damaged", &f);
        cr_expect(!s.code || (s.message[0] && line_is_clean(s.message)), "%zu", at);
        for (int i = 0; f && i < tensor_file_count(f); i++) {
            const struct named_tensor *const t = tensor_file_at(f, i);
            if (t->count >= 1 << 20) continue;
            double *const all = calloc((size_t)t->count + 1, sizeof *all);
            tensor_read(f, t, 0, t->count, all);
            free(all);
        }
        tensor_file_close(f);
        cr_assert(pwrite(damaged, bytes + at, 1, (off_t)at) == 1);
    }
    size_t length[512], n_lengths = 0; /* rising: what is cut off is gone */
    for (size_t l = 0; l < n; l += 1 + l / 64) length[n_lengths++] = l;
    while (n_lengths--) {
        cr_assert(!ftruncate(damaged, (off_t)length[n_lengths]));
        refused("damaged", "");
    }
    close(damaged);
}

#endif
