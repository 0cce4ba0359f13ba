/* Is the reference right? Cases small enough to work out by hand, a second plain implementation
 * where they are not, spans and strides, bits that must not depend on rows or threads, and emulated
 * fp32 attention kernels. */
/* SPDX-License-Identifier: MIT */
#include "reference/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct view view_of(void *data, enum dtype d, int64_t n, int64_t s0, int64_t s1, int64_t s2) {
    return (struct view){data, d, {s0, s1, s2}, 0, n};
}
#define F64(a, s0, s1) view_of(a, DTYPE_F64, sizeof(a) / sizeof(double), s0, s1, 0)
#define I32(a, s0) view_of(a, DTYPE_I32, sizeof(a) / sizeof(int32_t), s0, 0, 0)
#define CLOSE(a, b) cr_assert_float_eq(a, b, 1e-12, "%.17g is not %.17g", a, b)

struct answer {
    int64_t n;
    double *y, *e, *s1;
};

static struct answer compute_rows(const struct call *call, const struct contract *contract, int64_t row0,
                                  int64_t row1, int output) {
    struct ref_out out[MAX_REF_OUT] = {{NULL, NULL, NULL}};
    const int64_t n = (row1 - row0) * ref_row_size(call, output);
    const struct answer a = {n, calloc((size_t)n + 1, 8), calloc((size_t)n + 1, 8), calloc((size_t)n + 1, 8)};
    out[output] = (struct ref_out){a.y, a.e, a.s1};
    ref_compute(call, contract, NULL, row0, row1, out);
    return a;
}
static struct answer compute(const struct call *call, int output) {
    const struct contract c = contract_exact(call->op);
    return compute_rows(call, &c, 0, ref_n_rows(call), output);
}

static void fill(double *x, int64_t n, enum dtype d) {
    for (int64_t i = 0; i < n; i++) x[i] = dtype_round(d, drand48() * 2 - 1);
}

/* The same bits in pieces and with other thread counts. */
static void expect_same_bits(const struct call *call) {
    const struct contract c = contract_exact(call->op);
    const int64_t rows = ref_n_rows(call), size = ref_row_size(call, 0);
    const struct answer whole = compute(call, 0);
    for (int threads = 1; threads <= 3; threads++)
        for (int64_t step = 1; step <= rows; step += 2) {
            omp_set_num_threads(threads);
            for (int64_t r = 0; r < rows; r += step) {
                const int64_t end = r + step < rows ? r + step : rows;
                const struct answer part = compute_rows(call, &c, r, end, 0);
                cr_assert_eq(memcmp(part.y, whole.y + r * size, (size_t)part.n * 8), 0);
                cr_assert_eq(memcmp(part.e, whole.e + r * size, (size_t)part.n * 8), 0);
            }
        }
}

/* ---- norms, rope, copies, additions ---- */

Test(reference, norm_divides_by_the_root_mean_square) {
    double x[] = {3, 4, NAN, 1, 1, NAN}, w[] = {1, 2};
    struct call c = {.op = OP_NORM};
    c.u.norm = (struct norm_args){.x = F64(x, 3, 0), .w = F64(w, 1, 0), .n_tokens = 2, .width = 2, .eps = 0};
    const struct answer a = compute(&c, 0);
    CLOSE(a.y[0], 3 / sqrt(12.5));
    CLOSE(a.y[1], 8 / sqrt(12.5));
    CLOSE(a.y[3], 2.0);
    cr_assert(a.e[0] > 0 && a.e[0] < 2e-6);
    c.u.norm.eps = 3.5;
    CLOSE(compute(&c, 0).y[0], 3 / 4.0);
}

Test(reference, qk_norm_uses_one_weight_for_all_heads) {
    double q[] = {1, 7, 3, 4}, k[] = {6, 8}, wq[] = {1, 10}, wk[] = {2, 3};
    struct call c = {.op = OP_QK_NORM};
    c.u.qk_norm = (struct qk_norm_args){
        F64(q, 4, 2), F64(k, 2, 2), F64(wq, 1, 0), F64(wk, 1, 0), {0}, {0}, 1, 2, 1, 2, 0};
    CLOSE(compute(&c, 0).y[1], 70 / 5.0);
    CLOSE(compute(&c, 0).y[3], 40 / sqrt(12.5));
    CLOSE(compute(&c, 1).y[1], 24 / sqrt(50));
}

