/* top_k - which experts do a row's choices select, and may a given set be what rounded ones
 * selected? With group limits (DeepSeek-V3) the groups are chosen first, by the same rule.
 *
 * Every choice, and so every group's score, is known to an interval [low, high]; experts of a
 * rejected group count as the fill, exactly. The largest n of some may be a set S iff the least
 * `high` inside S is at least the most `low` outside: then values inside the intervals select it.
 * A set of experts is legal iff there are groups that may be the kept ones with which it may be the
 * top k of all. The two levels are taken as independent, which never rejects an honest choice. */
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

static double fill_value(const struct route_args *a) {
    return a->group_fill == GROUP_FILL_ZERO ? 0 : -INFINITY;
}

/* ---- in exact arithmetic ---- */

/* The fill for experts of groups that lose; ties to the lower group. */
static void limit_groups(double *choice, const struct route_args *a) {
    const int64_t size = a->n_experts / a->n_group;
    double *value = ref_alloc((size_t)a->n_group * sizeof *value);
    for (int64_t g = 0; g < a->n_group; g++) value[g] = group_value(choice + g * size, size, a->group_score);
    for (int64_t g = 0; g < a->n_group; g++) {
        int64_t ahead = 0;
        for (int64_t o = 0; o < a->n_group; o++)
            ahead += value[o] > value[g] || (value[o] == value[g] && o < g);
        for (int64_t e = g * size; e < (g + 1) * size && ahead >= a->topk_group; e++)
            choice[e] = fill_value(a);
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
    double low, high; /* its score */
    bool in, out;     /* some of its experts are in the set; some are not */
    double in_high;   /* the least high of those, */
    double out_low;   /* the largest low of these, if the group is kept */
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
        *p = (struct group){.in_high = INFINITY, .out_low = -INFINITY};
        ref_route_group(a, c, lo, hi, g, &p->low, &p->high);
        for (int64_t e = g * size; e < (g + 1) * size; e++)
            if (selected[e])
                p->in = true, p->in_high = fmin(p->in_high, hi[e]);
            else
                p->out = true, p->out_low = fmax(p->out_low, lo[e]);
    }
}

/* Are there `keep` groups that may be the kept ones, with scores from `least` on, so that nothing
 * in the set must be below `reach`, nothing outside above it? A group may stay, go, or either. */
static bool fits(const struct group *group, int64_t n, int64_t keep, double fill, double least,
                 double reach) {
    int64_t n_must = 0, n_can = 0;
    for (int64_t g = 0; g < n; g++) {
        const struct group *const p = &group[g];
        const bool stays = p->high >= least && p->in_high >= reach && p->out_low <= reach;
        const bool goes = p->low <= least && (!p->in || fill >= reach) && (!p->out || fill <= reach);
        if (!stays && !goes) return false;
        n_must += !goes, n_can += stays;
    }
    return n_must <= keep && keep <= n_can;
}

/* `least` is the least high of the kept groups, `reach` that of the set: of one of the groups that
 * have experts in it, or the fill. */
static bool may_be_chosen(const struct group *group, int64_t n, int64_t keep, double fill) {
    for (int64_t r = 0; r <= n; r++) {
        if (r < n && !group[r].in) continue;
        for (int64_t i = 0; i < n; i++)
            if (fits(group, n, keep, fill, group[i].high, r < n ? group[r].in_high : fill)) return true;
    }
    return false;
}

static int64_t n_kept(const struct route_args *a) { return a->n_group > 1 ? a->topk_group : 1; }

void ref_route_limit(const struct route_args *a, const struct route_contract *contract, const double *lo,
                     const double *hi, double *low, double *high) {
    const int64_t n = max_i64(a->n_group, 1), size = a->n_experts / n;
    const double fill = fill_value(a);
    double *const worst = ref_alloc((size_t)n * 2 * sizeof *worst), *const best = worst + n;
    for (int64_t g = 0; g < n; g++) ref_route_group(a, contract, lo, hi, g, &worst[g], &best[g]);
    for (int64_t g = 0; g < n; g++) {
        int64_t reach_it = 0, beat_it = 0;
        for (int64_t o = 0; o < n; o++) {
            reach_it += o != g && best[o] >= worst[g];
            beat_it += o != g && worst[o] > best[g];
        }
        const bool goes = reach_it >= n_kept(a), stays = beat_it < n_kept(a);
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            low[e] = !goes ? lo[e] : stays ? fmin(lo[e], fill) : fill;
            high[e] = !goes ? hi[e] : stays ? fmax(hi[e], fill) : fill;
        }
    }
    free(worst);
}

/* Whatever the values, all of the set stand above all others. */
static bool is_certain(const struct route_args *a, const struct route_contract *contract, const double *lo,
                       const double *hi, const bool *selected) {
    double *const low = ref_alloc((size_t)a->n_experts * 2 * sizeof *low), *const high = low + a->n_experts;
    double weakest = INFINITY, strongest = -INFINITY;
    ref_route_limit(a, contract, lo, hi, low, high);
    for (int64_t e = 0; e < a->n_experts; e++)
        if (selected[e])
            weakest = fmin(weakest, low[e]);
        else
            strongest = fmax(strongest, high[e]);
    free(low);
    return weakest > strongest;
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
    const int64_t n = max_i64(a->n_group, 1);
    bool *selected = ref_alloc((size_t)a->n_experts * sizeof *selected);
    struct group *group = ref_alloc((size_t)n * sizeof *group);
    enum route_verdict verdict = ROUTE_REJECTED;
    if (is_a_set(a, lo, hi, ids, selected)) {
        measure_groups(group, a, contract, lo, hi, selected);
        if (may_be_chosen(group, n, n_kept(a), fill_value(a)))
            verdict = is_certain(a, contract, lo, hi, selected) ? ROUTE_CERTAIN : ROUTE_AMBIGUOUS;
    }
    free(selected), free(group);
    return verdict;
}
