/* Where among a stage's operands does a run of values stand, and how is that place called? */
/* SPDX-License-Identifier: MIT */
#include "harness/origin.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- finding ---- */

/* Neighbouring values of a fill are whole numbers up to 256: 2^-8 apart. */
bool origin_near(double x, double v) { return fabs(x - v) <= 0x1p-10 * fabs(v); }

static bool stands_at(const void *data, enum dtype dtype, int64_t at, const double *run, int64_t n) {
    int64_t i = 0;
    while (i < n && origin_near(run[i], dtype_load(data, dtype, at + i))) i++;
    return i == n;
}

static int64_t find_in(const void *data, enum dtype dtype, int64_t count, const double *run, int64_t n,
                       int64_t like) {
    if (like + n <= count && stands_at(data, dtype, like, run, n)) return like;
    for (int64_t at = 0; at + n <= count; at++)
        if (stands_at(data, dtype, at, run, n)) return at;
    return -1;
}

static bool holds_values(enum tensor_id id) {
    const enum tensor_role role = tensor_table[id].role;
    return role == ROLE_INPUT || role == ROLE_ACTIVATION || role == ROLE_PARTIAL;
}

bool origin_find(const struct placed *at, const struct outcome *o, const double *run, int64_t n,
                 const struct origin *like, struct origin *out) {
    const struct stage_row *const stage = placed_row(at);
    for (int i = 0; stage->in[i] != T_NONE; i++) {
        const enum tensor_id id = stage->in[i];
        const struct stored *const whole = &at->crew->whole->of[id];
        const struct view *const own = &o->operands.in[i];
        const bool partial = tensor_table[id].role == ROLE_PARTIAL;
        if (!holds_values(id) || !own->data) continue;
        *out = (struct origin){id, partial ? at->rank : -1, 0};
        const int64_t first = like ? like->index : 0;
        out->index = partial ? find_in(own->data, own->dtype, placed_count(at, id), run, n, first)
                             : find_in(whole->memory.data, whole->dtype, whole->count, run, n, first);
        if (out->index >= 0) return true;
    }
    return false;
}

/* ---- naming ---- */

static struct place place_of(const struct placed *at, const struct origin *of) {
    return slice_place(&at->crew->plan, of->id, of->rank, of->index);
}

static void append(char *text, size_t size, const char *more) {
    const size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s", used ? " of " : "", more);
}

/* Which key of which sequence stands in a slot of a page; false: nobody's. */
static bool key_in(const struct batch *b, int64_t page, int64_t slot, int64_t *seq, int64_t *key) {
    for (*seq = 0; *seq < b->n_seqs; ++*seq)
        for (int64_t i = 0; i * PAGE_SIZE < b->kv_len[*seq]; i++)
            if (b->page_table[*seq * b->max_pages + i] == page) {
                *key = i * PAGE_SIZE + slot;
                return true;
            }
    return false;
}

static void name_key(const struct placed *at, const struct place *p, char *text, size_t size) {
    int64_t seq, key;
    if (key_in(at->crew->batch, p->index[0], p->index[1], &seq, &key))
        snprintf(text, size, "key %lld of sequence %lld", (long long)key, (long long)seq);
    else
        snprintf(text, size, "slot %lld of page %lld, which no sequence has", (long long)p->index[1],
                 (long long)p->index[0]);
}

/* The expert whose sorted rows have this one among them, and the token that it is of. */
static void name_row(const struct placed *at, int64_t row, char *text, size_t size) {
    const struct stored *const ids = &at->crew->whole->of[T_IDS], *const slots =
                                                                      &at->crew->whole->of[T_ROW_SLOT];
    const int64_t E = at->crew->spec.n_experts;
    int64_t expert = 0, end = 0;
    for (; expert < E; expert++) {
        for (int64_t i = 0; i < ids->count; i++) end += ((const int32_t *)ids->memory.data)[i] == expert;
        if (row < end) break;
    }
    int n = snprintf(text, size, "row %lld (", (long long)row);
    if (row < slots->count)
        n += snprintf(text + n, size - (size_t)n, "token %lld, ",
                      (long long)(((const int32_t *)slots->memory.data)[row] / at->crew->spec.top_k));
    snprintf(text + n, size - (size_t)n, "expert %lld)", (long long)expert);
}

