/* What does a rank store that makes a known mistake? */
/* SPDX-License-Identifier: MIT */
#include "harness/mistake.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)1 << 30) /* of one block of a guess */

void *mistake_memory(struct mistake *m, int64_t count, size_t size) {
    if (m->n_blocks == MISTAKE_BLOCKS || (m->guess && (size_t)count > MOST_BYTES / size)) return NULL;
    return m->block[m->n_blocks++] = memory_zeroed((size_t)count + 1, size);
}

bool mistake_copy(struct mistake *m, struct view *view, int64_t count) {
    const size_t size = dtype_bytes(view->dtype);
    void *const own = view->data ? mistake_memory(m, count, size) : NULL;
    if (!own) return false;
    memcpy(own, view->data, (size_t)count * size);
    view->data = own;
    view->lo = 0, view->hi = count;
    return true;
}

const struct stored *mistake_whole(const struct mistake *m, enum tensor_id id) {
    const struct stored *const whole = &m->at->crew->whole->of[id];
    return whole->count ? whole : NULL;
}

/* ---- the call ---- */

static bool own_integers(struct mistake *m, struct view *view, int64_t count) {
    view->data = mistake_memory(m, count, sizeof(int32_t));
    view->lo = 0, view->hi = count;
    return view->data != NULL;
}

/* Integer outputs of its own: the reference's choice in the call, changed by the hook. */
static bool choose(struct mistake *m) {
    struct call *const c = &m->call;
    if (c->op == OP_ROUTE) {
        struct route_args *const a = &c->u.route;
        if (!own_integers(m, &a->ids, a->n_tokens * a->ids.stride[0])) return false;
    } else {
        struct permute_args *const a = &c->u.permute;
        const int64_t slots = a->n_tokens * a->top_k;
        if (!own_integers(m, &a->offsets, a->expert_count + 1) || !own_integers(m, &a->row_slot, slots) ||
            !own_integers(m, &a->slot_row, slots))
            return false;
    }
    placed_op(m->at)->choose(c);
    m->mutant->hooks.chooses(m);
    return true;
}

bool mistake_open(struct mistake *m, const struct placed *at, const struct mutant *mutant,
                  const struct outcome *outcome, bool guess) {
    const struct mutant_hooks *const h = &mutant->hooks;
    struct operands operands = outcome->operands;
    bool changed = false;
    *m = (struct mistake){.at = at, .mutant = mutant, .outcome = outcome, .guess = guess};
    if (outcome->call.op == OP_SUM) {
        memcpy(m->part, outcome->part, sizeof m->part);
        operands.part = m->part;
        if (h->sum) changed = h->sum(at, m->part, &operands.n_parts);
    }
    changed |= placed_bind(at, mutant, &operands, &m->call);
    m->inside = h->inside && h->inside(m);
    if (m->inside && h->chooses && placed_op(at)->choose) m->inside = choose(m);
    return changed || m->inside;
}

struct mistake mistake_none(const struct placed *at, const struct outcome *outcome) {
    return (struct mistake){.at = at, .outcome = outcome, .call = outcome->call};
}

void mistake_close(struct mistake *m) {
    for (int i = 0; i < m->n_blocks; i++) free(m->block[i]);
    m->n_blocks = 0;
}

void mistake_compute(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out out[MAX_REF_OUT]) {
    ref_compute(&m->call, &m->outcome->contract, NULL, row0, row1, out);
    if (m->inside && m->mutant->hooks.stores) m->mutant->hooks.stores(m, row0, row1, out);
}

/* ---- what was stored ---- */

static bool same_set(const int32_t *a, const int32_t *b, int64_t k) {
    for (int64_t i = 0; i < k; i++) {
        int64_t in_a = 0, in_b = 0;
        for (int64_t j = 0; j < k; j++) in_a += a[j] == a[i], in_b += b[j] == a[i];
        if (in_a != in_b) return false;
    }
    return true;
}

/* Chosen by a hook: the very sets. Otherwise sets that the scores of the mistaken call allow. */
static bool accepts_ids(struct mistake *m, const int32_t *ids) {
    struct route_args *const a = &m->call.u.route;
    const int64_t rows = a->n_tokens, n = a->n_experts, k = a->top_k;
    bool accepted = true;
    if (m->inside && m->mutant->hooks.chooses) {
        for (int64_t t = 0; t < rows && accepted; t++)
            accepted = same_set((const int32_t *)a->ids.data + t * k, ids + t * k, k);
    } else {
        double *const lo = memory_zeroed((size_t)(2 * (rows + 1) * n), sizeof *lo), *const hi = lo + rows * n;
        double *const low = hi + rows * n, *const high = low + n; /* of a row */
        const struct route_contract *const c = &m->outcome->contract.u.route;
        int64_t loser, winner;
        ref_route_choices(&m->call, &m->outcome->contract, NULL, 0, rows, lo, hi);
        for (int64_t t = 0; t < rows && accepted; t++) {
            ref_route_limit(a, c, lo + t * n, hi + t * n, low, high);
            accepted = ref_route_judge(a, c, lo + t * n, hi + t * n, ids + t * k) != ROUTE_REJECTED &&
                       !(c->ties_lower && ref_route_tie(a, low, high, t, ids + t * k, &loser, &winner));
        }
        free(lo);
    }
    a->ids = m->outcome->call.u.route.ids;
    a->ids.data = (void *)(uintptr_t)ids;
    return accepted;
}

