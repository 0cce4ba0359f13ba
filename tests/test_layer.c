/* Do the two tables of the layer say one consistent thing? Every axes string parses, every error of
 * the parser is an error, every row is complete, and every stage reads only what was made before
 * it. */
/* SPDX-License-Identifier: MIT */
#include "layer/layer.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* The grammar the other way round: what axes_parse understood, as text. */
static void print_block(char *text, size_t size, const struct axis_block *b) {
    static const char *const letter[AXIS_COUNT] = {
        [AXIS_T] = "t", [AXIS_M] = "m",       [AXIS_H] = "h",       [AXIS_G] = "g",
        [AXIS_D] = "d", [AXIS_E] = "e",       [AXIS_K] = "k",       [AXIS_F] = "f",
        [AXIS_S] = "s", [AXIS_N] = "n",       [AXIS_P] = "p",       [AXIS_R] = "r",
        [AXIS_B] = "b", [AXIS_PAGE] = "page", [AXIS_SLOT] = "slot", [AXIS_ENTRY] = "entry",
    };
    static const char *const group[] = {"", "/tp", "/ep", "/etp"};
    if (b->name == AXIS_NUMBER)
        snprintf(text, size, "%lld", (long long)b->number);
    else
        snprintf(text, size, "%s%s", letter[b->name], group[b->group]);
}

static void print_axes(char *text, size_t size, const struct axes *a) {
    static const char *const partial[] = {"", " +tp", " +ep", " +etp"};
    char block[16];
    text[0] = 0;
    for (int i = 0; i < a->n; i++) {
        const struct axis *const axis = &a->axis[i];
        snprintf(text + strlen(text), size - strlen(text), "%s%s", i ? " " : "",
                 axis->n_blocks > 1 ? "(" : "");
        for (int b = 0; b < axis->n_blocks; b++) {
            print_block(block, sizeof block, &axis->block[b]);
            snprintf(text + strlen(text), size - strlen(text), "%s%s", b ? " " : "", block);
        }
        if (axis->n_blocks > 1) snprintf(text + strlen(text), size - strlen(text), ")");
        if (axis->extra) snprintf(text + strlen(text), size - strlen(text), "+%lld", (long long)axis->extra);
    }
    snprintf(text + strlen(text), size - strlen(text), "%s", partial[a->partial]);
}

static void expect_round_trip(const char *text) {
    struct axes a;
    char again[128];
    const char *const problem = axes_parse(text, &a);
    cr_assert_null(problem, "%s: %s", text, problem);
    print_axes(again, sizeof again, &a);
    cr_expect_str_eq(again, text);
}

Test(layer, every_placement_of_the_table_parses_and_prints_back) {
    for (int i = 0; i < T_COUNT; i++) expect_round_trip(tensor_table[i].axes);
}

Test(layer, the_grammar_has_no_other_reading) {
    static const char *const texts[] = {
        "t",           "7",      "page slot",     "t (h/tp g/tp) d", "e/ep 2 f/etp m", "t m +ep",
        "n/ep m +etp", "e/ep+1", "(h g)+2 t +tp", "(h g d)",         "t m d e k"};
    struct axes a;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) expect_round_trip(texts[i]);
    cr_assert_null(axes_parse("  t   (h/tp  g/tp )  +tp ", &a), "spaces mean nothing");
    cr_expect(a.n == 2 && a.axis[1].n_blocks == 2 && a.partial == GROUP_TP);
    cr_assert_null(axes_parse("12 t", &a));
    cr_expect(a.axis[0].block[0].name == AXIS_NUMBER && a.axis[0].block[0].number == 12);
    cr_assert_null(axes_parse("(t)", &a));
    cr_expect_eq(a.axis[0].n_blocks, 1);
}

Test(layer, a_string_outside_the_grammar_is_an_error) {
    static const char *const texts[] = {
        "",       " ",         "x",          "T",   "tm",   "t/",    "t/xp",        "t/tpx", "t/ tp",
        "t//tp",  "t/tp/ep",   "(h/tp g/tp", "(",   "()",   "( )",   ")",           "h)",    "(h)g",
        "(h,g)",  "(h g d m)", "(h (g))",    "+tp", "t +",  "t +xp", "t +tp m",     "t+tp",  "t +tp +tp",
        "t + tp", "pages",     "-1",         "1.5", "t\tm", "t,m",   "t m d e k s", "2/tp",  "2t",
        "t m*",   "t+1+1",     "\xff",       "+",   "/tp",  "(h/)",  "t m +etpp",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct axes a;
        const char *const problem = axes_parse(texts[i], &a);
        cr_expect(problem && *problem, "'%s' was accepted", texts[i]);
    }
}

