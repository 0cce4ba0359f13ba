/* Does the reference agree with somebody else's numbers? A file in the seat: what it brings is
 * judged and goes on from there; what it does not show the reference puts in its place. */
/* SPDX-License-Identifier: MIT */
#include "harness/oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/answer_seat.h"
#include "harness/oracle_ranks.h"
#include "harness/sharpness.h"
#include "harness/stage.h"

struct oracle {
    const struct fixture *fixture;
    const struct trunk *trunk;
    struct store store;  /* all real tensors as fp64 */
    struct store radius; /* how far the file's producer may be from what the reference put there */
    struct crew crew;    /* of one rank, which owns it */
    struct desk desk;
    struct oracle_ranks ranks; /* of a file that brings them */
    enum dtype stored;         /* what the file's producer rounded activations to; fp64: it did not */
    bool computed
        [T_COUNT]; /* the file did not bring this version: its producer's roundings are missing in ours */
    bool doubtful[T_COUNT];    /* follows from a choice of experts that the producer may not have made */
    struct edge_result *edges; /* [S_COUNT] */
    struct findings *findings;
    struct oracle_listener *listener; /* NULL: nobody */
};

static struct status read_tensor(struct oracle *o, enum tensor_id id, double *dst, int64_t count,
                                 bool *found) {
    return fixture_read(o->fixture, o->trunk->layer, o->crew.part, id, count, dst, found);
}

/* Inputs of the stage that no stage makes. */
static struct status load_inputs(struct oracle *o, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
        if (!crew_lacks(&o->crew, *id)) continue;
        const int64_t count = slice_count(&o->crew.plan, *id, -1);
        bool found;
        TRY(read_tensor(o, *id, store_renew(&o->store, *id, DTYPE_F64, count), count, &found));
        if (!found)
            return status_error(
                "%s: layer %lld has no %s; the file must bring the layer's input and every weight",
                fixture_model(o->fixture)->name, (long long)o->trunk->layer, tensor_table[*id].name);
    }
    return status_ok();
}

/* What hf64's constants depend on: positions, and the logits that gates came from. */
static struct contract hf64_contract(const struct oracle *o, int stage) {
    const struct stored *const logits = &o->store.of[T_LOGITS];
    const struct layer_spec *const spec = &o->crew.spec;
    struct hf64_range range = {.n_positions = o->trunk->batch.n_positions, .top_k = spec->top_k};
    for (int64_t i = 0; i < logits->count; i++)
        range.logit = fmax(range.logit, fabs(dtype_load(logits->memory.data, DTYPE_F64, i)));
    range.span = 2 * range.logit;
    range.n_experts = spec->renormalise ? 0 : spec->n_experts;
    struct contract c = contract_hf64_of(stage_table[stage].op, &range);
    if (c.op == OP_ATTENTION) c.u.attention.score_norm_error = 0; /* the radii of q and k have it */
    return c;
}

/* A file with a storage dtype came from fp32 kernels, whose softmax tiles are at least
 * SMALLEST_TILE keys. */
static struct contract stage_contract(const struct oracle *o, int stage) {
    enum { SMALLEST_TILE = 16 };
    if (o->stored != DTYPE_F64) {
        struct contract c = contract_exact(stage_table[stage].op);
        if (c.op == OP_ATTENTION) c.u.attention.block = SMALLEST_TILE;
        return c;
    }
    if (stage == S_ROUTER && fixture_model(o->fixture)->router_fp32) return contract_hf64_router();
    return hf64_contract(o, stage);
}

/* q and k have one version in a file: a model's hooks see them before rope, a dump holds the last
 * one. */
static bool is_in_file(const struct oracle *o, int stage, enum tensor_id id) {
    if (id != T_Q && id != T_K) return true;
    return stage == (o->stored != DTYPE_F64 && o->crew.spec.rot_dim > 0 ? S_ROPE : S_QK_NORM);
}

/* As stored by whoever wrote the file: one more rounding that the acceptance set allows for. */
static enum dtype file_dtype(const struct oracle *o, int stage, enum tensor_id id) {
    if (o->stored != DTYPE_F64) return tensor_dtype(id, o->stored);
    return stage == S_ROUTER && fixture_model(o->fixture)->router_fp32 ? DTYPE_F32 : DTYPE_F64;
}

static bool reads_doubtful(const struct oracle *o, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (o->doubtful[*id]) return true;
    return false;
}

/* What was rounded on the way to a stage that the file does not show, or follows from another choice
 * of experts, nobody can judge the stage by. */
static bool is_judgeable(const struct oracle *o, int stage) {
    if (reads_doubtful(o, stage) || (stage_table[stage].op == OP_ROUTE && o->doubtful[T_IDS])) return false;
    if (o->stored == DTYPE_F64) return true;
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (o->computed[*id] && tensor_table[*id].role != ROLE_LOCAL) return false;
    return true;
}

