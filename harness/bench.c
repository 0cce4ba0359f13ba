/* Who does a shape, who of them is right, and how long do these take? */
/* SPDX-License-Identifier: MIT */
#include "harness/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench_judge.h"
#include "harness/bench_peers.h"
#include "harness/memory.h"
#include "kernels/device/device_timer.h"
#include "layer/copy.h"

enum { MAX_CONTESTANTS = 24 };
#define ROUND_SECONDS 0.03 /* as many launches as fill this */

/* Somebody who is timed: a chain of kernels, else a peer, else the device's copy. */
struct contestant {
    int64_t row; /* in the result */
    struct bench_chain chain;
    const char *peer; /* its name */
    bool lost;        /* it failed, and is timed no more */
    int per_round;
    uint64_t bits; /* of what was judged */
};

struct bench {
    const struct bench_request *request;
    struct bench_result *result;
    struct device *device;
    struct device_timer *timer;
    struct bench_operands operands;
    struct bench_peers peers;
    struct bench_peer peer[BENCH_PEERS];    /* of the shape */
    struct contestant one[MAX_CONTESTANTS]; /* of the shape */
    int n;
};

static struct bench_row *row_of(const struct bench *b, const struct contestant *c) {
    return &b->result->row[c->row];
}

/* ---- a round ---- */

static struct status launch(struct bench *b, const struct contestant *c) {
    return c->chain.n ? bench_chain_launch(&b->operands, &c->chain) : device_timer_copy(b->timer);
}

static void drop_times(struct bench_row *row) {
    for (int cache = 0; cache < BENCH_CACHES; cache++) {
        free(row->series[cache].seconds);
        row->series[cache] = (struct bench_series){0};
    }
}

/* Its row says why, and has no times. */
static void lose(struct bench *b, struct contestant *c, enum bench_state state, const char *doing,
                 const char *why) {
    struct bench_row *const row = row_of(b, c);
    c->lost = true;
    row->state = state;
    snprintf(row->note, sizeof row->note, "%s%.250s", doing, why);
    drop_times(row);
}

/* Somebody's kernels failed. An error: with them the device, so that nothing more can be done. */
static struct status blame(struct bench *b, struct contestant *c, const char *doing, const char *why) {
    const struct bench_row *const row = row_of(b, c);
    lose(b, c, BENCH_WRONG, doing, why);
    struct status dead = device_sync(b->device);
    if (!dead.code) return status_ok();
    dead = status_error("%.150s: %.100s %s%.200s", row->shape, row->name, doing, why);
    dead.code = STATUS_FAULT;
    return dead;
}

static void ask_peer(struct bench *b, struct contestant *c, enum bench_cache cache, int n, double *seconds) {
    char why[240];
    if (!bench_peers_round(&b->peers, c->peer, cache == BENCH_COLD, device_timer_flush_bytes(b->timer), n,
                           seconds, why))
        lose(b, c, BENCH_REFUSED, "", why);
}

/* Something is queued before the first mark, so that the device is busy while the CPU queues what
 * follows: nothing but the device's work lies between two marks. */
static struct status queue_round(struct bench *b, const struct contestant *c, enum bench_cache cache, int n) {
    if (cache == BENCH_WARM) TRY(launch(b, c));
    for (int i = 0; i < n; i++) {
        if (cache == BENCH_COLD) TRY(device_timer_flush(b->timer));
        TRY(device_timer_mark(b->timer, 2 * i));
        TRY(launch(b, c));
        TRY(device_timer_mark(b->timer, 2 * i + 1));
    }
    return device_sync(b->device);
}

static struct status time_round(struct bench *b, struct contestant *c, enum bench_cache cache, int n,
                                double *seconds) {
    if (c->peer) return ask_peer(b, c, cache, n, seconds), status_ok();
    const struct status ran = queue_round(b, c, cache, n);
    if (ran.code) return blame(b, c, "failed while it was timed: ", ran.message);
    for (int i = 0; i < n; i++) TRY(device_timer_seconds(b->timer, 2 * i, 2 * i + 1, &seconds[i]));
    return status_ok();
}

static struct status go_on(const struct bench *b) {
    const int by = b->request->asked ? b->request->asked() : 0;
    return by ? status_error("interrupted by SIG%s", sigabbrev_np(by)) : status_ok();
}

static struct status plan_rounds(struct bench *b, struct contestant *c) {
    double once = 0;
    TRY(time_round(b, c, BENCH_WARM, 1, &once)); /* loads the code */
    if (c->lost) return status_ok();
    const double fit = ROUND_SECONDS / once;
    c->per_round = fit < 1 ? 1 : fit > BENCH_PER_ROUND ? BENCH_PER_ROUND : (int)fit;
    return status_ok();
}

