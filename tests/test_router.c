/* Routing and experts: scores, sets and gates worked out by hand, honest fp32 arithmetic that must
 * stay inside, and the order of the permuted rows. */
/* SPDX-License-Identifier: MIT */
#include "kernels/kernels.h"
#include "reference/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define F64(a, s0, s1) ((struct view){a, DTYPE_F64, {s0, s1}, 0, sizeof(a) / sizeof(double)})
#define I32(a, s0) ((struct view){a, DTYPE_I32, {s0}, 0, sizeof(a) / sizeof(int32_t)})
#define CLOSE(a, b) cr_assert_float_eq(a, b, 1e-12, "%.17g is not %.17g", a, b)
enum { E = 8, TOP = 2 };

static double logits[E], bias[E], y[64], e[64];
static int32_t ids[TOP];

static struct call route_case(enum score_function score) {
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

static void run(const struct call *call) {
    const struct contract c = contract_exact(call->op);
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    ref_compute(call, &c, NULL, 0, ref_n_rows(call), out);
}

static enum route_verdict judge(const struct call *call) {
    const struct contract c = contract_exact(OP_ROUTE);
    double lo[E], hi[E];
    ref_route_choices(call, &c, NULL, 0, 1, lo, hi);
    return ref_route_judge(&call->u.route, &c.u.route, lo, hi, ids);
}

static void pick(int32_t a, int32_t b) { ids[0] = a, ids[1] = b; }

Test(router, bias_selects_but_does_not_weigh) {
    struct call c = route_case(SCORE_SIGMOID);
    logits[1] = 2, logits[4] = 1, bias[6] = 1;
    ref_route_ids(&c, 0, 1, ids);
    cr_assert(ids[0] == 6 && ids[1] == 1);
    cr_assert_eq(judge(&c), ROUTE_CERTAIN);
    run(&c);
    CLOSE(y[0], 0.5);
    CLOSE(y[1], 1 / (1 + exp(-2)));
    c.u.route.renormalise = true, c.u.route.routed_scale = 2.5, c.u.route.renorm_eps = 0.25;
    run(&c);
    CLOSE(y[0], 2.5 * 0.5 / (0.5 + 1 / (1 + exp(-2)) + 0.25));
    cr_assert(e[0] > 0 && e[0] < 3e-6);
}

Test(router, softmax_gates) {
    struct call c = route_case(SCORE_SOFTMAX);
    c.u.route.bias = (struct view){0};
    logits[3] = log(9), logits[5] = log(3);
    ref_route_ids(&c, 0, 1, ids);
    cr_assert(ids[0] == 3 && ids[1] == 5);
    run(&c);
    CLOSE(y[0], 9.0 / 18);
    c.u.route.renormalise = true;
    run(&c);
    CLOSE(y[1], 0.25);
}

Test(router, ties_go_to_the_lower_index_and_any_tied_set_is_legal) {
    const struct call c = route_case(SCORE_SIGMOID);
    logits[2] = 3;
    ref_route_ids(&c, 0, 1, ids);
    cr_assert(ids[0] == 2 && ids[1] == 0);
    cr_assert_eq(judge(&c), ROUTE_AMBIGUOUS);
    pick(7, 2);
    cr_assert_eq(judge(&c), ROUTE_AMBIGUOUS);
    pick(0, 1);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
}

Test(router, wrong_repeated_and_unknown_ids_are_rejected) {
    const struct call c = route_case(SCORE_SIGMOID);
    for (int i = 0; i < E; i++) logits[i] = -i * 1e-3;
    pick(1, 0);
    cr_assert_eq(judge(&c), ROUTE_CERTAIN);
    pick(0, 2);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
    pick(0, 0);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
    pick(0, E);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
    run(&c);
    cr_assert(isnan(y[1]) && isnan(e[1]) && !isnan(y[0]));
    pick(0, INT32_MIN);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
    logits[5] = NAN, pick(0, 1);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
}

Test(router, group_limits_reject_the_best_expert_of_a_losing_group) {
    struct call c = route_case(SCORE_SIGMOID);
    c.u.route.n_group = 4, c.u.route.topk_group = 1;
    logits[1] = 4, logits[0] = -9; /* group 0: one strong expert; group 2: two fair ones */
    logits[4] = 1, logits[5] = 1.5;
    ref_route_ids(&c, 0, 1, ids);
    cr_assert(ids[0] == 5 && ids[1] == 4);
    cr_assert_eq(judge(&c), ROUTE_CERTAIN);
    pick(1, 5);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
    c.u.route.group_score = GROUP_MAX;
    ref_route_ids(&c, 0, 1, ids);
    cr_assert(ids[0] == 1 && ids[1] == 0);
    logits[1] = 1.5; /* groups 0 and 2 tie: both sets are legal, the lower group is the exact answer */
    ref_route_ids(&c, 0, 1, ids);
    cr_assert(ids[0] == 1 && ids[1] == 0);
    cr_assert_eq(judge(&c), ROUTE_AMBIGUOUS);
    pick(5, 4);
    cr_assert_eq(judge(&c), ROUTE_AMBIGUOUS);
}

/* Four groups of two, two of them kept: the set must come from two groups that may be those. */
Test(router, a_set_from_more_groups_than_are_kept_is_rejected_whatever_is_ambiguous) {
    static double choices[] = {0.9, 0.1, 0.5, 0.5, 0.5, 0.5, 0.8, 0.2}; /* group sums 1, 1, 1, 1: all tie */
    struct call c = {.op = OP_ROUTE};
    const struct contract contract = contract_exact(OP_ROUTE);
    const struct route_args *const a = &c.u.route;
    double lo[E], hi[E];
    c.u.route = (struct route_args){.n_experts = E, .top_k = 3, .n_group = 4, .topk_group = 2};
    const struct {
        int32_t ids[3];
        enum route_verdict verdict;
    } sets[] = {
        {{0, 6, 2}, ROUTE_REJECTED},  /* of three groups, the best of each */
        {{0, 2, 4}, ROUTE_REJECTED},  /* of three groups */
        {{0, 6, 7}, ROUTE_AMBIGUOUS}, /* groups 0 and 3 */
        {{2, 3, 4}, ROUTE_AMBIGUOUS}, /* 1 and 2, three of four that tie */
        {{0, 2, 3}, ROUTE_AMBIGUOUS}, /* 0 and 1 */
        {{0, 1, 2}, ROUTE_REJECTED},  /* 0 and 1, but 3 beats 1 */
        {{6, 7, 1}, ROUTE_REJECTED},  /* 0 and 3, but 0 beats 1 */
    };
    for (int i = 0; i < E; i++) lo[i] = choices[i] - 1e-9, hi[i] = choices[i] + 1e-9;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        cr_expect_eq(ref_route_judge(a, &contract.u.route, lo, hi, sets[i].ids), sets[i].verdict, "set %zu",
                     i);
    hi[0] = 1.5, lo[0] = 1.4; /* group 0 is kept for certain: the rest of the set is of one more */
    const int32_t without[] = {2, 3, 4}, with[] = {0, 4, 5};
    cr_expect_eq(ref_route_judge(a, &contract.u.route, lo, hi, without), ROUTE_REJECTED);
    cr_expect_eq(ref_route_judge(a, &contract.u.route, lo, hi, with), ROUTE_AMBIGUOUS);
    for (int i = 4; i < 6; i++) hi[i] = lo[i] += 0.1; /* and so is group 2 */
    cr_expect_eq(ref_route_judge(a, &contract.u.route, lo, hi, with), ROUTE_CERTAIN);
}

/* Every set, against all corners of small intervals: a set is legal iff some assignment of values
 * selects it. Intervals are wide, so that the two levels are tied together by few of them. */
Test(router, honest_choices_under_group_limits_are_never_rejected_and_others_mostly_are) {
    static const double steps[] = {0, 0.25, 0.5, 0.75, 1};
    int found = 0, rejected = 0, all = 0;
    srand48(21);
    for (int trial = 0; trial < 300; trial++) {
        struct call c = route_case(SCORE_SIGMOID);
        const struct contract contract = contract_exact(OP_ROUTE);
        const struct route_args *const a = &c.u.route;
        bool selected[E][E] = {{false}};
        double lo[E], hi[E], choice[E];
        c.u.route.n_group = trial % 2 ? 4 : 2, c.u.route.topk_group = 1 + trial % 3 % (trial % 2 ? 3 : 1);
        c.u.route.group_score = trial % 5 ? GROUP_TOP2_SUM : GROUP_MAX;
        for (int i = 0; i < E; i++) lo[i] = drand48(), hi[i] = lo[i] + (i % 3 ? 0.02 : 0.1);
        for (int sample = 0; sample < 400; sample++) { /* what a kernel may have computed */
            for (int i = 0; i < E; i++) choice[i] = lo[i] + (hi[i] - lo[i]) * steps[lrand48() % 5];
            for (int i = 0; i < E; i++) logits[i] = log(choice[i] / (2 - choice[i])), bias[i] = 0;
            c.u.route.bias = (struct view){0};
            ref_route_ids(&c, 0, 1, ids); /* sigmoids of these logits are half the choices */
            selected[ids[0]][ids[1]] = selected[ids[1]][ids[0]] = true;
            cr_assert_neq(ref_route_judge(a, &contract.u.route, lo, hi, ids), ROUTE_REJECTED, "trial %d",
                          trial);
        }
        for (int i = 0; i < E; i++)
            for (int k = 0; k < i; k++) {
                pick(i, k);
                found += selected[i][k], all++;
                rejected += ref_route_judge(a, &contract.u.route, lo, hi, ids) == ROUTE_REJECTED;
            }
    }
    cr_assert(rejected <= all - found && rejected > 0.97 * (all - found), "%d sets, %d found, %d rejected",
              all, found, rejected);
}

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

/* ---- scores that saturate or vanish ---- */

/* fp32 arithmetic of three kinds: what leaves the normal numbers is kept, flushed to zero, or, as
 * CUDA's __fdividef has it, lost where the divisor exceeds 2^126. */
enum underflow { KEPT, FLUSHED, FAST, UNDERFLOWS };
static float settle(float x, enum underflow how) { return how != KEPT && fabsf(x) < 0x1p-126f ? 0 : x; }
static float quotient(float a, float b, enum underflow how) {
    return how == FAST && b > 0x1p126f ? 0 : settle(a / b, how);
}

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

/* ---- experts ---- */

Test(experts, permute_sorts_slots_stably_and_skips_foreign_experts) {
    double x[] = {10, 11, 20, 21, 30, 31};
    int32_t routed[] = {2, 1, 3, 2, 1, -7}, offsets[3], row_slot[6], slot_row[6];
    struct call c = {.op = OP_PERMUTE};
    c.u.permute = (struct permute_args){.x = F64(x, 2, 0),
                                        .ids = I32(routed, 2),
                                        .n_tokens = 3,
                                        .top_k = 2,
                                        .width = 2,
                                        .expert_first = 1,
                                        .expert_count = 2,
                                        .n_rows = 4};
    cr_assert_eq(ref_permute(&c, offsets, row_slot, slot_row), 4);
    cr_assert(offsets[0] == 0 && offsets[1] == 2 && offsets[2] == 4);
    const int32_t slots[] = {1, 4, 0, 3}, rows[] = {2, 0, -1, 3, 1, -1};
    for (int i = 0; i < 4; i++) cr_assert_eq(row_slot[i], slots[i]);
    for (int i = 0; i < 6; i++) cr_assert_eq(slot_row[i], rows[i]);
    run(&c);
    cr_assert(y[0] == 10 && y[2] == 30 && y[4] == 10 && y[7] == 21 && e[7] == 0);
}

/* Two experts with three slots each. */
Test(experts, rows_of_an_expert_follow_the_stored_order_where_it_is_one) {
    double x[] = {10, 20, 30};
    int32_t routed[] = {0, 1, 0, 1, 0, 1}, row_slot[6], slot_row[6], stored[6];
    struct call c = {.op = OP_PERMUTE};
    c.u.permute = (struct permute_args){.x = F64(x, 1, 0),
                                        .ids = I32(routed, 2),
                                        .row_slot = I32(stored, 1),
                                        .n_tokens = 3,
                                        .top_k = 2,
                                        .width = 1,
                                        .expert_count = 2,
                                        .n_rows = 6};
    static const struct {
        int32_t stored[6], order[6];
    } orders[] = {
        {{0, 2, 4, 1, 3, 5}, {0, 2, 4, 1, 3, 5}},
        {{4, 0, 2, 5, 3, 1}, {4, 0, 2, 5, 3, 1}},
        {{4, 4, 2, 5, 3, 1}, {0, 2, 4, 5, 3, 1}},  /* a slot twice */
        {{4, 0, 1, 5, 3, 2}, {0, 2, 4, 1, 3, 5}},  /* each other's slots */
        {{-1, 9, 2, 3, 1, 5}, {0, 2, 4, 3, 1, 5}}, /* nobody's */
        {{INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN}, {0, 2, 4, 1, 3, 5}},
    };
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        memcpy(stored, orders[i].stored, sizeof stored);
        cr_assert_eq(ref_permute(&c, NULL, row_slot, slot_row), 6);
        run(&c);
        for (int r = 0; r < 6; r++) {
            cr_expect_eq(row_slot[r], orders[i].order[r], "order %zu row %d: slot %d", i, r, row_slot[r]);
            cr_expect_eq(slot_row[row_slot[r]], r);
            cr_expect_eq(y[r], x[row_slot[r] / 2]);
        }
    }
}

