/* Is every input element the same whoever makes it, stored exactly, and of the size its tensor
 * needs? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include <Random123/philox.h>

#include "fixtures/fill_kinds.h"
#include "fixtures/model.h"

static struct model model;
static struct fill fill;

static void setup(void) {
    cr_assert(!model_load("param2-17b", &model).code);
    fill = (struct fill){.kind = FILL_RANDOM, .seed = 7, .layer = 1, .spec = &model.kind[0]};
}

static void *filled(const struct fill *f, enum tensor_id id, enum dtype d, int64_t first, int64_t n) {
    void *data = malloc((size_t)n * dtype_bytes(d));
    cr_assert(data);
    fill_tensor(f, id, d, first, n, data);
    return data;
}

Test(fill, any_split_and_any_thread_count_gives_the_same_bits, .init = setup) {
    enum { N = 200000 };
    static const enum tensor_id ids[FILL_COUNT] = {
        [FILL_RANDOM] = T_W_QKV, [FILL_OUTLIERS] = T_X, [FILL_TIES] = T_W_ROUTER};
    for (int i = 0; i < 4 * FILL_COUNT; i++) {
        const enum dtype d = (enum dtype)(DTYPE_F64 + i % 4);
        const enum tensor_id id = ids[i / 4];
        fill.kind = (enum fill_kind)(i / 4);
        omp_set_num_threads(1);
        char *whole = filled(&fill, id, d, 0, N);
        omp_set_num_threads(3);
        char *threaded = filled(&fill, id, d, 0, N);
        cr_expect(!memcmp(whole, threaded, N * dtype_bytes(d)));
        int64_t step = 1;
        for (int64_t first = 0; first < N; first += step, step = (step * 5 + 3) % 70001 + 1) {
            const int64_t n = first + step < N ? step : N - first;
            char *part = filled(&fill, id, d, first, n);
            cr_expect(!memcmp(part, whole + (size_t)first * dtype_bytes(d), (size_t)n * dtype_bytes(d)),
                      "%lld + %lld", (long long)first, (long long)n);
            free(part);
        }
        free(threaded);
        free(whole);
    }
}

Test(fill, a_slice_far_away_equals_the_whole, .init = setup) {
    const int64_t far = (INT64_C(1) << 36) + 5; /* the block index needs its high word */
    double *a = filled(&fill, T_W_DOWN, DTYPE_F64, far, 100),
           *b = filled(&fill, T_W_DOWN, DTYPE_F64, far + 37, 1);
    double *low = filled(&fill, T_W_DOWN, DTYPE_F64, 5, 100);
    cr_expect(a[37] == b[0]);
    cr_expect(memcmp(a, low, 100 * sizeof *a));
    free(low);
    free(b);
    free(a);
}

/* Counter and key words: first published known-answer vector of philox4x32-10 is all zeros ->
 * 6627e8d5 e169c58d bc57ac4c 9b00dbd8 (Random123, kat_vectors). With seed 0, layer 0 and the tensor
 * with id 0 the first eight elements are these. */
