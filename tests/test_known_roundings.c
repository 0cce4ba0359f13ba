/* Stages that round inside, where a contract says so: honest arithmetic in float and bf16 is never outside
 * of its set, and arithmetic that rounds elsewhere is, often. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "reference/reference.h"

enum { ROWS = 40, WIDTH = 48, SIZE = ROWS * WIDTH, TRIALS = 60 };

static float bf16(float x) { return (float)dtype_round(DTYPE_BF16, (double)x); }
static float draw(void) { return bf16((float)(drand48() * 2 - 1)); }
/* A magnitude of the trial: mostly usual, some tiny, some large. */
static float scale_of(int trial) {
    static const int exponents[] = {0, 0, 2, -4, 20, -70, 60, -40};
    return ldexpf(1, exponents[trial % 8]);
}
static struct view floats(float *data, int64_t n, int64_t row) {
    return (struct view){data, DTYPE_F32, {row}, 0, n};
}

/* How many of got[0..n), stored in bf16, are outside of what the reference says. */
static int outside(const struct call *c, const struct contract *by, const double *const *radius,
                   const float *got) {
    static double y[SIZE], e[SIZE];
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    ref_compute(c, by, radius, 0, ref_n_rows(c), out);
    int n = 0;
    for (int64_t i = 0; i < ref_n_rows(c) * ref_row_size(c, 0); i++)
        n += element_judge(DTYPE_BF16, (double)got[i], y[i], e[i]).kind != ELEMENT_OK;
    return n;
}

/* What a producer that rounds and one that does not have stored; each under each contract. */
struct tally {
    int n, honest, plain, rounded_by_exact, plain_by_mid, other;
};
static void count(struct tally *t, const struct call *c, const struct contract *mid,
                  const double *const *radius, const float *rounded, const float *plain) {
    const struct contract exact = contract_exact(c->op);
    t->n += (int)(ref_n_rows(c) * ref_row_size(c, 0));
    t->honest += outside(c, mid, radius, rounded), t->plain += outside(c, &exact, radius, plain);
    t->rounded_by_exact += outside(c, &exact, radius, rounded);
    t->plain_by_mid += outside(c, mid, radius, plain);
}
static void expect(const struct tally *t, int percent) {
    cr_expect(t->honest == 0 && t->plain == 0, "%d and %d of %d outside", t->honest, t->plain, t->n);
    cr_expect_gt(t->rounded_by_exact, t->n / 100 * percent, "%d of %d", t->rounded_by_exact, t->n);
    cr_expect_gt(t->plain_by_mid, t->n / 100 * percent, "%d of %d", t->plain_by_mid, t->n);
}

/* ---- norm: x r is rounded, then times the weight ---- */

static struct tally norms(bool fuzzy) {
    static float x[SIZE], given[SIZE], w[WIDTH], rounded[SIZE], plain[SIZE];
    static double r[SIZE];
    struct tally tally = {0};
    srand48(81);
    for (int trial = 0; trial < TRIALS; trial++) {
        for (int i = 0; i < WIDTH; i++) w[i] = draw();
        for (int i = 0; i < SIZE; i++) {
            x[i] = draw() * scale_of(trial) + (fuzzy ? draw() * scale_of(trial) / 512 : 0);
            given[i] = fuzzy ? bf16(x[i]) : x[i]; /* the reference sees it rounded, and knows how far */
            r[i] = fabs((double)given[i] - (double)x[i]);
        }
        for (int t = 0; t < ROWS; t++) {
            float square = 0;
            for (int i = 0; i < WIDTH; i++) square += x[t * WIDTH + i] * x[t * WIDTH + i];
            const float root = 1 / sqrtf(square / WIDTH + 1e-6f);
            for (int i = 0; i < WIDTH; i++) {
                rounded[t * WIDTH + i] = bf16(bf16(x[t * WIDTH + i] * root) * w[i]);
                plain[t * WIDTH + i] = bf16(x[t * WIDTH + i] * root * w[i]);
            }
        }
        struct call c = {.op = OP_NORM};
        c.u.norm = (struct norm_args){.x = floats(given, SIZE, WIDTH),
                                      .w = floats(w, WIDTH, 0),
                                      .n_tokens = ROWS,
                                      .width = WIDTH,
                                      .eps = 1e-6};
        struct contract mid = contract_exact(OP_NORM);
        mid.u.norm.mid = DTYPE_BF16;
        const double *const radius[] = {r, NULL};
        count(&tally, &c, &mid, fuzzy ? radius : NULL, rounded, plain);
    }
    return tally;
}

