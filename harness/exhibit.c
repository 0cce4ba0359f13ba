/* What does one stage of one rank look like in numbers? */
/* SPDX-License-Identifier: MIT */
#include "harness/exhibit.h"

#include <math.h>
#include <stdlib.h>

#include "harness/memory.h"
#include "reference/bound.h"

enum { ROWS = 8, COLUMNS = 8 };

/* One tensor as rows along its last axis. */
struct sheet {
    FILE *file;
    const struct placed *at;
    enum tensor_id id;
    enum dtype dtype;
    const void *data;
    int64_t count, width;
    const double *y, *e; /* NULL: it is read, or has no answer */
};

static struct sheet sheet_of(FILE *file, const struct placed *at, enum tensor_id id, const void *data) {
    int64_t shape[MAX_AXES];
    const int n = slice_shape(&at->crew->plan, id, at->rank, shape);
    const int64_t count = placed_count(at, id);
    return (struct sheet){.file = file,
                          .at = at,
                          .id = id,
                          .dtype = placed_dtype(at, id),
                          .data = data,
                          .count = count,
                          .width = n > 1 && shape[n - 1] > 0 ? shape[n - 1] : count};
}

static bool is_wrong(const struct sheet *s, int64_t i) {
    return s->y &&
           element_judge(s->dtype, dtype_load(s->data, s->dtype, i), s->y[i], s->e[i]).kind != ELEMENT_OK;
}

static bool has_wrong(const struct sheet *s, int64_t first) {
    for (int64_t i = first; i < first + s->width; i++)
        if (is_wrong(s, i)) return true;
    return false;
}

/* Pages that nobody owns. */
static bool is_empty(const struct sheet *s, int64_t first) {
    for (int64_t i = first; i < first + s->width; i++)
        if (!isnan(dtype_load(s->data, s->dtype, i))) return false;
    return !s->y;
}

static void print_label(const struct sheet *s, int64_t first) {
    const struct place place = slice_place(&s->at->crew->plan, s->id, s->at->rank, first);
    const int n = s->width == s->count ? 0 : place.n - 1;
    fputs(n ? "   " : "    all", s->file);
    for (int i = 0; i < n; i++)
        fprintf(s->file, " %s %lld", axis_label(place.axis[i]), (long long)place.index[i]);
}

/* What stands under the label: the values, or what is right, or how far they may be off. */
enum line { GOT, EXPECTED, BOUND };

static void print_line(const struct sheet *s, int64_t first, enum line line) {
    static const char *const words[] = {[GOT] = "got", [EXPECTED] = "expected", [BOUND] = "+-"};
    const int64_t most = s->width < COLUMNS ? s->width : COLUMNS;
    if (s->y) fprintf(s->file, "      %-8s", words[line]);
    for (int64_t i = first; i < first + most; i++) {
        char text[32];
        const double value = line == GOT        ? dtype_load(s->data, s->dtype, i)
                             : line == EXPECTED ? s->y[i]
                                                : s->e[i];
        snprintf(text, sizeof text, isnan(value) ? "NaN" : "%.*g", line == BOUND ? 2 : 7, value);
        fprintf(s->file, " %*s%s", s->dtype == DTYPE_I32 ? 5 : 11, text,
                line == GOT && is_wrong(s, i) ? "*" : "");
    }
    fputs(most < s->width ? " ...\n" : "\n", s->file);
}

static void print_row(const struct sheet *s, int64_t first) {
    print_label(s, first);
    if (!s->y) {
        fputc(':', s->file);
        print_line(s, first, GOT);
        return;
    }
    fputc('\n', s->file);
    for (int line = GOT; line <= BOUND; line++) print_line(s, first, (enum line)line);
}

/* Rows with a wrong element before others. */
static void print_sheet(const struct sheet *s, const char *what) {
    int64_t shape[MAX_AXES];
    const int n = slice_shape(&s->at->crew->plan, s->id, s->at->rank, shape);
    int64_t shown = 0, rows = 0;
    fprintf(s->file, "  %s %s %s [", what, tensor_table[s->id].name, dtype_name(s->dtype));
    for (int i = 0; i < n; i++) fprintf(s->file, "%s%lld", i ? ", " : "", (long long)shape[i]);
    fputs("]\n", s->file);
    for (int wrong = 1; wrong >= 0; wrong--)
        for (int64_t first = 0; s->width > 0 && first + s->width <= s->count; first += s->width) {
            if (has_wrong(s, first) != (wrong != 0) || is_empty(s, first)) continue;
            rows++;
            if (shown < (s->y ? ROWS / 2 : ROWS)) print_row(s, first), shown++;
        }
    if (rows > shown) fprintf(s->file, "    and %lld rows more\n", (long long)(rows - shown));
}

static void print_parts(FILE *file, const struct outcome *o) {
    for (int64_t p = 0; p < o->operands.n_parts; p++) {
        const struct view *const v = &o->operands.part[p];
        fprintf(file, "  reads part %lld:", (long long)p);
        for (int64_t i = 0; i < COLUMNS && i < v->hi; i++)
            fprintf(file, " %.7g", dtype_load(v->data, v->dtype, i));
        fputs(v->hi > COLUMNS ? " ...\n" : "\n", file);
    }
}

static void print_input(FILE *file, const struct placed *at, enum tensor_id id) {
    const struct layer_spec local = placed_local(at);
    if (!tensor_present(id, &local)) return;
    void *const dense = memory_zeroed((size_t)placed_count(at, id), dtype_bytes(placed_dtype(at, id)));
    placed_dense(at, id, dense);
    const struct sheet s = sheet_of(file, at, id, dense);
    print_sheet(&s, "reads");
    free(dense);
}

static bool is_answered(const struct answer *a, enum tensor_id id) {
    for (int i = 0; i < a->n; i++)
        if (a->id[i] == id) return true;
    return false;
}

void exhibit(FILE *file, const struct placed *at, const struct outcome *o, const struct answer *a) {
    const struct stage_row *const row = placed_row(at);
    fprintf(file, "stage %s of ", row->name);
    if (at->crew->unsharded)
        fprintf(file, "the unsharded run, by %s\n", o->by);
    else
        fprintf(file, "rank %d of %lld, by %s\n", at->rank, (long long)at->crew->plan.tp, o->by);
    if (row->op == OP_SUM)
        print_parts(file, o);
    else
        for (const enum tensor_id *in = row->in; *in != T_NONE; in++) print_input(file, at, *in);
    for (int i = 0; i < a->n; i++) {
        void *owned;
        const void *const got = answer_stored(at, &o->got, a, i, &owned);
        struct sheet s = sheet_of(file, at, a->id[i], got);
        s.y = a->y[i], s.e = a->e[i];
        print_sheet(&s, "stores");
        free(owned);
    }
    for (const enum tensor_id *out = row->out; *out != T_NONE; out++) {
        if (is_answered(a, *out) || !o->got.of[*out].count || placed_op(at)->collect) continue;
        const struct sheet s = sheet_of(file, at, *out, o->got.of[*out].memory.data);
        print_sheet(&s, "stores");
    }
}
