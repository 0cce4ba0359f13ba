/* Is an element right? */
/* SPDX-License-Identifier: MIT */
#include "harness/judge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/memory.h"
#include "layer/copy.h"
#include "reference/reference.h"

void edge_fail(struct edge_result *edge) { edge->state = EDGE_FAIL; }

void trend_merge(struct trend *into, const struct trend *from) {
    if (from->state < into->state) return;
    if (from->state == into->state && !(from->statistic > into->statistic)) return;
    *into = *from;
}

void edge_merge(struct edge_result *into, const struct edge_result *from) {
    if (from->state > into->state) into->state = from->state;
    if (from->margin > into->margin) into->margin = from->margin;
    into->elements += from->elements;
    into->outside += from->outside;
    into->ambiguous += from->ambiguous;
    into->sampled_rows += from->sampled_rows;
    into->rows += from->rows;
    into->single += from->single;
    into->sets += from->sets;
    into->other_bits += from->other_bits;
    into->vacuous += from->vacuous;
    into->in_order += from->in_order;
    if (!into->order[0]) memcpy(into->order, from->order, sizeof into->order);
    into->sharpness = fmax(into->sharpness, from->sharpness);
    trend_merge(&into->trend, &from->trend);
}

void edge_begin(struct edge_result *edge, const struct judged *j, struct findings *findings) {
    edge->elements += j->count;
    if (edge->state == EDGE_NOT_RUN) edge->state = EDGE_OK;
    findings_judged(findings, j);
}

/* ---- verdicts ---- */

enum { PARALLEL_FROM = 1 << 16, PIECE = 1 << 12, FEW = 64 }; /* elements; fewer are one thread's */

/* Poison that is a number lies in a set that is wide enough; nobody stored it all the same, unless
 * it is about what should be there. */
static bool is_poison(const struct judged *j, int64_t i, double y) {
    return dtype_is_huge_poison(j->got, j->dtype, i) && !(fabs(y) > dtype_huge(j->dtype));
}

static struct element_verdict judge_element(const struct judged *j, int64_t i) {
    if (is_poison(j, i, j->y[i])) return (struct element_verdict){ELEMENT_OUTSIDE, INFINITY};
    return element_judge(j->dtype, dtype_load(j->got, j->dtype, i), j->y[i], j->e ? j->e[i] : 0);
}

/* Of the pass on orders, which comes once all elements lie in their sets: it was not replayed. */
static inline bool is_left_out(const struct judged *j, int64_t i) { return j->in_order && isinf(j->e[i]); }

#define NOBODYS ": never written, or read from where nothing is"

/* The largest margin where all are right; false where one is not. */
static bool all_right(const struct judged *j, double *largest) {
    double margin = 0;
    int64_t wrong = 0;
#pragma omp parallel for reduction(max : margin) reduction(+ : wrong) if (j->count > PARALLEL_FROM)
    for (int64_t first = 0; first < j->count; first += FEW) {
        const int64_t n = j->count - first < FEW ? j->count - first : FEW;
        if (elements_rounded(j->dtype, j->got, first, j->y + first, j->e ? j->e + first : NULL, n)) continue;
        for (int64_t i = first; i < first + n; i++) {
            if (is_left_out(j, i)) continue;
            const struct element_verdict v = judge_element(j, i);
            wrong += v.kind != ELEMENT_OK;
            if (v.margin > margin) margin = v.margin;
        }
    }
    *largest = margin;
    return !wrong;
}

static int64_t count_bounded(const struct judged *j) {
    int64_t n = 0;
#pragma omp parallel for reduction(+ : n)
    for (int64_t i = 0; i < j->count; i++) n += isfinite(j->e[i]);
    return n;
}