Test(layer, numbers_of_a_placement_end_at_2_to_the_40) {
    struct axes a;
    cr_expect_null(axes_parse("1099511627776 m+1099511627776", &a));
    cr_expect(axes_parse("1099511627777", &a));
    cr_expect(axes_parse("9999999999999999999", &a));
    cr_expect(axes_parse("t+99999999999999999999", &a));
}

Test(layer, every_tensor_has_a_name_of_its_own_and_a_complete_row) {
    for (int i = 0; i < T_COUNT; i++) {
        const struct tensor_row *const row = &tensor_table[i];
        cr_assert(row->name && *row->name && row->axes && *row->axes, "tensor %d", i);
        cr_expect_eq(tensor_by_name(row->name), i, "%s", row->name);
        cr_expect(row->role >= ROLE_INPUT && row->role <= ROLE_INDEX);
        cr_expect(row->dtype == -1 || row->dtype == DTYPE_F32 || row->dtype == DTYPE_I32, "%s", row->name);
        for (int j = 0; j < i; j++) cr_expect_str_neq(row->name, tensor_table[j].name);
    }
    cr_expect_eq(tensor_by_name("nobody"), T_NONE);
    cr_expect_eq(tensor_by_name(""), T_NONE);
}

Test(layer, only_partial_tensors_carry_a_sum_and_all_of_them_do) {
    for (int i = 0; i < T_COUNT; i++) {
        struct axes a;
        cr_assert_null(axes_parse(tensor_table[i].axes, &a));
        cr_expect_eq(a.partial != GROUP_NONE, tensor_table[i].role == ROLE_PARTIAL, "%s",
                     tensor_table[i].name);
        if (tensor_table[i].role == ROLE_INDEX)
            for (int x = 0; x < a.n; x++)
                cr_expect_eq(a.axis[x].block[0].group, GROUP_NONE, "%s", tensor_table[i].name);
    }
}

Test(layer, every_axis_letter_goes_with_one_group) {
    for (int i = 0; i < T_COUNT; i++) {
        struct axes a;
        cr_assert_null(axes_parse(tensor_table[i].axes, &a));
        for (int x = 0; x < a.n; x++)
            for (int b = 0; b < a.axis[x].n_blocks; b++) {
                const enum rank_group g = a.axis[x].block[b].group;
                switch (a.axis[x].block[b].name) {
                case AXIS_H:
                case AXIS_G:
                case AXIS_S: cr_expect_eq(g, GROUP_TP, "%s", tensor_table[i].name); break;
                case AXIS_F: cr_expect_eq(g, GROUP_ETP, "%s", tensor_table[i].name); break;
                case AXIS_N: cr_expect_eq(g, GROUP_EP, "%s", tensor_table[i].name); break;
                case AXIS_E: cr_expect(g == GROUP_EP || g == GROUP_NONE, "%s", tensor_table[i].name); break;
                default: cr_expect_eq(g, GROUP_NONE, "%s", tensor_table[i].name);
                }
            }
    }
}

static int list_length(const enum tensor_id *list) {
    int n = 0;
    while (n <= MAX_STAGE_IO && list[n] != T_NONE) n++;
    return n;
}

Test(layer, every_stage_has_a_name_of_its_own_and_a_complete_row) {
    for (int s = 0; s < S_COUNT; s++) {
        const struct stage_row *const row = &stage_table[s];
        cr_assert(row->name && *row->name, "stage %d", s);
        cr_expect_eq(stage_by_name(row->name), s);
        cr_expect(row->op >= 0 && row->op < OP_COUNT && *op_name(row->op));
        cr_expect(row->part == PART_ATTENTION || row->part == PART_FFN);
        cr_expect(list_length(row->in) > 0 && list_length(row->in) <= MAX_STAGE_IO, "%s", row->name);
        cr_expect(list_length(row->out) > 0 && list_length(row->out) <= MAX_STAGE_IO, "%s", row->name);
        for (int j = 0; j < s; j++) cr_expect_str_neq(row->name, stage_table[j].name);
        if (s > 0) cr_expect(stage_table[s - 1].part <= row->part, "the parts follow one another");
    }
    cr_expect_eq(stage_by_name("nobody"), -1);
    for (int a = 1; a < AXIS_COUNT; a++) cr_expect(axis_label((enum axis_name)a)[0], "axis %d has a word", a);
}

