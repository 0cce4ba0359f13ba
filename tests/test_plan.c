/* Is every element of every tensor held by the ranks that should hold it, once? Slices are held
 * against a second, slow description: walk the whole tensor and ask for each element who owns
 * it. */
/* SPDX-License-Identifier: MIT */
#include "layer/plan.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

/* Small sizes for the axes that a layer does not have. */
static void set_free_axes(struct shard_plan *p) {
    p->size[AXIS_T] = 3;
    p->size[AXIS_P] = 5;
    p->size[AXIS_B] = 2;
    p->size[AXIS_PAGE] = 3;
    p->size[AXIS_SLOT] = 2;
}

/* Uneven on purpose: expert e has e % 4 rows, so some have none. */
static void set_uneven_rows(struct shard_plan *p) {
    int32_t offsets[1024] = {0};
    for (int64_t e = 0; e < p->size[AXIS_E]; e++) offsets[e + 1] = offsets[e] + (int32_t)(e % 4);
    plan_set_rows(p, offsets);
}

static const char *const presets[] = {"tiny", "param2-17b", "qwen3-30b-a3b"};
enum { N_PRESETS = sizeof presets / sizeof *presets };

typedef void each_plan(const struct shard_plan *plan, const struct layer_spec *spec, enum part part);

/* Every tp and ep that case_check accepts. `shrink` divides the axes that are only long. */
static void for_each_plan(each_plan *visit, bool shrink) {
    int64_t plans = 0;
    for (int m = 0; m < N_PRESETS; m++)
        for (enum part part = 0; part < PART_COUNT; part++) {
            struct model model;
            cr_assert_eq(model_load(presets[m], &model).code, STATUS_OK);
            struct check_case c = case_defaults();
            c.part = part;
            struct layer_spec spec = model_layer(&model, case_layer(&c, &model));
            for (c.tp = 1; c.tp <= MAX_RANKS; c.tp++)
                for (c.ep = 1; c.ep <= MAX_RANKS; c.ep++) {
                    if (c.tp % c.ep || case_check(&c, &model, NULL).code) continue;
                    struct layer_spec s = spec;
                    if (shrink) {
                        s.hidden = 5;
                        s.head_dim = 3;
                        s.rot_dim = 2;
                        if (s.expert_width) s.expert_width = 2 * c.tp / c.ep;
                        if (s.shared_width) s.shared_width = 3 * c.tp;
                    }
                    struct shard_plan plan;
                    plan_build(&plan, &s, c.tp, c.ep);
                    set_free_axes(&plan);
                    if (part == PART_FFN && s.moe) set_uneven_rows(&plan);
                    visit(&plan, &s, part);
                    plans++;
                }
        }
    cr_expect(plans > 50, "only %lld legal plans", (long long)plans);
}

/* How many ranks hold an element of a block, from the meaning of the groups. */
static int64_t holders(const struct shard_plan *p, const struct axis_block *b) {
    const int64_t kv_replicas = p->tp > p->size[AXIS_G] ? p->tp / p->size[AXIS_G] : 1;
    switch (b->group) {
    case GROUP_TP: return b->name == AXIS_G ? kv_replicas : 1;
    case GROUP_EP: return p->etp;
    case GROUP_ETP: return p->ep;
    default: return p->tp;
    }
}

static void expect_tiling(const struct shard_plan *p, const struct layer_spec *spec, enum part part) {
    static const struct axis_block attention[] = {{AXIS_H, GROUP_TP, 0}, {AXIS_G, GROUP_TP, 0}};
    static const struct axis_block ffn[] = {
        {AXIS_S, GROUP_TP, 0}, {AXIS_E, GROUP_EP, 0}, {AXIS_F, GROUP_ETP, 0}, {AXIS_N, GROUP_EP, 0}};
    const struct axis_block *const blocks = part == PART_ATTENTION ? attention : ffn;
    const int n = part == PART_ATTENTION ? 2 : spec->moe ? 4 : 1;
    for (int i = 0; i < n; i++) {
        const enum axis_name a = blocks[i].name;
        int64_t held[65536] = {0};
        cr_assert(p->size[a] <= 65536);
        for (int64_t r = 0; r < p->tp; r++) {
            const struct span s = p->rank[r][a];
            cr_assert(s.first >= 0 && s.count >= 0 && s.first + s.count <= p->size[a]);
            for (int64_t x = 0; x < s.count; x++) held[s.first + x]++;
        }
        for (int64_t x = 0; x < p->size[a]; x++)
            cr_assert_eq(held[x], holders(p, &blocks[i]), "tp %lld ep %lld %s %lld held %lld times",
                         (long long)p->tp, (long long)p->ep, axis_label(a), (long long)x, (long long)held[x]);
    }
    cr_expect_eq(p->ep * p->etp, p->tp);
}

