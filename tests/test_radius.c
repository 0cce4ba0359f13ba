/* Are the radii sound, and are they not silly? An op is computed on stored operands that are off by
 * at most their radii. What it would be on the true ones - anywhere inside, at the corners, at the
 * corner that moves an output farthest - lies within e; and some of it comes near e. */
/* SPDX-License-Identifier: MIT */
#include "reference/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* ---- random calls ---- */

enum { MAX_OPERANDS = 3, ARENA = 4096, MAX_OUT = 1024 };
static double arena[ARENA];
static int32_t integers[ARENA];
static int64_t used, used_integers;

struct operand { /* one that has radii */
    int index;
    double *x;
    int64_t n;
};
struct trial {
    struct call call;
    int n_operands;
    struct operand operand[MAX_OPERANDS];
};

static double snap(double x, double unit) { return trunc(x / unit) * unit; }
static double between(double low, double high) { return low + (high - low) * drand48(); }

static struct view numbers(int64_t n) {
    struct view v = {.data = arena + used, .dtype = DTYPE_F64, .hi = n};
    cr_assert_leq(used + n, ARENA);
    for (int64_t i = 0; i < n; i++) arena[used + i] = snap(between(-2, 2), 0x1p-20);
    used += n;
    return v;
}
static struct view indices(int64_t n, const int32_t *values) {
    struct view v = {.data = integers + used_integers, .dtype = DTYPE_I32, .hi = n};
    cr_assert_leq(used_integers + n, ARENA);
    if (values) memcpy(v.data, values, (size_t)n * sizeof *values);
    used_integers += n;
    return v;
}
static struct view strided(struct view v, int64_t s0, int64_t s1, int64_t s2) {
    v.stride[0] = s0, v.stride[1] = s1, v.stride[2] = s2;
    return v;
}
/* The same, and its elements have radii. */
static struct view fuzzy(struct trial *t, int index, int64_t n, int64_t s0, int64_t s1, int64_t s2) {
    const struct view v = strided(numbers(n), s0, s1, s2);
    t->operand[t->n_operands++] = (struct operand){index, v.data, n};
    return v;
}

enum { T = 3, H = 4, G = 2, D = 4 };

