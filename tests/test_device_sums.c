/* Does the kernel that adds up for the reference have the bits of the reference's own loops? On the host
 * device; on a GPU every run asks that again of some rows. */
/* SPDX-License-Identifier: MIT */
#include "harness/device_sums.h"
#include "tests/summer_calls.h"

struct emulated {
    struct device *device;
    struct device_sums sums;
};

static void emulate(struct emulated *e) {
    const struct status opened = device_open(DEVICE_HOST, &e->device);
    cr_assert_not(opened.code, "%s", opened.message);
    device_sums_open(&e->sums, e->device);
    e->sums.summer.least_work = e->sums.summer.least_rows = 0;
}

static void end(struct emulated *e) {
    device_sums_close(&e->sums);
    device_close(e->device);
}

Test(device_sums, every_bit_is_that_of_the_loops) {
    struct emulated e;
    emulate(&e);
    for (int i = 0; i < N_SUMMER_SHAPES; i++) expect_answers_of_the_loops(&e.sums.summer, &summer_shapes[i]);
    cr_expect_str_eq(e.sums.summer.wrong, "");
    cr_expect_str_eq(e.sums.summer.why, "");
    cr_expect_gt(e.sums.summer.answers, 2 * N_SUMMER_SHAPES);
    end(&e);
}

Test(device_sums, numbers_at_the_ends_of_their_formats_have_the_same_bits_too) {
    enum { ROWS = 3, COLS = 2, INNER = 8 };
    double x[ROWS * INNER] = {/* products below the normal numbers, */
                              0x1p-540, 0x1p-1074, -0x1p-540, 3, -0.0, 0, 0x1p-1022, -1,
                              /* sums beyond the largest, then NaN, */
                              1e308, 1e308, 1, -1e308, -1e308, INFINITY, 1, 2,
                              /* and NaN at once */
                              NAN, 1, 2, 3, INFINITY, -INFINITY, 0, -5};
    double w[COLS * INNER] = {0x1p-530, 0.5, 0x1p-530, -0x1p-1074, 0.0, -1, 0x1p-10,  7,
                              1,        1.5, -1,       1,          1,   -1, INFINITY, 1};
    struct summer_call c = {.call.op = OP_LINEAR, .contract = contract_exact(OP_LINEAR)};
    c.call.u.linear = (struct linear_args){.x = {x, DTYPE_F64, {INNER}, 0, ROWS * INNER},
                                           .w = {w, DTYPE_F64, {0, INNER}, 0, COLS * INNER},
                                           .n_rows = ROWS,
                                           .n_cols = COLS,
                                           .n_inner = INNER,
                                           .n_groups = 1};
    struct emulated e;
    emulate(&e);
    expect_same_answers(&e.sums.summer, &c, "ends");
    cr_expect_str_eq(e.sums.summer.wrong, "");
    cr_expect_eq(e.sums.summer.answers, 3);
    end(&e);
}

Test(device_sums, few_products_and_few_rows_a_group_stay_on_the_cpu) {
    struct emulated e;
    emulate(&e);
    device_sums_open(&e.sums, e.device);
    for (int i = 0; i < N_SUMMER_SHAPES; i++) expect_answers_of_the_loops(&e.sums.summer, &summer_shapes[i]);
    cr_expect_eq(e.sums.summer.answers, 0);
    e.sums.summer.least_work = 0; /* the groups have 1, 35, 32, 2 rows, from the third row on 34, 32, 2 */
    expect_answers_of_the_loops(&e.sums.summer, &summer_shapes[7]);
    cr_expect_eq(e.sums.summer.answers, 3);
    e.sums.summer.least_rows = 20;
    expect_answers_of_the_loops(&e.sums.summer, &summer_shapes[7]);
    cr_expect_eq(e.sums.summer.answers, 5);
    end(&e);
}