void judge_set(const struct judged *j, struct edge_result *edge, struct findings *findings) {
    double largest;
    if (j->in_order) /* they were counted when the bounds were asked */
        edge->in_order += count_bounded(j);
    else
        edge_begin(edge, j, findings);
    if (all_right(j, &largest)) {
        edge->margin = fmax(edge->margin, largest);
        return;
    }
    for (int64_t i = 0; i < j->count; i++) { /* in order, for the findings */
        if (is_left_out(j, i)) continue;
        const double got = dtype_load(j->got, j->dtype, i);
        const struct element_verdict v = judge_element(j, i);
        if (v.kind == ELEMENT_OK) {
            if (v.margin > edge->margin) edge->margin = v.margin;
            continue;
        }
        edge_fail(edge);
        edge->outside++;
        edge->margin = fmax(edge->margin, v.margin);
        edge->other_bits += j->in_order;
        const char *const note = isnan(got)                 ? "NaN" NOBODYS
                                 : is_poison(j, i, j->y[i]) ? "poison" NOBODYS
                                 : j->in_order
                                     ? "a legal value, but not what the declared order of the sum gives"
                                 : v.kind == ELEMENT_NONFINITE ? "not finite"
                                                               : "outside the acceptance set";
        findings_add(findings, j, i, got, j->y[i], j->e ? j->e[i] : 0, v.margin, note);
    }
}

/* Neither the unsharded run nor the rank wrote it, and their poison is not the same: a failure of the
 * kernel edge, not of this one. */
static bool unwritten_by_both(const struct judged *j, const void *expected, int64_t i) {
    if (j->dtype == DTYPE_I32 || !j->y || fabs(j->y[i]) > dtype_huge(j->dtype)) return false;
    const bool huge = dtype_is_huge_poison(j->got, j->dtype, i),
               other_huge = dtype_is_huge_poison(expected, j->dtype, i);
    return (huge && isnan(dtype_load(expected, j->dtype, i))) ||
           (other_huge && isnan(dtype_load(j->got, j->dtype, i)));
}

void judge_identical(const struct judged *j, const void *expected, struct edge_result *edge,
                     struct findings *findings) {
    const size_t size = dtype_bytes(j->dtype);
    edge_begin(edge, j, findings);
    if (same_bytes(j->got, expected, size * (size_t)j->count)) return;
    for (int64_t i = 0; i < j->count; i++) {
        if (!memcmp((const char *)j->got + (size_t)i * size, (const char *)expected + (size_t)i * size, size))
            continue;
        if (unwritten_by_both(j, expected, i)) continue;
        const double got = dtype_load(j->got, j->dtype, i), want = dtype_load(expected, j->dtype, i);
        const double y = j->y ? j->y[i] : want, e = j->e ? j->e[i] : 0;
        const double margin = is_poison(j, i, y) ? INFINITY : element_judge(j->dtype, got, y, e).margin;
        edge_fail(edge);
        edge->outside++;
        edge->margin = fmax(edge->margin, margin);
        edge->other_bits += margin <= 1;
        char note[160];
        if (isnan(got) || is_poison(j, i, y))
            snprintf(note, sizeof note, "%s" NOBODYS, isnan(got) ? "NaN" : "poison");
        else if (!(margin <= 1))
            snprintf(note, sizeof note, "not what the unsharded run stored, and outside its acceptance set");
        else
            snprintf(note, sizeof note, "a legal value, but not the bits of the unsharded run%s%s",
                     j->promised_by ? ", as promised by " : "", j->promised_by ? j->promised_by : "");
        findings_add(findings, j, i, got, y, e, margin, note);
    }
}

void judge_repeated(const struct judged *j, const void *first, const char *note, struct edge_result *edge,
                    struct findings *findings) {
    const size_t size = dtype_bytes(j->dtype);
    edge_begin(edge, j, findings);
    for (int64_t i = 0; i < j->count; i++) {
        if (!memcmp((const char *)j->got + (size_t)i * size, (const char *)first + (size_t)i * size, size))
            continue;
        edge_fail(edge);
        edge->outside++;
        edge->margin = INFINITY;
        findings_add(findings, j, i, dtype_load(j->got, j->dtype, i), dtype_load(first, j->dtype, i), 0,
                     INFINITY, note);
    }
}

/* ---- twice the same ---- */

struct twice {
    bool same;
    double margin;
};

static struct twice compare(double a, double b, const double *slack, bool kernels) {
    const double distance = fabs(a - b);
    const bool same = (slack ? distance <= *slack : !memcmp(&a, &b, sizeof a)) ||
                      (kernels && ((isnan(a) && isnan(b)) || (isinf(a) && a == b)));
    return (struct twice){same, slack && *slack > 0 && !isnan(distance) ? distance / *slack
                                : same                                  ? 0
                                                                        : INFINITY};
}