Test(fill, the_first_block_is_the_published_philox_vector, .init = setup) {
    const uint32_t words[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const struct fill zero = {.kind = FILL_RANDOM, .spec = &model.kind[0]};
    cr_assert(T_X == 0);
    double x[8];
    fill_tensor(&zero, T_X, DTYPE_F64, 0, 8, x);
    for (int i = 0; i < 8; i++) {
        const int u = (int)(words[i / 2] >> (16 * (i % 2)) & 0xffff);
        cr_expect(x[i] == sqrt(3.0) / 65536 * (2 * u - 65535), "%d: %g", i, x[i]);
    }
}

/* Blocks whose index needs its high word among them, and counter words that are not zero. */
Test(fill, every_block_is_what_random123_draws, .init = setup) {
    enum { BLOCKS = 200, PER_BLOCK = 8, N = BLOCKS * PER_BLOCK };
    const uint64_t first = (UINT64_C(1) << 32) - 77;
    fill.seed = 0x123456789abcdef0;
    uint16_t u[N];
    fill_draw(&fill, T_W_DOWN, (int64_t)first * PER_BLOCK, N, u);
    for (uint64_t b = 0; b < BLOCKS; b++) {
        const philox4x32_ctr_t counter = {
            {(uint32_t)(first + b), (uint32_t)((first + b) >> 32), T_W_DOWN, (uint32_t)fill.layer}};
        const philox4x32_key_t key = {{0x9abcdef0, 0x12345678}};
        const philox4x32_ctr_t words = philox4x32(counter, key);
        for (int i = 0; i < PER_BLOCK; i++)
            cr_expect(u[b * PER_BLOCK + (uint64_t)i] == (uint16_t)(words.v[i / 2] >> 16 * (i % 2)),
                      "block %llu", (unsigned long long)b);
    }
}

/* Nearly every one of the 65536 uniforms. Sanitized, enough for the threads to share: the same lines
 * run, and the plain build has asked about all. */
#ifdef __SANITIZE_ADDRESS__
enum { ROUNDED = 1 << 17 };
#else
enum { ROUNDED = 1 << 19 };
#endif

Test(fill, every_stored_value_is_the_double_rounded_once, .init = setup) {
    enum { N = ROUNDED };
    for (int i = 0; i < T_COUNT * FILL_COUNT; i++) {
        const int id = i % T_COUNT;
        fill.kind = (enum fill_kind)(i / T_COUNT);
        if ((tensor_table[id].role != ROLE_INPUT && tensor_table[id].role != ROLE_WEIGHT) || id == T_B_QKV)
            continue;
        double *exact = filled(&fill, (enum tensor_id)id, DTYPE_F64, 0, N);
        for (enum dtype d = DTYPE_F32; d <= DTYPE_F16; d++) {
            if (d == DTYPE_F16 && fill.kind == FILL_OUTLIERS)
                continue; /* smaller there, powers of two apart */
            void *stored = filled(&fill, (enum tensor_id)id, d, 0, N);
            int64_t n_wrong = 0;
            for (int64_t n = 0; n < N; n++) n_wrong += dtype_load(stored, d, n) != dtype_round(d, exact[n]);
            cr_expect_eq(n_wrong, 0, "%s %s %s", fill_name(fill.kind), tensor_table[id].name, dtype_name(d));
            free(stored);
        }
        free(exact);
    }
}

Test(fill, means_and_variances_are_those_of_the_table, .init = setup) {
    const struct layer_spec *s = &model.kind[0];
    const struct {
        enum tensor_id id;
        double mean, variance;
    } rows[] = {
        {T_X, 0, 1},
        {T_K_CACHE, 0, 1},
        {T_NORM_W, 1, 0.0625 / 3},
        {T_Q_NORM_W, 1, 0.0625 / 3},
        {T_SELECT_BIAS, 0, 9.0 / (double)(s->n_experts * s->n_experts) / 3},
        {T_B_O, 0, 0.25 / 3},
        {T_W_QKV, 0, 1.0 / (double)s->hidden},
        {T_W_O, 0, 1.0 / (double)(s->n_heads * s->head_dim)},
        {T_W_ROUTER, 0, 4.0 / (double)s->hidden},
        {T_W_GATE_UP, 0, 1.0 / (double)s->hidden},
        {T_W_DOWN, 0, 1.0 / (double)s->expert_width},
        {T_W_SHARED_GATE_UP, 0, 1.0 / (double)s->hidden},
        {T_W_SHARED_DOWN, 0, 1.0 / (double)s->shared_width},
    };
    enum { N = 100000 };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        double *x = filled(&fill, rows[r].id, DTYPE_F64, 0, N), sum = 0, squares = 0;
        for (int i = 0; i < N; i++) sum += x[i];
        for (int i = 0; i < N; i++) squares += (x[i] - sum / N) * (x[i] - sum / N);
        const char *name = tensor_table[rows[r].id].name;
        cr_expect(fabs(sum / N - rows[r].mean) < 0.02 * sqrt(rows[r].variance), "%s: mean %g", name, sum / N);
        cr_expect(fabs(squares / N / rows[r].variance - 1) < 0.02, "%s: variance %g", name, squares / N);
        free(x);
    }
}

Test(fill, seed_layer_and_tensor_each_change_the_values, .init = setup) {
    uint16_t *base = filled(&fill, T_X, DTYPE_BF16, 0, 64);
    struct fill other[3] = {fill, fill, fill};
    other[0].seed = 8;
    other[1].seed += UINT64_C(1) << 32;
    other[2].layer = 2;
    for (int i = 0; i < 3; i++) {
        uint16_t *changed = filled(&other[i], T_X, DTYPE_BF16, 0, 64);
        cr_expect(memcmp(base, changed, 128), "%d", i);
        free(changed);
    }
    uint16_t *cache = filled(&fill, T_K_CACHE, DTYPE_BF16, 0, 64); /* the same scale as x */
    cr_expect(memcmp(base, cache, 128));
    free(cache);
    free(base);
}

Test(fill, the_permutation_moves_every_entry, .init = setup) {
    int32_t p[300];
    for (int64_t n = 0; n <= 300; n++) {
        char seen[300] = {0};
        fill_permutation(&fill, n, p);
        for (int64_t i = 0; i < n; i++) {
            cr_assert(p[i] >= 0 && p[i] < n && !seen[p[i]]++);
            cr_expect(n == 1 || p[i] != i);
        }
    }
}
