/* SPDX-License-Identifier: MIT */
#include "harness/explain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NaN where the mistaken call reads what nobody owns is reproduced by NaN alone. */
static bool reproduces(enum dtype dtype, double got, double y, double e, double *margin) {
    if (isnan(y)) return isnan(got);
    const struct element_verdict v = element_judge(dtype, got, y, isnan(e) ? 0 : e);
    if (v.margin > *margin) *margin = v.margin;
    return v.kind == ELEMENT_OK;
}

/* Does the reference, making the mistake, accept everything the rank stored? */
static bool replay_accepts(const struct explained *e, const struct call *mutated, double *margin) {
    const struct trunk *const t = e->trunk;
    struct answer a;
    bool accepted = true;
    answer_compute(&a, e->stage, mutated, e->contract);
    for (int i = 0; i < a.n && accepted; i++) {
        const enum dtype dtype = store_dtype(a.id[i], t->c.dtype);
        const bool cache = mutated->op == OP_KV_WRITE;
        const enum tensor_id from = !cache ? a.id[i] : i ? T_V_CACHE : T_K_CACHE;
        const void *const stored = e->got->of[from].memory.data;
        void *rows = NULL;
        if (cache) {
            rows = memory_zeroed((size_t)a.count[i], dtype_bytes(dtype));
            cache_gather(t, stored, (size_t)a.row_size[i] * dtype_bytes(dtype), rows);
        }
        for (int64_t n = 0; n < a.count[i] && accepted; n++)
            accepted =
                reproduces(dtype, dtype_load(rows ? rows : stored, dtype, n), a.y[i][n], a.e[i][n], margin);
        free(rows);
    }
    answer_free(&a);
    return accepted;
}

/* At some sizes two mistakes coincide; the one that belongs to the case's layout is tried first. */
static bool explain_by(const struct explained *e, bool same_layout, char *likely, size_t size) {
    for (const struct mutant *m = mutant_table; m->name; m++) {
        struct call mutated = *e->call;
        double margin = 0;
        if ((m->layout == e->layout) != same_layout) continue;
        m->apply(&mutated, &e->trunk->spec, e->local);
        if (!memcmp(&mutated, e->call, sizeof mutated) || !replay_accepts(e, &mutated, &margin)) continue;
        snprintf(likely, size, "%s (%s): %s; its replay reproduces every element (margin %.2f)", m->name,
                 m->source, m->describes, margin);
        return true;
    }
    return false;
}

void explain(const struct explained *e, char *likely, size_t size) {
    if (!explain_by(e, true, likely, size)) explain_by(e, false, likely, size);
}