/* ---- one stage ---- */

/* A fused stage counts as the last step that it stands for, which makes the same tensor. */
static struct edge_result *edge_of(const struct oracle *o, int stage) {
    return &o->edges[stage + stage_table[stage].fuses];
}

/* The file's version of one output, judged, and gone on from: `kept` holds what the reference
 * computed. */
static struct status seat_file(struct oracle *o, const struct placed *at, const struct answer *a, int i,
                               double *kept) {
    const enum tensor_id id = a->id[i];
    bool found = false;
    o->computed[id] = placed_row(at)->op != OP_SPLIT || o->computed[placed_row(at)->in[0]];
    if (!is_in_file(o, at->stage, id)) return status_ok();
    double *const file = memory_zeroed((size_t)a->count[i], sizeof *file);
    const struct status s = read_tensor(o, id, file, a->count[i], &found);
    if (!s.code && found) {
        const enum dtype dtype = file_dtype(o, at->stage, id);
        void *const got = store_rounded(file, a->count[i], dtype);
        struct judged j = placed_judged(at, id, got, a->count[i]);
        j.dtype = dtype;
        j.y = a->y[i];
        j.e = a->e[i];
        if (is_judgeable(o, at->stage)) {
            const struct answer one = {.n = 1, .y = {a->y[i]}, .e = {a->e[i]}, .count = {j.count}};
            const struct sharpness sharpness = sharpness_of(&one);
            judge_set(&j, edge_of(o, at->stage), o->findings);
            sharpness_record(&sharpness, edge_of(o, at->stage));
            if (o->listener) o->listener->judged(o->listener, at->stage, id, file, a->e[i], a->count[i]);
        }
        free(got);
        memcpy(kept, file, (size_t)a->count[i] * sizeof *file);
    }
    o->computed[id] &= !found;
    o->doubtful[id] = !found && (reads_doubtful(o, at->stage) || (id == T_GATES && o->doubtful[T_IDS]));
    if (found) store_drop(&o->radius, id);
    free(file);
    return s;
}

/* May the producer's roundings have made another choice than the reference's? A score that is no
 * number leaves nothing open: it is wrong. */
static bool is_open_choice(const struct outcome *outcome) {
    const struct route_args *const a = &outcome->call.u.route;
    const size_t n = (size_t)(a->n_tokens * a->n_experts);
    double *const lo = memory_zeroed(n, sizeof *lo), *const hi = memory_zeroed(n, sizeof *hi);
    int32_t *const ids = memory_zeroed((size_t)a->top_k, sizeof *ids);
    bool open = false;
    ref_route_choices(&outcome->call, &outcome->contract, outcome->fuzzy ? outcome->radius : NULL, 0,
                      a->n_tokens, lo, hi);
    for (int64_t t = 0; t < a->n_tokens && !open; t++) {
        ref_route_ids(&outcome->call, t, t + 1, ids);
        open = ref_route_judge(a, &outcome->contract.u.route, lo + t * a->n_experts, hi + t * a->n_experts,
                               ids) == ROUTE_AMBIGUOUS;
    }
    free(lo), free(hi), free(ids);
    return open;
}

/* The file's own choice of experts, where it tells: judged as sets, and the one to go on with. */
static struct status seat_experts(struct oracle *o, const struct placed *at, const struct outcome *outcome) {
    const struct route_args *const a = &outcome->call.u.route;
    const int64_t count = a->n_tokens * a->top_k;
    bool found = false;
    double *const file = memory_zeroed((size_t)count, sizeof *file);
    const struct status s = read_tensor(o, placed_row(at)->out[0], file, count, &found);
    for (int64_t i = 0; i < count && found && !s.code; i++) dtype_store(a->ids.data, DTYPE_I32, i, file[i]);
    if (found && !s.code) judge_choice(at, outcome, (struct verdict){&o->edges[at->stage], o->findings});
    o->doubtful[T_IDS] = !found && is_open_choice(outcome);
    free(file);
    return s;
}

/* The caches were shown as far as the rows that moved into them. */
static void follow_rows(struct oracle *o, const struct placed *at) {
    for (int i = 0; placed_row(at)->out[i] != T_NONE; i++)
        o->computed[placed_row(at)->out[i]] = o->computed[placed_row(at)->in[i]];
}

/* Room for the radii of what is no integer; in place, a cache begins as exact. Integers are as
 * doubtful as what they follow from. */