Test(plan, ranges_tile_the_whole_exactly_once) { for_each_plan(expect_tiling, false); }

/* Experts and their columns together: rank r holds a block that nobody else holds. */
static void expect_expert_blocks(const struct shard_plan *p, const struct layer_spec *spec, enum part part) {
    if (part != PART_FFN || !spec->moe) return;
    for (int64_t r = 0; r < p->tp; r++)
        for (int64_t q = 0; q < r; q++)
            cr_assert(p->rank[r][AXIS_E].first != p->rank[q][AXIS_E].first ||
                      p->rank[r][AXIS_F].first != p->rank[q][AXIS_F].first);
    int64_t rows = 0;
    for (int64_t r = 0; r < p->tp; r += p->etp) {
        cr_assert_eq(p->rank[r][AXIS_N].first, rows, "rows of the experts before");
        rows += p->rank[r][AXIS_N].count;
    }
    cr_assert_eq(rows, p->size[AXIS_N]);
}

Test(plan, every_rank_has_its_own_block_of_experts_and_uneven_rows_follow_them) {
    for_each_plan(expect_expert_blocks, false);
}

/* Local query head h uses local kv head h / (H/G), as the kernels do; it must be the whole
 * layer's. */
static void expect_same_kv_head(const struct shard_plan *p, const struct layer_spec *spec, enum part part) {
    if (part != PART_ATTENTION) return;
    for (int rank = 0; rank < p->tp; rank++) {
        const struct layer_spec local = plan_local_spec(p, spec, rank);
        cr_assert(local.n_kv_heads >= 1 && local.n_heads % local.n_kv_heads == 0);
        cr_assert_eq(p->rank[rank][AXIS_G].count, local.n_kv_heads);
        if (p->tp > spec->n_kv_heads)
            cr_assert_eq(p->rank[rank][AXIS_G].first, rank / (p->tp / spec->n_kv_heads));
        for (int64_t h = 0; h < local.n_heads; h++) {
            const int64_t mine = p->rank[rank][AXIS_G].first + h / (local.n_heads / local.n_kv_heads);
            const int64_t global = (p->rank[rank][AXIS_H].first + h) / (spec->n_heads / spec->n_kv_heads);
            cr_assert_eq(mine, global, "tp %lld rank %d head %lld reads kv head %lld, not %lld",
                         (long long)p->tp, rank, (long long)h, (long long)mine, (long long)global);
        }
    }
}

Test(plan, a_local_head_uses_the_kv_head_of_its_global_group) { for_each_plan(expect_same_kv_head, false); }

static void expect_local_spec(const struct shard_plan *p, const struct layer_spec *spec, enum part part) {
    (void)part;
    struct layer_spec with_bias = *spec;
    with_bias.o_bias = with_bias.qkv_bias = true;
    for (int rank = 0; rank < p->tp; rank++) {
        const struct layer_spec local = plan_local_spec(p, &with_bias, rank);
        cr_assert_eq(local.o_bias, rank == 0, "a row-parallel bias is added once");
        cr_assert(local.qkv_bias);
        cr_assert(local.hidden == spec->hidden && local.head_dim == spec->head_dim &&
                  local.n_experts == spec->n_experts);
        cr_assert(local.attn_scale == spec->attn_scale && local.top_k == spec->top_k);
        cr_assert_eq(local.shared_width, p->rank[rank][AXIS_S].count);
    }
}

Test(plan, only_rank_zero_adds_the_output_bias) { for_each_plan(expect_local_spec, false); }

/* ---- slices, on shrunken sizes ---- */

static bool has_part(enum tensor_id id, enum part part) {
    if (id <= T_NORMED) return true;
    return (id < T_W_ROUTER) == (part == PART_ATTENTION);
}

