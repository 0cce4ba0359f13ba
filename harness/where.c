/* How are tokens, heads and rows told to somebody who looks for a mistake? By what the kernel and
 * its caller count in: sequences and positions, groups of heads, pages, experts, ranks. */
/* SPDX-License-Identifier: MIT */
#include "harness/where.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_VIEWS = 5 };

/* The ways to number the indices of one axis. */
struct views {
    int n;
    struct pattern_view view[MAX_VIEWS];
    int32_t *owned[MAX_VIEWS];
};

static struct pattern_view *add(struct views *v, const char *before, const char *label, const char *letter) {
    struct pattern_view *const view = &v->view[v->n++];
    *view = (struct pattern_view){.before = before, .label = label, .letter = letter};
    return view;
}

static int32_t *add_numbers(struct views *v, const char *before, const char *label, const char *letter,
                            int64_t size) {
    int32_t *const number = v->owned[v->n] = memory_zeroed((size_t)size, sizeof *number);
    add(v, before, label, letter)->number = number;
    return number;
}

static void views_free(struct views *v) {
    for (int i = 0; i < MAX_VIEWS; i++) free(v->owned[i]);
}

/* Runs of indices, from first[i] to first[i + 1]: which run it is, and its places from either
 * end. */
static void add_units(struct views *v, const int32_t *first, int64_t n, const char *before, const char *unit,
                      const char *letter, const char *label) {
    const int64_t size = first[n];
    int32_t *const which = add_numbers(v, before, unit, letter, size);
    int32_t *const from_first = add_numbers(v, NULL, label, letter, size);
    v->view[v->n - 1].unit = unit;
    int32_t *const from_last = add_numbers(v, NULL, label, letter, size);
    v->view[v->n - 1].unit = unit, v->view[v->n - 1].from_last = true;
    for (int64_t u = 0; u < n; u++)
        for (int32_t i = first[u]; i < first[u + 1]; i++) {
            which[i] = (int32_t)u;
            from_first[i] = i - first[u];
            from_last[i] = first[u + 1] - 1 - i;
        }
}

static void token_views(struct views *v, const struct crew *crew, int64_t size) {
    const struct batch *const b = crew->batch;
    if (!b || b->n_tokens != size) return;
    if (crew->part != PART_ATTENTION) return; /* an ffn sees tokens, not sequences */
    if (b->n_seqs > 1 && b->n_seqs < size)
        add_units(v, b->query_start, b->n_seqs, "tokens of ", "sequence", "b", "token");
    struct pattern_view *const position = add(v, NULL, "position", "p");
    position->number = b->positions;
    position->period[0] = (struct pattern_period){PAGE_SIZE, "page"};
}

/* Rows are sorted by expert. */
static void row_views(struct views *v, const struct crew *crew, int64_t size) {
    const struct stored *const ids = &crew->whole->of[T_IDS];
    const int64_t n = crew->spec.n_experts;
    int32_t *const first = memory_zeroed((size_t)n + 1, sizeof *first);
    for (int64_t i = 0; i < ids->count; i++) {
        const int32_t e = ((const int32_t *)ids->memory.data)[i];
        if (e >= 0 && e < n) first[e + 1]++;
    }
    for (int64_t e = 0; e < n; e++) first[e + 1] += first[e];
    if (ids->count && first[n] == size) add_units(v, first, n, "rows of ", "expert", "e", "row");
    free(first);
}

static void head_views(struct views *v, const struct crew *crew, int64_t size) {
    const int64_t group = crew->spec.n_kv_heads ? size / crew->spec.n_kv_heads : 1;
    if (group < 2) return;
    v->view[0].period[1] = (struct pattern_period){group, "group"};
    int32_t *const kv = add_numbers(v, "heads of ", "kv head", "g", size);
    for (int64_t h = 0; h < size; h++) kv[h] = (int32_t)(h / group);
}

/* What a rank holds of an axis that is cut, where all hold as much. */
static struct pattern_period share_of_a_rank(const struct crew *crew, enum axis_name a, int64_t size) {
    const struct span held = crew->plan.rank[0][a];
    return held.count && held.count < size && a != AXIS_N ? (struct pattern_period){held.count, "rank"}
                                                          : (struct pattern_period){0, NULL};
}

/* What a kernel cuts into tiles, and the axes of outputs that are cut so. */
static const struct {
    enum extent extent;
    enum axis_name axis;
} cut[] = {{EXTENT_QUERIES, AXIS_T}, {EXTENT_ROWS, AXIS_T},  {EXTENT_COLS, AXIS_M},
           {EXTENT_COLS, AXIS_F},    {EXTENT_COLS, AXIS_S},  {EXTENT_COLS, AXIS_E},
           {EXTENT_WIDTH, AXIS_M},   {EXTENT_WIDTH, AXIS_F}, {EXTENT_WIDTH, AXIS_S}};

static struct pattern_period tile_along(const struct tile_sizes *tiles, enum axis_name a) {
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++)
        if (cut[i].axis == a && tiles->of[cut[i].extent].size)
            return (struct pattern_period){tiles->of[cut[i].extent].size, "tile"};
    return (struct pattern_period){0, NULL};
}

