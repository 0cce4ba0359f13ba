/* In which order does a kernel sum?  Products of several sizes are run by a kernel of the registry, and what it
 * stored is held against the orders of a table (reference/order.h). One that gives all bits of a sample is
 * what ran.
 *   build/bench/order [--device host|cuda] KERNEL..     default: host linear_simt grouped_gemm_wgmma
 * One line a size: KERNEL rows x columns x inner DTYPE -> OUT: ORDER or none, the sample. On a GPU:
 *   build/bench/order --device cuda linear_cublas grouped_gemm_wgmma linear_simt
 * Exit status 1 where a kernel whose contract declares its order does not follow it. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "reference/order.h"
#include "reference/replay.h"

enum { SAMPLE_ROWS = 4, MAX_NAMES = 16 };

static void must(struct status s) {
    if (!s.code) return;
    fprintf(stderr, "order: %s\n", s.message);
    exit(2);
}

/* ---- one product ---- */

struct product {
    int64_t rows, cols, inner;
    enum dtype in, out;
};

struct run {
    struct device *device;
    struct device_buffer x, w, y, scratch;
    struct call call, host; /* the same with the host's addresses */
};

static void fill(struct run *r, struct device_buffer *b, const char *name, enum dtype d, int64_t n) {
    static uint64_t state = 1;
    must(device_reuse(r->device, name, (size_t)n * dtype_bytes(d), 0, true, b));
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        dtype_store(b->host, d, i, ldexp((double)(state >> 40), -23) - 1);
    }
    must(device_push(r->device, b));
}

static void prepare(struct run *r, const struct product *p) {
    fill(r, &r->x, "x", p->in, p->rows * p->inner);
    fill(r, &r->w, "w", p->in, p->cols * p->inner);
    must(device_reuse(r->device, "y", (size_t)(p->rows * p->cols) * dtype_bytes(p->out), 0, true, &r->y));
    r->call = (struct call){.op = OP_LINEAR};
    r->call.u.linear = (struct linear_args){
        .x = {r->x.data, p->in, {p->inner, 1}, 0, p->rows * p->inner},
        .w = {r->w.data, p->in, {p->cols * p->inner, p->inner, 1}, 0, p->cols * p->inner},
        .out = {r->y.data, p->out, {p->cols, 1}, 0, p->rows * p->cols},
        .n_rows = p->rows,
        .n_cols = p->cols,
        .n_inner = p->inner,
        .n_groups = 1};
    r->host = r->call;
    r->host.u.linear.x.data = r->x.host;
    r->host.u.linear.w.data = r->w.host;
    r->host.u.linear.out.data = r->y.host;
}

/* The share of the sampled rows' elements that have the order's bits. */
static double share_of(const struct run *r, const struct contract *c) {
    const struct linear_args *const a = &r->host.u.linear;
    double *const y = malloc((size_t)a->n_cols * 2 * sizeof *y), *const e = y + a->n_cols;
    int64_t same = 0, all = 0;
    if (!y) must(status_error("out of memory"));
    for (int64_t i = 0; i < SAMPLE_ROWS; i++) {
        const int64_t row = i * (a->n_rows - 1) / (SAMPLE_ROWS - 1);
        ref_replay(&r->host, c, row, row + 1, 1, y, e);
        for (int64_t n = 0; n < a->n_cols; n++, all++)
            same +=
                dtype_load(r->y.host, a->out.dtype, row * a->n_cols + n) == dtype_round(a->out.dtype, y[n]);
    }
    free(y);
    return (double)same / (double)all;
}

/* False: the kernel does not follow the order that it declares. */
static bool examine(struct run *r, const struct kernel *k, const struct product *p) {
    prepare(r, p);
    const char *why = kernel_refuses(k, &r->call);
    if (why) return true;
    const size_t scratch = k->scratch_bytes ? k->scratch_bytes(&r->call) : 0;
    must(device_reuse(r->device, "scratch", scratch, 0, true, &r->scratch));
    why = k->launch[device_kind_of(r->device)](&r->call, r->scratch.data, device_stream(r->device));
    if (why) must(status_error("%s: %s", k->name, why));
    must(device_sync(r->device));
    must(device_pull(r->device, &r->y));

    const struct contract own = k->contract(&r->call);
    struct order_found found;
    order_find(&r->host, &own, &found);
    const bool declares = ref_replays(&r->host, &own), follows = !declares || share_of(r, &own) == 1;
    printf("%s %lld x %lld x %lld %s -> %s: %s (%lld sampled, %lld telling)%s\n", k->name, (long long)p->rows,
           (long long)p->cols, (long long)p->inner, dtype_name(p->in), dtype_name(p->out),
           found.found ? found.order.name : "none", (long long)found.sampled, (long long)found.telling,
           !declares ? ""
           : follows ? "; as declared"
                     : "; NOT AS DECLARED");
    fflush(stdout);
    return follows;
}

int main(int argc, char **argv) {
    static const struct product products[] = {
        {33, 3072, 2048, DTYPE_BF16, DTYPE_BF16}, {33, 64, 2048, DTYPE_BF16, DTYPE_F32},
        {33, 2048, 2048, DTYPE_BF16, DTYPE_F32},  {4, 2048, 9216, DTYPE_BF16, DTYPE_F32},
        {300, 512, 2048, DTYPE_BF16, DTYPE_F32},  {33, 2048, 256, DTYPE_BF16, DTYPE_F32},
        {33, 1536, 2048, DTYPE_F32, DTYPE_F32},   {4, 2048, 9216, DTYPE_F32, DTYPE_F32}};
    const char *names[MAX_NAMES] = {"linear_simt", "grouped_gemm_wgmma"};
    enum device_kind kind = DEVICE_HOST;
    int n_names = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--device") && i + 1 < argc)
            kind = strcmp(argv[++i], "cuda") ? DEVICE_HOST : DEVICE_CUDA;
        else if (n_names < MAX_NAMES)
            names[n_names++] = argv[i];
    }
    struct run r = {0};
    bool follow = true;
    must(device_open(kind, &r.device));
    printf("on %s; %d rows of each are held against a declared order\n", device_label(r.device), SAMPLE_ROWS);
    for (int i = 0; i < (n_names ? n_names : 2); i++) {
        const struct kernel *const k = kernel_by_name(names[i]);
        if (!k || k->op != OP_LINEAR || !k->launch[kind])
            must(status_error("%s: no product of that name on %s", names[i], device_kind_name(kind)));
        for (size_t p = 0; p < sizeof products / sizeof *products; p++)
            follow &= examine(&r, k, &products[p]);
    }
    device_free(r.device, &r.x), device_free(r.device, &r.w), device_free(r.device, &r.y);
    device_free(r.device, &r.scratch);
    device_close(r.device);
    return !follow;
}
