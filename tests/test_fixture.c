/* Do fixture files mean what we read from them? The golden files come from an independent
 * implementation: linear stages recomputed from what was read must give what was read. Files that
 * are damaged or lie are in test_fixture_hostile.c. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fixtures/fixture.h"

static const char *const golden[] = {"fixtures/golden/param2moe.h5", "fixtures/golden/llama.h5",
                                     "fixtures/golden/mixtral.h5", "fixtures/golden/qwen3_moe.h5"};
enum { N_GOLDEN = sizeof golden / sizeof *golden };

static struct fixture *opened(const char *path) {
    struct fixture *f;
    const struct status status = fixture_open(path, &f);
    cr_assert(!status.code, "%s", status.message);
    return f;
}

/* The caller frees. */
static double *tensor(const struct fixture *f, int64_t layer, enum part part, enum tensor_id id,
                      int64_t count) {
    double *data = malloc((size_t)count * sizeof *data);
    bool found;
    const struct status status = fixture_read(f, layer, part, id, count, data, &found);
    cr_assert(data && !status.code && found, "%s: %s", tensor_table[id].name, status.message);
    return data;
}

/* Largest |got - x w^T| relative to the largest value; x [rows, inner], w [cols, inner], got
 * [rows, cols]. */
static double linear_error(const double *x, const double *w, const double *got, int64_t rows, int64_t cols,
                           int64_t inner) {
    double worst = 0, largest = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double sum = 0;
            for (int64_t i = 0; i < inner; i++) sum += x[r * inner + i] * w[c * inner + i];
            worst = fmax(worst, fabs(sum - got[r * cols + c]));
            largest = fmax(largest, fabs(sum));
        }
    return worst / largest;
}

static double worst_difference(const double *a, const double *b, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs(a[i] - b[i]));
    return worst;
}

struct linear_case {
    enum part part;
    enum tensor_id x, w, out;
    int64_t rows, cols, inner;
    double allowed;
};

static void check_linear(const struct fixture *f, int64_t layer, struct linear_case c) {
    double *x = tensor(f, layer, c.part, c.x, c.rows * c.inner),
           *w = tensor(f, layer, c.part, c.w, c.cols * c.inner);
    double *out = tensor(f, layer, c.part, c.out, c.rows * c.cols);
    const double error = linear_error(x, w, out, c.rows, c.cols, c.inner);
    cr_expect(error < c.allowed, "layer %lld %s: %g", (long long)layer, tensor_table[c.out].name, error);
    free(out);
    free(w);
    free(x);
}

Test(hdf5, linear_stages_of_the_golden_files_recompute) {
    for (int i = 0; i < N_GOLDEN; i++) {
        struct fixture *f = opened(golden[i]);
        for (int64_t layer = 0; layer < 2; layer++) {
            const struct layer_spec s = model_layer(fixture_model(f), layer);
            const int64_t T = fixture_n_tokens(f), m = s.hidden, q = s.n_heads * s.head_dim;
            const int64_t kv = s.n_kv_heads * s.head_dim;
            cr_assert(fixture_has_layer(f, layer, PART_ATTENTION) && fixture_has_layer(f, layer, PART_FFN));
            check_linear(
                f, layer,
                (struct linear_case){PART_ATTENTION, T_NORMED, T_W_QKV, T_QKV, T, q + 2 * kv, m, 1e-13});
            check_linear(f, layer,
                         (struct linear_case){PART_ATTENTION, T_O, T_W_O, T_ATTN_OUT, T, m, q, 1e-13});
            if (s.moe)
                check_linear(
                    f, layer,
                    (struct linear_case){PART_FFN, T_NORMED, T_W_ROUTER, T_LOGITS, T, s.n_experts, m, 1e-6});
            if (s.shared_width)
                check_linear(f, layer,
                             (struct linear_case){PART_FFN, T_NORMED, T_W_SHARED_GATE_UP, T_SHARED_GATE_UP, T,
                                                  2 * s.shared_width, m, 1e-13});
        }
        fixture_close(f);
    }
}

