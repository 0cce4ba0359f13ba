/* A softmax router's sum by a tree: is a declared depth sound, and does it say more? */
/* SPDX-License-Identifier: MIT */
#include "reference/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

enum { EXPERTS = 128, WARP = 32, DEPTH = EXPERTS / WARP + 5 };

/* exp(x - top) / sum, a lane's experts first, then the butterfly of a warp. */
static float gate_of(const float *x, int expert) {
    float top = -INFINITY, lane[WARP] = {0};
    for (int i = 0; i < EXPERTS; i++) top = fmaxf(top, x[i]);
    for (int i = 0; i < EXPERTS; i++) lane[i % WARP] += expf(x[i] - top);
    for (int step = WARP / 2; step; step /= 2)
        for (int l = 0; l < step; l++) lane[l] += lane[l + step];
    return expf(x[expert] - top) / lane[0];
}

Test(route_depth, a_tree_of_additions_stays_inside_its_depth_and_smaller_mistakes_do_not) {
    float x[EXPERTS];
    int32_t id[1];
    double y, e, chain;
    int noticed = 0, before = 0;
    srand48(2);
    for (int trial = 0; trial < 1000; trial++) {
        for (int i = 0; i < EXPERTS; i++) x[i] = (float)(drand48() * 2 - 1);
        id[0] = trial % EXPERTS;
        struct call call = {.op = OP_ROUTE};
        call.u.route = (struct route_args){.logits = {x, DTYPE_F32, {EXPERTS, 0, 0}, 0, EXPERTS},
                                           .ids = {id, DTYPE_I32, {1, 0, 0}, 0, 1},
                                           .n_tokens = 1,
                                           .n_experts = EXPERTS,
                                           .top_k = 1,
                                           .n_group = 1,
                                           .topk_group = 1,
                                           .score = SCORE_SOFTMAX,
                                           .routed_scale = 1};
        struct contract c = contract_exact(OP_ROUTE);
        ref_compute(&call, &c, NULL, 0, 1, (struct ref_out[MAX_REF_OUT]){{NULL, &chain, NULL}});
        c.u.route.depth = DEPTH;
        ref_compute(&call, &c, NULL, 0, 1, (struct ref_out[MAX_REF_OUT]){{&y, &e, NULL}});
        const double got = (double)gate_of(x, id[0]), off = got * (1 + 4e-6);
        cr_assert_eq(element_judge(DTYPE_F32, got, y, e).kind, ELEMENT_OK);
        noticed += element_judge(DTYPE_F32, dtype_round(DTYPE_F32, off), y, e).kind == ELEMENT_OUTSIDE;
        before += element_judge(DTYPE_F32, dtype_round(DTYPE_F32, off), y, chain).kind == ELEMENT_OUTSIDE;
    }
    cr_expect_eq(before, 0);
    cr_expect_eq(noticed, 1000, "%d", noticed);
}
