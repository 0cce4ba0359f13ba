/* SPDX-License-Identifier: MIT */
#include "harness/oracle.h"

#include <stdlib.h>
#include <string.h>

struct oracle {
    const struct fixture *fixture;
    const struct trunk *trunk;
    struct shard_plan plan;
    struct store store; /* all real tensors as fp64 */
    enum dtype stored;  /* what the file's producer rounded activations to; fp64: it did not */
    bool computed
        [T_COUNT]; /* the file did not bring this version: its producer's roundings are missing in ours */
    struct edge_result *edges; /* [S_COUNT] */
    struct findings *findings;
};

static bool is_integer(enum tensor_id id) { return tensor_table[id].dtype == DTYPE_I32; }

static double *values(struct oracle *o, enum tensor_id id) { return o->store.of[id].memory.data; }

static struct status read_tensor(struct oracle *o, enum tensor_id id, double *dst, int64_t count,
                                 bool *found) {
    return fixture_read(o->fixture, o->trunk->layer, o->trunk->c.part, id, count, dst, found);
}

/* Inputs of the stage that no stage makes. */
static struct status load_inputs(struct oracle *o, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
        const enum tensor_role role = tensor_table[*id].role;
        if ((role != ROLE_INPUT && role != ROLE_WEIGHT) || !tensor_present(*id, &o->trunk->spec) ||
            o->store.of[*id].count)
            continue;
        const int64_t count = slice_count(&o->plan, *id, -1);
        bool found;
        TRY(read_tensor(o, *id, store_renew(&o->store, *id, DTYPE_F64, count), count, &found));
        if (!found)
            return status_error(
                "%s: layer %lld has no %s; the file must bring the layer's input and every weight",
                fixture_model(o->fixture)->name, (long long)o->trunk->layer, tensor_table[*id].name);
    }
    return status_ok();
}

static struct view operand(struct oracle *o, enum tensor_id id) {
    if (tensor_table[id].role == ROLE_INDEX && id != T_ROPE_TABLE) {
        const struct batch *const b = &o->trunk->batch;
        int64_t count;
        void *const data = (void *)(uintptr_t)batch_tensor(b, id, &count);
        return (struct view){.data = data, .dtype = DTYPE_I32, .stride = {b->max_pages}, .hi = count};
    }
    const struct stored *const s = &o->store.of[id];
    struct view v = view_dense(&o->plan, id, 0, s->memory.data, s->dtype);
    v.hi = s->count;
    return v;
}

static void renew_outputs(struct oracle *o, int stage, struct store *fresh) {
    for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++) {
        if (seat_in_place(*id)) continue;
        const int64_t count = slice_count(&o->plan, *id, 0) + (*id == T_OFFSETS);
        store_renew(fresh, *id, is_integer(*id) ? DTYPE_I32 : DTYPE_F64, count);
    }
}

static struct call bind(struct oracle *o, int stage, struct store *fresh) {
    const struct stage_row *const row = &stage_table[stage];
    struct operands operands = {0};
    struct call call;
    for (const enum tensor_id *id = row->in; *id != T_NONE; id++)
        if (tensor_present(*id, &o->trunk->spec)) operands.in[*id] = operand(o, *id);
    for (const enum tensor_id *id = row->out; *id != T_NONE; id++) {
        const struct stored *const s = seat_in_place(*id) ? &o->store.of[*id] : &fresh->of[*id];
        operands.out[*id] = view_dense(&o->plan, *id, 0, s->memory.data, s->dtype);
        operands.out[*id].hi = s->count;
    }
    call_bind(&call, row, &o->trunk->spec, &o->plan, 0, &o->trunk->batch, &operands);
    return call;
}

static struct call bind_sum(struct oracle *o, int stage, struct store *fresh) {
    void *parts[2];
    int64_t n = 0;
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (tensor_present(*id, &o->trunk->spec)) parts[n++] = values(o, *id);
    struct call call = trunk_sum_call(o->trunk, parts, n, fresh->of[stage_table[stage].out[0]].memory.data);
    for (int64_t i = 0; i < n; i++) call.u.sum.part[i].dtype = DTYPE_F64;
    call.u.sum.out.dtype = DTYPE_F64;
    return call;
}

/* GLM-4-MoE and its kin compute router logits in float32 whatever the model's dtype. */
static bool router_in_float32(const struct oracle *o) {
    const char *const type = fixture_model(o->fixture)->model_type;
    return !strcmp(type, "glm4_moe") || !strcmp(type, "param2moe");
}