Test(reference, rope_rotates_the_declared_pairs) {
    double q[] = {1, 2, 3, 4, 5, 6}, k[] = {1, 0, 0, 1, 9, 9};
    float table[] = {9, 9, 9, 9, 0, 0.5f, 1, 0.25f}; /* position 1: c = {0, .5}, s = {1, .25} */
    int32_t position[] = {1};
    struct call c = {.op = OP_ROPE};
    c.u.rope = (struct rope_args){.q = F64(q, 6, 6),
                                  .k = F64(k, 6, 6),
                                  .table = view_of(table, DTYPE_F32, 8, 4, 0, 0),
                                  .positions = I32(position, 1),
                                  .n_tokens = 1,
                                  .n_heads = 1,
                                  .n_kv_heads = 1,
                                  .head_dim = 6,
                                  .rot_dim = 4};
    const struct answer neox = compute(&c, 0);
    const double expected[] = {-3, 2 * 0.5 - 4 * 0.25, 1, 4 * 0.5 + 2 * 0.25, 5, 6};
    for (int i = 0; i < 6; i++) CLOSE(neox.y[i], expected[i]);
    cr_assert(neox.e[0] == 0 && neox.e[1] == 0 && neox.e[4] == 0); /* quarters: nothing rounds */
    q[2] = 1.0 / 3;
    const struct answer third = compute(&c, 0);
    cr_assert(third.e[0] > 0 && third.e[1] == 0 && third.e[4] == 0 && third.e[5] == 0);
    q[2] = 3;
    c.u.rope.pairing = ROPE_GPTJ;
    const double pairs[] = {-2, 1, 3 * 0.5 - 4 * 0.25, 4 * 0.5 + 3 * 0.25, 5, 6};
    for (int i = 0; i < 6; i++) CLOSE(compute(&c, 0).y[i], pairs[i]);
    position[0] = 2; /* beyond the table */
    cr_assert(isnan(compute(&c, 1).y[0]));
}

Test(reference, sum_and_residual_add) {
    double a[] = {1, 2}, b[] = {10, -20}, d[] = {0x1p-60, 5.1};
    const struct view parts[] = {F64(a, 2, 0), F64(b, 2, 0), F64(d, 2, 0)};
    struct call c = {.op = OP_SUM};
    c.u.sum = (struct sum_args){.part = parts, .n_parts = 3, .n_tokens = 1, .width = 2};
    const struct answer s = compute(&c, 0);
    CLOSE(s.y[1], -12.9);
    CLOSE(s.s1[1], 27.1);
    CLOSE(s.e[1] / (3 * 27.1 * 0x1p-24), 1.0 + 0x1p-29);
    d[1] = 5; /* integers: nothing rounds */
    cr_assert_eq(compute(&c, 0).e[1], 0);
    c.op = OP_RESIDUAL;
    c.u.residual = (struct residual_args){.x = F64(a, 2, 0), .add = F64(b, 2, 0), .n_tokens = 1, .width = 2};
    c.u.residual.out.dtype = DTYPE_F32; /* one rounding, straight into storage: a set of one value */
    const struct answer r = compute(&c, 0);
    CLOSE(r.y[0], 11.0);
    cr_assert_eq(dtype_round(DTYPE_F32, r.y[0] + r.e[0]), dtype_round(DTYPE_F32, r.y[0] - r.e[0]));
}

Test(reference, kv_write_copies) {
    double k[] = {1, 2, NAN, 3, 4, NAN}, v[] = {5, 6, 7, 8};
    struct call c = {.op = OP_KV_WRITE};
    c.u.kv_write = (struct kv_write_args){
        .k = F64(k, 3, 2), .v = F64(v, 2, 2), .n_tokens = 2, .n_kv_heads = 1, .head_dim = 2};
    const struct answer a = compute(&c, 0);
    cr_assert(a.y[2] == 3 && a.y[3] == 4 && a.e[3] == 0);
    cr_assert_eq(compute(&c, 1).y[3], 8);
}

