/* internal - what the files of the reference share and nobody else needs: reading through spans,
 * the blocked dot product under attention, and one entry point an op.
 * Every entry point fills rows [row0, row1) of its outputs; `put` skips the arrays the caller left
 * out. */
/* SPDX-License-Identifier: MIT */
#ifndef REFERENCE_INTERNAL_H
#define REFERENCE_INTERNAL_H

#include "reference/reference.h"
#include "reference/summer.h"

#include <math.h>
#include <omp.h>
#include <string.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

/* ---- views ---- */

double view_at(const struct view *v, int64_t index);                        /* NaN outside the span */
void view_row(double *dst, const struct view *v, int64_t first, int64_t n); /* the same, n elements */
int64_t view_index(const struct view *v, int64_t index); /* int32; -1 if negative or outside */

/* Radii of operand i's elements data[first..first + n): zeros where it has none, NaN outside its
 * span. */
void radius_row(double *dst, const double *const *radius, int i, const struct view *v, int64_t first,
                int64_t n);
static inline bool has_radius(const double *const *radius, int i) { return radius && radius[i]; }

static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
/* b where a is NaN; unlike those of fmin, loops take several at once. */
static inline double min_f64(double a, double b) { return a < b ? a : b; }

static inline void put(const struct ref_out *out, int64_t i, double y, double e, double s1) {
    if (out->y) out->y[i] = y;
    if (out->e) out->e[i] = e;
    if (out->s1) out->s1[i] = s1;
}

/* How many of n pieces of work a thread takes at a time: few enough that none waits long for the
 * last. */
static inline int64_t pieces_at_once(int64_t n) {
    return max_i64(1, min_i64(16, n / (4 * omp_get_max_threads())));
}

/* Aligned for `lanes`; ends the program when memory is exhausted. Free with free(). */
void *ref_alloc(size_t bytes);

/* Absolute error of one fp32 operation whose result is subnormal; fp64 never gets there. */
static inline double underflow_unit(double unit) { return unit > UNIT_F64 ? 0x1p-149 : 0; }
/* The same where subnormal results may be flushed to zero: the smallest normal number. */
static inline double flush_unit(double unit) { return unit > UNIT_F64 ? 0x1p-126 : 0; }
/* What so many operations lose under a contract that flushes. */
static inline double flushed(const struct contract *c, double operations) {
    return c->flushes ? operations * 0x1p-126 : 0;
}

/* One number with its radius. */
struct fuzzy {
    double value, radius;
};

/* What becomes of it when it is rounded to d; DTYPE_F64: nothing. */
static inline struct fuzzy image(struct fuzzy x, enum dtype d) {
    image_of(&x.value, &x.radius, 1, d);
    return x;
}

/* x b, rounded to `unit`; nothing where both are known and multiples of powers of two coarse enough. */
static inline struct fuzzy product(struct fuzzy x, struct fuzzy b, double unit) {
    const double y = x.value * b.value, grid = value_grid(x.value) * value_grid(b.value);
    const double moved = x.radius * (fabs(b.value) + b.radius) + fabs(x.value) * b.radius;
    const bool exact = moved == 0 && grid >= addition_grid(unit, fabs(y));
    const double tiny = y != 0 || moved != 0 ? underflow_unit(unit) : 0;
    return (struct fuzzy){y, exact ? 0 : (unit + UNIT_F64) * (fabs(y) + moved) + moved + tiny};
}
static inline struct fuzzy known(double x) { return (struct fuzzy){x, 0}; }

/* The sum of some numbers so far: of their magnitudes, of their radii, and the least of their grids. */
struct running {
    double y, s1, moved, grid;
};
static inline void running_clear(struct running *sum, int64_t n) {
    for (int64_t c = 0; c < n; c++) sum[c] = (struct running){.grid = INFINITY};
}
static inline void running_add(struct running *sum, double value, double radius) {
    sum->y += value, sum->s1 += fabs(value), sum->moved += radius;
    sum->grid = min_f64(value_grid(value), sum->grid);
}