/* A file with a storage dtype came from fp32 kernels, whose softmax tiles are at least SMALLEST_TILE keys. */
static struct contract stage_contract(const struct oracle *o, int stage) {
    enum { SMALLEST_TILE = 16 };
    if (o->stored != DTYPE_F64) {
        struct contract c = contract_exact(stage_table[stage].op);
        if (c.op == OP_ATTENTION) c.u.attention.block = SMALLEST_TILE;
        return c;
    }
    if (stage == S_ROUTER && router_in_float32(o)) return contract_hf64_router();
    return contract_hf64(stage_table[stage].op);
}

/* q and k have one version in a file: a model's hooks see them before rope, a dump holds the last one. */
static bool is_in_file(const struct oracle *o, int stage, enum tensor_id id) {
    if (id != T_Q && id != T_K) return true;
    return stage == (o->stored != DTYPE_F64 && o->trunk->spec.rot_dim > 0 ? S_ROPE : S_QK_NORM);
}

/* As stored by whoever wrote the file: one more rounding that the acceptance set allows for. */
static enum dtype file_dtype(const struct oracle *o, int stage, enum tensor_id id) {
    if (o->stored != DTYPE_F64) return store_dtype(id, o->stored);
    return stage == S_ROUTER && router_in_float32(o) ? DTYPE_F32 : DTYPE_F64;
}

/* What was rounded on the way to a stage that the file does not show, nobody can judge the stage by. */
static bool is_judgeable(const struct oracle *o, int stage) {
    if (o->stored == DTYPE_F64) return true;
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++)
        if (o->computed[*id] && tensor_table[*id].role != ROLE_LOCAL) return false;
    return true;
}

/* Judge the file's version of a tensor, and go on from it. */
static struct status judge_file(struct oracle *o, int stage, const struct answer *a, int i, double *y) {
    const enum tensor_id id = a->id[i];
    bool found = false;
    o->computed[id] = true;
    if (!is_in_file(o, stage, id)) return status_ok();
    double *const file = memory_zeroed((size_t)a->count[i], sizeof *file);
    const struct status s = read_tensor(o, id, file, a->count[i], &found);
    if (!s.code && found) {
        const enum dtype dtype = file_dtype(o, stage, id);
        void *const got = memory_zeroed((size_t)a->count[i], dtype_bytes(dtype));
        for (int64_t n = 0; n < a->count[i]; n++) dtype_store(got, dtype, n, file[n]);
        const struct judged j = {.stage = stage,
                                 .id = id,
                                 .plan = &o->plan,
                                 .trunk = true,
                                 .dtype = dtype,
                                 .got = got,
                                 .y = a->y[i],
                                 .e = a->e[i],
                                 .count = a->count[i]};
        if (is_judgeable(o, stage)) judge_set(&j, &o->edges[stage], o->findings);
        free(got);
        memcpy(y, file, (size_t)a->count[i] * sizeof *file);
    }
    o->computed[id] = !found;
    free(file);
    return s;
}

/* The file's own choice of experts, where it tells: judged as sets, and the one to go on with. */
static struct status choose_experts(struct oracle *o, const struct call *call,
                                    const struct contract *contract) {
    const struct route_args *const a = &call->u.route;
    const int64_t count = a->n_tokens * a->top_k;
    bool found = false;
    ref_route_ids(call, 0, a->n_tokens, a->ids.data);
    double *const file = memory_zeroed((size_t)count, sizeof *file);
    const struct status s = read_tensor(o, T_IDS, file, count, &found);
    if (!s.code && found) {
        for (int64_t i = 0; i < count; i++) dtype_store(a->ids.data, DTYPE_I32, i, file[i]);
        const struct judged j = {.stage = S_ROUTE,
                                 .id = T_IDS,
                                 .plan = &o->plan,
                                 .trunk = true,
                                 .dtype = DTYPE_I32,
                                 .got = a->ids.data,
                                 .count = count};
        judge_route(&j, call, contract, &o->edges[S_ROUTE], o->findings);
    }
    free(file);
    return s;
}

static void write_caches(struct oracle *o, const struct answer *a) {
    for (int i = 0; i < 2; i++)
        for (int64_t t = 0; t < o->trunk->batch.n_tokens; t++)
            memcpy(values(o, i ? T_V_CACHE : T_K_CACHE) + (int64_t)o->trunk->batch.slots[t] * a->row_size[i],
                   a->y[i] + t * a->row_size[i], (size_t)a->row_size[i] * sizeof(double));
}

