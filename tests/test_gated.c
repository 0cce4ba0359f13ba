/* Is the reference of the fused gate_up and activation right? Cases worked out by hand, the two
 * stages it replaces, honest fp32 implementations (which must stay inside) and defects (which must
 * not). */
/* SPDX-License-Identifier: MIT */
#include "reference/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 12, INNER = 96, WIDTH = 10, GROUPS = 3, PAD = 3 };

/* w [GROUPS, 2, WIDTH, INNER]; up starts PAD rows after the last gate row, as in a padded
 * layout. */
enum { HALF = (WIDTH + PAD) * INNER, GROUP = 2 * HALF };

struct layer {
    float x[ROWS * INNER], w[GROUPS * GROUP], out[ROWS * WIDTH];
    int32_t offsets[GROUPS + 1];
    struct call call;
};

static void layer_make(struct layer *l, long seed, double scale) {
    static const int32_t offsets[GROUPS + 1] = {0, 5, 5, ROWS}; /* the second group is empty */
    srand48(seed);
    for (int i = 0; i < ROWS * INNER; i++) l->x[i] = (float)dtype_round(DTYPE_BF16, drand48() * 2 - 1);
    for (int i = 0; i < GROUPS * GROUP; i++)
        l->w[i] = (float)dtype_round(DTYPE_BF16, scale * (drand48() * 2 - 1));
    memcpy(l->offsets, offsets, sizeof offsets);
    l->call = (struct call){.op = OP_GATED_LINEAR};
    l->call.u.gated_linear =
        (struct gated_linear_args){.x = {l->x, DTYPE_F32, {INNER}, 0, ROWS * INNER},
                                   .w = {l->w, DTYPE_F32, {GROUP, HALF, INNER}, 0, GROUPS * GROUP},
                                   .out = {l->out, DTYPE_F32, {WIDTH}, 0, ROWS * WIDTH},
                                   .offsets = {l->offsets, DTYPE_I32, {1}, 0, GROUPS + 1},
                                   .n_rows = ROWS,
                                   .width = WIDTH,
                                   .n_inner = INNER,
                                   .n_groups = GROUPS};
}

struct answer {
    double y[ROWS * WIDTH], e[ROWS * WIDTH], s1[ROWS * WIDTH];
};

static void compute(const struct call *call, int64_t row0, int64_t row1, struct answer *a) {
    const struct contract c = contract_exact(call->op);
    struct ref_out out[MAX_REF_OUT] = {{a->y + row0 * WIDTH, a->e + row0 * WIDTH, a->s1 + row0 * WIDTH}};
    ref_compute(call, &c, NULL, row0, row1, out);
}

/* ---- by hand ---- */

Test(gated, multiplies_silu_of_the_gate_with_up) {
    double x[] = {1, 2, NAN, 3, 4, NAN}; /* [2, 2], rows 3 apart */
    double w[] = {1, 1, NAN, 5, -1, /* group 0: gate, gap, up */ 0.5, 0, NAN, 0, 2};
    int32_t offsets[] = {0, 1, 2};
    struct call c = {.op = OP_GATED_LINEAR};
    c.u.gated_linear = (struct gated_linear_args){.x = {x, DTYPE_F64, {3}, 0, 6},
                                                  .w = {w, DTYPE_F64, {5, 3, 2}, 0, 10},
                                                  .offsets = {offsets, DTYPE_I32, {1}, 0, 3},
                                                  .n_rows = 2,
                                                  .width = 1,
                                                  .n_inner = 2,
                                                  .n_groups = 2};
    cr_assert_eq(ref_n_rows(&c), 2);
    cr_assert_eq(ref_row_size(&c, 0), 1);
    double y[2], e[2];
    const struct contract contract = contract_hf64(c.op);
    ref_compute(&c, &contract, NULL, 0, 2, (struct ref_out[MAX_REF_OUT]){{y, e, NULL}, {NULL, NULL, NULL}});
    cr_assert_float_eq(y[0], 3 / (1 + exp(-3)) * 3, 1e-14);
    cr_assert_float_eq(y[1], 1.5 / (1 + exp(-1.5)) * 8, 1e-14);
    cr_assert(e[0] > 0 && e[0] < 1e-12);
    c.u.gated_linear.x.hi = 4; /* the last row is not all there */
    ref_compute(&c, &contract, NULL, 0, 2, (struct ref_out[MAX_REF_OUT]){{y, e, NULL}, {NULL, NULL, NULL}});
    cr_assert(!isnan(y[0]) && isnan(y[1]));
}

Test(gated, agrees_with_the_two_stages_in_any_pieces) {
    struct layer l;
    struct answer fused, pieces;
    layer_make(&l, 1, 0.5);
    compute(&l.call, 0, ROWS, &fused);
    for (int64_t r = 0; r < ROWS; r += 5) compute(&l.call, r, r + 5 < ROWS ? r + 5 : ROWS, &pieces);
    cr_assert_eq(memcmp(&fused, &pieces, sizeof fused), 0);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < WIDTH; c++) {
            const float *w = l.w + (r < 5 ? 0 : 2) * GROUP + c * INNER, *x = l.x + r * INNER;
            double g = 0, u = 0;
            for (int k = 0; k < INNER; k++) g += (double)w[k] * x[k], u += (double)w[HALF + k] * x[k];
            cr_assert_eq(fused.y[r * WIDTH + c], g / (1 + exp(-g)) * u);
        }
}

