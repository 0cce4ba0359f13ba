/* May these experts have been chosen, and if not, which one stands where another should? */
/* SPDX-License-Identifier: MIT */
#include "harness/judge_route.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/judge.h"
#include "harness/memory.h"
#include "reference/reference.h"

/* One row, token t: intervals of its choices, what was stored, and the exact top k. */
struct row {
    const struct route_args *args;
    const struct route_contract *contract;
    int64_t t;
    const double *lo, *hi;
    double *low, *high; /* behind the limit of groups */
    const int32_t *ids, *exact;
};

/* A wrong place in the row, the expert that should stand there (-1: nobody can tell), and why. */
struct misrouted {
    int64_t place, better;
    char note[300];
};

static bool is_known(const struct row *r, int32_t id) { return id >= 0 && id < r->args->n_experts; }

bool route_is_among(const int32_t *ids, int64_t n, int32_t id) {
    for (int64_t i = 0; i < n; i++)
        if (ids[i] == id) return true;
    return false;
}

static void append(struct misrouted *m, const char *text) {
    strncat(m->note, text, sizeof m->note - strlen(m->note) - 1);
}

static bool counts_as_zero(const struct row *r, int64_t expert) {
    return r->args->group_fill == GROUP_FILL_ZERO && r->low[expert] == 0 && r->high[expert] == 0;
}

/* "expert 5 (0.12 to 0.13)", of groups "expert 5 (0.12 to 0.13; group 1: 0.2 to 0.21)", of one that
 * surely loses "..., so 0)" */
static void append_expert(struct misrouted *m, const struct row *r, int64_t expert) {
    char text[120];
    snprintf(text, sizeof text, "expert %lld (%.9g to %.9g", (long long)expert, r->lo[expert], r->hi[expert]);
    append(m, text);
    if (r->args->n_group > 1) {
        double low, high;
        const int64_t g = expert / (r->args->n_experts / r->args->n_group);
        ref_route_group(r->args, r->contract, r->lo, r->hi, g, &low, &high);
        snprintf(text, sizeof text, "; group %lld: %.9g to %.9g%s", (long long)g, low, high,
                 counts_as_zero(r, expert) ? ", so 0" : "");
        append(m, text);
    }
    append(m, ")");
}

static void append_exact(struct misrouted *m, const struct row *r) {
    char text[32];
    snprintf(text, sizeof text, "; the top %lld:", (long long)r->args->top_k);
    append(m, text);
    for (int64_t i = 0; i < r->args->top_k; i++) {
        snprintf(text, sizeof text, " %d", r->exact[i]);
        append(m, text);
    }
}

/* The expert of the exact top k that the set lacks and that stands above the others. */
static int64_t lacking(const struct row *r) {
    const int64_t k = r->args->top_k;
    for (int64_t i = 0; i < k; i++)
        if (!route_is_among(r->ids, k, r->exact[i])) return r->exact[i];
    return -1;
}

/* The stored expert outside the exact top k that is the surest not to belong there. */
static int64_t intruder(const struct row *r) {
    const int64_t k = r->args->top_k;
    int64_t place = -1;
    for (int64_t i = 0; i < k; i++)
        if (!route_is_among(r->exact, k, r->ids[i]) &&
            (place < 0 || r->high[r->ids[i]] < r->high[r->ids[place]]))
            place = i;
    return place;
}

/* A legal set, but not with the promise that of equal choices the lower index wins. */
static bool breaks_tie(const struct row *r, struct misrouted *m) {
    int64_t loser;
    *m = (struct misrouted){.better = -1};
    if (!r->contract->ties_lower ||
        !ref_route_tie(r->args, r->low, r->high, r->t, r->ids, &loser, &m->better))
        return false;
    while (r->ids[m->place] != loser) m->place++;
    append_expert(m, r, loser);
    append(m, " chosen, not its equal ");
    append_expert(m, r, m->better);
    append(m, "; the kernel declares that the lower index wins a tie");
    return true;
}

static struct misrouted misrouted_of(const struct row *r) {
    struct misrouted m = {.better = -1};
    for (int64_t e = 0; e < r->args->n_experts; e++) {
        if (!isnan(r->lo[e]) && !isnan(r->hi[e])) continue;
        snprintf(m.note, sizeof m.note, "the score of expert %lld is no number: no choice is right",
                 (long long)e);
        return m;
    }
    m.better = lacking(r);
    for (int64_t i = 0; i < r->args->top_k; i++) {
        const int32_t id = r->ids[i];
        if (is_known(r, id) && !route_is_among(r->ids, i, id)) continue;
        m.place = i;
        snprintf(m.note, sizeof m.note,
                 is_known(r, id) ? "expert %d is chosen twice" : "expert %d does not exist", id);
        append_exact(&m, r);
        return m;
    }
    m.place = intruder(r);
    assert(m.place >= 0 && m.better >= 0); /* the exact set is legal */
    append_expert(&m, r, r->ids[m.place]);
    append(&m, " chosen, not ");
    append_expert(&m, r, m.better);
    append_exact(&m, r);
    return m;
}

void judge_topk(const struct judged *j, const struct call *call, const struct contract *contract,
                const double *lo, const double *hi, struct edge_result *edge, struct findings *findings) {
    const struct route_args *const a = &call->u.route;
    const int64_t k = a->top_k;
    int32_t *const exact = memory_zeroed((size_t)k, sizeof *exact);
    double *const low = memory_zeroed((size_t)(2 * a->n_experts), sizeof *low), *const high =
                                                                                    low + a->n_experts;
    edge_begin(edge, j, findings);
    for (int64_t t = 0; t < j->count / k; t++, lo += a->n_experts, hi += a->n_experts) {
        const int32_t *const ids = (const int32_t *)j->got + t * k;
        const enum route_verdict v = ref_route_judge(a, &contract->u.route, lo, hi, ids);
        const struct row row = {a, &contract->u.route, t, lo, hi, low, high, ids, exact};
        struct misrouted m;
        ref_route_limit(a, &contract->u.route, lo, hi, low, high);
        if (v == ROUTE_AMBIGUOUS) edge->ambiguous++;
        if (v != ROUTE_REJECTED && !breaks_tie(&row, &m)) continue;
        if (v == ROUTE_REJECTED) {
            ref_route_ids(call, t, t + 1, exact);
            m = misrouted_of(&row);
        }
        const double expected = m.better < 0 ? (double)NAN : (double)m.better;
        edge_fail(edge);
        edge->outside += k;
        edge->margin = INFINITY;
        findings_add(findings, j, t * k + m.place, ids[m.place], expected, expected - expected, INFINITY,
                     m.note);
        for (int64_t i = 0; i < k; i++) /* none of them alone is wrong */
            if (i != m.place) findings_blame(findings, j, t * k + i);
    }
    free(exact), free(low);
}

void judge_route(const struct judged *j, const struct call *call, const struct contract *contract,
                 struct edge_result *edge, struct findings *findings) {
    const struct route_args *const a = &call->u.route;
    const size_t n = (size_t)(a->n_tokens * a->n_experts);
    double *const lo = memory_zeroed(n, sizeof *lo), *const hi = memory_zeroed(n, sizeof *hi);
    ref_route_choices(call, contract, NULL, 0, a->n_tokens, lo, hi);
    judge_topk(j, call, contract, lo, hi, edge, findings);
    free(lo);
    free(hi);
}
