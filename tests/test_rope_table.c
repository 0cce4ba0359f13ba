/* Do the angles of rope follow the layer's frequencies, scaled as its config says? */
/* SPDX-License-Identifier: MIT */
#include "reference/reference.h"

#include <criterion/criterion.h>
#include <math.h>

/* Frequencies as transformers' rope_type llama3 makes them of those of Llama 3.1 (factor 8, 1 to 4 turns
 * over 8192 positions). */
Test(rope_table, frequencies_are_scaled_as_declared) {
    static const struct {
        int i;
        double plain, llama3;
    } of[] = {{0, 1.0, 1.0},
              {20, 0.016560440080994446, 0.016560440080994446},
              {30, 0.0021311195369119653, 0.0013718935677611381},
              {32, 0.001414213562373095, 0.0005248461609929547},
              {36, 0.000622772421914596, 7.78465527393245e-05},
              {63, 2.455140791131609e-06, 3.068925988914511e-07}};
    struct layer_spec s = {
        .rope_theta = 5e5, .rope_factor = 8, .rope_low = 1, .rope_high = 4, .rope_trained = 8192};
    double table[2 * 128];
    for (size_t n = 0; n < sizeof of / sizeof *of; n++)
        for (enum rope_scaling scaling = ROPE_UNSCALED; scaling <= ROPE_LLAMA3; scaling++) {
            const double want = scaling == ROPE_UNSCALED ? of[n].plain
                                : scaling == ROPE_LINEAR ? of[n].plain / 8
                                                         : of[n].llama3;
            s.rope_scaling = scaling;
            ref_rope_table(table, DTYPE_F64, 2, 128, &s); /* at position 1 */
            cr_expect(fabs(table[128 + 64 + of[n].i] - sin(want)) < 1e-15 * want + 1e-18, "%d", of[n].i);
        }
}

Test(rope_table, holds_cosines_then_sines) {
    float table[3 * 4];
    ref_rope_table(table, DTYPE_F32, 3, 4, &(struct layer_spec){.rope_theta = 100});
    cr_assert_eq(table[4], (float)cos(1));
    cr_assert_eq(table[8 + 1], (float)cos(0.2));
    cr_assert_eq(table[8 + 3], (float)sin(0.2));
}
