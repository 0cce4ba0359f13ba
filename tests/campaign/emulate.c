/* How else can an op be computed in fp32, honestly? Every kernel here declares what it does; with
 * t->dishonest it leaves its last term out, or what comes nearest to that. */
/* SPDX-License-Identifier: MIT */
#include "tests/campaign/campaign.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct view dense(float *data, int64_t n, int64_t s0, int64_t s1) {
    return (struct view){data, DTYPE_F32, {s0, s1}, 0, n};
}

static double any_scale(struct trial *t) { return ldexp(1, (int)trial_draw(t, -12, 12)); }

/* Where products become subnormal: a trial in five, half of them flushed. */
enum { TINY = -63 };
static bool is_tiny(struct trial *t) { return !trial_draw(t, 0, 4); }

static void norm(struct trial *t) {
    const int64_t n = trial_size(t, 2048), rows = trial_size(t, 8192 / n);
    const struct adding a = adding_draw(t, false);
    const bool tiny = is_tiny(t), flushes = tiny && trial_flip(t);
    const enum dtype mid = trial_flip(t) ? trial_half(t) : DTYPE_F64;
    float *const x = trial_values(t, rows * n, trial_dtype(t), any_scale(t)),
                 *const w = trial_values(t, n, trial_dtype(t), tiny ? ldexp(1, 2 * TINY + 4) : 2),
                 *const got = trial_array(t, rows * n, 4);
    struct call c = {.op = OP_NORM};
    struct contract contract = contract_exact(OP_NORM);
    c.u.norm = (struct norm_args){
        .x = dense(x, rows * n, n, 0), .w = dense(w, n, 1, 0), .n_tokens = rows, .width = n, .eps = 1e-6};
    contract.u.norm.depth = adding_depth(&a, n);
    contract.u.norm.mid = mid;
    contract.flushes = flushes;
    snprintf(t->made_of, sizeof t->made_of, "%lld of %lld, %s, %s before the weight%s", (long long)rows,
             (long long)n, adding_name(&a), dtype_name(mid), flushes ? ", flushed" : "");
    for (int64_t r = 0; r < rows; r++) {
        const float square = adding_dot(&a, x + r * n, x + r * n, t->dishonest ? n - 1 : n);
        const float root = 1 / sqrtf(square / (float)n + 1e-6f);
        for (int64_t i = 0; i < n; i++) {
            const float y = (float)dtype_round(mid, (double)(x[r * n + i] * root)) * w[i];
            got[r * n + i] = flushes ? flushed(y) : y;
        }
    }
    trial_judge(t, &c, &contract, got, 0);
}

static void linear(struct trial *t) {
    const int64_t n = trial_size(t, 4096), cols = trial_size(t, 32), rows = trial_size(t, 16);
    const enum dtype d = trial_dtype(t);
    struct adding a = adding_draw(t, d != DTYPE_F32);
    const bool tiny = is_tiny(t) && a.order != TENSOR_CORE, biased = !tiny && trial_flip(t);
    a.flushes = tiny && trial_flip(t);
    float *const x = trial_values(t, rows * n, d, tiny ? ldexp(1, TINY) : any_scale(t)),
                 *const w = trial_values(t, cols * n, d, tiny ? ldexp(1, TINY) : 1),
                 *const bias = trial_values(t, cols, d, any_scale(t)),
                 *const got = trial_array(t, rows * cols, 4);
    struct call c = {.op = OP_LINEAR};
    c.u.linear = (struct linear_args){.x = dense(x, rows * n, n, 0),
                                      .w = dense(w, cols * n, 0, n),
                                      .n_rows = rows,
                                      .n_cols = cols,
                                      .n_inner = n,
                                      .n_groups = 1};
    if (biased) c.u.linear.bias = dense(bias, cols, 1, 0);
    const struct contract contract = {
        .op = OP_LINEAR, .flushes = a.flushes, .u.linear.acc = adding_accumulator(&a)};
    snprintf(t->made_of, sizeof t->made_of, "%lld terms in %s, %s, %lld parts%s%s", (long long)n,
             dtype_name(d), adding_name(&a), (long long)a.parts, a.fma ? ", fma" : "",
             a.flushes ? ", flushed"
             : biased  ? ", bias"
                       : "");
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < cols; o++) {
            const float sum = adding_dot(&a, x + r * n, w + o * n, t->dishonest ? n - 1 : n);
            got[r * cols + o] = biased ? sum + bias[o] : sum;
        }
    trial_judge(t, &c, &contract, got, 0);
}

