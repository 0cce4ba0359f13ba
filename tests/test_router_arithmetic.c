/* Is the routing of honest arithmetic inside, whatever it rounds and loses, and other arithmetic outside? */
/* SPDX-License-Identifier: MIT */
#include "kernels/kernels.h"
#include "tests/route_case.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

/* fp32 routing, computed in another order, is never rejected and its gates are inside. */
Test(router, honest_float_routing_is_accepted) {
    srand48(5);
    for (int trial = 0; trial < 2000; trial++) {
        struct call c = route_case(trial % 2 ? SCORE_SIGMOID : SCORE_SOFTMAX);
        c.u.route.renormalise = true;
        float s[E], choice[E], sum = 0, chosen = 0;
        for (int i = 0; i < E; i++) {
            logits[i] = (double)(float)(drand48() * 8 - 4), bias[i] = (double)(float)(drand48() * 0.1);
            s[i] = expf((float)logits[i] - (trial % 2 ? 0.0f : 4.0f));
        }
        for (int i = E - 1; i >= 0; i--) sum += s[i];
        for (int i = 0; i < E; i++) s[i] = trial % 2 ? 1 / (1 + expf(-(float)logits[i])) : s[i] / sum;
        for (int i = 0; i < E; i++) choice[i] = s[i] + (float)bias[i];
        for (int j = 0; j < TOP; j++) {
            ids[j] = j ? !ids[0] : 0;
            for (int i = 0; i < E; i++)
                if (choice[i] > choice[ids[j]] && !(j && i == ids[0])) ids[j] = i;
        }
        chosen = s[ids[0]] + s[ids[1]];
        cr_assert_neq(judge(&c), ROUTE_REJECTED);
        run(&c);
        for (int j = 0; j < TOP; j++)
            cr_assert_eq(element_judge(DTYPE_F32, (double)(s[ids[j]] / chosen), y[j], e[j]).kind, ELEMENT_OK);
    }
}

/* ---- roundings that a contract declares ---- */

/* The best two, score and bias added in fp32. */
static void float_choice(const float s[E]) {
    for (int j = 0; j < TOP; j++) {
        int best = -1;
        for (int i = 0; i < E; i++) {
            const bool taken = j && i == ids[0];
            if (!taken && (best < 0 || s[i] + (float)bias[i] > s[best] + (float)bias[best])) best = i;
        }
        ids[j] = best;
    }
}

static enum route_verdict judge_by(const struct call *call, const struct contract *c) {
    double lo[E], hi[E];
    ref_route_choices(call, c, NULL, 0, 1, lo, hi);
    return ref_route_judge(&call->u.route, &c->u.route, lo, hi, ids);
}

static void run_by(const struct call *call, const struct contract *c) {
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    ref_compute(call, c, NULL, 0, 1, out);
}

static float bf16(float x) { return (float)dtype_round(DTYPE_BF16, (double)x); }

/* Every step in bf16, as tensor code does it whose logits are bf16: computed in fp32, rounded. */
static void bf16_routing(const struct route_args *a, float gates[TOP]) {
    float s[E], choice[E], top = -INFINITY, sum = 0, group[E / 2];
    for (int i = 0; i < E; i++) top = fmaxf(top, bf16((float)logits[i]));
    for (int i = 0; i < E; i++) sum += s[i] = expf(bf16((float)logits[i]) - top);
    for (int i = 0; i < E; i++)
        s[i] = bf16(a->score == SCORE_SOFTMAX ? s[i] / sum : 1 / (1 + expf(-bf16((float)logits[i]))));
    for (int i = 0; i < E; i++) choice[i] = bf16(s[i] + bf16((float)bias[i]));
    for (int g = 0; g < E / 2; g++) group[g] = bf16(choice[2 * g] + choice[2 * g + 1]);
    for (int g = 0; g < E / 2 && a->n_group > 1; g++) {
        int ahead = 0;
        for (int o = 0; o < E / 2; o++) ahead += group[o] > group[g] || (group[o] == group[g] && o < g);
        if (ahead >= a->topk_group) choice[2 * g] = choice[2 * g + 1] = -INFINITY;
    }
    for (int j = 0; j < TOP; j++) {
        ids[j] = -1;
        for (int i = 0; i < E; i++)
            if (!(j && i == ids[0]) && (ids[j] < 0 || choice[i] > choice[ids[j]])) ids[j] = i;
    }
    sum = bf16(s[ids[0]] + s[ids[1]]);
    for (int j = 0; j < TOP; j++) gates[j] = bf16(bf16(s[ids[j]] / sum) * 2.5f);
}

