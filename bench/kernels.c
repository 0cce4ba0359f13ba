/* How fast are the kernels?  Attention and expert products at the sizes of real models, each by every kernel of the
 * registry that takes the call (or those named). On cuda: warm launches one after another and one
 * wait, by the wall clock; on host: one launch of a small case. One line a measurement, which
 * bench/compare joins with bench/peers.py:
 *   bench NAME SHAPE: TIME ms RATE UNIT
 * Nothing is judged here: `shardcheck run` says whether the numbers are right. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"

enum { PAGE = 16, MAX_STEPS = 3, MAX_NAMES = 32 };
enum { WARM_LAUNCHES = 3, MIN_LAUNCHES = 20, MAX_LAUNCHES = 500 };
#define MEASURE_SECONDS 0.3 /* as many launches as fill this, within the two limits */
#define SLOW_SECONDS                                                                                         \
    0.05 /* a launch this slow is repeated twice only: the clock's noise is nothing to it \
                             */

enum slot { SLOT_IN, SLOT_OUT, SLOT_W1, SLOT_W2, SLOT_MID, SLOT_MID2, SLOT_INDEX, SLOT_SCRATCH, SLOT_COUNT };

struct bench {
    enum device_kind kind;
    struct device *device;
    struct device_buffer buffer[SLOT_COUNT];
    int n_names; /* 0: every kernel */
    const char *name[MAX_NAMES];
};

/* Kernels that run one after another. */
struct chain {
    int n;
    const struct kernel *kernel[MAX_STEPS];
    struct call call[MAX_STEPS];
};

static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(struct status s) {
    if (!s.code) return;
    fprintf(stderr, "bench: %s\n", s.message);
    exit(1);
}

/* ---- operands ---- */

/* Random values that do not repeat within a cache; uniform with the variance given, bf16. */
static void fill_random(uint16_t *out, size_t n, double deviation) {
    enum { PERIOD = 4194301 }; /* a prime: rows of a power of two do not line up */
    static uint64_t state = 1;
    const size_t fresh = n < PERIOD ? n : PERIOD;
    for (size_t i = 0; i < fresh; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        dtype_store(out, DTYPE_BF16, (int64_t)i,
                    deviation * sqrt(3) * (ldexp((double)(state >> 40), -23) - 1));
    }
    for (size_t done = fresh; done < n; done += fresh)
        memcpy(out + done, out, (n - done < fresh ? n - done : fresh) * sizeof *out);
}

/* Dense, of `count` bf16 elements; random where deviation > 0, else an output. */
static struct view operand(struct bench *b, enum slot slot, int64_t count, double deviation) {
    static const char *const names[SLOT_COUNT] = {"input", "output", "w1",    "w2",
                                                  "mid",   "mid2",   "index", "scratch"};
    struct device_buffer *const buffer = &b->buffer[slot];
    must(device_reuse(b->device, names[slot], (size_t)count * 2, 0, false, buffer));
    if (deviation > 0) {
        fill_random(buffer->host, (size_t)count, deviation);
        must(device_push(b->device, buffer));
    }
    return (struct view){.data = buffer->data, .dtype = DTYPE_BF16, .hi = count};
}

static struct view strided(struct view v, int64_t s0, int64_t s1, int64_t s2) {
    v.stride[0] = s0;
    v.stride[1] = s1;
    v.stride[2] = s2;
    return v;
}

static int32_t *indices(struct bench *b, int64_t count) {
    must(device_reuse(b->device, "index", (size_t)count * sizeof(int32_t), 0, false, &b->buffer[SLOT_INDEX]));
    return b->buffer[SLOT_INDEX].host;
}

static struct view index_view(const struct bench *b, int64_t first, int64_t count, int64_t stride) {
    int32_t *const data = b->buffer[SLOT_INDEX].data;
    return (struct view){.data = data + first, .dtype = DTYPE_I32, .stride = {stride}, .hi = count};
}

/* ---- the clock ---- */

static void launch(const struct bench *b, const struct chain *chain) {
    for (int i = 0; i < chain->n; i++) {
        const char *const refused = chain->kernel[i]->launch[b->kind](
            &chain->call[i], b->buffer[SLOT_SCRATCH].data, device_stream(b->device));
        if (refused) must(status_error("%s: %s", chain->kernel[i]->name, refused));
    }
}

static double seconds_of(const struct bench *b, const struct chain *chain, int launches) {
    const double start = now_seconds();
    for (int i = 0; i < launches; i++) launch(b, chain);
    must(device_sync(b->device));
    return (now_seconds() - start) / launches;
}

