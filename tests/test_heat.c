/* Do the cells of a map count what was judged and what is wrong, each where it stands? */
/* SPDX-License-Identifier: MIT */
#include "harness/heat.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/one_case.h"

enum { HEADS = 8, KV = 2, DIM = 4, TOKENS = 6 };

static struct shard_plan plan;
static struct heats heats;
static struct heat_map map;

static void open_plan(int64_t tp) {
    struct layer_spec spec = layer_defaults();
    spec.hidden = 1000, spec.n_heads = HEADS, spec.n_kv_heads = KV, spec.head_dim = DIM;
    plan_build(&plan, &spec, tp, 1);
    plan.size[AXIS_T] = TOKENS;
    heats.n = 0;
}

/* Every rank's slice is judged, what was stored and what the reference has; of what was stored is wrong
 * what the rule says. */
static void judge(enum tensor_id id, bool (*wrong)(int rank, const struct place *p)) {
    for (int rank = 0; rank < plan.tp; rank++) {
        const int64_t n = slice_count(&plan, id, rank);
        const struct heat_part part = {&plan, id, rank, true}, reference = {&plan, id, rank, false};
        heat_judge(&heats, reference, 0, n);
        heat_judge(&heats, part, 0, n);
        for (int64_t i = 0; i < n; i++) {
            const struct place p = slice_place(&plan, id, rank, i);
            if (wrong(rank, &p)) heat_blame(&heats, part, &p);
        }
    }
    heat_draw(&heats, &map);
}

static bool nothing(int rank, const struct place *p) { return (void)rank, (void)p, false; }
static bool head_5_but_one_dim(int rank, const struct place *p) {
    return (void)rank, p->index[1] == 5 && p->index[2] > 0 && p->index[0] > 0;
}
static bool rank_1(int rank, const struct place *p) { return (void)p, rank == 1; }
static bool v_of_head_1(int rank, const struct place *p) {
    return (void)rank, p->block[1] == 2 && p->index[1] == 1;
}
static bool last_column(int rank, const struct place *p) { return (void)rank, p->index[1] == 999; }

Test(heat, a_tensor_is_drawn_by_token_and_head_with_the_borders_of_its_ranks) {
    open_plan(4);
    judge(T_O, head_5_but_one_dim);
    cr_expect_str_eq(map.tensor, "o");
    cr_expect_str_eq(map.rows.name, "token");
    cr_expect_str_eq(map.cols.name, "head");
    cr_expect(map.rows.cells == TOKENS && map.rows.n_borders == 0);
    cr_expect(map.cols.cells == HEADS && map.cols.n_borders == 3);
    for (int i = 0; i < 3; i++) cr_expect_eq(map.cols.border[i], 2 * (i + 1));
    cr_expect_str_eq(map.cell[0], "00000000");
    for (int t = 1; t < TOKENS; t++) cr_expect_str_eq(map.cell[t], "00000700", "3 of 4: %s", map.cell[t]);
    cr_expect_str_eq(map.rank, "0030", "15 of 48: %s", map.rank);
}

Test(heat, what_is_right_has_no_map_and_what_nobody_judged_has_no_level) {
    open_plan(2);
    judge(T_O, nothing);
    cr_expect_str_eq(map.tensor, "");
    heats.n = 0;
    const int64_t row = HEADS / 2 * DIM;
    const struct heat_part part = {&plan, T_O, 1, true};
    heat_judge(&heats, part, 2 * row, 3 * row); /* tokens 2 to 4 of the second half */
    const struct place p = slice_place(&plan, T_O, 1, 3 * row);
    heat_blame(&heats, part, &p);
    heat_draw(&heats, &map);
    static const char *const rows[TOKENS] = {"........", "........", "....0000",
                                             "....3000", "....0000", "........"};
    for (int t = 0; t < TOKENS; t++) cr_expect_str_eq(map.cell[t], rows[t], "%d: %s", t, map.cell[t]);
    cr_expect_str_eq(map.rank, ".1");
}

Test(heat, a_whole_that_every_rank_stores_is_told_by_rank) {
    open_plan(2);
    judge(T_NORMED, rank_1);
    cr_expect_str_eq(map.rank, "09");
    cr_expect_eq(map.cols.n_borders, 0);
    for (int t = 0; t < TOKENS; t++)
        cr_expect_eq(strspn(map.cell[t], "5"), 64, "half of what was judged: %s", map.cell[t]);
}

Test(heat, fused_rows_have_k_and_v_behind_q) {
    open_plan(2);
    judge(T_QKV, v_of_head_1);
    cr_expect_str_eq(map.cols.name, "head of q, k, v");
    cr_expect_eq(map.cols.cells, HEADS + 2 * KV);
    cr_expect_str_eq(map.cell[3], "000000000009");
}

Test(heat, of_several_tensors_the_one_with_most_wrong_is_drawn) {
    open_plan(2);
    judge(T_Q, head_5_but_one_dim);
    judge(T_K, rank_1);
    judge(T_V, nothing);
    cr_expect_str_eq(map.tensor, "k");
}

Test(heat, an_axis_longer_than_the_map_is_cut_into_equal_cells) {
    open_plan(1);
    judge(T_NORMED, last_column);
    cr_expect_eq(map.cols.cells, MAP_CELLS);
    cr_expect_eq(strspn(map.cell[0], "0"), 63);
    cr_expect_eq(map.cell[0][63], '1', "1 of 15 is not nothing");
    cr_expect_str_eq(map.rank, "", "there are no ranks");
}

Test(heat, a_failed_case_carries_the_map_of_its_first_wrong_stage_and_a_passed_one_none) {
    const struct one_case mistake = {.mutant = mutant_by_name("packed-view")};
    struct run_output out = run_one("tiny/attention:tp=2", mistake);
    const struct heat_map *m = &out.cases[0].map;
    cr_expect_str_eq(m->tensor, out.cases[0].first.tensor, "k, of which as much is wrong as of v");
    cr_expect(m->rows.cells == 33 && m->cols.cells == 4 && m->cols.n_borders == 1);
    cr_expect_str_eq(m->cell[0], "0000", "the first row of a packed tensor is where it should be");
    cr_expect_str_eq(m->cell[5], "9999");
    cr_expect_str_eq(m->rank, "99");
    run_output_free(&out);
    out = run_one("tiny/attention:tp=2", (struct one_case){0});
    cr_expect_str_eq(out.cases[0].map.tensor, "");
    run_output_free(&out);
}