/* Flat index of a place in the whole tensor, from the axes string alone. */
static int64_t whole_index(const struct shard_plan *p, enum tensor_id id, const struct place *place) {
    struct axes axes;
    int64_t index = 0;
    cr_assert_null(axes_parse(tensor_table[id].axes, &axes));
    for (int i = 0; i < axes.n; i++) {
        int64_t size = 0, at = place->index[i];
        for (int b = 0; b < axes.axis[i].n_blocks; b++) {
            const struct axis_block block = axes.axis[i].block[b];
            const int64_t extent = block.name == AXIS_NUMBER ? block.number : p->size[block.name];
            if (b == place->block[i]) {
                cr_assert(place->index[i] >= 0 && place->index[i] < extent && block.name == place->axis[i]);
                at += size;
            }
            size += extent;
        }
        index = index * size + at;
    }
    return index;
}

/* The holders of an element of the whole: the product over the axes is what one rank group each
 * says. */
static bool rank_holds(const struct shard_plan *p, enum tensor_id id, int rank, const struct place *place) {
    struct axes axes;
    cr_assert_null(axes_parse(tensor_table[id].axes, &axes));
    for (int i = 0; i < axes.n; i++) {
        const struct axis_block b = axes.axis[i].block[place->block[i]];
        const struct span s = p->rank[rank][b.name];
        if (b.group != GROUP_NONE && (place->index[i] < s.first || place->index[i] >= s.first + s.count))
            return false;
    }
    return true;
}

static void expect_slices(const struct shard_plan *p, const struct layer_spec *spec, enum part part) {
    for (enum tensor_id id = 0; id < T_COUNT; id++) {
        if (!has_part(id, part) || !tensor_present(id, spec) || tensor_axes(id).axis[0].extra) continue;
        const int64_t n = slice_count(p, id, -1);
        int32_t *const whole = malloc((size_t)n * 4 + 4), *const again = malloc((size_t)n * 4 + 4);
        int64_t copies = 0, expected = 0;
        for (int64_t i = 0; i < n; i++) whole[i] = (int32_t)i;
        memset(again, 0xff, (size_t)n * 4);
        for (int rank = 0; rank < p->tp; rank++) {
            const int64_t count = slice_count(p, id, rank);
            int32_t *const slice = malloc((size_t)count * 4 + 4);
            slice[count] = 0x5a5a5a5a;
            memset(slice, 0xff, (size_t)count * 4);
            if (count) slice_copy(p, id, rank, 4, slice, whole);
            cr_assert_eq(slice[count], 0x5a5a5a5a, "%s: wrote behind the slice", tensor_table[id].name);
            for (int64_t i = 0; i < count; i++) {
                const struct place place = slice_place(p, id, rank, i);
                cr_assert_eq(whole_index(p, id, &place), slice[i], "%s rank %d element %lld",
                             tensor_table[id].name, rank, (long long)i);
                cr_assert(rank_holds(p, id, rank, &place));
                again[slice[i]] = slice[i];
            }
            copies += count;
            free(slice);
        }
        /* Together the ranks hold everything, and as often as the plan says. */
        cr_assert_eq(n ? memcmp(whole, again, (size_t)n * 4) : 0, 0,
                     "%s tp %lld ep %lld: elements nobody holds", tensor_table[id].name, (long long)p->tp,
                     (long long)p->ep);
        struct shard_plan one = *p;
        one.tp = 1;
        for (enum axis_name a = 0; a < AXIS_COUNT; a++) one.rank[0][a] = (struct span){0, p->size[a]};
        for (int64_t i = 0; i < n; i++) {
            const struct place place = slice_place(&one, id, 0, i);
            cr_assert_eq(whole_index(p, id, &place), i);
            for (int rank = 0; rank < p->tp; rank++) expected += rank_holds(p, id, rank, &place);
        }
        cr_assert_eq(copies, expected, "%s", tensor_table[id].name);
        free(whole);
        free(again);
    }
}

/* Every tp and ep of tiny; elsewhere the rank counts that differ in kind. */
static void expect_slices_of_some(const struct shard_plan *p, const struct layer_spec *spec, enum part part) {
    if (spec->n_experts > 16 && p->tp > 4) return;
    if (p->tp > 16) return;
    expect_slices(p, spec, part);
}

Test(plan, slices_reassemble_to_the_whole_and_places_invert_them, .timeout = 60) {
    for_each_plan(expect_slices_of_some, true);
}

