/* rope - rotary position embedding of q and k from a given table or from one that the producer made of it,
 * and the two copies beside it: the split of the fused rows and the write into the cache.
 * Su et al. 2021, eq. 34: over each pair (a, b) with angle position * theta^(-2i/rot), a' = a c - b s and
 * b' = b c + a s. Two products and a sum: E = 3 u (|a c| + |b s|), plus what an inexact table adds. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>

/* A frequency makes so many turns over the context that was trained. Llama 3.1 leaves those with more than
 * rope_high, divides those with fewer than rope_low, and goes linearly from one to the other between
 * (transformers' rope_type llama3); linear divides all (Chen et al. 2023). */
static double scaled(double frequency, const struct layer_spec *s) {
    static const double two_pi = 6.283185307179586;
    if (s->rope_scaling == ROPE_UNSCALED) return frequency;
    if (s->rope_scaling == ROPE_LINEAR) return frequency / s->rope_factor;
    const double turns = (double)s->rope_trained * frequency / two_pi;
    const double part = fmin(1, fmax(0, (turns - s->rope_low) / (s->rope_high - s->rope_low)));
    return (1 - part) * frequency / s->rope_factor + part * frequency;
}

void ref_rope_table(void *table, enum dtype d, int64_t n_positions, int64_t rot_dim,
                    const struct layer_spec *spec) {
    const int64_t half = rot_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const double frequency = scaled(pow(spec->rope_theta, -2.0 * (double)i / (double)rot_dim), spec);
        for (int64_t p = 0; p < n_positions; p++) {
            dtype_store(table, d, p * rot_dim + i, cos((double)p * frequency));
            dtype_store(table, d, p * rot_dim + half + i, sin((double)p * frequency));
        }
    }
}

struct rotation {
    const struct rope_args *args;
    const struct rope_contract *contract;
    const struct fuzzy *cosine, *sine; /* [rot_dim / 2] of the token's position */
    const double *r;                   /* [head_dim] radii of the head at hand */
    double flushed;                    /* what two products and a sum lose where they underflow */
};

/* Each product is rounded to the contract's dtype, then their difference. */
static struct fuzzy of_rounded_products(const struct rotation *r, struct fuzzy a, struct fuzzy b, int64_t i) {
    const double unit = r->contract->unit;
    const struct fuzzy p = image(product(a, r->cosine[i], unit), r->contract->products);
    const struct fuzzy q = image(product(b, r->sine[i], unit), r->contract->products);
    const double y = p.value - q.value, off = p.radius + q.radius,
                 grid = fmin(value_grid(p.value), value_grid(q.value));
    const bool exact = off == 0 && grid >= addition_grid(unit, fabs(p.value) + fabs(q.value));
    return (struct fuzzy){y, exact ? 0 : (unit + UNIT_F64) * (fabs(y) + off) + off};
}

/* a' = a c - b s; b' is the same with (b, -a). */
static void put_rotated(const struct rotation *r, const struct ref_out *out, int64_t at, struct fuzzy a,
                        struct fuzzy b, int64_t i) {
    const struct fuzzy co = r->cosine[i], si = r->sine[i];
    const double p = a.value * co.value, q = b.value * si.value, unit = r->contract->unit;
    const double reach = fabs(a.value) + a.radius + fabs(b.value) + b.radius;
    const double size = fabs(p) + fabs(q);
    const double tiny = size > 0 ? 3 * underflow_unit(unit) : 0, lost = size > 0 ? r->flushed : 0;
    if (r->contract->products != DTYPE_F64) {
        const struct fuzzy y = of_rounded_products(r, a, b, i);
        put(out, at, y.value, y.radius + lost, size);
        return;
    }
    const double moved = a.radius * (fabs(co.value) + co.radius) + b.radius * (fabs(si.value) + si.radius) +
                         fabs(a.value) * co.radius + fabs(b.value) * si.radius;
    const double off = moved + r->contract->table_error * reach;
    const double grid =
        fmin(value_grid(a.value) * value_grid(co.value), value_grid(b.value) * value_grid(si.value));
    const bool exact = off == 0 && grid >= addition_grid(unit, size);
    put(out, at, p - q, (exact ? 0 : 3 * (unit + UNIT_F64) * (size + moved) + off + tiny) + lost, size);
}

/* A cosine c, its partner being s, of an angle that is off by `angle`, computed in fp32 and rounded: the given
 * one is right to 1 u, the producer's own to 4 u (CUDA's cosf: 2 ulp). */
static struct fuzzy of_angle(double c, double s, double angle, enum dtype rounded) {
    const double moved = angle * (fabs(s) * (1 + UNIT_F32) + angle);
    const struct fuzzy own = {c, moved + 5 * UNIT_F32 * (fabs(c) + moved) + 0x1p-149};
    return image(own, rounded);
}

/* The row of the table that the producer has: the call's, or that with the errors of an fp32 angle, rounded.
 * angle = fl(p fl(1 / fl(theta^x))), x = 2i / rot: x is rounded (x ln theta u), the power is good to 8 u
 * (CUDA's powf: 4 ulp), inverse and product round once each; the frequencies are at most theta^-x. */
