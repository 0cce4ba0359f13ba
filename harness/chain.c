/* Do the stages, one after the other on every rank, make the layer that a stranger would write
 * down? */
/* SPDX-License-Identifier: MIT */
#include "harness/chain.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/answer_seat.h"
#include "harness/inputs.h"
#include "reference/plain.h"

/* The largest share of a row's largest value that rounding in double may explain; more says that
 * the radii are of no use. */
#define LOOSE 1e-6
enum { POSITIONS = 64 }; /* below which contract_f64 knows the rope table */

struct chain {
    struct layer_spec spec; /* the twin's */
    struct fill fill;
    struct batch batch;
    struct store whole; /* inputs, weights, indices, as a crew of one has them */
    struct plain_sequence *seq;
};

/* ---- the twin ---- */

/* The usual cuts, 1, 2, 4 and 8, have one twin: what a case says does not depend on those beside
 * it. */
static int64_t small_width(int64_t width, int64_t cut) {
    enum { USUAL = 8 };
    int64_t n = cut;
    while (n % USUAL) n += cut;
    return width % n ? width : n;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static void make_twin(struct layer_spec *spec, const struct check_case *c) {
    enum { HIDDEN = 24, HEAD_DIM = 16, LEAST_ROTATION = 4 };
    struct check_case small = case_defaults();
    small.hidden = smaller(spec->hidden, HIDDEN);
    small.dim = smaller(spec->head_dim, HEAD_DIM);
    if (spec->moe) small.width = small_width(spec->expert_width, c->tp / c->ep);
    if (spec->shared_width) small.shared = small_width(spec->shared_width, c->tp);
    const int64_t rotation = smaller(spec->rot_dim, LEAST_ROTATION); /* two angles, or theta is lost */
    case_override(spec, &small);
    if (spec->rot_dim < rotation) spec->rot_dim = rotation;
}

/* Two sequences, or five in decode; keys from two pages. */
static void make_batch(struct chain *chain, const struct check_case *of) {
    struct check_case c = case_defaults();
    c.phase = of->phase;
    c.seed = of->seed;
    c.tokens = of->phase == PHASE_PREFILL ? 19 : 5;
    c.cached = of->phase == PHASE_PREFILL ? 0 : 19;
    c.seqs = of->phase == PHASE_DECODE ? 1 : 2;
    batch_build(&chain->batch, &c, &chain->fill);
    assert(chain->batch.n_positions <= POSITIONS);
    chain->seq = memory_zeroed((size_t)chain->batch.n_seqs, sizeof *chain->seq);
    for (int64_t b = 0; b < chain->batch.n_seqs; b++) {
        const int64_t n = chain->batch.query_start[b + 1] - chain->batch.query_start[b];
        chain->seq[b] = (struct plain_sequence){n, chain->batch.kv_len[b] - n};
    }
}

static void chain_open(struct chain *chain, const struct layer_spec *spec, int64_t layer,
                       const struct check_case *c) {
    *chain = (struct chain){.spec = *spec};
    make_twin(&chain->spec, c);
    chain->fill = (struct fill){.kind = FILL_RANDOM, .seed = c->seed, .layer = layer, .spec = &chain->spec};
    make_batch(chain, c);
    struct crew whole = {.storage = DTYPE_F64, .whole = &chain->whole, .own = &chain->whole};
    crew_open(&whole, &chain->spec, c->part, &chain->batch, 1, 1);
    for (int stage = 0; stage < S_COUNT; stage++)
        if (stage_applies(stage, c->part, &chain->spec)) inputs_fill(&whole, &chain->fill, stage);
    if (c->part == PART_ATTENTION) inputs_caches(&whole, &chain->fill);
}

static void chain_close(struct chain *chain) {
    store_free(&chain->whole);
    batch_free(&chain->batch);
    free(chain->seq);
}

/* ---- the layer as plain.c takes it ---- */

static double *values(const struct chain *chain, enum tensor_id id) {
    return chain->whole.of[id].memory.data;
}

/* Block `b` of `n` of every one of `outer` pieces, each n blocks of `size`: gates or ups of the
 * experts. */
static double *every_nth(const double *from, int64_t outer, int b, int n, int64_t size) {
    double *const block = memory_zeroed((size_t)(outer * size), sizeof *block);
    for (int64_t o = 0; o < outer; o++)
        memcpy(block + o * size, from + (o * n + b) * size, (size_t)size * sizeof *block);
    return block;
}

/* Cached keys or values, [C, G, D], sequence by sequence. */
static double *cached_rows(const struct chain *chain, enum tensor_id cache) {
    const int64_t row = chain->spec.n_kv_heads * chain->spec.head_dim;
    int64_t n = 0;
    double *const rows =
        memory_zeroed((size_t)(chain->batch.n_seqs * chain->batch.max_cached * row), sizeof *rows);
    for (int64_t b = 0; b < chain->batch.n_seqs; b++)
        for (int64_t j = 0; j < chain->seq[b].n_cached; j++)
            memcpy(rows + n++ * row, values(chain, cache) + batch_slot(&chain->batch, b, j) * row,
                   (size_t)row * sizeof *rows);
    return rows;
}

enum { MAX_CUTS = 4 };

static void give_attention(const struct chain *chain, struct plain_layer *l, double *cut[MAX_CUTS]) {
    const struct layer_spec *const s = &chain->spec;
    const int64_t q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    const double *const b = values(chain, T_B_QKV);
    l->cached_k = cut[0] = cached_rows(chain, T_K_CACHE);
    l->cached_v = cut[1] = cached_rows(chain, T_V_CACHE);
    l->w_q = values(chain, T_W_QKV);
    l->w_k = l->w_q + q * s->hidden;
    l->w_v = l->w_k + kv * s->hidden;
    if (b) l->b_q = b, l->b_k = b + q, l->b_v = b + q + kv;
    l->q_norm_w = values(chain, T_Q_NORM_W);
    l->k_norm_w = values(chain, T_K_NORM_W);
    l->w_o = values(chain, T_W_O);
    l->b_o = values(chain, T_B_O);
}

static void give_ffn(const struct chain *chain, struct plain_layer *l, double *cut[MAX_CUTS]) {
    const struct layer_spec *const s = &chain->spec;
    const int64_t expert = s->expert_width * s->hidden, shared = s->shared_width * s->hidden;
    l->router_w = values(chain, T_W_ROUTER);
    l->select_bias = values(chain, T_SELECT_BIAS);
    l->w_down = values(chain, T_W_DOWN);
    if (s->moe) {
        l->w_gate = cut[0] = every_nth(values(chain, T_W_GATE_UP), s->n_experts, 0, 2, expert);
        l->w_up = cut[1] = every_nth(values(chain, T_W_GATE_UP), s->n_experts, 1, 2, expert);
    }
    l->shared_gate = values(chain, T_W_SHARED_GATE_UP);
    if (shared) l->shared_up = l->shared_gate + shared;
    l->shared_down = values(chain, T_W_SHARED_DOWN);
}

/* With a mistake of its own (NULL: none). */
static const char *compute_plain(const struct chain *chain, enum part part, const int32_t *ids,
                                 const struct mutant *mistake, double *y) {
    double *cut[MAX_CUTS] = {NULL};
    struct layer_spec spec = chain->spec;
    struct plain_layer l = {.spec = &spec,
                            .part = part,
                            .n_seqs = chain->batch.n_seqs,
                            .seq = chain->seq,
                            .x = values(chain, T_X),
                            .norm_w = values(chain, T_NORM_W),
                            .tie_ids = ids};
    (part == PART_ATTENTION ? give_attention : give_ffn)(chain, &l, cut);
    if (mistake) mistake->hooks.plain(&l, &spec);
    const char *const unknown = plain_compute(&l, y);
    for (int i = 0; i < MAX_CUTS; i++) free(cut[i]);
    return unknown;
}

/* ---- the composition ---- */

struct composition {
    struct crew crew;
    struct store whole;         /* sums and indices; reads through to the chain's inputs */
    struct store *own, *radius; /* [tp] */
    struct store whole_radius;
    struct answer_seat seat;
};

/* The inputs are the chain's; their memory is not given away. */
static void borrow_inputs(struct store *into, const struct store *from) {
    for (int id = 0; id < T_COUNT; id++) into->of[id] = from->of[id];
}

static void keep_sum(struct composition *k, int stage, struct outcome *o) {
    const enum tensor_id id = stage_table[stage].out[0];
    store_move(&k->whole, &o->got, id);
    store_move(&k->whole_radius, &k->seat.moved, id);
}

static void compose_stage(struct composition *k, int stage) {
    const bool sum = stage_table[stage].op == OP_SUM;
    struct seat *const seat = &k->seat.seat;
    for (int rank = 0; rank < (sum ? 1 : k->crew.plan.tp); rank++) {
        const struct placed at = {&k->crew, stage, rank};
        struct outcome o = {.by = NULL};
        seat->prepare(seat, &at, &o);
        seat->fill(seat, &at, NULL, &o);
        if (sum) {
            keep_sum(k, stage, &o);
        } else {
            crew_keep(&k->crew, stage, rank, &o.got, true);
            for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++)
                store_move(&k->radius[rank], &k->seat.moved, *id);
        }
        outcome_free(&o);
    }
}

