/* What has a failing stage read? The digits of the rows that it stored, against those that it should
 * have. */
/* SPDX-License-Identifier: MIT */
#include "harness/tags.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "fixtures/tag.h"

struct reading {
    const struct placed *at;
    const struct answer *answer;
    const double *got; /* of answer 0, dense */
    int64_t n_wrong, n_rows;
    char *text;
    size_t size;
};

static bool same(const struct reading *r, int64_t i) {
    const enum dtype d = placed_dtype(r->at, r->answer->id[0]);
    return r->got[i] == dtype_round(d, r->answer->y[0][i]);
}

/* ---- attention: a row of a head is the value of one key ---- */

static void say_key(const struct reading *r, const double *got, const struct value_tag *want, int64_t D) {
    struct value_tag read;
    if (isnan(got[0]))
        snprintf(r->text, r->size, "what nobody has written, for key %lld of sequence %lld",
                 (long long)want->position, (long long)want->seq);
    else if (!value_tag_of(got, D, &read))
        snprintf(r->text, r->size, "no single key, for key %lld of sequence %lld", (long long)want->position,
                 (long long)want->seq);
    else if (read.kv_head != want->kv_head)
        snprintf(r->text, r->size, "kv head %lld for %lld", (long long)read.kv_head,
                 (long long)want->kv_head);
    else
        snprintf(r->text, r->size, "key %lld of sequence %lld for key %lld of sequence %lld",
                 (long long)read.position, (long long)read.seq, (long long)want->position,
                 (long long)want->seq);
}

static void read_values(struct reading *r) {
    const int64_t D = r->at->crew->spec.head_dim;
    r->n_rows = r->answer->count[0] / D;
    for (int64_t row = 0; row < r->n_rows; row++) {
        struct value_tag want;
        bool right = true;
        for (int64_t d = 0; d < D && right; d++) right = same(r, row * D + d);
        if (right || !value_tag_of(r->answer->y[0] + row * D, D, &want)) continue;
        if (!r->n_wrong++) say_key(r, r->got + row * D, &want, D);
    }
}

/* ---- linear: an output is the number of one column, a digit in every second row ---- */

static int64_t column_of(const double *even, const double *odd) {
    const bool digits = *even >= 1 && *even <= TAG_DIGITS && *odd >= 1 && *odd <= TAG_DIGITS &&
                        *even == floor(*even) && *odd == floor(*odd);
    return digits ? (int64_t)*even - 1 + TAG_DIGITS * ((int64_t)*odd - 1) : -1;
}

static void read_columns(struct reading *r) {
    const int64_t N = r->answer->row_size[0];
    r->n_rows = r->answer->count[0];
    for (int64_t i = 0; i < r->n_rows; i++) {
        const int64_t even = i / N / 2 * 2 * N + i % N, odd = even + N;
        if (same(r, i) || r->n_wrong++ || odd >= r->n_rows) continue;
        const int64_t want = column_of(r->answer->y[0] + even, r->answer->y[0] + odd);
        const int64_t read = column_of(r->got + even, r->got + odd);
        if (want < 0) continue;
        if (isnan(r->got[i]))
            snprintf(r->text, r->size, "what nobody has written, for column %lld", (long long)want);
        else if (r->got[i] == 0)
            snprintf(r->text, r->size, "nothing for column %lld", (long long)want);
        else if (r->got[i] == 2 * r->answer->y[0][i])
            snprintf(r->text, r->size, "column %lld twice", (long long)want);
        else if (read >= 0 && read != want)
            snprintf(r->text, r->size, "column %lld for %lld (%+lld)", (long long)read, (long long)want,
                     (long long)(read - want));
    }
}

/* ---- the ops that have tags ---- */

/* Of several tensors that are added up none is told apart. */
static void read_sum(struct reading *r) {
    if (placed_row(r->at)->in[1] == T_NONE) read_columns(r);
}

static void (*const readers[OP_COUNT])(struct reading *r) = {
    [OP_ATTENTION] = read_values,
    [OP_LINEAR] = read_columns,
    [OP_SUM] = read_sum,
};

void tags_read(const struct placed *at, const struct outcome *o, const struct answer *answer, char *text,
               size_t size) {
    const enum dtype d = placed_dtype(at, answer->id[0]);
    void (*const reader)(struct reading * r) = readers[placed_row(at)->op];
    char line[160] = "";
    if (!reader || tensor_axes(placed_row(at)->in[0]).axis[0].block[0].name == AXIS_N) return;
    void *owned;
    const void *const stored = answer_stored(at, &o->got, answer, 0, &owned);
    double *const got = memory_zeroed((size_t)answer->count[0], sizeof *got);
    for (int64_t i = 0; i < answer->count[0]; i++) got[i] = dtype_load(stored, d, i);
    struct reading r = {.at = at, .answer = answer, .got = got, .text = line, .size = sizeof line};
    reader(&r);
    if (line[0])
        snprintf(text, size, "%s (with fill=tags; the first of %lld wrong %s of %lld)", line,
                 (long long)r.n_wrong, placed_row(at)->op == OP_ATTENTION ? "rows" : "elements",
                 (long long)r.n_rows);
    free(got);
    free(owned);
}