Test(reference, honest_float_arithmetic_stays_inside) {
    enum { WIDTH = 64 };
    double x[2 * WIDTH], w[WIDTH];
    srand48(11);
    for (int trial = 0; trial < 300; trial++) {
        fill(x, 2 * WIDTH, DTYPE_BF16), fill(w, WIDTH, DTYPE_BF16);
        for (int i = 0; i < 2 * WIDTH; i++) x[i] *= 1 << trial % 8;
        struct call norm = {.op = OP_NORM}, act = {.op = OP_ACTIVATION}, add = {.op = OP_RESIDUAL};
        norm.u.norm = (struct norm_args){
            .x = F64(x, WIDTH, 0), .w = F64(w, 1, 0), .n_tokens = 1, .width = WIDTH, .eps = 1e-6};
        act.u.activation =
            (struct activation_args){.gate_up = F64(x, 2 * WIDTH, WIDTH), .n_rows = 1, .width = WIDTH};
        add.u.residual = (struct residual_args){
            .x = F64(x, WIDTH, 0), .add = F64(w, WIDTH, 0), .n_tokens = 1, .width = WIDTH};
        add.u.residual.out.dtype = DTYPE_BF16;
        const struct answer n = compute(&norm, 0), a = compute(&act, 0), r = compute(&add, 0);
        float square = 0;
        for (int i = 0; i < WIDTH; i++) square = fmaf((float)x[i], (float)x[i], square);
        const float scale = 1 / sqrtf(square / WIDTH + 1e-6f);
        for (int i = 0; i < WIDTH; i++) {
            const float g = (float)x[i], u = (float)x[WIDTH + i];
            const float got[] = {g * scale * (float)w[i], g / (1 + expf(-g)) * u, g + (float)w[i]};
            cr_assert_eq(element_judge(DTYPE_F32, (double)got[0], n.y[i], n.e[i]).kind, ELEMENT_OK);
            cr_assert_eq(element_judge(DTYPE_F32, (double)got[1], a.y[i], a.e[i]).kind, ELEMENT_OK);
            cr_assert_eq(element_judge(DTYPE_F32, (double)got[2], r.y[i], r.e[i]).kind, ELEMENT_OK);
        }
        free(n.y), free(a.y), free(r.y);
    }
}

/* ---- linear ---- */

Test(reference, linear_by_hand) {
    /* thirds: a sum of theirs is not exact */
    double x[] = {1.0 / 3, 2.0 / 3, 1, -4.0 / 3}, w[] = {1, 1, 10, 100}, bias[] = {0.5, 0};
    struct call c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_args){.x = F64(x, 2, 0),
                                      .w = F64(w, 4, 2),
                                      .bias = F64(bias, 1, 0),
                                      .n_rows = 2,
                                      .n_cols = 2,
                                      .n_inner = 2,
                                      .n_groups = 1};
    const struct answer a = compute(&c, 0);
    const double y[] = {1.5, 70, 1.0 / 6, -370.0 / 3}, s1[] = {1.5, 70, 17.0 / 6, 430.0 / 3};
    const double w_span[] = {1.5, 70, 11.0 / 6, 400.0 / 3};
    const struct accumulator acc = contract_exact(OP_LINEAR).u.linear.acc;
    for (int i = 0; i < 4; i++) {
        CLOSE(a.y[i], y[i]);
        CLOSE(a.s1[i], s1[i]);
        CLOSE(a.e[i] / accumulator_bound(&acc, 3, w_span[i], s1[i]), 1.0);
    }
}

static float flush(float x) { return fabsf(x) < 0x1p-126f ? 0 : x; }