static void renew_radii(struct oracle *o, const struct placed *at) {
    for (const enum tensor_id *id = placed_row(at)->out; *id != T_NONE; id++)
        if (tensor_table[*id].dtype != DTYPE_I32)
            store_renew(&o->radius, *id, DTYPE_F64, placed_count(at, *id));
        else if (placed_row(at)->op != OP_ROUTE)
            o->doubtful[*id] = reads_doubtful(o, at->stage);
}

/* Ranks of a file whose producer did not round are nobody's: only we write them. */
static struct status judge_ranks(struct oracle *o, int stage, const struct contract *contract) {
    const struct oracle_step step = {.stage = stage,
                                     .contract = *contract,
                                     .judgeable = is_judgeable(o, stage),
                                     .shows_qk = is_in_file(o, stage, T_Q),
                                     .stored = o->stored,
                                     .verdict = {edge_of(o, stage), o->findings}};
    return o->stored == DTYPE_F64 ? status_ok() : oracle_ranks_stage(&o->ranks, &step);
}

static struct status run_stage(struct oracle *o, int stage) {
    const struct placed at = {&o->crew, stage, 0};
    const struct op_row *const op = placed_op(&at);
    struct outcome outcome = {.by = "file"};
    struct answer a;
    TRY(load_inputs(o, stage));
    TRY(desk_prepare(&o->desk, &at, &outcome));
    outcome.contract = stage_contract(o, stage);
    if (op->choose) op->choose(&outcome.call);
    struct status s = status_ok();
    s = judge_ranks(o, stage, &outcome.contract);
    if (!s.code && outcome.call.op == OP_ROUTE) s = seat_experts(o, &at, &outcome);
    if (!s.code) answer_compute(&a, stage, &outcome, o->trunk->watch);
    if (!s.code) renew_radii(o, &at);
    for (int i = 0; !s.code && i < a.n; i++) {
        answer_spread(&at, &outcome.got, a.id[i], i, a.y[i], a.count[i]);
        answer_spread(&at, &o->radius, a.id[i], i, a.e[i], a.count[i]);
        if (!op->answers_inputs) s = seat_file(o, &at, &a, i, outcome.got.of[a.id[i]].memory.data);
    }
    if (!s.code) {
        if (op->answers_inputs) follow_rows(o, &at);
        answer_free(&a);
        crew_keep(&o->crew, stage, 0, &outcome.got, true);
    }
    outcome_free(&outcome);
    return s;
}

static void prepare(struct oracle *o) {
    const struct crew *const trunk = &o->trunk->crew;
    o->crew = (struct crew){
        .storage = DTYPE_F64, .whole = &o->store, .own = &o->store, .unsharded = true, .radius = &o->radius};
    crew_open(&o->crew, &trunk->spec, trunk->part, trunk->batch, 1, 1);
    if (trunk->part != PART_ATTENTION) return;
    for (enum tensor_id id = T_K_CACHE; id <= T_V_CACHE; id++) {
        const int64_t count = slice_count(&o->crew.plan, id, -1);
        dtype_poison(store_renew(&o->store, id, DTYPE_F64, count), DTYPE_F64, count);
    }
    crew_indices(&o->crew, DTYPE_F32);
}

/* A file of rounded values that shows what a fused kernel stored, and nothing between its steps. */
static bool is_fused(const struct oracle *o, int stage) {
    const struct stage_row *const row = &stage_table[stage];
    return row->fuses && o->stored != DTYPE_F64 && row->part == o->crew.part && row->present(&o->crew.spec) &&
           fixture_has(o->fixture, o->trunk->layer, o->crew.part, row->out[0]) &&
           !fixture_has(o->fixture, o->trunk->layer, o->crew.part, stage_table[stage + 1].out[0]);
}

struct status oracle_edge_run(const struct fixture *fixture, const struct trunk *trunk,
                              struct edge_result edges[S_COUNT], struct findings *findings,
                              struct oracle_listener *listener) {
    struct oracle o = {.fixture = fixture,
                       .trunk = trunk,
                       .edges = edges,
                       .findings = findings,
                       .listener = listener,
                       .stored = fixture_stored_dtype(fixture)};
    struct status s = status_ok();
    prepare(&o);
    s = oracle_ranks_open(&o.ranks, fixture, trunk, &o.store);
    for (int stage = 0; stage < S_COUNT && !s.code; stage++) {
        const bool fused = is_fused(&o, stage);
        if (!fused && !stage_applies(stage, trunk->c.part, &trunk->crew.spec)) continue;
        s = watch_step(trunk->watch, DOING_FILE, stage, -1, 0, fixture_model(fixture)->name);
        if (!s.code) s = run_stage(&o, stage);
        if (fused) stage += stage_table[stage].fuses;
    }
    oracle_ranks_close(&o.ranks);
    desk_free(&o.desk);
    store_free(&o.store);
    store_free(&o.radius);
    return s;
}
