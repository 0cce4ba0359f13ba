/* What do the sums of a test say, and how does the store answer a shift? Also the test of any op
 * whose errors have no structure: B = sum |c| E. */
/* SPDX-License-Identifier: MIT */
#include "reference/score_sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const direction_names[SCORE_DIRECTIONS] = {
    [SCORE_GAIN] = "gain",
    [SCORE_OFFSET] = "offset",
    [SCORE_SCALE] = "scale",
    [SCORE_LAST_KEY] = "weight of the last key",
    [SCORE_KEYS] = "weights of some keys",
};
const char *score_direction_name(enum score_direction d) { return direction_names[d]; }

static const char *const silence_reasons[SCORE_SILENCES] = {
    [SCORE_SPEAKS] = "",
    [SILENT_LATTICE] = "lattice fill",
    [SILENT_FLUSHED] = "subnormal results flushed",
    [SILENT_NUMBERS] = "a value is no number",
    [SILENT_CELLS] = "the values are not spread over the cells of the storage format",
    [SILENT_WEIGHTS] = "the roundings of P have a mean",
    [SILENT_PIECES] = "the pieces of a split are rounded",
    [SILENT_HALF_P] = "P in fp16, where small weights are subnormal",
    [SILENT_NOTHING] = "values are exact, or 0",
};
const char *score_silence_reason(enum score_silence s) { return silence_reasons[s]; }

double score_log_tests(void) { return log(2 * SCORE_TESTS / SCORE_ALPHA); }

void score_add(struct score_sums *into, const struct score_sums *from) {
    into->t += from->t, into->i += from->i, into->b += from->b;
    into->c_square += from->c_square, into->v_store += from->v_store, into->v_p += from->v_p;
    for (int k = 0; k < SCORE_MAXIMA; k++) into->mean[k] += from->mean[k];
    for (int k = 0; k < SCORE_SHIFTS; k++) into->shift[k] += from->shift[k];
    into->shifted += from->shifted;
    into->open += from->open;
    into->elements += from->elements;
}

/* ---- the store ---- */

static const double shifts[SCORE_SHIFTS] = {1, -1, 0.5, -0.5, 0.25, -0.25};

static double half_cell(enum dtype d, double x) {
    const double size = fmax(fabs(x), dtype_normal(d));
    uint64_t bits;
    double power; /* the largest that is not above */
    memcpy(&bits, &size, sizeof bits);
    bits &= UINT64_C(0x7ff) << 52;
    memcpy(&power, &bits, sizeof power);
    return power * dtype_unit(d);
}

