/* What do the error bounds cost? Every op of the reference is timed with and without its bounds
 * (out.e = NULL leaves the plain double computation): processor time of one thread, the best of
 * ROUNDS alternating runs, because a shared machine only ever adds time. Held to 1.5: what one
 * layer costs, the ops below with 33 tokens in it together; a single op above it is marked
 * (attention is, alone). Beside a product: what replays of its order cost, of FMA chains and of tensor
 * cores, as a share of its bounds. Above the limit the program exits with 1; --report-only exits with 0 all
 * the same. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reference/replay.h"

enum { ROUNDS = 9, ATTEMPTS = 3, PAGE = 16 };
static const double LIMIT = 1.5;

static double layer_plain, layer_bounded; /* seconds of the ops that make up a layer */

static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *allocate(size_t bytes) {
    void *const p = malloc(bytes ? bytes : 1);
    if (p) return p;
    fprintf(stderr, "bounds: out of memory for %zu MiB\n", bytes >> 20);
    exit(1);
}

/* n random bf16 values in [-1, 1), as one dense row. */
static struct view random_bf16(int64_t n) {
    static uint64_t state = 1;
    uint16_t *const data = allocate((size_t)n * sizeof *data);
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        dtype_store(data, DTYPE_BF16, i, ldexp((double)(state >> 40), -23) - 1);
    }
    return (struct view){.data = data, .dtype = DTYPE_BF16, .hi = n};
}

static struct view strided(struct view v, int64_t s0, int64_t s1, int64_t s2) {
    v.stride[0] = s0;
    v.stride[1] = s1;
    v.stride[2] = s2;
    return v;
}

static struct view indices(int64_t n) {
    int32_t *const data = allocate((size_t)n * sizeof *data);
    for (int64_t i = 0; i < n; i++) data[i] = (int32_t)i;
    return (struct view){.data = data, .dtype = DTYPE_I32, .stride = {n}, .hi = n};
}

static double time_once(const struct call *call, const struct contract *contract, struct ref_out *out) {
    const double start = now_seconds();
    ref_compute(call, contract, NULL, 0, ref_n_rows(call), out);
    return now_seconds() - start;
}

/* A replay of the declared order (reference/replay.h), in seconds: of FMA chains, or of tensor cores'
 * steps. */
static double time_replay(const struct call *call, bool core, double *y, double *e) {
    struct contract c = contract_exact(call->op);
    struct accumulator *const acc = &c.u.linear.acc;
    acc->in_order = true;
    if (core) acc->block = 16, acc->fraction = 25, acc->keep = 24;
    double best = INFINITY;
    for (int i = 0; i < ROUNDS && ref_replays(call, &c); i++) {
        const double start = now_seconds();
        ref_replay(call, &c, 0, ref_n_rows(call), ref_replay_each(call, &c), y, e);
        best = fmin(best, now_seconds() - start);
    }
    return best;
}

/* times: how often the op occurs in the layer; 0: it is no part of it. */
static void measure(const char *what, const struct call *call, int times) {
    const struct contract contract = contract_exact(call->op);
    const size_t n = (size_t)(ref_n_rows(call) * ref_row_size(call, 0));
    double *const y = allocate(n * sizeof *y), *const e = allocate(n * sizeof *e);
    struct ref_out plain[MAX_REF_OUT] = {{y, NULL, NULL}}, bounded[MAX_REF_OUT] = {{y, e, NULL}};
    double best_plain = INFINITY, best_bounded = INFINITY;
    for (int i = 0; i < ROUNDS * ATTEMPTS; i++) {
        if (i && i % ROUNDS == 0 && best_bounded <= LIMIT * best_plain) break;
        best_plain = fmin(best_plain, time_once(call, &contract, plain));
        best_bounded = fmin(best_bounded, time_once(call, &contract, bounded));
    }
    const bool above = best_bounded > LIMIT * best_plain;
    layer_plain += times * best_plain;
    layer_bounded += times * best_bounded;
    printf("%-36s %10.2f %10.2f %8.2f", what, best_plain * 1e3, best_bounded * 1e3,
           best_bounded / best_plain);
    for (int core = 0; core < 2 && call->op == OP_LINEAR; core++)
        printf(" %8.2f", time_replay(call, core, y, e) / best_bounded);
    printf("%s\n", above ? "  above 1.5" : "");
    fflush(stdout);
    free(y);
    free(e);
}

/* ---- the calls ---- */

static void measure_linear(const char *what, int times, int64_t rows, int64_t cols, int64_t inner) {
    struct call call = {.op = OP_LINEAR};
    struct linear_args *const a = &call.u.linear;
    *a = (struct linear_args){.n_rows = rows, .n_cols = cols, .n_inner = inner, .n_groups = 1};
    a->x = strided(random_bf16(rows * inner), inner, 0, 0);
    a->w = strided(random_bf16(cols * inner), cols * inner, inner, 0);
    a->out = (struct view){.dtype = DTYPE_BF16, .stride = {cols}};
    measure(what, &call, times);
    free(a->x.data);
    free(a->w.data);
}

