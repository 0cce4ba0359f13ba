/* What has a failing stage read? Where what it stored stands among its operands, against where what
 * it should have stored stands. */
/* SPDX-License-Identifier: MIT */
#include "harness/tags.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixtures/fill.h"
#include "harness/tags_read.h"

/* ---- what is moved: a run of the output is a run of an operand ---- */

bool reading_same(const struct reading *r, int64_t i) { return r->got[i] == dtype_round(r->dtype, r->y[i]); }

/* NaN, and the huge numbers that buffers hold by turns (kernel_seat.c). */
bool reading_is_poison(const struct reading *r, double got) { return !(fabs(got) < dtype_huge(r->dtype)); }

/* The run of a row's innermost axis that element i is in: where it begins, and how long it is. */
static int64_t run_around(const struct reading *r, int64_t i, int64_t *n) {
    int64_t shape[MAX_AXES];
    const int axes = slice_shape(&r->at->crew->plan, r->id, r->at->rank, shape);
    const int64_t last = shape[axes - 1], within = i % last / ORIGIN_RUN * ORIGIN_RUN;
    *n = last - within < ORIGIN_RUN ? last - within : ORIGIN_RUN;
    return i - i % last + within;
}

static int nonzero(const double *x, int64_t n) {
    int count = 0;
    for (int64_t i = 0; i < n; i++) count += x[i] != 0;
    return count;
}

/* Where the run lands, if that is not said by where it should come from: rows by expert, slots of the
 * cache. */
static void tell_landing(struct reading *r, int64_t i) {
    const struct place p = slice_place(&r->at->crew->plan, r->id, r->at->rank, i);
    const enum op op = placed_row(r->at)->op;
    const size_t used = strlen(r->text);
    char name[80] = "";
    if (op == OP_PERMUTE) origin_name_row(r->at, &(struct origin){r->id, r->at->rank, i}, name, sizeof name);
    if (op == OP_KV_WRITE)
        snprintf(name, sizeof name, "slot %d of page %d", r->at->crew->batch->slots[p.index[0]] % PAGE_SIZE,
                 r->at->crew->batch->slots[p.index[0]] / PAGE_SIZE);
    if (name[0]) snprintf(r->text + used, r->size - used, ", in %s", name);
}

/* What the run of element i should hold, and what it holds. True: it holds something of the operands;
 * else the text is the best that can be said, or stays as it is. */
static bool read_run(struct reading *r, int64_t i) {
    struct origin want, read;
    char name[100];
    int64_t n;
    const int64_t first = run_around(r, i, &n);
    const double *const y = r->y + first, *const got = r->got + first;
    const bool poison = reading_is_poison(r, r->got[i]), none = nonzero(y, n) == 0;
    if ((!none && nonzero(y, n) < ORIGIN_FEWEST)) return false;
    if (!none && !origin_find(r->at, r->outcome, y, n, NULL, &want)) return false;
    if (none)
        snprintf(name, sizeof name, "nothing");
    else
        origin_name(r->at, &want, name, sizeof name);
    const bool found = !poison && nonzero(got, n) >= ORIGIN_FEWEST &&
                       origin_find(r->at, r->outcome, got, n, none ? NULL : &want, &read);
    if (!found && r->text[0]) return false;
    if (found && none) {
        origin_name(r->at, &read, name, sizeof name);
        snprintf(r->text, r->size, "%s, for nothing", name);
    } else if (found)
        origin_tell(r->at, &read, &want, r->text, r->size);
    else
        snprintf(r->text, r->size, "%s, for %s",
                 poison            ? "what nobody has written"
                 : nonzero(got, n) ? "a mixture"
                                   : "nothing",
                 name);
    tell_landing(r, first);
    return found;
}

void read_moved(struct reading *r) {
    enum { TRIES = 64 }; /* each looks through all operands */
    for (int64_t i = 0, n, tries = 0; i < r->count && tries < TRIES; i++) {
        if (reading_same(r, i) || (r->text[0] && reading_is_poison(r, r->got[i]))) continue;
        if (read_run(r, i)) return;
        tries++;
        i = run_around(r, i, &n) + n - 1; /* the next run */
    }
}

/* ---- the ops that have tags ---- */

static void (*const readers[OP_COUNT])(struct reading *r) = {
    [OP_LINEAR] = read_product,  [OP_SPLIT] = read_moved,      [OP_KV_WRITE] = read_moved,
    [OP_ATTENTION] = read_moved, [OP_PERMUTE] = read_moved,    [OP_COMBINE] = read_moved,
    [OP_ROPE] = read_moved,      [OP_ACTIVATION] = read_moved, [OP_GATED_LINEAR] = read_product,
    [OP_SUM] = read_sum,
};

static void read_output(struct reading *r, void (*reader)(struct reading *r)) {
    char *const line = r->text;
    int64_t wrong = 0;
    for (int64_t i = 0; i < r->count; i++) wrong += !reading_same(r, i);
    if (wrong) reader(r);
    const size_t used = strlen(line);
    if (used)
        snprintf(line + used, r->size - used, " (with fill=tags; %lld of %lld elements are wrong)",
                 (long long)wrong, (long long)r->count);
}

void tags_read(const struct placed *at, const struct outcome *o, const struct answer *answer, char *text,
               size_t size) {
    void (*const reader)(struct reading * r) = readers[placed_row(at)->op];
    for (int i = 0; reader && i < answer->n && !text[0]; i++) {
        void *owned;
        const void *const stored = answer_stored(at, &o->got, answer, i, &owned);
        const double gate = placed_row(at)->op == OP_ACTIVATION ? TAG_GATE : 1; /* times what is moved */
        double *const got = memory_zeroed((size_t)answer->count[i], sizeof *got);
        double *const y = memory_zeroed((size_t)answer->count[i], sizeof *y);
        struct reading r = {.at = at,
                            .outcome = o,
                            .id = answer->id[i],
                            .dtype = placed_dtype(at, answer->id[i]),
                            .count = answer->count[i],
                            .y = y,
                            .got = got,
                            .text = text,
                            .size = size};
        for (int64_t n = 0; n < r.count; n++) {
            got[n] = dtype_load(stored, r.dtype, n) / gate;
            y[n] = answer->y[i][n] / gate;
        }
        read_output(&r, reader);
        free(got);
        free(y);
        free(owned);
    }
}