static void make_norm(struct trial *t) {
    t->call.u.norm = (struct norm_args){
        .x = fuzzy(t, 0, T * 5, 5, 0, 0), .w = numbers(5), .n_tokens = T, .width = 5, .eps = 1e-6};
}
static void make_qk_norm(struct trial *t) {
    t->call.u.qk_norm = (struct qk_norm_args){.q = fuzzy(t, 0, T * H * D, H * D, D, 0),
                                              .k = fuzzy(t, 1, T * G * D, G * D, D, 0),
                                              .w_q = numbers(D),
                                              .w_k = numbers(D),
                                              .n_tokens = T,
                                              .n_heads = H,
                                              .n_kv_heads = G,
                                              .head_dim = D,
                                              .eps = 1e-6};
}
static void make_linear(struct trial *t) {
    t->call.u.linear = (struct linear_args){.x = fuzzy(t, 0, T * 7, 7, 0, 0),
                                            .w = strided(numbers(5 * 7), 35, 7, 0),
                                            .bias = numbers(5),
                                            .n_rows = T,
                                            .n_cols = 5,
                                            .n_inner = 7,
                                            .n_groups = 1};
}
static const int32_t offsets[] = {0, 2, 2, 5}; /* the second group has no rows */
static void make_grouped_linear(struct trial *t) {
    t->call.u.linear = (struct linear_args){.x = fuzzy(t, 0, 5 * 3, 3, 0, 0),
                                            .w = strided(numbers(3 * 6 * 3), 18, 3, 0),
                                            .offsets = indices(4, offsets),
                                            .n_rows = 5,
                                            .n_cols = 6,
                                            .n_inner = 3,
                                            .n_groups = 3};
}
static void make_split(struct trial *t) {
    t->call.u.split = (struct split_args){.in = fuzzy(t, 0, T * (H + 2 * G) * D, (H + 2 * G) * D, D, 0),
                                          .first = {0, H * D, (H + G) * D},
                                          .n_tokens = T,
                                          .n_heads = H,
                                          .n_kv_heads = G,
                                          .head_dim = D};
}
static void make_rope(struct trial *t) {
    static const int32_t positions[T] = {5, 0, 11};
    struct view table = strided(numbers(12 * 2), 2, 0, 0);
    ref_rope_table(table.data, DTYPE_F64, 12, 2, &(struct layer_spec){.rope_theta = 1e4});
    t->call.u.rope = (struct rope_args){.q = fuzzy(t, 0, T * H * D, H * D, D, 0),
                                        .k = fuzzy(t, 1, T * G * D, G * D, D, 0),
                                        .table = table,
                                        .positions = indices(T, positions),
                                        .n_tokens = T,
                                        .n_heads = H,
                                        .n_kv_heads = G,
                                        .head_dim = D,
                                        .rot_dim = 2,
                                        .pairing = drand48() < 0.5 ? ROPE_NEOX : ROPE_GPTJ};
}
static void make_kv_write(struct trial *t) {
    static const int32_t slots[T] = {1, 7, 4};
    t->call.u.kv_write = (struct kv_write_args){.k = fuzzy(t, 0, T * G * D, G * D, D, 0),
                                                .v = fuzzy(t, 1, T * G * D, G * D, D, 0),
                                                .slots = indices(T, slots),
                                                .n_tokens = T,
                                                .n_kv_heads = G,
                                                .head_dim = D,
                                                .page_size = 4};
}
static void make_attention(struct trial *t) {
    static const int32_t pages[] = {2, 0, 1, INT32_MIN}, start[] = {0, 2, 3}, keys[] = {6, 3};
    enum { PAGE = 4, PAGES = 3, ROW = G * D };
    t->call.u.attention =
        (struct attention_args){.q = fuzzy(t, 0, T * H * D, H * D, D, 0),
                                .k_cache = fuzzy(t, 1, PAGES * PAGE * ROW, PAGE * ROW, ROW, D),
                                .v_cache = fuzzy(t, 2, PAGES * PAGE * ROW, PAGE * ROW, ROW, D),
                                .page_table = strided(indices(4, pages), 2, 0, 0),
                                .query_start = indices(3, start),
                                .kv_len = indices(2, keys),
                                .n_tokens = T,
                                .n_seqs = 2,
                                .n_heads = H,
                                .n_kv_heads = G,
                                .head_dim = D,
                                .page_size = PAGE,
                                .n_pages = PAGES,
                                .scale = between(-1, 1),
                                .causal = drand48() < 0.7};
}
static void make_route(struct trial *t) {
    struct route_args *const a = &t->call.u.route;
    *a = (struct route_args){.logits = fuzzy(t, 0, T * 6, 6, 0, 0),
                             .ids = strided(indices(T * 3, NULL), 3, 0, 0),
                             .n_tokens = T,
                             .n_experts = 6,
                             .top_k = 3,
                             .n_group = 1,
                             .topk_group = 1,
                             .score = drand48() < 0.5 ? SCORE_SIGMOID : SCORE_SOFTMAX,
                             .renormalise = drand48() < 0.5,
                             .routed_scale = 2.5};
    ref_route_ids(&t->call, 0, T, a->ids.data);
}
static void make_permute(struct trial *t) {
    static const int32_t ids[] = {3, 1, 2, 5, 1, 2};
    struct permute_args *const a = &t->call.u.permute;
    *a = (struct permute_args){.x = fuzzy(t, 0, T * 5, 5, 0, 0),
                               .ids = strided(indices(T * 2, ids), 2, 0, 0),
                               .n_tokens = T,
                               .top_k = 2,
                               .width = 5,
                               .expert_first = 1,
                               .expert_count = 2};
    a->n_rows = ref_permute(&t->call, NULL, NULL, NULL);
}
static void make_activation(struct trial *t) {
    t->call.u.activation =
        (struct activation_args){.gate_up = fuzzy(t, 0, T * 2 * 4, 8, 4, 0), .n_rows = T, .width = 4};
}
static void make_gated_linear(struct trial *t) {
    t->call.u.gated_linear = (struct gated_linear_args){.x = fuzzy(t, 0, 5 * 3, 3, 0, 0),
                                                        .w = strided(numbers(3 * 2 * 4 * 3), 24, 12, 3),
                                                        .offsets = indices(4, offsets),
                                                        .n_rows = 5,
                                                        .width = 4,
                                                        .n_inner = 3,
                                                        .n_groups = 3};
}
static void make_combine(struct trial *t) {
    static const int32_t slot_row[] = {0, 3, -1, 1, 2, -1};
    t->call.u.combine = (struct combine_args){.down = fuzzy(t, 0, 4 * 5, 5, 0, 0),
                                              .slot_row = strided(indices(T * 2, slot_row), 2, 0, 0),
                                              .gates = fuzzy(t, 2, T * 2, 2, 0, 0),
                                              .n_tokens = T,
                                              .top_k = 2,
                                              .width = 5,
                                              .n_rows = 4};
}
static void make_sum(struct trial *t) {
    static struct view part[3];
    for (int i = 0; i < 3; i++) part[i] = fuzzy(t, i, T * 5, 5, 0, 0);
    t->call.u.sum = (struct sum_args){.part = part, .n_parts = 3, .n_tokens = T, .width = 5};
}
static void make_residual(struct trial *t) {
    t->call.u.residual = (struct residual_args){
        .x = fuzzy(t, 0, T * 5, 5, 0, 0), .add = fuzzy(t, 1, T * 5, 5, 0, 0), .n_tokens = T, .width = 5};
}