Test(experts, activation_is_silu_of_gate_times_up) {
    double gate_up[] = {0, 1, -100, 3, 2, 5};
    struct call c = {.op = OP_ACTIVATION};
    c.u.activation = (struct activation_args){.gate_up = F64(gate_up, 6, 3), .n_rows = 1, .width = 3};
    run(&c);
    cr_assert_eq(y[0], 0);
    CLOSE(y[1], 2 / (1 + exp(-1)));
    cr_assert_eq(element_judge(DTYPE_F32, -0.0, y[2], e[2]).kind, ELEMENT_OK); /* exp(100) overflows fp32 */
    cr_assert_eq(element_judge(DTYPE_F32, y[1] * (1 + 1e-5), y[1], e[1]).kind, ELEMENT_OUTSIDE);
}

/* Honest ways to write silu(g) u in fp32, and what each makes of exp(-g) near and beyond the end. */
static float silu_mul(float g, float u, int way) {
    const float ex = expf(-fabsf(g));
    switch (way) {
    case 0: return g / (1 + expf(-g)) * u;
    case 1: return g * (1 / (1 + expf(-g))) * u;
    case 2: return g * (g >= 0 ? 1.0f : ex) / (1 + ex) * u;
    case 3: return quotient(g, 1 + expf(-g), FAST) * u;
    default: return g * quotient(g >= 0 ? 1.0f : settle(ex, FLUSHED), 1 + ex, FLUSHED) * u;
    }
}

