/* route_case - the routing of one token to 2 of 8 experts, whose logits, bias and choice a test sets. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_ROUTE_CASE_H
#define TESTS_ROUTE_CASE_H

#include "tests/small_call.h"

enum { E = 8, TOP = 2 };

static double logits[E], bias[E];
static int32_t ids[TOP];

static inline struct call route_case(enum score_function score) {
    struct call c = {.op = OP_ROUTE};
    c.u.route = (struct route_args){.logits = F64(logits, E, 0),
                                    .bias = F64(bias, 1, 0),
                                    .ids = I32(ids, TOP),
                                    .n_tokens = 1,
                                    .n_experts = E,
                                    .top_k = TOP,
                                    .n_group = 1,
                                    .topk_group = 1,
                                    .score = score,
                                    .routed_scale = 1};
    c.u.route.logits.dtype = DTYPE_F64;
    return c;
}

static inline enum route_verdict judge(const struct call *call) {
    const struct contract c = contract_exact(OP_ROUTE);
    double lo[E], hi[E];
    ref_route_choices(call, &c, NULL, 0, 1, lo, hi);
    return ref_route_judge(&call->u.route, &c.u.route, lo, hi, ids);
}

#endif
