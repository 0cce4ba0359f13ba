/* router - how likely is each expert chosen, and with which gate? Scores are sigmoid or softmax of
 * the stored logits (read as they are), known to an error; choices = score + bias are therefore
 * intervals. Which sets of experts they allow is top_k.c's. */
/* SPDX-License-Identifier: MIT */
#include "reference/internal.h"

#include <math.h>
#include <stdlib.h>

/* One token's scores, [E], and their errors: absolute, for one that underflows has no relative one. */
struct route_row {
    double *score, *error;
};

/* How far exp(-below) is off whose argument is by `d`: exp(-below) (exp(d) - 1). Neither factor may
 * overflow, for the other one may be 0. */
static double moved_exp(double below, double d) { return d < 1 ? exp(-below) * expm1(d) : exp(d - below); }

/* s = 1 / (1 + e) or e / (1 + e) with e = exp(-|x|), or its overflowing inverse. |x| is rounded on
 * its way into the exponential (2u |x|). With e off by exp(+-d), s is off by s (1 - s) (exp(d) - 1)
 * at most, and s (1 - s) = e / (1 + e)^2; then 1 + e and a division, 4u. Or s = t/2 + 1/2, t =
 * tanh(x/2) at most 1: half its error, and one rounding. */
static void sigmoid_scores(const struct route_row *row, const double *logit_error, int64_t n_experts,
                           const struct route_contract *c) {
    for (int64_t i = 0; i < n_experts; i++) {
        const double x = row->score[i], e = exp(-fabs(x));
        const double d = logit_error[i] + 2 * (c->unit + UNIT_F64) * fabs(x) + c->exp_error;
        const double s = x >= 0 ? 1 / (1 + e) : e / (1 + e),
                     moved = moved_exp(fabs(x), d) / (1 + e) / (1 + e);
        row->score[i] = s;
        if (c->tanh_error > 0) {
            row->error[i] = moved_exp(fabs(x), logit_error[i]) / (1 + e) / (1 + e) + c->tanh_error / 2;
            row->error[i] += (c->unit + 4 * UNIT_F64) * (s + row->error[i]) + flush_unit(c->unit);
            continue;
        }
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
    const double common = sum_error / sum + (double)((c->depth ? c->depth : n_experts) + 4) * unit;
    for (int64_t e = 0; e < n_experts; e++) {
        const double moved = (row->error[e] + row->score[e] * common) / (1 - common);
        row->score[e] /= sum;
        row->error[e] = common < 1 ? moved / sum + flushed : INFINITY;
    }
}

static struct fuzzy plus(struct fuzzy x, struct fuzzy b, double unit) {
    struct running sum;
    running_clear(&sum, 1);
    running_add(&sum, x.value, x.radius);
    running_add(&sum, b.value, b.radius);
    return running_end(&sum, 2, unit);
}

/* exp(x - by), x - by first rounded to d, and so is what comes out. */
static struct fuzzy exp_less(struct fuzzy x, struct fuzzy by, const struct route_contract *c) {
    const struct fuzzy t = image(plus(x, (struct fuzzy){-by.value, by.radius}, c->unit), c->logsumexp);
    const double moved = moved_exp(-t.value, t.radius + c->exp_error);
    return image((struct fuzzy){exp(t.value), moved + flush_unit(c->unit)}, c->logsumexp);
}

/* exp(x - Z), Z = log(sum of exp(x - m)) + m with the largest logit m: every step computed and rounded. Sums
 * of numbers of so few bits are mostly exact, and mostly ties; a logarithm has two roundings. */
static void logsumexp_scores(const struct route_row *row, const double *logit_error, int64_t n,
                             const struct route_contract *c) {
    struct fuzzy m = {-INFINITY, 0};
    struct running terms;
    running_clear(&terms, 1);
    for (int64_t i = 0; i < n; i++)
        m.value = fmax(m.value, row->score[i]), m.radius = fmax(m.radius, logit_error[i]);
    for (int64_t i = 0; i < n; i++) {
        const struct fuzzy term = exp_less((struct fuzzy){row->score[i], logit_error[i]}, m, c);
        running_add(&terms, term.value, term.radius);
    }
    const struct fuzzy sum = image(running_end(&terms, n, c->unit), c->logsumexp);
    const double share = sum.radius / sum.value, l = log(sum.value);
    const double off = share < 1 ? -log1p(-share) : INFINITY;
    const double own = 4 * (c->unit + UNIT_F64) * (fabs(l) + off);
    const struct fuzzy z =
        image(plus(image((struct fuzzy){l, off + own}, c->logsumexp), m, c->unit), c->logsumexp);
    for (int64_t i = 0; i < n; i++) {
        const struct fuzzy gate = exp_less((struct fuzzy){row->score[i], logit_error[i]}, z, c);
        row->score[i] = gate.value, row->error[i] = gate.radius;
    }
}

/* What a token is selected by, or, where they are others, its gates. Logits that fp32 arithmetic does not hold
 * are rounded into it first. */
enum scores_for { SELECTION, GATES };
static void score_token(const struct route_row *row, const struct route_args *a,
                        const struct route_contract *c, const double *const *radius, int64_t t,
                        enum scores_for what) {
    const bool logs =
        what == GATES && !a->renormalise && a->score == SCORE_SOFTMAX && c->logsumexp != DTYPE_F64;
    double *logit_error = ref_alloc((size_t)a->n_experts * sizeof *logit_error);
    view_row(row->score, &a->logits, t * a->logits.stride[0], a->n_experts);
    radius_row(logit_error, radius, 0, &a->logits, t * a->logits.stride[0], a->n_experts);
    for (int64_t e = 0; e < a->n_experts; e++) {
        const double x = row->score[e];
        const bool wide = c->unit == UNIT_F32 && (logit_error[e] > 0 || dtype_round(DTYPE_F32, x) != x);
        logit_error[e] += wide ? c->unit * (fabs(x) + logit_error[e]) : 0;
    }
    image_of(row->score, logit_error, a->n_experts, c->logits);
    (logs                        ? logsumexp_scores
     : a->score == SCORE_SIGMOID ? sigmoid_scores
                                 : softmax_scores)(row, logit_error, a->n_experts, c);
    image_of(row->score, row->error, a->n_experts, c->scores);
    free(logit_error);
}

static struct route_row route_row_make(int64_t n_experts) {
    double *p = ref_alloc((size_t)n_experts * 2 * sizeof *p);
    return (struct route_row){p, p + n_experts};
}

static double selection_bias(const struct route_args *a, int64_t e) {
    return a->bias.data ? view_at(&a->bias, e) : 0;
}

void ref_route_choices(const struct call *call, const struct contract *contract, const double *const *radius,
                       int64_t row0, int64_t row1, double *lo, double *hi) {
    const struct route_args *a = &call->u.route;
    const struct route_contract *c = &contract->u.route;
    const double unit = c->unit + UNIT_F64, flushed = flush_unit(c->unit);
    struct route_row row = route_row_make(a->n_experts);
    for (int64_t t = row0; t < row1; t++, lo += a->n_experts, hi += a->n_experts) {
        score_token(&row, a, &contract->u.route, radius, t, SELECTION);
        for (int64_t e = 0; e < a->n_experts; e++) {
            const double bias = dtype_round(c->choices, selection_bias(a, e));
            const double low = row.score[e] - row.error[e] + bias, high = row.score[e] + row.error[e] + bias;
            const double rounded = unit * fmax(fabs(low), fabs(high)) + flushed; /* by the addition */
            lo[e] = dtype_round(c->choices, low - (a->bias.data ? rounded : 0));
            hi[e] = dtype_round(c->choices, high + (a->bias.data ? rounded : 0));
        }
    }
    free(row.score);
}

void ref_route_ids(const struct call *call, int64_t row0, int64_t row1, int32_t *ids) {
    const struct route_args *a = &call->u.route;
    const struct route_contract exact = {0};
    struct route_row row = route_row_make(a->n_experts);
    for (int64_t t = row0; t < row1; t++) {
        score_token(&row, a, &exact, NULL, t, SELECTION);
        for (int64_t e = 0; e < a->n_experts; e++) row.score[e] += selection_bias(a, e);
        top_k_pick(row.score, a, ids + (t - row0) * a->top_k);
    }
    free(row.score);
}

/* Of token t, whatever the arithmetic. */
static bool are_equal(const struct route_args *a, const double *low, const double *high, int64_t t,
                      int64_t one, int64_t other) {
    const int64_t size = a->n_experts / max_i64(a->n_group, 1), row = t * a->logits.stride[0];
    if (low[one] == high[one] && low[other] == high[other] && low[one] == low[other]) return true;
    return one / size == other / size && view_at(&a->logits, row + one) == view_at(&a->logits, row + other) &&
           selection_bias(a, one) == selection_bias(a, other);
}

bool ref_route_tie(const struct route_args *a, const double *low, const double *high, int64_t t,
                   const int32_t *ids, int64_t *loser, int64_t *winner) {
    for (int64_t j = 0; j < a->top_k; j++) {
        const int64_t e = *loser = ids[j];
        if (e < 0 || e >= a->n_experts) continue;
        for (*winner = 0; *winner < e; ++*winner) {
            bool chosen = false;
            for (int64_t i = 0; i < a->top_k; i++) chosen |= ids[i] == *winner;
            if (!chosen && are_equal(a, low, high, t, *winner, e)) return true;
        }
    }
    return false;
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
    const double roundings = (double)(a->top_k + 1) * (c->unit + UNIT_F64) + error / sum;
    return (struct divisor){sum, roundings + c->gate_unit * (1 + roundings)};
}

/* What the division, the scale and the product add, as a share. */
static double last_roundings(const struct route_contract *c) {
    const double unit = c->unit + UNIT_F64, own = unit * (3 + 4 * unit),
                 stored = c->gate_unit * (2 + c->gate_unit);
    return own + stored * (1 + own);
}

/* Gates of token t, and how far they are off: [K] each. */
static void gate_token(double *gate, double *e, const struct route_args *a, const struct route_contract *c,
                       const struct route_row *row, int64_t t) {
    const struct divisor d = gate_divisor(a, c, row, t);
    const double scaled = fabs(a->routed_scale) / d.value, last = last_roundings(c);
    const double tiny = flush_unit(c->unit) * (1 + fabs(a->routed_scale));
    for (int64_t j = 0; j < a->top_k; j++) {
        const int64_t id = view_index(&a->ids, t * a->ids.stride[0] + j);
        const bool known = id >= 0 && id < a->n_experts;
        const double score = known ? row->score[id] : (double)NAN,
                     error = known ? row->error[id] : (double)NAN;
        const double moved = (error + score * d.share) / (1 - d.share);
        gate[j] = score / d.value * a->routed_scale;
        e[j] = d.share >= 1 && known ? INFINITY : (moved + last * (score + moved)) * scaled + tiny;
    }
}

/* Known roundings of logits and scores move the gates. */
void ref_route(const struct call *call, const struct contract *contract, const double *const *radius,
               int64_t row0, int64_t row1, const struct ref_out *out) {
    const struct route_args *a = &call->u.route;
    struct route_row row = route_row_make(a->n_experts);
    double *gate = ref_alloc((size_t)a->top_k * 2 * sizeof *gate), *e = gate + a->top_k;
    for (int64_t t = row0; t < row1; t++) {
        score_token(&row, a, &contract->u.route, radius, t, GATES);
        gate_token(gate, e, a, &contract->u.route, &row, t);
        for (int64_t j = 0; j < a->top_k; j++)
            put(out, (t - row0) * a->top_k + j, gate[j], e[j], fabs(gate[j]));
    }
    free(row.score), free(gate);
}