Test(router, routing_in_bf16_is_inside_when_declared_and_outside_when_not) {
    struct contract declared = contract_exact(OP_ROUTE);
    declared.u.route.logits = declared.u.route.scores = declared.u.route.choices = DTYPE_BF16;
    declared.u.route.gate_unit = UNIT_BF16;
    int rejected = 0, outside = 0, noticed = 0;
    srand48(31);
    for (int trial = 0; trial < 4000; trial++) {
        struct call c = route_case(trial % 2 ? SCORE_SIGMOID : SCORE_SOFTMAX);
        float gates[TOP];
        c.u.route.renormalise = true, c.u.route.routed_scale = 2.5;
        c.u.route.n_group = trial % 4 < 2 ? 1 : 4, c.u.route.topk_group = 2;
        for (int i = 0; i < E; i++)
            logits[i] = (double)(float)(drand48() * 8 - 4), bias[i] = (double)(float)(drand48() * 0.1);
        bf16_routing(&c.u.route, gates);
        cr_assert_neq(judge_by(&c, &declared), ROUTE_REJECTED, "trial %d", trial);
        rejected += judge(&c) == ROUTE_REJECTED;
        run_by(&c, &declared);
        for (int j = 0; j < TOP; j++) {
            cr_assert_eq(element_judge(DTYPE_F32, (double)gates[j], y[j], e[j]).kind, ELEMENT_OK,
                         "trial %d: got %g, y %g, e %g", trial, (double)gates[j], y[j], e[j]);
            noticed += element_judge(DTYPE_F32, 1.1 * (double)gates[j], y[j], e[j]).kind == ELEMENT_OUTSIDE;
        }
        run(&c);
        for (int j = 0; j < TOP; j++)
            outside += element_judge(DTYPE_F32, (double)gates[j], y[j], e[j]).kind == ELEMENT_OUTSIDE;
        ids[1] = 0; /* the least of all */
        for (int i = 1; i < E; i++)
            if (logits[i] + bias[i] < logits[ids[1]] + bias[ids[1]]) ids[1] = i;
        cr_assert_eq(judge_by(&c, &declared), ROUTE_REJECTED, "trial %d: expert %d", trial, ids[1]);
    }
    cr_assert(rejected > 20 && outside > 7000, "%d sets, %d gates outside of the plain contract", rejected,
              outside);
    cr_assert_gt(noticed, 6000, "%d gates off by a tenth noticed", noticed);
}

/* torch.logsumexp of bf16: every step stored in bf16. */
static float logsumexp_gate(int id) {
    float top = -INFINITY, sum = 0;
    for (int i = 0; i < E; i++) top = fmaxf(top, (float)logits[i]);
    for (int i = 0; i < E; i++) sum += bf16(expf(bf16((float)logits[i] - top)));
    return bf16(expf(bf16((float)logits[id] - bf16(bf16(logf(bf16(sum))) + top))));
}

Test(router, gates_by_a_rounded_logsumexp_are_inside_when_declared_and_outside_when_not) {
    struct contract declared = contract_exact(OP_ROUTE);
    declared.u.route.logits = declared.u.route.logsumexp = DTYPE_BF16;
    int outside = 0, noticed = 0;
    srand48(33);
    for (int trial = 0; trial < 4000; trial++) {
        struct call c = route_case(SCORE_SOFTMAX);
        c.u.route.bias.data = NULL;
        for (int i = 0; i < E; i++) logits[i] = dtype_round(DTYPE_BF16, drand48() * 8 - 4);
        ref_route_ids(&c, 0, 1, ids);
        cr_assert_neq(judge_by(&c, &declared), ROUTE_REJECTED, "trial %d", trial);
        run_by(&c, &declared);
        for (int j = 0; j < TOP; j++) {
            const double gate = (double)logsumexp_gate(ids[j]);
            cr_assert_eq(element_judge(DTYPE_BF16, gate, y[j], e[j]).kind, ELEMENT_OK,
                         "trial %d: got %g, y %g, e %g", trial, gate, y[j], e[j]);
            noticed += element_judge(DTYPE_BF16, dtype_round(DTYPE_BF16, 1.02 * gate), y[j], e[j]).kind ==
                       ELEMENT_OUTSIDE;
        }
        run(&c);
        for (int j = 0; j < TOP; j++)
            outside +=
                element_judge(DTYPE_BF16, (double)logsumexp_gate(ids[j]), y[j], e[j]).kind == ELEMENT_OUTSIDE;
    }
    cr_assert(outside > 2000, "%d gates outside of the plain contract", outside);
    cr_assert_gt(noticed, 7000, "%d gates off by a fiftieth noticed", noticed);
}

