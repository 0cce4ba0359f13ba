/* Does the reference on a rank's operands agree with the reference on the whole? */
/* SPDX-License-Identifier: MIT */
#include "harness/rank_work.h"

#include <stdlib.h>

/* Multiply-adds up to which every row is recomputed; above, PLAN_ROWS rows, and one of every
 * expert. */
#define PLAN_WORK 3e8
#define PLAN_ROWS 4

/* Rows [row0, row1) as the reference has them on the rank's own operands. */
struct plan_piece {
    int64_t row0, row1;
    double *y[MAX_REF_OUT];
};

static void plan_compute(const struct rank_work *w, struct plan_piece *p) {
    struct ref_out out[MAX_REF_OUT] = {0};
    if (w->same_call) return; /* it would give the same again */
    for (int i = 0; i < w->answer.n; i++)
        out[i].y = p->y[i] =
            memory_zeroed((size_t)((p->row1 - p->row0) * w->answer.row_size[i]), sizeof(double));
    ref_compute(&w->outcome.call, &w->outcome.contract, NULL, p->row0, p->row1, out);
}

/* They must have the very bits of the slice of the whole answer. */
static void plan_judge(struct rank_work *w, struct plan_piece *p) {
    const struct answer *const a = &w->answer;
    const struct verdict v = verdict_on(w, EDGE_PLAN);
    for (int i = 0; i < a->n; i++) {
        struct judged j = placed_judged(&w->at, a->id[i], NULL, (p->row1 - p->row0) * a->row_size[i]);
        j.first = p->row0 * a->row_size[i];
        if (w->same_call)
            edge_begin(v.edge, &j, v.findings);
        else
            judge_plan(&j, p->y[i], a->y[i] + j.first, NULL, v.edge, v.findings);
        free(p->y[i]);
    }
    v.edge->sampled_rows += p->row1 - p->row0;
}

/* Single rows, a thread each: a team for every one of them would cost more than its sums. A few
 * pieces have teams of their own, which start threads anew where they stand in a team of one. */
static void plan_pieces(struct rank_work *w, struct plan_piece *piece, int64_t n) {
    enum { FEW = 16 };
    if (n > FEW) {
#pragma omp parallel for schedule(dynamic)
        for (int64_t i = 0; i < n; i++) plan_compute(w, &piece[i]);
    } else {
        for (int64_t i = 0; i < n; i++) plan_compute(w, &piece[i]);
    }
    for (int64_t i = 0; i < n; i++) plan_judge(w, &piece[i]);
}

/* The first sorted row of every group, and where the last one ends. NULL: the stage's rows are in
 * no groups. */
static const struct view *group_offsets(const struct call *call, int64_t *n_groups) {
    const bool linear = call->op == OP_LINEAR, gated = call->op == OP_GATED_LINEAR;
    const struct view *const offsets = linear ? &call->u.linear.offsets : &call->u.gated_linear.offsets;
    if ((!linear && !gated) || !offsets->data) return NULL;
    *n_groups = linear ? call->u.linear.n_groups : call->u.gated_linear.n_groups;
    return offsets;
}

/* Every expert that has rows is a weight matrix of its own, with a slice of its own: one row of
 * each. */
static void pick_experts(const struct call *call, uint64_t mix, int64_t rows, bool *picked) {
    int64_t n_groups;
    const struct view *const offsets = group_offsets(call, &n_groups);
    for (int64_t g = 0; offsets && g < n_groups; g++) {
        const int64_t first = (int64_t)dtype_load(offsets->data, DTYPE_I32, g),
                      count = (int64_t)dtype_load(offsets->data, DTYPE_I32, g + 1) - first;
        if (first >= 0 && count > 0 && first + count <= rows)
            picked[first + (int64_t)((mix >> 17) % (uint64_t)count)] = true;
    }
}