static const struct maker {
    const char *name;
    enum op op;
    void (*make)(struct trial *t);
} makers[] = {
    {"norm", OP_NORM, make_norm},
    {"qk_norm", OP_QK_NORM, make_qk_norm},
    {"linear", OP_LINEAR, make_linear},
    {"grouped linear", OP_LINEAR, make_grouped_linear},
    {"split", OP_SPLIT, make_split},
    {"rope", OP_ROPE, make_rope},
    {"kv_write", OP_KV_WRITE, make_kv_write},
    {"attention", OP_ATTENTION, make_attention},
    {"route", OP_ROUTE, make_route},
    {"permute", OP_PERMUTE, make_permute},
    {"activation", OP_ACTIVATION, make_activation},
    {"gated_linear", OP_GATED_LINEAR, make_gated_linear},
    {"combine", OP_COMBINE, make_combine},
    {"sum", OP_SUM, make_sum},
    {"residual", OP_RESIDUAL, make_residual},
};
enum { N_MAKERS = sizeof makers / sizeof *makers };

static struct trial make(const struct maker *m) {
    struct trial t = {.call.op = m->op};
    used = used_integers = 0;
    omp_set_num_threads(1); /* thousands of tiny calls */
    m->make(&t);
    return t;
}

/* ---- outputs, one after another ---- */

static int64_t compute(const struct trial *t, const double *const *radius, double *y, double *e) {
    struct ref_out out[MAX_REF_OUT] = {0};
    const struct contract c = contract_f64(t->call.op);
    const int64_t rows = ref_n_rows(&t->call);
    int64_t n = 0;
    for (int i = 0; i < ref_n_outputs(t->call.op); n += rows * ref_row_size(&t->call, i++))
        out[i] = (struct ref_out){y + n, e ? e + n : NULL, NULL};
    cr_assert(n > 0 && n <= MAX_OUT);
    ref_compute(&t->call, &c, radius, 0, rows, out);
    return n;
}

/* ---- attacks ---- */

static double radii[MAX_OPERANDS][ARENA], stored[MAX_OPERANDS][ARENA];
static const double *radius[MAX_OPERANDS];
static double y[MAX_OUT], e[MAX_OUT], moved[MAX_OUT];

/* Stored operands, radii and whatever lies between are multiples of it, so that adding them up
 * rounds nothing. */
static double quantum(double scale) { return scale < 1 ? 0x1p-50 : 0x1p-44; }

/* Radii up to `scale`, every fourth element exact; all of one operand now and then. */
static void make_radii(const struct trial *t, double scale) {
    memset(radius, 0, sizeof radius);
    const int exact = drand48() < 0.2 && t->n_operands > 1 ? (int)(drand48() * t->n_operands) : -1;
    for (int o = 0; o < t->n_operands; o++) {
        const struct operand *const x = &t->operand[o];
        for (int64_t i = 0; i < x->n; i++) {
            radii[o][i] = drand48() < 0.25 ? 0 : snap(scale * drand48(), quantum(scale));
            stored[o][i] = x->x[i];
        }
        if (o != exact) radius[x->index] = radii[o];
    }
}

enum where { INSIDE, CORNER, FARTHEST, NEAREST, N_WHERE };

/* The sign with which an operand's element moves output `target` up. */
static double direction(const struct trial *t, int o, int64_t i, int64_t target) {
    double *const x = &t->operand[o].x[i];
    *x = stored[o][i] + radii[o][i];
    compute(t, NULL, moved, NULL);
    *x = stored[o][i];
    return moved[target] >= y[target] ? 1 : -1;
}

static void move_operands(const struct trial *t, enum where where, int64_t target, double unit) {
    static double sign[MAX_OPERANDS][ARENA];
    for (int o = 0; o < t->n_operands; o++)
        for (int64_t i = 0; i < t->operand[o].n && radius[t->operand[o].index]; i++)
            sign[o][i] = where == INSIDE   ? between(-1, 1)
                         : where == CORNER ? (drand48() < 0.5 ? -1 : 1)
                         : radii[o][i] > 0 ? direction(t, o, i, target) * (where == FARTHEST ? 1 : -1)
                                           : 0;
    for (int o = 0; o < t->n_operands; o++)
        for (int64_t i = 0; i < t->operand[o].n && radius[t->operand[o].index]; i++)
            t->operand[o].x[i] = stored[o][i] + snap(sign[o][i] * radii[o][i], unit);
}