static double measure(struct bench *b, const struct chain *chain) {
    size_t scratch = 0;
    for (int i = 0; i < chain->n; i++) {
        const struct kernel *const k = chain->kernel[i];
        const size_t bytes = k->scratch_bytes ? k->scratch_bytes(&chain->call[i]) : 0;
        if (bytes > scratch) scratch = bytes;
    }
    must(device_reuse(b->device, "scratch", scratch, 0, false, &b->buffer[SLOT_SCRATCH]));
    if (b->kind == DEVICE_HOST) return seconds_of(b, chain, 1);
    seconds_of(b, chain, 1); /* loads the code */
    const double once = seconds_of(b, chain, 1);
    if (once > SLOW_SECONDS) return seconds_of(b, chain, 2);
    seconds_of(b, chain, WARM_LAUNCHES);
    const double wanted = MEASURE_SECONDS / once;
    return seconds_of(b, chain,
                      wanted < MIN_LAUNCHES   ? MIN_LAUNCHES
                      : wanted > MAX_LAUNCHES ? MAX_LAUNCHES
                                              : (int)wanted);
}

/* ---- which kernels ---- */

static bool named(const struct bench *b, const struct chain *chain) {
    for (int i = 0; i < b->n_names; i++)
        for (int step = 0; step < chain->n; step++)
            if (!strcmp(b->name[i], chain->kernel[step]->name)) return true;
    return !b->n_names;
}

/* `work` in units of 1e9 a second: "TFLOP/s" of 1e12 operations, "GB/s" of 1e9 bytes. */
struct rate {
    const char *unit;
    double work;
};

static void report(struct bench *b, const struct chain *chain, const char *shape, struct rate rate) {
    char name[200] = "";
    if (!named(b, chain)) return;
    for (int i = 0; i < chain->n; i++) {
        const struct kernel *const k = chain->kernel[i];
        const char *const why = kernel_refuses(k, &chain->call[i]);
        if (why) {
            printf("# %s does not take %s: %s\n", k->name, shape, why);
            return;
        }
        snprintf(name + strlen(name), sizeof name - strlen(name), "%s%s", i ? "+" : "", k->name);
    }
    const double seconds = measure(b, chain);
    printf("bench %s %s: %.4g ms %.4g %s\n", name, shape, seconds * 1e3, rate.work / seconds, rate.unit);
    fflush(stdout);
}

static const struct kernel *next_kernel(const struct bench *b, const struct kernel *after, enum op op) {
    for (const struct kernel *k = after ? after + 1 : kernel_table; k->name; k++)
        if (k->op == op && k->launch[b->kind]) return k;
    return NULL;
}

/* ---- attention ---- */

static const struct attention_case {
    const char *phase;
    int64_t heads, kv_heads, dim, seqs, keys, queries; /* keys and queries of a sequence */
    enum device_kind device;
} attention_cases[] = {
    {"prefill", 32, 8, 64, 8, 1024, 1024, DEVICE_CUDA},
    {"prefill", 32, 8, 64, 2, 4096, 4096, DEVICE_CUDA},
    {"prefill", 32, 8, 64, 1, 16384, 16384, DEVICE_CUDA},
    {"prefill", 64, 8, 128, 8, 1024, 1024, DEVICE_CUDA},
    {"prefill", 64, 8, 128, 2, 4096, 4096, DEVICE_CUDA},
    {"prefill", 64, 8, 128, 1, 16384, 16384, DEVICE_CUDA},
    {"decode", 32, 8, 64, 64, 4096, 1, DEVICE_CUDA},
    {"decode", 32, 8, 64, 32, 16384, 1, DEVICE_CUDA},
    {"decode", 64, 8, 128, 64, 4096, 1, DEVICE_CUDA},
    {"decode", 64, 8, 128, 32, 16384, 1, DEVICE_CUDA},
    {"decode", 32, 8, 64, 1, 131072, 1, DEVICE_CUDA},
    {"decode", 64, 8, 128, 1, 131072, 1, DEVICE_CUDA},
    {"decode", 32, 8, 64, 32, 4096, 4, DEVICE_CUDA},
    {"decode", 64, 8, 128, 32, 4096, 4, DEVICE_CUDA},
    {"prefill", 8, 2, 64, 2, 64, 64, DEVICE_HOST},
    {"prefill", 8, 2, 128, 1, 64, 64, DEVICE_HOST},
    {"decode", 8, 2, 64, 4, 256, 1, DEVICE_HOST},
};

