/* Are arrays of numpy and datasets of HDF5 named tensors like any other? */
/* SPDX-License-Identifier: MIT */
#include "tests/tensor_files.h"
#include "tests/zip_file.h"

TestSuite(tensor_npz, .init = folder_enter, .fini = folder_leave);

Test(tensor_npz, arrays_stored_and_deflated_are_read) {
    static const char *const names[] = {"stored.npz", "deflated.npz"};
    for (int i = 0; i < 2; i++) {
        struct tensor_file *const f = golden(names[i]);
        cr_expect_str_eq(tensor_file_format(f), "npz");
        cr_expect_eq(tensor_file_count(f), 9 + i);
        HOLDS(f, "q", 0, 1, 2, 3, 4, 5);
        HOLDS(f, "columns", 0, 1, 2, 3, 4, 5);
        HOLDS(f, "half", 1.5, -2);
        HOLDS(f, "ids", 3, -4);
        HOLDS(f, "flags", 1, 0);
        HOLDS(f, "one", 7);
        cr_expect_eq(tensor_file_find(f, "columns")->stride[0], 1);
        cr_expect_eq(tensor_file_find(f, "none")->count, 0);
        cr_expect_eq(tensor_file_find(f, "words")->element, ELEMENT_OTHER);
        double one;
        const struct status s = tensor_read(f, tensor_file_find(f, "big"), 0, 1, &one);
        cr_expect(s.code && strstr(s.message, ">f4"), "%s", s.message);
        const void *data;
        cr_expect(!tensor_data(f, tensor_file_find(f, "columns"), &data).code && !data);
        if (i == 1) {
            const struct named_tensor *const zeros = tensor_file_find(f, "zeros");
            double all[2000];
            cr_expect(!tensor_read(f, zeros, 0, 2000, all).code && all[1999] == 0);
            cr_expect(!tensor_data(f, zeros, &data).code && data);
        }
        tensor_file_close(f);
    }
}

Test(tensor_npz, damaged_files_are_refused_or_read) {
    tensor_file_close(golden("stored.npz"));
    survives_damage("stored.npz");
    tensor_file_close(golden("deflated.npz"));
    survives_damage("deflated.npz");
}

/* A deflated array whose bytes are wrong is seen by its checksum when it is read. */
Test(tensor_npz, a_wrong_checksum_is_refused_when_the_array_is_read) {
    tensor_file_close(golden("deflated.npz"));
    char bytes[4096];
    FILE *const file = fopen("deflated.npz", "rb");
    const size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    char *row = NULL; /* of the directory */
    for (size_t i = 0; i + 4 < n && !row; i++)
        if (!memcmp(bytes + i, "PK\1\2", 4)) row = bytes + i;
    cr_assert(row);
    row[16] ^= 1;
    write_file("bad.npz", bytes, n);
    struct tensor_file *const f = opened("bad.npz");
    int n_refused = 0;
    for (int i = 0; i < tensor_file_count(f); i++) {
        const struct named_tensor *const t = tensor_file_at(f, i);
        double all[2000];
        if (t->element == ELEMENT_OTHER || t->count == 0) continue;
        const struct status s = tensor_read(f, t, 0, t->count, all);
        if (s.code) cr_expect(strstr(s.message, "checksum"), "%s", s.message);
        n_refused += s.code != 0;
    }
    cr_expect_eq(n_refused, 1);
    tensor_file_close(f);
}

static struct zip_file zip;

static void write_npz(bool deflated, const char *header, size_t n_data) {
    char npy[1024] = "\x93NUMPY\1\0";
    const size_t length = strlen(header);
    npy[8] = (char)length;
    memcpy(npy + 10, header, length);
    memset(&zip, 0, sizeof zip);
    (deflated ? zip_add_deflated : zip_add)(&zip, "a.npy", npy, 10 + length + n_data);
    zip_add(&zip, "notes.txt", "x", 1);
    zip_end(&zip);
    write_file("bad.npz", zip.bytes, zip.n);
}

Test(tensor_npz, headers_that_lie_are_refused) {
    static const struct {
        const char *header;
        const char *cause;
    } bad[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "do not agree"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", "do not agree"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (3,), }", "beyond its storage"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1099511627776,1099511627776), }", "2^40"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999999,), }", "2^40"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999,), }", "no tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "no tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2", "no tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "8 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False}", "no tuple"},
        {"{'descr': '<f4', 'shape': (2,), }", "no order"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", "no plain type"},
        {"{'descr': '<f4444444444444444444444444', 'fortran_order': False, 'shape': (2,), }",
         "no plain type"},
        {"", "no plain type"},
    };
    for (int deflated = 0; deflated < 2; deflated++) {
        write_npz(deflated, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8);
        struct tensor_file *const f = opened("bad.npz");
        cr_expect_eq(tensor_file_count(f), 1);
        HOLDS(f, "a", 0, 0);
        tensor_file_close(f);
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            write_npz(deflated, bad[i].header, 8);
            refused("bad.npz", bad[i].cause);
        }
        write_npz(deflated, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 0);
        refused("bad.npz", "do not agree");
    }
}

Test(tensor_npz, hdf5_is_a_file_of_named_tensors_too) {
    struct tensor_file *const f = golden("llama.h5");
    cr_expect_str_eq(tensor_file_format(f), "HDF5");
    cr_expect(tensor_file_fact(f, "config_json") &&
              strstr(tensor_file_fact(f, "config_json"), "hidden_size"));
    const struct named_tensor *const x = tensor_file_find(f, "inputs/hidden_states");
    cr_assert(x && x->element == ELEMENT_F64 && x->n_dims >= 2, "%d", x ? (int)x->element : -1);
    double two[2], *const all = calloc((size_t)x->count, sizeof *all);
    cr_assert(!tensor_read(f, x, 0, x->count, all).code);
    cr_expect(!tensor_read(f, x, 7, 2, two).code && two[0] == all[7] && two[1] == all[8] && two[0] != 0);
    free(all);
    tensor_file_close(f);
}
