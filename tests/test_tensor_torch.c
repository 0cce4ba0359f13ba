/* Are files of torch.save read as torch reads them, strides included, and is nothing in them followed but
 * tensors, numbers, texts, lists and dicts? */
/* SPDX-License-Identifier: MIT */
#include "tests/tensor_files.h"
#include "tests/zip_file.h"

TestSuite(tensor_torch, .init = folder_enter, .fini = folder_leave);

Test(tensor_torch, what_torch_saved_is_flattened_and_strides_are_followed) {
    struct tensor_file *const f = golden("tensors.pt");
    cr_expect_str_eq(tensor_file_format(f), "torch");
    cr_expect_eq(tensor_file_count(f), 12);
    const struct named_tensor *const value = tensor_file_find(f, "value");
    cr_expect(value->n_dims == 2 && value->dim[0] == 4 && value->stride[0] == 1 && value->stride[1] == 4);
    HOLDS(f, "value", 0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11);
    const void *data;
    cr_expect(!tensor_data(f, value, &data).code && !data);
    double two[2];
    cr_expect(!tensor_read(f, value, 2, 2, two).code && two[0] == 8 && two[1] == 1);
    HOLDS(f, "layers.0", 5, 6, 7, 9, 10, 11);
    HOLDS(f, "layers.1.0", 0, 1);
    HOLDS(f, "layers.1.1", -0x1p53, 5);
    HOLDS(f, "3", 8, 9, 10, 11);
    HOLDS(f, "repeated", 1, 1, 1, 2, 2, 2);
    HOLDS(f, "one", 7);
    HOLDS(f, "mask", 1, 0);
    HOLDS(f, "small", -1, 2);
    HOLDS(f, "byte", 255);
    cr_expect_str_eq(tensor_file_find(f, "layers.0")->type, "bfloat16");
    cr_expect_eq(tensor_file_find(f, "fp8")->element, ELEMENT_OTHER);
    cr_expect_eq(tensor_file_find(f, "none")->count, 0);
    static const char *const facts[][2] = {
        {"meta.rank", "1"},    {"meta.dims", "t h"}, {"meta.scale", "2.5"},           {"meta.causal", "true"},
        {"meta.shape.0", "3"}, {"meta.none", NULL},  {"meta.dtype", "torch.bfloat16"}};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        const char *const is = tensor_file_fact(f, facts[i][0]), *const wanted = facts[i][1];
        cr_expect(wanted ? is && !strcmp(is, wanted) : !is, "%s: %s", facts[i][0], is ? is : "none");
    }
    tensor_file_close(f);
}

Test(tensor_torch, a_state_dict_and_a_tensor_alone_are_read) {
    struct tensor_file *const state = golden("state_dict.pt");
    HOLDS(state, "weight", 0, 1, 4, 5);
    HOLDS(state, "bias", 8, 9);
    tensor_file_close(state);
    struct tensor_file *const alone = golden("alone.pt");
    HOLDS(alone, "data", 1.5, 2.5);
    tensor_file_close(alone);
}

Test(tensor_torch, damaged_files_are_refused_or_read) {
    tensor_file_close(golden("tensors.pt"));
    survives_damage("tensors.pt");
}

/* ---- what a pickle may ask for ---- */

static struct zip_file zip;