static void name_axis(const struct placed *at, const struct place *p, int i, char *text, size_t size) {
    if (p->axis[i] == AXIS_N)
        name_row(at, p->index[i], text, size);
    else
        snprintf(text, size, "%s %lld", axis_label(p->axis[i]), (long long)p->index[i]);
}

/* From the inside out; the innermost axis where `element`. */
static void name_place(const struct placed *at, const struct origin *of, bool element, char *text,
                       size_t size) {
    const struct place p = place_of(at, of);
    const int outer = seat_in_place(of->id) ? 2 : 0; /* pages and slots are told as keys */
    char word[80];
    text[0] = 0;
    for (int i = p.n - (element ? 1 : 2); i >= outer; i--) {
        name_axis(at, &p, i, word, sizeof word);
        append(text, size, word);
        if (p.block[i]) append(text, size, p.block[i] == 1 ? "k" : "v"); /* of a fused row */
    }
    if (!outer) return;
    name_key(at, &p, word, sizeof word);
    append(text, size, word);
}

void origin_name(const struct placed *at, const struct origin *of, char *text, size_t size) {
    name_place(at, of, false, text, size);
}

void origin_name_row(const struct placed *at, const struct origin *of, char *text, size_t size) {
    const struct place p = place_of(at, of);
    name_axis(at, &p, 0, text, size);
}

/* The first rank that holds the place, if this one does not; -1: it does, or nobody is asked. */
static int owner(const struct placed *at, const struct origin *of) {
    const struct shard_plan *const plan = &at->crew->plan;
    const struct axes axes = tensor_axes(of->id);
    const struct place p = place_of(at, of);
    int first = -1;
    for (int rank = 0; rank < (int)plan->tp; rank++) {
        bool holds = true;
        for (int i = 0; i < p.n; i++) {
            const struct axis_block *const block = &axes.axis[i].block[p.block[i]];
            const struct span span = plan->rank[rank][block->name];
            holds &= block->group == GROUP_NONE ||
                     (p.index[i] >= span.first && p.index[i] < span.first + span.count);
        }
        if (holds && rank == at->rank) return -1;
        if (holds && first < 0) first = rank;
    }
    return first;
}

static void tell_page(const struct placed *at, const struct origin *read, const struct origin *want,
                      char *text, size_t size) {
    const struct place r = place_of(at, read), w = place_of(at, want);
    const size_t used = strlen(text);
    if (seat_in_place(read->id) && read->id == want->id && r.index[0] != w.index[0] &&
        r.index[1] == w.index[1])
        snprintf(text + used, size - used, ": page %lld for page %lld", (long long)r.index[0],
                 (long long)w.index[0]);
}

void origin_tell(const struct placed *at, const struct origin *read, const struct origin *want, char *text,
                 size_t size) {
    const struct place r = place_of(at, read), w = place_of(at, want);
    const bool element = r.index[r.n - 1] != w.index[w.n - 1], other = read->id != want->id;
    const int rank = read->rank < 0 && !at->crew->unsharded ? owner(at, read) : -1;
    char has[120], should[120], whose[32] = "";
    name_place(at, read, element, has, sizeof has);
    name_place(at, want, element, should, sizeof should);
    if (rank >= 0) snprintf(whose, sizeof whose, " (rank %d's)", rank);
    snprintf(text, size, "%s%s%s%s for %s%s%s", other ? tensor_table[read->id].name : "", other ? ": " : "",
             has, whose, other ? tensor_table[want->id].name : "", other ? ": " : "", should);
    tell_page(at, read, want, text, size);
}
