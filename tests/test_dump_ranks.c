/* A dump that holds every rank: is each rank's tensor judged when it is read, and a wrong one named? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/shell.h"

TestSuite(dump_ranks, .init = folder_enter_with_binary, .fini = folder_leave);

/* Turns the sign of one element of a tensor of 16 bits. */
static void spoil(const char *path, const char *name, int64_t element) {
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), set = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    uint16_t *const all = malloc((size_t)H5Sget_simple_extent_npoints(space) * 2);
    cr_assert(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0, "%s", name);
    all[element] ^= 0x8000;
    cr_assert(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0);
    cr_assert(H5Sclose(space) >= 0 && H5Tclose(type) >= 0 && H5Dclose(set) >= 0 && H5Fclose(file) >= 0);
    free(all);
}

Test(dump_ranks, right_ranks_pass_in_every_layout) {
    static const char *const layouts[] = {"--tp 1", "--tp 2", "--tp 8", "--part ffn --tp 4 --ep 2",
                                          "--part ffn --tp 4 --ep 4"};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "run tiny %s --dump d.h5 --ranks", layouts[i]);
        expect(arguments, 0, " passed, 0 failed");
        expect("run --fixture d.h5 --tp 1", 0, " passed, 0 failed");
    }
}

/* What moves, what is made and what is added up. */
static void expect_wrong_named(const char *run) {
    static const struct {
        const char *name;
        int64_t element;
        const char *says;
    } wrong[] = {
        {"ranks/1/layers.0.attention.o", 3 * 64 + 16 + 5, "rank 1 token 3 head 5 dim 5, attention.o"},
        {"ranks/1/layers.0.attention.o_part", 64, "rank 1 token 1 channel 0, o_proj.o_part"},
        {"ranks/1/layers.0.attention.y", 2, "rank 1 token 0 channel 2, attn_residual.y"},
        {"ranks/1/layers.1.ffn.moe_part", 7, "rank 1 token 0 channel 7, combine.moe_part"},
    };
    expect(run, 0, "2 passed");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        spoil("d.h5", wrong[i].name, wrong[i].element);
        expect("run --fixture d.h5 --tp 1", 1, wrong[i].says);
        cr_expect(strstr(text, "rank 1 of 2"), "%s", text);
        spoil("d.h5", wrong[i].name, wrong[i].element);
    }
    expect("run --fixture d.h5 --tp 1", 0, "2 passed");
}

Test(dump_ranks, one_wrong_element_of_one_rank_is_named) {
    expect_wrong_named("run tiny --tp 2 --dump d.h5 --ranks");
}
Test(dump_ranks, one_wrong_element_of_one_rank_is_named_in_fp16) {
    expect_wrong_named("run tiny --tp 2 --dtype fp16 --dump d.h5 --ranks");
}

Test(dump_ranks, what_the_ranks_of_a_file_cannot_be_is_refused) {
    expect("run tiny --tp 2 --ranks", 2, "--ranks: says what a dump holds; use it with --dump FILE");
    expect("run tiny --tp 1,2 --dump d.h5 --ranks", 2, "--ranks: one file holds the ranks of one layout");
    expect("run tiny --tp 2 --dump d.h5 --ranks", 0, "2 passed");
    hid_t file = H5Fopen("d.h5", H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert(H5Lmove(file, "ranks/1/layers.0.attention.o", file, "ranks/1/layers.0.attention.oo",
                      H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    expect("run --fixture d.h5 --tp 1", 2,
           "dataset \"ranks/1/layers.0.attention.oo\": layer 0 has no tensor");
    file = H5Fopen("d.h5", H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert(H5Lmove(file, "ranks/1", file, "ranks/2", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    expect("run --fixture d.h5 --tp 1", 2, "group \"ranks/2\": is no rank of 2; use 0 to 1");
    file = H5Fopen("d.h5", H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert(H5Ldelete(file, "ranks", H5P_DEFAULT) >= 0);
    H5Fclose(file);
    expect("run --fixture d.h5 --tp 1", 2, "the group ranks go together");
}