Test(known_roundings, a_norm_rounded_before_its_weight_is_inside_and_one_that_is_not_outside) {
    const struct tally tally = norms(false);
    expect(&tally, 12);
}

Test(known_roundings, a_norm_of_a_row_that_nobody_saw_is_inside) {
    const struct tally tally = norms(true);
    cr_expect_eq(tally.honest, 0, "%d of %d", tally.honest, tally.n);
}

/* ---- activation: silu is rounded, then times up ---- */

Test(known_roundings, an_activation_rounded_before_up_is_inside_and_one_that_is_not_outside) {
    static float x[2 * SIZE], rounded[SIZE], plain[SIZE], given[2 * SIZE];
    static double r[2 * SIZE];
    for (int fuzzy = 0; fuzzy < 2; fuzzy++) {
        struct tally tally = {0};
        srand48(82);
        for (int trial = 0; trial < TRIALS; trial++) {
            for (int i = 0; i < 2 * SIZE; i++) {
                x[i] = draw() * (trial % 4 ? 6.0f : 95.0f) * (i % 2 ? 1 : scale_of(trial));
                x[i] = fuzzy ? x[i] + draw() * 0x1p-10f * fabsf(x[i]) : bf16(x[i]);
                given[i] = bf16(x[i]);
                r[i] = fabs((double)given[i] - (double)x[i]);
            }
            for (int i = 0; i < SIZE; i++) {
                const float silu = x[i] / (1 + expf(-x[i]));
                rounded[i] = bf16(bf16(silu) * x[SIZE + i]), plain[i] = bf16(silu * x[SIZE + i]);
            }
            struct call c = {.op = OP_ACTIVATION};
            c.u.activation = (struct activation_args){
                .gate_up = {given, DTYPE_F32, {0, SIZE}, 0, 2 * SIZE}, .n_rows = 1, .width = SIZE};
            struct contract mid = contract_exact(OP_ACTIVATION);
            mid.u.activation.mid = DTYPE_BF16;
            const double *const radius[] = {r};
            count(&tally, &c, &mid, fuzzy ? radius : NULL, rounded, plain);
        }
        if (!fuzzy) expect(&tally, 8);
        cr_expect_eq(tally.honest, 0, "%d of %d", tally.honest, tally.n);
    }
}

/* ---- rope: the producer's own table, computed in fp32 and rounded, and rounded products ---- */

enum { POSITIONS = 40, HEADS = 2, ROT = 24 }; /* POSITIONS * HEADS * ROT = SIZE */

static float frequency(int i, double theta, enum rope_scaling scaling, const struct layer_spec *s) {
    const float f = 1 / powf((float)theta, (float)(2 * i) / ROT);
    if (scaling == ROPE_UNSCALED) return f;
    if (scaling == ROPE_LINEAR) return f / (float)s->rope_factor;
    const float turns = (float)s->rope_trained / (6.2831853f / f);
    const float part = (turns - (float)s->rope_low) / (float)(s->rope_high - s->rope_low);
    const float clamped = part < 0 ? 0 : part > 1 ? 1 : part;
    return (1 - clamped) * f / (float)s->rope_factor + clamped * f;
}

