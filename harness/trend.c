/* Is what one rank stored at one stage right as a whole? */
/* SPDX-License-Identifier: MIT */
#include "harness/trend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness/stage.h"
#include "reference/score.h"

/* "gain of head 5", "scale where 32 to 63 keys are seen", "weight of key 7 of sequence 0, kv head 3",
 * "weights of keys 64 to 127 of ..."; heads are global. */
static void describe(const struct placed *at, const struct score *s, char *text, size_t size) {
    const struct span *const rank = at->crew->plan.rank[at->rank];
    const int64_t head = at->crew->unsharded ? 0 : rank[AXIS_H].first,
                  kv_head = at->crew->unsharded ? 0 : rank[AXIS_G].first;
    if (s->direction == SCORE_KEYS) {
        char keys[64];
        const long long first = s->key, last = s->key + s->n_keys - 1;
        snprintf(keys, sizeof keys, first == last ? "weight of key %lld" : "weights of keys %lld to %lld",
                 first, last);
        snprintf(text, size, "%s of sequence %lld, kv head %lld", keys, (long long)s->seq,
                 (long long)(kv_head + s->kv_head));
        return;
    }
    const size_t n = (size_t)snprintf(text, size, "%s", score_direction_name(s->direction));
    if (s->head >= 0) snprintf(text + n, size - n, " of head %lld", (long long)(head + s->head));
    if (s->keys >= 0)
        snprintf(text + n, size - n, " where %lld to %lld keys are seen", (long long)s->keys,
                 (long long)(2 * s->keys - 1));
}

static struct figure figure_of(const struct score *s) {
    return s->silence == SCORE_SPEAKS ? (struct figure){s->estimate, s->resolution} : (struct figure){0};
}

static struct trend trend_of(const struct placed *at, const struct score_report *r) {
    static const enum trend_state states[] = {[SCORE_NONE] = TREND_NONE,
                                              [SCORE_FINE] = TREND_FINE,
                                              [SCORE_VAGUE] = TREND_VAGUE,
                                              [SCORE_SILENT] = TREND_SILENT,
                                              [SCORE_WRONG] = TREND_WRONG};
    struct trend t = {.state = states[r->state],
                      .gain = figure_of(&r->gain),
                      .scale = figure_of(&r->scale),
                      .tests = r->tests};
    if (t.state == TREND_SILENT)
        snprintf(t.reason, sizeof t.reason, "%s", score_silence_reason(r->gain.silence));
    if (!r->tests) return t;
    t.worst = figure_of(&r->worst);
    t.statistic = r->worst.ratio;
    t.elements = r->worst.elements;
    describe(at, &r->worst, t.about, sizeof t.about);
    return t;
}

/* Beside elements that are wrong it is a remark, as long as those are few (they may be the tip of it)
 * or one key explains them. */
enum { FEW_OF = 100 };

static void note(const struct placed *at, const struct trend *t, enum score_direction direction,
                 struct verdict v) {
    const int rank = at->crew->unsharded ? -1 : at->rank;
    const bool key = direction == SCORE_KEYS || direction == SCORE_LAST_KEY;
    const bool lost = key && t->worst.estimate < -0.7 && t->worst.estimate > -1.5;
    char text[300];
    snprintf(
        text, sizeof text,
        "statistical: %s %+.2g%s, resolution %.1e, %.3g of the threshold, %lld elements, a false alarm in "
        "%.0e runs",
        t->about, t->worst.estimate, lost ? " (not read)" : "", t->worst.resolution, t->statistic,
        (long long)t->elements, 1 / SCORE_ALPHA);
    if (v.edge->outside == 0)
        findings_note(v.findings, at->stage, rank, text);
    else if (lost || v.edge->outside * FEW_OF < v.edge->elements) {
        char remark[310];
        snprintf(remark, sizeof remark, "; %s", text);
        findings_remark(v.findings, at->stage, rank, remark);
    }
    edge_fail(v.edge);
}

void judge_trend(const struct placed *at, const struct outcome *o, const struct answer *a,
                 struct spread spread, struct verdict v) {
    for (int i = 0; i < a->n; i++) {
        void *owned;
        const void *const got = answer_stored(at, &o->got, a, i, &owned);
        const struct score_case c = {.call = &o->call,
                                     .contract = &o->contract,
                                     .output = i,
                                     .dtype = placed_dtype(at, a->id[i]),
                                     .stored = got,
                                     .y = a->y[i],
                                     .e = a->e[i],
                                     .lattice = spread.lattice,
                                     .random_signs = spread.random_signs};
        struct score_report report;
        ref_score(&c, &report);
        const struct trend t = trend_of(at, &report);
        if (t.state == TREND_WRONG) note(at, &t, report.worst.direction, v);
        trend_merge(&v.edge->trend, &t);
        free(owned);
    }
}
