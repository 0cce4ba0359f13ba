/* Which elements are wrong, and where do they stand? */
/* SPDX-License-Identifier: MIT */
#include "harness/findings.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The counts of heats are as large as the rest, and emptied when they are used. */
void findings_init(struct findings *f) {
    memset(f, 0, offsetof(struct findings, heats.of));
    f->stage = f->judging = -1;
}

/* ---- what was judged, what of it is wrong ---- */

/* Of the stages before nothing was wrong. */
static void go_on_to(struct findings *f, int stage) {
    if (f->judging == stage) return;
    f->judging = stage;
    f->judged_tensors = 0;
    f->heats.n = 0;
    memset(&f->rank, 0, sizeof f->rank);
    memset(f->axis, 0, sizeof f->axis);
}

/* Only the first failing stage is described: later stages of a rank are judged on clean inputs, but
 * one fault is understood at a time. */
static bool findings_take(struct findings *f, int stage) {
    if (f->stage < 0) f->stage = stage;
    if (f->stage == stage) go_on_to(f, stage);
    return f->stage == stage;
}

/* The tensor; and of the fused rows, whose second axis has three blocks, that it is cut into. */
static uint64_t tensor_bits(enum tensor_id id, int block) {
    return (uint64_t)1 << id | (id == T_QKV ? (uint64_t)1 << (T_Q + block) : 0);
}

static void judge_axis(struct findings *f, const struct judged *j, const struct axis *axis, int rank) {
    for (int b = 0; b < axis->n_blocks; b++) {
        const struct axis_block block = axis->block[b];
        const int64_t size = block.name == AXIS_NUMBER ? block.number : j->plan->size[block.name];
        const struct span whole = {0, size};
        const struct span held =
            block.group == GROUP_NONE || rank < 0 ? whole : j->plan->rank[rank][block.name];
        f->axis[block.name].size = size;
        index_judge(&f->axis[block.name], held.first, held.count);
    }
}

static int slice_of(const struct judged *j) { return j->to_rank > j->rank ? -1 : j->rank; }

static struct heat_part part_of(const struct judged *j) {
    return (struct heat_part){j->plan, j->id, slice_of(j), j->got != NULL};
}

/* Whole slices, or rows of them. */
void findings_judged(struct findings *f, const struct judged *j) {
    if (f->stage >= 0 && f->stage != j->stage) return;
    go_on_to(f, j->stage);
    const struct axes axes = tensor_axes(j->id);
    const int rank = slice_of(j);
    int64_t shape[MAX_AXES], row = 1;
    const int n = slice_shape(j->plan, j->id, rank, shape);
    for (int i = 1; i < n; i++) row *= shape[i];
    for (int i = 1; i < n; i++) judge_axis(f, j, &axes.axis[i], rank);
    if (!row || j->count < shape[0] * row) {
        const struct place first = slice_place(j->plan, j->id, rank, j->first);
        f->axis[first.axis[0]].size = j->plan->size[first.axis[0]];
        index_judge(&f->axis[first.axis[0]], first.index[0], row ? j->count / row : 0);
    } else {
        judge_axis(f, j, &axes.axis[0], rank);
    }
    heat_judge(&f->heats, part_of(j), j->first, j->count);
    for (int b = 0; b < axes.axis[n > 1].n_blocks; b++) f->judged_tensors |= tensor_bits(j->id, b);
}

static void blame(struct findings *f, const struct judged *j, const struct place *place) {
    for (int i = 0; i < place->n; i++) index_blame(&f->axis[place->axis[i]], place->index[i]);
    f->wrong_tensors |= tensor_bits(j->id, place->n > 1 ? place->block[1] : 0);
    for (int r = j->rank; r <= (j->to_rank > j->rank ? j->to_rank : j->rank); r++) index_blame(&f->rank, r);
    heat_blame(&f->heats, part_of(j), place);
    f->n_wrong++;
    f->n_wrong_plan += !j->got;
}

void findings_blame(struct findings *f, const struct judged *j, int64_t index) {
    if (!findings_take(f, j->stage)) return;
    const struct place place = slice_place(j->plan, j->id, slice_of(j), j->first + index);
    blame(f, j, &place);
}

/* ---- the first and the worst ---- */

void place_text(const struct place *p, char *text, size_t size) {
    static const char *const fused[3] = {"", " of k",
                                         " of v"}; /* blocks of the one fused axis there is, q k v */
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < p->n && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s %lld%s", i ? " " : "",
                                 axis_label(p->axis[i]), (long long)p->index[i], fused[p->block[i]]);
}

void findings_add(struct findings *f, const struct judged *j, int64_t index, double got, double expected,
                  double bound, double margin, const char *note) {
    if (!findings_take(f, j->stage)) return;
    const bool together = j->to_rank > j->rank;
    const struct place place = slice_place(j->plan, j->id, slice_of(j), j->first + index);
    blame(f, j, &place);
    if (f->named && !(margin > f->worst.margin)) return;
    struct mismatch m = {.rank = j->trunk ? -1 : j->rank,
                         .to_rank = together ? j->to_rank : 0,
                         .got = got,
                         .expected = expected,
                         .bound = bound,
                         .margin = margin};
    snprintf(m.stage, sizeof m.stage, "%s", stage_table[j->stage].name);
    snprintf(m.tensor, sizeof m.tensor, "%s", tensor_table[j->id].name);
    snprintf(m.note, sizeof m.note, "%s", note);
    place_text(&place, m.where, sizeof m.where);
    if (!f->named) f->first = m;
    f->named = true;
    f->worst = m;
}

void findings_note(struct findings *f, int stage, int rank, const char *note) {
    if (!findings_take(f, stage)) return;
    if (rank >= 0) index_blame(&f->rank, rank);
    if (f->named) return;
    f->named = true;
    f->first = (struct mismatch){.rank = rank, .got = NAN, .expected = NAN, .bound = NAN, .margin = INFINITY};
    snprintf(f->first.stage, sizeof f->first.stage, "%s", stage_table[stage].name);
    snprintf(f->first.note, sizeof f->first.note, "%s", note);
    f->worst = f->first;
}

static void add_remark(struct mismatch *m, int rank, const char *remark) {
    const size_t n = strlen(m->note);
    if (m->rank == rank) snprintf(m->note + n, sizeof m->note - n, "%s", remark);
}

void findings_remark(struct findings *f, int stage, int rank, const char *remark) {
    if (f->stage != stage || !f->named) return;
    add_remark(&f->first, rank, remark);
    add_remark(&f->worst, rank, remark);
}