/* The largest margin where all are the same; false where one is not. */
static bool all_same(const struct judged *j, const double *a, const double *b, const double *slack,
                     bool kernels, double *largest) {
    double margin = 0;
    int64_t others = 0;
#pragma omp parallel for reduction(max : margin) reduction(+ : others) if (j->count > PARALLEL_FROM)
    for (int64_t first = 0; first < j->count; first += PIECE) {
        const int64_t end = j->count - first < PIECE ? j->count : first + PIECE;
        if (!slack && !memcmp(a + first, b + first, (size_t)(end - first) * sizeof *a)) continue;
        for (int64_t i = first; i < end; i++) {
            const struct twice t = compare(a[i], b[i], slack ? &slack[i] : NULL, kernels);
            others += !t.same;
            if (t.margin > margin) margin = t.margin;
        }
    }
    *largest = margin;
    return !others;
}

/* `kernels`: operands may come from a kernel. NaN on both sides then came in with them, and the
 * kernel edge has failed. */
static void judge_twice(const struct judged *j, const double *a, const double *b, const double *slack,
                        bool kernels, const char *note, struct edge_result *edge, struct findings *findings) {
    edge_begin(edge, j, findings);
    double largest;
    if (all_same(j, a, b, slack, kernels, &largest)) {
        edge->margin = fmax(edge->margin, largest);
        return;
    }
    for (int64_t i = 0; i < j->count; i++) { /* in order, for the findings */
        const struct twice t = compare(a[i], b[i], slack ? &slack[i] : NULL, kernels);
        edge->margin = fmax(edge->margin, t.margin);
        if (t.same) continue;
        edge_fail(edge);
        edge->outside++;
        findings_add(findings, j, i, a[i], b[i], slack ? slack[i] : 0, t.margin, note);
    }
}

void judge_plan(const struct judged *j, const double *a, const double *b, const double *slack,
                struct edge_result *edge, struct findings *findings) {
    judge_twice(j, a, b, slack, true,
                "the reference on the rank's own operands disagrees with the reference on the whole", edge,
                findings);
}

void judge_chain(const struct judged *j, const double *composed, const double *plain, const double *slack,
                 struct edge_result *edge, struct findings *findings) {
    judge_twice(j, composed, plain, slack, false,
                "the stages composed, the reference in every seat, disagree with reference/plain.c", edge,
                findings);
    findings->twin = findings->stage >= 0;
}

/* Of the cache only the slots that the call does not own are judged. */
static void judge_slots(const struct judged *j, const unsigned char *owned, int64_t rows,
                        int64_t row_elements, struct findings *findings) {
    struct judged slot = *j;
    slot.count = row_elements;
    for (int64_t r = 0; r < rows; r++) {
        if (owned[r]) continue;
        slot.first = r * row_elements;
        findings_judged(findings, &slot);
    }
}

/* Every element of the slot that changed. */
static void add_slot(const struct judged *j, const void *before, const void *after, int64_t first,
                     int64_t row_elements, struct findings *findings) {
    const size_t size = dtype_bytes(j->dtype);
    for (int64_t i = first; i < first + row_elements; i++)
        if (memcmp((const char *)before + (size_t)i * size, (const char *)after + (size_t)i * size, size))
            findings_add(findings, j, i, dtype_load(after, j->dtype, i), dtype_load(before, j->dtype, i), 0,
                         INFINITY, "a cache slot that the call does not own was written");
}

void judge_untouched(const struct judged *j, const void *before, const void *after,
                     const unsigned char *owned, int64_t rows, size_t row_bytes, struct edge_result *edge,
                     struct findings *findings) {
    const int64_t row_elements = (int64_t)(row_bytes / dtype_bytes(j->dtype));
    bool wrong = false;
    if (edge->state == EDGE_NOT_RUN) edge->state = EDGE_OK;
    for (int64_t r = 0; r < rows; r++) {
        const size_t at = (size_t)r * row_bytes;
        if (owned[r] || !memcmp((const char *)before + at, (const char *)after + at, row_bytes)) continue;
        edge_fail(edge);
        edge->outside += row_elements;
        edge->margin = INFINITY;
        if (!wrong) judge_slots(j, owned, rows, row_elements, findings);
        wrong = true;
        add_slot(j, before, after, r * row_elements, row_elements, findings);
    }
}
