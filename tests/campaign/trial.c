/* What does a trial draw, how do its kernels add up, and what is an alarm? */
/* SPDX-License-Identifier: MIT */
#include "reference/replay.h"
#include "tests/campaign/campaign.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* splitmix64 (Steele, Lea & Flood 2014) */
static uint64_t next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct trial trial_open(uint64_t seed, const char *name, int64_t number, bool dishonest) {
    struct trial t = {.state = seed, .dishonest = dishonest};
    for (const char *c = name; *c; c++) t.state = next(&t.state) ^ (unsigned char)*c;
    t.state = next(&t.state) ^ (uint64_t)number;
    next(&t.state);
    return t;
}

void trial_close(struct trial *t) {
    for (int i = 0; i < t->n_arrays; i++) free(t->array[i]);
    t->n_arrays = 0;
}

void *trial_array(struct trial *t, int64_t n, size_t size) {
    void *const p = calloc((size_t)n + 1, size);
    if (!p || t->n_arrays == MAX_TRIAL_ARRAYS) {
        fprintf(stderr, "campaign: %s\n", p ? "too many arrays in a trial" : "out of memory");
        exit(2);
    }
    return t->array[t->n_arrays++] = p;
}

/* ---- drawing ---- */

double trial_real(struct trial *t, double low, double high) {
    return low + (high - low) * ldexp((double)(next(&t->state) >> 11), -53);
}

int64_t trial_draw(struct trial *t, int64_t low, int64_t high) {
    return low + (int64_t)(next(&t->state) % (uint64_t)(high - low + 1));
}

int64_t trial_size(struct trial *t, int64_t high) {
    return (int64_t)exp(trial_real(t, 0, log((double)high + 1)));
}

bool trial_flip(struct trial *t) { return trial_draw(t, 0, 1); }

enum dtype trial_half(struct trial *t) { return trial_flip(t) ? DTYPE_BF16 : DTYPE_F16; }
enum dtype trial_dtype(struct trial *t) { return trial_draw(t, 0, 2) ? trial_half(t) : DTYPE_F32; }

float *trial_values(struct trial *t, int64_t n, enum dtype d, double scale) {
    float *const x = trial_array(t, n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)dtype_round(d, trial_real(t, -scale, scale));
    return x;
}

/* ---- judging ---- */

void trial_alarm(struct trial *t, const char *text) {
    if (!t->alarms++) snprintf(t->alarm, sizeof t->alarm, "%s", text);
}

/* Together, too: weights have random signs, as those of a fill. Where B is sum |c| E, it may be reached:
 * the largest statistic is kept of the others. */
static void judge_together(struct trial *t, const struct score_case *c) {
    struct score_report r;
    char text[200];
    ref_score(c, &r);
    t->tests += r.tests;
    const bool shared = c->call->op == OP_ATTENTION || c->call->op == OP_LINEAR;
    if (shared && r.tests && !(r.worst.ratio <= t->statistic)) t->statistic = r.worst.ratio;
    if (r.state != SCORE_WRONG) return;
    snprintf(text, sizeof text, "statistical in %s: %s %+.3g, %.3g of the threshold, head %lld, keys %lld",
             dtype_name(c->dtype), score_direction_name(r.worst.direction), r.worst.estimate, r.worst.ratio,
             (long long)r.worst.head, (long long)r.worst.keys);
    trial_alarm(t, text);
}

static void judge_each(struct trial *t, const char *what, enum dtype d, const void *kept, const double *y,
                       const double *e, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const double stored = dtype_load(kept, d, i);
        const struct element_verdict v = element_judge(d, stored, y[i], e[i]);
        if (v.kind == ELEMENT_OK) continue;
        char text[200];
        snprintf(text, sizeof text, "%s %lld in %s: got %.9g, y %.9g, E %.3g, margin %.3g", what,
                 (long long)i, dtype_name(d), stored, y[i], e[i], v.margin);
        trial_alarm(t, text);
    }
    t->elements += n;
}

void trial_judge(struct trial *t, const struct call *call, const struct contract *contract, const float *got,
                 int output) {
    const int64_t rows = ref_n_rows(call), n = rows * ref_row_size(call, output);
    const enum dtype d = trial_dtype(t);
    struct ref_out out[MAX_REF_OUT] = {{NULL, NULL, NULL}};
    double *const y = trial_array(t, n, sizeof *y), *const e = trial_array(t, n, sizeof *e);
    void *const kept = trial_array(t, n, sizeof(double));
    out[output] = (struct ref_out){y, e, NULL};
    ref_compute(call, contract, NULL, 0, rows, out);
    for (int64_t i = 0; i < n; i++) dtype_store(kept, d, i, (double)got[i]);
    judge_each(t, "element", d, kept, y, e, n);
    if (ref_replays(call, contract)) {
        double *const sharp = trial_array(t, 2 * n, sizeof *sharp);
        ref_replay(call, contract, 0, rows, 1, sharp, sharp + n);
        judge_each(t, "declared order: element", d, kept, sharp, sharp + n, n);
    }
    if (!t->alarms)
        judge_together(t, &(struct score_case){.call = call,
                                               .contract = contract,
                                               .output = output,
                                               .dtype = d,
                                               .stored = kept,
                                               .y = y,
                                               .e = e,
                                               .random_signs = true});
}