static void rope(struct trial *t) {
    const int64_t d = 2 * trial_draw(t, 1, 64), rows = trial_size(t, 64), heads = trial_size(t, 4);
    const bool fma = trial_flip(t);
    float *const q = trial_values(t, rows * heads * d, trial_dtype(t), any_scale(t)),
                 *const table = trial_array(t, rows * d, 4), *const got = trial_array(t, rows * heads * d, 4);
    int32_t *const positions = trial_array(t, rows, sizeof *positions);
    ref_rope_table(table, DTYPE_F32, rows, d, &(struct layer_spec){.rope_theta = 1e4});
    for (int64_t r = 0; r < rows; r++) positions[r] = (int32_t)r;
    struct call c = {.op = OP_ROPE};
    c.u.rope = (struct rope_args){.q = dense(q, rows * heads * d, heads * d, d),
                                  .k = dense(q, rows * heads * d, heads * d, d),
                                  .table = dense(table, rows * d, d, 0),
                                  .positions = {positions, DTYPE_I32, {1}, 0, rows},
                                  .n_tokens = rows,
                                  .n_heads = heads,
                                  .n_kv_heads = heads,
                                  .head_dim = d,
                                  .rot_dim = d};
    snprintf(t->made_of, sizeof t->made_of, "%lld rows, %lld dims%s", (long long)rows, (long long)d,
             fma ? ", fma" : "");
    for (int64_t i = 0; i < rows * heads; i++)
        for (int64_t k = 0; k < d / 2; k++) {
            const float *const of = table + i / heads * d, a = q[i * d + k], b = q[i * d + d / 2 + k];
            const float co = of[k], si = of[d / 2 + k];
            got[i * d + k] = fma ? fmaf(a, co, -(b * si)) : a * co - b * si;
            got[i * d + d / 2 + k] = fma ? fmaf(b, co, a * si) : b * co + a * si;
            if (t->dishonest) got[i * d + k] = a * co;
        }
    const struct contract contract = contract_exact(OP_ROPE);
    trial_judge(t, &c, &contract, got, 0);
}

static float silu(float g, int way) {
    const float e = expf(-fabsf(g));
    switch (way) {
    case 0: return g / (1 + expf(-g));
    case 1: return g * (1 / (1 + expf(-g)));
    case 2: return g * ((g >= 0 ? 1.0f : e) / (1 + e));
    case 3: return g * (1 / (1 + exp2f(-g * 1.44269504f)));
    default: return 1 + expf(-g) > 0x1p126f ? 0 : g / (1 + expf(-g)); /* a fast division */
    }
}

static void activation(struct trial *t) {
    const int64_t n = trial_size(t, 1 << 15), way = trial_draw(t, 0, 4);
    const bool tiny = is_tiny(t), flushes = tiny && trial_flip(t);
    const enum dtype mid = trial_flip(t) ? trial_half(t) : DTYPE_F64;
    float *const x = trial_values(t, 2 * n, trial_dtype(t),
                                  ldexp(1, tiny ? TINY : (int)trial_draw(t, -8, 7))),
                 *const got = trial_array(t, n, 4);
    struct call c = {.op = OP_ACTIVATION};
    struct contract contract = contract_exact(OP_ACTIVATION);
    c.u.activation = (struct activation_args){.gate_up = dense(x, 2 * n, 2 * n, n), .n_rows = 1, .width = n};
    contract.u.activation.mid = mid;
    contract.flushes = flushes;
    snprintf(t->made_of, sizeof t->made_of, "%lld gates, way %lld, %s before up%s", (long long)n,
             (long long)way, dtype_name(mid), flushes ? ", flushed" : "");
    for (int64_t i = 0; i < n; i++) {
        const float s = t->dishonest ? fmaxf(x[i], 0) : silu(x[i], (int)way);
        const float y = (float)dtype_round(mid, (double)s) * x[n + i];
        got[i] = flushes ? flushed(y) : y;
    }
    trial_judge(t, &c, &contract, got, 0);
}