/* dtype_round; quick in the normal range. */
static double round_to(enum dtype d, double x) {
    static const int dropped[DTYPE_BF16_CUT + 1] = {[DTYPE_F32] = 29, [DTYPE_BF16] = 45, [DTYPE_F16] = 42};
    const int drop = dropped[d]; /* bits of a double that are not kept */
    const double size = fabs(x);
    if (!drop || !(size >= dtype_normal(d) && size < dtype_max(d) / 2)) return dtype_round(d, x);
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += (UINT64_C(1) << (drop - 1)) - 1 + (bits >> drop & 1);
    bits &= ~((UINT64_C(1) << drop) - 1);
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Where y is spread over its cell, round(y + delta) - round(y) has mean delta, whatever delta
 * (Schuchman 1964), and takes two neighbouring values: the proxy is that of a two-valued variable
 * with probabilities p and 1 - p, p <= E / cell (Kearns & Saul 1998), at most that of the half cell
 * h (Hoeffding 1963). Where a power of two lies within E, cells of two sizes meet: 3/2 h. */
struct score_cell score_cell(enum dtype d, double s, double y, double e) {
    const double size = fabs(y), high = half_cell(d, size + e), low = half_cell(d, fmax(size - e, 0));
    const double rounded = round_to(d, y), p = e / (2 * high);
    struct score_cell cell = {.moved = s - rounded, .proxy = high * high, .e = e};
    if (low < high)
        cell.proxy *= 2.25;
    else if (p < 0.5)
        cell.proxy *= p > 0 ? 2 * (1 - 2 * p) / log((1 - p) / p) : 0;
    cell.shift[0] = round_to(d, y + e) - rounded, cell.shift[1] = round_to(d, y - e) - rounded;
    for (int k = 2; k < SCORE_SHIFTS && (cell.shift[0] != 0 || cell.shift[1] != 0); k++)
        cell.shift[k] = round_to(d, y + shifts[k] * e) - rounded;
    return cell;
}

void score_store(struct score_sums *sums, double c, const struct score_cell *cell) {
    const double shifted = fabs(c) * cell->e;
    sums->t += c * cell->moved;
    sums->c_square += c * c;
    sums->v_store += c * c * cell->proxy;
    sums->shifted += shifted;
    for (int k = 0; k < SCORE_SHIFTS; k++) /* by E in the direction of c */
        sums->shift[k] += c * cell->shift[c < 0 ? k ^ 1 : k] - shifts[k] * shifted;
    sums->open += cell->shift[0] != 0 || cell->shift[1] != 0;
    sums->elements++;
}

int64_t score_multiplicity(const double *values, int64_t n) {
    int64_t slots = 16, most = 1;
    while (slots < 2 * n) slots *= 2;
    struct slot {
        double value;
        int64_t count;
    } *const table = ref_alloc((size_t)slots * sizeof *table);
    memset(table, 0, (size_t)slots * sizeof *table);
    for (int64_t i = 0; i < n; i++) {
        const double x = fabs(values[i]);
        uint64_t bits;
        if (x == 0 || isnan(x)) continue;
        memcpy(&bits, &x, sizeof bits);
        uint64_t at = (bits * UINT64_C(0x9e3779b97f4a7c15)) >> 20 & (uint64_t)(slots - 1);
        while (table[at].count && table[at].value != x) at = (at + 1) & (uint64_t)(slots - 1);
        table[at].value = x;
        most = max_i64(most, ++table[at].count);
    }
    free(table);
    return most;
}

/* ---- the verdict ---- */

static double largest(const double *x, int n) {
    double most = 0;
    for (int i = 0; i < n; i++) most = fmax(most, fabs(x[i]));
    return most;
}

/* The two assumptions, tested on the values of this call: known shifts of y come out of the store
 * as they are, up to its noise and a twentieth; P's roundings have no mean that noise would not
 * explain. What is left of either is in the threshold. */
static enum score_silence silence_of(const struct score_sums *s, double store_noise, double p_noise) {
    const double sums[] = {s->t, s->i, s->b, s->v_store, s->v_p, s->shifted};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        if (!isfinite(sums[i])) return SILENT_NUMBERS;
    if (!(s->i > 0) || s->open == 0) return SILENT_NOTHING;
    for (int k = 0; k < SCORE_SHIFTS; k++)
        if (!(fabs(s->shift[k]) <= 0.05 * fabs(shifts[k]) * s->shifted + store_noise)) return SILENT_CELLS;
    if (s->v_p > 0 && !(largest(s->mean, SCORE_MAXIMA) <= p_noise)) return SILENT_WEIGHTS;
    return SCORE_SPEAKS;
}

void score_conclude(struct score *s, const struct score_sums *sums, double store_times, double p_times) {
    const double t_square = 2 * score_log_tests();
    const double v_store = t_square * store_times * sums->v_store, v_p = t_square * p_times * sums->v_p;
    const double measured = largest(sums->mean, SCORE_MAXIMA) + largest(sums->shift, SCORE_SHIFTS);
    const double threshold = sums->b + measured + sqrt(v_store + v_p);
    s->silence = silence_of(sums, sqrt(v_store), sqrt(v_p));
    s->elements = sums->elements;
    if (s->silence != SCORE_SPEAKS) return;
    s->ratio = threshold > 0 ? fabs(sums->t) / threshold : sums->t == 0 ? 0 : INFINITY;
    s->estimate = sums->t / sums->i;
    s->resolution = threshold / sums->i;
}

/* What a silent test would have said is left out; that it was silent stands in the report where it
 * is about all rows. */
void score_report_add(struct score_report *report, const struct score *s) {
    const bool all = s->head < 0 && s->keys < 0;
    if (all && s->direction == SCORE_GAIN) report->gain = *s;
    if (all && s->direction == SCORE_SCALE) report->scale = *s;
    if (s->silence != SCORE_SPEAKS) return;
    report->tests++;
    if (report->tests == 1 || s->ratio > report->worst.ratio) report->worst = *s;
}

static enum score_state state_of(const struct score_report *r) {
    const struct score *const gain = &r->gain, *const scale = &r->scale;
    if (r->tests && !(r->worst.ratio <= 1)) return SCORE_WRONG;
    if (gain->silence != SCORE_SPEAKS) return gain->silence == SILENT_NOTHING ? SCORE_NONE : SCORE_SILENT;
    const bool scaled = scale->elements && scale->silence == SCORE_SPEAKS;
    const double resolution = scaled ? fmin(gain->resolution, scale->resolution) : gain->resolution;
    return resolution <= SCORE_VACUOUS ? SCORE_FINE : SCORE_VAGUE;
}

/* ---- ops whose errors have no structure ---- */

enum { ELEMENTS = 1 << 15, FEW = 2 }; /* elements looked at; directions */

bool score_samples(int64_t row, int64_t rows, int64_t most) {
    if (rows <= most) return true;
    const double golden = 0.6180339887498949 * (double)row; /* in step with no tile */
    return golden - floor(golden) < (double)most / (double)rows;
}

static double square_sum(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

/* Gain and offset of one row. */
static void row_sums(const struct score_case *c, int64_t row, int64_t width, double offset,
                     struct score_sums sums[FEW]) {
    const double *const y = c->y + row * width, *const e = c->e + row * width;
    const double square = square_sum(y, width);
    if (square == 0) return;
    for (int64_t i = 0; i < width; i++) {
        const double s = dtype_load(c->stored, c->dtype, row * width + i);
        const struct score_cell cell = score_cell(c->dtype, s, y[i], e[i]);
        const double dy[FEW] = {y[i], offset};
        for (int d = 0; d < FEW; d++) {
            const double factor = dy[d] / square;
            score_store(&sums[d], factor, &cell);
            sums[d].i += factor * dy[d];
            sums[d].b += fabs(factor) * e[i];
        }
    }
}

static double mean_size(const struct score_case *c, const bool *picked, int64_t rows, int64_t width) {
    double sum = 0;
    int64_t n = 0;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; picked[row] && i < width; i++, n++) sum += fabs(c->y[row * width + i]);
    return n ? sum / (double)n : 0;
}

/* Values that may be off share a rounding where they are equal. */
static int64_t equal_values(const struct score_case *c, const bool *picked, int64_t rows, int64_t width) {
    int64_t n = 0, n_picked = 0;
    for (int64_t row = 0; row < rows; row++) n_picked += picked[row];
    double *const values = ref_alloc((size_t)(n_picked * width + 1) * sizeof *values);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = row * width; picked[row] && i < (row + 1) * width; i++)
            if (c->e[i] > 0) values[n++] = c->y[i];
    const int64_t most = score_multiplicity(values, n);
    free(values);
    return most;
}