static void move_back(const struct trial *t) {
    for (int o = 0; o < t->n_operands; o++)
        memcpy(t->operand[o].x, stored[o], (size_t)t->operand[o].n * sizeof(double));
}

/* The largest |true - stored| / e. */
static double attack(const struct maker *m, double scale) {
    double largest = 0;
    const struct trial t = make(m);
    make_radii(&t, scale);
    const int64_t n = compute(&t, radius, y, e);
    for (int64_t i = 0; i < n; i++) {
        if (isnan(e[i])) e[i] = INFINITY; /* nothing is known */
        cr_assert(e[i] >= 0, "%s: e is %g where radii are below %g", m->name, e[i], scale);
    }
    const int64_t target = (int64_t)(drand48() * (double)n);
    for (enum where where = 0; where < N_WHERE; where++) {
        move_operands(&t, where, target, quantum(scale));
        compute(&t, NULL, moved, NULL);
        move_back(&t);
        for (int64_t i = 0; i < n; i++) {
            const double distance = fabs(moved[i] - y[i]);
            cr_assert(distance <= e[i], "%s, radii below %g: output %lld is %g away, e is %g", m->name, scale,
                      (long long)i, distance, e[i]);
            if (isfinite(e[i]) && e[i] > 0) largest = fmax(largest, distance / e[i]);
        }
    }
    return largest;
}

Test(radius, what_operands_within_their_radii_give_is_within_e_and_comes_near_it) {
    srand48(5);
    for (int m = 0; m < N_MAKERS; m++) {
        double largest = 0;
        for (int i = 0; i < 60; i++) largest = fmax(largest, attack(&makers[m], pow(10, between(-8, -1))));
        cr_expect_geq(largest, 1e-3, "%s: e is %g times what happens", makers[m].name, 1 / largest);
    }
}

Test(radius, radii_of_a_few_last_bits_or_as_large_as_the_operands_are_held_too) {
    srand48(6);
    for (int m = 0; m < N_MAKERS; m++)
        for (int i = 0; i < 60; i++) attack(&makers[m], pow(10, i % 2 ? between(-14, -9) : between(-1, 1.5)));
}

/* ---- both sides ---- */

Test(radius, a_step_out_of_the_radii_leaves_e) {
    srand48(8);
    for (int m = 0; m < N_MAKERS; m++) {
        int outside = 0;
        for (int i = 0; i < 20; i++) {
            const struct trial t = make(&makers[m]);
            make_radii(&t, 1e-6);
            const int64_t n = compute(&t, radius, y, e);
            for (int o = 0; o < t.n_operands; o++)
                for (int64_t k = 0; k < t.operand[o].n; k++) t.operand[o].x[k] += 1e-3;
            compute(&t, NULL, moved, NULL);
            for (int64_t k = 0; k < n; k++) outside += fabs(moved[k] - y[k]) > e[k];
        }
        cr_expect_gt(outside, 0, "%s: a thousand radii away is still accepted", makers[m].name);
    }
}

Test(radius, no_radius_is_no_difference) {
    static double plain_y[MAX_OUT], plain_e[MAX_OUT];
    srand48(9);
    for (int m = 0; m < N_MAKERS; m++)
        for (int i = 0; i < 10; i++) {
            const struct trial t = make(&makers[m]);
            make_radii(&t, 0);
            const int64_t n = compute(&t, NULL, plain_y, plain_e);
            static const double *const none[MAX_OPERANDS];
            compute(&t, none, y, e);
            cr_expect_eq(memcmp(y, plain_y, (size_t)n * sizeof *y), 0, "%s", makers[m].name);
            cr_expect_eq(memcmp(e, plain_e, (size_t)n * sizeof *e), 0, "%s", makers[m].name);
            compute(&t, radius, y, e);
            for (int64_t k = 0; k < n; k++)
                cr_expect(fabs(e[k] - plain_e[k]) <= 1e-9 * plain_e[k], "%s: radii of zero make %g of %g",
                          makers[m].name, e[k], plain_e[k]);
        }
}

Test(radius, a_larger_radius_never_makes_a_smaller_e) {
    static double smaller[MAX_OUT];
    srand48(10);
    for (int m = 0; m < N_MAKERS; m++)
        for (int i = 0; i < 20; i++) {
            const struct trial t = make(&makers[m]);
            make_radii(&t, pow(10, between(-9, 0)));
            const int64_t n = compute(&t, radius, y, smaller);
            for (int o = 0; o < t.n_operands; o++)
                for (int64_t k = 0; k < t.operand[o].n; k++) radii[o][k] *= 3;
            compute(&t, radius, y, e);
            for (int64_t k = 0; k < n; k++)
                cr_expect(e[k] >= smaller[k] || isnan(e[k]), "%s: e falls from %g to %g", makers[m].name,
                          smaller[k], e[k]);
        }
}
