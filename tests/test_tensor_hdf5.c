/* Is every dataset of an HDF5 file a named tensor in the type it is stored in, and every attribute a fact? */
/* SPDX-License-Identifier: MIT */
#include <hdf5.h>

#include "fixtures/dataset.h"
#include "tests/tensor_files.h"

TestSuite(tensor_hdf5, .init = folder_enter, .fini = folder_leave);

static void add(hid_t file, const char *name, hid_t stored, hid_t given, int n_dims, const hsize_t *dims,
                const void *data) {
    const hid_t space = n_dims ? H5Screate_simple(n_dims, dims, NULL) : H5Screate(H5S_SCALAR);
    const hid_t set = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    cr_assert(set >= 0 && H5Dwrite(set, given, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0, "%s", name);
    H5Dclose(set);
    H5Sclose(space);
}

static void add_attribute(hid_t file, const char *name, hid_t type, const void *data) {
    const hid_t space = H5Screate(H5S_SCALAR),
                attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    cr_assert(attribute >= 0 && H5Awrite(attribute, type, data) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

static void write_all_types(void) {
    const hid_t file = H5Fcreate("all.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                group = H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                bf16 = dataset_bf16_type(), f16 = dataset_f16_type(), text = H5Tcopy(H5T_C_S1);
    const hsize_t two[] = {1, 2}, three[] = {3};
    const uint16_t halves[] = {0x3f80, 0xc000}, float16s[] = {0x3c01, 1};
    const double values[] = {1.5, -2};
    const int64_t integers[] = {-3, 0, 100};
    const uint8_t bytes[] = {255, 0, 1};
    H5Tset_size(text, 6);
    add(file, "f64", H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE, 2, two, values);
    add(file, "f32", H5T_IEEE_F32LE, H5T_NATIVE_DOUBLE, 2, two, values);
    add(file, "bf16", bf16, bf16, 2, two, halves);
    add(file, "f16", f16, f16, 2, two, float16s);
    add(file, "g/i64", H5T_STD_I64LE, H5T_NATIVE_INT64, 1, three, integers);
    add(file, "g/i32", H5T_STD_I32BE, H5T_NATIVE_INT64, 1, three, integers);
    add(file, "g/i16", H5T_STD_I16LE, H5T_NATIVE_INT64, 1, three, integers);
    add(file, "g/i8", H5T_STD_I8LE, H5T_NATIVE_INT64, 1, three, integers);
    add(file, "g/u8", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, three, bytes);
    add(file, "g/u32", H5T_STD_U32LE, H5T_NATIVE_INT64, 1, three, integers);
    add(file, "words", text, text, 0, NULL, "words");
    add_attribute(file, "says", text, "so it ");
    add_attribute(file, "layer", H5T_NATIVE_INT64, integers);
    add_attribute(file, "scale", H5T_NATIVE_DOUBLE, values);
    H5Tclose(bf16), H5Tclose(f16), H5Tclose(text), H5Gclose(group);
    cr_assert(H5Fclose(file) >= 0);
}

Test(tensor_hdf5, datasets_keep_their_types_and_attributes_are_facts) {
    write_all_types();
    struct tensor_file *const f = opened("all.h5");
    cr_expect_str_eq(tensor_file_format(f), "HDF5");
    cr_expect_eq(tensor_file_count(f), 11);
    static const struct {
        const char *name;
        enum element element;
    } types[] = {{"f64", ELEMENT_F64},     {"f32", ELEMENT_F32},    {"bf16", ELEMENT_BF16},
                 {"f16", ELEMENT_F16},     {"g/i64", ELEMENT_I64},  {"g/i32", ELEMENT_I32},
                 {"g/i16", ELEMENT_I16},   {"g/i8", ELEMENT_I8},    {"g/u8", ELEMENT_U8},
                 {"words", ELEMENT_OTHER}, {"g/u32", ELEMENT_OTHER}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const struct named_tensor *const t = tensor_file_find(f, types[i].name);
        cr_expect(t && t->element == types[i].element, "%s", types[i].name);
    }
    const struct named_tensor *const f64 = tensor_file_find(f, "f64");
    cr_expect(f64->n_dims == 2 && f64->dim[0] == 1 && f64->dim[1] == 2);
    HOLDS(f, "f64", 1.5, -2);
    HOLDS(f, "f32", 1.5, -2);
    HOLDS(f, "bf16", 1, -2);
    HOLDS(f, "f16", 1 + 0x1p-10, 0x1p-24);
    HOLDS(f, "g/i64", -3, 0, 100);
    HOLDS(f, "g/i32", -3, 0, 100);
    HOLDS(f, "g/i16", -3, 0, 100);
    HOLDS(f, "g/i8", -3, 0, 100);
    HOLDS(f, "g/u8", 255, 0, 1);
    cr_expect_str_eq(tensor_file_fact(f, "says"), "so it ");
    cr_expect_str_eq(tensor_file_fact(f, "layer"), "-3");
    cr_expect_str_eq(tensor_file_fact(f, "scale"), "1.5");
    tensor_file_close(f);
}

Test(tensor_hdf5, a_dataset_that_was_not_written_is_refused_when_it_is_read) {
    const hid_t file = H5Fcreate("bad.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    const hsize_t dims[] = {3};
    const hid_t space = H5Screate_simple(1, dims, NULL);
    H5Dclose(H5Dcreate2(file, "empty", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
    H5Fclose(file);
    struct tensor_file *const f = opened("bad.h5");
    double got[3];
    const void *data;
    const struct status s = tensor_read(f, tensor_file_find(f, "empty"), 0, 3, got);
    cr_expect(s.code && strstr(s.message, "not written") && strstr(s.message, "bad.h5"), "%s", s.message);
    cr_expect(tensor_data(f, tensor_file_find(f, "empty"), &data).code);
    tensor_file_close(f);
    cr_assert(!truncate("bad.h5", 600));
    refused("bad.h5", "truncated or damaged");
}