static double silu(double v) { return v / (1 + exp(-v)); }

/* out[m] += weight * down(silu(gate) * up), one token; w_gate_up [2, F, M], w_down [M, F]. */
static void add_expert(double *out, double weight, const double *x, const double *w_gate_up,
                       const double *w_down, int64_t F, int64_t M) {
    double *h = malloc((size_t)F * sizeof *h);
    for (int64_t f = 0; f < F; f++) {
        double gate = 0, up = 0;
        for (int64_t m = 0; m < M; m++) {
            gate += x[m] * w_gate_up[f * M + m];
            up += x[m] * w_gate_up[(F + f) * M + m];
        }
        h[f] = silu(gate) * up;
    }
    for (int64_t m = 0; m < M; m++)
        for (int64_t f = 0; f < F; f++) out[m] += weight * w_down[m * F + f] * h[f];
    free(h);
}

/* The routed experts of one token, by sorting nothing: expert e is chosen if fewer than top_k
 * others beat it. */
static void add_routed(double *out, const struct layer_spec *s, const double *x, const double *logits,
                       const double *bias, const double *w_gate_up, const double *w_down) {
    const int64_t E = s->n_experts, expert = s->expert_width * s->hidden;
    double score[64], chosen_sum = 0;
    bool chosen[64];
    for (int64_t e = 0; e < E; e++) /* the common factor of softmax cancels in the renormalisation */
        score[e] = s->score == SCORE_SIGMOID ? 1 / (1 + exp(-logits[e])) : exp(logits[e]);
    for (int64_t e = 0; e < E; e++) {
        int64_t n_better = 0;
        for (int64_t o = 0; o < E; o++) n_better += score[o] + bias[o] > score[e] + bias[e];
        chosen[e] = n_better < s->top_k;
        if (chosen[e]) chosen_sum += score[e];
    }
    for (int64_t e = 0; e < E; e++)
        if (chosen[e])
            add_expert(out, s->routed_scale * score[e] / chosen_sum, x, w_gate_up + 2 * e * expert,
                       w_down + e * expert, s->expert_width, s->hidden);
}

/* Orientation cannot be seen in square shapes; only the right one gives these numbers. */
Test(hdf5, expert_weights_of_the_golden_files_recompute_the_ffn) {
    for (int i = 0; i < N_GOLDEN; i++) {
        struct fixture *f = opened(golden[i]);
        for (int64_t layer = 0; layer < 2; layer++) {
            const struct layer_spec s = model_layer(fixture_model(f), layer);
            const int64_t T = fixture_n_tokens(f), M = s.hidden, S = s.shared_width;
            double *x = tensor(f, layer, PART_FFN, T_NORMED, T * M),
                   *want = tensor(f, layer, PART_FFN, T_FFN_OUT, T * M);
            double *got = calloc((size_t)(T * M), sizeof *got);
            if (s.moe) {
                const int64_t E = s.n_experts, size = E * s.expert_width * M;
                double *logits = tensor(f, layer, PART_FFN, T_LOGITS, T * E);
                double *gate_up = tensor(f, layer, PART_FFN, T_W_GATE_UP, 2 * size);
                double *down = tensor(f, layer, PART_FFN, T_W_DOWN, size),
                       *part = tensor(f, layer, PART_FFN, T_MOE_PART, T * M);
                double *bias = s.select_bias ? tensor(f, layer, PART_FFN, T_SELECT_BIAS, E)
                                             : calloc((size_t)E, sizeof *bias);
                for (int64_t t = 0; t < T; t++)
                    add_routed(got + t * M, &s, x + t * M, logits + t * E, bias, gate_up, down);
                cr_expect(worst_difference(got, part, T * M) < 1e-5, "%s: moe_part", golden[i]);
                free(bias);
                free(part);
                free(down);
                free(gate_up);
                free(logits);
            }
            if (S) {
                double *gate_up = tensor(f, layer, PART_FFN, T_W_SHARED_GATE_UP, 2 * S * M);
                double *down = tensor(f, layer, PART_FFN, T_W_SHARED_DOWN, S * M);
                for (int64_t t = 0; t < T; t++) add_expert(got + t * M, 1, x + t * M, gate_up, down, S, M);
                free(down);
                free(gate_up);
            }
            cr_expect(worst_difference(got, want, T * M) < 1e-5, "%s layer %lld: %g", golden[i],
                      (long long)layer, worst_difference(got, want, T * M));
            free(got);
            free(want);
            free(x);
        }
        fixture_close(f);
    }
}