/* A layer with everything, one with the routed experts only, a dense one, and a bare one. */
static const struct layer_spec specs[] = {
    {.qk_norm = true,
     .rot_dim = 8,
     .moe = true,
     .shared_width = 8,
     .qkv_bias = true,
     .o_bias = true,
     .select_bias = true},
    {.rot_dim = 8, .moe = true},
    {.rot_dim = 8, .shared_width = 8},
    {.shared_width = 8},
};

Test(layer, every_stage_reads_only_what_was_made_before_it) {
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        for (enum part part = 0; part < PART_COUNT; part++) {
            bool made[T_COUNT] = {false};
            for (int id = 0; id < T_COUNT; id++)
                made[id] = tensor_table[id].role == ROLE_INPUT || tensor_table[id].role == ROLE_WEIGHT ||
                           tensor_table[id].role == ROLE_INDEX;
            for (int s = 0; s < S_COUNT; s++) {
                if (!stage_applies(s, part, &specs[i])) continue;
                for (const enum tensor_id *id = stage_table[s].in; *id != T_NONE; id++)
                    cr_expect(made[*id] || !tensor_present(*id, &specs[i]), "spec %zu: %s reads %s too early",
                              i, stage_table[s].name, tensor_table[*id].name);
                for (const enum tensor_id *id = stage_table[s].out; *id != T_NONE; id++) made[*id] = true;
            }
            cr_expect(made[T_Y], "spec %zu: nobody makes the output of %s", i, part ? "ffn" : "attention");
        }
}

static bool listed(const enum tensor_id *list, enum tensor_id id) {
    for (; *list != T_NONE; list++)
        if (*list == id) return true;
    return false;
}

Test(layer, a_fused_stage_reads_and_makes_what_the_stages_it_stands_for_do) {
    for (int s = 0; s < S_COUNT; s++) {
        const struct stage_row *const row = &stage_table[s];
        if (!row->fuses) continue;
        cr_assert(row->fuses > 1 && s + row->fuses < S_COUNT, "%s", row->name);
        bool made[T_COUNT] = {false};
        for (int of = s + 1; of <= s + row->fuses; of++) {
            cr_expect(stage_table[of].part == row->part && !stage_table[of].fuses, "%s", row->name);
            cr_expect_eq(stage_table[of].present, row->present, "%s", row->name);
            for (const enum tensor_id *id = stage_table[of].in; *id != T_NONE; id++)
                cr_expect(made[*id] || listed(row->in, *id), "%s does not read %s", row->name,
                          tensor_table[*id].name);
            for (const enum tensor_id *id = stage_table[of].out; *id != T_NONE; id++) made[*id] = true;
        }
        for (const enum tensor_id *id = row->out; *id != T_NONE; id++) cr_expect(made[*id], "%s", row->name);
        for (enum part part = 0; part < PART_COUNT; part++) cr_expect_not(stage_applies(s, part, &specs[0]));
    }
}

Test(layer, what_a_stage_makes_is_never_an_input_a_weight_or_an_index) {
    bool made[T_COUNT] = {false}, read[T_COUNT] = {false};
    for (int s = 0; s < S_COUNT; s++) {
        for (const enum tensor_id *id = stage_table[s].out; *id != T_NONE; id++) {
            const enum tensor_role role = tensor_table[*id].role;
            cr_expect(role == ROLE_ACTIVATION || role == ROLE_PARTIAL || role == ROLE_LOCAL, "%s makes %s",
                      stage_table[s].name, tensor_table[*id].name);
            made[*id] = true;
        }
        for (const enum tensor_id *id = stage_table[s].in; *id != T_NONE; id++) read[*id] = true;
    }
    for (int id = 0; id < T_COUNT; id++) {
        const enum tensor_role role = tensor_table[id].role;
        const bool computed = role == ROLE_ACTIVATION || role == ROLE_PARTIAL || role == ROLE_LOCAL;
        cr_expect_eq(made[id], computed, "%s", tensor_table[id].name);
        cr_expect(read[id] || id == T_Y || id == T_ROW_SLOT || id == T_QKV, "nobody reads %s",
                  tensor_table[id].name);
    }
}