/* Products of 2^-126: a sum whose steps are flushed to zero is inside where that is declared. */
Test(reference, sums_that_flush_subnormal_results_are_inside_when_declared_and_outside_when_not) {
    double x[64], w[64];
    int outside = 0;
    srand48(41);
    for (int trial = 0; trial < 500; trial++) {
        struct call c = {.op = OP_LINEAR};
        struct contract contract = contract_exact(OP_LINEAR);
        float sum = 0;
        fill(x, 64, DTYPE_BF16), fill(w, 64, DTYPE_BF16);
        for (int i = 0; i < 64; i++) x[i] *= 0x1p-63, w[i] *= 0x1p-63;
        for (int i = 0; i < 64; i++) sum = flush(fmaf((float)x[i], (float)w[i], sum));
        c.u.linear = (struct linear_args){
            .x = F64(x, 64, 0), .w = F64(w, 64, 0), .n_rows = 1, .n_cols = 1, .n_inner = 64, .n_groups = 1};
        const struct answer plain = compute_rows(&c, &contract, 0, 1, 0);
        contract.flushes = true;
        const struct answer declared = compute_rows(&c, &contract, 0, 1, 0);
        const double got = (double)sum;
        cr_assert_eq(element_judge(DTYPE_F32, got, declared.y[0], declared.e[0]).kind, ELEMENT_OK);
        outside += element_judge(DTYPE_F32, got, plain.y[0], plain.e[0]).kind == ELEMENT_OUTSIDE;
    }
    cr_assert_gt(outside, 250, "%d sums", outside);
}

/* Products in tensor-core steps, then the bias by one fp32 addition of its own. */
Test(reference, a_bias_added_after_the_steps_of_a_tensor_core_has_a_rounding_of_its_own) {
    double x[17], w[17], bias[] = {1};
    struct call c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_args){.x = F64(x, 17, 0),
                                      .w = F64(w, 17, 0),
                                      .bias = F64(bias, 1, 0),
                                      .n_rows = 1,
                                      .n_cols = 1,
                                      .n_groups = 1};
    struct contract tensor_core = {.op = OP_LINEAR};
    tensor_core.u.linear.acc = (struct accumulator){.block = 16, .fraction = 25, .keep = 24};
    for (int n = 15; n <= 17; n++) {
        for (int i = 0; i < n; i++) x[i] = 1, w[i] = 1 + 0x1p-40; /* not exact in fp32 */
        c.u.linear.n_inner = n;
        const struct answer a = compute_rows(&c, &tensor_core, 0, 1, 0);
        const double step = ldexp(17, -25) + 0x1p-23, steps = (n + 15) / 16;
        cr_expect_geq(a.e[0], (steps * step + UNIT_F32) * (n + 1), "%d terms: %g", n, a.e[0] / (n + 1));
    }
}

enum { N = 7, K = 300, GROUPS = 5, ROWS = 13 };
static int32_t offsets[GROUPS + 1] = {0, 1, 1, 6, 10, 13}; /* group 1 is empty */

Test(reference, linear_uses_the_weights_of_each_rows_group) {
    static double x[ROWS * K], w[GROUPS * N * K];
    const enum dtype types[] = {DTYPE_F64, DTYPE_F32, DTYPE_BF16};
    for (int d = 0; d < 3; d++) {
        fill(x, ROWS * K, types[d]), fill(w, GROUPS * N * K, types[d]);
        static char stored_x[sizeof x], stored_w[sizeof w];
        for (int i = 0; i < ROWS * K; i++) dtype_store(stored_x, types[d], i, x[i]);
        for (int i = 0; i < GROUPS * N * K; i++) dtype_store(stored_w, types[d], i, w[i]);
        struct call c = {.op = OP_LINEAR};
        c.u.linear = (struct linear_args){.x = view_of(stored_x, types[d], ROWS * K, K, 0, 0),
                                          .w = view_of(stored_w, types[d], GROUPS * N * K, N * K, K, 0),
                                          .offsets = I32(offsets, 1),
                                          .n_rows = ROWS,
                                          .n_cols = N,
                                          .n_inner = K,
                                          .n_groups = GROUPS};
        const struct answer a = compute(&c, 0);
        for (int r = 0; r < ROWS; r++)
            for (int n = 0; n < N; n++) {
                int g = 0;
                while (r >= offsets[g + 1]) g++;
                double y = 0;
                for (int k = 0; k < K; k++) y += x[r * K + k] * w[(g * N + n) * K + k];
                cr_assert_eq(a.y[r * N + n], y);
            }
        expect_same_bits(&c);
    }
}

