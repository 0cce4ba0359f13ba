/* Which elements are wrong, and does a guess explain more than nine in ten of them? */
/* SPDX-License-Identifier: MIT */
#include "harness/evidence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum tensor_id evidence_tensor(const struct evidence *ev) { return ev->answer->id[ev->output]; }
static enum dtype dtype_of(const struct evidence *ev) {
    return placed_dtype(ev->placed, evidence_tensor(ev));
}

double evidence_load(const struct view *v, int64_t i) {
    return i >= v->lo && i < v->hi ? dtype_load(v->data, v->dtype, i) : (double)NAN;
}

/* ---- does it fit? ---- */

/* What sample `from` guesses, against what sample `to` got. */
static bool fits_one(const struct evidence *ev, guess_fn *guess, const struct candidate *c, int from,
                     int to) {
    struct guess g;
    if (!guess(ev, &ev->sample[from], c, &g) || !isfinite(g.y) || !isfinite(g.e)) return false;
    return element_judge(dtype_of(ev), ev->sample[to].got, g.y, g.e).kind == ELEMENT_OK;
}

bool evidence_fits(const struct evidence *ev, guess_fn *guess, const struct candidate *c) {
    int missed = 0, mixed = 0;
    for (int i = 0; i < ev->n && missed * 10 < ev->n; i++) missed += !fits_one(ev, guess, c, i, i);
    if (missed * 10 >= ev->n) return false;
    for (int i = 0; i < ev->n; i++) mixed += fits_one(ev, guess, c, i, (i + (ev->n / 2 | 1)) % ev->n);
    return mixed * 2 < ev->n;
}

/* ---- the samples ---- */

static bool is_poison(const void *got, enum dtype dtype, int64_t i) {
    unsigned char poison[8] = {0};
    const size_t size = dtype_bytes(dtype);
    dtype_poison(poison, dtype, 1);
    return !memcmp(poison, (const char *)got + (size_t)i * size, size);
}

/* Indices in the whole tensor where that is searched, else in the rank's. */
static void locate(const struct evidence *ev, struct sample *s) {
    const struct shard_plan *const plan = &ev->placed->crew->plan;
    int64_t index = s->index;
    if (ev->search != ev->answer) {
        const struct axes axes = tensor_axes(evidence_tensor(ev));
        const struct place place = slice_place(plan, evidence_tensor(ev), ev->placed->rank, index);
        for (int i = 0; i < place.n; i++) {
            s->at[i] = place.index[i];
            for (int b = 0; b < place.block[i]; b++) s->at[i] += plan->size[axes.axis[i].block[b].name];
        }
        return;
    }
    for (int i = ev->n_axes; i-- > 0; index /= ev->shape[i]) s->at[i] = index % ev->shape[i];
}

/* Every `step`-th wrong element of the output; 0: none. Returns how many are wrong. */
static int64_t take_samples(struct evidence *ev, int64_t step) {
    const struct answer *const a = ev->answer;
    const double *const y = a->y[ev->output], *const e = a->e[ev->output];
    void *owned;
    const void *const got = answer_stored(ev->placed, &ev->outcome->got, a, ev->output, &owned);
    int64_t wrong = 0;
    for (int64_t n = 0; n < a->count[ev->output]; n++) {
        const double value = dtype_load(got, dtype_of(ev), n);
        if (element_judge(dtype_of(ev), value, y[n], e[n]).kind == ELEMENT_OK) continue;
        if (step && wrong % step == 0 && ev->n < SAMPLES) {
            struct sample *const s = &ev->sample[ev->n++];
            *s = (struct sample){.index = n, .got = value, .y = y[n], .e = e[n]};
            s->poison = is_poison(got, dtype_of(ev), n);
            locate(ev, s);
        }
        wrong++;
    }
    free(owned);
    return wrong;
}

/* The output with the most wrong elements. */
static int64_t choose_output(struct evidence *ev) {
    int64_t most = 0;
    int best = 0;
    for (ev->output = 0; ev->output < ev->answer->n; ev->output++) {
        const int64_t wrong = take_samples(ev, 0);
        if (wrong > most) most = wrong, best = ev->output;
    }
    ev->output = best;
    return most;
}

bool evidence_gather(struct evidence *ev, const struct placed *at, const struct outcome *o,
                     const struct answer *answer, const struct answer *whole) {
    *ev = (struct evidence){.placed = at, .outcome = o, .answer = answer, .search = whole ? whole : answer};
    const int64_t wrong = choose_output(ev);
    if (wrong < FEWEST) return false;
    ev->n_axes = slice_shape(&at->crew->plan, evidence_tensor(ev), whole ? -1 : at->rank, ev->shape);
    take_samples(ev, wrong / SAMPLES | 1); /* odd: not all in one column */
    return true;
}
