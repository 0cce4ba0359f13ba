/* Whose mistake is it? Rows that failed are computed again as each known mistake would have
 * computed them. */
/* SPDX-License-Identifier: MIT */
#include "harness/explain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/mistake.h"

#define REPLAY_WORK 1e8 /* multiply-adds up to which every row is replayed; above, those that failed */
#define ROWS_WORK 1e7   /* and up to which rows are replayed before they are compared */
enum { ALSO_ROWS = 4 }; /* and so many that did not: a mistake that would have spoilt them is not the one */

struct replay {
    const struct placed *at;
    const struct outcome *outcome;
    const struct answer *answer;
    bool every; /* all rows */
    int64_t n_rows;
    bool *row;        /* [n_rows] is it replayed? */
    const char *only; /* what explain wrote: that mistake alone; NULL: any */
};

static const void *stored(const struct replay *r, int i, void **owned) {
    return answer_stored(r->at, &r->outcome->got, r->answer, i, owned);
}

static void mark_failed(struct replay *r, int i) {
    const struct answer *const a = r->answer;
    const enum dtype dtype = placed_dtype(r->at, a->id[i]);
    void *owned;
    const void *const got = stored(r, i, &owned);
    for (int64_t n = 0; n < a->count[i]; n++)
        if (element_judge(dtype, dtype_load(got, dtype, n), a->y[i][n], a->e[i][n]).kind != ELEMENT_OK)
            r->row[n / a->row_size[i]] = true;
    free(owned);
}

/* Experts that no scores allow, or indices that are not the reference's. */
static bool integers_right(const struct replay *r) {
    struct mistake none = mistake_none(r->at, r->outcome);
    return mistake_accepts_integers(&none);
}

/* False: no value is wrong. A guard that was written over has no mistake of the table behind it. */
static bool choose_rows(struct replay *r) {
    const struct op_row *const op = placed_op(r->at);
    const double work = op->row_work ? op->row_work(&r->outcome->call) : 1;
    bool failed = false;
    r->n_rows = ref_n_rows(&r->outcome->call);
    r->row = memory_zeroed((size_t)r->n_rows, sizeof *r->row);
    r->every = work * (double)r->n_rows <= REPLAY_WORK;
    for (int i = 0; i < r->answer->n; i++) mark_failed(r, i);
    for (int64_t n = 0; n < r->n_rows; n++) failed |= r->row[n];
    failed |= !integers_right(r);
    for (int64_t n = 0; n < r->n_rows; n++) r->row[n] |= r->every || n % (r->n_rows / ALSO_ROWS + 1) == 0;
    return failed;
}

/* What a replay came to. */
struct match {
    double margin;
    int64_t numbers; /* elements that are no NaN: NaN all over has too many causes */
};

/* NaN where the mistaken call reads what nobody owns is reproduced by NaN alone. */
static bool reproduces(enum dtype dtype, double got, double y, double e, struct match *match) {
    if (isnan(y)) return isnan(got);
    const struct element_verdict v = element_judge(dtype, got, y, isnan(e) ? 0 : e);
    if (v.margin > match->margin) match->margin = v.margin;
    match->numbers++;
    return v.kind == ELEMENT_OK;
}

/* A wrong value that lies in the mistake's set because that holds the right one, too: the bound is
 * wide, and that is all. */
static bool says_nothing(enum dtype dtype, double got, double right_y, double right_e, double y, double e) {
    return !isnan(y) && !(fabs(y - right_y) > e) &&
           element_judge(dtype, got, right_y, right_e).kind != ELEMENT_OK;
}

/* Does the reference, making the mistake, accept what was stored in these rows? */
static bool accepts(const struct replay *r, const struct mistake *m, int64_t row0, int64_t row1,
                    struct match *match) {
    const struct answer *const a = r->answer;
    struct ref_out out[MAX_REF_OUT] = {0};
    bool accepted = true;
    for (int i = 0; i < a->n; i++) {
        const size_t n = (size_t)((row1 - row0) * a->row_size[i]);
        out[i] = (struct ref_out){memory_zeroed(n, sizeof(double)), memory_zeroed(n, sizeof(double)), NULL};
    }
    mistake_compute(m, row0, row1, out);
    for (int i = 0; i < a->n; i++) {
        const enum dtype dtype = placed_dtype(r->at, a->id[i]);
        void *owned;
        const void *const got = stored(r, i, &owned);
        for (int64_t n = 0, at = row0 * a->row_size[i]; n < (row1 - row0) * a->row_size[i] && accepted;
             n++, at++) {
            const double value = dtype_load(got, dtype, at), y = out[i].y[n], e = out[i].e[n];
            accepted = reproduces(dtype, value, y, e, match) &&
                       !says_nothing(dtype, value, a->y[i][at], a->e[i][at], y, e);
        }
        free(owned), free(out[i].y), free(out[i].e);
    }
    return accepted;
}

/* The first row that speaks against it is the last one. */
static bool accepts_rows(const struct replay *r, const struct mistake *m, struct match *match) {
    const double fit = ROWS_WORK / call_row_work(&r->outcome->call);
    const int64_t most = fit < 1 ? 1 : fit < (double)r->n_rows ? (int64_t)fit : r->n_rows;
    bool accepted = true;
    for (int64_t row = 0, end; row < r->n_rows && accepted; row = end) {
        for (end = row; end < r->n_rows && end < row + most && r->row[end];) end++;
        if (end > row) accepted = accepts(r, m, row, end, match);
        if (end == row) end++;
    }
    return accepted;
}

/* At some sizes two mistakes coincide; the one that belongs to the case's layout is tried first. */
static bool belongs(const struct mutant *m, enum layout layout) {
    return !m->layouts || m->layouts >> layout & 1;
}

static bool is_named(const struct mutant *m, const char *likely) {
    const size_t n = strlen(m->name);
    return !strncmp(m->name, likely, n) && likely[n] == ' ';
}

static bool explain_by(const struct replay *r, bool here, char *likely, size_t size) {
    const struct mutant *by;
    bool found = false;
    for (int i = 0; (by = mutant_at(i)) && !found; i++) {
        struct mistake m;
        struct match match = {0};
        if (r->only && !is_named(by, r->only)) continue;
        if (by->missing || by->part != r->at->crew->part || belongs(by, r->at->crew->layout) != here)
            continue;
        found = mistake_open(&m, r->at, by, r->outcome, true) && mistake_accepts_integers(&m) &&
                accepts_rows(r, &m, &match) && (match.numbers > 0 || placed_op(r->at)->first > 0);
        mistake_close(&m);
        if (found)
            snprintf(likely, size, "%s (%s): %s; its replay reproduces every %s (margin %.2f)", by->name,
                     by->source, by->describes, r->every ? "element" : "element of the rows that failed",
                     match.margin);
    }
    return found;
}

bool explains_too(const struct placed *at, const struct outcome *o, const struct answer *answer,
                  const char *likely) {
    struct replay r = {.at = at, .outcome = o, .answer = answer, .only = likely};
    char text[400];
    const bool fits = choose_rows(&r) &&
                      (explain_by(&r, true, text, sizeof text) || explain_by(&r, false, text, sizeof text));
    free(r.row);
    return fits;
}

void explain(const struct placed *at, const struct outcome *o, const struct answer *answer, char *likely,
             size_t size) {
    struct replay r = {.at = at, .outcome = o, .answer = answer};
    if (choose_rows(&r) && !explain_by(&r, true, likely, size)) explain_by(&r, false, likely, size);
    free(r.row);
}