Test(reference, linear_never_touches_weights_of_unrouted_groups) {
    const int64_t page = sysconf(_SC_PAGESIZE), inner = page / 8;
    double *w = mmap(NULL, (size_t)(3 * page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_eq(mprotect((char *)w + page, (size_t)page, PROT_NONE), 0);
    double *x = calloc((size_t)inner * 2, 8);
    x[0] = w[0] = 2, x[inner] = w[2 * inner] = 3;
    int32_t starts[] = {0, 1, 1, 2};
    struct call c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_args){.x = view_of(x, DTYPE_F64, 2 * inner, inner, 0, 0),
                                      .w = view_of(w, DTYPE_F64, 3 * inner, inner, inner, 0),
                                      .offsets = I32(starts, 1),
                                      .n_rows = 2,
                                      .n_cols = 1,
                                      .n_inner = inner,
                                      .n_groups = 3};
    const struct answer a = compute(&c, 0);
    cr_assert(a.y[0] == 4 && a.y[1] == 9);
}

Test(reference, elements_outside_a_span_read_as_nan) {
    double x[] = {1, 1, 99, 1, 1, 99}, w[] = {1, 2, 3, 4};
    struct call c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_args){
        .x = F64(x, 3, 0), .w = F64(w, 4, 2), .n_rows = 2, .n_cols = 2, .n_inner = 2, .n_groups = 1};
    c.u.linear.x.hi = 4; /* the second row ends after one element */
    const struct answer a = compute(&c, 0);
    cr_assert(a.y[0] == 3 && a.y[1] == 7 && isnan(a.y[2]) && isnan(a.y[3]));
    c.u.linear.x.hi = 6, c.u.linear.w.lo = 1;
    const struct answer b = compute(&c, 0);
    cr_assert(isnan(b.y[0]) && isnan(b.y[2]) && b.y[1] == 7 && b.y[3] == 7);
}

/* ---- attention: two sequences, shuffled pages, GQA, every cache slot that holds no key NaN
 * ---- */

enum { H = 6, G = 2, D = 10, PAGE = 4, PAGES = 12, MAX_PAGES = 6, TOKENS = 9 };
static double q[TOKENS * (H + 1) * D], k_cache[PAGES * PAGE * G * D], v_cache[PAGES * PAGE * G * D];
static int32_t page_table[2 * MAX_PAGES] = {7, 2, 11, 0, -1, -1, 3, 9, 1, 6, 10, 4};
static int32_t query_start[] = {0, 3, 9}, kv_len[] = {14, 21};

static double *slot(double *cache, int b, int j, int g) {
    return cache + ((page_table[b * MAX_PAGES + j / PAGE] * PAGE + j % PAGE) * G + g) * D;
}

static struct call attention_case(double spread, double offset) {
    fill(q, TOKENS * (H + 1) * D, DTYPE_BF16);
    for (int i = 0; i < TOKENS * (H + 1) * D; i++) q[i] *= spread;
    for (int i = 0; i < PAGES * PAGE * G * D; i++) k_cache[i] = v_cache[i] = NAN;
    for (int b = 0; b < 2; b++)
        for (int j = 0; j < kv_len[b]; j++)
            for (int g = 0; g < G; g++) {
                fill(slot(k_cache, b, j, g), D, DTYPE_BF16), fill(slot(v_cache, b, j, g), D, DTYPE_BF16);
                for (int d = 0; d < D; d++) slot(v_cache, b, j, g)[d] += offset;
            }
    struct call c = {.op = OP_ATTENTION};
    struct view cache = {k_cache, DTYPE_F64, {PAGE * G * D, G * D, D}, 0, PAGES * PAGE * G * D};
    c.u.attention = (struct attention_args){.q = F64(q, (H + 1) * D, D),
                                            .k_cache = cache,
                                            .v_cache = cache,
                                            .page_table = I32(page_table, MAX_PAGES),
                                            .query_start = I32(query_start, 1),
                                            .kv_len = I32(kv_len, 1),
                                            .n_tokens = TOKENS,
                                            .n_seqs = 2,
                                            .n_heads = H,
                                            .n_kv_heads = G,
                                            .head_dim = D,
                                            .page_size = PAGE,
                                            .n_pages = PAGES,
                                            .max_queries = 6,
                                            .max_kv = 21,
                                            .scale = 0.3,
                                            .causal = true};
    c.u.attention.v_cache.data = v_cache;
    return c;
}