static struct views views_of(const struct findings *f, const struct crew *crew, enum axis_name a) {
    const int64_t size = f->axis[a].size;
    static const char *const letter[AXIS_COUNT] = {
        [AXIS_NUMBER] = "i",  [AXIS_T] = "t",        [AXIS_M] = "m", [AXIS_H] = "h", [AXIS_G] = "g",
        [AXIS_D] = "d",       [AXIS_E] = "e",        [AXIS_K] = "k", [AXIS_F] = "f", [AXIS_S] = "s",
        [AXIS_N] = "n",       [AXIS_P] = "p",        [AXIS_R] = "r", [AXIS_B] = "b", [AXIS_PAGE] = "page",
        [AXIS_SLOT] = "slot", [AXIS_ENTRY] = "entry"};
    struct views v = {0};
    add(&v, NULL, axis_label(a), letter[a]);
    if (!crew) return v;
    v.view[0].period[0] = share_of_a_rank(crew, a, size);
    v.view[0].period[2] = tile_along(&f->tiles, a);
    if (a == AXIS_T) token_views(&v, crew, size);
    if (a == AXIS_N) row_views(&v, crew, size);
    if (a == AXIS_H) head_views(&v, crew, size);
    return v;
}

/* ---- how many there are in all at these places ---- */

static bool is_wrong(const struct findings *f, int id) { return f->wrong_tensors >> id & 1; }

/* Of a rank's part of one tensor (rank < 0: of the whole): the elements whose every index is wrong. */
static int64_t in_places(const struct findings *f, const struct crew *crew, enum tensor_id id, int rank) {
    const struct axes axes = tensor_axes(id);
    int64_t n = 1;
    for (int i = 0; i < axes.n; i++) {
        int64_t here = 0;
        for (int b = 0; b < axes.axis[i].n_blocks; b++) {
            const struct axis_block block = axes.axis[i].block[b];
            const struct index_set *const s = &f->axis[block.name];
            const struct span whole = {0, s->size};
            const struct span held =
                block.group == GROUP_NONE || rank < 0 ? whole : crew->plan.rank[rank][block.name];
            if (id == T_QKV && i == 1 && !is_wrong(f, T_Q + b)) continue;
            here += index_wrong_in(s, held.first, held.count);
        }
        n *= here;
    }
    return n;
}

/* 0: nobody can tell. */
static int64_t elements_there(const struct findings *f, int64_t n_ranks, const struct crew *crew) {
    int64_t n = 0;
    if (!crew || f->n_wrong_plan) return 0;
    for (int a = 0; a < AXIS_COUNT; a++)
        if (f->axis[a].size > PATTERN_INDICES) return 0;
    for (int id = 0; id < T_COUNT; id++) {
        if (!is_wrong(f, id) || (is_wrong(f, T_QKV) && id != T_QKV)) continue;
        if (f->first.to_rank > f->first.rank) n += in_places(f, crew, (enum tensor_id)id, -1);
        for (int rank = 0; rank < n_ranks && f->first.to_rank <= f->first.rank; rank++)
            if (index_is_wrong(&f->rank, rank)) n += in_places(f, crew, (enum tensor_id)id, rank);
    }
    return n;
}

/* ---- in words ---- */

struct line {
    char *text;
    size_t size, used;
};

__attribute__((format(printf, 2, 3))) static void say(struct line *l, const char *format, ...) {
    va_list args;
    if (l->used >= l->size) return;
    va_start(args, format);
    const int n = vsnprintf(l->text + l->used, l->size - l->used, format, args);
    va_end(args);
    if (n > 0) l->used += (size_t)n;
}

static void say_ranks(struct line *l, const struct findings *f, int64_t n_ranks) {
    const struct pattern_view view = {.label = "rank", .letter = "r"};
    struct index_set ranks = f->rank;
    char text[100];
    if (n_ranks < 2 || !ranks.any) return;
    ranks.size = n_ranks;
    index_judge(&ranks, 0, n_ranks);
    if (pattern_describe(&ranks, &view, 1, text, sizeof text) == PATTERN_ALL)
        say(l, ", ranks 0-%lld of %lld", (long long)n_ranks - 1, (long long)n_ranks);
    else
        say(l, ", %s of %lld", text, (long long)n_ranks);
}

/* Of several outputs some. */
static void say_tensors(struct line *l, const struct findings *f) {
    bool any = false;
    if (f->wrong_tensors == f->judged_tensors) return;
    for (int id = 0; id < T_COUNT; id++) {
        if (!is_wrong(f, id) || id == T_QKV) continue;
        say(l, any ? " and %s" : ", only %s", tensor_table[id].name);
        any = true;
    }
}

static bool say_axis(struct line *l, const struct findings *f, enum axis_name a, const struct crew *crew) {
    static const char *const halves[2] = {"gate", "up"};
    const struct index_set *const s = &f->axis[a];
    struct views v = views_of(f, crew, a);
    char text[160];
    const bool all = pattern_describe(s, v.view, v.n, text, sizeof text) == PATTERN_ALL;
    if (!all && a == AXIS_NUMBER)
        say(l, ", the %s half", halves[s->low > 0]);
    else if (!all)
        say(l, ", %s", text);
    views_free(&v);
    return !all;
}

void where_describe(const struct findings *f, int64_t n_ranks, const struct crew *crew, char *text,
                    size_t size) {
    struct line l = {text, size, 0};
    bool pattern = false;
    text[0] = 0;
    if (f->stage < 0) return;
    if (f->twin)
        say(&l, "chain, on a small twin of the layer");
    else
        say(&l, "stage %s", stage_table[f->stage].name);
    say_ranks(&l, f, n_ranks);
    say_tensors(&l, f);
    for (int a = 0; a < AXIS_COUNT; a++)
        if (f->axis[a].any) pattern |= say_axis(&l, f, (enum axis_name)a, f->twin ? NULL : crew);
    const int64_t there = elements_there(f, n_ranks, f->twin ? NULL : crew);
    if (there > f->n_wrong)
        say(&l, ", %lld of %lld elements there", (long long)f->n_wrong, (long long)there);
    else if (there && !pattern)
        say(&l, ", every element");
}
