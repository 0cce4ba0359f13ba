/* Which rows are enough, and are they right? */
/* SPDX-License-Identifier: MIT */
#include "harness/bench_judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/answer.h"
#include "harness/memory.h"

/* ---- which rows ---- */

/* Rows start[g] .. start[g + 1] belong together: to a sequence, or an expert. n = 0: they do not.
 */
struct groups {
    const int32_t *start; /* [n + 1] */
    int64_t n;
};

static struct groups groups_of(const struct call *call) {
    switch (call->op) {
    case OP_ATTENTION: return (struct groups){call->u.attention.query_start.data, call->u.attention.n_seqs};
    case OP_LINEAR:
        return (struct groups){call->u.linear.offsets.data,
                               call->u.linear.offsets.data ? call->u.linear.n_groups : 0};
    case OP_GATED_LINEAR:
        return (struct groups){call->u.gated_linear.offsets.data, call->u.gated_linear.n_groups};
    default: return (struct groups){NULL, 0};
    }
}

/* The first and the last row of every group, in order. Returns how many; row [2 * (groups + 1)]. */
static int64_t end_rows(const struct call *call, int64_t *row) {
    const int32_t all[2] = {0, (int32_t)ref_n_rows(call)};
    const struct groups found = groups_of(call), g = found.n ? found : (struct groups){all, 1};
    int64_t n = 0;
    for (int64_t i = 0; i < g.n; i++) {
        if (g.start[i] == g.start[i + 1]) continue;
        row[n++] = g.start[i];
        if (g.start[i + 1] - g.start[i] > 1) row[n++] = g.start[i + 1] - 1;
    }
    return n;
}

/* taken [rows]. The very last row; the ends of groups, or of as many groups as there is work for,
 * evenly; then any. */
static int64_t draw_rows(const struct call *call, double most_work, bool *taken) {
    const int64_t rows = ref_n_rows(call);
    const double fit = most_work / call_row_work(call);
    const int64_t wanted = fit < 1 ? 1 : fit < (double)rows ? (int64_t)fit : rows;
    int64_t *const end = memory_zeroed((size_t)(2 * groups_of(call).n + 2), sizeof *end);
    const int64_t n_ends = end_rows(call, end), n = wanted < n_ends ? wanted : n_ends;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) /* from the last one back */
        taken[end[n_ends - 1 - i * n_ends / n]] = true;
    for (int64_t r = 0; r < rows; r++) count += taken[r];
    uint64_t state = 11;
    while (count < wanted) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        int64_t r = (int64_t)((state >> 33) % (uint64_t)rows);
        while (taken[r]) r = (r + 1) % rows;
        taken[r] = true;
        count++;
    }
    free(end);
    return count;
}

/* ---- are they right? ---- */

struct worst {
    const char *kernel;
    int64_t wrong, row, column;
    double got, expected, bound, margin;
};

static struct view out_of(const struct call *call) {
    switch (call->op) {
    case OP_ATTENTION: return call->u.attention.out;
    case OP_LINEAR: return call->u.linear.out;
    case OP_ACTIVATION: return call->u.activation.out;
    default: return call->u.gated_linear.out;
    }
}

/* Elements of rows [first, first + n) that lie outside, the worst of them kept. */
static void judge_rows(const struct call *call, const struct contract *contract, int64_t first, int64_t n,
                       double *y, double *e, struct worst *worst, double *largest) {
    const int64_t size = ref_row_size(call, 0);
    const struct view got = out_of(call);
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    ref_compute(call, contract, NULL, first, first + n, out);
    for (int64_t i = 0; i < n * size; i++) {
        const double stored = dtype_load(got.data, got.dtype, first * size + i);
        const struct element_verdict v = element_judge(got.dtype, stored, y[i], e[i]);
        if (v.kind == ELEMENT_OK) {
            *largest = fmax(*largest, v.margin);
            continue;
        }
        if (!worst->wrong++ || v.margin > worst->margin) {
            worst->row = first + i / size, worst->column = i % size;
            worst->got = stored, worst->expected = y[i], worst->bound = e[i], worst->margin = v.margin;
        }
    }
}

