/* Does a seeded mistake reach where it says, and no farther? Mutants of this test's own: one that
 * the unsharded run makes too, one in the sum, one in the plan. */
/* SPDX-License-Identifier: MIT */
#include "harness/run.h"
#include "tests/one_case.h"

#include <criterion/criterion.h>
#include <string.h>

/* Of the kernel, plan and shard edges exactly `guilty` (a set of 1 << edge) fail; none: the case
 * passes. */
static void expect_edges(const char *line, const struct mutant *m, unsigned guilty, const char *where) {
    struct run_output out = run_one(line, (struct one_case){.mutant = m});
    const struct case_result *const r = &out.cases[0];
    for (int e = EDGE_KERNEL; e <= EDGE_SHARD; e++)
        cr_expect_eq(r->edge[e].state, guilty >> e & 1 ? EDGE_FAIL : EDGE_OK, "%s, %s: edge %d is %d",
                     m->name, line, e, r->edge[e].state);
    cr_expect_eq(r->verdict, guilty ? CASE_FAILED : CASE_PASSED, "%s, %s", m->name, line);
    cr_expect_eq(strncmp(r->where, where, strlen(where)), 0, "%s, %s: '%s'", m->name, line, r->where);
    run_output_free(&out);
}

/* ---- the table ---- */

Test(mutate, every_row_says_what_it_needs_and_names_are_unique) {
    const struct mutant *m, *other;
    int n = 0;
    for (; (m = mutant_at(n)); n++) {
        const struct mutant_hooks *const h = &m->hooks;
        cr_expect(m->source && m->describes && mutant_by_name(m->name) == m, "%s", m->name);
        cr_expect(m->missing ? !m->exposes && !m->clean : m->exposes != NULL, "%s", m->name);
        cr_expect_eq(!m->missing, h->spec || h->plan || h->call || h->sum || h->inside, "%s: hooks", m->name);
        if (m->same_as)
            cr_expect((other = mutant_by_name(m->same_as)) && !other->missing && other != m, "%s", m->name);
    }
    cr_expect(n >= 2);
}

/* What `shardcheck mutants` runs. */
Test(mutate, the_cases_of_every_row_are_legal_and_of_its_part_and_layout) {
    const struct mutant *m;
    for (int i = 0; (m = mutant_at(i)); i++) {
        const char *const lines[] = {m->exposes, m->clean};
        for (int l = 0; l < 2; l++) {
            struct check_case c;
            struct model model;
            bool has_part;
            if (!lines[l]) continue;
            cr_assert_eq(case_parse(lines[l], &c, &has_part).code, STATUS_OK, "%s: %s", m->name, lines[l]);
            cr_assert_eq(model_load(c.model, &model).code, STATUS_OK);
            const struct status s = case_check(&c, &model, NULL);
            cr_expect_eq(s.code, STATUS_OK, "%s: %s", m->name, s.message);
            cr_expect(has_part && c.part == m->part, "%s: %s", m->name, lines[l]);
            cr_expect(!m->layouts || m->layouts >> c.layout & 1, "%s: %s", m->name, lines[l]);
        }
    }
}

/* One of each kind of hook; all of them are the lane's (make mutants). */
Test(mutate, a_mistake_is_caught_where_it_shows_and_passes_where_it_cannot) {
    static const char *const names[] = {"packed-view",         "kv-heads-tiled", "bias-every-rank",
                                        "residual-every-rank", "expert-twice",   "experts-round-robin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct mutant *const m = mutant_by_name(names[i]);
        struct run_output out = run_one(m->exposes, (struct one_case){.mutant = m});
        const struct case_result *const r = &out.cases[0];
        cr_expect(r->mutant_made && r->verdict == CASE_FAILED, "%s survives %s", m->name, m->exposes);
        cr_expect_eq(r->edge[m->edge].state, EDGE_FAIL, "%s in %s", m->name, m->exposes);
        cr_expect_eq(strncmp(r->likely, m->name, strlen(m->name)), 0, "%s: likely '%s'", m->name, r->likely);
        run_output_free(&out);
        out = run_one(m->clean, (struct one_case){.mutant = m});
        cr_expect_eq(out.cases[0].verdict, CASE_PASSED, "%s in %s: %s", m->name, m->clean,
                     out.cases[0].where);
        run_output_free(&out);
    }
}