static void compose(struct composition *k, const struct chain *chain, const struct check_case *c,
                    const struct mutant *fault) {
    *k = (struct composition){.own = memory_zeroed((size_t)c->tp, sizeof *k->own),
                              .radius = memory_zeroed((size_t)c->tp, sizeof *k->radius)};
    k->crew = (struct crew){.storage = DTYPE_F64,
                            .whole = &k->whole,
                            .own = k->own,
                            .radius = k->radius,
                            .whole_radius = &k->whole_radius,
                            .fault = fault};
    answer_seat_open(&k->seat, contract_f64);
    borrow_inputs(&k->whole, &chain->whole);
    crew_open(&k->crew, &chain->spec, c->part, &chain->batch, c->tp, c->ep);
    if (c->part == PART_ATTENTION) crew_indices(&k->crew, DTYPE_F64);
    for (int stage = 0; stage < S_COUNT; stage++)
        if (stage_applies(stage, c->part, &chain->spec)) compose_stage(k, stage);
}

static void composition_free(struct composition *k, const struct chain *chain) {
    for (int64_t r = 0; r < k->crew.plan.tp; r++) store_free(&k->own[r]), store_free(&k->radius[r]);
    free(k->own), free(k->radius);
    for (int id = 0; id < T_COUNT; id++)
        if (k->whole.of[id].memory.data == chain->whole.of[id].memory.data)
            k->whole.of[id] = (struct stored){0};
    store_free(&k->whole);
    store_free(&k->whole_radius);
    answer_seat_close(&k->seat);
}

