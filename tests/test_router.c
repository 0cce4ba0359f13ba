/* Which experts may be chosen, with which gates? Scores, sets and gates worked out by hand. */
/* SPDX-License-Identifier: MIT */
#include "tests/route_case.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
