/* Which experts may be chosen, with which gates? Scores, sets and gates worked out by hand, and honest
 * arithmetic that must stay inside. */
/* SPDX-License-Identifier: MIT */
#include "kernels/kernels.h"
#include "tests/small_call.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { E = 8, TOP = 2 };

static double logits[E], bias[E];
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

/* Groups of two, the first kept, its choices below zero: the others have none, or 0, all alike. */
Test(router, experts_of_rejected_groups_count_as_minus_infinity_or_as_zero) {
    struct call c = route_case(SCORE_SIGMOID);
    c.u.route.n_group = 4, c.u.route.topk_group = 1;
    for (int i = 0; i < E; i++) bias[i] = -2;
    logits[0] = 2, logits[1] = 1, logits[6] = -3;
    ref_route_ids(&c, 0, 1, ids);
    cr_assert(ids[0] == 0 && ids[1] == 1);
    cr_assert_eq(judge(&c), ROUTE_CERTAIN);
    c.u.route.group_fill = GROUP_FILL_ZERO;
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
    ref_route_ids(&c, 0, 1, ids);
    cr_assert(ids[0] == 2 && ids[1] == 3, "the lowest of six equals");
    cr_assert_eq(judge(&c), ROUTE_AMBIGUOUS);
    pick(7, 6);
    cr_assert_eq(judge(&c), ROUTE_AMBIGUOUS);
    run(&c);
    CLOSE(y[1], 1 / (1 + exp(3))); /* the gate is of its own score */
    pick(0, 2);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
    bias[0] = 0; /* one choice above zero */
    cr_assert_eq(judge(&c), ROUTE_AMBIGUOUS);
    pick(0, 1);
    cr_assert_eq(judge(&c), ROUTE_REJECTED);
    bias[1] = 0;
    cr_assert_eq(judge(&c), ROUTE_CERTAIN);
    c.u.route.group_fill = GROUP_FILL_INF;
    cr_assert_eq(judge(&c), ROUTE_CERTAIN);
}

/* Three groups of two: all of the rejected one may be in the set, and the best one that is kept. */
Test(router, a_whole_rejected_group_that_counts_as_zero_leaves_room_for_the_best_below_zero) {
    struct call c = {.op = OP_ROUTE};
    const struct contract contract = contract_exact(OP_ROUTE);
    const struct route_args *const a = &c.u.route;
    static const double choices[] = {-0.1, -0.2, -0.1, -0.3, -0.5, -0.5}; /* group 2 is rejected */
    const struct {
        int32_t ids[3];
        enum route_verdict verdict;
    } sets[] = {
        {{4, 5, 0}, ROUTE_AMBIGUOUS}, /* 0 and 2 tie */
        {{4, 5, 2}, ROUTE_AMBIGUOUS}, {{4, 5, 1}, ROUTE_REJECTED},
        {{4, 0, 2}, ROUTE_REJECTED}, /* 5 counts as 0, too */
        {{0, 1, 2}, ROUTE_REJECTED},
    };
    double lo[6], hi[6];
    c.u.route = (struct route_args){
        .n_experts = 6, .top_k = 3, .n_group = 3, .topk_group = 2, .group_fill = GROUP_FILL_ZERO};
    for (int i = 0; i < 6; i++) lo[i] = choices[i] - 1e-9, hi[i] = choices[i] + 1e-9;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        cr_expect_eq(ref_route_judge(a, &contract.u.route, lo, hi, sets[i].ids), sets[i].verdict, "set %zu",
                     i);
    lo[0] = hi[0] = -0.05;
    cr_expect_eq(ref_route_judge(a, &contract.u.route, lo, hi, sets[0].ids), ROUTE_CERTAIN);
}

/* Where a kernel says that of equals the lower index wins: experts of groups that surely are
 * rejected, and so 0, are equal whatever their scores. */