static void judge_step(const struct bench_chain *chain, int step, double most_work, struct worst *worst,
                       struct bench_row *row) {
    enum { TOGETHER = 64 };
    const struct call *const call = &chain->seen[step];
    const struct contract contract = chain->kernel[step]->contract(call);
    const int64_t rows = ref_n_rows(call), size = ref_row_size(call, 0);
    bool *const taken = memory_zeroed((size_t)rows, sizeof *taken);
    double *const y = memory_zeroed((size_t)(TOGETHER * size), sizeof *y), *const e = memory_zeroed(
                                                                               (size_t)(TOGETHER * size),
                                                                               sizeof *e);
    const int64_t n = draw_rows(call, most_work, taken);
    worst->kernel = chain->kernel[step]->name;
    for (int64_t r = 0, end; r < rows; r = end) {
        for (end = r; end < rows && end < r + TOGETHER && taken[end];) end++;
        if (end == r)
            end++;
        else
            judge_rows(call, &contract, r, end - r, y, e, worst, &row->margin);
    }
    row->rows_judged += n;
    row->rows += rows;
    row->elements += n * size;
    free(taken), free(y), free(e);
}

/* "token 5 head 3 dim 7", "row 9, of expert 2, column 7" */
static void describe_place(const struct call *call, const struct worst *w, char *text, size_t size) {
    const long long row = w->row, column = w->column;
    if (call->op == OP_ATTENTION) {
        const int64_t dim = call->u.attention.head_dim;
        snprintf(text, size, "token %lld head %lld dim %lld", row, column / dim, column % dim);
        return;
    }
    const struct groups g = groups_of(call);
    int64_t group = 0;
    while (group + 1 < g.n && g.start[group + 1] <= w->row) group++;
    if (g.n > 1)
        snprintf(text, size, "row %lld, of expert %lld, column %lld", row, (long long)group, column);
    else
        snprintf(text, size, "row %lld column %lld", row, column);
}

static void tell_wrong(const struct call *call, const struct worst *w, struct bench_row *row) {
    char place[80];
    describe_place(call, w, place, sizeof place);
    row->state = BENCH_WRONG;
    row->margin = w->margin;
    snprintf(row->note, sizeof row->note,
             "%.40s %s: got %.6g, expected %.6g +- %.2g, margin %.3g; %lld elements%s", w->kernel, place,
             w->got, w->expected, w->bound, w->margin, (long long)w->wrong,
             isnan(w->got) ? "; NaN: never written, or read from where nothing is" : "");
}

/* ---- the whole output ---- */

static int64_t count_nan(const struct view *v) {
    int64_t n = 0;
#pragma omp parallel for reduction(+ : n)
    for (int64_t i = 0; i < v->hi; i++) n += isnan(dtype_load(v->data, v->dtype, i));
    return n;
}

static struct status look_around(struct bench_operands *o, const struct bench_chain *chain, int step,
                                 struct bench_row *row) {
    const char *const name = chain->kernel[step]->name;
    const struct view out = out_of(&chain->seen[step]);
    size_t damaged = 0, scratch = 0;
    TRY(device_guard_damage(o->device, &o->buffer[chain->out[step]], &damaged));
    TRY(device_guard_damage(o->device, &o->buffer[BENCH_SCRATCH], &scratch));
    const int64_t n = count_nan(&out);
    if (damaged + scratch)
        snprintf(row->note, sizeof row->note, "%.40s wrote %zu bytes outside its %s", name, damaged + scratch,
                 damaged ? "output" : "scratch");
    else if (n)
        snprintf(row->note, sizeof row->note,
                 "%.40s: %lld of %lld elements are NaN: never written, or read from where nothing is", name,
                 (long long)n, (long long)out.hi);
    if (row->note[0]) row->state = BENCH_WRONG;
    return status_ok();
}

struct status bench_judge(struct bench_operands *o, const struct bench_chain *chain, double most_work,
                          struct bench_row *row) {
    for (int i = 0; i < chain->n; i++) TRY(device_pull(o->device, &o->buffer[chain->out[i]]));
    for (int i = 0; i < chain->n && row->state != BENCH_WRONG; i++) {
        struct worst worst = {0};
        judge_step(chain, i, most_work, &worst, row);
        if (worst.wrong)
            tell_wrong(&chain->seen[i], &worst, row);
        else
            TRY(look_around(o, chain, i, row));
    }
    return status_ok();
}