Test(hdf5, residuals_of_the_golden_files_connect) {
    for (int i = 0; i < N_GOLDEN; i++) {
        struct fixture *f = opened(golden[i]);
        const int64_t n = fixture_n_tokens(f) * fixture_model(f)->kind[0].hidden;
        double *y0 = tensor(f, 0, PART_FFN, T_Y, n), *x1 = tensor(f, 1, PART_ATTENTION, T_X, n);
        double *mid = tensor(f, 1, PART_ATTENTION, T_Y, n), *x = tensor(f, 1, PART_FFN, T_X, n);
        double *ffn = tensor(f, 1, PART_FFN, T_FFN_OUT, n), *y = tensor(f, 1, PART_FFN, T_Y, n);
        for (int64_t j = 0; j < n; j++) ffn[j] += x[j];
        cr_expect(worst_difference(y0, x1, n) == 0 && worst_difference(mid, x, n) == 0);
        cr_expect(worst_difference(ffn, y, n) < 1e-14 && worst_difference(mid, x1, n) > 0);
        double *all[] = {y0, x1, mid, x, ffn, y};
        for (int j = 0; j < 6; j++) free(all[j]);
        fixture_close(f);
    }
}

Test(hdf5, what_a_file_does_not_have_is_not_found) {
    struct fixture *f = opened("fixtures/golden/llama.h5");
    double value[8] = {0};
    bool found = true;
    static const enum tensor_id absent[] = {T_Q_NORM_W, T_B_QKV, T_Q, T_OFFSETS, T_K_CACHE, T_W_ROUTER};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        const struct status status = fixture_read(f, 0, PART_ATTENTION, absent[i], 8, value, &found);
        cr_expect(!status.code && !found, "%s", tensor_table[absent[i]].name);
    }
    cr_expect(!fixture_has_layer(f, 2, PART_FFN) && !fixture_has_layer(f, -1, PART_FFN));
    const struct status status = fixture_read(f, 0, PART_ATTENTION, T_NORM_W, 8, value, &found);
    cr_expect(status.code && strstr(status.message, "64 elements where 8"), "%s", status.message);
    fixture_close(f);
}

static struct fixture_writer *created_in(const char *path, enum dtype d, int64_t layer) {
    struct fixture_writer *w;
    const struct status status = fixture_create(path, path, model_preset_json("tiny"), "test", d, layer, &w);
    cr_assert(!status.code, "%s", status.message);
    return w;
}

static struct fixture_writer *created(const char *path, int64_t layer) {
    return created_in(path, DTYPE_BF16, layer);
}

static void put(struct fixture_writer *w, const char *group, const char *name, enum dtype d, int64_t rows,
                int64_t cols, const void *data) {
    const int64_t shape[] = {rows, cols};
    const struct status status = fixture_write(w, group, name, d, 2, shape, data);
    cr_assert(!status.code, "%s", status.message);
}

