/* Any bytes as a file of named tensors: each tensor's numbers are read or refused, in one clean line. HDF5 is
 * left out: its own library reads it. */
/* SPDX-License-Identifier: MIT */
#include <sys/mman.h>
#include <unistd.h>

#include "fixtures/tensor_file.h"
#include "tests/fuzz/fuzz.h"

static void read_all(struct tensor_file *file, const struct named_tensor *t) {
    static double numbers[1 << 16];
    FUZZ_CHECK(t->name[0] && t->n_dims >= 0 && t->n_dims <= TENSOR_MAX_DIMS && t->count >= 0);
    const int64_t n = t->count < 1 << 16 ? t->count : 1 << 16;
    const void *data;
    struct status s = tensor_read(file, t, t->count - n, n, numbers);
    if (s.code) fuzz_check_refusal(&s);
    s = tensor_data(file, t, &data);
    if (s.code) fuzz_check_refusal(&s);
    FUZZ_CHECK(tensor_file_find(file, t->name) == t);
}

void fuzz_tensors(const uint8_t *data, size_t n) {
    if (n > 4 && !memcmp(data, "\x89HDF", 4)) return;
    const int memory = memfd_create("tensors", MFD_CLOEXEC);
    FUZZ_CHECK(memory >= 0 && write(memory, data, n) == (ssize_t)n);
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    struct tensor_file *file;
    const struct status s = tensor_file_open(path, &file);
    if (s.code) fuzz_check_refusal(&s);
    FUZZ_CHECK(!s.code == (file != NULL));
    for (int i = 0; file && i < tensor_file_count(file) && i < 100; i++)
        read_all(file, tensor_file_at(file, i));
    tensor_file_close(file);
    close(memory);
}