enum { KERNEL = 1u << EDGE_KERNEL, PLAN = 1u << EDGE_PLAN, SHARD = 1u << EDGE_SHARD };

/* ---- the unsharded run makes it too ---- */

static bool other_scale(struct call *call, const struct layer_spec *whole, const struct layer_spec *local) {
    (void)whole, (void)local;
    if (call->op == OP_ATTENTION) call->u.attention.scale *= 1.5;
    return call->op == OP_ATTENTION;
}

Test(mutate, a_mistake_of_the_unsharded_run_fails_the_kernel_edge_and_others_leave_it_alone) {
    struct mutant m = {.name = "scale", .hooks.call = other_scale, .unsharded = true};
    expect_edges("tiny/attention:tp=1,tokens=5", &m, KERNEL, "stage attention");
    m.unsharded = false; /* ranks against an honest trunk, of which tp=1 is one too */
    expect_edges("tiny/attention:tp=1,tokens=5", &m, SHARD, "stage attention");
    expect_edges("tiny/attention:tp=2,tokens=5", &m, SHARD, "stage attention, ranks 0-1 of 2");
    expect_edges("tiny/ffn:tp=2,tokens=5", &m, 0, "");
}

/* ---- in the sum ---- */

static bool lose_the_last(const struct placed *at, struct view *parts, int64_t *n_parts) {
    (void)at;
    (void)parts;
    if (*n_parts < 2) return false;
    --*n_parts;
    return true;
}
static bool first_twice(const struct placed *at, struct view *parts, int64_t *n_parts) {
    (void)at;
    if (*n_parts < 2) return false;
    parts[*n_parts - 1] = parts[0];
    return true;
}
static bool other_order(const struct placed *at, struct view *parts, int64_t *n_parts) {
    (void)at;
    if (*n_parts < 2) return false;
    const struct view first = parts[0];
    parts[0] = parts[*n_parts - 1];
    parts[*n_parts - 1] = first;
    return true;
}

Test(mutate, a_mistake_in_the_sum_fails_the_shard_edge_where_there_is_something_to_add_up) {
    const struct mutant lost = {.name = "lost", .hooks.sum = lose_the_last},
                        twice = {.name = "twice", .hooks.sum = first_twice},
                        order = {.name = "order", .hooks.sum = other_order};
    expect_edges("tiny/attention:tp=4,tokens=5", &lost, SHARD, "stage attn_sum");
    expect_edges("tiny/attention:tp=2,tokens=5", &twice, SHARD, "stage attn_sum");
    expect_edges("tiny/ffn:tp=2,ep=2,tokens=5", &lost, SHARD, "stage ffn_sum");
    expect_edges("tiny/attention:tp=1,tokens=5", &lost, 0, "");
    expect_edges("tiny/attention:tp=4,tokens=5", &order, 0, "");
}

Test(mutate, a_mistake_in_the_sum_of_the_unsharded_run_fails_its_kernel_edge) {
    const struct mutant m = {.name = "lost", .hooks.sum = lose_the_last, .unsharded = true};
    struct run_output out =
        run_one("tiny/ffn:tp=1,tokens=5", (struct one_case){.mutant = &m}); /* routed and shared: two parts */
    cr_expect_eq(out.cases[0].edge[EDGE_KERNEL].state, EDGE_FAIL);
    cr_expect_eq(strncmp(out.cases[0].where, "stage ffn_sum", 13), 0, "%s", out.cases[0].where);
    run_output_free(&out);
}

/* ---- in the plan ---- */

/* Every rank believes to hold the first experts. */
static bool first_experts(struct shard_plan *plan, const struct layer_spec *whole) {
    (void)whole;
    bool changed = false;
    for (int r = 0; r < plan->tp; r++) {
        changed |= plan->rank[r][AXIS_E].first != 0;
        plan->rank[r][AXIS_E].first = 0;
    }
    return changed;
}

Test(mutate, a_mistake_in_the_plan_is_in_the_call_and_the_first_stage_that_shows_it_is_named) {
    const struct mutant m = {.name = "experts", .hooks.plan = first_experts};
    /* The plan edge too: indices go on as the rank stored them, and what combine brings with them
     * adds up to something else. */
    expect_edges("tiny/ffn:tp=2,ep=2,tokens=9", &m, SHARD | PLAN, "stage permute, rank 1 of 2");
    expect_edges("tiny/ffn:tp=2,ep=1,tokens=9", &m, 0, "");
}
