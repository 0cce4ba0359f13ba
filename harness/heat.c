/* Which part of a tensor is wrong, in so few cells that they can be looked at? */
/* SPDX-License-Identifier: MIT */
#include "harness/heat.h"

#include <stdio.h>
#include <string.h>

_Static_assert((int)MAP_RANKS >= (int)MAX_RANKS, "every rank is drawn");

/* ---- axes ---- */

static int64_t block_size(const struct shard_plan *plan, const struct axis_block *b) {
    return b->name == AXIS_NUMBER ? b->number : plan->size[b->name];
}

static int64_t block_first(const struct shard_plan *plan, const struct axis *axis, int block) {
    int64_t first = 0;
    for (int b = 0; b < block; b++) first += block_size(plan, &axis->block[b]);
    return first;
}

static void add_border(struct map_axis *a, int64_t at) {
    if (at <= 0 || at >= a->size || a->n_borders == MAP_BORDERS) return;
    for (int i = 0; i < a->n_borders; i++)
        if (a->border[i] == at) return;
    a->border[a->n_borders++] = at;
}

/* A border is where the share of another rank begins. */
static struct map_axis axis_open(const struct shard_plan *plan, const struct axis *axis) {
    struct map_axis a = {.size = block_first(plan, axis, axis->n_blocks)};
    a.cells = a.size < MAP_CELLS ? (int)a.size : MAP_CELLS;
    snprintf(a.name, sizeof a.name, "%s%s", axis_label(axis->block[0].name),
             axis->n_blocks == 3 ? " of q, k, v" : "");
    for (int b = 0; b < axis->n_blocks; b++)
        for (int r = 0; r < plan->tp && axis->block[b].group != GROUP_NONE; r++)
            add_border(&a, block_first(plan, axis, b) + plan->rank[r][axis->block[b].name].first);
    return a;
}

static bool is_cut(const struct axis *axis) { return axis->block[0].group != GROUP_NONE; }

static int column_axis(const struct axes *axes) {
    for (int i = 1; i < axes->n; i++)
        if (is_cut(&axes->axis[i])) return i;
    return axes->n > 1 ? 1 : -1;
}

static struct heat *find(struct heats *h, const struct heat_part *part) {
    for (int i = 0; i < h->n; i++)
        if (h->of[i].id == part->id && h->of[i].stored == part->stored) return &h->of[i];
    return NULL;
}

static struct heat *find_or_open(struct heats *h, const struct heat_part *part) {
    struct heat *heat = find(h, part);
    if (heat || h->n == (int)(sizeof h->of / sizeof *h->of)) return heat;
    const struct shard_plan *const plan = part->plan;
    const struct axes axes = tensor_axes(part->id);
    heat = &h->of[h->n++];
    memset(heat, 0, sizeof *heat);
    heat->id = part->id, heat->stored = part->stored;
    heat->n_ranks = plan->tp > 1 ? (int)plan->tp : 0;
    heat->col = column_axis(&axes);
    heat->rows = axis_open(plan, &axes.axis[0]);
    heat->cols =
        heat->col < 0 ? (struct map_axis){.size = 1, .cells = 1} : axis_open(plan, &axes.axis[heat->col]);
    for (int b = 0; heat->col >= 0 && b < axes.axis[heat->col].n_blocks; b++)
        heat->col_first[b] = block_first(plan, &axes.axis[heat->col], b);
    return heat;
}

/* ---- counting ---- */

static int cell_of(const struct map_axis *a, int64_t index) {
    return index >= a->size ? a->cells - 1 : (int)(index * a->cells / a->size);
}

/* Adds to every cell how many of the indices it holds; returns how many there are. */
static int64_t spread(const struct map_axis *a, int64_t first, int64_t count, int64_t in[MAP_CELLS]) {
    for (int c = 0; c < a->cells; c++) {
        const int64_t from = (c * a->size + a->cells - 1) / a->cells,
                      to = ((c + 1) * a->size + a->cells - 1) / a->cells;
        const int64_t low = from > first ? from : first, high = to < first + count ? to : first + count;
        if (high > low) in[c] += high - low;
    }
    return count;
}