static struct tally ropes(enum rope_scaling scaling, bool products, int64_t first) {
    static float q[SIZE], rounded[SIZE], plain[SIZE], *table;
    static int32_t positions[POSITIONS];
    struct layer_spec s = layer_defaults();
    struct tally tally = {0};
    s.rope_theta = 5e5, s.rope_scaling = scaling, s.rope_factor = 8, s.rope_low = 1, s.rope_high = 4;
    s.rope_trained = 8192;
    table = malloc((size_t)(first + POSITIONS) * ROT * sizeof *table);
    ref_rope_table(table, DTYPE_F32, first + POSITIONS, ROT, &s);
    srand48(83);
    for (int trial = 0; trial < 8; trial++) {
        for (int i = 0; i < SIZE; i++) q[i] = draw() * scale_of(trial);
        for (int p = 0; p < POSITIONS; p++) {
            positions[p] = (int32_t)first + p;
            for (int i = 0; i < ROT / 2; i++) {
                const float angle = (float)positions[p] * frequency(i, s.rope_theta, scaling, &s);
                const float co = bf16(cosf(angle)), si = bf16(sinf(angle));
                const float *const exact = table + (int64_t)positions[p] * ROT;
                for (int h = 0; h < HEADS; h++) {
                    const int at = (p * HEADS + h) * ROT + i;
                    const float a = q[at], b = q[at + ROT / 2];
                    rounded[at] = products ? bf16(bf16(a * co) - bf16(b * si)) : bf16(a * co - b * si);
                    rounded[at + ROT / 2] =
                        products ? bf16(bf16(b * co) + bf16(a * si)) : bf16(b * co + a * si);
                    plain[at] = bf16(a * exact[i] - b * exact[ROT / 2 + i]);
                    plain[at + ROT / 2] = bf16(b * exact[i] + a * exact[ROT / 2 + i]);
                }
            }
        }
        struct call c = {.op = OP_ROPE};
        c.u.rope = (struct rope_args){.q = {q, DTYPE_F32, {HEADS * ROT, ROT}, 0, SIZE},
                                      .table = floats(table, (first + POSITIONS) * ROT, ROT),
                                      .positions = {positions, DTYPE_I32, {1}, 0, POSITIONS},
                                      .n_tokens = POSITIONS,
                                      .n_heads = HEADS,
                                      .head_dim = ROT,
                                      .rot_dim = ROT};
        struct contract mid = contract_exact(OP_ROPE);
        mid.u.rope.table = DTYPE_BF16, mid.u.rope.theta = s.rope_theta;
        mid.u.rope.growth = rope_angle_growth(&s);
        mid.u.rope.products = products ? DTYPE_BF16 : DTYPE_F64;
        count(&tally, &c, &mid, NULL, rounded, plain);
        mid.u.rope.products = products ? DTYPE_F64 : DTYPE_BF16;
        tally.other += outside(&c, &mid, NULL, rounded);
    }
    free(table);
    return tally;
}

Test(known_roundings, rope_by_a_rounded_table_is_inside_whatever_scales_it_and_by_an_exact_one_outside) {
    for (enum rope_scaling scaling = ROPE_UNSCALED; scaling <= ROPE_LLAMA3; scaling++)
        for (int products = 0; products < 2; products++) {
            const struct tally tally = ropes(scaling, products, 1);
            expect(&tally, 5);
            cr_expect_gt(tally.other, tally.n / 20, "%d of %d with products rounded or not", tally.other,
                         tally.n);
        }
}

Test(known_roundings, rope_far_from_the_first_position_is_inside) {
    const struct tally tally = ropes(ROPE_LLAMA3, false, 100000);
    cr_expect(tally.honest == 0 && tally.rounded_by_exact > tally.n / 50, "%d, %d of %d", tally.honest,
              tally.rounded_by_exact, tally.n);
}

/* ---- sum: two parts of each rank are added up and rounded, then the ranks ---- */