Test(router, a_sigmoid_by_tanh_is_inside_when_declared_and_outside_when_not) {
    struct contract declared = contract_exact(OP_ROUTE);
    declared.u.route.tanh_error = 0x1p-22;
    int outside = 0;
    srand48(32);
    for (int trial = 0; trial < 4000; trial++) {
        struct call c = route_case(SCORE_SIGMOID);
        float s[E];
        c.u.route.renormalise = true;
        for (int i = 0; i < E; i++) {
            logits[i] = (double)(float)(drand48() * 12 - 14), bias[i] = 0;
            s[i] = 0.5f * tanhf(0.5f * (float)logits[i]) + 0.5f;
        }
        float_choice(s);
        cr_assert_neq(judge_by(&c, &declared), ROUTE_REJECTED, "trial %d", trial);
        run_by(&c, &declared);
        double wide_y[TOP] = {y[0], y[1]}, wide_e[TOP] = {e[0], e[1]};
        run(&c);
        for (int j = 0; j < TOP; j++) {
            const double got = (double)(s[ids[j]] / (s[ids[0]] + s[ids[1]]));
            cr_assert_eq(element_judge(DTYPE_F32, got, wide_y[j], wide_e[j]).kind, ELEMENT_OK,
                         "trial %d: got %g, y %g, e %g", trial, got, wide_y[j], wide_e[j]);
            outside += element_judge(DTYPE_F32, got, y[j], e[j]).kind == ELEMENT_OUTSIDE;
        }
    }
    cr_assert_gt(outside, 100, "%d gates", outside);
}

/* ---- our own kernel ---- */

Test(router, our_own_kernel_fills_rejected_groups_as_it_is_told) {
    static float stored[E], added[E], gates[TOP];
    struct call c = route_case(SCORE_SIGMOID);
    int others = 0;
    srand48(45);
    c.u.route.logits = (struct view){stored, DTYPE_F32, {E}, 0, E};
    c.u.route.bias = (struct view){added, DTYPE_F32, {1}, 0, E};
    c.u.route.gates = (struct view){gates, DTYPE_F32, {TOP}, 0, TOP};
    c.u.route.n_group = 4, c.u.route.topk_group = 1;
    for (int trial = 0; trial < 400; trial++) {
        c.u.route.group_fill = trial % 2 ? GROUP_FILL_ZERO : GROUP_FILL_INF;
        for (int i = 0; i < E; i++) stored[i] = (float)(drand48() * 4 - 2), added[i] = (float)(drand48() - 1);
        cr_assert_null(kernel_by_name("route_simt")->launch[DEVICE_HOST](&c, NULL, NULL));
        cr_assert_neq(judge(&c), ROUTE_REJECTED, "trial %d: %d, %d", trial, ids[0], ids[1]);
        run(&c);
        for (int j = 0; j < TOP; j++)
            cr_assert_eq(element_judge(DTYPE_F32, (double)gates[j], y[j], e[j]).kind, ELEMENT_OK);
        c.u.route.group_fill = trial % 2 ? GROUP_FILL_INF : GROUP_FILL_ZERO;
        others += judge(&c) == ROUTE_REJECTED;
    }
    cr_assert(others > 100 && others < 400, "%d sets are wrong under the other fill", others);
}

/* ---- scores that saturate or vanish ---- */

