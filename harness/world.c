/* SPDX-License-Identifier: MIT */
#include "harness/world.h"

static void sim_sum(const struct sum_args *a) {
    for (int64_t t = 0; t < a->n_tokens; t++)
        for (int64_t c = 0; c < a->width; c++) {
            float sum = 0;
            for (int64_t p = 0; p < a->n_parts; p++) {
                const struct view *const v = &a->part[p];
                sum += (float)dtype_load(v->data, v->dtype, t * v->stride[0] + c);
            }
            dtype_store(a->out.data, a->out.dtype, t * a->out.stride[0] + c, (double)sum);
        }
}

static struct contract sim_contract(const struct sum_args *a) {
    (void)a;
    return (struct contract){.op = OP_SUM, .u.sum = {.unit = UNIT_F32}};
}

const struct world world_sim = {.name = "sim", .sum = sim_sum, .contract = sim_contract};
