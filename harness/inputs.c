/* Which values does a stage begin with that no stage has made? */
/* SPDX-License-Identifier: MIT */
#include "harness/inputs.h"

#include <stdlib.h>

/* routed [E]: experts that somebody is sent to. Free it. */
static bool *routed_experts(const struct crew *crew) {
    bool *const routed = memory_zeroed((size_t)crew->spec.n_experts, sizeof *routed);
    const struct stored *const ids = &crew->whole->of[T_IDS];
    const int32_t *const id = ids->memory.data;
    for (int64_t i = 0; i < ids->count; i++)
        if (id[i] >= 0 && id[i] < crew->spec.n_experts) routed[id[i]] = true;
    return routed;
}

/* Of what no file of activations brings: from the checkpoint, or made. */
static struct status fill_elements(const struct trunk *t, enum tensor_id id, enum dtype dtype, int64_t first,
                                   int64_t count, void *data) {
    if (t->weights && weights_bring(id))
        return weights_fill(t->weights, t->layer, t->c.part, id, dtype, first, count, data);
    fill_tensor(&t->fill, id, dtype, first, count, data);
    return status_ok();
}

static struct status fill_routed(const struct trunk *t, enum tensor_id id, enum dtype dtype, int64_t count,
                                 char *data) {
    const int64_t n_experts = t->crew.spec.n_experts, per_expert = count / n_experts;
    bool *const routed = routed_experts(&t->crew);
    struct status s = status_ok();
    for (int64_t e = 0; e < n_experts && !s.code; e++) {
        char *const at = data + (size_t)(e * per_expert) * dtype_bytes(dtype);
        if (routed[e])
            s = fill_elements(t, id, dtype, e * per_expert, per_expert, at);
        else
            dtype_poison(at, dtype, per_expert);
    }
    free(routed);
    return s;
}

static struct status read_whole(struct trunk *t, enum tensor_id id, enum dtype dtype, int64_t count,
                                void *data) {
    double *const values = memory_zeroed((size_t)count, sizeof(double));
    bool found = false;
    const struct status s = fixture_read(t->fixture, t->layer, t->c.part, id, count, values, &found);
    for (int64_t i = 0; i < count && found && !s.code; i++) dtype_store(data, dtype, i, values[i]);
    free(values);
    if (!s.code && !found)
        return status_error("%s: layer %lld has no %s; the file must bring every weight of the layer",
                            fixture_model(t->fixture)->name, (long long)t->layer, tensor_table[id].name);
    return s;
}

/* Rows of the caches: those of every sequence's keys, or of the keys that are cached before the
 * call. */
static void fill_keys(struct crew *crew, const struct fill *fill, enum tensor_id id, bool all) {
    const struct batch *const batch = crew->batch;
    const struct stored *const cache = &crew->whole->of[id];
    const int64_t row = crew->spec.n_kv_heads * crew->spec.head_dim;
    const int64_t apart = fill_is_local(fill->kind) ? FILL_KEYS : batch->max_cached;
    for (int64_t b = 0; b < batch->n_seqs; b++) {
        const int64_t fresh = batch->query_start[b + 1] - batch->query_start[b];
        for (int64_t j = 0; j < batch->kv_len[b] - (all ? 0 : fresh); j++)
            fill_tensor(fill, id, cache->dtype, (b * apart + j) * row, row,
                        (char *)cache->memory.data +
                            (size_t)(batch_slot(batch, b, j) * row) * dtype_bytes(cache->dtype));
    }
}

/* A local fill comes between the stages: what one has stored is not what the next one reads. Partial
 * sums and a rank's own indices stay, so that they are exact from the product to the sum. */
static bool is_filled(const struct trunk *t, enum tensor_id id) {
    const struct tensor_row *const row = &tensor_table[id];
    if (crew_lacks(&t->crew, id)) return true;
    return fill_is_local(t->fill.kind) && tensor_present(id, &t->crew.spec) && row->dtype != DTYPE_I32 &&
           row->role != ROLE_PARTIAL && row->role != ROLE_LOCAL;
}

/* The contents are for the caller to write. */
static struct status make_room(struct trunk *t, enum tensor_id id, enum dtype dtype, int64_t count,
                               void **data) {
    struct stored *const s = &t->store.of[id];
    store_drop(&t->store, id);
    if (tensor_table[id].role == ROLE_WEIGHT)
        TRY(kernel_seat_lend(&t->kernels, id, (size_t)count * dtype_bytes(dtype), &s->memory));
    *data = s->memory.data;
    if (s->memory.data)
        s->dtype = dtype, s->count = count;
    else
        *data = store_renew(&t->store, id, dtype, count);
    return status_ok();
}

struct status inputs_prepare(struct trunk *t, int stage) {
    t->fill.stage = stage;
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
        if (!is_filled(t, *id)) continue;
        if (seat_in_place(*id)) {
            fill_keys(&t->crew, &t->fill, *id, true);
            continue;
        }
        const int64_t count = slice_count(&t->crew.plan, *id, -1);
        const enum dtype dtype = tensor_dtype(*id, t->c.dtype);
        void *data;
        TRY(make_room(t, *id, dtype, count, &data));
        if (t->fixture)
            TRY(read_whole(t, *id, dtype, count, data));
        else if (tensor_table[*id].routed)
            TRY(fill_routed(t, *id, dtype, count, data));
        else
            TRY(fill_elements(t, *id, dtype, 0, count, data));
    }
    return status_ok();
}

void inputs_fill(struct crew *crew, const struct fill *fill, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
        if (!crew_lacks(crew, *id)) continue;
        const int64_t count = slice_count(&crew->plan, *id, -1);
        const enum dtype dtype = tensor_dtype(*id, crew->storage);
        fill_tensor(fill, *id, dtype, 0, count, store_renew(crew->whole, *id, dtype, count));
    }
}

void inputs_caches(struct crew *crew, const struct fill *fill) {
    for (enum tensor_id id = T_K_CACHE; id <= T_V_CACHE; id++) {
        const int64_t count = slice_count(&crew->plan, id, -1);
        dtype_poison(store_renew(crew->whole, id, crew->storage, count), crew->storage, count);
        fill_keys(crew, fill, id, false);
    }
}
