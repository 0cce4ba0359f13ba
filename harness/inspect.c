/* What stands around one element? */
/* SPDX-License-Identifier: MIT */
#include "harness/inspect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/exhibit.h"
#include "layer/choices.h"
#include "reference/bound.h"

enum { MAX_SHOWN = 16 };
#define MOST_ELEMENTS ((int64_t)1 << 26) /* larger inputs are not searched */

/* ---- TENSOR[i,j] ---- */

static bool is_answered(enum tensor_id id) {
    for (int s = 0; s < S_COUNT; s++)
        for (const enum tensor_id *out = stage_table[s].out; *out != T_NONE; out++)
            if (*out == id) return true;
    return false;
}

static struct status unknown_tensor(const char *name) {
    struct choices choices = {0};
    char text[300];
    for (enum tensor_id id = 0; id < T_COUNT; id++)
        if (is_answered(id)) choices_add(&choices, "%s", tensor_table[id].name);
    choices_text(&choices, name, text, sizeof text);
    return status_error("--print %.40s: no stage stores such a tensor; use %s", name, text);
}

struct status inspection_parse(const char *text, struct inspection *out) {
    char name[40];
    const size_t length = strcspn(text, "[");
    snprintf(name, sizeof name, "%.*s", length < 39 ? (int)length : 39, text);
    *out = (struct inspection){.id = T_COUNT, .file = stdout};
    for (enum tensor_id id = 0; id < T_COUNT; id++)
        if (is_answered(id) && !strcmp(name, tensor_table[id].name)) out->id = id;
    if (out->id == T_COUNT) return unknown_tensor(name);
    if (!text[length]) return status_ok();
    for (const char *at = text + length; *at == '[' || *at == ',';) {
        char *end;
        const long long index = strtoll(at + 1, &end, 10);
        if (end == at + 1 || index < 0 || out->n == MAX_AXES) break;
        out->index[out->n++] = index;
        if (!strcmp(end, "]")) return status_ok();
        at = end;
    }
    return status_error("--print %.60s: use TENSOR[i,j], indices from 0 of its first axes", text);
}

/* ---- what is shown ---- */

/* Axes that both have must agree; a block of a concatenated axis counts from its own beginning. */
static bool is_beside(const struct place *place, const struct inspection *what, const struct place *named) {
    for (int i = 0; i < place->n; i++)
        for (int k = 0; k < what->n && k < named->n; k++)
            if (place->axis[i] == named->axis[k] && place->index[i] != what->index[k]) return false;
    return true;
}

static void print_place(FILE *file, const struct place *place, int from) {
    for (int i = from; i < place->n; i++)
        fprintf(file, "%s%s %lld", i > from ? " " : "", axis_label(place->axis[i]),
                (long long)place->index[i]);
}

/* False: this rank does not hold it. */
static bool print_output(const struct inspection *what, const struct placed *at, const struct outcome *o,
                         const struct answer *a, int i) {
    const enum dtype dtype = placed_dtype(at, a->id[i]);
    void *owned;
    const void *const got = answer_stored(at, &o->got, a, i, &owned);
    int shown = 0;
    for (int64_t n = 0; n < a->count[i] && shown < MAX_SHOWN; n++) {
        const struct place place = slice_place(&at->crew->plan, a->id[i], at->rank, n);
        if (!is_beside(&place, what, &place)) continue;
        if (!shown++) {
            fprintf(what->file, "%s.%s", placed_row(at)->name, tensor_table[a->id[i]].name);
            if (at->crew->unsharded)
                fprintf(what->file, ", unsharded, by %s\n", o->by);
            else
                fprintf(what->file, ", rank %d of %lld, by %s\n", at->rank, (long long)at->crew->plan.tp,
                        o->by);
        }
        const double value = dtype_load(got, dtype, n);
        fputs("  ", what->file);
        print_place(what->file, &place, 0);
        fprintf(what->file, ": got %.9g, ", value);
        if (isnan(a->y[i][n]))
            fputs("nothing is right: what it follows from is no number, or not there\n", what->file);
        else
            fprintf(what->file, "expected %.9g +- %.3g, margin %.3g\n", a->y[i][n], a->e[i][n],
                    element_judge(dtype, value, a->y[i][n], a->e[i][n]).margin);
    }
    free(owned);
    return shown > 0;
}

/* Of each input that is no weight, the elements on the same token, head, ... */
static void print_input(const struct inspection *what, const struct placed *at, enum tensor_id id,
                        const struct place *named) {
    const int64_t count = placed_count(at, id);
    const enum dtype dtype = placed_dtype(at, id);
    const struct layer_spec local = placed_local(at);
    if (tensor_table[id].role == ROLE_WEIGHT || !tensor_present(id, &local) || count > MOST_ELEMENTS) return;
    void *const dense = memory_zeroed((size_t)count, dtype_bytes(dtype));
    placed_dense(at, id, dense);
    int shown = 0;
    for (int64_t n = 0; n < count && shown < MAX_SHOWN; n++) {
        const struct place place = slice_place(&at->crew->plan, id, at->rank, n);
        if (!is_beside(&place, what, named)) continue;
        if (!shown++) {
            fprintf(what->file, "  reads %s from ", tensor_table[id].name);
            print_place(what->file, &place, 0);
            fputc(':', what->file);
        }
        fprintf(what->file, " %.6g", dtype_load(dense, dtype, n));
    }
    if (shown) fputc('\n', what->file);
    free(dense);
}

void inspect(const struct inspection *what, const struct placed *at, const struct outcome *o,
             const struct answer *a) {
    if (what && what->whole) {
        const bool it = at->stage == what->stage && (at->crew->unsharded ? -1 : at->rank) == what->rank;
        if (it) exhibit(what->file, at, o, a);
        return;
    }
    for (int i = 0; what && i < a->n; i++) {
        if (a->id[i] != what->id || !a->count[i]) continue;
        const struct place named = slice_place(&at->crew->plan, a->id[i], at->rank, 0);
        if (!print_output(what, at, o, a, i)) continue;
        for (const enum tensor_id *in = placed_row(at)->in; *in != T_NONE; in++)
            print_input(what, at, *in, &named);
        fflush(what->file);
    }
}
