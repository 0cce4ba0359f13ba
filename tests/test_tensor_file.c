/* Does a file of named tensors give its numbers, whatever its format, and is every damaged or lying one refused
 * in one line? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tensor_files.h"

TestSuite(tensor_file, .init = folder_enter, .fini = folder_leave);

/* ---- safetensors ---- */

static void write_safetensors(const char *path, const char *header, const void *data, size_t n) {
    char bytes[4096];
    const uint64_t length = strlen(header);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    if (n) memcpy(bytes + 8 + length, data, n);
    write_file(path, bytes, 8 + length + n);
}

Test(tensor_file, safetensors_of_every_element_are_widened_exactly) {
    static const unsigned char data[] = {
        0,    0,    0,    0,    0,    0,    0xf8, 0x3f,                   /* F64 1.5 */
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0,                      /* I64 2^53 - 1 */
        0,    0,    0x80, 0xbf,                                           /* F32 -1 */
        0xfe, 0xff, 0xff, 0xff,                                           /* I32 -2 */
        0,    0x3c, 1,    0,    0xff, 0x7b, 0,    0x80, 0, 0xfc, 1, 0x7e, /* F16 */
        0x80, 0x3f, 0xc0, 0xff,                                           /* BF16 1, NaN */
        0,    0x80,                                                       /* I16 -32768 */
        0x80, 0xff, 0,    1,    0xab,                                     /* I8, U8, BOOL BOOL, F8 */
    };
    write_safetensors("a",
                      "{\"d\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},"
                      "\"l\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[8,16]},"
                      "\"__metadata__\":{\"tp_rank\":\"3\"},"
                      "\"f\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[16,20]},"
                      "\"i\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[20,24]},"
                      "\"h\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[24,36]},"
                      "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[36,40]},"
                      "\"s\":{\"dtype\":\"I16\",\"shape\":[1],\"data_offsets\":[40,42]},"
                      "\"c\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[42,43]},"
                      "\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[43,44]},"
                      "\"t\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[44,46]},"
                      "\"none\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[46,46]},"
                      "\"fp8\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[46,47]}}",
                      data, sizeof data);
    struct tensor_file *const file = opened("a");
    cr_expect_str_eq(tensor_file_format(file), "safetensors");
    cr_expect_eq(tensor_file_count(file), 12);
    cr_expect_str_eq(tensor_file_at(file, 0)->name, "b");
    HOLDS(file, "d", 1.5);
    HOLDS(file, "l", 9007199254740991.0);
    HOLDS(file, "f", -1);
    HOLDS(file, "i", -2);
    HOLDS(file, "h", 1, 0x1p-24, 65504, -0.0, -INFINITY, NAN);
    HOLDS(file, "b", 1, NAN);
    HOLDS(file, "s", -32768);
    HOLDS(file, "c", -128);
    HOLDS(file, "u", 255);
    HOLDS(file, "t", 0, 1);
    cr_expect_eq(tensor_file_find(file, "none")->count, 0);
    cr_expect_str_eq(tensor_file_fact(file, "tp_rank"), "3");
    cr_expect_null(tensor_file_fact(file, "tp_size"));
    cr_expect_null(tensor_file_find(file, "e"));

    double one;
    const struct named_tensor *const fp8 = tensor_file_find(file, "fp8");
    const struct status s = tensor_read(file, fp8, 0, 1, &one);
    cr_expect(s.code && strstr(s.message, "F8_E4M3"), "%s", s.message);
    const struct named_tensor *const h = tensor_file_find(file, "h");
    cr_expect(tensor_read(file, h, 5, 2, &one).code);
    cr_expect(tensor_read(file, h, -1, 1, &one).code);
    cr_expect(!tensor_read(file, h, 2, 1, &one).code && one == 65504);
    tensor_file_close(file);
}

Test(tensor_file, integers_that_no_double_holds_are_refused) {
    const int64_t big[] = {INT64_C(1) << 53, (INT64_C(1) << 53) + 1};
    write_safetensors("a", "{\"i\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,16]}}", big,
                      sizeof big);
    struct tensor_file *const file = opened("a");
    double got[2];
    const struct named_tensor *const t = tensor_file_find(file, "i");
    cr_expect(!tensor_read(file, t, 0, 1, got).code && got[0] == 0x1p53);
    cr_expect(tensor_read(file, t, 0, 2, got).code);
    tensor_file_close(file);
}

Test(tensor_file, data_of_a_mapping_are_given_where_they_can_be_used) {
    const float two[] = {1, 2};
    for (int shift = 0; shift < 8; shift++) {
        char header[200];
        snprintf(header, sizeof header, "{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}%*s",
                 shift, "");
        write_safetensors("a", header, two, sizeof two);
        struct tensor_file *const file = opened("a");
        const void *data;
        cr_assert(!tensor_data(file, tensor_file_at(file, 0), &data).code);
        cr_expect_eq(data != NULL, strlen(header) % 4 == 0, "%d", shift);
        if (data) cr_expect(!memcmp(data, two, sizeof two));
        HOLDS(file, "f", 1, 2);
        tensor_file_close(file);
    }
}

Test(tensor_file, a_file_that_is_cut_off_while_it_is_open_is_refused) {
    write_safetensors("a", "{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "12345678", 8);
    struct tensor_file *const file = opened("a");
    cr_assert(!truncate("a", 40));
    double got[2];
    const void *data;
    const struct status s = tensor_read(file, tensor_file_at(file, 0), 0, 2, got);
    cr_expect(s.code && strstr(s.message, "length changed"), "%s", s.message);
    cr_expect(tensor_data(file, tensor_file_at(file, 0), &data).code && !data);
    tensor_file_close(file);
}

Test(tensor_file, safetensors_that_lie_are_refused) {
    static const struct {
        const char *header;
        size_t n;
        const char *cause;
    } bad[] = {
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
         "\"f\": lies outside of the file"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9,
         "1 bytes after the last tensor"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"g\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "\"g\": overlaps another"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12,
         "behind bytes of no tensor"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "do not agree"},
        {"{\"f\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "do not agree"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "negative size"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "no integer"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "outside"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "outside"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "lacks"},
        {"{\"f\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "lacks"},
        {"{\"f\":{\"dtype\":4,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "lacks"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,2],\"data_offsets\":[0,8]}}", 8,
         "more than 2^40"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807],\"data_offsets\":[0,8]}}", 8,
         "more than 2^40"},
        {"{\"f\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", 8,
         "not JSON"},
        {"{\"f\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
         "8 dimensions"},
        {"{\"f\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"f\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, "not JSON"},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "without a name"},
        {"{\"f\":[]}", 0, "lacks"},
        {"{\"__metadata__\":[]}", 0, "no object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "no text"},
        {"{\"f\":", 0, "not JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_safetensors("bad.safetensors", bad[i].header, "0123456789ab", bad[i].n);
        refused("bad.safetensors", bad[i].cause);
    }
    static const struct {
        const char *bytes;
        size_t n;
        const char *cause;
    } raw[] = {
        {"\0\0\0\0\0\0\0\x80{}", 10, "header of 9223372036854775808 bytes"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "header of 18446744073709551615 bytes"},
        {"\3\0\0\0\0\0\0\0{}", 10, "cut off"},
        {"\2\0\0\0\0\0\0\0[]", 10, "no format"},
        {"\1", 1, "no format"},
        {"", 0, "empty"},
    };
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        write_file("bad.safetensors", raw[i].bytes, raw[i].n);
        refused("bad.safetensors", raw[i].cause);
    }
    refused("absent.safetensors", "No such file");
    refused("/dev/null", "device");
    refused("/tmp", "folder");
}
