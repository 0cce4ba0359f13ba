/* Is the blame put where it belongs?  Kernels and mutants that are wrong in one known way stand in
 * for real ones: the edges that fail, the ranks and the words of the report must be those of that
 * mistake and of no other. */
/* SPDX-License-Identifier: MIT */
#include "harness/run.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"
#include "tests/stand_in.h"
#include "tests/one_case.h"

/* One case; `stage` (-1: none) runs the stand-in. */
static struct run_output run(const char *line, int stage, const struct mutant *mutant) {
    return run_one(line,
                   (struct one_case){.stage = stage, .kernel = stage < 0 ? NULL : &fake, .mutant = mutant});
}

enum { KERNEL = 1u << EDGE_KERNEL, PLAN = 1u << EDGE_PLAN, SHARD = 1u << EDGE_SHARD };

/* Exactly the edges `guilty` (a set of 1 << edge) fail. */
static void expect_edges(const struct case_result *r, unsigned guilty) {
    for (int e = 0; e < EDGE_COUNT; e++)
        cr_expect_eq(r->edge[e].state == EDGE_FAIL, guilty >> e & 1, "%s: edge %s is %s", r->line,
                     edge_name((enum edge)e), edge_state_name(r->edge[e].state));
    cr_expect_eq(r->verdict, guilty ? CASE_FAILED : CASE_PASSED, "%s", r->line);
}

#define ATTENTION "tiny/attention:tp=2,tokens=5"
#define FFN "tiny/ffn:tp=2,tokens=5"

/* ---- NaN ---- */

static const char *write_nothing(const struct call *call, void *scratch, void *stream) {
    (void)call, (void)scratch, (void)stream;
    return NULL;
}

