/* rope - rotary position embedding of q and k from a given table, and the copy of k and v into the cache.
 * Su et al. 2021, eq. 34: over each pair (a, b) with angle position * theta^(-2i/rot), a' = a c - b s and
 * b' = b c + a s. Two products and a sum: E = 3 u (|a c| + |b s|), plus what an inexact table adds. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>

void ref_rope_table(float *table, int64_t n_positions, int64_t rot_dim, double theta) {
    const int64_t half = rot_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const double frequency = pow(theta, -2.0 * (double)i / (double)rot_dim);
        for (int64_t p = 0; p < n_positions; p++) {
            table[p * rot_dim + i] = (float)cos((double)p * frequency);
            table[p * rot_dim + half + i] = (float)sin((double)p * frequency);
        }
    }
}

struct rotation {
    const struct rope_args *args;
    const struct rope_contract *contract;
    const double *cosine, *sine; /* [rot_dim / 2] of the token's position */
};

/* a' = a c - b s; b' is the same with (b, -a). */
static void put_rotated(const struct rotation *r, const struct ref_out *out, int64_t at, double a, double b,
                        int64_t i) {
    const double p = a * r->cosine[i], q = b * r->sine[i], unit = r->contract->unit;
    const double size = fabs(p) + fabs(q);
    const double tiny = size > 0 ? 3 * underflow_unit(unit) : 0;
    put(out, at, p - q, 3 * (unit + UNIT_F64) * size + r->contract->table_error * (fabs(a) + fabs(b)) + tiny,
        size);
}

static void rotate_head(const struct rotation *r, const double *x, const struct ref_out *out, int64_t at) {
    const int64_t half = r->args->rot_dim / 2;
    const bool neox = r->args->pairing == ROPE_NEOX;
    for (int64_t i = 0; i < half; i++) {
        const int64_t a = neox ? i : 2 * i, b = neox ? i + half : 2 * i + 1;
        put_rotated(r, out, at + a, x[a], x[b], i);
        put_rotated(r, out, at + b, x[b], -x[a], i);
    }
    for (int64_t d = r->args->rot_dim; d < r->args->head_dim; d++) put(out, at + d, x[d], 0, fabs(x[d]));
}

static void rotate_heads(const struct rotation *r, const struct view *in, int64_t n_heads, int64_t token,
                         double *x, const struct ref_out *out, int64_t at) {
    for (int64_t h = 0; h < n_heads; h++) {
        view_row(x, in, token * in->stride[0] + h * in->stride[1], r->args->head_dim);
        rotate_head(r, x, out, at + h * r->args->head_dim);
    }
}

void ref_rope(const struct call *call, const struct contract *contract, int64_t row0, int64_t row1,
              const struct ref_out *out) {
    const struct rope_args *a = &call->u.rope;
    double *angles = ref_alloc((size_t)a->rot_dim * sizeof *angles);
    double *x = ref_alloc((size_t)a->head_dim * sizeof *x);
    const struct rotation r = {a, &contract->u.rope, angles, angles + a->rot_dim / 2};
    for (int64_t t = row0; t < row1; t++) {
        const int64_t position = view_index(&a->positions, t);
        if (position >= 0)
            view_row(angles, &a->table, position * a->table.stride[0], a->rot_dim);
        else
            for (int64_t i = 0; i < a->rot_dim; i++) angles[i] = (double)NAN;
        rotate_heads(&r, &a->q, a->n_heads, t, x, &out[0], (t - row0) * a->n_heads * a->head_dim);
        rotate_heads(&r, &a->k, a->n_kv_heads, t, x, &out[1], (t - row0) * a->n_kv_heads * a->head_dim);
    }
    free(angles), free(x);
}

/* Copies: the values that must be found at slots[t]. */
void ref_kv_write(const struct call *call, const struct contract *contract, int64_t row0, int64_t row1,
                  const struct ref_out *out) {
    (void)contract;
    const struct kv_write_args *a = &call->u.kv_write;
    const struct view *in[] = {&a->k, &a->v};
    double *x = ref_alloc((size_t)a->head_dim * sizeof *x);
    for (int o = 0; o < 2; o++)
        for (int64_t t = row0; t < row1; t++)
            for (int64_t g = 0; g < a->n_kv_heads; g++) {
                view_row(x, in[o], t * in[o]->stride[0] + g * in[o]->stride[1], a->head_dim);
                for (int64_t d = 0; d < a->head_dim; d++)
                    put(&out[o], ((t - row0) * a->n_kv_heads + g) * a->head_dim + d, x[d], 0, fabs(x[d]));
            }
    free(x);
}
