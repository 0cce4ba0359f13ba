/* top_k - which experts do a row's choices select, and may a given set be what rounded ones
 * selected? With group limits (DeepSeek-V3) the groups are chosen first, by the same rule.
 *
 * Every choice, and so every group's score, is known to an interval [low, high]. The largest n of
 * some may be a set S iff the smallest `high` inside S is at least the largest `low` outside: then
 * values inside the intervals select it. A set of experts is legal iff there are groups that may be
 * the kept ones, among them all that it has experts of, within which it may be the top k. The two
 * levels are taken as independent, which never rejects an honest choice. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double group_value(const double *choice, int64_t n, enum group_score kind) {
    double first = -INFINITY, second = -INFINITY;
    for (int64_t e = 0; e < n; e++) {
        if (choice[e] > first)
            second = first, first = choice[e];
        else if (choice[e] > second)
            second = choice[e];
    }
    return kind == GROUP_MAX || n < 2 ? first : first + second;
}

/* ---- in exact arithmetic ---- */

/* -inf for experts of groups that lose; ties to the lower group. */
static void limit_groups(double *choice, const struct route_args *a) {
    const int64_t size = a->n_experts / a->n_group;
    double *value = ref_alloc((size_t)a->n_group * sizeof *value);
    for (int64_t g = 0; g < a->n_group; g++) value[g] = group_value(choice + g * size, size, a->group_score);
    for (int64_t g = 0; g < a->n_group; g++) {
        int64_t ahead = 0;
        for (int64_t o = 0; o < a->n_group; o++)
            ahead += value[o] > value[g] || (value[o] == value[g] && o < g);
        for (int64_t e = g * size; e < (g + 1) * size && ahead >= a->topk_group; e++) choice[e] = -INFINITY;
    }
    free(value);
}

void top_k_pick(double *choice, const struct route_args *a, int32_t *ids) {
    bool *taken = ref_alloc((size_t)a->n_experts * sizeof *taken);
    memset(taken, 0, (size_t)a->n_experts * sizeof *taken);
    if (a->n_group > 1) limit_groups(choice, a);
    for (int64_t j = 0; j < a->top_k; j++) {
        int64_t best = -1;
        for (int64_t e = 0; e < a->n_experts; e++)
            if (!taken[e] && (best < 0 || choice[e] > choice[best])) best = e;
        ids[j] = (int32_t)best;
        if (best >= 0) taken[best] = true;
    }
    free(taken);
}

/* ---- in intervals ---- */

struct group {
    double low, high;         /* its score */
    double out_low, out_high; /* the largest of its experts that are not in the set */
    bool chosen;              /* some are */
};

void ref_route_group(const struct route_args *a, const struct route_contract *contract, const double *lo,
                     const double *hi, int64_t g, double *low, double *high) {
    const int64_t size = a->n_experts / max_i64(a->n_group, 1);
    const double best = group_value(hi + g * size, size, a->group_score),
                 worst = group_value(lo + g * size, size, a->group_score);
    const bool sum = a->group_score != GROUP_MAX && size > 1; /* of two choices, rounded */
    const double unit = sum ? contract->unit + UNIT_F64 : 0, tiny = sum ? flush_unit(contract->unit) : 0;
    *low = dtype_round(contract->choices, worst - unit * fabs(worst) - tiny);
    *high = dtype_round(contract->choices, best + unit * fabs(best) + tiny);
}

static void measure_groups(struct group *group, const struct route_args *a, const struct route_contract *c,
                           const double *lo, const double *hi, const bool *selected) {
    const int64_t n = max_i64(a->n_group, 1), size = a->n_experts / n;
    for (int64_t g = 0; g < n; g++) {
        struct group *const p = &group[g];
        *p = (struct group){.out_low = -INFINITY, .out_high = -INFINITY};
        ref_route_group(a, c, lo, hi, g, &p->low, &p->high);
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            p->chosen |= selected[e];
            if (selected[e]) continue;
            p->out_low = fmax(p->out_low, lo[e]), p->out_high = fmax(p->out_high, hi[e]);
        }
    }
}

/* Are there `keep` groups that may be the kept ones, all chosen groups among them, and in none of
 * them an expert that surely beats the set, whose weakest member is at most `reach`? If so, then
 * with `least`, the smallest `high` of the kept ones: those below it are out, those whose `low` is
 * above it are in. */
static bool may_be_kept(const struct group *group, int64_t n, int64_t keep, double reach) {
    for (int64_t i = 0; i < n; i++) {
        const double least = group[i].high;
        int64_t n_must = 0, n_can = 0;
        bool possible = true;
        for (int64_t g = 0; g < n; g++) {
            const bool must = group[g].chosen || group[g].low > least;
            const bool can = group[g].high >= least && group[g].out_low <= reach;
            possible &= can || !must;
            n_must += must, n_can += can;
        }
        if (possible && n_must <= keep && keep <= n_can) return true;
    }
    return false;
}

/* Every chosen group is kept whatever the values, and no other group that may be has an expert
 * that reaches `weakest`, the least that the set's weakest member can be. */
static bool is_certain(const struct group *group, int64_t n, int64_t keep, double weakest) {
    for (int64_t g = 0; g < n; g++) {
        int64_t reach_it = 0, beat_it = 0;
        for (int64_t o = 0; o < n; o++) {
            reach_it += o != g && group[o].high >= group[g].low;
            beat_it += o != g && group[o].low > group[g].high;
        }
        if (group[g].chosen && reach_it >= keep) return false;
        if (beat_it < keep && group[g].out_high >= weakest) return false;
    }
    return true;
}

/* Different experts, all known, and no score that is NaN, which would prove nothing. */
static bool is_a_set(const struct route_args *a, const double *lo, const double *hi, const int32_t *ids,
                     bool *selected) {
    memset(selected, 0, (size_t)a->n_experts * sizeof *selected);
    for (int64_t j = 0; j < a->top_k; j++) {
        if (ids[j] < 0 || ids[j] >= a->n_experts || selected[ids[j]]) return false;
        selected[ids[j]] = true;
    }
    for (int64_t e = 0; e < a->n_experts; e++)
        if (isnan(lo[e]) || isnan(hi[e])) return false;
    return true;
}

enum route_verdict ref_route_judge(const struct route_args *a, const struct route_contract *contract,
                                   const double *lo, const double *hi, const int32_t *ids) {
    const int64_t n = max_i64(a->n_group, 1), keep = a->n_group > 1 ? a->topk_group : 1;
    bool *selected = ref_alloc((size_t)a->n_experts * sizeof *selected);
    struct group *group = ref_alloc((size_t)n * sizeof *group);
    enum route_verdict verdict = ROUTE_REJECTED;
    if (is_a_set(a, lo, hi, ids, selected)) {
        double low = INFINITY, high = INFINITY; /* of its weakest member */
        for (int64_t j = 0; j < a->top_k; j++) low = fmin(low, lo[ids[j]]), high = fmin(high, hi[ids[j]]);
        measure_groups(group, a, contract, lo, hi, selected);
        if (may_be_kept(group, n, keep, high))
            verdict = is_certain(group, n, keep, low) ? ROUTE_CERTAIN : ROUTE_AMBIGUOUS;
    }
    free(selected), free(group);
    return verdict;
}