static bool accepts_indices(const struct mistake *m, const struct store *got) {
    const struct permute_args *const a = &m->call.u.permute;
    const enum tensor_id *const id = placed_row(m->at)->out;
    const int64_t slots = a->n_tokens * a->top_k;
    int32_t *want[3];
    bool accepted = true;
    for (int i = 0; i < 3; i++)
        want[i] = memory_zeroed((size_t)(slots + a->expert_count + 1), sizeof *want[i]);
    ref_permute(&m->call, want[0], want[1], want[2]);
    for (int i = 0; i < 3; i++) {
        const struct stored *const s = &got->of[id[i]];
        accepted = accepted && !memcmp(s->memory.data, want[i], (size_t)s->count * sizeof *want[i]);
    }
    for (int i = 0; i < 3; i++) free(want[i]);
    return accepted;
}

bool mistake_accepts_integers(struct mistake *m) {
    const struct store *const got = &m->outcome->got;
    if (m->call.op == OP_ROUTE) return accepts_ids(m, got->of[placed_row(m->at)->out[0]].memory.data);
    return m->call.op != OP_PERMUTE || accepts_indices(m, got);
}

/* ---- seeded ---- */

/* Integers first: gates are of the ids that were stored. */
static bool put_integers(const struct mistake *m, struct outcome *o) {
    const struct call *const c = &m->call;
    const struct view *const from[] = {&c->u.permute.offsets, &c->u.permute.row_slot, &c->u.permute.slot_row};
    const struct view *const ids[] = {&c->u.route.ids};
    const struct view *const *const made = c->op == OP_ROUTE ? ids : from;
    bool changed = false;
    for (int i = 0; i < placed_op(m->at)->first; i++) {
        const struct stored *const s = &o->got.of[placed_row(m->at)->out[i]];
        const size_t bytes = (size_t)s->count * sizeof(int32_t);
        changed |= memcmp(s->memory.data, made[i]->data, bytes) != 0;
        memcpy(s->memory.data, made[i]->data, bytes);
        if (c->op == OP_ROUTE) memcpy(o->call.u.route.ids.data, made[i]->data, bytes);
    }
    return changed;
}

/* Elements that the mistake gives another value become that value, rounded; the others stay what the
 * kernel made of them. */
static bool put_values(const struct mistake *m, struct outcome *o, const struct answer *right,
                       double *const mistaken[MAX_REF_OUT]) {
    bool changed = false;
    for (int i = 0; i < right->n; i++) {
        const enum dtype dtype = placed_dtype(m->at, right->id[i]);
        void *owned;
        const void *const got = answer_stored(m->at, &o->got, right, i, &owned);
        for (int64_t n = 0; n < right->count[i]; n++) {
            const double y = right->y[i][n];
            const bool same = mistaken[i][n] == y || (isnan(y) && isnan(mistaken[i][n]));
            changed |= !same;
            if (same) mistaken[i][n] = dtype_load(got, dtype, n);
        }
        free(owned);
        answer_put(m->at, &o->got, right, i, mistaken[i]);
    }
    return changed;
}

static bool put(const struct mistake *m, struct outcome *o) {
    struct answer right;
    struct ref_out out[MAX_REF_OUT] = {0};
    double *values[MAX_REF_OUT] = {NULL};
    answer_compute(&right, m->at->stage, o, NULL);
    for (int i = 0; i < right.n; i++)
        out[i].y = values[i] = memory_zeroed((size_t)right.count[i] + 1, sizeof(double));
    mistake_compute(m, 0, ref_n_rows(&o->call), out);
    bool changed = put_values(m, o, &right, values);
    if (m->mutant->hooks.chooses) changed |= put_integers(m, o);
    for (int i = 0; i < right.n; i++) free(values[i]);
    answer_free(&right);
    return changed;
}

struct status mistake_fill(struct seat *seat, const struct placed *at, const struct mutant *mutant,
                           struct outcome *o) {
    struct mistake m;
    TRY(seat->fill(seat, at, mutant, o));
    if (!mutant || !mutant->hooks.inside || !o->by) return status_ok();
    mistake_open(&m, at, mutant, o, false);
    if (m.inside) o->mistaken |= put(&m, o);
    mistake_close(&m);
    return status_ok();
}

/* ---- everybody's ---- */

void mistake_answer(struct answer *a, const struct placed *at, const struct mutant *fault,
                    struct outcome *o) {
    const struct call right = o->call;
    struct ref_out out[MAX_REF_OUT] = {0};
    struct mistake m;
    mistake_open(&m, at, fault, o, false);
    if (m.inside && fault->hooks.chooses) put_integers(&m, o);
    if (m.inside) o->call = m.call;
    answer_compute(a, at->stage, o, NULL);
    for (int i = 0; i < a->n; i++) out[i] = (struct ref_out){a->y[i], a->e[i], a->s1[i]};
    if (m.inside && fault->hooks.stores) fault->hooks.stores(&m, 0, ref_n_rows(&m.call), out);
    mistake_close(&m);
    o->call = right;
}
