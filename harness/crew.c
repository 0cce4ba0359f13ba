/* What does a rank hold when a stage begins? Its own tensors where it has stored them, a slice of
 * the whole ones otherwise; and the call that the stage is with these operands. */
/* SPDX-License-Identifier: MIT */
#include "harness/crew.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "reference/reference.h"
#include "layer/copy.h"

void crew_open(struct crew *crew, const struct layer_spec *spec, enum part part, const struct batch *batch,
               int64_t tp, int64_t ep) {
    crew->spec = *spec;
    crew->part = part;
    crew->batch = batch;
    if (crew->fault && crew->fault->hooks.spec) crew->fault->hooks.spec(&crew->spec);
    plan_build(&crew->plan, &crew->spec, tp, ep);
    if (crew->fault && crew->fault->hooks.plan) crew->fault->hooks.plan(&crew->plan, &crew->spec);
    batch_sizes(batch, crew->plan.size);
}

void crew_indices(struct crew *crew, enum dtype table_dtype) {
    for (enum tensor_id id = 0; id < T_COUNT; id++) {
        if (tensor_table[id].role != ROLE_INDEX || !tensor_present(id, &crew->spec)) continue;
        const int64_t count = slice_count(&crew->plan, id, -1);
        const int32_t *const made = batch_tensor(crew->batch, id);
        void *const data = store_renew(crew->whole, id, made ? DTYPE_I32 : table_dtype, count);
        if (made)
            memcpy(data, made, (size_t)count * sizeof *made);
        else
            ref_rope_table(data, table_dtype, crew->plan.size[AXIS_P], crew->spec.rot_dim, &crew->spec);
    }
}

bool crew_lacks(const struct crew *crew, enum tensor_id id) {
    const enum tensor_role role = tensor_table[id].role;
    return (role == ROLE_INPUT || role == ROLE_WEIGHT) && tensor_present(id, &crew->spec) &&
           !crew->whole->of[id].count;
}

void crew_count_rows(struct crew *crew, const int32_t *ids) {
    const int64_t n_experts = crew->spec.n_experts, n = crew->plan.size[AXIS_T] * crew->spec.top_k;
    int32_t *const offsets = memory_zeroed((size_t)n_experts + 1, sizeof *offsets);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < n_experts) offsets[ids[i] + 1]++;
    for (int64_t e = 0; e < n_experts; e++) offsets[e + 1] += offsets[e];
    plan_set_rows(&crew->plan, offsets);
    free(offsets);
}

/* ---- one stage of one rank ---- */

struct layer_spec placed_local(const struct placed *at) {
    return plan_local_spec(&at->crew->plan, &at->crew->spec, at->rank);
}

int64_t placed_count(const struct placed *at, enum tensor_id id) {
    return slice_count(&at->crew->plan, id, at->rank);
}

static const struct stored *source(const struct placed *at, enum tensor_id id) {
    const struct stored *const own = &at->crew->own[at->rank].of[id];
    return own->count ? own : &at->crew->whole->of[id];
}

enum dtype placed_dtype(const struct placed *at, enum tensor_id id) {
    const struct stored *const s = source(at, id);
    return s->count ? s->dtype : tensor_dtype(id, at->crew->storage);
}

void *placed_stored(const struct placed *at, enum tensor_id id) {
    const struct stored *const s = source(at, id);
    return s->count == placed_count(at, id) ? s->memory.data : NULL;
}

void placed_dense(const struct placed *at, enum tensor_id id, void *dst) {
    const struct stored *const s = source(at, id);
    const size_t size = dtype_bytes(s->dtype);
    if (!placed_count(at, id)) return;
    if (s->count == placed_count(at, id))
        copy_bytes(dst, s->memory.data, (size_t)s->count * size);
    else
        slice_copy(&at->crew->plan, id, at->rank, size, dst, s->memory.data);
}

/* The plan of a layer that is understood otherwise, for the same batch and the same routing. */
static void plan_understood(const struct crew *c, const struct layer_spec *spec, struct shard_plan *plan) {
    plan_build(plan, spec, c->plan.tp, c->plan.ep);
    batch_sizes(c->batch, plan->size);
    plan->size[AXIS_N] = c->plan.size[AXIS_N];
    for (int r = 0; r < plan->tp; r++) plan->rank[r][AXIS_N] = c->plan.rank[r][AXIS_N];
}

static bool bind(const struct placed *at, const struct mutant *mutant, const struct operands *operands,
                 struct call *call) {
    const struct crew *const c = at->crew;
    struct layer_spec spec = c->spec;
    struct shard_plan plan = c->plan;
    bool changed = mutant->hooks.spec && mutant->hooks.spec(&spec);
    if (changed) plan_understood(c, &spec, &plan);
    if (mutant->hooks.plan) changed |= mutant->hooks.plan(&plan, &spec);
    const struct layer_spec local = plan_local_spec(&plan, &spec, at->rank);
    call_bind(call, &(struct setting){at->stage, at->rank, &spec, &plan, c->batch}, operands);
    if (mutant->hooks.call) changed |= mutant->hooks.call(call, &spec, &local);
    return changed;
}

bool placed_bind(const struct placed *at, const struct mutant *mutant, const struct operands *operands,
                 struct call *call) {
    const struct crew *const c = at->crew;
    const struct mutant *const fault = c->fault;
    if (mutant) return bind(at, mutant, operands, call);
    call_bind(call, &(struct setting){at->stage, at->rank, &c->spec, &c->plan, c->batch}, operands);
    if (fault && fault->hooks.call) {
        const struct layer_spec local = placed_local(at);
        fault->hooks.call(call, &c->spec, &local);
    }
    return false;
}

int64_t placed_parts(const struct placed *at, struct view *parts, const double **radii) {
    const struct crew *const c = at->crew;
    int64_t n = 0;
    for (int rank = 0; rank < c->plan.tp; rank++)
        for (const enum tensor_id *id = placed_row(at)->in; *id != T_NONE; id++) {
            const struct stored *const s = &c->own[rank].of[*id];
            if (!tensor_present(*id, &c->spec)) continue;
            assert(s->count && n < MAX_PARTS);
            if (radii) radii[n] = c->radius ? c->radius[rank].of[*id].memory.data : NULL;
            parts[n++] = view_dense(&c->plan, *id, rank, s->memory.data, s->dtype);
        }
    if (c->fault && c->fault->hooks.sum) c->fault->hooks.sum(at, parts, &n);
    return n;
}

/* ---- after it ---- */

void crew_keep(struct crew *crew, int stage, int rank, struct store *got, bool all) {
    for (const enum tensor_id *id = stage_table[stage].out; *id != T_NONE; id++) {
        const enum tensor_role role = tensor_table[*id].role;
        if (!all && role != ROLE_LOCAL && role != ROLE_PARTIAL) continue;
        store_move(&crew->own[rank], got, *id);
    }
    if (all && stage_table[stage].op == OP_ROUTE)
        crew_count_rows(crew, crew->own[rank].of[T_IDS].memory.data);
}