Test(experts, gates_whose_exponential_overflows_stay_inside_and_dropped_ones_do_not) {
    double gate_up[2];
    struct call c = {.op = OP_ACTIVATION};
    c.u.activation = (struct activation_args){.gate_up = F64(gate_up, 2, 1), .n_rows = 1, .width = 1};
    srand48(8);
    for (int i = 0; i < 200000; i++) {
        gate_up[0] = (double)(float)(i % 2 ? -86 - 4 * drand48() : -120 * drand48());
        gate_up[1] = (double)(float)exp2(80 * drand48());
        run(&c);
        const float got = silu_mul((float)gate_up[0], (float)gate_up[1], i / 2 % 5);
        cr_assert_eq(element_judge(DTYPE_F32, (double)got, y[0], e[0]).kind, ELEMENT_OK,
                     "silu(%.9g) %.9g: got %g, y %g, e %g", gate_up[0], gate_up[1], (double)got, y[0], e[0]);
        if (gate_up[0] > -86) /* where nothing overflows, 0 is wrong */
            cr_assert_eq(element_judge(DTYPE_F32, 0, y[0], e[0]).kind, ELEMENT_OUTSIDE, "%g", gate_up[0]);
    }
}

Test(experts, combine_weighs_the_local_rows) {
    double down[] = {1, 2, 10, 20}, gates[] = {0.5, 0.25, 3, 4};
    int32_t slot_row[] = {1, 0, -1, -1};
    struct call c = {.op = OP_COMBINE};
    c.u.combine = (struct combine_args){.down = F64(down, 2, 0),
                                        .slot_row = I32(slot_row, 2),
                                        .gates = F64(gates, 2, 0),
                                        .n_tokens = 2,
                                        .top_k = 2,
                                        .width = 2,
                                        .n_rows = 2};
    run(&c);
    cr_assert(y[0] == 5.25 && y[1] == 10.5 && y[2] == 0 && e[2] == 0);
    cr_assert(e[0] == 0 && e[1] == 0, "multiples of a quarter: every order gives this sum");
    for (int i = 0; i < 4; i++) down[i] /= 3;
    run(&c);
    CLOSE(y[0], 1.75);
    CLOSE(e[0] / (5 * 1.75 * 0x1p-24), 1 + 0x1p-29);
    slot_row[0] = 2; /* beyond the rows */
    run(&c);
    cr_assert(isnan(y[0]) && y[2] == 0);
}