/* n numbers: one is a copy, two round once, more at most n times in any order, at what is at most S1. */
static inline struct fuzzy running_end(const struct running *sum, int64_t n, double unit) {
    const bool exact = sum->moved == 0 && sum->grid >= addition_grid(unit, sum->s1);
    const double factor = (unit + UNIT_F64) * (double)n, size = sum->s1 + sum->moved;
    return (struct fuzzy){sum->y, (exact || n == 1 ? 0 : factor * size) + sum->moved};
}

/* ---- lanes ---- */

/* Four independent sums side by side. A GCC vector, because the compiler does not keep arrays of
 * sums in registers; each lane does the same operations in the same order, so position never
 * changes a bit. */
enum { LANES = 4, COLUMNS = 4 };
typedef double lanes __attribute__((vector_size(LANES * sizeof(double))));
typedef int64_t lane_bits __attribute__((vector_size(sizeof(lanes))));

/* The smaller and the larger; `old` where either is NaN. gcc does not find the packed instructions
 * by itself. */
static inline lanes lanes_min(lanes x, lanes old) {
#ifdef __AVX__
    return _mm256_min_pd(x, old);
#else
    for (int l = 0; l < LANES; l++) old[l] = x[l] < old[l] ? x[l] : old[l];
    return old;
#endif
}
static inline lanes lanes_max(lanes x, lanes old) {
#ifdef __AVX__
    return _mm256_max_pd(x, old);
#else
    for (int l = 0; l < LANES; l++) old[l] = x[l] > old[l] ? x[l] : old[l];
    return old;
#endif
}
static inline lanes lanes_abs(lanes x) {
    return (lanes)((lane_bits)x & INT64_MAX);
} /* the sign bit cleared */

