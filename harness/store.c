/* Who holds the bytes of a tensor? */
/* SPDX-License-Identifier: MIT */
#include "harness/store.h"

static void *hold(struct store *store, enum tensor_id id, enum dtype dtype, int64_t count,
                  void renew(struct mapping *m, size_t bytes)) {
    struct stored *const s = &store->of[id];
    renew(&s->memory, (size_t)count * dtype_bytes(dtype));
    s->dtype = dtype;
    s->count = count;
    return s->memory.data;
}

void *store_renew(struct store *store, enum tensor_id id, enum dtype dtype, int64_t count) {
    return hold(store, id, dtype, count, mapping_renew);
}

void *store_new(struct store *store, enum tensor_id id, enum dtype dtype, int64_t count) {
    return hold(store, id, dtype, count, mapping_new);
}

void store_drop(struct store *store, enum tensor_id id) {
    mapping_free(&store->of[id].memory);
    store->of[id].count = 0;
}

void store_free(struct store *store) {
    for (int i = 0; i < T_COUNT; i++) store_drop(store, (enum tensor_id)i);
}

void store_move(struct store *into, struct store *from, enum tensor_id id) {
    store_drop(into, id);
    into->of[id] = from->of[id];
    from->of[id] = (struct stored){0};
}

void *store_rounded(const double *values, int64_t count, enum dtype dtype) {
    void *const out = memory_zeroed((size_t)count, dtype_bytes(dtype));
    for (int64_t i = 0; i < count; i++) dtype_store(out, dtype, i, values[i]);
    return out;
}