/* ---- the verdict ---- */

/* Both lie within the radius of the truth, so they are at most two radii apart. */
static void compare_rank(const struct composition *k, int stage, int rank, const double *plain,
                         struct edge_result *edge, struct findings *findings) {
    const struct placed at = {&k->crew, stage, rank};
    const int64_t count = placed_count(&at, T_Y), width = k->crew.spec.hidden;
    const double *const y = k->own[rank].of[T_Y].memory.data, *const radius =
                                                                  k->radius[rank].of[T_Y].memory.data;
    double *const slack = memory_zeroed((size_t)count, sizeof *slack);
    bool loose = false;
    for (int64_t i = 0; i < count; i++) {
        double largest = 0;
        for (int64_t m = 0; m < width; m++) largest = fmax(largest, fabs(plain[i / width * width + m]));
        slack[i] = radius[i] >= 0 ? 2 * radius[i] : INFINITY; /* NaN: nothing is known */
        loose |= !(slack[i] <= LOOSE * largest);
    }
    const struct judged j = {.stage = stage, .id = T_Y, .plan = &k->crew.plan, .rank = rank, .count = count};
    judge_chain(&j, y, plain, slack, edge, findings);
    if (loose && edge->state != EDGE_FAIL) edge->state = EDGE_LOOSE;
    free(slack);
}

static int last_stage(enum part part) {
    int last = 0;
    for (int s = 0; s < S_COUNT; s++)
        if (stage_table[s].part == part) last = s;
    return last;
}

static void compare(const struct composition *k, const double *plain, struct edge_result *edge,
                    struct findings *findings) {
    for (int rank = 0; rank < k->crew.plan.tp; rank++)
        compare_rank(k, last_stage(k->crew.part), rank, plain, edge, findings);
}

/* The composition is wrong, and there is no right one to seed a mistake into; plain.c can make it. A
 * mistake with which the two agree in every element, on every rank, is named. */
static void explain_chain(const struct composition *k, const struct chain *chain, double *y, char *likely,
                          size_t size) {
    const struct mutant *m;
    for (int i = 0; (m = mutant_at(i)) && !likely[0]; i++) {
        struct edge_result edge = {0};
        struct findings findings;
        if (!m->hooks.plain || m->part != k->crew.part) continue;
        findings_init(&findings);
        if (compute_plain(chain, m->part, k->own[0].of[T_IDS].memory.data, m, y)) continue;
        compare(k, y, &edge, &findings);
        if (edge.state == EDGE_OK)
            snprintf(likely, size,
                     "%s (%s): %s; plain.c with this mistake gives what the stages do, every element "
                     "(margin %.2f)",
                     m->name, m->source, m->describes, edge.margin);
    }
}

const char *chain_edge(const struct layer_spec *spec, int64_t layer, const struct check_case *c,
                       const struct mutant *fault, struct edge_result *edge, struct findings *findings,
                       char *likely, size_t size) {
    struct chain chain;
    struct composition k;
    chain_open(&chain, spec, layer, c);
    compose(&k, &chain, c, fault);
    double *const y = memory_zeroed((size_t)(chain.batch.n_tokens * chain.spec.hidden), sizeof *y);
    const char *const unknown = compute_plain(&chain, c->part, k.own[0].of[T_IDS].memory.data, NULL, y);
    likely[0] = 0;
    if (!unknown) compare(&k, y, edge, findings);
    if (edge->state == EDGE_FAIL) explain_chain(&k, &chain, y, likely, size);
    free(y);
    composition_free(&k, &chain);
    chain_close(&chain);
    return unknown;
}
