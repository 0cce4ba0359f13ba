/* What does the declared order of a sum give? Two kinds of steps, from 0, k ascending:
 *   block 1    s = fma(x_k, w_k, s), rounded to fp32
 *   block b    a tensor core's: b products and s are cut off towards zero below 2^(e - fraction), e the
 *              largest exponent among them (a product's is the sum of its factors'), added exactly, and
 *              the sum is cut off towards zero to `keep` bits (Fasi et al. 2021; Khattak & Mikaitis 2025;
 *              docs/numerics.md, section 3)
 * Slices are added up in fp32, each as it ends; then comes the bias. */
/* SPDX-License-Identifier: MIT */
#include "reference/replay.h"
#include "reference/internal.h"

#include <stdlib.h>

enum {
    CHUNK = 256,       /* terms at a time: whole steps */
    PANEL = REF_PANEL, /* columns at a time: so many sums hide the time of one addition */
    CORE_EACH = 10,
    GROUPED_EACH = 2,
    ATTENTION_EACH = 3
};
struct panel {
    double w[PANEL][CHUNK], exponent[PANEL][CHUNK]; /* for tensor cores */
    float narrow[PANEL][CHUNK];                     /* for chains */
};
/* sum[c] goes on over n <= CHUNK terms; fp32 numbers in doubles. */
typedef void step_fn(lanes sum[PANEL], const struct panel *p, const lanes *x, int64_t n,
                     const struct accumulator *acc);

/* ---- a chain of FMA ---- */

typedef float floats __attribute__((vector_size(LANES * sizeof(float))));

static inline floats fma_floats(floats a, float b, floats c) {
#if defined __AVX__ && defined __FMA__
    return _mm_fmadd_ps(a, _mm_set1_ps(b), c);
#else
    for (int l = 0; l < LANES; l++) c[l] = fmaf(a[l], b, c[l]);
    return c;
#endif
}

static void chain_steps(lanes sum[PANEL], const struct panel *p, const lanes *x, int64_t n,
                        const struct accumulator *acc) {
    (void)acc;
    floats s[PANEL];
    for (int c = 0; c < PANEL; c++) s[c] = __builtin_convertvector(sum[c], floats);
    for (int64_t k = 0; k < n; k++) {
        const floats row = __builtin_convertvector(x[k], floats);
        for (int c = 0; c < PANEL; c++) s[c] = fma_floats(row, p->narrow[c][k], s[c]);
    }
    for (int c = 0; c < PANEL; c++) sum[c] = __builtin_convertvector(s[c], lanes);
}

/* ---- a tensor core ---- */

enum { NO_EXPONENT = -4000, LEAST_EXPONENT = -126, DOUBLE_BIAS = 1023, DOUBLE_FRACTION = 52 };

/* Exponents as doubles; that of zero is below all others, those of subnormals that of the least normal. */
static inline lanes exponents(lanes x) {
    const lane_bits bits = (lane_bits)x >> DOUBLE_FRACTION & 0x7ff;
    const lanes e = __builtin_convertvector(bits - DOUBLE_BIAS, lanes);
    const lane_bits zero = x == lanes_all(0);
    const lanes normal = lanes_max(lanes_all(LEAST_EXPONENT), e);
    return (lanes)((zero & (lane_bits)lanes_all(NO_EXPONENT)) | (~zero & (lane_bits)normal));
}

/* 2^e, |e| < 1000: e + bias are the low bits of e + bias + 1.5 2^52. */
static inline lanes powers(lanes e) {
    return (lanes)((lane_bits)(e + (DOUBLE_BIAS + 0x1.8p52)) << DOUBLE_FRACTION);
}

