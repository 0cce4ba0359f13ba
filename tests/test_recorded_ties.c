/* Is every choice of experts that the roundings of a run leave open among the sets that are tried,
 * and no other? */
/* SPDX-License-Identifier: MIT */
#include "harness/recorded_stage.h"
#include "tests/small_call.h"

#include <criterion/criterion.h>

enum { E = 8, TOP = 2 };
static double logits[E], bias[E];

/* The sets of one token of four groups, of which one is kept; -1: it has one choice. */
static int sets_of(enum group_fill fill, struct recorded_run *r) {
    static bool masked[1];
    static struct edge_result edge;
    struct outcome o = {.call.op = OP_ROUTE, .contract = contract_exact(OP_ROUTE)};
    o.call.u.route = (struct route_args){.logits = F64(logits, E, 0),
                                         .bias = F64(bias, 1, 0),
                                         .n_tokens = 1,
                                         .n_experts = E,
                                         .top_k = TOP,
                                         .n_group = 4,
                                         .topk_group = 1,
                                         .score = SCORE_SIGMOID,
                                         .group_fill = fill,
                                         .routed_scale = 1};
    masked[0] = false;
    *r = (struct recorded_run){.masked = masked, .verdict.edge = &edge};
    recorded_mask_ties(r, &o);
    return masked[0] ? r->ties.n_sets[0] : -1;
}

static bool has(const struct recorded_run *r, int32_t a, int32_t b) {
    bool found = false;
    for (int i = 0; i < r->ties.n_sets[0]; i++) {
        const int32_t *const s = r->ties.set + i * TOP;
        found |= (s[0] == a && s[1] == b) || (s[0] == b && s[1] == a);
    }
    return found;
}

/* Scores 0.88 and 0.12 against 0.5 and 0.5: the sums are equal, and expert 0 is not. */
Test(recorded_ties, an_expert_far_above_the_others_is_doubted_with_its_group) {
    struct recorded_run r;
    for (int i = 0; i < E; i++) logits[i] = -9;
    logits[0] = 2, logits[1] = -2, logits[4] = logits[5] = 0;
    cr_expect_eq(sets_of(GROUP_FILL_INF, &r), 2);
    cr_expect(has(&r, 0, 1) && has(&r, 4, 5));
    recorded_ties_free(&r);
    logits[0] = 2.01;
    cr_expect_eq(sets_of(GROUP_FILL_INF, &r), -1);
    recorded_ties_free(&r);
}

Test(recorded_ties, experts_of_rejected_groups_that_count_as_zero_are_all_tried) {
    struct recorded_run r;
    for (int i = 0; i < E; i++) logits[i] = -i, bias[i] = -2;
    cr_expect_eq(sets_of(GROUP_FILL_INF, &r), -1);
    recorded_ties_free(&r);
    cr_expect_eq(sets_of(GROUP_FILL_ZERO, &r), 15, "two of the six that are not in group 0");
    cr_expect(has(&r, 2, 7) && !has(&r, 0, 2));
    recorded_ties_free(&r);
    bias[0] = 0;
    cr_expect_eq(sets_of(GROUP_FILL_ZERO, &r), 6, "expert 0 and one of the six");
    cr_expect(has(&r, 0, 2) && has(&r, 0, 7) && !has(&r, 0, 1));
    recorded_ties_free(&r);
}