static void combine(struct trial *t) {
    const int64_t k = trial_size(t, 16), width = trial_size(t, 1024), rows = 1 + trial_size(t, 16384 / width);
    struct adding a = adding_draw(t, false);
    const bool tiny = is_tiny(t);
    a.flushes = tiny && trial_flip(t);
    float *const down =
                     trial_values(t, rows * k * width, trial_dtype(t), tiny ? ldexp(1, TINY) : any_scale(t)),
                 *const gates = trial_values(t, rows * k, DTYPE_F32, tiny ? ldexp(1, TINY) : 2.5),
                 *const got = trial_array(t, rows * width, 4);
    int32_t *const slot_row = trial_array(t, rows * k, sizeof *slot_row);
    float column[16];
    for (int64_t i = 0; i < rows * k; i++) slot_row[i] = trial_draw(t, 0, 9) ? (int32_t)i : -1;
    struct call c = {.op = OP_COMBINE};
    c.u.combine = (struct combine_args){.down = dense(down, rows * k * width, width, 0),
                                        .slot_row = {slot_row, DTYPE_I32, {k}, 0, rows * k},
                                        .gates = dense(gates, rows * k, k, 0),
                                        .n_tokens = rows,
                                        .top_k = k,
                                        .width = width,
                                        .n_rows = rows * k};
    snprintf(t->made_of, sizeof t->made_of, "%lld tokens, %lld choices, %s%s", (long long)rows, (long long)k,
             adding_name(&a), a.flushes ? ", flushed" : "");
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            for (int64_t j = 0; j < k; j++)
                column[j] = slot_row[r * k + j] < 0 ? 0 : down[slot_row[r * k + j] * width + i];
            got[r * width + i] = adding_dot(&a, column, gates + r * k, t->dishonest ? k - 1 : k);
        }
    struct contract contract = contract_exact(OP_COMBINE);
    contract.flushes = a.flushes;
    trial_judge(t, &c, &contract, got, 0);
}

static void sum(struct trial *t) {
    enum { MOST = 16 };
    const int64_t n = trial_size(t, 1 << 14), parts = trial_draw(t, 2, MOST);
    const bool reversed = trial_flip(t);
    struct view part[MOST];
    float *const x = trial_values(t, parts * n, trial_dtype(t), any_scale(t)), *const got =
                                                                                   trial_array(t, n, 4);
    for (int64_t p = 0; p < parts; p++) part[p] = dense(x + p * n, n, n, 0);
    struct call c = {.op = OP_SUM};
    c.u.sum = (struct sum_args){.part = part, .n_parts = parts, .n_tokens = 1, .width = n};
    snprintf(t->made_of, sizeof t->made_of, "%lld parts of %lld%s", (long long)parts, (long long)n,
             reversed ? ", reversed" : "");
    for (int64_t i = 0; i < n; i++)
        for (int64_t p = t->dishonest; p < parts; p++) got[i] += x[(reversed ? parts - 1 - p : p) * n + i];
    const struct contract contract = contract_exact(OP_SUM);
    trial_judge(t, &c, &contract, got, 0);
}

static void residual(struct trial *t) {
    const int64_t n = trial_size(t, 1 << 15);
    float *const x = trial_values(t, n, trial_dtype(t), any_scale(t)),
                 *const add = trial_values(t, n, trial_dtype(t), any_scale(t)),
                 *const got = trial_array(t, n, 4);
    struct call c = {.op = OP_RESIDUAL};
    c.u.residual =
        (struct residual_args){.x = dense(x, n, n, 0), .add = dense(add, n, n, 0), .n_tokens = 1, .width = n};
    snprintf(t->made_of, sizeof t->made_of, "%lld elements", (long long)n);
    for (int64_t i = 0; i < n; i++) got[i] = t->dishonest ? x[i] : x[i] + add[i];
    const struct contract contract = contract_exact(OP_RESIDUAL);
    trial_judge(t, &c, &contract, got, 0);
}

const struct emulation emulations[] = {
    {"norm", norm},           {"linear", linear},
    {"rope", rope},           {"activation", activation},
    {"combine", combine},     {"sum", sum},
    {"residual", residual},   {"attention", emulate_attention},
    {"route", emulate_route}, {0},
};
