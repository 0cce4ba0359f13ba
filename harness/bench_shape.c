/* Which sizes are timed, and how much work is that? */
/* SPDX-License-Identifier: MIT */
#include "harness/bench_shape.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/memory.h"

static const char *const family_names[BENCH_FAMILIES] = {[BENCH_PREFILL] = "prefill",
                                                         [BENCH_DECODE] = "decode",
                                                         [BENCH_EXPERTS] = "experts",
                                                         [BENCH_DENSE] = "dense"};
const char *bench_family_name(enum bench_family family) { return family_names[family]; }

/* ---- keys ---- */

enum { MUST = -1, MOST = 1 << 24 };

/* usual, by family: what it is where the line does not say; 0: no key of that family; MUST: it has
 * to. */
static const struct key {
    const char *name;
    size_t at;
    int64_t usual[BENCH_FAMILIES];
} keys[] = {
#define KEY(name_, ...)                                                                                      \
    {                                                                                                        \
        .name = #name_, .at = offsetof(struct bench_shape, name_), .usual = { __VA_ARGS__ }                  \
    }
    KEY(heads, [BENCH_PREFILL] = 32, [BENCH_DECODE] = 32),
    KEY(kv, [BENCH_PREFILL] = 8, [BENCH_DECODE] = 8),
    KEY(dim, [BENCH_PREFILL] = 64, [BENCH_DECODE] = 64),
    KEY(seqs, [BENCH_PREFILL] = MUST, [BENCH_DECODE] = MUST),
    KEY(keys, [BENCH_PREFILL] = MUST, [BENCH_DECODE] = MUST),
    KEY(queries, [BENCH_DECODE] = 1),
    KEY(tokens, [BENCH_EXPERTS] = MUST),
    KEY(experts, [BENCH_EXPERTS] = 64),
    KEY(top, [BENCH_EXPERTS] = 6),
    KEY(hidden, [BENCH_EXPERTS] = 2048),
    KEY(width, [BENCH_EXPERTS] = 2048),
    KEY(rows, [BENCH_DENSE] = MUST),
    KEY(cols, [BENCH_DENSE] = MUST),
    KEY(inner, [BENCH_DENSE] = MUST),
#undef KEY
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static int64_t *member(struct bench_shape *s, int key) { return (int64_t *)((char *)s + keys[key].at); }
static int64_t value_of(const struct bench_shape *s, int key) {
    return *(const int64_t *)((const char *)s + keys[key].at);
}

bool bench_shape_same(const struct bench_shape *a, const struct bench_shape *b) {
    for (int k = 0; k < N_KEYS; k++)
        if (value_of(a, k) != value_of(b, k)) return false;
    return a->family == b->family;
}

void bench_family_describe(enum bench_family family, char *text, size_t size) {
    size_t used = 0;
    *text = 0;
    for (int k = 0; k < N_KEYS && used < size; k++) {
        const int64_t usual = keys[k].usual[family];
        if (!usual) continue;
        used += (size_t)snprintf(text + used, size - used, usual == MUST ? "%s%s" : "%s%s (%lld)",
                                 used ? ", " : "", keys[k].name, (long long)usual);
    }
}

void bench_shape_print(const struct bench_shape *s, char line[BENCH_LINE]) {
    int used = snprintf(line, BENCH_LINE, "%s", family_names[s->family]);
    char gap = ':';
    for (int k = 0; k < N_KEYS; k++) {
        const int64_t usual = keys[k].usual[s->family];
        if (!usual || value_of(s, k) == usual) continue;
        used += snprintf(line + used, (size_t)(BENCH_LINE - used), "%c%s=%lld", gap, keys[k].name,
                         (long long)value_of(s, k));
        gap = ',';
    }
}

/* ---- reading ---- */

static struct status check(const char *line, const struct bench_shape *s) {
    const bool attention = bench_is_attention(s->family);
    if (attention && s->heads % s->kv)
        return status_error("%.100s: %lld heads cannot share %lld kv heads; use a multiple", line,
                            (long long)s->heads, (long long)s->kv);
    if (attention && s->queries > s->keys)
        return status_error("%.100s: %lld queries of a sequence with %lld keys; use at most as many", line,
                            (long long)s->queries, (long long)s->keys);
    if (s->family == BENCH_EXPERTS && s->top > s->experts)
        return status_error("%.100s: %lld of %lld experts; use at most as many", line, (long long)s->top,
                            (long long)s->experts);
    if (s->family == BENCH_EXPERTS && (double)s->tokens * (double)s->top > 0x1p26)
        return status_error("%.100s: more than 2^26 rows; use fewer tokens", line);
    const double gib = (attention ? bench_work_of(s).bytes : 2 * bench_work_of(s).bytes) / 0x1p30;
    if (gib > 32) return status_error("%.100s: needs %.0f GiB; use smaller sizes", line, gib);
    return status_ok();
}

static struct status read_key(const char *line, const char *text, size_t length, struct bench_shape *s) {
    const size_t name = strcspn(text, "=");
    char valid[200], *end;
    bench_family_describe(s->family, valid, sizeof valid);
    for (int k = 0; k < N_KEYS; k++) {
        if (strlen(keys[k].name) != name || strncmp(text, keys[k].name, name) != 0) continue;
        if (!keys[k].usual[s->family]) break;
        if (*member(s, k)) return status_error("%.100s: %s stands there twice", line, keys[k].name);
        *member(s, k) = name < length ? strtoll(text + name + 1, &end, 10) : 0;
        if (name + 1 < length && end == text + length && *member(s, k) > 0 && *member(s, k) <= MOST)
            return status_ok();
        return status_error("%.100s: %.*s: use a number from 1 to %d", line, (int)(length < 60 ? length : 60),
                            text, MOST);
    }
    return status_error("%.100s: %.*s: %s has no such size; use %s", line, (int)(length < 60 ? length : 60),
                        text, family_names[s->family], valid);
}

struct status bench_shape_parse(const char *line, struct bench_shape *out) {
    const size_t name = strcspn(line, ":");
    *out = (struct bench_shape){.family = 0};
    while (out->family < BENCH_FAMILIES &&
           (strlen(family_names[out->family]) != name || strncmp(line, family_names[out->family], name) != 0))
        out->family++;
    if (out->family == BENCH_FAMILIES)
        return status_error(
            "%.100s: no such shape; use prefill, decode, experts or dense, then :key=value,...", line);
    for (const char *at = line + name; *at;) {
        const size_t length = strcspn(++at, ",");
        TRY(read_key(line, at, length, out));
        at += length;
    }
    for (int k = 0; k < N_KEYS; k++) {
        const int64_t usual = keys[k].usual[out->family];
        if (usual == MUST && !*member(out, k))
            return status_error("%.100s: says nothing of %s; add %s=N", line, keys[k].name, keys[k].name);
        if (usual && !*member(out, k)) *member(out, k) = usual;
    }
    if (out->family == BENCH_PREFILL) out->queries = out->keys;
    return check(line, out);
}

/* ---- the default run ---- */

static const struct {
    enum device_kind device;
    const char *line;
} defaults[] = {
    {DEVICE_CUDA, "prefill:seqs=8,keys=1024"},
    {DEVICE_CUDA, "prefill:seqs=2,keys=4096"},
    {DEVICE_CUDA, "prefill:seqs=1,keys=16384"},
    {DEVICE_CUDA, "prefill:heads=64,dim=128,seqs=8,keys=1024"},
    {DEVICE_CUDA, "prefill:heads=64,dim=128,seqs=2,keys=4096"},
    {DEVICE_CUDA, "prefill:heads=64,dim=128,seqs=1,keys=16384"},
    {DEVICE_CUDA, "decode:seqs=64,keys=4096"},
    {DEVICE_CUDA, "decode:seqs=32,keys=16384"},
    {DEVICE_CUDA, "decode:heads=64,dim=128,seqs=64,keys=4096"},
    {DEVICE_CUDA, "decode:heads=64,dim=128,seqs=32,keys=16384"},
    {DEVICE_CUDA, "decode:seqs=1,keys=131072"},
    {DEVICE_CUDA, "decode:heads=64,dim=128,seqs=1,keys=131072"},
    {DEVICE_CUDA, "decode:seqs=32,keys=4096,queries=4"},
    {DEVICE_CUDA, "decode:heads=64,dim=128,seqs=32,keys=4096,queries=4"},
    {DEVICE_CUDA, "experts:tokens=64"},
    {DEVICE_CUDA, "experts:tokens=512"},
    {DEVICE_CUDA, "experts:tokens=4096"},
    {DEVICE_CUDA, "experts:tokens=16384"},
    {DEVICE_HOST, "prefill:heads=8,kv=2,seqs=2,keys=50"},
    {DEVICE_HOST, "prefill:heads=8,kv=2,dim=128,seqs=1,keys=50"},
    {DEVICE_HOST, "decode:heads=8,kv=2,seqs=4,keys=200"},
    {DEVICE_HOST, "experts:tokens=48,experts=8,top=2,hidden=128,width=128"},
};

static struct bench_shape parsed(const char *line) {
    struct bench_shape shape;
    const struct status s = bench_shape_parse(line, &shape);
    (void)s; /* a test reads them all */
    return shape;
}

bool bench_shape_default(enum device_kind device, int i, struct bench_shape *out) {
    for (size_t row = 0; row < sizeof defaults / sizeof *defaults; row++)
        if (defaults[row].device == device && i-- == 0) return *out = parsed(defaults[row].line), true;
    return false;
}

struct bench_shape bench_dense_gauge(enum device_kind device) {
    return parsed(device == DEVICE_CUDA ? "dense:rows=8192,cols=8192,inner=8192"
                                        : "dense:rows=64,cols=256,inner=256");
}

/* ---- work ---- */

void bench_offsets(const struct bench_shape *s, int32_t *offsets) {
    uint64_t state = 7;
    memset(offsets, 0, (size_t)(s->experts + 1) * sizeof *offsets);
    for (int64_t i = 0; i < s->tokens * s->top; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        offsets[(int64_t)(state >> 33) % s->experts + 1]++;
    }
    for (int64_t e = 0; e < s->experts; e++) offsets[e + 1] += offsets[e];
}

static double experts_with_rows(const struct bench_shape *s) {
    int32_t *const offsets = memory_zeroed((size_t)s->experts + 1, sizeof *offsets);
    double n = 0;
    bench_offsets(s, offsets);
    for (int64_t e = 0; e < s->experts; e++) n += offsets[e + 1] > offsets[e];
    free(offsets);
    return n;
}

struct bench_work bench_work_of(const struct bench_shape *s) {
    const double element = 2; /* bytes */
    if (s->family == BENCH_DENSE) {
        const double rows = (double)s->rows, cols = (double)s->cols, inner = (double)s->inner;
        return (struct bench_work){element * (rows * inner + cols * inner + rows * cols),
                                   2 * rows * cols * inner};
    }
    if (s->family == BENCH_EXPERTS) {
        const double rows = (double)(s->tokens * s->top), weights = 3 * (double)s->hidden * (double)s->width;
        return (struct bench_work){element * (2 * rows * (double)s->hidden + experts_with_rows(s) * weights),
                                   2 * rows * weights};
    }
    const double queries = (double)(s->seqs * s->queries), width = (double)(s->heads * s->dim);
    const double seen = (double)s->keys - (double)(s->queries - 1) / 2; /* of a query, on average */
    return (struct bench_work){element * 2 *
                                   (queries * width + (double)(s->seqs * s->keys) * (double)(s->kv * s->dim)),
                               4 * queries * seen * width};
}