static inline lanes cut_off(lanes x) {
#ifdef __AVX__
    return _mm256_round_pd(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
#else
    for (int l = 0; l < LANES; l++) x[l] = trunc(x[l]);
    return x;
#endif
}

static void core_step(lanes *sum, const double *w, const double *w_exponent, const lanes *x,
                      const lanes *x_exponent, const int64_t n, const struct accumulator *acc) {
    lanes e = exponents(*sum);
    for (int64_t k = 0; k < n; k++) e = lanes_max(x_exponent[k] + w_exponent[k], e);
    e = lanes_max(e, lanes_all(-900)); /* all zero */
    const lanes unit = powers(e - acc->fraction), per_unit = powers(acc->fraction - e);
    lanes s = cut_off(*sum * per_unit);
    for (int64_t k = 0; k < n; k++) s += cut_off(x[k] * w[k] * per_unit); /* both products are exact */
    const int dropped = DOUBLE_FRACTION + 1 - acc->keep;
    s = (lanes)((lane_bits)s & -(INT64_C(1) << dropped)) * unit;
    *sum = cut_off(s * 0x1p149) * 0x1p-149; /* below the least normal fp32 has fewer bits */
}

static void core_steps(lanes sum[PANEL], const struct panel *p, const lanes *x, int64_t n,
                       const struct accumulator *acc) {
    for (int64_t k = 0; k < n; k += acc->block) {
        const int64_t m = min_i64(acc->block, n - k);
        lanes x_exponent[CHUNK];
        for (int64_t i = 0; i < m; i++) x_exponent[i] = exponents(x[k + i]);
        for (int c = 0; c < PANEL; c++)
            core_step(&sum[c], p->w[c] + k, p->exponent[c] + k, x + k, x_exponent, m, acc);
    }
}

/* ---- sums of a run of rows ---- */

static lanes to_fp32(lanes x) { return __builtin_convertvector(__builtin_convertvector(x, floats), lanes); }

/* The same as view_row, which converts to double: with few rows a weight is converted for little else. */
static void float_row(float *dst, const struct view *v, int64_t first, int64_t n) {
    if (v->data && v->dtype == DTYPE_BF16 && first >= v->lo && n <= v->hi - first) {
        const uint16_t *const from = (const uint16_t *)v->data + first;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t bits = (uint32_t)from[i] << 16;
            memcpy(&dst[i], &bits, sizeof bits);
        }
        return;
    }
    double row[CHUNK];
    view_row(row, v, first, n);
    for (int64_t i = 0; i < n; i++) dst[i] = (float)row[i];
}

static void load_panel(struct panel *p, const struct linear_args *a, int64_t group, int64_t column, int64_t k,
                       int64_t n, bool core) {
    for (int c = 0; c < PANEL; c++) {
        const int64_t first = group * a->w.stride[0] + (column + c) * a->w.stride[1] + k;
        const bool absent = column + c >= a->n_cols;
        if (absent)
            memset(p->narrow[c], 0, sizeof p->narrow[c]), memset(p->w[c], 0, sizeof p->w[c]);
        else if (!core)
            float_row(p->narrow[c], &a->w, first, n);
        else
            view_row(p->w[c], &a->w, first, n);
        for (int64_t i = 0; i < n && core; i += LANES)
            lanes_put(p->exponent[c] + i, exponents(lanes_at(p->w[c] + i)));
    }
}

void linear_replay_panel(lanes *total, lanes *sum, const struct linear_run *r, const struct linear_args *a,
                         const struct accumulator *acc, int64_t column) {
    step_fn *const steps = acc->block > 1 ? core_steps : chain_steps;
    const int64_t n = linear_run_tiles(&r->rows) * PANEL, slice = acc->slice ? acc->slice : a->n_inner;
    struct panel p;
    for (int64_t i = 0; i < n; i++) total[i] = lanes_all(0);
    for (int64_t first = 0; first < a->n_inner; first += slice) {
        const int64_t end = min_i64(first + slice, a->n_inner);
        for (int64_t i = 0; i < n; i++) sum[i] = lanes_all(0);
        for (int64_t k = first; k < end; k += CHUNK) {
            const int64_t terms = min_i64(CHUNK, end - k);
            load_panel(&p, a, r->rows.group, column, k, terms, acc->block > 1);
            for (int64_t t = 0; t < n; t += PANEL)
                steps(sum + t, &p, r->x + t / PANEL * a->n_inner + k, terms, acc);
        }
        for (int64_t i = 0; i < n; i++) total[i] = first ? to_fp32(total[i] + sum[i]) : sum[i];
    }
}

static double with_bias(const struct linear_args *a, double sum, int64_t column) {
    return (double)(float)(sum + (a->bias.data ? view_at(&a->bias, column) : 0));
}

static void replay_here(const struct linear_args *a, const struct accumulator *acc, int64_t row0,
                        int64_t row1, int64_t each, double *y) {
    struct linear_rows rows = linear_rows_make(a, row0, row1);
    const int64_t n_blocks = (a->n_cols + PANEL - 1) / PANEL;
    const int64_t at_once = pieces_at_once(rows.n_runs * n_blocks);
#pragma omp parallel
    {
        lanes *const total = ref_alloc((size_t)rows.most_tiles * 2 * PANEL * sizeof *total);
        lanes *const sum = total + rows.most_tiles * PANEL;
#pragma omp for collapse(2) schedule(dynamic, at_once)
        for (int64_t i = 0; i < rows.n_runs; i++)
            for (int64_t block = 0; block < n_blocks; block++) {
                const struct linear_run *const r = &rows.run[i];
                if ((block + r->rows.group) % each) continue;
                linear_replay_panel(total, sum, r, a, acc, block * PANEL);
                for (int64_t row = 0; row < r->rows.n; row++)
                    for (int64_t n = block * PANEL; n < min_i64((block + 1) * PANEL, a->n_cols); n++)
                        y[(r->rows.first + row - row0) * a->n_cols + n] =
                            with_bias(a, total[row / LANES * PANEL + n % PANEL][row % LANES], n);
            }
        free(total);
    }
    linear_rows_free(&rows);
}