static struct status add_round(struct bench *b, struct contestant *c, enum bench_cache cache, int rounds) {
    struct bench_series *const s = &row_of(b, c)->series[cache];
    if (!s->seconds) s->seconds = memory_zeroed((size_t)(rounds * c->per_round), sizeof *s->seconds);
    s->per_round = c->per_round;
    TRY(time_round(b, c, cache, c->per_round, s->seconds + s->n));
    if (!c->lost) s->n += c->per_round;
    return status_ok();
}

/* Whoever is launched finds scratch for the most that any of them needs. */
static struct status lay_scratch(struct bench *b) {
    size_t most = 0;
    for (int i = 0; i < b->n; i++) {
        const size_t bytes = b->one[i].chain.n ? bench_chain_scratch(&b->one[i].chain) : 0;
        if (bytes > most) most = bytes;
    }
    return bench_lay_scratch(&b->operands, most);
}

static struct status time_all(struct bench *b) {
    TRY(lay_scratch(b));
    const int rounds = b->request->rounds ? b->request->rounds : BENCH_ROUNDS;
    for (int i = 0; i < b->n; i++) TRY(plan_rounds(b, &b->one[i]));
    for (int cache = 0; cache < BENCH_CACHES; cache++)
        for (int round = 0; round < rounds && !b->request->without[cache]; round++)
            for (int i = 0; i < b->n; i++) {
                TRY(go_on(b));
                if (!b->one[i].lost) TRY(add_round(b, &b->one[i], (enum bench_cache)cache, rounds));
            }
    return status_ok();
}

/* ---- right? ---- */

static uint64_t hash_outputs(const struct bench *b, const struct bench_chain *chain) {
    uint64_t h = 0;
    for (int i = 0; i < chain->n; i++) {
        const struct device_buffer *const out = &b->operands.buffer[chain->out[i]];
        h = h * 31 + hash_bytes(out->host, out->bytes);
    }
    return h;
}

/* One launch into poison, judged. What the kernel did wrong is in the row. */
static struct status try_chain(struct bench *b, struct contestant *c) {
    struct bench_row *const row = row_of(b, c);
    const double most = b->request->most_work > 0 ? b->request->most_work : BENCH_WORK;
    TRY(bench_chain_prepare(&b->operands, &c->chain));
    struct status ran = bench_chain_launch(&b->operands, &c->chain);
    if (!ran.code) ran = device_sync(b->device);
    if (ran.code) return blame(b, c, "", ran.message);
    TRY(bench_judge(&b->operands, &c->chain, most, row));
    c->bits = hash_outputs(b, &c->chain);
    return status_ok();
}

/* What was timed is what was judged: the same bits after all the launches, or right once more. */
static struct status look_again(struct bench *b, struct contestant *c) {
    struct bench_row *const row = row_of(b, c);
    struct bench_row again = {.state = BENCH_TIMED};
    TRY(bench_chain_prepare(&b->operands, &c->chain));
    struct status ran = bench_chain_launch(&b->operands, &c->chain);
    if (!ran.code) ran = device_sync(b->device);
    if (ran.code) return blame(b, c, "failed after it was timed: ", ran.message);
    for (int i = 0; i < c->chain.n; i++) TRY(device_pull(b->device, &b->operands.buffer[c->chain.out[i]]));
    if (hash_outputs(b, &c->chain) == c->bits) return status_ok();
    TRY(bench_judge(&b->operands, &c->chain, BENCH_WORK, &again));
    if (again.state != BENCH_WRONG) return status_ok();
    row->margin = again.margin;
    lose(b, c, BENCH_WRONG, "right at first, wrong after it was timed: ", again.note);
    return status_ok();
}

/* ---- a shape ---- */

static struct contestant *add(struct bench *b, const struct bench_shape *shape, const char *name) {
    struct contestant *const c = &b->one[b->n];
    struct bench_row *const row = bench_result_add(b->result);
    const struct bench_work work = bench_work_of(shape);
    *c = (struct contestant){.row = b->result->n_rows - 1};
    bench_shape_print(shape, row->shape);
    snprintf(row->name, sizeof row->name, "%s", name);
    row->bytes = work.bytes;
    row->flops = work.flops;
    return c;
}

