/* router - which experts may a token go to, and with which gates? Scores are sigmoid or softmax of
 * the stored logits (read as they are), known to an error; choices = score + bias are
 * therefore intervals, and a set of experts is legal iff some values inside the intervals select
 * it. Group limits (DeepSeek-V3) are judged by the same interval test one level up: experts of a
 * group that loses for certain get [-inf, -inf], those of a group that may lose get [-inf, high].
 * Judging the flat scores that survive never rejects an honest choice; it may call ambiguous what a
 * joint analysis of both levels would rule out. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One token's scores and choices, [E] each. */
struct route_row {
    double *score, *error; /* of the score, absolute: a score that underflows has no relative one */
    double *choice;        /* exact score + bias; -inf in rejected groups */
};

/* How far exp(-below) is off whose argument is by `d`: exp(-below) (exp(d) - 1). Neither factor may
 * overflow, for the other one may be 0. */
static double moved_exp(double below, double d) { return d < 1 ? exp(-below) * expm1(d) : exp(d - below); }

/* s = 1 / (1 + e) or e / (1 + e) with e = exp(-|x|), or its overflowing inverse. |x| is rounded on
 * its way into the exponential (2u |x|). With e off by exp(+-d), s is off by s (1 - s) (exp(d) - 1)
 * at most, and s (1 - s) = e / (1 + e)^2; then 1 + e and a division, 4u. */
static void sigmoid_scores(const struct route_row *row, const double *logit_error, int64_t n_experts,
                           const struct route_contract *c) {
    for (int64_t i = 0; i < n_experts; i++) {
        const double x = row->score[i], e = exp(-fabs(x));
        const double d = logit_error[i] + 2 * (c->unit + UNIT_F64) * fabs(x) + c->exp_error;
        const double s = x >= 0 ? 1 / (1 + e) : e / (1 + e),
                     moved = moved_exp(fabs(x), d) / (1 + e) / (1 + e);
        row->score[i] = s;
        row->error[i] = moved + 4 * (c->unit + 2 * UNIT_F64) * (s + moved) + 2 * flush_unit(c->unit);
    }
}

/* softmax: the argument x - m is rounded, the exponentials add up in any order, one division. The
 * sum is at least 1; its own error is the sum of its terms'. */
static void softmax_scores(const struct route_row *row, const double *logit_error, int64_t n_experts,
                           const struct route_contract *c) {
    const double unit = c->unit + UNIT_F64, flushed = flush_unit(c->unit);
    double m = -INFINITY, sum = 0, sum_error = 0;
    for (int64_t e = 0; e < n_experts; e++) m = row->score[e] > m ? row->score[e] : m;
    for (int64_t e = 0; e < n_experts; e++) {
        const double below = m - row->score[e];
        row->error[e] = moved_exp(below, logit_error[e] + 2 * unit * below + c->exp_error) + flushed;
        row->score[e] = exp(-below);
        sum += row->score[e];
        sum_error += row->error[e];
    }
    const double common = sum_error / sum + (double)(n_experts + 4) * unit;
    for (int64_t e = 0; e < n_experts; e++) {
        const double moved = (row->error[e] + row->score[e] * common) / (1 - common);
        row->score[e] /= sum;
        row->error[e] = common < 1 ? moved / sum + flushed : INFINITY;
    }
}

/* Scores of token t with their errors. Logits stored wider than the arithmetic are rounded into it
 * first. */
static void score_token(const struct route_row *row, const struct route_args *a,
                        const struct route_contract *c, const double *const *radius, int64_t t) {
    double *logit_error = ref_alloc((size_t)a->n_experts * sizeof *logit_error);
    view_row(row->score, &a->logits, t * a->logits.stride[0], a->n_experts);
    const double unit = dtype_unit(a->logits.dtype) < c->unit ? c->unit : 0;
    radius_row(logit_error, radius, 0, &a->logits, t * a->logits.stride[0], a->n_experts);
    for (int64_t e = 0; e < a->n_experts; e++)
        logit_error[e] += unit * (fabs(row->score[e]) + logit_error[e]);
    (a->score == SCORE_SIGMOID ? sigmoid_scores : softmax_scores)(row, logit_error, a->n_experts, c);
    free(logit_error);
}