/* What a rank holds of the axis. */
static int64_t spread_share(const struct shard_plan *plan, const struct axis *axis, int rank,
                            const struct map_axis *a, int64_t in[MAP_CELLS]) {
    int64_t n = 0;
    for (int b = 0; b < axis->n_blocks; b++) {
        const struct axis_block *const block = &axis->block[b];
        const struct span held = block->group == GROUP_NONE || rank < 0
                                     ? (struct span){0, block_size(plan, block)}
                                     : plan->rank[rank][block->name];
        n += spread(a, block_first(plan, axis, b) + held.first, held.count, in);
    }
    return n;
}

void heat_judge(struct heats *heats, struct heat_part part, int64_t first, int64_t count) {
    const struct shard_plan *const plan = part.plan;
    const int rank = part.rank;
    const struct axes axes = tensor_axes(part.id);
    struct heat *const h = find_or_open(heats, &part);
    int64_t rows[MAP_CELLS] = {0}, cols[MAP_CELLS] = {0}, shape[MAX_AXES], row = 1, n_cols = 1, n_rows;
    const int n = slice_shape(plan, part.id, rank, shape);
    for (int i = 1; i < n; i++) row *= shape[i];
    if (!h || !count || !row) return;
    if (h->col >= 0)
        n_cols = spread_share(plan, &axes.axis[h->col], rank, &h->cols, cols);
    else
        cols[0] = 1;
    if (count >= shape[0] * row) {
        n_rows = spread_share(plan, &axes.axis[0], rank, &h->rows, rows);
    } else {
        const struct place at = slice_place(plan, part.id, rank, first);
        n_rows = spread(&h->rows, block_first(plan, &axes.axis[0], at.block[0]) + at.index[0],
                        count < row ? 1 : count / row, rows);
    }
    if (!n_rows || !n_cols) return;
    const int64_t each = count / (n_rows * n_cols) > 0 ? count / (n_rows * n_cols) : 1;
    for (int r = 0; r < h->rows.cells; r++)
        for (int c = 0; c < h->cols.cells && rows[r]; c++)
            h->judged[r][c] += (uint32_t)(rows[r] * cols[c] * each);
    if (rank >= 0) h->rank_judged[rank] += count;
}

void heat_blame(struct heats *heats, struct heat_part part, const struct place *place) {
    struct heat *const h = find(heats, &part);
    if (!h) return;
    const int c =
        h->col < 0 ? 0 : cell_of(&h->cols, h->col_first[place->block[h->col]] + place->index[h->col]);
    h->wrong[cell_of(&h->rows, place->index[0])][c]++;
    if (part.rank >= 0) h->rank_wrong[part.rank]++;
}

/* ---- the picture ---- */

/* The smallest number of ninths that are not exceeded. */
static char level(int64_t wrong, int64_t judged) {
    if (!wrong) return judged ? '0' : '.';
    if (wrong >= judged) return '9';
    return (char)('0' + (wrong * 9 + judged - 1) / judged);
}

static void draw(const struct heat *h, struct heat_map *out) {
    *out = (struct heat_map){0};
    snprintf(out->tensor, sizeof out->tensor, "%s", tensor_table[h->id].name);
    out->rows = h->rows, out->cols = h->cols;
    for (int r = 0; r < h->rows.cells; r++)
        for (int c = 0; c < h->cols.cells; c++) out->cell[r][c] = level(h->wrong[r][c], h->judged[r][c]);
    for (int r = 0; r < h->n_ranks; r++) out->rank[r] = level(h->rank_wrong[r], h->rank_judged[r]);
}

static int64_t count_wrong(const struct heat *h) {
    int64_t n = 0;
    for (int r = 0; r < h->rows.cells; r++)
        for (int c = 0; c < h->cols.cells; c++) n += h->wrong[r][c];
    return n;
}

void heat_draw(const struct heats *heats, struct heat_map *out) {
    int64_t most = 0;
    *out = (struct heat_map){0};
    for (int i = 0; i < heats->n; i++) {
        const int64_t n = count_wrong(&heats->of[i]);
        if (n > most) draw(&heats->of[i], out);
        if (n > most) most = n;
    }
}
