/* gated - the SwiGLU activation, y = silu(g) u, and gate_up and activation in one: g = w[i, 0] . x and
 * u = w[i, 1] . x, and how far an implementation can stray that keeps both sums in its accumulators. The
 * sums and their bounds are two linear calls. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>

struct call gated_half(const struct gated_linear_args *a, int half) {
    const int64_t skip = half * a->w.stride[1];
    struct call c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_args){.x = a->x,
                                      .w = a->w,
                                      .offsets = a->offsets,
                                      .n_rows = a->n_rows,
                                      .n_cols = a->width,
                                      .n_inner = a->n_inner,
                                      .n_groups = a->n_groups};
    struct view *w = &c.u.linear.w;
    if (w->data) w->data = (char *)w->data + skip * (int64_t)dtype_bytes(w->dtype);
    w->lo -= skip, w->hi -= skip;
    w->stride[1] = a->w.stride[2];
    return c;
}

/* Below g = -87, 1 + exp(-g) may exceed 2^126, and honest code may give 0: exp(-g) overflows, its inverse
 * is subnormal, or a fast division gives up (CUDA's __fdividef does above 2^126). |silu| < 87.4 / 2^126 <
 * 2^-119 there. */
static double lost_silu(const struct activation_contract *c, double gate) {
    return gate < -87 && c->unit > UNIT_F64 ? 0x1p-119 : 0;
}

/* Roundings of silu(g) as a share: one exponential whose argument is off by 2 u |g|, 1 + e, a division
 * good to two places. */
static double silu_roundings(const struct activation_contract *c, double gate) {
    return (5 + 2 * fabs(gate)) * (c->unit + UNIT_F64) + c->exp_error;
}

/* silu(g) is rounded to the contract's mid, then multiplied. moved: how far g's radius moves it. */
static struct fuzzy gated_mid(const struct activation_contract *c, double silu, double moved, double farther,
                              struct fuzzy u) {
    const double size = fabs(silu) + moved, tiny = size != 0 ? underflow_unit(c->unit) : 0;
    const double off = moved + silu_roundings(c, farther) * size + lost_silu(c, farther) + tiny;
    const struct fuzzy z = image((struct fuzzy){silu, off}, c->mid);
    return product(z, u, c->unit);
}

/* The implementation has g' = g + dg and u' = u + du with |dg| <= eg, |du| <= eu.
 *   silu(g') u' - silu(g) u = (silu(g') - silu(g)) u' + silu(g) du
 *   |silu(g') - silu(g)| <= |dg| (|silu'(g)| + |dg| / 4), for |silu''| <= 1/2 everywhere
 * with silu'(g) = s (1 + g (1 - s)), s = 1 / (1 + exp(-g)); it never exceeds 1.1. What the
 * activation then
 * loses is what it loses at (g', u'), whose magnitudes are at most |g| + eg and |u| + eu. */
struct fuzzy gated_value(const struct activation_contract *c, struct fuzzy gate, struct fuzzy up) {
    const double g = gate.value, u = up.value, eg = gate.radius, eu = up.radius;
    const double s = 1 / (1 + exp(-g)), silu = g / (1 + exp(-g)), slope = s * (1 + g * (1 - s));
    const double moved = eg > 0 ? eg * (fabs(slope) + eg / 4) : eg, farther = g < 0 ? g - eg : g + eg;
    if (c->mid != DTYPE_F64) return gated_mid(c, silu, moved, farther, up);
    const double y = silu * u, sums = moved * (fabs(u) + eu) + fabs(silu) * eu, size = fabs(y) + sums;
    const double relative = silu_roundings(c, farther) + c->unit + UNIT_F64;
    const double tiny = size != 0 ? underflow_unit(c->unit) * (1 + fabs(u) + eu) : 0;
    return (struct fuzzy){y, sums + relative * size + lost_silu(c, farther) * (fabs(u) + eu) + tiny};
}

void ref_gated_linear(const struct call *call, const struct contract *contract, const double *const *radius,
                      int64_t row0, int64_t row1, const struct ref_out *out) {
    enum { CHUNK = 1024, SUMMED = 8192 };
    /* rows at a time: the sums stay small beside the outputs */
    const int64_t chunk = ref_summer() ? SUMMED : CHUNK;
    const struct gated_linear_args *a = &call->u.gated_linear;
    const struct gated_linear_contract *c = &contract->u.gated_linear;
    const struct contract sums = {.op = OP_LINEAR, .flushes = contract->flushes, .u.linear.acc = c->acc};
    const struct call gate_call = gated_half(a, 0), up_call = gated_half(a, 1);

    const int64_t size = min_i64(row1 - row0, chunk) * a->width;
    /* [chunk, F] each, then their bounds */
    double *g = ref_alloc((size_t)size * 4 * sizeof *g), *u = g + size;
    double *eg = out->e ? u + size : NULL, *eu = out->e ? u + 2 * size : NULL;
    for (int64_t r = row0; r < row1; r += chunk) {
        const int64_t end = min_i64(r + chunk, row1), n = (end - r) * a->width, at = (r - row0) * a->width;
        ref_linear(&gate_call, &sums, radius, r, end, &(struct ref_out){g, eg, NULL});
        ref_linear(&up_call, &sums, radius, r, end, &(struct ref_out){u, eu, NULL});
#pragma omp parallel for
        for (int64_t i = 0; i < n; i++) {
            const struct fuzzy gate = {g[i], eg ? eg[i] : 0}, up = {u[i], eu ? eu[i] : 0};
            const struct fuzzy y = gated_value(&c->activation, gate, up);
            put(out, at + i, y.value, y.radius + flushed(contract, 1 + fabs(u[i]) + up.radius),
                fabs(y.value));
        }
    }
    free(g);
}