static void score_plain(const struct score_case *c, struct score_report *report) {
    static const enum score_direction directions[FEW] = {SCORE_GAIN, SCORE_OFFSET};
    const int64_t rows = ref_n_rows(c->call), width = ref_row_size(c->call, c->output);
    bool *const picked = ref_alloc((size_t)rows + 1);
    report->of_rows = rows;
    for (int64_t row = 0; row < rows; row++) {
        picked[row] = score_samples(row, rows, max_i64(ELEMENTS / width, 1));
        report->rows += picked[row];
    }
    const double offset = mean_size(c, picked, rows, width);
    struct score_sums(*const row)[FEW] = ref_alloc((size_t)(rows + 1) * sizeof *row);
    memset(row, 0, (size_t)(rows + 1) * sizeof *row);
#pragma omp parallel for schedule(static) if (report->rows * width > 4096)
    for (int64_t r = 0; r < rows; r++)
        if (picked[r]) row_sums(c, r, width, offset, row[r]);
    const int64_t times = equal_values(c, picked, rows, width);
    const bool linear = c->call->op == OP_LINEAR && c->random_signs;
    const double node = linear ? score_linear_node(c, picked) : INFINITY;
    for (int d = 0; d < FEW; d++) {
        struct score_sums all = {0};
        for (int64_t r = 0; r < rows; r++) score_add(&all, &row[r][d]);
        if (node < INFINITY) all.b = fmin(all.b, node * sqrt(all.c_square));
        struct score s = {.direction = directions[d], .head = -1, .keys = -1};
        score_conclude(&s, &all, (double)times, 1);
        score_report_add(report, &s);
    }
    free(row);
    free(picked);
}

static bool all_exact(const struct score_case *c) {
    enum { PIECE = 1 << 16 };
    const int64_t n = ref_n_rows(c->call) * ref_row_size(c->call, c->output);
    bool exact = true;
#pragma omp parallel for reduction(&& : exact) if (n > PIECE)
    for (int64_t first = 0; first < n; first += PIECE)
        for (int64_t i = first; exact && i < min_i64(first + PIECE, n); i++) exact = c->e[i] == 0;
    return exact;
}

void ref_score(const struct score_case *c, struct score_report *report) {
    *report = (struct score_report){0};
    if (all_exact(c))
        report->gain.silence = SILENT_NOTHING;
    else if (c->lattice)
        report->gain.silence = SILENT_LATTICE;
    else if (c->contract->flushes)
        report->gain.silence = SILENT_FLUSHED;
    else if (c->contract->op == OP_ATTENTION && c->contract->u.attention.piece != DTYPE_F64)
        report->gain.silence = SILENT_PIECES;
    else if (c->contract->op == OP_ATTENTION && c->contract->u.attention.p_unit == UNIT_F16)
        report->gain.silence = SILENT_HALF_P;
    else if (c->call->op == OP_ATTENTION)
        score_attention(c, report);
    else
        score_plain(c, report);
    report->state = state_of(report);
}