Test(router, experts_that_count_as_zero_are_a_tie_across_groups) {
    struct call c = route_case(SCORE_SIGMOID);
    const struct contract contract = contract_exact(OP_ROUTE);
    const struct route_args *const a = &c.u.route;
    double lo[E], hi[E], low[E], high[E];
    int64_t loser, winner;
    c.u.route.n_group = 4, c.u.route.topk_group = 1, c.u.route.group_fill = GROUP_FILL_ZERO;
    for (int i = 0; i < E; i++) logits[i] = -i, bias[i] = -2;
    ref_route_choices(&c, &contract, NULL, 0, 1, lo, hi);
    ref_route_limit(a, &contract.u.route, lo, hi, low, high);
    pick(2, 5);
    cr_expect(ref_route_tie(a, low, high, 0, ids, &loser, &winner) && loser == 5 && winner == 3);
    pick(3, 2);
    cr_expect_not(ref_route_tie(a, low, high, 0, ids, &loser, &winner));
    logits[2] = 0, logits[3] = -1; /* as good as group 0: who knows which of the two is 0 */
    ref_route_choices(&c, &contract, NULL, 0, 1, lo, hi);
    ref_route_limit(a, &contract.u.route, lo, hi, low, high);
    pick(4, 5);
    cr_expect_not(ref_route_tie(a, low, high, 0, ids, &loser, &winner));
    logits[2] = -2, logits[3] = -3;
    ref_route_choices(&c, &contract, NULL, 0, 1, lo, hi);
    c.u.route.group_fill = GROUP_FILL_INF;
    ref_route_limit(a, &contract.u.route, lo, hi, low, high);
    cr_expect(low[0] == lo[0] && high[1] == hi[1] && low[2] == -INFINITY && high[7] == -INFINITY);
    pick(0, 1);
    cr_expect_not(ref_route_tie(a, low, high, 0, ids, &loser, &winner));
}

/* Every set, against all corners of small intervals: a set is legal iff some assignment of values
 * selects it. Intervals are wide, so that the two levels are tied together by few of them. Where
 * rejected groups count as 0, half of the choices are below that. */
Test(router, honest_choices_under_group_limits_are_never_rejected_and_others_mostly_are) {
    static const double steps[] = {0, 0.25, 0.5, 0.75, 1};
    int found = 0, rejected = 0, all = 0, certain = 0;
    srand48(21);
    for (int trial = 0; trial < 600; trial++) {
        struct call c = route_case(SCORE_SIGMOID);
        const struct contract contract = contract_exact(OP_ROUTE);
        const struct route_args *const a = &c.u.route;
        bool selected[E][E] = {{false}};
        double lo[E], hi[E], choice[E];
        c.u.route.n_group = trial % 2 ? 4 : 2, c.u.route.topk_group = 1 + trial % 3 % (trial % 2 ? 3 : 1);
        c.u.route.group_score = trial % 5 ? GROUP_TOP2_SUM : GROUP_MAX;
        c.u.route.group_fill = trial % 4 < 2 ? GROUP_FILL_INF : GROUP_FILL_ZERO;
        const double shift = c.u.route.group_fill == GROUP_FILL_ZERO ? 0.5 : 0;
        for (int i = 0; i < E; i++) lo[i] = drand48() - shift, hi[i] = lo[i] + (i % 3 ? 0.02 : 0.1);
        for (int sample = 0; sample < 400; sample++) { /* what a kernel may have computed */
            for (int i = 0; i < E; i++) choice[i] = lo[i] + (hi[i] - lo[i]) * steps[lrand48() % 5];
            for (int i = 0; i < E; i++) {
                const double s = choice[i] + shift;
                logits[i] = log(s / (2 - s)), bias[i] = -shift / 2;
            }
            ref_route_ids(&c, 0, 1, ids); /* sigmoids of these logits and the bias are half the choices */
            selected[ids[0]][ids[1]] = selected[ids[1]][ids[0]] = true;
            cr_assert_neq(ref_route_judge(a, &contract.u.route, lo, hi, ids), ROUTE_REJECTED, "trial %d",
                          trial);
        }
        int found_before = found, certain_before = certain;
        for (int i = 0; i < E; i++)
            for (int k = 0; k < i; k++) {
                pick(i, k);
                const enum route_verdict v = ref_route_judge(a, &contract.u.route, lo, hi, ids);
                found += selected[i][k], all++;
                rejected += v == ROUTE_REJECTED;
                certain += v == ROUTE_CERTAIN;
            }
        cr_assert(certain == certain_before || (certain == certain_before + 1 && found == found_before + 1),
                  "trial %d: %d found beside a certain one", trial, found - found_before);
    }
    cr_assert_gt(certain, 100);
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