/* Pages lie in an order without a pattern: an odd factor permutes a power of two. */
static void attention_call(struct bench *b, const struct attention_case *c, int64_t queries,
                           struct call *call) {
    const int64_t pages = c->seqs * c->keys / PAGE, max_pages = c->keys / PAGE, tokens = c->seqs * queries;
    const int64_t row = c->kv_heads * c->dim, n_index = pages + c->seqs + 1 + c->seqs;
    int32_t *const index = indices(b, n_index), *const start = index + pages,
                   *const length = start + c->seqs + 1;
    for (int64_t i = 0; i < pages; i++) index[i] = (int32_t)(i * 2654435761 % pages);
    for (int64_t i = 0; i <= c->seqs; i++) start[i] = (int32_t)(i * queries);
    for (int64_t i = 0; i < c->seqs; i++) length[i] = (int32_t)c->keys;
    must(device_push(b->device, &b->buffer[SLOT_INDEX]));
    *call = (struct call){.op = OP_ATTENTION};
    call->u.attention = (struct attention_args){
        .q = strided(operand(b, SLOT_IN, tokens * c->heads * c->dim, 1), c->heads * c->dim, c->dim, 0),
        .out = strided(operand(b, SLOT_OUT, tokens * c->heads * c->dim, 0), c->heads * c->dim, c->dim, 0),
        .k_cache = strided(operand(b, SLOT_W1, pages * PAGE * row, 1), PAGE * row, row, c->dim),
        .v_cache = strided(operand(b, SLOT_W2, pages * PAGE * row, 1), PAGE * row, row, c->dim),
        .page_table = index_view(b, 0, pages, max_pages),
        .query_start = index_view(b, pages, c->seqs + 1, 1),
        .kv_len = index_view(b, pages + c->seqs + 1, c->seqs, 1),
        .n_tokens = tokens,
        .n_seqs = c->seqs,
        .n_heads = c->heads,
        .n_kv_heads = c->kv_heads,
        .head_dim = c->dim,
        .page_size = PAGE,
        .n_pages = pages,
        .max_queries = queries,
        .max_kv = c->keys,
        .scale = 1 / sqrt((double)c->dim),
        .causal = true};
}

/* Work as the peers count it: half of the square in a causal prefill, k and v read once in
 * decode. */
static void bench_attention(struct bench *b, const struct attention_case *c) {
    const bool decode = !strcmp(c->phase, "decode");
    const double keys = (double)(c->seqs * c->keys);
    const struct rate rate =
        decode ? (struct rate){"GB/s", 1e-9 * 4 * keys * (double)(c->kv_heads * c->dim)}
               : (struct rate){"TFLOP/s", 1e-12 * 2 * keys * (double)c->keys * (double)(c->heads * c->dim)};
    struct chain chain = {.n = 1};
    char shape[120];
    snprintf(shape, sizeof shape, "%s H%lld G%lld D%lld B%lld S%lld", c->phase, (long long)c->heads,
             (long long)c->kv_heads, (long long)c->dim, (long long)c->seqs, (long long)c->keys);
    if (decode && c->queries > 1)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), " Q%lld", (long long)c->queries);
    attention_call(b, c, c->queries, &chain.call[0]);
    for (const struct kernel *k = next_kernel(b, NULL, OP_ATTENTION); k;
         k = next_kernel(b, k, OP_ATTENTION)) {
        chain.kernel[0] = k;
        report(b, &chain, shape, rate);
    }
}

/* ---- experts ---- */

static const struct moe_case {
    int64_t tokens, experts, top_k, hidden, width;
    enum device_kind device;
} moe_cases[] = {
    {64, 64, 6, 2048, 2048, DEVICE_CUDA},   {512, 64, 6, 2048, 2048, DEVICE_CUDA},
    {4096, 64, 6, 2048, 2048, DEVICE_CUDA}, {16384, 64, 6, 2048, 2048, DEVICE_CUDA},
    {64, 8, 2, 256, 256, DEVICE_HOST},
};

struct moe_calls {
    struct call gate_up, activation, gated, down;
};

/* Every (token, choice) goes to an expert at random, as in bench/peers.py; rows are sorted by
 * expert already. */