/* ---- adding up ---- */

enum { STEP = 16, FRACTION = 25, KEEP = 24 }; /* of an sm_90 tensor core for 16-bit operands */

struct adding adding_draw(struct trial *t, bool half) {
    struct adding a = {.order = (enum order)trial_draw(t, 0, half ? TENSOR_CORE : INTERLEAVED)};
    a.parts = trial_draw(t, 2, 33);
    a.fma = trial_flip(t);
    return a;
}

const char *adding_name(const struct adding *a) {
    static const char *const names[ORDERS] = {"in order", "reversed", "split", "interleaved", "tensor core"};
    return names[a->order];
}

struct accumulator adding_accumulator(const struct adding *a) {
    if (a->order == TENSOR_CORE)
        return (struct accumulator){.block = STEP, .fraction = FRACTION, .keep = KEEP};
    return (struct accumulator){.unit = UNIT_F32,
                                .block = 1,
                                .splits = a->order == SPLIT ? (int)a->parts : 0,
                                .order = a->order == INTERLEAVED ? ORDER_ANY : ORDER_INTERVAL,
                                .product_rounded = !a->fma};
}

int64_t adding_depth(const struct adding *a, int64_t n) {
    const int64_t piece = (n + a->parts - 1) / a->parts;
    return a->order == SPLIT || a->order == INTERLEAVED ? piece + a->parts : n;
}

float flushed(float x) { return fabsf(x) < 0x1p-126f ? 0 : x; }

static float plus_product(const struct adding *a, float sum, float x, float y) {
    if (!a->flushes) return a->fma ? fmaf(x, y, sum) : sum + x * y;
    return flushed(a->fma ? fmaf(x, y, sum) : sum + flushed(x * y));
}

/* A multiple of 2^quantum, towards zero. */
static double cut(double x, int quantum) { return ldexp(trunc(ldexp(x, -quantum)), quantum); }

/* All operands are aligned to the largest exponent and cut, so is the exact sum of what is left. */
static float tensor_step(float sum, const float *x, const float *y, int64_t n) {
    int top = sum != 0 ? ilogbf(sum) : -300;
    for (int64_t k = 0; k < n; k++) {
        const double term = (double)x[k] * (double)y[k];
        if (term != 0 && ilogb(term) > top) top = ilogb(term);
    }
    double total = cut((double)sum, top - FRACTION);
    for (int64_t k = 0; k < n; k++) total += cut((double)x[k] * (double)y[k], top - FRACTION);
    return total != 0 ? (float)cut(total, ilogb(total) - KEEP + 1) : 0;
}

float adding_go_on(float sum, const float *x, const float *y, int64_t n) {
    for (int64_t k = 0; k < n; k += STEP) sum = tensor_step(sum, x + k, y + k, n - k < STEP ? n - k : STEP);
    return sum;
}

float adding_dot(const struct adding *a, const float *x, const float *y, int64_t n) {
    const int64_t piece = (n + a->parts - 1) / a->parts;
    float sum = 0;
    switch (a->order) {
    case IN_ORDER:
        for (int64_t k = 0; k < n; k++) sum = plus_product(a, sum, x[k], y[k]);
        break;
    case REVERSED:
        for (int64_t k = n; k-- > 0;) sum = plus_product(a, sum, x[k], y[k]);
        break;
    case SPLIT:
        for (int64_t k0 = 0; k0 < n; k0 += piece) {
            float part = 0;
            for (int64_t k = k0; k < n && k < k0 + piece; k++) part = plus_product(a, part, x[k], y[k]);
            sum = plus_product(a, sum, part, 1);
        }
        break;
    case INTERLEAVED:
        for (int64_t lane = 0; lane < a->parts; lane++) {
            float part = 0;
            for (int64_t k = lane; k < n; k += a->parts) part = plus_product(a, part, x[k], y[k]);
            sum = plus_product(a, sum, part, 1);
        }
        break;
    case TENSOR_CORE: return adding_go_on(0, x, y, n);
    default: break;
    }
    return sum;
}
