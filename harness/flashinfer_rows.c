/* Functions of rows: rmsnorm, silu_and_mul. fp32 inside, one rounding (docs/numerics.md). */
/* SPDX-License-Identifier: MIT */
#include "harness/flashinfer_call.h"

/* Rows are all dimensions but the last. */
static bool rows_of(struct flash_call *f, const struct named_tensor *t, int64_t *rows, int64_t *width) {
    if (t->n_dims < 1 || t->count == 0) return flash_refuse(f, "%s has no elements", t->name);
    *width = t->dim[t->n_dims - 1];
    *rows = t->count / *width;
    return true;
}

bool flash_norm(struct flash_call *f) {
    static const struct flash_rule rules[] = {{"input", NULL}, {"weight", NULL},     {"eps", NULL},
                                              {"out", NULL},   {"enable_pdl", NULL}, {0}};
    const struct named_tensor *const x = flash_tensor(f, f->logged, "input", -1), *const w =
                                                                                      x ? flash_tensor(
                                                                                              f, f->logged,
                                                                                              "weight", 1)
                                                                                        : NULL;
    const struct call_value eps = call_argument(f->logged, "eps");
    int64_t rows = 0, width = 0;
    if (!w || !flash_follows(f, f->logged, rules) || !rows_of(f, x, &rows, &width) ||
        !flash_dtype(f, x, &f->dtype))
        return false;
    if (w->count != width)
        return flash_refuse(f, "weight has %lld elements, rows have %lld", (long long)w->count,
                            (long long)width);
    if (eps.kind != VALUE_NUMBER) return flash_refuse(f, "argument eps is no number");
    double *const numbers = flash_numbers(f, f->logged, x), *const weight = flash_numbers(f, f->logged, w);
    if (!numbers || !weight) return false;
    f->call.op = OP_NORM;
    f->call.u.norm = (struct norm_args){.x = flash_view(numbers, x->count, width, 0, 0),
                                        .w = flash_view(weight, width, 0, 0, 0),
                                        .n_tokens = rows,
                                        .width = width,
                                        .eps = eps.number};
    f->contract[f->n_contracts++] = contract_exact(OP_NORM);
    f->stage = S_ATTN_NORM;
    f->id = T_NORMED;
    f->spec.hidden = width;
    f->batch.n_tokens = rows;
    return true;
}

bool flash_silu(struct flash_call *f) {
    static const struct flash_rule rules[] = {{"input", NULL}, {"out", NULL}, {"enable_pdl", NULL}, {0}};
    const struct named_tensor *const x = flash_tensor(f, f->logged, "input", -1);
    int64_t rows = 0, width = 0;
    if (!x || !flash_follows(f, f->logged, rules) || !rows_of(f, x, &rows, &width) ||
        !flash_dtype(f, x, &f->dtype))
        return false;
    if (width % 2)
        return flash_refuse(f, "rows of input have %lld elements, no gate and up", (long long)width);
    double *const numbers = flash_numbers(f, f->logged, x);
    if (!numbers) return false;
    f->call.op = OP_ACTIVATION;
    f->call.u.activation = (struct activation_args){
        .gate_up = flash_view(numbers, x->count, width, width / 2, 0), .n_rows = rows, .width = width / 2};
    f->contract[f->n_contracts++] = contract_exact(OP_ACTIVATION);
    f->stage = S_SHARED_ACTIVATION;
    f->id = T_SHARED_ACT;
    f->spec.shared_width = width / 2;
    f->batch.n_tokens = rows;
    return true;
}