static void split_qkv(struct oracle *o) {
    const struct layer_spec *const spec = &o->trunk->spec;
    const int64_t rows = o->trunk->batch.n_tokens, q = spec->n_heads * spec->head_dim;
    const int64_t kv = spec->n_kv_heads * spec->head_dim, width[3] = {q, kv, kv};
    for (int64_t i = 0, column = 0; i < 3; column += width[i++]) {
        double *const part = store_renew(&o->store, (enum tensor_id)(T_Q + i), DTYPE_F64, rows * width[i]);
        o->computed[T_Q + i] = o->computed[T_QKV];
        for (int64_t r = 0; r < rows; r++)
            memcpy(part + r * width[i], values(o, T_QKV) + r * (q + 2 * kv) + column,
                   (size_t)width[i] * sizeof *part);
    }
}

static void count_rows(struct oracle *o, const int32_t *ids, int64_t n) {
    const int64_t n_experts = o->trunk->spec.n_experts;
    int32_t *const offsets = memory_zeroed((size_t)n_experts + 1, sizeof *offsets);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < n_experts) offsets[ids[i] + 1]++;
    for (int64_t e = 0; e < n_experts; e++) offsets[e + 1] += offsets[e];
    plan_set_rows(&o->plan, offsets);
    free(offsets);
}

static struct status run_stage(struct oracle *o, int stage) {
    struct store fresh = {0};
    struct answer a;
    TRY(load_inputs(o, stage));
    renew_outputs(o, stage, &fresh);
    const bool sum = stage_table[stage].op == OP_SUM;
    const struct call call = sum ? bind_sum(o, stage, &fresh) : bind(o, stage, &fresh);
    const struct contract contract = stage_contract(o, stage);
    if (call.op == OP_ROUTE) TRY(choose_experts(o, &call, &contract));
    if (call.op == OP_PERMUTE)
        ref_permute(&call, call.u.permute.offsets.data, call.u.permute.row_slot.data,
                    call.u.permute.slot_row.data);
    answer_compute(&a, stage, &call, &contract);
    struct status s = status_ok();
    if (call.op == OP_KV_WRITE) {
        write_caches(o, &a);
        o->computed[T_K_CACHE] = o->computed[T_K];
        o->computed[T_V_CACHE] = o->computed[T_V];
    } else {
        for (int i = 0; i < a.n && !s.code; i++) {
            double *const y = fresh.of[a.id[i]].memory.data;
            memcpy(y, a.y[i], (size_t)a.count[i] * sizeof *y);
            s = judge_file(o, stage, &a, i, y);
        }
        for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++) {
            store_drop(&o->store, *id);
            o->store.of[*id] = fresh.of[*id];
        }
    }
    answer_free(&a);
    if (stage == S_QKV_PROJ) split_qkv(o);
    if (stage == S_ROUTE)
        count_rows(o, (const int32_t *)o->store.of[T_IDS].memory.data, o->store.of[T_IDS].count);
    return s;
}

static void prepare(struct oracle *o) {
    const struct layer_spec *const spec = &o->trunk->spec;
    o->plan = o->trunk->plan;
    if (o->trunk->c.part != PART_ATTENTION) return;
    for (enum tensor_id id = T_K_CACHE; id <= T_V_CACHE; id++) {
        const int64_t count = slice_count(&o->plan, id, -1);
        dtype_poison(store_renew(&o->store, id, DTYPE_F64, count), DTYPE_F64, count);
    }
    if (spec->rot_dim > 0)
        ref_rope_table(
            store_renew(&o->store, T_ROPE_TABLE, DTYPE_F32, o->trunk->batch.n_positions * spec->rot_dim),
            o->trunk->batch.n_positions, spec->rot_dim, spec->rope_theta);
}

struct status oracle_edge_run(const struct fixture *fixture, const struct trunk *trunk,
                              struct edge_result edges[S_COUNT], struct findings *findings) {
    struct oracle o = {.fixture = fixture,
                       .trunk = trunk,
                       .edges = edges,
                       .findings = findings,
                       .stored = fixture_stored_dtype(fixture)};
    struct status s = status_ok();
    prepare(&o);
    for (int stage = 0; stage < S_COUNT && !s.code; stage++)
        if (stage_applies(stage, trunk->c.part, &trunk->spec)) s = run_stage(&o, stage);
    store_free(&o.store);
    return s;
}
