/* Which simple relation holds between what was stored and what is right? */
/* SPDX-License-Identifier: MIT */
#include "harness/relate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/evidence.h"
#include "harness/relate_keys.h"

/* ---- nothing at all ---- */

static bool all_zero(const struct evidence *ev, char *text, size_t size) {
    for (int i = 0; i < ev->n; i++)
        if (ev->sample[i].got != 0) return false;
    snprintf(text, size, "zero");
    return true;
}

static bool all_poison(const struct evidence *ev, char *text, size_t size) {
    for (int i = 0; i < ev->n; i++)
        if (!ev->sample[i].poison) return false;
    snprintf(text, size,
             "what the buffer held before the launch: not written, or copied from where nothing is");
    return true;
}

/* ---- a factor ---- */

static bool scaled(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                   struct guess *out) {
    (void)ev;
    *out = (struct guess){c->factor * s->y, fabs(c->factor) * s->e};
    return true;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of got / y where y is large enough to say it. */
static double fitted_factor(const struct evidence *ev) {
    double ratio[SAMPLES];
    int n = 0;
    for (int i = 0; i < ev->n; i++)
        if (fabs(ev->sample[i].y) > 4 * ev->sample[i].e && isfinite(ev->sample[i].got))
            ratio[n++] = ev->sample[i].got / ev->sample[i].y;
    qsort(ratio, (size_t)n, sizeof *ratio, compare);
    return n >= FEWEST ? ratio[n / 2] : 0;
}

static bool a_factor(const struct evidence *ev, char *text, size_t size) {
    const struct layer_spec *const spec = &ev->placed->crew->spec;
    const double tp = (double)ev->placed->crew->plan.tp;
    const double group = spec->n_kv_heads ? (double)spec->n_heads / (double)spec->n_kv_heads : 1;
    const struct {
        double factor;
        const char *is;
    } known[] = {{tp, "tp"},
                 {1 / tp, "1/tp"},
                 {-1, NULL},
                 {2, NULL},
                 {0.5, NULL},
                 {spec->routed_scale, "the routed scale"},
                 {1 / spec->routed_scale, "1 / the routed scale"},
                 {spec->attn_scale, "the scale of the scores"},
                 {1 / spec->attn_scale, "1 / the scale of the scores"},
                 {group, "heads in a group"},
                 {1 / group, "1 / heads in a group"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const struct candidate c = {.factor = known[i].factor};
        if (c.factor == 1 || !isfinite(c.factor) || !evidence_fits(ev, scaled, &c)) continue;
        if (known[i].is)
            snprintf(text, size, "%.6g x the right value (%.6g = %s)", c.factor, c.factor, known[i].is);
        else
            snprintf(text, size, "%.6g x the right value", c.factor);
        return true;
    }
    const struct candidate c = {.factor = fitted_factor(ev)};
    if (c.factor == 0 || !evidence_fits(ev, scaled, &c)) return false;
    snprintf(text, size, "%.4g x the right value", c.factor);
    return true;
}

/* ---- a factor of each row ---- */

static bool scaled_by_row(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                          struct guess *out) {
    const double factor = c->input[s - ev->sample];
    *out = (struct guess){factor * s->y, fabs(factor) * s->e};
    return factor != 0;
}

/* Of the samples of a row the one with the sharpest value says its factor, and does not count
 * itself: it would fit. 0: too few to tell. */
static double row_factor(const struct evidence *ev, const struct sample *s) {
    const int64_t row = ev->answer->row_size[ev->output];
    const struct sample *best = NULL;
    int n = 0;
    for (const struct sample *b = ev->sample; b < ev->sample + ev->n; b++) {
        if (b == s || b->index / row != s->index / row) continue;
        n++;
        if (!best || fabs(b->y) * best->e > fabs(best->y) * b->e) best = b;
    }
    return n >= 3 && isfinite(best->got) && best->y != 0 ? best->got / best->y : 0;
}

static bool a_factor_of_each_row(const struct evidence *ev, char *text, size_t size) {
    double factor[SAMPLES], low = INFINITY, high = -INFINITY;
    for (int i = 0; i < ev->n; i++) {
        factor[i] = row_factor(ev, &ev->sample[i]);
        if (factor[i] < low) low = factor[i];
        if (factor[i] > high) high = factor[i];
    }
    if (!evidence_fits(ev, scaled_by_row, &(struct candidate){.input = factor})) return false;
    snprintf(text, size, "the right value times a factor that each row has of its own, %.3g to %.3g", low,
             high);
    return true;
}

/* ---- an element of somebody else ---- */

static bool element_at(const struct evidence *ev, int output, const int64_t *at, struct guess *out) {
    int64_t index = 0;
    for (int i = 0; i < ev->n_axes; i++) {
        if (at[i] < 0 || at[i] >= ev->shape[i]) return false;
        index = index * ev->shape[i] + at[i];
    }
    *out = (struct guess){ev->search->y[output][index], ev->search->e[output][index]};
    return true;
}

static bool shifted(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                    struct guess *out) {
    int64_t at[MAX_AXES];
    memcpy(at, s->at, sizeof at);
    at[c->axis] += c->index;
    return element_at(ev, ev->output, at, out);
}
static bool fixed(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                  struct guess *out) {
    int64_t at[MAX_AXES];
    memcpy(at, s->at, sizeof at);
    at[c->axis] = c->index;
    return element_at(ev, ev->output, at, out);
}
/* The neighbour in a pair, or the same place in the other half. */
static bool swapped(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                    struct guess *out) {
    int64_t at[MAX_AXES];
    const int64_t size = ev->shape[c->axis];
    memcpy(at, s->at, sizeof at);
    at[c->axis] = c->index == 1 ? at[c->axis] ^ 1 : (at[c->axis] + size / 2) % size;
    return element_at(ev, ev->output, at, out);
}
static bool of_another_output(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                              struct guess *out) {
    return element_at(ev, (int)c->index, s->at, out);
}

static const char *label_of(const struct evidence *ev, int axis) {
    return axis_label(tensor_axes(evidence_tensor(ev)).axis[axis].block[0].name);
}

static bool along_an_axis(const struct evidence *ev, int axis, char *text, size_t size) {
    const int64_t n = ev->shape[axis];
    const char *const label = label_of(ev, axis);
    struct candidate c = {.axis = axis};
    for (int64_t by = 1; by < n; by++)
        for (int back = 0; back < 2; back++) {
            c.index = back ? -by : by;
            if (!evidence_fits(ev, shifted, &c)) continue;
            snprintf(text, size, "%s i holds what %s i %c %lld should", label, label, back ? '-' : '+',
                     (long long)by);
            return true;
        }
    for (c.index = 0; c.index < n; c.index++) {
        if (!evidence_fits(ev, fixed, &c)) continue;
        snprintf(text, size, "every %s holds what %s %lld should", label, label, (long long)c.index);
        return true;
    }
    for (c.index = 1; c.index <= 2 && n % 2 == 0; c.index++) {
        if (!evidence_fits(ev, swapped, &c)) continue;
        snprintf(text, size,
                 c.index == 1 ? "each %s and its neighbour are swapped" : "the halves of the %ss are swapped",
                 label);
        return true;
    }
    return false;
}

static bool an_element_of_another(const struct evidence *ev, char *text, size_t size) {
    for (int axis = ev->n_axes - 1; axis >= 0; axis--)
        if (along_an_axis(ev, axis, text, size)) return true;
    for (int i = 0; i < ev->answer->n; i++) {
        const enum tensor_id other = ev->answer->id[i];
        if (i == ev->output || strcmp(tensor_table[other].axes, tensor_table[evidence_tensor(ev)].axes))
            continue;
        if (!evidence_fits(ev, of_another_output, &(struct candidate){.index = i})) continue;
        snprintf(text, size, "what %s should hold", tensor_table[other].name);
        return true;
    }
    return false;
}

/* ---- an input, or one too few or too many ---- */

static bool value_of_input(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                           struct guess *out) {
    (void)ev;
    *out = (struct guess){c->input[s->index], 0};
    return true;
}
static bool plus_input(const struct evidence *ev, const struct sample *s, const struct candidate *c,
                       struct guess *out) {
    (void)ev;
    const double term = c->input[s->index];
    *out = (struct guess){s->y + c->factor * term, s->e};
    return term != 0;
}

static double *dense(const struct view *v, int64_t rows, int64_t columns, int64_t stride) {
    double *const x = memory_zeroed((size_t)(rows * columns), sizeof *x);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) x[r * columns + c] = evidence_load(v, r * stride + c);
    return x;
}

/* The operands that look like the output. */
static bool an_input(const struct evidence *ev, char *text, size_t size) {
    const struct stage_row *const row = placed_row(ev->placed);
    const enum tensor_id id = evidence_tensor(ev);
    if (placed_op(ev->placed)->answers_inputs || row->op == OP_SUM) return false;
    for (const enum tensor_id *in = row->in; *in != T_NONE; in++) {
        if (strcmp(tensor_table[*in].axes, tensor_table[id].axes) || tensor_table[*in].role == ROLE_INDEX)
            continue;
        const int64_t n = placed_count(ev->placed, *in);
        const enum dtype dtype = placed_dtype(ev->placed, *in);
        if (n != ev->answer->count[ev->output]) continue;
        void *const stored = memory_zeroed((size_t)n, dtype_bytes(dtype));
        double *const x = memory_zeroed((size_t)n, sizeof *x);
        placed_dense(ev->placed, *in, stored);
        for (int64_t i = 0; i < n; i++) x[i] = dtype_load(stored, dtype, i);
        const bool found = evidence_fits(ev, value_of_input, &(struct candidate){.input = x});
        if (found) snprintf(text, size, "the input %s, unchanged", tensor_table[*in].name);
        free(stored), free(x);
        if (found) return true;
    }
    return false;
}

/* The right value with a multiple of the term, in words. */
static bool with_term(const struct evidence *ev, const double *term, const char *name, char *text,
                      size_t size) {
    const double tp = (double)ev->placed->crew->plan.tp;
    const struct {
        double factor;
        const char *words;
    } known[] = {{-1, "less"}, {1, "plus"}, {tp - 1, "plus tp - 1 times"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const struct candidate c = {.factor = known[i].factor, .input = term};
        if (!evidence_fits(ev, plus_input, &c)) continue;
        snprintf(text, size, "the right value %s %s", known[i].words, name);
        return true;
    }
    return false;
}

static bool a_term_of_a_sum(const struct evidence *ev, char *text, size_t size) {
    const struct sum_args *const a = &ev->outcome->call.u.sum;
    bool found = false;
    for (int64_t i = 0; i < a->n_parts && !found; i++) {
        double *const part = dense(&a->part[i], a->n_tokens, a->width, a->part[i].stride[0]);
        char name[64];
        const int64_t tp = ev->placed->crew->plan.tp;
        snprintf(name, sizeof name, "what rank %lld brought", (long long)(i / (a->n_parts / tp)));
        found = with_term(ev, part, name, text, size);
        free(part);
    }
    return found;
}

static bool a_bias(const struct evidence *ev, char *text, size_t size) {
    const struct linear_args *const a = &ev->outcome->call.u.linear;
    const enum tensor_id id = placed_row(ev->placed)->in[2];
    const struct stored *const bias = id == T_NONE ? NULL : &ev->placed->crew->whole->of[id];
    if (!bias || bias->count != a->n_cols)
        return false; /* of a rank the whole one: it is cut like the columns */
    const struct view view = {bias->memory.data, bias->dtype, {0}, 0, bias->count};
    double *const x = dense(&view, a->n_rows, a->n_cols, 0);
    const bool found = with_term(ev, x, "the bias", text, size);
    free(x);
    return found;
}

/* gate * down row of choice j of every token; nothing where the expert is elsewhere. */
static double *part_of_choice(const struct combine_args *a, int64_t j) {
    double *const x = memory_zeroed((size_t)(a->n_tokens * a->width), sizeof *x);
    for (int64_t t = 0; t < a->n_tokens; t++) {
        const int64_t row = (int64_t)dtype_load(a->slot_row.data, DTYPE_I32, t * a->slot_row.stride[0] + j);
        if (row < 0 || row >= a->n_rows) continue;
        const double gate = dtype_load(a->gates.data, a->gates.dtype, t * a->gates.stride[0] + j);
        for (int64_t c = 0; c < a->width; c++)
            x[t * a->width + c] = gate * dtype_load(a->down.data, a->down.dtype, row * a->down.stride[0] + c);
    }
    return x;
}

static bool a_choice(const struct evidence *ev, char *text, size_t size) {
    const struct combine_args *const a = &ev->outcome->call.u.combine;
    bool found = false;
    for (int64_t j = 0; j < a->top_k && !found; j++) {
        double *const x = part_of_choice(a, j);
        char name[64];
        snprintf(name, sizeof name, "what the expert of choice %lld gives", (long long)j);
        found = with_term(ev, x, name, text, size);
        free(x);
    }
    return found;
}

/* ---- the table ---- */

enum { EVERY_OP = -1 };
static const struct {
    int op;
    bool (*find)(const struct evidence *ev, char *text, size_t size);
} relations[] = {
    {EVERY_OP, all_zero},
    {EVERY_OP, all_poison},
    {EVERY_OP, an_input},
    {OP_ATTENTION, relate_keys},
    {OP_LINEAR, a_bias},
    {OP_SUM, a_term_of_a_sum},
    {OP_COMBINE, a_choice},
    {EVERY_OP, a_factor},
    {EVERY_OP, an_element_of_another},
    {EVERY_OP, a_factor_of_each_row},
};

void relate(const struct placed *at, const struct outcome *o, const struct answer *answer,
            const struct answer *whole, char *text, size_t size) {
    struct evidence ev;
    char words[160];
    if (!evidence_gather(&ev, at, o, answer, whole)) return;
    for (size_t i = 0; i < sizeof relations / sizeof *relations; i++) {
        if (relations[i].op != EVERY_OP && relations[i].op != (int)o->call.op) continue;
        if (!relations[i].find(&ev, words, sizeof words)) continue;
        snprintf(text, size, "%s%s%s", answer->n > 1 ? tensor_table[evidence_tensor(&ev)].name : "",
                 answer->n > 1 ? ": " : "", words);
        return;
    }
}
