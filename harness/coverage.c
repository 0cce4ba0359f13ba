/* Which facts does a call meet? Those of the table, and those of the tiles of the kernel that took
 * it. */
/* SPDX-License-Identifier: MIT */
#include "harness/coverage.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- where tiles end ---- */

enum side { SIDE_BELOW, SIDE_AT, SIDE_ABOVE, SIDE_SEVERAL, SIDE_LONG, SIDE_COUNT };

static const struct {
    const char *name, *describes;
} sides[SIDE_COUNT] = {
    [SIDE_BELOW] = {"below", "one step below the end of a tile"},
    [SIDE_AT] = {"at", "whole tiles"},
    [SIDE_ABOVE] = {"above", "one step into another tile"},
    [SIDE_SEVERAL] = {"several", "more than two tiles"},
    [SIDE_LONG] = {"long", "more than 4096"},
};

static bool on_side(enum side side, int64_t n, int64_t size, int64_t step) {
    switch (side) {
    case SIDE_BELOW: return n % size == size - step;
    case SIDE_AT: return n > 0 && n % size == 0;
    case SIDE_ABOVE: return n > size && n % size == step;
    case SIDE_SEVERAL: return n > 2 * size;
    case SIDE_LONG: return n > LONG_KEYS;
    case SIDE_COUNT: break;
    }
    return false;
}

static bool has_side(const struct tile_sizes *tiles, enum extent extent, enum side side) {
    return tiles->of[extent].size && (side != SIDE_LONG || extent == EXTENT_KEYS);
}

/* A kernel, what it cuts, and the side of a tile's end. */
struct tile_fact {
    const struct kernel *kernel;
    enum extent extent;
    enum side side;
};
struct tile_facts {
    int n;
    struct tile_fact row[MAX_FACTS];
};

/* What a kernel cuts does not hang on the call. */
static void add_kernel(struct tile_facts *facts, const struct kernel *k) {
    const struct tile_sizes tiles = k->tiles(&(struct call){.op = k->op});
    for (int e = 0; e < EXTENT_COUNT; e++)
        for (int s = 0; s < SIDE_COUNT; s++) {
            if (!has_side(&tiles, (enum extent)e, (enum side)s)) continue;
            assert(facts->n < MAX_FACTS);
            facts->row[facts->n++] = (struct tile_fact){k, (enum extent)e, (enum side)s};
        }
}

static const struct tile_facts *tile_facts(void) {
    static struct tile_facts facts;
    for (const struct kernel *k = facts.n ? NULL : kernel_table; k && k->name; k++)
        if (k->tiles) add_kernel(&facts, k);
    return &facts;
}

/* ---- by number ---- */

static int n_rows(void) {
    int n = 0;
    while (fact_table[n].name) n++;
    return n;
}

int coverage_count(void) {
    const int n = n_rows() + tile_facts()->n;
    assert(n <= MAX_FACTS);
    return n;
}

/* NULL: it is one of the table's. */
static const struct tile_fact *tile_fact(int fact) {
    const int i = fact - n_rows();
    return i < 0 ? NULL : &tile_facts()->row[i];
}

void coverage_name(int fact, char *text, size_t size) {
    const struct tile_fact *const t = tile_fact(fact);
    if (t)
        snprintf(text, size, "%s.%s.%s", t->kernel->name, extent_name(t->extent), sides[t->side].name);
    else
        snprintf(text, size, "%s", fact_table[fact].name);
}

const char *coverage_describe(int fact) {
    const struct tile_fact *const t = tile_fact(fact);
    return t ? sides[t->side].describes : fact_table[fact].describes;
}

enum op coverage_op(int fact) {
    const struct tile_fact *const t = tile_fact(fact);
    return t ? t->kernel->op : fact_table[fact].op;
}

bool coverage_applies(int fact, enum device_kind device) {
    const struct tile_fact *const t = tile_fact(fact);
    return !t || t->kernel->launch[device];
}

/* ---- sizes of a call ---- */

static int64_t entry(const struct view *v, int64_t i) { return ((const int32_t *)v->data)[i]; }

/* Rows of group i; without offsets there is one. */
static int64_t group_rows(const struct view *offsets, int64_t n_groups, int64_t n, int64_t i) {
    if (i >= n_groups) return -1;
    return offsets->data ? entry(offsets, i + 1) - entry(offsets, i) : n;
}

static int64_t only(int64_t n, int64_t i) { return i == 0 ? n : -1; }

/* The i-th of the call's sizes of that kind, in the order of its sequences or groups; -1: there are
 * fewer. */
static int64_t size_at(const struct call *call, enum extent extent, int64_t i) {
    const struct attention_args *const a = &call->u.attention;
    const struct linear_args *const l = &call->u.linear;
    const struct gated_linear_args *const g = &call->u.gated_linear;
    const bool linear = call->op == OP_LINEAR;
    switch (extent) {
    case EXTENT_QUERIES:
        return i < a->n_seqs ? entry(&a->query_start, i + 1) - entry(&a->query_start, i) : -1;
    case EXTENT_KEYS: return i < a->n_seqs ? entry(&a->kv_len, i) : -1;
    case EXTENT_HEADS: return only(a->n_heads / a->n_kv_heads, i);
    case EXTENT_ROWS:
        if (call->op == OP_NORM) return only(call->u.norm.n_tokens, i);
        return linear ? group_rows(&l->offsets, l->n_groups, l->n_rows, i)
                      : group_rows(&g->offsets, g->n_groups, g->n_rows, i);
    case EXTENT_COLS: return only(linear ? l->n_cols : g->width, i);
    case EXTENT_INNER: return only(linear ? l->n_inner : g->n_inner, i);
    case EXTENT_WIDTH:
        return only(call->op == OP_NORM         ? call->u.norm.width
                    : call->op == OP_PERMUTE    ? call->u.permute.width
                    : call->op == OP_ACTIVATION ? call->u.activation.width
                                                : call->u.combine.width,
                    i);
    case EXTENT_EXPERTS: return only(call->u.route.n_experts, i);
    case EXTENT_SLOTS: return only(call->u.permute.n_tokens * call->u.permute.top_k, i);
    case EXTENT_COUNT: break;
    }
    return -1;
}

static bool meets_tile(const struct call *call, const struct tile_fact *t, const struct tile_sizes *tiles) {
    int64_t n;
    for (int64_t i = 0; (n = size_at(call, t->extent, i)) >= 0; i++)
        if (on_side(t->side, n, tiles->of[t->extent].size, tiles->of[t->extent].step)) return true;
    return false;
}

/* ---- seeing ---- */

void coverage_see(struct fact_set *met, const struct placed *at, const struct outcome *o,
                  const struct edge_result *edge) {
    const struct sighting s = {at, &o->call, o->kernel, edge};
    const int first = n_rows();
    for (int i = 0; i < first; i++)
        if (fact_table[i].op == o->call.op && !fact_is_in(met, i) && fact_table[i].met(&s)) fact_add(met, i);
    if (!o->kernel || !o->kernel->tiles) return;
    const struct tile_sizes tiles = o->kernel->tiles(&o->call);
    const struct tile_facts *const facts = tile_facts();
    for (int i = 0; i < facts->n; i++)
        if (facts->row[i].kernel == o->kernel && !fact_is_in(met, first + i) &&
            meets_tile(&o->call, &facts->row[i], &tiles))
            fact_add(met, first + i);
}
