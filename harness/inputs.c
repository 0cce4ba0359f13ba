/* SPDX-License-Identifier: MIT */
#include "harness/inputs.h"

#include <stdlib.h>

static bool fan_experts(enum tensor_id id) { return id == T_W_GATE_UP || id == T_W_DOWN; }

static void fill_whole(struct trunk *t, enum tensor_id id, enum dtype dtype, int64_t count, char *data) {
    if (!fan_experts(id)) {
        fill_tensor(&t->fill, id, dtype, 0, count, data);
        return;
    }
    const int64_t per_expert = count / t->spec.n_experts;
    for (int64_t e = 0; e < t->spec.n_experts; e++) {
        char *const at = data + (size_t)(e * per_expert) * dtype_bytes(dtype);
        if (t->offsets[e + 1] > t->offsets[e])
            fill_tensor(&t->fill, id, dtype, e * per_expert, per_expert, at);
        else
            dtype_poison(at, dtype, per_expert);
    }
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

struct status inputs_prepare(struct trunk *t, int stage) {
    for (const enum tensor_id *id = stage_table[stage].in; *id != T_NONE; id++) {
        const enum tensor_role role = tensor_table[*id].role;
        if ((role != ROLE_INPUT && role != ROLE_WEIGHT) || !tensor_present(*id, &t->spec) ||
            t->store.of[*id].count)
            continue;
        const int64_t count = slice_count(&t->plan, *id, -1);
        const enum dtype dtype = store_dtype(*id, t->c.dtype);
        void *const data = store_renew(&t->store, *id, dtype, count);
        if (t->fixture)
            TRY(read_whole(t, *id, dtype, count, data));
        else
            fill_whole(t, *id, dtype, count, data);
    }
    return status_ok();
}

void inputs_caches(struct trunk *t) {
    const int64_t row = t->spec.n_kv_heads * t->spec.head_dim;
    for (enum tensor_id id = T_K_CACHE; id <= T_V_CACHE; id++) {
        const int64_t count = t->batch.n_pages * PAGE_SIZE * row;
        char *const cache = store_renew(&t->store, id, t->c.dtype, count);
        dtype_poison(cache, t->c.dtype, count);
        for (int64_t b = 0; b < t->batch.n_seqs; b++) {
            const int64_t cached =
                t->batch.kv_len[b] - (t->batch.query_start[b + 1] - t->batch.query_start[b]);
            for (int64_t j = 0; j < cached; j++)
                fill_tensor(&t->fill, id, t->c.dtype, (b * t->batch.max_cached + j) * row, row,
                            cache + (size_t)(batch_slot(&t->batch, b, j) * row) * dtype_bytes(t->c.dtype));
        }
    }
}