/* Partial sums are judged by their own answers, so there the ranks' NaN is theirs too. */
Test(run_blame, nan_is_the_kernels_that_stored_it_and_nobody_elses) {
    static const struct {
        const char *kernel, *line;
        int stage;
        unsigned guilty;
    } rows[] = {
        {"rms_norm", ATTENTION, S_ATTN_NORM, KERNEL},
        {"linear_simt", ATTENTION, S_QKV_PROJ, KERNEL},
        {"rope", ATTENTION, S_ROPE, KERNEL},
        {"attention_simt", ATTENTION, S_ATTENTION, KERNEL},
        {"linear_simt", ATTENTION, S_O_PROJ, KERNEL | SHARD},
        {"rms_norm", FFN, S_FFN_NORM, KERNEL},
        {"linear_simt", FFN, S_ROUTER, KERNEL},
        {"linear_simt", FFN, S_GATE_UP, KERNEL},
        {"silu_mul", FFN, S_ACTIVATION, KERNEL},
        {"linear_simt", FFN, S_DOWN, KERNEL | SHARD},
        {"combine_simt", FFN, S_COMBINE, KERNEL | SHARD},
        {"silu_mul", FFN, S_SHARED_ACTIVATION, KERNEL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        stand_in(rows[i].kernel, write_nothing);
        struct run_output out = run(rows[i].line, rows[i].stage, NULL);
        const struct case_result *const r = &out.cases[0];
        expect_edges(r, rows[i].guilty);
        cr_expect_str_eq(r->first.stage, stage_table[rows[i].stage].name);
        for (int s = 0; s < r->n_stages; s++)
            cr_expect_eq(r->stage[s].edge[EDGE_KERNEL].state == EDGE_FAIL,
                         !strcmp(r->stage[s].stage, stage_table[rows[i].stage].name), "%s: %s",
                         r->first.stage, r->stage[s].stage);
        run_output_free(&out);
    }
}

/* ---- what several ranks brought ---- */

static bool lose_the_last(const struct placed *at, struct view *parts, int64_t *n_parts) {
    (void)at;
    (void)parts;
    if (*n_parts < 2) return false;
    --*n_parts;
    return true;
}

/* What a person reads of the case; the caller frees. */
static char *text_of(const struct case_result *r) {
    char *text = NULL;
    size_t size;
    FILE *const file = open_memstream(&text, &size);
    cr_assert(file);
    report_text_case(file, r, 0);
    fclose(file);
    return text;
}

static void expect_text(const struct case_result *r, const char *part) {
    char *const text = text_of(r);
    cr_expect(strstr(text, part), "no '%s' in:\n%s", part, text);
    free(text);
}

Test(run_blame, a_wrong_sum_is_of_all_its_ranks_and_not_of_the_first) {
    const struct mutant lost = {.name = "lost", .hooks.sum = lose_the_last};
    struct run_output out = run("tiny/attention:tp=4,tokens=5", -1, &lost);
    const struct case_result *const r = &out.cases[0];
    expect_edges(r, SHARD);
    cr_expect(!strcmp(r->where, "stage attn_sum, ranks 0-3 of 4, every element"), "%s", r->where);
    cr_expect(r->first.rank == 0 && r->first.to_rank == 3 && r->worst.to_rank == 3);
    expect_text(r, "first     ranks 0-3 added up, token 0 channel ");
    run_output_free(&out);
}

/* ---- bits ---- */

static const char *change_a_bit_of_ranks(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    float *const out = call->u.linear.out.data;
    if (calls++) out[5] = nextafterf(out[5], 0);
    return problem;
}

Test(run_blame, legal_values_with_other_bits_than_promised_are_called_that) {
    stand_in("linear_simt", change_a_bit_of_ranks);
    struct run_output out = run(ATTENTION ",dtype=fp32", S_QKV_PROJ, NULL);
    const struct case_result *const r = &out.cases[0];
    expect_edges(r, SHARD);
    cr_expect(r->edge[EDGE_SHARD].other_bits == 2 && r->edge[EDGE_SHARD].outside == 2, "one a rank");
    expect_text(r, "shard FAIL (legal, but other bits where the same were promised, 2 of ");
    expect_text(r, "; a legal value, but not the bits of the unsharded run, as promised by fake");
    run_output_free(&out);
}

static const char *change_one_and_spoil_one(const struct call *call, void *scratch, void *stream) {
    const bool of_rank = calls > 0;
    const char *const problem = change_a_bit_of_ranks(call, scratch, stream);
    if (of_rank) ((float *)call->u.linear.out.data)[9] = 1e9f;
    return problem;
}

Test(run_blame, where_values_are_wrong_too_the_margin_says_how_far) {
    stand_in("linear_simt", change_one_and_spoil_one);
    struct run_output out = run(ATTENTION ",dtype=fp32", S_QKV_PROJ, NULL);
    const struct case_result *const r = &out.cases[0];
    cr_expect(r->edge[EDGE_SHARD].other_bits == 2 && r->edge[EDGE_SHARD].outside == 4);
    cr_expect(r->edge[EDGE_SHARD].margin > 1);
    expect_text(r, "shard FAIL (margin ");
    run_output_free(&out);
}

/* ---- routing ---- */

/* The last choice of token 2 becomes the worst expert there is. */
static const char *choose_the_worst(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    const struct route_args *const a = &call->u.route;
    const float *const logit = (const float *)a->logits.data + 2 * a->n_experts;
    int32_t worst = 0;
    for (int32_t e = 0; e < a->n_experts; e++)
        if (logit[e] < logit[worst]) worst = e;
    ((int32_t *)a->ids.data)[2 * a->top_k + a->top_k - 1] = worst;
    return problem;
}

Test(run_blame, a_wrong_choice_of_experts_is_shown_with_both_scores) {
    stand_in("route_simt", choose_the_worst);
    struct run_output out = run(FFN, S_ROUTE, NULL);
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->edge[EDGE_KERNEL].state, EDGE_FAIL);
    cr_expect(!strcmp(r->first.tensor, "ids") && !strcmp(r->first.where, "token 2 choice 3"), "%s",
              r->first.where);
    char *const text = text_of(r);
    cr_expect(strstr(text, " chosen, not expert ") && strstr(text, "; the top "), "%s", text);
    cr_expect(!strstr(text, "NaN") && !strstr(text, "nan"), "%s", text);
    free(text);
    run_output_free(&out);
}

/* Of two equal experts the higher one is taken, where the lower one was; its gate is the same. */
static const char *take_the_higher(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    const struct route_args *const a = &call->u.route;
    const float *const logit = a->logits.data, *const bias = a->bias.data;
    for (int64_t t = 0; t < a->n_tokens; t++)
        for (int64_t e = a->n_experts - 2; e >= 0; e--) {
            int32_t *const ids = (int32_t *)a->ids.data + t * a->top_k;
            const bool equal = logit[t * a->n_experts + e] == logit[t * a->n_experts + e + 1] &&
                               (!bias || bias[e] == bias[e + 1]);
            int64_t place = -1, next = -1;
            for (int64_t j = 0; j < a->top_k; j++) {
                if (ids[j] == e) place = j;
                if (ids[j] == e + 1) next = j;
            }
            if (equal && place >= 0 && next < 0) ids[place]++;
        }
    return problem;
}

