/* What does attention give whose P is rounded as its contract says? P is exp(score - running maximum),
 * rounded to nearest; where blocks of keys follow each other from the first one on, the maximum is known,
 * and so is what P was rounded to, but for values so near to the middle of two that the errors before
 * decide. With w_j = softmax, W_b the largest w of the blocks to j's own, p_j = w_j / W_b:
 *   y  = sum w'_j v_j                       w'_j = W_b round(p_j)
 *   E  = (sum (w'_j g_j + W_b c_j (1 + g_j)) |v_j| + |y| sum w_j h_j) / D + the accumulators', for w' v
 * g_j = (1 + h_j)(1 + h_max) - 1: the errors of the weight, and those of the maximum that it is taken
 * relative to, which a rounded P keeps; c_j = |round(p_j (1 +- g_j)) - round(p_j)|, mostly 0. Nothing is
 * left of u_P sum w |v|. docs/numerics.md, section 5. */
/* SPDX-License-Identifier: MIT */
#include "reference/attention_weights.h"
#include "reference/replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* To nearest even; quick in the normal range. */
static double round_p(double p) {
    enum { DROPPED = 45 };
    uint64_t bits;
    if (!(p >= 0x1p-126 && p < 0x1p127)) return dtype_round(DTYPE_BF16, p);
    memcpy(&bits, &p, sizeof bits);
    bits += (UINT64_C(1) << (DROPPED - 1)) - 1 + (bits >> DROPPED & 1);
    bits &= ~((UINT64_C(1) << DROPPED) - 1);
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* w becomes w'; w h becomes what a weight may be off by. Returns the largest g. */
static double round_weights(double *w, double *off, const struct head_sums *h, int64_t n, int64_t block) {
    double top = 0, largest = 0;
    for (int64_t first = 0; first < n; first += block) {
        const int64_t end = min_i64(first + block, n);
        for (int64_t j = first; j < end; j++) top = fmax(top, w[j]);
        for (int64_t j = first; j < end; j++) {
            if (!(w[j] > 0x1p-900)) { /* less than what may be flushed */
                w[j] = off[j] = 0;
                continue;
            }
            const double p = w[j] / top, g = (1 + off[j] / w[j]) * (1 + h->h_max) - 1 + 8 * UNIT_F64;
            const double kept = round_p(p);
            const double moved = fmax(round_p(p * (1 + g)) - kept, kept - round_p(p * fmax(1 - g, 0)));
            largest = fmax(largest, g);
            w[j] = top * kept;
            off[j] = top * (kept * g + moved * (1 + g));
        }
    }
    return largest;
}

static double sum_of(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t j = 0; j < n; j++) sum += x[j];
    return sum;
}

/* y and e [n_heads][D]. */
static void replay_heads(struct attention_keys *s, const struct attention_contract *unrounded,
                         const struct head_sums *sums, int64_t block, int n_heads, int64_t D, int64_t n,
                         double *y, double *e) {
    struct output_factors f[COLUMNS];
    double by_l[COLUMNS]; /* sum w h */
    for (int h = 0; h < n_heads; h++) {
        struct head_sums moved = sums[h]; /* the weights that are added up, and how far they are off */
        by_l[h] = sum_of(s->r + h * s->stride, n);
        moved.h_max =
            2 * UNIT_BF16 + round_weights(s->w + h * s->stride, s->r + h * s->stride, &sums[h], n, block);
        f[h] = output_factors(unrounded, &moved, n);
    }
    for (int64_t tile = 0; tile * LANES < D; tile++) {
        const lanes *const v = s->v + tile * s->n;
        struct dot_sums o[COLUMNS] = {{.y = {0}}}, off[COLUMNS] = {{.y = {0}}};
        lanes spans[COLUMNS] = {{0}};
        dot_in_slices(o, spans, s->w, s->stride, n_heads, v, n, n, WANT_SPAN | WANT_SIZE);
        dot_continue(off, s->r, s->stride, n_heads, v, n, WANT_SIZE);
        for (int h = 0; h < n_heads; h++) {
            const lanes size = lanes_abs(o[h].y);
            const lanes error = f[h].centred * (off[h].s1 + by_l[h] * size) + f[h].spans * spans[h] +
                                f[h].w * (o[h].high - o[h].low) + f[h].s1 * o[h].s1 + f[h].o * size +
                                f[h].magnitude * s->size[tile] + where_positive(o[h].s1, f[h].tiny);
            for (int64_t l = 0; l < LANES && tile * LANES + l < D; l++) {
                y[h * D + tile * LANES + l] = o[h].y[l];
                e[h * D + tile * LANES + l] = error[l];
            }
        }
    }
}

bool attention_replays(const struct contract *contract) {
    const struct attention_contract *const c = &contract->u.attention;
    return contract->op == OP_ATTENTION && c->p_in_order && c->p_unit == UNIT_BF16 && !c->p_in_l &&
           c->splits <= 1 && c->block > 0;
}

void attention_replay(const struct call *call, const struct contract *contract, int64_t row0, int64_t row1,
                      int64_t each, double *y, double *e) {
    const struct attention_args *const a = &call->u.attention;
    const struct attention_contract *const c = &contract->u.attention;
    const int64_t D = a->head_dim, row_size = a->n_heads * D, group = attention_group(a);
    struct attention_contract unrounded = *c;
    unrounded.p_unit = 0;
    for (int64_t i = 0; i < (row1 - row0) * row_size; i++) y[i] = (double)NAN; /* what is not replayed */
    const int64_t n_tasks = attention_tasks(NULL, a, row0, row1);
    struct attention_task *const tasks = ref_alloc((size_t)(n_tasks + 1) * sizeof *tasks);
    attention_tasks(tasks, a, row0, row1);
    const int64_t most_keys = attention_most_keys(a, tasks, n_tasks);
#pragma omp parallel
    {
        struct attention_keys s = keys_make(most_keys, D);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n_tasks; i += each) {
            const struct attention_task *const t = &tasks[i];
            keys_gather(&s, a, t, attention_visible(a, t->seq, t->end - 1), c->score_norm_error > 0);
            for (int64_t token = t->first; token < t->end; token++) {
                const int64_t n = attention_visible(a, t->seq, token);
                const int64_t end = min_i64((t->kv_head + 1) * group, a->n_heads);
                keys_extend_sizes(&s, D, n);
                for (int64_t head = t->kv_head * group; head < end && n; head += COLUMNS) {
                    const int n_heads = (int)min_i64(COLUMNS, end - head);
                    const int64_t at = (token - row0) * row_size + head * D;
                    struct head_sums sums[COLUMNS];
                    keys_weigh(&s, a, c, NULL, t, token, head, n_heads, n, true, sums);
                    replay_heads(&s, &unrounded, sums, c->block, n_heads, D, n, y + at, e + at);
                }
            }
        }
        keys_free(&s);
    }
    free(tasks);
}