/* One storage of 12 floats, and this pickle. */
static void write_torch(const char *order, const void *pickle, size_t n) {
    static const float storage[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    memset(&zip, 0, sizeof zip);
    zip_add(&zip, "a/data.pkl", pickle, n);
    zip_add(&zip, "a/byteorder", order, strlen(order));
    zip_add(&zip, "a/data/0", storage, sizeof storage);
    zip_end(&zip);
    write_file("bad.pt", zip.bytes, zip.n);
}
#define WRITE(pickle) write_torch("little", pickle, sizeof(pickle) - 1)

#define STORAGE(type, key, n) "(X\7\0\0\0storage" type "X\1\0\0\0" key "X\3\0\0\0cpuK" n "tQ"
#define FLOATS STORAGE("ctorch\nFloatStorage\n", "0", "\14")
#define TENSOR(storage, rest)                                                                                \
    "\x80\2"                                                                                                 \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage rest "tR."

Test(tensor_torch, a_tensor_that_lies_is_refused) {
    WRITE(TENSOR(FLOATS, "K\1K\3\x85K\4\x85\x89}"));
    struct tensor_file *const f = opened("bad.pt");
    HOLDS(f, "data", 1, 5, 9);
    tensor_file_close(f);
#define REFUSED(pickle, cause) (WRITE(pickle), refused("bad.pt", cause))
    REFUSED(TENSOR(FLOATS, "K\1K\4\x85K\4\x85\x89}"), "beyond its storage");
    REFUSED(TENSOR(FLOATS, "K\15K\1\x85K\1\x85\x89}"), "outside of its storage");
    REFUSED(TENSOR(FLOATS, "J\xff\xff\xff\xffK\1\x85K\1\x85\x89}"), "outside of its storage");
    REFUSED(TENSOR(FLOATS, "K\5K\2\x85J\xff\xff\xff\xff\x85\x89}"), "stride below 0");
    REFUSED(TENSOR(FLOATS, "K\0\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f\x85K\0\x85\x89}"), "more than 2^40");
    REFUSED(TENSOR(FLOATS, "K\0J\0\0\0\x40"
                           "J\0\0\0\x40\x86K\0K\0\x86\x89}"),
            "more than 2^40");
    REFUSED(TENSOR(FLOATS, "K\0K\2\x85\x8a\7\xff\xff\xff\xff\xff\xff\x7f\x85\x89}"),
            "stride below 0 or above");
    REFUSED(TENSOR(FLOATS, "K\0J\xff\xff\xff\xff\x85K\1\x85\x89}"), "negative size");
    REFUSED(TENSOR(FLOATS, "K\0K\1\x85K\1K\1\x86\x89}"), "lacks");
    REFUSED(TENSOR(FLOATS, "K\0G\0\0\0\0\0\0\0\0\x85K\1\x85\x89}"), "no integer");
    REFUSED(TENSOR(FLOATS, "K\0K\1\x85K\1\x85\x89}}X\3\0\0\0neg\x88s"), "negative view");
    REFUSED(TENSOR(STORAGE("ctorch\nFloatStorage\n", "0", "\15"), "K\0K\1\x85K\1\x85\x89}"), "as long as");
    REFUSED(TENSOR(STORAGE("ctorch\nDoubleStorage\n", "0", "\14"), "K\0K\1\x85K\1\x85\x89}"), "as long as");
    REFUSED(TENSOR(STORAGE("ctorch\nFloatStorage\n", "1", "\14"), "K\0K\1\x85K\1\x85\x89}"), "missing");
    REFUSED(TENSOR(STORAGE("X\1\0\0\0f", "0", "\14"), "K\0K\1\x85K\1\x85\x89}"), "no type");
    static const char good[] = TENSOR(FLOATS, "K\1K\3\x85K\4\x85\x89}");
    write_torch("big", good, sizeof good - 1);
    refused("bad.pt", "big-endian");
}

Test(tensor_torch, nothing_is_called_and_foreign_globals_are_named) {
    REFUSED("\x80\2"
            "cposix\nsystem\nX\4\0\0\0true\x85R.",
            "it asks for posix.system");
    REFUSED("\x80\4\x8c\10builtins\x8c\4eval\x93\x8c\1"
            "1\x85R.",
            "it asks for builtins.eval");
    REFUSED("\x80\2"
            "ctorch\nload\nX\1\0\0\0x\x85R.",
            "it asks for torch.load");
    REFUSED("\x80\2"
            "cnumpy.core.multiarray\nscalar\n.",
            "numpy.core.multiarray.scalar");
    REFUSED("\x80\2"
            "ctorch\nFloatStorage\n)R.",
            "it calls torch.FloatStorage");
    REFUSED("\x80\2"
            "ctorch\nSize\n)R.",
            "it calls torch.Size");
    REFUSED("\x80\2"
            "ctorch\nSize\n)\x81.",
            "opcode 0x81");
    REFUSED("\x80\2"
            "ctorch\nSize\n)R}b.",
            "sets attributes");
    REFUSED("\x80\2X\1\0\0\0x)R.", "calls what is no function");
    REFUSED("\x80\2"
            "ctorch\nFloatStorage\n]e.",
            "no mark");
    REFUSED("\x80\2(i", "opcode 0x69");
}

Test(tensor_torch, pickles_that_are_broken_or_swell_are_refused) {
    REFUSED("\x80\2", "cut off");
    REFUSED("\x80\2X\xff\xff\xff\x7f.", "above 1 MiB");
    REFUSED("\x80\2X\1\1\0\0.", "cut off");
    REFUSED("\x80\2.", "empty stack");
    REFUSED("\x80\2(.", "empty stack");
    REFUSED("\x80\2NN.", "left over");
    REFUSED("\x80\2(K\1.", "left over");
    REFUSED("\x80\2h\5.", "nothing remembered");
    REFUSED("\x80\2Nr\xff\xff\xff\x7f.", "gaps");
    REFUSED("\x80\2}NNNu.", "no mark");
    REFUSED("\x80\2}(Nu.", "no list and no dict");
    REFUSED("\x80\2N(Ne.", "no list and no dict");
    REFUSED("\x80\2\x8a\11"
            "123456789.",
            "above 64 bits");
    REFUSED("\x80\2}NNs.", "neither text nor integer");
    REFUSED("\x80\2}X\2\0\0\0a\0Ns.", "a zero in it");
    REFUSED("\x80\2]q\0h\0a.", "nested");
    REFUSED("\x80\2}(X\1\0\0\0a"
            "K\1X\1\0\0\0aK\2u.",
            "twice");
    char laughs[400] = "\x80\2K\1"; /* 30 times a pair of what was there: 2^30 numbers */
    size_t n = 4;
    for (int i = 0; i < 30; i++, n += 5) memcpy(laughs + n, (char[]){'q', (char)i, 'h', (char)i, '\x86'}, 5);
    laughs[n++] = '.';
    write_torch("little", laughs, n);
    refused("bad.pt", "2^20 values");
}

Test(tensor_torch, other_zips_and_old_pickles_are_refused) {
    memset(&zip, 0, sizeof zip);
    zip_add(&zip, "a/other", "x", 1);
    zip_end(&zip);
    write_file("bad.pt", zip.bytes, zip.n);
    refused("bad.pt", "not torch's");
    write_file("bad.pt", "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.", 15);
    refused("bad.pt", "before 1.6");
}