static void moe_calls(struct bench *b, const struct moe_case *c, struct moe_calls *calls) {
    const int64_t rows = c->tokens * c->top_k, m = c->hidden, f = c->width, n = c->experts;
    uint64_t state = 7;
    int32_t *const offsets = indices(b, n + 1);
    memset(offsets, 0, (size_t)(n + 1) * sizeof *offsets);
    for (int64_t i = 0; i < rows; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        offsets[(int64_t)(state >> 33) % n + 1]++;
    }
    for (int64_t e = 0; e < n; e++) offsets[e + 1] += offsets[e];
    must(device_push(b->device, &b->buffer[SLOT_INDEX]));
    const struct view x = operand(b, SLOT_IN, rows * m, 1), out = operand(b, SLOT_OUT, rows * m, 0);
    const struct view w1 = operand(b, SLOT_W1, n * 2 * f * m, 0.02),
                      w2 = operand(b, SLOT_W2, n * m * f, 0.02);
    const struct view mid = operand(b, SLOT_MID, rows * 2 * f, 0), act = operand(b, SLOT_MID2, rows * f, 0);
    const struct view at = index_view(b, 0, n + 1, 1);
    *calls = (struct moe_calls){.gate_up = {.op = OP_LINEAR},
                                .activation = {.op = OP_ACTIVATION},
                                .gated = {.op = OP_GATED_LINEAR},
                                .down = {.op = OP_LINEAR}};
    calls->gate_up.u.linear = (struct linear_args){.x = strided(x, m, 0, 0),
                                                   .w = strided(w1, 2 * f * m, m, 0),
                                                   .out = strided(mid, 2 * f, 0, 0),
                                                   .offsets = at,
                                                   .n_rows = rows,
                                                   .n_cols = 2 * f,
                                                   .n_inner = m,
                                                   .n_groups = n};
    calls->activation.u.activation = (struct activation_args){
        .gate_up = strided(mid, 2 * f, f, 0), .out = strided(act, f, 0, 0), .n_rows = rows, .width = f};
    calls->gated.u.gated_linear = (struct gated_linear_args){.x = strided(x, m, 0, 0),
                                                             .w = strided(w1, 2 * f * m, f * m, m),
                                                             .out = strided(act, f, 0, 0),
                                                             .offsets = at,
                                                             .n_rows = rows,
                                                             .width = f,
                                                             .n_inner = m,
                                                             .n_groups = n};
    calls->down.u.linear = (struct linear_args){.x = strided(act, f, 0, 0),
                                                .w = strided(w2, m * f, f, 0),
                                                .out = strided(out, m, 0, 0),
                                                .offsets = at,
                                                .n_rows = rows,
                                                .n_cols = m,
                                                .n_inner = f,
                                                .n_groups = n};
}

/* Each linear kernel on both sides of the activation, and each fused kernel before the best linear
 * one. */
static void bench_moe(struct bench *b, const struct moe_case *c) {
    const double rows = (double)(c->tokens * c->top_k);
    const struct rate rate = {"TFLOP/s", 1e-12 * 6 * rows * (double)c->hidden * (double)c->width};
    struct moe_calls calls;
    char shape[120];
    snprintf(shape, sizeof shape, "moe T%lld E%lld K%lld M%lld F%lld", (long long)c->tokens,
             (long long)c->experts, (long long)c->top_k, (long long)c->hidden, (long long)c->width);
    moe_calls(b, c, &calls);
    const struct kernel *const silu = kernel_pick(OP_ACTIVATION, b->kind, &calls.activation, NULL);
    const struct kernel *const best = kernel_pick(OP_LINEAR, b->kind, &calls.down, NULL);
    for (const struct kernel *k = next_kernel(b, NULL, OP_LINEAR); k && silu;
         k = next_kernel(b, k, OP_LINEAR)) {
        const struct chain apart = {3, {k, silu, k}, {calls.gate_up, calls.activation, calls.down}};
        report(b, &apart, shape, rate);
    }
    for (const struct kernel *k = next_kernel(b, NULL, OP_GATED_LINEAR); k && best;
         k = next_kernel(b, k, OP_GATED_LINEAR)) {
        const struct chain fused = {2, {k, best}, {calls.gated, calls.down}};
        report(b, &fused, shape, rate);
    }
}

/* ---- the command line ---- */

static void read_arguments(struct bench *b, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--device") && i + 1 < argc) {
            const char *const kind = argv[++i];
            for (b->kind = 0; b->kind < DEVICE_COUNT && strcmp(kind, device_kind_name(b->kind)); b->kind++)
                continue;
            if (b->kind == DEVICE_COUNT) must(status_error("--device %s: use host or cuda", kind));
        } else if (kernel_by_name(argv[i]) && b->n_names < MAX_NAMES) {
            b->name[b->n_names++] = argv[i];
        } else {
            must(status_error(
                "%s: no such kernel; use kernels [--device host|cuda] [KERNEL...] with the names of "
                "shardcheck list kernels",
                argv[i]));
        }
    }
}

int main(int argc, char **argv) {
    struct bench b = {.kind = DEVICE_CUDA};
    read_arguments(&b, argc, argv);
    must(device_open(b.kind, &b.device));
    printf("# %s\n", device_label(b.device));
    for (size_t i = 0; i < sizeof attention_cases / sizeof *attention_cases; i++)
        if (attention_cases[i].device == b.kind) bench_attention(&b, &attention_cases[i]);
    for (size_t i = 0; i < sizeof moe_cases / sizeof *moe_cases; i++)
        if (moe_cases[i].device == b.kind) bench_moe(&b, &moe_cases[i]);
    for (int i = 0; i < SLOT_COUNT; i++) device_free(b.device, &b.buffer[i]);
    device_close(b.device);
    return 0;
}