/* ---- group limits ---- */

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

/* Lower the choices of groups that lose. `low` and `high` may be the same array: exact choices,
 * ties to the lower group; otherwise a group that loses for certain is lowered in both, one that
 * may lose in `low` only. */
static void limit_groups(double *low, double *high, const struct route_args *a, double unit) {
    if (a->n_group <= 1) return;
    const int64_t size = a->n_experts / a->n_group;
    double *worst = ref_alloc((size_t)a->n_group * 2 * sizeof *worst), *best = worst + a->n_group;
    for (int64_t g = 0; g < a->n_group; g++) {
        worst[g] = group_value(low + g * size, size, a->group_score);
        best[g] = group_value(high + g * size, size, a->group_score);
        worst[g] -= unit * fabs(worst[g]), best[g] += unit * fabs(best[g]); /* the sum of two is rounded */
    }
    for (int64_t g = 0; g < a->n_group; g++) {
        int64_t surely_ahead = 0, maybe_ahead = 0;
        for (int64_t o = 0; o < a->n_group; o++) {
            surely_ahead += o != g && (worst[o] > best[g] || (low == high && o < g && worst[o] == best[g]));
            maybe_ahead += o != g && best[o] >= worst[g];
        }
        const bool loses = surely_ahead >= a->topk_group,
                   may_lose = maybe_ahead >= a->topk_group && low != high;
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            if (loses || may_lose) low[e] = -INFINITY;
            if (loses) high[e] = -INFINITY;
        }
    }
    free(worst);
}

static struct route_row route_row_make(int64_t n_experts) {
    double *p = ref_alloc((size_t)n_experts * 3 * sizeof *p);
    return (struct route_row){p, p + n_experts, p + 2 * n_experts};
}

static double selection_bias(const struct route_args *a, int64_t e) {
    return a->bias.data ? view_at(&a->bias, e) : 0;
}

void ref_route_scores(const struct call *call, const struct contract *contract, const double *const *radius,
                      int64_t row0, int64_t row1, double *lo, double *hi) {
    const struct route_args *a = &call->u.route;
    const double unit = contract->u.route.unit + UNIT_F64, flushed = flush_unit(contract->u.route.unit);
    struct route_row row = route_row_make(a->n_experts);
    for (int64_t t = row0; t < row1; t++, lo += a->n_experts, hi += a->n_experts) {
        score_token(&row, a, &contract->u.route, radius, t);
        for (int64_t e = 0; e < a->n_experts; e++) {
            const double bias = selection_bias(a, e);
            const double low = row.score[e] - row.error[e] + bias, high = row.score[e] + row.error[e] + bias;
            const double rounded = unit * fmax(fabs(low), fabs(high)) + flushed; /* by the addition */
            lo[e] = low - (a->bias.data ? rounded : 0);
            hi[e] = high + (a->bias.data ? rounded : 0);
        }
        limit_groups(lo, hi, a, unit);
    }
    free(row.score);
}

void ref_route_ids(const struct call *call, int64_t row0, int64_t row1, int32_t *ids) {
    const struct route_args *a = &call->u.route;
    const struct route_contract exact = {0};
    struct route_row row = route_row_make(a->n_experts);
    bool *taken = ref_alloc((size_t)a->n_experts * sizeof *taken);
    for (int64_t t = row0; t < row1; t++) {
        score_token(&row, a, &exact, NULL, t);
        for (int64_t e = 0; e < a->n_experts; e++) row.choice[e] = row.score[e] + selection_bias(a, e);
        limit_groups(row.choice, row.choice, a, 0);
        memset(taken, 0, (size_t)a->n_experts * sizeof *taken);
        for (int64_t j = 0; j < a->top_k; j++) {
            int64_t best = -1;
            for (int64_t e = 0; e < a->n_experts; e++)
                if (!taken[e] && (best < 0 || row.choice[e] > row.choice[best])) best = e;
            ids[(t - row0) * a->top_k + j] = (int32_t)best;
            if (best >= 0) taken[best] = true;
        }
    }
    free(row.score), free(taken);
}