static bool replay_elsewhere(const struct linear_args *a, const struct accumulator *acc, int64_t row0,
                             int64_t row1, int64_t each, double *y) {
    const int64_t n_blocks = (a->n_cols + PANEL - 1) / PANEL;
    struct ref_run *const run = ref_alloc((size_t)(a->n_groups + 1) * sizeof *run);
    struct ref_sums sums = {.args = a,
                            .run = run,
                            .slice = acc->slice ? acc->slice : a->n_inner,
                            .order = acc,
                            .each = each,
                            .n_cols = (n_blocks + each - 1) / each * PANEL};
    sums.n_runs = linear_runs(run, a, row0, row1);
    for (int64_t i = 0; i < sums.n_runs; i++) sums.n_rows += run[i].n;
    const bool added = summer_adds_up(&sums);
    int64_t before = 0; /* rows of the runs before */
    for (int64_t i = 0; added && i < sums.n_runs; before += run[i++].n) {
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < run[i].n; r++)
            for (int64_t j = 0; j < sums.n_cols; j++) {
                const int64_t n = ref_column(&sums, &run[i], j);
                if (n >= a->n_cols) break;
                y[(run[i].first + r - row0) * a->n_cols + n] =
                    with_bias(a, sums.y[(before + r) * sums.n_cols + j], n);
            }
    }
    free(run);
    return added;
}

static void linear_replay(const struct linear_args *a, const struct accumulator *acc, int64_t row0,
                          int64_t row1, int64_t each, double *y) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (row1 - row0) * a->n_cols; i++) y[i] = (double)NAN; /* what is not replayed */
    if (!replay_elsewhere(a, acc, row0, row1, each, y)) replay_here(a, acc, row0, row1, each, y);
}

/* ---- the two ops ---- */

static const struct accumulator *order_of(const struct contract *c) {
    const bool linear = c->op == OP_LINEAR && !c->u.linear.input_unit;
    const struct accumulator *const acc = linear                     ? &c->u.linear.acc
                                          : c->op == OP_GATED_LINEAR ? &c->u.gated_linear.acc
                                                                     : NULL;
    return acc && acc->in_order && (acc->splits <= 1 || acc->slice) ? acc : NULL;
}

bool ref_replays(const struct call *call, const struct contract *contract) {
    const struct accumulator *const acc = order_of(contract);
    if (attention_replays(contract)) return true;
    if (!acc) return false;
    const struct view *const x = call->op == OP_LINEAR ? &call->u.linear.x : &call->u.gated_linear.x;
    const struct view *const w = call->op == OP_LINEAR ? &call->u.linear.w : &call->u.gated_linear.w;
    if (acc->block > 1) return x->dtype == DTYPE_BF16 && w->dtype == DTYPE_BF16 && CHUNK % acc->block == 0;
    return acc->unit == UNIT_F32 && x->dtype != DTYPE_F64 && w->dtype != DTYPE_F64;
}

int64_t ref_replay_each(const struct call *call, const struct contract *contract) {
    const struct accumulator *const acc = order_of(contract);
    if (call->op == OP_ATTENTION) return ATTENTION_EACH;
    if (acc && acc->block > 1) return CORE_EACH;
    return call->op == OP_LINEAR && call->u.linear.n_groups == 1 ? 1 : GROUPED_EACH;
}

static void replay_linear(const struct call *call, const struct contract *contract, int64_t row0,
                          int64_t row1, int64_t each, double *y, double *e) {
    const int64_t n = (row1 - row0) * call->u.linear.n_cols;
    linear_replay(&call->u.linear, &contract->u.linear.acc, row0, row1, each, y);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) e[i] = 0;
}

static void replay_gated(const struct call *call, const struct contract *contract, int64_t row0, int64_t row1,
                         int64_t each, double *y, double *e) {
    const struct gated_linear_contract *const c = &contract->u.gated_linear;
    const struct call gate = gated_half(&call->u.gated_linear, 0), up = gated_half(&call->u.gated_linear, 1);
    linear_replay(&gate.u.linear, &c->acc, row0, row1, each, y);
    linear_replay(&up.u.linear, &c->acc, row0, row1, each, e);
    const int64_t n = (row1 - row0) * call->u.gated_linear.width;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const struct fuzzy replayed = gated_value(&c->activation, known(y[i]), known(e[i]));
        y[i] = replayed.value, e[i] = replayed.radius;
    }
}

void ref_replay(const struct call *call, const struct contract *contract, int64_t row0, int64_t row1,
                int64_t each, double *y, double *e) {
    (call->op == OP_LINEAR      ? replay_linear
     : call->op == OP_ATTENTION ? attention_replay
                                : replay_gated)(call, contract, row0, row1, each, y, e);
    const int64_t n = (row1 - row0) * ref_row_size(call, 0);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(y[i])) y[i] = 0, e[i] = INFINITY;
}
