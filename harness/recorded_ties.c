/* Which experts did the producer choose, where its roundings leave more than one choice? Nobody
 * recorded them, but what came out of them may be there: of the legal sets of a token, the first
 * that gives it is taken. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/judge_route.h"
#include "harness/recorded_stage.h"

enum { MAX_DOUBTED = 12 }; /* experts of a token that may or may not be among the chosen */

/* ---- legal sets ---- */

struct token {
    const struct route_args *args;
    const struct route_contract *contract;
    const double *lo, *hi; /* [E] */
    double *low, *high;    /* [E] behind the limit of groups */
    int32_t *sets;         /* [RECORDED_SETS][K] out */
    int n;                 /* of them; beyond RECORDED_SETS: too many */
};

/* The experts that some legal set has and another has not: those whose interval reaches over the
 * border, whichever groups are kept. Any other of the exact set is above all that are not in it,
 * and any other outside below all that are. */
static int doubted_experts(const struct token *t, const int32_t *exact, int32_t *doubted) {
    double border_lo = INFINITY, border_hi = -INFINITY;
    int n = 0;
    for (int64_t e = 0; e < t->args->n_experts; e++) {
        const bool in = route_is_among(exact, t->args->top_k, (int32_t)e);
        if (in && t->low[e] < border_lo) border_lo = t->low[e];
        if (!in && t->high[e] > border_hi) border_hi = t->high[e];
    }
    for (int64_t e = 0; e < t->args->n_experts; e++)
        if (t->high[e] >= border_lo && t->low[e] <= border_hi) {
            if (n == MAX_DOUBTED) return -1;
            doubted[n++] = (int32_t)e;
        }
    return n;
}

/* Every way to fill the places from `place` on with doubted experts from `from` on. */
static void add_sets(struct token *t, int32_t *set, int64_t place, const int32_t *doubted, int n, int from) {
    const int64_t k = t->args->top_k;
    if (place == k) {
        if (ref_route_judge(t->args, t->contract, t->lo, t->hi, set) == ROUTE_REJECTED) return;
        if (t->n < RECORDED_SETS) memcpy(t->sets + t->n * k, set, (size_t)k * sizeof *set);
        t->n++;
        return;
    }
    for (int i = from; i < n; i++) {
        set[place] = doubted[i];
        add_sets(t, set, place + 1, doubted, n, i + 1);
    }
}

static void find_sets(struct token *t, const int32_t *exact) {
    const int64_t k = t->args->top_k;
    int32_t doubted[MAX_DOUBTED], *const set = memory_zeroed((size_t)k, sizeof *set);
    const int n = doubted_experts(t, exact, doubted);
    int64_t certain = 0;
    for (int64_t i = 0; i < k && n >= 0; i++)
        if (!route_is_among(doubted, n, exact[i])) set[certain++] = exact[i];
    if (n >= 0) add_sets(t, set, certain, doubted, n, 0);
    if (n < 0) t->n = RECORDED_SETS + 1;
    free(set);
}

/* ---- the run's tokens ---- */

void recorded_mask_ties(struct recorded_run *r, const struct outcome *outcome) {
    const struct route_args *const a = &outcome->call.u.route;
    struct recorded_ties *const ties = &r->ties;
    const size_t n = (size_t)(a->n_tokens * a->n_experts), k = (size_t)a->top_k;
    if (ties->n_sets) return; /* they are known */
    double *const lo = memory_zeroed(n, sizeof *lo), *const hi = memory_zeroed(n, sizeof *hi);
    double *const low = memory_zeroed((size_t)(2 * a->n_experts), sizeof *low), *const high =
                                                                                    low + a->n_experts;
    int32_t *const exact = memory_zeroed(k, sizeof *exact);
    ties->n_sets = memory_zeroed((size_t)a->n_tokens, sizeof *ties->n_sets);
    ties->chosen = memory_zeroed((size_t)a->n_tokens, sizeof *ties->chosen);
    ties->fit = memory_zeroed((size_t)a->n_tokens, sizeof *ties->fit);
    ties->set = memory_zeroed((size_t)a->n_tokens * RECORDED_SETS * k, sizeof *ties->set);
    ref_route_choices(&outcome->call, &outcome->contract, outcome->fuzzy ? outcome->radius : NULL, 0,
                      a->n_tokens, lo, hi);
    for (int64_t t = 0; t < a->n_tokens; t++) {
        struct token token = {a,
                              &outcome->contract.u.route,
                              lo + t * a->n_experts,
                              hi + t * a->n_experts,
                              low,
                              high,
                              ties->set + (size_t)t * RECORDED_SETS * k,
                              0};
        ref_route_ids(&outcome->call, t, t + 1, exact);
        if (ref_route_judge(a, token.contract, token.lo, token.hi, exact) != ROUTE_AMBIGUOUS) continue;
        ref_route_limit(a, token.contract, token.lo, token.hi, low, high);
        find_sets(&token, exact);
        ties->n_sets[t] = token.n > RECORDED_SETS ? 0 : token.n;
        r->masked[t] = true;
        r->n_masked++;
    }
    r->verdict.edge->ambiguous += r->n_masked;
    free(lo), free(hi), free(low), free(exact);
}