enum route_verdict ref_route_judge(const double *lo, const double *hi, int64_t n_experts, const int32_t *ids,
                                   int64_t k) {
    bool *selected = ref_alloc((size_t)n_experts * sizeof *selected);
    memset(selected, 0, (size_t)n_experts * sizeof *selected);
    bool legal = k <= n_experts;
    for (int64_t j = 0; j < k && legal; j++) {
        legal = ids[j] >= 0 && ids[j] < n_experts && !selected[ids[j]];
        if (legal) selected[ids[j]] = true;
    }
    double in_lo = INFINITY, in_hi = INFINITY, out_lo = -INFINITY, out_hi = -INFINITY;
    for (int64_t e = 0; e < n_experts && legal; e++) {
        legal = !isnan(lo[e]) && !isnan(hi[e]); /* a NaN score proves nothing: reject */
        if (selected[e])
            in_lo = fmin(in_lo, lo[e]), in_hi = fmin(in_hi, hi[e]);
        else
            out_lo = fmax(out_lo, lo[e]), out_hi = fmax(out_hi, hi[e]);
    }
    free(selected);
    if (!legal || !(in_hi >= out_lo)) return ROUTE_REJECTED;
    return in_lo > out_hi ? ROUTE_CERTAIN : ROUTE_AMBIGUOUS;
}

/* Gates of the call's own ids: score / (sum of the selected + eps) * scale. The divisor is off by the
 * selected scores' errors and K + 1 roundings of its own (K additions, eps), a share `b` of it; 1 / (1 - b) is the most
 * that dividing makes of that, and from b = 1 on nothing is known. */
struct divisor {
    double value, share;
};

static struct divisor gate_divisor(const struct route_args *a, const struct route_contract *c,
                                   const struct route_row *row, int64_t t) {
    if (!a->renormalise) return (struct divisor){1, 0};
    double sum = 0, error = (double)(a->top_k + 1) * flush_unit(c->unit);
    for (int64_t j = 0; j < a->top_k; j++) {
        const int64_t id = view_index(&a->ids, t * a->ids.stride[0] + j);
        if (id < 0 || id >= a->n_experts) continue;
        sum += row->score[id];
        error += row->error[id];
    }
    sum += a->renorm_eps;
    return (struct divisor){sum, error / sum + (double)(a->top_k + 1) * (c->unit + UNIT_F64)};
}

void ref_route(const struct call *call, const struct contract *contract, const double *const *radius,
               int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct route_args *a = &call->u.route;
    const struct route_contract *c = &contract->u.route;
    const double unit = c->unit + UNIT_F64, last = unit * (3 + 4 * unit); /* quotient, scale, product */
    const double tiny = flush_unit(c->unit) * (1 + fabs(a->routed_scale));
    struct route_row row = route_row_make(a->n_experts);
    for (int64_t t = row0; t < row1; t++) {
        score_token(&row, a, c, radius, t);
        const struct divisor d = gate_divisor(a, c, &row, t);
        for (int64_t j = 0; j < a->top_k; j++) {
            const int64_t id = view_index(&a->ids, t * a->ids.stride[0] + j);
            const bool known = id >= 0 && id < a->n_experts;
            const double score = known ? row.score[id] : (double)NAN,
                         error = known ? row.error[id] : (double)NAN;
            const double gate = score / d.value * a->routed_scale, scaled = fabs(a->routed_scale) / d.value;
            const double moved = (error + score * d.share) / (1 - d.share);
            const double e = (moved + last * (score + moved)) * scaled + tiny;
            put(out, (t - row0) * a->top_k + j, gate, d.share < 1 || isnan(e) ? e : INFINITY, fabs(gate));
        }
    }
    free(row.score);
}