/* Rows dealt evenly to the groups; the last group takes the rest. */
static void measure_grouped(const char *what, int times, int64_t rows, int64_t groups, int64_t cols,
                            int64_t inner) {
    struct call call = {.op = OP_LINEAR};
    struct linear_args *const a = &call.u.linear;
    *a = (struct linear_args){.n_rows = rows, .n_cols = cols, .n_inner = inner, .n_groups = groups};
    a->x = strided(random_bf16(rows * inner), inner, 0, 0);
    a->w = strided(random_bf16(groups * cols * inner), cols * inner, inner, 0);
    a->offsets = indices(groups + 1);
    for (int64_t g = 0; g <= groups; g++)
        ((int32_t *)a->offsets.data)[g] = (int32_t)(g < groups ? g * (rows / groups) : rows);
    a->out = (struct view){.dtype = DTYPE_BF16, .stride = {cols}};
    measure(what, &call, times);
    free(a->x.data);
    free(a->w.data);
    free(a->offsets.data);
}

static void measure_attention(const char *what, int times, int64_t tokens, int64_t heads, int64_t kv_heads,
                              int64_t dim) {
    struct call call = {.op = OP_ATTENTION};
    struct attention_args *const a = &call.u.attention;
    const int64_t pages = (tokens + PAGE - 1) / PAGE, row = kv_heads * dim;
    *a = (struct attention_args){.n_tokens = tokens,
                                 .n_seqs = 1,
                                 .n_heads = heads,
                                 .n_kv_heads = kv_heads,
                                 .head_dim = dim,
                                 .page_size = PAGE,
                                 .n_pages = pages,
                                 .max_queries = tokens,
                                 .max_kv = tokens,
                                 .scale = 1 / sqrt((double)dim),
                                 .causal = true};
    a->q = strided(random_bf16(tokens * heads * dim), heads * dim, dim, 0);
    a->k_cache = strided(random_bf16(pages * PAGE * row), PAGE * row, row, dim);
    a->v_cache = strided(random_bf16(pages * PAGE * row), PAGE * row, row, dim);
    a->out = (struct view){.dtype = DTYPE_BF16, .stride = {heads * dim, dim}};
    a->page_table = indices(pages);
    a->query_start = indices(2);
    a->kv_len = indices(1);
    ((int32_t *)a->query_start.data)[1] = ((int32_t *)a->kv_len.data)[0] = (int32_t)tokens;
    measure(what, &call, times);
    free(a->q.data);
    free(a->k_cache.data);
    free(a->v_cache.data);
    free(a->page_table.data);
    free(a->query_start.data);
    free(a->kv_len.data);
}

static void measure_norm(const char *what, int times, int64_t tokens, int64_t width) {
    struct call call = {.op = OP_NORM};
    struct norm_args *const a = &call.u.norm;
    *a = (struct norm_args){.n_tokens = tokens, .width = width, .eps = 1e-6};
    a->x = strided(random_bf16(tokens * width), width, 0, 0);
    a->w = random_bf16(width);
    a->out = (struct view){.dtype = DTYPE_BF16, .stride = {width}};
    measure(what, &call, times);
    free(a->x.data);
    free(a->w.data);
}

int main(int argc, char **argv) {
    const bool report_only = argc == 2 && !strcmp(argv[1], "--report-only");
    if (argc > 1 && !report_only) {
        fprintf(stderr, "bounds: %s: unknown argument; only --report-only is understood\n", argv[1]);
        return 2;
    }
    omp_set_num_threads(1);
    printf("%-36s %10s %10s %8s %17s\n", "op", "plain ms", "bounds ms", "ratio", "replays / bounds");
    measure_linear("linear 33 x 8192 x 2048", 1, 33, 8192, 2048);
    measure_grouped("linear 198 x 512 x 2048, 61 groups", 8, 198, 61, 512, 2048);
    measure_attention("attention 33 tokens, 32/8 heads of 64", 1, 33, 32, 8, 64);
    measure_attention("attention 512 tokens, 32/8 heads of 64", 0, 512, 32, 8, 64);
    measure_norm("norm 33 x 2048", 2, 33, 2048);
    const double ratio = layer_bounded / layer_plain;
    printf("%-36s %10.2f %10.2f %8.2f%s\n", "these ops as one layer of 33 tokens", layer_plain * 1e3,
           layer_bounded * 1e3, ratio, ratio > LIMIT ? "  above 1.5" : "");
    return ratio > LIMIT && !report_only;
}