/* The ways that are right stay. */
static struct status add_chains(struct bench *b, const struct bench_shape *shape, bool gauge) {
    struct bench_chain chain;
    const struct kernel *best = NULL;
    TRY(bench_operands_lay(&b->operands, b->device, shape));
    if (gauge && bench_chain_at(&b->operands, NULL, 0, 0, &chain))
        best = kernel_pick(chain.call[0].op, b->request->device, &chain.call[0], NULL);
    const struct kernel *const *const wanted = gauge ? &best : b->request->wanted;
    const int n_wanted = gauge ? best != NULL : b->request->n_wanted;
    for (int i = 0; b->n < MAX_CONTESTANTS && bench_chain_at(&b->operands, wanted, n_wanted, i, &chain);
         i++) {
        struct contestant *const c = add(b, shape, chain.name);
        struct bench_row *const row = row_of(b, c);
        c->chain = chain;
        row->gauge = gauge;
        if (chain.refused[0]) {
            row->state = BENCH_REFUSED;
            snprintf(row->note, sizeof row->note, "%s", chain.refused);
            continue;
        }
        TRY(go_on(b));
        TRY(try_chain(b, c));
        if (row->state != BENCH_WRONG) b->n++;
    }
    return status_ok();
}

static void add_peers(struct bench *b, const struct bench_shape *shape) {
    const int n = bench_peers_shape(&b->peers, shape, b->peer);
    for (int i = 0; i < n && b->n < MAX_CONTESTANTS; i++) {
        struct contestant *const c = add(b, shape, b->peer[i].name);
        struct bench_row *const row = row_of(b, c);
        c->peer = b->peer[i].name;
        row->peer = true;
        row->state = b->peer[i].refused[0] ? BENCH_REFUSED : BENCH_TIMED;
        snprintf(row->note, sizeof row->note, "%s", b->peer[i].refused);
        b->n += row->state == BENCH_TIMED;
    }
}

static struct status do_shape(struct bench *b, const struct bench_shape *shape) {
    b->n = 0;
    TRY(add_chains(b, shape, false));
    if (b->n) add_peers(b, shape); /* of nobody, they are not asked for */
    TRY(time_all(b));
    for (int i = 0; i < b->n; i++)
        if (b->one[i].chain.n && !b->one[i].lost) TRY(look_again(b, &b->one[i]));
    return status_ok();
}

/* What came out before an error is shown, too. */
static struct status time_shape(struct bench *b, const struct bench_shape *shape) {
    const int64_t first = b->result->n_rows;
    struct status s = do_shape(b, shape);
    char line[BENCH_LINE];
    if (s.code == STATUS_ERROR) {
        bench_shape_print(shape, line);
        s = status_error("%s: %.300s", line, s.message);
    }
    snprintf(b->result->peers, sizeof b->result->peers, "%s", b->peers.about);
    if (b->request->done) b->request->done(b->request->context, b->result, first);
    return s;
}

/* What the device can do at all: a copy of memory, and a large product. */
static struct status time_gauges(struct bench *b) {
    const struct bench_shape dense = bench_dense_gauge(b->request->device);
    b->n = 0;
    TRY(add_chains(b, &dense, true));
    const struct contestant *const copy = add(b, &dense, device_timer_copier(b->timer));
    struct bench_row *const row = row_of(b, copy);
    const double bytes = (double)device_timer_copy_bytes(b->timer);
    row->gauge = true;
    row->bytes = 2 * bytes;
    row->flops = 0;
    snprintf(row->shape, sizeof row->shape, "copy:bytes=%.0f", bytes);
    b->n++;
    TRY(time_all(b));
    if (b->request->done) b->request->done(b->request->context, b->result, 0);
    return status_ok();
}

static struct status open_bench(struct bench *b, enum device_kind device) {
    snprintf(b->result->version, sizeof b->result->version, "%s", SHARDCHECK_VERSION);
    TRY(device_open(device, &b->device));
    TRY(device_timer_open(b->device, &b->timer));
    snprintf(b->result->device, sizeof b->result->device, "%s", device_label(b->device));
    device_timer_describe(b->timer, b->result->speed, sizeof b->result->speed);
    return status_ok();
}

static void close_bench(struct bench *b) {
    bench_peers_stop(&b->peers);
    bench_operands_free(&b->operands);
    device_timer_close(b->timer);
    device_close(b->device);
    free(b);
}

struct status bench_identify(enum device_kind device, struct bench_result *out) {
    *out = (struct bench_result){0};
    struct bench *const b = memory_zeroed(1, sizeof *b);
    b->result = out;
    const struct status s = open_bench(b, device);
    close_bench(b);
    return s;
}

struct status bench_run(const struct bench_request *request, struct bench_result *out) {
    *out = (struct bench_result){0};
    struct bench *const b = memory_zeroed(1, sizeof *b);
    b->request = request;
    b->result = out;
    struct status s = open_bench(b, request->device);
    if (!s.code) {
        bench_peers_start(&b->peers, request->python, request->device);
        b->peers.asked = request->asked;
        snprintf(out->peers, sizeof out->peers, "%s", b->peers.about);
        s = time_gauges(b);
    }
    for (int i = 0; i < request->n_shapes && !s.code; i++) s = time_shape(b, &request->shape[i]);
    close_bench(b);
    return s;
}