static void expect_every_pattern(enum dtype d) {
    char path[] = "/tmp/shardcheck-bits-XXXXXX";
    close(mkstemp(path));
    uint16_t *bits = malloc(65536 * sizeof *bits);
    for (int i = 0; i < 65536; i++) bits[i] = (uint16_t)i;
    struct fixture_writer *w = created_in(path, d, 1);
    put(w, "inputs", "x", d, 1024, 64, bits);
    cr_assert(!fixture_finish(w).code);
    struct fixture *f = opened(path);
    cr_expect(fixture_n_tokens(f) == 1024 && fixture_model(f)->dtype == d);
    cr_expect_str_eq(fixture_source(f), "test");
    cr_expect_str_eq(fixture_model(f)->name, path);
    double *x = tensor(f, 1, PART_FFN, T_X, 65536);
    int n_wrong = 0;
    for (int i = 0; i < 65536; i++) {
        const double want = dtype_load(bits, d, i);
        n_wrong += isnan(want) ? !isnan(x[i]) : x[i] != want || signbit(x[i]) != signbit(want);
    }
    cr_expect_eq(n_wrong, 0);
    cr_expect(!fixture_has_layer(f, 0, PART_FFN), "a name without a layer belongs to the attribute's layer");
    free(x);
    free(bits);
    fixture_close(f);
    unlink(path);
}

Test(hdf5, every_16_bit_pattern_comes_back_as_its_value) {
    expect_every_pattern(DTYPE_BF16);
    expect_every_pattern(DTYPE_F16);
}

Test(hdf5, explicit_names_come_before_general_ones) {
    char path[] = "/tmp/shardcheck-names-XXXXXX";
    close(mkstemp(path));
    double data[4][64];
    for (int i = 0; i < 256; i++) data[i / 64][i % 64] = i / 64;
    struct fixture_writer *w = created(path, 0);
    put(w, "inputs", "x", DTYPE_F64, 1, 64, data[0]);
    put(w, "inputs", "ffn.x", DTYPE_F64, 1, 64, data[1]);
    put(w, "inputs", "layers.1.x", DTYPE_F64, 1, 64, data[2]);
    put(w, "inputs", "layers.1.attention.x", DTYPE_F64, 1, 64, data[3]);
    cr_assert(!fixture_finish(w).code);
    struct fixture *f = opened(path);
    static const double want[2][PART_COUNT] = {{0, 1}, {3, 2}};
    for (int64_t layer = 0; layer < 2; layer++)
        for (enum part part = 0; part < PART_COUNT; part++) {
            double *x = tensor(f, layer, part, T_X, 64);
            cr_expect_eq(x[63], want[layer][part]);
            free(x);
        }
    fixture_close(f);
    unlink(path);
}

/* As on a full disk: files may have `bytes` bytes. The file is in `path` afterwards. */
static struct status written_within(rlim_t bytes, char path[64]) {
    static double x[64][64];
    struct fixture_writer *w;
    strcpy(path, "/tmp/shardcheck-full-XXXXXX");
    close(mkstemp(path));
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, RLIM_INFINITY});
    struct status s = fixture_create("the label", path, model_preset_json("tiny"), "", DTYPE_BF16, 0, &w);
    if (s.code) return s;
    const int64_t shape[] = {64, 64};
    s = fixture_write(w, "inputs", "x", DTYPE_F64, 2, shape, x);
    if (!s.code) return fixture_finish(w);
    fixture_abandon(w);
    return s;
}

Test(hdf5, wherever_a_write_fails_is_an_error_and_no_crash) {
    char path[64];
    int n_failed = 0;
    for (rlim_t bytes = 0; bytes < 38000; bytes += 512) {
        const struct status s = written_within(bytes, path);
        cr_expect(!s.code ||
                      (!strncmp(s.message, "the label: cannot write", 23) && strstr(s.message, "large")),
                  "%s", s.message);
        n_failed += s.code != STATUS_OK;
        unlink(path);
    }
    cr_expect(n_failed > 64, "the file has more than 32768 bytes, %d failed", n_failed);
    cr_expect(!written_within(RLIM_INFINITY, path).code);
    fixture_close(opened(path));
    unlink(path);
    struct fixture_writer *w;
    const struct status s = fixture_create("a", "/no/such/folder/a.h5", "{}", "", DTYPE_BF16, 0, &w);
    cr_expect(s.code && !w && strstr(s.message, "No such file"), "%s", s.message);
    fixture_abandon(NULL);
    cr_expect(!fixture_finish(NULL).code);
}