/* ---- fp32 implementations ---- */

enum defect {
    NONE,
    REVERSED,
    STABLE_SILU,
    LAST_TERM_LOST,
    HALVES_SWAPPED,
    FIRST_GROUP_ONLY,
    GATE_ROUNDED,
    NO_ACTIVATION
};

static float silu(float x, enum defect d) {
    if (d == NO_ACTIVATION) return x;
    if (d == STABLE_SILU) return (x >= 0 ? x : x * expf(-fabsf(x))) / (1 + expf(-fabsf(x)));
    return x / (1 + expf(-x));
}

static float implement(const struct layer *l, int r, int c, enum defect d) {
    const int group = r < 5 || d == FIRST_GROUP_ONLY ? 0 : 2, n = d == LAST_TERM_LOST ? INNER - 1 : INNER;
    const float *w = l->w + group * GROUP + c * INNER, *x = l->x + r * INNER;
    float sum[2] = {0, 0};
    for (int i = 0; i < n; i++) {
        const int k = d == REVERSED ? INNER - 1 - i : i;
        for (int half = 0; half < 2; half++) sum[half] = fmaf(w[half * HALF + k], x[k], sum[half]);
    }
    const int gate = d == HALVES_SWAPPED;
    if (d == GATE_ROUNDED) sum[gate] = (float)dtype_round(DTYPE_BF16, sum[gate]);
    return silu(sum[gate], d) * sum[!gate];
}

/* How many elements fall outside, as stored in the dtype, and the largest margin. */
static int outside(const struct layer *l, enum dtype dtype, enum defect d, double *margin) {
    struct answer a;
    int n = 0;
    compute(&l->call, 0, ROWS, &a);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        const double got = dtype_round(dtype, implement(l, i / WIDTH, i % WIDTH, d));
        const struct element_verdict v = element_judge(dtype, got, a.y[i], a.e[i]);
        n += v.kind != ELEMENT_OK;
        if (margin) *margin = fmax(*margin, v.margin);
    }
    return n;
}

Test(gated, honest_float_arithmetic_stays_inside) {
    static const double scales[] = {1e-3, 0.1, 1, 10, 300}; /* the last: gates beyond -88, exp overflows */
    double margin = 0;
    for (int s = 0; s < 5; s++)
        for (long seed = 0; seed < 8; seed++) {
            struct layer l;
            layer_make(&l, seed, scales[s]);
            for (enum defect d = NONE; d <= STABLE_SILU; d++) {
                cr_assert_eq(outside(&l, DTYPE_F32, d, &margin), 0, "scale %g, variant %d", scales[s], d);
                cr_assert_eq(outside(&l, DTYPE_BF16, d, NULL), 0);
            }
        }
    cr_assert(margin > 0.01 && margin < 0.9, "the bound is far too wide or nearly broken: %g", margin);
}

Test(gated, defects_fall_outside) {
    struct layer l;
    layer_make(&l, 3, 0.3);
    cr_assert_gt(outside(&l, DTYPE_BF16, LAST_TERM_LOST, NULL), ROWS * WIDTH / 2);
    cr_assert_gt(outside(&l, DTYPE_BF16, HALVES_SWAPPED, NULL), ROWS * WIDTH / 2);
    cr_assert_gt(outside(&l, DTYPE_BF16, NO_ACTIVATION, NULL), ROWS * WIDTH / 2);
    cr_assert_gt(outside(&l, DTYPE_BF16, FIRST_GROUP_ONLY, NULL), 7 * WIDTH / 2);
    cr_assert_gt(outside(&l, DTYPE_F32, GATE_ROUNDED, NULL), ROWS * WIDTH / 2);
    cr_assert_gt(outside(&l, DTYPE_BF16, GATE_ROUNDED, NULL), 0); /* the separate stages are told apart */
}

/* silu'(g) = 0 near g = -1.28: there the second-order term is all that is left of the gate's
 * error. */
Test(gated, the_bound_holds_where_silu_is_flat) {
    const double g = -1.2784645427610738, eg = 0.5;
    double x = 1.0 / 3, w[] = {3 * g, 3}, y, e; /* thirds: on no grid, so that the sums may round */
    struct call c = {.op = OP_GATED_LINEAR};
    c.u.gated_linear = (struct gated_linear_args){.x = {&x, DTYPE_F64, {1}, 0, 1},
                                                  .w = {w, DTYPE_F64, {2, 1, 1}, 0, 2},
                                                  .n_rows = 1,
                                                  .width = 1,
                                                  .n_inner = 1,
                                                  .n_groups = 1};
    struct contract contract = contract_hf64(c.op);
    contract.u.gated_linear.acc = (struct accumulator){.unit = eg / -g / (1 + eg / -g), .block = 1};
    ref_compute(&c, &contract, NULL, 0, 1, (struct ref_out[MAX_REF_OUT]){{&y, &e, NULL}, {NULL, NULL, NULL}});
    for (double dg = -eg; dg <= eg; dg += 0.01)
        for (double du = -0.39; du <= 0.39; du += 0.13) {
            const double honest = (g + dg) / (1 + exp(-g - dg)) * (1 + du);
            cr_assert(fabs(honest - y) <= e, "%g off, %g allowed", fabs(honest - y), e);
        }
    cr_assert_lt(e, 1);
}
