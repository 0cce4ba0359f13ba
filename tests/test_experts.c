/* What becomes of a token between its choice and its sum? Permuted rows, activation and combination by
 * hand, and honest arithmetic that must stay inside. */
/* SPDX-License-Identifier: MIT */
#include "tests/small_call.h"

#include <stdlib.h>
#include <string.h>

Test(experts, permute_sorts_slots_stably_and_skips_foreign_experts) {
    double x[] = {10, 11, 20, 21, 30, 31};
    int32_t routed[] = {2, 1, 3, 2, 1, -7}, offsets[3], row_slot[6], slot_row[6];
    struct call c = {.op = OP_PERMUTE};
    c.u.permute = (struct permute_args){.x = F64(x, 2, 0),
                                        .ids = I32(routed, 2),
                                        .n_tokens = 3,
                                        .top_k = 2,
                                        .width = 2,
                                        .expert_first = 1,
                                        .expert_count = 2,
                                        .n_rows = 4};
    cr_assert_eq(ref_permute(&c, offsets, row_slot, slot_row), 4);
    cr_assert(offsets[0] == 0 && offsets[1] == 2 && offsets[2] == 4);
    const int32_t slots[] = {1, 4, 0, 3}, rows[] = {2, 0, -1, 3, 1, -1};
    for (int i = 0; i < 4; i++) cr_assert_eq(row_slot[i], slots[i]);
    for (int i = 0; i < 6; i++) cr_assert_eq(slot_row[i], rows[i]);
    run(&c);
    cr_assert(y[0] == 10 && y[2] == 30 && y[4] == 10 && y[7] == 21 && e[7] == 0);
}

/* Two experts with three slots each. */
Test(experts, rows_of_an_expert_follow_the_stored_order_where_it_is_one) {
    double x[] = {10, 20, 30};
    int32_t routed[] = {0, 1, 0, 1, 0, 1}, row_slot[6], slot_row[6], stored[6];
    struct call c = {.op = OP_PERMUTE};
    c.u.permute = (struct permute_args){.x = F64(x, 1, 0),
                                        .ids = I32(routed, 2),
                                        .row_slot = I32(stored, 1),
                                        .n_tokens = 3,
                                        .top_k = 2,
                                        .width = 1,
                                        .expert_count = 2,
                                        .n_rows = 6};
    static const struct {
        int32_t stored[6], order[6];
    } orders[] = {
        {{0, 2, 4, 1, 3, 5}, {0, 2, 4, 1, 3, 5}},
        {{4, 0, 2, 5, 3, 1}, {4, 0, 2, 5, 3, 1}},
        {{4, 4, 2, 5, 3, 1}, {0, 2, 4, 5, 3, 1}},  /* a slot twice */
        {{4, 0, 1, 5, 3, 2}, {0, 2, 4, 1, 3, 5}},  /* each other's slots */
        {{-1, 9, 2, 3, 1, 5}, {0, 2, 4, 3, 1, 5}}, /* nobody's */
        {{INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN}, {0, 2, 4, 1, 3, 5}},
    };
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        memcpy(stored, orders[i].stored, sizeof stored);
        cr_assert_eq(ref_permute(&c, NULL, row_slot, slot_row), 6);
        run(&c);
        for (int r = 0; r < 6; r++) {
            cr_expect_eq(row_slot[r], orders[i].order[r], "order %zu row %d: slot %d", i, r, row_slot[r]);
            cr_expect_eq(slot_row[row_slot[r]], r);
            cr_expect_eq(y[r], x[row_slot[r] / 2]);
        }
    }
}

Test(experts, activation_is_silu_of_gate_times_up) {
    double gate_up[] = {0, 1, -100, 3, 2, 5};
    struct call c = {.op = OP_ACTIVATION};
    c.u.activation = (struct activation_args){.gate_up = F64(gate_up, 6, 3), .n_rows = 1, .width = 3};
    run(&c);
    cr_assert_eq(y[0], 0);
    CLOSE(y[1], 2 / (1 + exp(-1)));
    cr_assert_eq(element_judge(DTYPE_F32, -0.0, y[2], e[2]).kind, ELEMENT_OK); /* exp(100) overflows fp32 */
    cr_assert_eq(element_judge(DTYPE_F32, y[1] * (1 + 1e-5), y[1], e[1]).kind, ELEMENT_OUTSIDE);
}

/* Honest ways to write silu(g) u in fp32, and what each makes of exp(-g) near and beyond the end. */
static float silu_mul(float g, float u, int way) {
    const float ex = expf(-fabsf(g));
    switch (way) {
    case 0: return g / (1 + expf(-g)) * u;
    case 1: return g * (1 / (1 + expf(-g))) * u;
    case 2: return g * (g >= 0 ? 1.0f : ex) / (1 + ex) * u;
    case 3: return quotient(g, 1 + expf(-g), FAST) * u;
    default: return g * quotient(g >= 0 ? 1.0f : settle(ex, FLUSHED), 1 + ex, FLUSHED) * u;
    }
}

Test(experts, gates_whose_exponential_overflows_stay_inside_and_dropped_ones_do_not) {
    double gate_up[2];
    struct call c = {.op = OP_ACTIVATION};
    c.u.activation = (struct activation_args){.gate_up = F64(gate_up, 2, 1), .n_rows = 1, .width = 1};
    srand48(8);
    for (int i = 0; i < 200000; i++) {
        gate_up[0] = (double)(float)(i % 2 ? -86 - 4 * drand48() : -120 * drand48());
        gate_up[1] = (double)(float)exp2(80 * drand48());
        run(&c);
        const float got = silu_mul((float)gate_up[0], (float)gate_up[1], i / 2 % 5);
        cr_assert_eq(element_judge(DTYPE_F32, (double)got, y[0], e[0]).kind, ELEMENT_OK,
                     "silu(%.9g) %.9g: got %g, y %g, e %g", gate_up[0], gate_up[1], (double)got, y[0], e[0]);
        if (gate_up[0] > -86) /* where nothing overflows, 0 is wrong */
            cr_assert_eq(element_judge(DTYPE_F32, 0, y[0], e[0]).kind, ELEMENT_OUTSIDE, "%g", gate_up[0]);
    }
}

Test(experts, combine_weighs_the_local_rows) {
    double down[] = {1, 2, 10, 20}, gates[] = {0.5, 0.25, 3, 4};
    int32_t slot_row[] = {1, 0, -1, -1};
    struct call c = {.op = OP_COMBINE};
    c.u.combine = (struct combine_args){.down = F64(down, 2, 0),
                                        .slot_row = I32(slot_row, 2),
                                        .gates = F64(gates, 2, 0),
                                        .n_tokens = 2,
                                        .top_k = 2,
                                        .width = 2,
                                        .n_rows = 2};
    run(&c);
    cr_assert(y[0] == 5.25 && y[1] == 10.5 && y[2] == 0 && e[2] == 0);
    cr_assert(e[0] == 0 && e[1] == 0, "multiples of a quarter: every order gives this sum");
    for (int i = 0; i < 4; i++) down[i] /= 3;
    run(&c);
    CLOSE(y[0], 1.75);
    CLOSE(e[0] / (5 * 1.75 * 0x1p-24), 1 + 0x1p-29);
    slot_row[0] = 2; /* beyond the rows */
    run(&c);
    cr_assert(isnan(y[0]) && y[2] == 0);
}
