/* gated - gate_up and activation in one: y = silu(g) u with g = w[i, 0] . x and u = w[i, 1] . x,
 * and how far an implementation can stray that keeps both sums in its accumulators. The sums and
 * their bounds are two linear calls. */
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

/* The implementation has g' = g + dg and u' = u + du with |dg| <= eg, |du| <= eu.
 *   silu(g') u' - silu(g) u = (silu(g') - silu(g)) u' + silu(g) du
 *   |silu(g') - silu(g)| <= |dg| (|silu'(g)| + |dg| / 4), for |silu''| <= 1/2 everywhere
 * with silu'(g) = s (1 + g (1 - s)), s = 1 / (1 + exp(-g)); it never exceeds 1.1. What the
 * activation then
 * loses is what it loses at (g', u'), whose magnitudes are at most |g| + eg and |u| + eu. */
double gated_error(const struct activation_contract *c, double g, double eg, double u, double eu) {
    const double s = 1 / (1 + exp(-g)), silu = g * s, slope = s * (1 + g * (1 - s));
    const double sums = eg * (fabs(slope) + eg / 4) * (fabs(u) + eu) + fabs(silu) * eu;
    const double farther = g < 0 ? g - eg : g + eg;
    return sums + activation_error(c, farther, fabs(u) + eu, fabs(silu * u) + sums);
}

void ref_gated_linear(const struct call *call, const struct contract *contract, const double *const *radius,
                      int64_t row0, int64_t row1, const struct ref_out *out) {
    enum { CHUNK = 1024 }; /* rows at a time, so that the sums stay small beside the outputs */
    const struct gated_linear_args *a = &call->u.gated_linear;
    const struct gated_linear_contract *c = &contract->u.gated_linear;
    const struct contract sums = {.op = OP_LINEAR, .flushes = contract->flushes, .u.linear.acc = c->acc};
    const struct call gate_call = gated_half(a, 0), up_call = gated_half(a, 1);

    const int64_t size = min_i64(row1 - row0, CHUNK) * a->width;
    /* [CHUNK, F] each, then their bounds */
    double *g = ref_alloc((size_t)size * 4 * sizeof *g), *u = g + size;
    double *eg = out->e ? u + size : NULL, *eu = out->e ? u + 2 * size : NULL;
    for (int64_t r = row0; r < row1; r += CHUNK) {
        const int64_t end = min_i64(r + CHUNK, row1), n = (end - r) * a->width, at = (r - row0) * a->width;
        ref_linear(&gate_call, &sums, radius, r, end, &(struct ref_out){g, eg, NULL});
        ref_linear(&up_call, &sums, radius, r, end, &(struct ref_out){u, eu, NULL});
#pragma omp parallel for
        for (int64_t i = 0; i < n; i++) {
            const double y = g[i] / (1 + exp(-g[i])) * u[i];
            const double e = eg ? gated_error(&c->activation, g[i], eg[i], u[i], eu[i]) +
                                      flushed(contract, 1 + fabs(u[i]) + eu[i])
                                : 0;
            put(out, at + i, y, e, fabs(y));
        }
    }
    free(g);
}