void recorded_put_sets(const struct recorded_run *r, int64_t top_k, int32_t *ids) {
    for (int64_t t = 0; t < r->batch.n_tokens; t++)
        if (r->ties.n_sets && r->ties.n_sets[t])
            memcpy(ids + t * top_k, r->ties.set + (t * RECORDED_SETS + r->ties.chosen[t]) * top_k,
                   (size_t)top_k * sizeof *ids);
}

void recorded_note_fit(struct recorded_run *r, enum tensor_id id, const struct judged *j, int64_t row) {
    for (int64_t t = 0; t < r->batch.n_tokens; t++) {
        if (!r->masked[t] || (r->thin[id] && !r->sample.token[t])) continue;
        for (int64_t i = t * row; i < (t + 1) * row; i++)
            if (element_judge(j->dtype, dtype_load(j->got, j->dtype, i), j->y[i], j->e[i]).kind != ELEMENT_OK)
                r->ties.fit[t] = FIT_NO;
        if (r->ties.fit[t] == FIT_UNSEEN) r->ties.fit[t] = FIT_YES;
    }
}

void recorded_ties_free(struct recorded_run *r) {
    free(r->ties.n_sets), free(r->ties.chosen), free(r->ties.fit), free(r->ties.set);
    r->ties = (struct recorded_ties){0};
}

/* ---- trials ---- */

/* What hangs on the choice, from the routing to the end of the part; at first with all that it
 * is added to. */
static struct status try_once(struct recorded_run *r, bool first) {
    struct stage_result unused = {0};
    struct findings *const findings = memory_zeroed(1, sizeof *findings);
    struct stage_result *const row = r->row;
    const struct verdict verdict = r->verdict;
    const bool wanted = r->wanted;
    struct status s = status_ok();
    findings_init(findings);
    r->wanted = true;
    r->row = &unused;
    r->verdict = (struct verdict){&unused.edge[EDGE_ORACLE], findings};
    for (int stage = S_ROUTE; stage < S_COUNT && !s.code; stage++)
        if (stage_applies(stage, r->crew.part, &r->crew.spec) &&
            (first || stage == S_ROUTE || recorded_reads_doubted(r, stage)))
            s = recorded_stage(r, stage);
    r->row = row;
    r->wanted = wanted;
    r->verdict = verdict;
    free(findings);
    return s;
}

/* The first that fits counts; where none does, the exact choice is judged; tokens whose outcome
 * nobody recorded, or that have too many sets, stay masked. True: there is another to try. */
static bool settle_token(struct recorded_run *r, int64_t t) {
    if (!r->masked[t] || !r->ties.n_sets[t] || r->ties.fit[t] == FIT_UNSEEN) return false;
    if (r->ties.fit[t] == FIT_NO && r->ties.chosen[t] + 1 < r->ties.n_sets[t]) {
        r->ties.chosen[t]++;
        r->ties.fit[t] = FIT_UNSEEN;
        return true;
    }
    if (r->ties.fit[t] == FIT_NO) r->ties.n_sets[t] = 0;
    r->masked[t] = false;
    r->n_masked--;
    return false;
}

struct status recorded_settle_ties(struct recorded_run *r) {
    bool more = r->n_masked && r->crew.part == PART_FFN;
    if (!more) return status_ok();
    r->trial = true;
    for (bool first = true; more; first = false) {
        const struct status s = try_once(r, first);
        if (s.code) return s;
        more = false;
        for (int64_t t = 0; t < r->batch.n_tokens; t++) more |= settle_token(r, t);
    }
    r->trial = false;
    return recorded_stage(r, S_ROUTE);
}