Test(layer, only_sums_read_the_partial_tensors_of_all_ranks) {
    for (int s = 0; s < S_COUNT; s++)
        for (const enum tensor_id *id = stage_table[s].in; *id != T_NONE; id++) {
            if (tensor_table[*id].role != ROLE_PARTIAL) continue;
            cr_expect(stage_table[s].op == OP_SUM || (s == S_COMBINE && *id == T_DOWN), "%s reads %s",
                      stage_table[s].name, tensor_table[*id].name);
        }
}

/* Read or made by a step of the layer; a bias is read only where there is one. */
static bool is_used(enum tensor_id id, const struct layer_spec *spec) {
    if ((id == T_B_QKV && !spec->qkv_bias) || (id == T_B_O && !spec->o_bias)) return false;
    if (id == T_SELECT_BIAS && !spec->select_bias) return false;
    if ((id == T_MOE_PART && !spec->moe) || (id == T_SHARED_PART && !spec->shared_width)) return false;
    for (int s = 0; s < S_COUNT; s++)
        if (stage_applies(s, stage_table[s].part, spec) &&
            (listed(stage_table[s].in, id) || listed(stage_table[s].out, id)))
            return true;
    return false;
}

Test(layer, a_tensor_is_absent_exactly_where_no_step_of_the_layer_uses_it) {
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        for (enum tensor_id id = 0; id < T_COUNT; id++)
            cr_expect_eq(tensor_present(id, &specs[i]), is_used(id, &specs[i]), "spec %zu: %s", i,
                         tensor_table[id].name);
}

/* What an element adds up, by hand for a layer whose sizes are all different primes. */
Test(layer, terms_are_the_axes_that_the_output_lacks) {
    const struct layer_spec spec = {.hidden = 2,
                                    .n_heads = 3,
                                    .n_kv_heads = 5,
                                    .head_dim = 7,
                                    .moe = true,
                                    .n_experts = 11,
                                    .top_k = 13,
                                    .expert_width = 17,
                                    .shared_width = 19};
    const struct {
        int stage;
        int64_t terms;
    } want[] = {{S_QKV_PROJ, 2},          {S_O_PROJ, 3 * 7},     {S_ROUTER, 2},
                {S_GATE_UP, 2},           {S_GATE_UP_ACT, 2},    {S_DOWN, 17},
                {S_COMBINE, 13 + 17},     {S_SHARED_GATE_UP, 2}, {S_SHARED_DOWN, 19},
                {S_SHARED_GATE_UP_ACT, 2}};
    int64_t size[AXIS_COUNT], n_adding = 0;
    layer_sizes(&spec, size);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        cr_expect_eq(stage_terms(want[i].stage, size), want[i].terms, "%s", stage_table[want[i].stage].name);
    for (int s = 0; s < S_COUNT; s++) n_adding += stage_terms(s, size) > 0;
    cr_expect_eq(n_adding, sizeof want / sizeof *want, "no other stage adds products up");
    cr_expect(tensor_fan_in(T_W_O, size) == 21 && tensor_fan_in(T_W_DOWN, size) == 17);
    cr_expect_eq(tensor_fan_in(T_NORM_W, size), 0);
    for (enum tensor_id id = 0; id < T_COUNT; id++) cr_expect_eq(tensor_continues(id), id == T_DOWN);
}

Test(layer, the_defaults_are_a_plain_llama_layer) {
    const struct layer_spec d = layer_defaults();
    cr_expect(d.causal && !d.qkv_bias && !d.o_bias && !d.qk_norm && !d.moe && !d.select_bias);
    cr_expect(d.rope_pairing == ROPE_NEOX && d.n_group == 1 && d.topk_group == 1 && d.routed_scale == 1);
}