static void float_scores(float s[E], enum score_function score, enum underflow how) {
    float top = -INFINITY, sum = 0;
    for (int i = 0; i < E; i++) top = fmaxf(top, (float)logits[i]);
    for (int i = 0; i < E; i++) {
        const float x = (float)logits[i];
        sum += s[i] = settle(expf(x - top), how);
        if (score == SCORE_SIGMOID) s[i] = quotient(1, 1 + settle(expf(-x), how), how);
    }
    for (int i = 0; i < E && score == SCORE_SOFTMAX; i++) s[i] = quotient(s[i], sum, how);
}

Test(router, honest_scores_that_underflow_are_accepted_and_wrong_ones_are_not) {
    int rejected = 0, noticed = 0, trials = 0;
    srand48(6);
    for (int trial = 0; trial < 6000; trial++) {
        struct call c = route_case(trial % 2 ? SCORE_SIGMOID : SCORE_SOFTMAX);
        const enum underflow how = trial / 2 % UNDERFLOWS;
        const double sd = 20 * (1 + trial % 5);
        float s[E];
        c.u.route.renormalise = trial % 7 < 4;
        if (trial % 4 < 2) c.u.route.bias = (struct view){0};
        for (int i = 0; i < E; i++) {
            logits[i] = (double)(float)(sd * 1.7 * (drand48() + drand48() - 1) * 1.4);
            bias[i] = trial % 4 < 2 ? 0 : (double)(float)(drand48() * 0.1);
        }
        float_scores(s, c.u.route.score, how);
        float_choice(s);
        cr_assert_neq(judge(&c), ROUTE_REJECTED, "trial %d: %d, %d", trial, ids[0], ids[1]);
        run(&c);
        const float sum = settle(s[ids[0]] + s[ids[1]], how);
        for (int j = 0; j < TOP; j++) {
            const float gate = c.u.route.renormalise ? quotient(s[ids[j]], sum, how) : s[ids[j]];
            if (isnan(gate)) continue; /* 0 / 0: nothing is legal */
            cr_assert_eq(element_judge(DTYPE_F32, (double)gate, y[j], e[j]).kind, ELEMENT_OK,
                         "trial %d: got %g, y %g, e %g", trial, (double)gate, y[j], e[j]);
            if (y[j] < 1e-3) continue;
            const double wrong = y[j] * (1 + 1e-4);
            noticed += element_judge(DTYPE_F32, wrong, y[j], e[j]).kind == ELEMENT_OUTSIDE;
            trials++;
        }
        const float second = s[ids[1]] + (float)bias[ids[1]];
        for (int i = 0; i < E; i++) { /* an expert that clearly loses */
            if (!(s[i] + (float)bias[i] < 0.9f * second - 0x1p-120f)) continue;
            ids[1] = i;
            cr_assert_eq(judge(&c), ROUTE_REJECTED, "trial %d: expert %d", trial, i);
            rejected++;
            break;
        }
    }
    cr_assert_gt(rejected, 3000);
    cr_assert(trials > 3000 && noticed == trials, "%d of %d gates off by 1e-4 were noticed", noticed, trials);
}

Test(router, our_own_kernel_routes_logits_of_180) {
    static float stored[E], gates[TOP];
    struct call c = route_case(SCORE_SOFTMAX);
    srand48(9);
    c.u.route.logits = (struct view){stored, DTYPE_F32, {E}, 0, E};
    c.u.route.bias = (struct view){0};
    c.u.route.gates = (struct view){gates, DTYPE_F32, {TOP}, 0, TOP};
    for (int trial = 0; trial < 200; trial++) {
        c.u.route.renormalise = trial % 2;
        for (int i = 0; i < E; i++) stored[i] = (float)(drand48() * 360 - 180);
        cr_assert_null(kernel_by_name("route_simt")->launch[DEVICE_HOST](&c, NULL, NULL));
        cr_assert_neq(judge(&c), ROUTE_REJECTED, "trial %d: %d, %d", trial, ids[0], ids[1]);
        run(&c);
        for (int j = 0; j < TOP; j++)
            cr_assert_eq(element_judge(DTYPE_F32, (double)gates[j], y[j], e[j]).kind, ELEMENT_OK,
                         "trial %d: got %g, y %g, e %g", trial, (double)gates[j], y[j], e[j]);
    }
}