static struct contract either_of_equals(const struct call *call) {
    struct contract c = honest->contract(call);
    c.u.route.ties_lower = false;
    return c;
}

/* torch.topk promises no order of equal values, so a kernel has to say so to be held to one. */
Test(run_blame, a_tie_may_go_to_either_expert_unless_the_kernel_declares_to_which) {
    static const char ties[] = "tiny/ffn:tp=2,tokens=9,fill=ties";
    for (int promised = 0; promised < 2; promised++) {
        stand_in("route_simt", take_the_higher);
        if (!promised) fake.contract = either_of_equals;
        struct run_output out = run(ties, S_ROUTE, NULL);
        const struct case_result *const r = &out.cases[0];
        expect_edges(r, promised ? KERNEL : 0);
        cr_expect(r->edge[EDGE_KERNEL].ambiguous > 0, "ties are counted");
        cr_expect(!promised || strstr(r->first.note, "the lower index wins a tie"), "%s", r->first.note);
        run_output_free(&out);
    }
    stand_in("route_simt", take_the_higher); /* where nothing is equal it is honest */
    struct run_output out = run("tiny/ffn:tp=2,tokens=9", S_ROUTE, NULL);
    expect_edges(&out.cases[0], 0);
    run_output_free(&out);
}

/* ---- what the plan edge looks at ---- */

/* 160 rows of 8 experts, too many to recompute all: four rows as everywhere, and one of each
 * expert. */
Test(run_blame, a_sample_of_the_plan_edge_holds_a_row_of_every_expert, .timeout = 120) {
    struct run_output out =
        run("tiny/ffn:tp=1,tokens=40,hidden=2048,experts=8,width=512,shared=64", -1, NULL);
    const struct case_result *const r = &out.cases[0];
    expect_edges(r, 0);
    for (int s = 0; s < r->n_stages; s++) {
        const struct edge_result *const plan = &r->stage[s].edge[EDGE_PLAN];
        if (strcmp(r->stage[s].stage, "gate_up") != 0) continue;
        cr_expect(plan->rows == 160 && plan->sampled_rows >= 8 && plan->sampled_rows <= 12, "%lld of %lld",
                  (long long)plan->sampled_rows, (long long)plan->rows);
        cr_expect_eq(plan->elements, plan->sampled_rows * 1024);
    }
    run_output_free(&out);
}

/* ---- mistakes that cannot show ---- */

Test(run_blame, a_mutant_that_changes_nothing_says_so_beside_its_pass) {
    static const struct {
        const char *line, *mutant, *text;
        bool made;
    } rows[] = {
        {"tiny/attention:tp=1,tokens=5,layout=contig", "global-head-count",
         "  (mutant invisible here: it changes no call)", false},
        {"tiny/attention:tp=1,tokens=1", "packed-view",
         "  (mutant invisible here: it changes calls, and every value stored is right all the same)", true},
        {"tiny/attention:tp=2,tokens=5", "packed-view", NULL, true},
        {"tiny/attention:tp=2,tokens=5", NULL, NULL, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct run_output out = run(rows[i].line, -1, rows[i].mutant ? mutant_by_name(rows[i].mutant) : NULL);
        const struct case_result *const r = &out.cases[0];
        cr_expect_str_eq(r->mutant, rows[i].mutant ? rows[i].mutant : "");
        cr_expect_eq(r->mutant_made, rows[i].made, "%s", rows[i].line);
        char *const text = text_of(r);
        cr_expect(rows[i].text ? strstr(text, rows[i].text) != NULL : !strstr(text, "invisible"), "%s", text);
        free(text);
        run_output_free(&out);
    }
}

Test(run_blame, a_mutant_of_the_sum_is_invisible_where_nothing_is_added_up) {
    const struct mutant lost = {.name = "lost", .hooks.sum = lose_the_last};
    struct run_output out = run("tiny/attention:tp=1,tokens=5", -1, &lost);
    cr_expect(!out.cases[0].mutant_made && out.cases[0].verdict == CASE_PASSED);
    expect_text(&out.cases[0], "(mutant invisible here: it changes no call)");
    run_output_free(&out);
}