void plan_edge(struct rank_work *w) {
    const struct call *const call = &w->outcome.call;
    const int64_t rows = ref_n_rows(call);
    w->ranks->edge[EDGE_PLAN].rows += rows;
    if (rows <= PLAN_ROWS || call_row_work(call) * (double)rows <= PLAN_WORK) {
        plan_pieces(w, &(struct plan_piece){0, rows, {0}}, 1);
        return;
    }
    const uint64_t mix = (w->ranks->c->seed * 0x9e3779b97f4a7c15u) ^ ((uint64_t)w->at.rank << 32);
    const int64_t picks[PLAN_ROWS] = {0, 1 + (int64_t)((mix >> 7) % (uint64_t)(rows / 2)),
                                      rows / 2 + (int64_t)((mix >> 29) % (uint64_t)(rows / 2)), rows - 1};
    bool *const picked = memory_zeroed((size_t)rows, sizeof *picked);
    for (int i = 0; i < PLAN_ROWS; i++) picked[picks[i]] = true;
    pick_experts(call, mix, rows, picked);
    struct plan_piece *const piece = memory_zeroed((size_t)rows, sizeof *piece);
    int64_t n = 0;
    for (int64_t row = 0, end; row < rows; row = end + 1) {
        for (end = row; end < rows && picked[end];) end++;
        if (end > row) piece[n++] = (struct plan_piece){row, end, {0}};
    }
    plan_pieces(w, piece, n);
    free(piece);
    free(picked);
}

/* Partial sums: the ranks' references must add up to the whole's, within what double summation
 * allows. A partial tensor is cut along its first axis, if at all. */
void partial_add(struct rank_work *w, double **of_ranks) {
    const struct answer *const a = &w->answer;
    const struct axis_block rows = tensor_axes(a->id[0]).axis[0].block[0];
    const int64_t first =
        rows.group == GROUP_NONE ? 0 : w->at.crew->plan.rank[w->at.rank][rows.name].first * a->row_size[0];
    double *const unrounded = answer_exact(&w->at, &w->outcome, &w->ranks->exact[w->at.rank]);
    const double *const y = unrounded ? unrounded : a->y[0];
    if (!*of_ranks) *of_ranks = block_zeroed((size_t)w->trunk->answer.count[0], sizeof **of_ranks);
    double *const sum = *of_ranks, *kept = NULL;
    if (tensor_continues(a->id[0]))
        kept = store_new(&w->ranks->exact[w->at.rank], a->id[0], DTYPE_F64, a->count[0]);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->count[0]; n++) {
        sum[first + n] += y[n];
        if (kept) kept[n] = y[n];
    }
    block_free(unrounded);
}

/* The ranks from `rank` on that hold the same rows of it, and these rows. */
static int sharing(const struct ranks *r, const struct answer *a, int rank, struct span *rows) {
    const struct axis_block axis = tensor_axes(a->id[0]).axis[0].block[0];
    const int tp = (int)r->crew.plan.tp;
    int last = rank;
    *rows = (struct span){0, a->count[0] / a->row_size[0]};
    if (axis.group == GROUP_NONE) return tp - 1;
    *rows = r->crew.plan.rank[rank][axis.name];
    while (last + 1 < tp && r->crew.plan.rank[last + 1][axis.name].first == rows->first &&
           r->crew.plan.rank[last + 1][axis.name].count == rows->count)
        last++;
    return last;
}

/* Which of the ranks that share a row is wrong, its sum cannot tell. */
void partial_edge(struct ranks *r, const struct trunk *t, int stage, const double *sum) {
    const struct answer *const a = &t->answer;
    const double terms = (double)stage_terms(stage, t->crew.plan.size) + (double)r->crew.plan.tp;
    const double *const y = t->sum_y ? t->sum_y : a->y[0], *const s1 = t->sum_s1 ? t->sum_s1 : a->s1[0];
    double *const slack = block_new((size_t)a->count[0], sizeof(double));
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->count[0]; n++) slack[n] = 2 * terms * UNIT_F64 * s1[n];
    for (int rank = 0, last; rank < r->crew.plan.tp; rank = last + 1) {
        struct span rows;
        last = sharing(r, a, rank, &rows);
        const int64_t first = rows.first * a->row_size[0];
        const struct placed at = {&r->crew, stage, rank};
        struct judged j = placed_judged(&at, a->id[0], NULL, rows.count * a->row_size[0]);
        j.to_rank = last;
        if (last > rank) j.first = first;
        judge_plan(&j, sum + first, y + first, slack + first, &r->edge[EDGE_PLAN], &r->findings);
    }
    block_free(slack);
}