static void own_table(struct fuzzy *table, const double *given, const struct rope_args *a,
                      const struct rope_contract *c, int64_t position) {
    const int64_t half = a->rot_dim / 2;
    for (int64_t i = 0; i < a->rot_dim; i++) table[i] = known(given[i]);
    for (int64_t i = 0; i < half && c->table != DTYPE_F64; i++) {
        const double exponent = log(c->theta) * 2 * (double)i / (double)a->rot_dim;
        const double share = (exponent + 10) * c->growth * 1.001 * UNIT_F32;
        const double angle = (double)position * exp(-exponent) * share;
        table[i] = of_angle(given[i], given[half + i], angle, c->table);
        table[half + i] = of_angle(given[half + i], given[i], angle, c->table);
    }
}

static void rotate_head(const struct rotation *r, const double *x, const struct ref_out *out, int64_t at) {
    const int64_t half = r->args->rot_dim / 2;
    const bool neox = r->args->pairing == ROPE_NEOX;
    for (int64_t i = 0; i < half; i++) {
        const int64_t a = neox ? i : 2 * i, b = neox ? i + half : 2 * i + 1;
        const struct fuzzy fa = {x[a], r->r[a]}, fb = {x[b], r->r[b]};
        put_rotated(r, out, at + a, fa, fb, i);
        put_rotated(r, out, at + b, fb, (struct fuzzy){-fa.value, fa.radius}, i);
    }
    for (int64_t d = r->args->rot_dim; d < r->args->head_dim; d++)
        put(out, at + d, x[d], r->r[d], fabs(x[d]));
}

/* Operand o of the call and its output. */
static void rotate_heads(const struct rotation *r, const struct view *in, const double *const *radius, int o,
                         int64_t n_heads, int64_t token, double *x, const struct ref_out *out, int64_t at) {
    const int64_t D = r->args->head_dim;
    for (int64_t h = 0; h < n_heads; h++) {
        view_row(x, in, token * in->stride[0] + h * in->stride[1], D);
        radius_row(x + D, radius, o, in, token * in->stride[0] + h * in->stride[1], D);
        rotate_head(r, x, out, at + h * D);
    }
}

void ref_rope(const struct call *call, const struct contract *contract, const double *const *radius,
              int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct rope_args *a = &call->u.rope;
    const int64_t q = a->n_heads * a->head_dim, k = a->n_kv_heads * a->head_dim;
    double *angles = ref_alloc((size_t)a->rot_dim * sizeof *angles);
    struct fuzzy *table = ref_alloc((size_t)a->rot_dim * sizeof *table);
    double *x = ref_alloc((size_t)a->head_dim * 2 * sizeof *x);
    const struct rotation r = {
        a, &contract->u.rope, table, table + a->rot_dim / 2, x + a->head_dim, flushed(contract, 3)};
    for (int64_t t = row0; t < row1; t++) {
        const int64_t position = view_index(&a->positions, t);
        if (position >= 0)
            view_row(angles, &a->table, position * a->table.stride[0], a->rot_dim);
        else
            for (int64_t i = 0; i < a->rot_dim; i++) angles[i] = (double)NAN;
        own_table(table, angles, a, &contract->u.rope, position);
        rotate_heads(&r, &a->q, radius, 0, a->n_heads, t, x, &out[0], (t - row0) * q);
        rotate_heads(&r, &a->k, radius, 1, a->n_kv_heads, t, x, &out[1], (t - row0) * k);
    }
    free(angles), free(table), free(x);
}

/* ---- copies: a row of heads each ---- */

static void copy_heads(const struct view *in, const double *const *radius, int o, int64_t n_heads, int64_t D,
                       int64_t row0, int64_t row1, const struct ref_out *out) {
    double *x = ref_alloc((size_t)D * 2 * sizeof *x), *r = x + D;
    for (int64_t t = row0; t < row1; t++)
        for (int64_t h = 0; h < n_heads; h++) {
            const int64_t from = t * in->stride[0] + h * in->stride[1], at = ((t - row0) * n_heads + h) * D;
            view_row(x, in, from, D);
            radius_row(r, radius, o, in, from, D);
            for (int64_t d = 0; d < D; d++) put(out, at + d, x[d], r[d], fabs(x[d]));
        }
    free(x);
}

/* The values that must be found at slots[t]. */
void ref_kv_write(const struct call *call, const struct contract *contract, const double *const *radius,
                  int64_t row0, int64_t row1, const struct ref_out *out) {
    (void)contract;
    const struct kv_write_args *a = &call->u.kv_write;
    copy_heads(&a->k, radius, 0, a->n_kv_heads, a->head_dim, row0, row1, &out[0]);
    copy_heads(&a->v, radius, 1, a->n_kv_heads, a->head_dim, row0, row1, &out[1]);
}

/* Heads of q, k and v out of a fused row. */
void ref_split(const struct call *call, const struct contract *contract, const double *const *radius,
               int64_t row0, int64_t row1, const struct ref_out *out) {
    (void)contract;
    const struct split_args *a = &call->u.split;
    const int64_t heads[3] = {a->n_heads, a->n_kv_heads, a->n_kv_heads};
    for (int i = 0; i < 3; i++) {
        struct view part = a->in;
        const int64_t skip = a->first[i];
        if (part.data) part.data = (char *)part.data + skip * (int64_t)dtype_bytes(part.dtype);
        part.lo -= skip, part.hi -= skip;
        part.stride[1] = a->head_dim;
        const double *const moved[1] = {has_radius(radius, 0) ? radius[0] + skip : NULL};
        copy_heads(&part, moved, 0, heads[i], a->head_dim, row0, row1, &out[i]);
    }
}
