/* Two dumps side by side, also of two rank layouts: what differs, and are both right? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/shell.h"

static void enter(void) {
    folder_enter_with_binary();
    cr_assert(!system(
        "r=\"$SHARDCHECK run tiny -q\"; { $r --tp 2 --dump two.h5 --ranks && $r --tp 4 --dump four.h5 "
        "--ranks && $r --tp 1 --dump whole.h5; } >log"));
}

TestSuite(compare_dumps, .init = enter, .fini = folder_leave);

/* Changes bits of one element of a bf16 tensor. */
static void spoil(const char *path, const char *name, int64_t element, unsigned bits) {
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), set = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    uint16_t *const all = malloc((size_t)H5Sget_simple_extent_npoints(space) * 2);
    cr_assert(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0, "%s", name);
    all[element] = (uint16_t)(all[element] ^ bits);
    cr_assert(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0);
    cr_assert(H5Sclose(space) >= 0 && H5Tclose(type) >= 0 && H5Dclose(set) >= 0 && H5Fclose(file) >= 0);
    free(all);
}

static void remove_from(const char *path, const char *name) {
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert((strchr(name, '/') ? H5Ldelete(file, name, H5P_DEFAULT) : H5Adelete(file, name)) >= 0);
    cr_assert(H5Fclose(file) >= 0);
}

Test(compare_dumps, the_same_dump_is_identical) {
    expect("compare two.h5 two.h5", 0, "identical: ");
    cr_assert(!system("\"$SHARDCHECK\" run tiny --tp 2 --dump again.h5 --ranks -q >log"));
    expect("compare two.h5 again.h5", 0, " tensors, bit for bit\n");
}

Test(compare_dumps, two_layouts_are_put_together_and_partial_sums_may_have_other_bits) {
    expect("compare two.h5 four.h5", 0, ", ranks put together (tp 2 ep 1 | tp 4 ep 1)");
    cr_expect(strstr(text, "OTHER  layers.0.attention.o_part (stage o_proj)"), "%s", text);
    cr_expect(strstr(text, "both within bounds: the reference on each file's own inputs"), "%s", text);
    cr_expect_not(strstr(text, ".o (stage attention)"), "heads side by side have the same bits\n%s", text);
    expect("compare whole.h5 four.h5", 0, "(whole | tp 4 ep 1)");
}

Test(compare_dumps, one_wrong_element_of_one_rank_is_named) {
    spoil("four.h5", "ranks/3/layers.0.attention.o", 5 * 32 + 16 + 3, 0x8000); /* token 5, head 7, dim 3 */
    expect("compare two.h5 four.h5", 1, "first stage that differs: attention of layer 0\n");
    cr_expect(strstr(text, "1 of 4224 elements, first token 5 head 7 dim 3: "), "%s", text);
    cr_expect(strstr(text, "B is wrong: stage attention, rank 3 of 4"), "%s", text);
    cr_expect(strstr(text, "first     rank 3 token 5 head 7 dim 3, attention.o: got "), "%s", text);
    expect("compare four.h5 two.h5", 1, "A is wrong: stage attention, rank 3 of 4");
}

Test(compare_dumps, a_replica_of_other_bits_is_wrong) {
    spoil("four.h5", "ranks/2/layers.0.attention.y", 70, 1);
    expect("compare two.h5 four.h5", 1, "WRONG  B: rank 2 holds other bits of y than a rank before it\n");
}

Test(compare_dumps, a_wrong_element_of_the_whole_is_named_in_bounds) {
    cr_assert(!system("cp whole.h5 wrong.h5"));
    spoil("wrong.h5", "activations/layers.0.attention.o", 67, 0x0040);
    expect("compare whole.h5 wrong.h5", 1,
           "OTHER  layers.0.attention.o (stage attention): 1 of 4224 elements");
    cr_expect(strstr(text, " of A's bounds)\n") && strstr(text, "is ok in A (margin "), "%s", text);
    cr_expect(strstr(text, "B is wrong: stage attention, token 0, head 4, dim 3"), "%s", text);
    cr_expect(strstr(text, "outside or not judged\n"), "%s", text);
}

Test(compare_dumps, other_inputs_and_missing_tensors_are_never_within_bounds) {
    cr_assert(!system("cp whole.h5 wrong.h5 && cp whole.h5 less.h5"));
    spoil("wrong.h5", "weights/layers.0.attention.w_o", 3, 0x8000);
    expect("compare whole.h5 wrong.h5", 1, "OTHER  layers.0.attention.w_o: 1 of ");
    cr_expect(strstr(text, "an input: what follows"), "%s", text);
    remove_from("less.h5", "activations/layers.0.attention.o");
    expect("compare whole.h5 less.h5", 1, "GONE   layers.0.attention.o\n");
    expect("compare less.h5 whole.h5", 0, "NEW    layers.0.attention.o\n");
}

Test(compare_dumps, files_without_a_model_are_compared_by_bits) {
    cr_assert(!system("cp whole.h5 plain.h5 && cp whole.h5 other.h5"));
    remove_from("plain.h5", "config_json");
    expect("compare plain.h5 whole.h5", 0, " tensors, bit for bit\n");
    spoil("other.h5", "activations/layers.0.attention.o", 67, 1);
    remove_from("other.h5", "weights/layers.0.attention.w_o");
    expect("compare plain.h5 other.h5", 1,
           "OTHER  activations/layers.0.attention.o: 1 of 4224 elements, the first is "
           "number 67: ");
    cr_expect(strstr(text, "GONE   weights/layers.0.attention.w_o\n"), "%s", text);
    cr_expect(strstr(text, "nothing says which bits may differ\n"), "%s", text);
}

Test(compare_dumps, tensors_of_any_format_are_compared_by_name) {
    expect("compare $ROOT/fixtures/golden/stored.npz $ROOT/fixtures/golden/stored.npz", 2,
           "?      big: holds >f4, no numbers that are read; not compared\n");
    expect("compare $ROOT/fixtures/golden/state_dict.pt $ROOT/fixtures/golden/state_dict.pt", 0,
           "identical: 2 tensors, bit for bit\n");
    expect("compare $ROOT/fixtures/golden/alone.pt $ROOT/fixtures/golden/state_dict.pt", 1,
           "GONE   data\nNEW    bias\nNEW    weight\n0 tensors are the same");
}

Test(compare_dumps, what_cannot_be_compared_is_refused_in_one_line) {
    cr_assert(!system("echo '{}' >r.json; head -c 5000 whole.h5 >cut.h5"));
    expect("compare whole.h5 r.json", 2,
           "r.json: is a report, whole.h5 is none; compare two reports or two dumps\n");
    expect("compare $ROOT/fixtures/golden/llama.h5 $ROOT/fixtures/golden/mixtral.h5", 2,
           "; give two dumps of one layer");
    expect("compare whole.h5 $ROOT/fixtures/golden/llama.h5", 2,
           "; give two dumps of one layer and as many tokens\n");
    expect("compare cut.h5 whole.h5", 2, "cut.h5: truncated or damaged HDF5 file; write it again\n");
}