static struct tally sums(int ranks, bool fuzzy) {
    enum { MOST = 8 };
    static float part[MOST][SIZE], given[MOST][SIZE], rounded[SIZE], plain[SIZE];
    static double r[MOST][SIZE];
    const double *radius[MOST];
    struct view view[MOST];
    struct tally tally = {0};
    srand48(84);
    for (int trial = 0; trial < TRIALS; trial++) {
        for (int p = 0; p < 2 * ranks; p++) {
            view[p] = floats(given[p], SIZE, WIDTH), radius[p] = r[p];
            for (int i = 0; i < SIZE; i++) {
                part[p][i] = draw() * scale_of(trial) + (fuzzy ? draw() * 0x1p-18f * scale_of(trial) : 0);
                given[p][i] = bf16(part[p][i]), r[p][i] = fabs((double)part[p][i] - (double)given[p][i]);
            }
        }
        for (int i = 0; i < SIZE; i++) {
            float by_rank = 0, all = 0;
            for (int p = 0; p < 2 * ranks; p += 2) {
                by_rank += bf16(part[p][i] + part[p + 1][i]);
                all = all + part[p][i] + part[p + 1][i];
            }
            rounded[i] = bf16(by_rank), plain[i] = bf16(all);
        }
        struct call c = {.op = OP_SUM};
        c.u.sum = (struct sum_args){.part = view, .n_parts = 2 * ranks, .n_tokens = ROWS, .width = WIDTH};
        struct contract mid = contract_exact(OP_SUM);
        mid.u.sum.parts_per_rank = 2, mid.u.sum.rank = DTYPE_BF16;
        count(&tally, &c, &mid, fuzzy ? radius : NULL, rounded, plain);
        mid.u.sum.parts_per_rank = 1; /* rounded parts of a rank are no rounded rank */
        tally.other += outside(&c, &mid, NULL, rounded);
    }
    return tally;
}

Test(known_roundings, sums_of_rounded_ranks_are_inside_and_of_rounded_parts_or_of_nothing_rounded_outside) {
    for (int ranks = 2; ranks <= 4; ranks++) {
        const struct tally tally = sums(ranks, false);
        expect(&tally, 10);
        cr_expect_gt(tally.other, tally.n / 10, "%d of %d", tally.other, tally.n);
        cr_expect_eq(sums(ranks, true).honest, 0);
    }
}

/* Ranks added up by bf16 additions, around a ring or as a tree; without the first rank, too. */
static float by_steps(const float *part, int n, bool tree) {
    float sum = part[0];
    if (tree && n > 2) return bf16(by_steps(part, n / 2, true) + by_steps(part + n / 2, n - n / 2, true));
    for (int p = 1; p < n; p++) sum = bf16(sum + part[p]);
    return sum;
}

Test(known_roundings, sums_that_round_at_every_rank_are_inside_in_any_order_and_less_a_rank_outside) {
    enum { MOST = 8 };
    static float part[MOST][SIZE], stored[2][SIZE], less[SIZE];
    srand48(85);
    for (int ranks = 2; ranks <= MOST; ranks *= 2) {
        int by_fp32 = 0, lost = 0;
        for (int trial = 0; trial < TRIALS; trial++) {
            struct view view[MOST];
            for (int p = 0; p < ranks; p++) {
                view[p] = floats(part[p], SIZE, WIDTH);
                for (int i = 0; i < SIZE; i++) part[p][i] = bf16(draw() * scale_of(trial));
            }
            for (int i = 0; i < SIZE; i++) {
                float one[MOST];
                for (int p = 0; p < ranks; p++) one[p] = part[(p + i) % ranks][i];
                stored[0][i] = by_steps(one, ranks, false), stored[1][i] = by_steps(one, ranks, true);
                less[i] = by_steps(one + 1, ranks - 1, false);
            }
            struct call c = {.op = OP_SUM};
            c.u.sum = (struct sum_args){.part = view, .n_parts = ranks, .n_tokens = ROWS, .width = WIDTH};
            struct contract contract = contract_exact(OP_SUM);
            contract.u.sum.rank = DTYPE_BF16, contract.u.sum.parts_per_rank = 1;
            by_fp32 += outside(&c, &contract, NULL, stored[0]);
            contract.u.sum.step = DTYPE_BF16;
            cr_expect_eq(outside(&c, &contract, NULL, stored[0]) + outside(&c, &contract, NULL, stored[1]),
                         0);
            lost += outside(&c, &contract, NULL, less);
        }
        cr_expect(ranks == 2 ? by_fp32 == 0 : by_fp32 > TRIALS * SIZE / 10, "%d ranks: %d", ranks, by_fp32);
        cr_expect_gt(lost, TRIALS * SIZE * 8 / 10, "%d ranks: %d", ranks, lost);
    }
}

/* ---- combine: the rounded sum is scaled ---- */

