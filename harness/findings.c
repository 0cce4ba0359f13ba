/* Which elements are wrong, and where do they stand? */
/* SPDX-License-Identifier: MIT */
#include "harness/findings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void findings_init(struct findings *f) {
    *f = (struct findings){.stage = -1, .first_rank = MAX_RANKS, .last_rank = -1};
}

static void print_place(const struct place *p, char *text, size_t size) {
    static const char *const fused[3] = {"", " of k",
                                         " of v"}; /* blocks of the one fused axis there is, q k v */
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < p->n && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s %lld%s", i ? " " : "",
                                 axis_label(p->axis[i]), (long long)p->index[i], fused[p->block[i]]);
}

/* Only the first failing stage is described: later stages of a rank are judged on clean inputs, but
 * one fault is understood at a time. */
static bool findings_take(struct findings *f, int stage) {
    if (f->stage < 0) f->stage = stage;
    return f->stage == stage;
}

void findings_add(struct findings *f, const struct judged *j, int64_t index, double got, double expected,
                  double bound, double margin, const char *note) {
    if (!findings_take(f, j->stage)) return;
    const bool together = j->to_rank > j->rank;
    const int last = together ? j->to_rank : j->rank;
    const struct place place = slice_place(j->plan, j->id, together ? -1 : j->rank, j->first + index);
    for (int i = 0; i < place.n; i++) {
        const enum axis_name a = place.axis[i];
        if (!f->seen[a] || place.index[i] < f->low[a]) f->low[a] = place.index[i];
        if (!f->seen[a] || place.index[i] > f->high[a]) f->high[a] = place.index[i];
        f->seen[a] = true;
    }
    if (j->rank < f->first_rank) f->first_rank = j->rank;
    if (last > f->last_rank) f->last_rank = last;
    if (f->named && !(margin > f->worst.margin)) return;
    struct mismatch m = {.rank = j->trunk ? -1 : j->rank,
                         .to_rank = together ? last : 0,
                         .got = got,
                         .expected = expected,
                         .bound = bound,
                         .margin = margin};
    snprintf(m.stage, sizeof m.stage, "%s", stage_table[j->stage].name);
    snprintf(m.tensor, sizeof m.tensor, "%s", tensor_table[j->id].name);
    snprintf(m.note, sizeof m.note, "%s", note);
    print_place(&place, m.where, sizeof m.where);
    if (!f->named) f->first = m;
    f->named = true;
    f->worst = m;
}

void findings_note(struct findings *f, int stage, int rank, const char *note) {
    if (!findings_take(f, stage)) return;
    if (rank < f->first_rank) f->first_rank = rank;
    if (rank > f->last_rank) f->last_rank = rank;
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

static size_t print_range(char *text, size_t size, const char *label, int64_t low, int64_t high) {
    return low == high
               ? (size_t)snprintf(text, size, ", %s %lld", label, (long long)low)
               : (size_t)snprintf(text, size, ", %ss %lld-%lld", label, (long long)low, (long long)high);
}

void findings_where(const struct findings *f, int64_t n_ranks, char *text, size_t size) {
    if (f->stage < 0) {
        text[0] = 0;
        return;
    }
    size_t used = f->twin ? (size_t)snprintf(text, size, "chain, on a small twin of the layer")
                          : (size_t)snprintf(text, size, "stage %s", stage_table[f->stage].name);
    if (n_ranks > 1 && f->last_rank >= 0) {
        used += print_range(text + used, size - used, "rank", f->first_rank, f->last_rank);
        used += (size_t)snprintf(text + used, size - used, " of %lld", (long long)n_ranks);
    }
    for (int a = 0; a < AXIS_COUNT && used < size; a++)
        if (f->seen[a] && a != AXIS_NUMBER)
            used +=
                print_range(text + used, size - used, axis_label((enum axis_name)a), f->low[a], f->high[a]);
}