Test(plan, shapes_multiply_to_the_count_and_one_rank_holds_everything) {
    struct model model;
    cr_assert_eq(model_load("tiny", &model).code, STATUS_OK);
    const struct layer_spec spec = model_layer(&model, 1);
    struct shard_plan p;
    plan_build(&p, &spec, 1, 1);
    set_free_axes(&p);
    set_uneven_rows(&p);
    for (enum tensor_id id = 0; id < T_COUNT; id++) {
        int64_t shape[MAX_AXES], n = 1;
        for (int i = slice_shape(&p, id, 0, shape); i-- > 0;) n *= shape[i];
        cr_expect_eq(n, slice_count(&p, id, 0), "%s", tensor_table[id].name);
        cr_expect_eq(n, slice_count(&p, id, -1), "%s", tensor_table[id].name);
    }
    cr_expect_eq(slice_count(&p, T_W_QKV, 0), (8 + 4 + 4) * 16 * 64);
    cr_expect_eq(slice_count(&p, T_OFFSETS, 0), 16 + 1, "where the last expert ends");
    plan_build(&p, &spec, 4, 2);
    cr_expect_eq(slice_count(&p, T_OFFSETS, 3), 8 + 1, "on every rank");
}

Test(plan, elements_of_any_width_are_moved_whole) {
    struct model model;
    cr_assert_eq(model_load("tiny", &model).code, STATUS_OK);
    const struct layer_spec spec = model_layer(&model, 0);
    struct shard_plan p;
    plan_build(&p, &spec, 4, 1);
    set_free_axes(&p);
    static const size_t widths[] = {1, 2, 4, 8};
    const int64_t n = slice_count(&p, T_QKV, -1), part = slice_count(&p, T_QKV, 3);
    unsigned char *const whole = malloc((size_t)n * 8), *const slice = malloc((size_t)part * 8);
    for (size_t w = 0; w < 4; w++) {
        for (int64_t i = 0; i < n * 8; i++) whole[i] = (unsigned char)(i * 37 + i / 251);
        slice_copy(&p, T_QKV, 3, widths[w], slice, whole);
        for (int64_t i = 0; i < part; i++) {
            const struct place place = slice_place(&p, T_QKV, 3, i);
            const int64_t from = whole_index(&p, T_QKV, &place);
            cr_assert_eq(memcmp(slice + (size_t)i * widths[w], whole + (size_t)from * widths[w], widths[w]),
                         0);
        }
    }
    free(whole);
    free(slice);
}

Test(plan, a_rank_whose_experts_have_no_rows_has_an_empty_slice) {
    struct model model;
    cr_assert_eq(model_load("tiny", &model).code, STATUS_OK);
    const struct layer_spec spec = model_layer(&model, 1);
    struct shard_plan p;
    int32_t offsets[17] = {0}; /* all 12 rows belong to expert 5 */
    for (int e = 6; e <= 16; e++) offsets[e] = 12;
    plan_build(&p, &spec, 8, 4);
    plan_set_rows(&p, offsets);
    for (int rank = 0; rank < 8; rank++) {
        const bool has = rank / 2 == 1;
        cr_expect_eq(p.rank[rank][AXIS_N].count, has ? 12 : 0);
        cr_expect_eq(slice_count(&p, T_ROWS, rank), has ? 12 * 64 : 0);
    }
    cr_expect_eq(slice_count(&p, T_ROWS, -1), 12 * 64);
}

Test(plan, slices_put_back_are_the_whole_tensor_again) {
    struct model model;
    cr_assert(!model_load("tiny", &model).code);
    const struct layer_spec spec = model_layer(&model, 1);
    struct shard_plan plan;
    plan_build(&plan, &spec, 4, 2);
    plan.size[AXIS_T] = 3;
    const enum tensor_id ids[] = {T_QKV, T_Q, T_V, T_W_GATE_UP, T_SHARED_GATE_UP, T_Y};
    for (size_t t = 0; t < sizeof ids / sizeof *ids; t++) {
        const int64_t n = slice_count(&plan, ids[t], -1);
        int32_t *const whole = calloc((size_t)n, 4), *const back = calloc((size_t)n, 4),
                       *const part = calloc((size_t)n, 4);
        for (int64_t i = 0; i < n; i++) whole[i] = (int32_t)i + 1;
        for (int rank = 0; rank < 4; rank++) {
            slice_copy(&plan, ids[t], rank, 4, part, whole);
            slice_put(&plan, ids[t], rank, 4, part, back);
        }
        cr_expect_arr_eq(back, whole, (size_t)n * 4, "%s", tensor_table[ids[t]].name);
        free(whole), free(back), free(part);
    }
}