/* Habits of kernels: the denominator adds the rounded P; scale q rounded to bf16 before the product. */
static bool rounds_l, rounds_q;

/* What a kernel does in fp32: online softmax over tiles of `tile` keys, P rounded to `p_type`,
 * `skip` left out. */
static float online_attention(int t, int h, int d, int tile, enum dtype p_type, int skip, double *exact) {
    const int b = t >= query_start[1], n = kv_len[b] - (query_start[b + 1] - 1 - t), g = h / (H / G);
    float m = -INFINITY, l = 0, o = 0;
    double sum = 0, norm = 0;
    for (int j0 = 0; j0 < n; j0 += tile) {
        float s[64], top = m;
        for (int j = j0; j < n && j < j0 + tile; j++) {
            float dot = 0;
            double ds = 0;
            for (int i = 0; i < D; i++) {
                const double a = q[(t * (H + 1) + h) * D + i], c = slot(k_cache, b, j, g)[i];
                const float scaled = (float)dtype_round(DTYPE_BF16, (double)((float)a * 0.3f));
                dot = fmaf(rounds_q ? scaled : (float)a, (float)c, dot), ds += a * c;
            }
            s[j - j0] = rounds_q ? dot : dot * 0.3f, top = fmaxf(top, s[j - j0]);
            sum += exp(0.3 * ds) * slot(v_cache, b, j, g)[d], norm += exp(0.3 * ds);
        }
        o *= expf(m - top), l *= expf(m - top), m = top;
        for (int j = j0; j < n && j < j0 + tile; j++) {
            if (j == skip) continue;
            const float p = expf(s[j - j0] - m), rounded = (float)dtype_round(p_type, (double)p);
            l += rounds_l ? rounded : p, o = fmaf(rounded, (float)slot(v_cache, b, j, g)[d], o);
        }
    }
    *exact = sum / norm;
    return o / l;
}

Test(reference, attention_is_softmax_and_honest_kernels_stay_inside) {
    const double spreads[] = {1, 8, 100}, p_units[] = {0, UNIT_BF16};
    int skipped = 0, noticed = 0;
    srand48(3);
    for (int trial = 0; trial < 24; trial++) {
        const struct call call = attention_case(spreads[trial % 3], trial % 4 == 0);
        const enum dtype p_type = trial % 2 ? DTYPE_BF16 : DTYPE_F32;
        struct contract c = contract_exact(OP_ATTENTION);
        c.u.attention.block = 1 + trial % 7;
        c.u.attention.p_unit = p_units[trial % 2];
        const struct answer a = compute_rows(&call, &c, 0, TOKENS, 0);
        for (int i = 0; i < TOKENS * H * D; i++) {
            const int t = i / (H * D), h = i / D % H, d = i % D;
            double y;
            const double got = (double)online_attention(t, h, d, 1 + trial % 7, p_type, -1, &y);
            cr_assert_float_eq(a.y[i], y, 1e-12);
            const struct element_verdict v = element_judge(DTYPE_F32, got, a.y[i], a.e[i]);
            cr_assert_eq(v.kind, ELEMENT_OK, "trial %d element %d: got %g y %g e %g", trial, i, got, y,
                         a.e[i]);
            if (trial % 6) continue; /* mild scores, fp32 P: every key weighs enough to be missed */
            const double less = (double)online_attention(t, h, d, 1 + trial % 7, p_type, (t + d) % 12, &y);
            noticed += element_judge(DTYPE_F32, less, a.y[i], a.e[i]).kind == ELEMENT_OUTSIDE;
            skipped++;
        }
    }
    cr_assert_gt(noticed, skipped * 0.98, "%d of %d dropped keys were noticed", noticed, skipped);
}