Test(known_roundings, a_rounded_sum_that_is_scaled_is_inside_and_one_with_scaled_gates_outside) {
    enum { CHOICES = 4 };
    static float down[CHOICES * SIZE], gates[ROWS * CHOICES], scaled[ROWS * CHOICES], rounded[SIZE],
        plain[SIZE];
    static int32_t slot_row[ROWS * CHOICES];
    struct tally tally = {0};
    srand48(85);
    for (int trial = 0; trial < TRIALS; trial++) {
        for (int i = 0; i < CHOICES * SIZE; i++) down[i] = draw() * scale_of(trial);
        for (int i = 0; i < ROWS * CHOICES; i++) {
            gates[i] = (float)drand48(), scaled[i] = gates[i] * 2.5f, slot_row[i] = i;
        }
        for (int i = 0; i < SIZE; i++) {
            float sum = 0, with = 0;
            for (int j = 0; j < CHOICES; j++) {
                const int slot = i / WIDTH * CHOICES + j;
                sum += gates[slot] * down[slot * WIDTH + i % WIDTH];
                with += scaled[slot] * down[slot * WIDTH + i % WIDTH];
            }
            rounded[i] = bf16(bf16(sum) * 2.5f), plain[i] = bf16(with);
        }
        struct call c = {.op = OP_COMBINE};
        c.u.combine = (struct combine_args){.down = floats(down, CHOICES * SIZE, WIDTH),
                                            .gates = floats(scaled, ROWS * CHOICES, CHOICES),
                                            .slot_row = {slot_row, DTYPE_I32, {CHOICES}, 0, ROWS * CHOICES},
                                            .n_tokens = ROWS,
                                            .top_k = CHOICES,
                                            .width = WIDTH,
                                            .n_rows = ROWS * CHOICES};
        struct contract mid = contract_exact(OP_COMBINE);
        mid.u.combine.unscaled = DTYPE_BF16, mid.u.combine.scale = 2.5;
        count(&tally, &c, &mid, NULL, rounded, plain);
    }
    expect(&tally, 8);
}

/* ---- combine as tensor code does it: every product and every sum of two is rounded ---- */

Test(known_roundings, products_and_sums_rounded_one_by_one_are_inside_and_unrounded_ones_outside) {
    enum { CHOICES = 5 };
    static float down[CHOICES * SIZE], gates[ROWS * CHOICES], rounded[SIZE], plain[SIZE];
    static int32_t slot_row[ROWS * CHOICES];
    for (int chain = 0; chain < 2; chain++) {
        struct tally tally = {0};
        srand48(86);
        for (int trial = 0; trial < TRIALS; trial++) {
            for (int i = 0; i < CHOICES * SIZE; i++) down[i] = draw() * scale_of(trial);
            for (int i = 0; i < ROWS * CHOICES; i++) /* rows fall while choices rise; one is elsewhere */
                gates[i] = (float)drand48(), slot_row[i] = i % 5 == 2 ? -1 : ROWS * CHOICES - 1 - i;
            for (int i = 0; i < SIZE; i++) {
                float sum = 0, all = 0;
                for (int j = CHOICES; j-- > 0;) {
                    const int slot = i / WIDTH * CHOICES + j;
                    if (slot_row[slot] < 0) continue;
                    const float p = gates[slot] * down[slot_row[slot] * WIDTH + i % WIDTH];
                    sum += bf16(p), all += p;
                    if (chain) sum = bf16(sum);
                }
                rounded[i] = bf16(sum), plain[i] = bf16(all);
            }
            struct call c = {.op = OP_COMBINE};
            c.u.combine =
                (struct combine_args){.down = floats(down, CHOICES * SIZE, WIDTH),
                                      .gates = floats(gates, ROWS * CHOICES, CHOICES),
                                      .slot_row = {slot_row, DTYPE_I32, {CHOICES}, 0, ROWS * CHOICES},
                                      .n_tokens = ROWS,
                                      .top_k = CHOICES,
                                      .width = WIDTH,
                                      .n_rows = ROWS * CHOICES};
            struct contract mid = contract_exact(OP_COMBINE);
            mid.u.combine.products = DTYPE_BF16, mid.u.combine.sums = chain ? DTYPE_BF16 : DTYPE_F64;
            count(&tally, &c, &mid, NULL, rounded, plain);
        }
        expect(&tally, 8);
    }
}