static inline lanes lanes_at(const double *p) {
    lanes x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void lanes_put(double *p, lanes x) { memcpy(p, &x, sizeof x); }
static inline lanes lanes_all(double x) { return (lanes){x, x, x, x}; }
/* a b + c, rounded once where that is one instruction: only bounds are summed so. */
static inline lanes lanes_fma(lanes a, lanes b, lanes c) {
#if defined __AVX__ && defined __FMA__
    return _mm256_fmadd_pd(a, b, c);
#else
    return a * b + c;
#endif
}
/* x where s1 > 0, else 0: a sum of exact zeros has no error. */
static inline lanes where_positive(lanes s1, double x) {
    return (lanes)((lane_bits)(s1 > lanes_all(0)) & (lane_bits)lanes_all(x));
}

/* ---- the blocked dot product of attention (dot.c) ---- */

struct dot_sums {
    lanes y, low, high,
        s1; /* sum, min and max over its prefixes (the empty one included), sum of magnitudes */
};
enum dot_want { WANT_SPAN = 1, WANT_SIZE = 2 }; /* low and high; s1 */

/* sums[c] continues over n terms w[c * w_stride + k] * x[k], k rising, for c < n_columns <=
 * COLUMNS. What is not in `want` (a set of enum dot_want) may stay as it was: the span costs up to
 * a fifth more, both to half. */
void dot_continue(struct dot_sums *sums, const double *w, int64_t w_stride, int n_columns, const lanes *x,
                  int64_t n, int want);

/* The same where the terms are summed in slices of `slice` (0: all in one) which are then added up; the
 * first term begins one. spans[c] += the sum over slices of the largest minus the smallest prefix sum
 * within the slice; low and high stay those of the whole. */
void dot_in_slices(struct dot_sums *sums, lanes *spans, const double *w, int64_t w_stride, int n_columns,
                   const lanes *x, int64_t n, int64_t slice, int want);

/* ---- the k largest (top_k.c) ---- */

/* ids[0..K) by falling choice, ties to the lower index. choice [E]: experts of groups that lose
 * become the fill. */
void top_k_pick(double *choice, const struct route_args *a, int32_t *ids);

/* ---- the sums of a linear call (linear_sums.c) ---- */

/* The groups that own some of the rows [row0, row1), in order; runs [groups + 1]. Returns how many. */
int64_t linear_runs(struct ref_run *runs, const struct linear_args *a, int64_t row0, int64_t row1);

/* Rows whose inputs stand transposed at x, [tiles][K] lanes. */
struct linear_run {
    struct ref_run rows;
    const lanes *x;
};
static inline int64_t linear_run_tiles(const struct ref_run *r) { return (r->n + LANES - 1) / LANES; }
/* Inputs of its rows first + i, i < LANES, as tile [K] of lanes; 0 where it has no such row. */
void linear_tile(lanes *tile, const struct ref_run *r, int64_t first, const struct linear_args *a);

/* The same runs with their inputs. */
struct linear_rows {
    struct linear_run *run;
    int64_t n_runs, most_tiles;
    lanes *x;
};
struct linear_rows linear_rows_make(const struct linear_args *a, int64_t row0, int64_t row1);
void linear_rows_free(struct linear_rows *rows);

/* Sums as in summer.h: those of row r and column c of a block at [r * stride + c]. */
struct linear_sums {
    const double *y, *span, *s1;
    int64_t stride;
};
/* A thread's room for those of a run with up to SUM_COLUMNS columns. */
enum { SUM_COLUMNS = 16 };
struct linear_adder {
    struct row_sums *sums; /* [tiles * LANES] */
};
void linear_adder_open(struct linear_adder *adder, int64_t most_tiles);
void linear_adder_close(struct linear_adder *adder);
/* Columns from `column` on; valid until the next. What is not in `want` (a set of enum dot_want) is
 * anything. */
struct linear_sums linear_add_up(const struct linear_adder *adder, const struct linear_run *run,
                                 const struct linear_args *a, int64_t column, int n_columns, int64_t slice,
                                 int want);

/* What acc's order gives for a run's rows with REF_PANEL columns from `column` on: total [tiles][REF_PANEL];
 * sum: scratch of that size (replay.c). */
void linear_replay_panel(lanes *total, lanes *sum, const struct linear_run *run, const struct linear_args *a,
                         const struct accumulator *acc, int64_t column);

/* True: the summer has added up all of `sums`, which stay valid until the next call (summer.c). */
bool summer_adds_up(struct ref_sums *sums);

/* One half of a gated call's w, [groups, F, K], as a linear call: 0 is the gate, 1 is up (gated.c). */
struct call gated_half(const struct gated_linear_args *a, int half);

/* ---- the activation (gated.c) ---- */

/* silu(gate) * up as the contract computes it. */
struct fuzzy gated_value(const struct activation_contract *c, struct fuzzy gate, struct fuzzy up);

/* ---- how far scores and values are off by radii (radius.c); operands q, k_cache, v_cache are 0,
 * 1, 2 ---- */

/* Adds |scale| (|q|.r_k + r_q.|k| + r_q.r_k) of query row `token`, head `head` to r[0..n), a key
 * of `seq` each. */
void score_radii(double *r, const struct attention_args *a, const double *const *radius, int64_t seq,
                 int64_t token, int64_t head, int64_t n);
/* moved[0..D) = sum over keys of w[j] r_v[j]. */
void value_radii(double *moved, const struct attention_args *a, const double *const *radius, int64_t seq,
                 int64_t kv_head, const double *w, int64_t n);

/* ---- entry points ---- */

typedef void ref_op(const struct call *call, const struct contract *contract, const double *const *radius,
                    int64_t row0, int64_t row1, const struct ref_out *out);
ref_op ref_norm, ref_qk_norm, ref_linear, ref_split, ref_rope, ref_kv_write, ref_attention, ref_route,
    ref_permute_rows, ref_activation, ref_gated_linear, ref_combine, ref_sum, ref_residual;

#endif