/* Values far from 0 but near each other: what the weights have in common cancels in the output only
 * if numerator and denominator add up the same weights. */
Test(reference, declared_roundings_of_q_and_of_the_denominator_stay_inside_and_others_do_not) {
    int outside[2] = {0};
    double widest = 0, summed = 0;
    srand48(17);
    for (int trial = 0; trial < 16; trial++) {
        const struct call call = attention_case(trial % 4 < 2 ? 2 : 30, trial % 2 ? 8 : 0);
        struct contract plain = contract_exact(OP_ATTENTION), declared;
        plain.u.attention.block = 4;
        rounds_q = trial % 8 >= 4, rounds_l = !rounds_q;
        if (rounds_l) plain.u.attention.p_unit = UNIT_BF16;
        declared = plain;
        declared.u.attention.p_in_l = rounds_l;
        declared.u.attention.q_unit = rounds_q ? UNIT_BF16 : 0;
        const struct answer a = compute_rows(&call, &declared, 0, TOKENS, 0),
                            b = compute_rows(&call, &plain, 0, TOKENS, 0);
        for (int i = 0; i < TOKENS * H * D; i++) {
            double y;
            const enum dtype p_type = rounds_l ? DTYPE_BF16 : DTYPE_F32;
            const double got = (double)online_attention(i / (H * D), i / D % H, i % D, 4, p_type, -1, &y);
            cr_assert_eq(element_judge(DTYPE_F32, got, a.y[i], a.e[i]).kind, ELEMENT_OK,
                         "trial %d element %d: got %g y %g e %g", trial, i, got, a.y[i], a.e[i]);
            outside[rounds_q] += element_judge(DTYPE_F32, got, b.y[i], b.e[i]).kind == ELEMENT_OUTSIDE;
            if (rounds_l && trial % 2) widest += b.e[i], summed += a.e[i];
        }
    }
    rounds_q = rounds_l = false;
    cr_assert_gt(outside[1], 1000, "%d elements of kernels that round q are outside", outside[1]);
    cr_assert_lt(summed, widest / 4, "summing what was rounded pays: E %g, not %g", summed, widest);
}

Test(reference, attention_bits_do_not_depend_on_rows_or_threads) {
    const struct call call = attention_case(4, 0);
    expect_same_bits(&call);
}

Test(reference, attention_sees_no_later_key_and_no_page_outside_the_cache) {
    struct call call = attention_case(1, 0);
    const struct answer before = compute(&call, 0);
    for (int g = 0; g < G; g++)
        slot(v_cache, 1, 20, g)[0] = NAN; /* only the last query of sequence 1 sees it */
    const struct answer after = compute(&call, 0);
    cr_assert_eq(memcmp(before.y, after.y, (TOKENS - 1) * H * D * 8), 0);
    cr_assert(isnan(after.y[(TOKENS - 1) * H * D]) && !isnan(after.y[(TOKENS - 1) * H * D + 1]));
    kv_len[0] = 2; /* three queries: the first one sees no key */
    const struct answer short_of_keys = compute(&call, 0);
    cr_assert(short_of_keys.y[0] == 0 && short_of_keys.e[0] == 0 && short_of_keys.y[H * D] != 0);
    kv_len[0] = 14;
    call.u.attention.causal = false;
    cr_assert(isnan(compute(&call, 0).y[(TOKENS - 2) * H * D]) && !isnan(compute(&call, 0).y[0]));
    call.u.attention.n_pages = 11; /* sequence 0 uses page 11 */
    cr_assert(isnan(compute(&call, 0).y[0]));
}