/* ---- attention as tensor code does it: q.k, its product with the scale, and normalised P are rounded ---- */

static struct tally attentions(bool fuzzy) {
    enum { KEYS = ROWS, DIM = 16, QUERIES = ROWS };
    static float q[QUERIES * DIM], k[KEYS * DIM], v[KEYS * DIM], given[QUERIES * DIM];
    static float rounded[SIZE], plain[SIZE];
    static double r[QUERIES * DIM];
    static int32_t page[] = {0}, start[] = {0, QUERIES}, len[] = {KEYS};
    const float scale = 0.3f;
    struct tally tally = {0};
    srand48(87);
    for (int trial = 0; trial < TRIALS; trial++) {
        for (int i = 0; i < KEYS * DIM; i++) k[i] = draw() * 2, v[i] = draw();
        for (int i = 0; i < QUERIES * DIM; i++) {
            q[i] = bf16(draw() * (float)(1 + trial % 3)) + (fuzzy ? draw() / 4096 : 0);
            given[i] = bf16(q[i]), r[i] = fabs((double)given[i] - (double)q[i]);
        }
        for (int t = 0; t < QUERIES; t++) {
            float s[2][KEYS], top[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0}, p[2][KEYS];
            for (int j = 0; j < KEYS; j++) {
                float dot = 0;
                for (int d = 0; d < DIM; d++) dot += q[t * DIM + d] * k[j * DIM + d];
                s[0][j] = bf16(bf16(dot) * scale), s[1][j] = dot * scale;
                for (int i = 0; i < 2; i++) top[i] = fmaxf(top[i], s[i][j]);
            }
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < KEYS; j++) l[i] += p[i][j] = expf(s[i][j] - top[i]);
            for (int d = 0; d < DIM; d++) {
                float o[2] = {0, 0};
                for (int j = 0; j < KEYS; j++) {
                    o[0] += bf16(p[0][j] / l[0]) * v[j * DIM + d];
                    o[1] += p[1][j] / l[1] * v[j * DIM + d];
                }
                rounded[t * DIM + d] = bf16(o[0]), plain[t * DIM + d] = bf16(o[1]);
            }
        }
        struct call c = {.op = OP_ATTENTION};
        c.u.attention =
            (struct attention_args){.q = {given, DTYPE_F32, {DIM, DIM}, 0, QUERIES * DIM},
                                    .k_cache = {k, DTYPE_F32, {KEYS * DIM, DIM, DIM}, 0, KEYS * DIM},
                                    .v_cache = {v, DTYPE_F32, {KEYS * DIM, DIM, DIM}, 0, KEYS * DIM},
                                    .page_table = {page, DTYPE_I32, {1}, 0, 1},
                                    .query_start = {start, DTYPE_I32, {1}, 0, 2},
                                    .kv_len = {len, DTYPE_I32, {1}, 0, 1},
                                    .n_tokens = QUERIES,
                                    .n_seqs = 1,
                                    .n_heads = 1,
                                    .n_kv_heads = 1,
                                    .head_dim = DIM,
                                    .page_size = KEYS,
                                    .n_pages = 1,
                                    .max_queries = QUERIES,
                                    .max_kv = KEYS,
                                    .scale = (double)scale};
        struct contract mid = contract_exact(OP_ATTENTION);
        mid.u.attention.scores = mid.u.attention.weights = DTYPE_BF16;
        const double *const radius[] = {r, NULL, NULL};
        count(&tally, &c, &mid, fuzzy ? radius : NULL, rounded, plain);
        c.u.attention.scale *= 1.01;
        tally.other += outside(&c, &mid, fuzzy ? radius : NULL, rounded);
    }
    return tally;
}

Test(known_roundings, attention_by_rounded_scores_and_weights_is_inside_and_another_one_outside) {
    const struct tally tally = attentions(false);
    expect(&tally, 20);
    cr_expect_gt(tally.other, tally.n / 5, "a scale off by 1 %%: %d of %d outside", tally.other, tally.n);
    cr_expect_eq(attentions(true).honest, 0);
}
