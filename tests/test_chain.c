/* Does the chain edge see what the stage edges cannot? The stages composed on small twins agree
 * with reference/plain.c for every preset, phase and rank count; a mistake that everybody makes,
 * the reference too, passes every other edge and fails this one. */
/* SPDX-License-Identifier: MIT */
#include "harness/chain.h"
#include "harness/cli/options.h"
#include "tests/one_case.h"

#include <criterion/criterion.h>
#include <omp.h>
#include <string.h>

/* ---- what agrees ---- */

static char likely[400]; /* of the last edge */

static struct edge_result edge_of(const char *line, const struct mutant *fault) {
    struct check_case c;
    struct model model;
    bool has_part;
    struct findings findings;
    struct edge_result edge = {0};
    omp_set_num_threads(1); /* thousands of tiny calls */
    cr_assert_eq(case_parse(line, &c, &has_part).code, STATUS_OK, "%s", line);
    cr_assert_eq(model_load(c.model, &model).code, STATUS_OK, "%s", line);
    const struct status s = case_check(&c, &model, NULL);
    cr_assert_eq(s.code, STATUS_OK, "%s: %s", line, s.message);
    findings_init(&findings);
    const struct layer_spec spec = case_spec(&c, &model);
    const char *const unknown =
        chain_edge(&spec, case_layer(&c, &model), &c, fault, &edge, &findings, likely, sizeof likely);
    cr_assert_null(unknown, "%s: %s", line, unknown);
    return edge;
}

static void expect_agreement(const char *line) {
    const struct edge_result e = edge_of(line, NULL);
    cr_expect_eq(e.state, EDGE_OK, "%s: state %d margin %g", line, e.state, e.margin);
    cr_expect(e.margin <= 1 && e.elements > 0, "%s", line);
}

Test(chain, presets_agree_with_the_plain_layer_in_every_phase_and_at_every_rank_count) {
    static const char *const cuts[] = {"attention:tp=1", "attention:tp=2", "attention:tp=8",  "ffn:tp=1",
                                       "ffn:tp=2",       "ffn:tp=8",       "ffn:tp=4,layer=0"};
    for (const char *const *preset = model_preset_names(); *preset; preset++)
        for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
            for (enum phase p = 0; p < PHASE_COUNT; p++) {
                char line[200];
                snprintf(line, sizeof line, "%s/%s,phase=%s", *preset, cuts[i], phase_name(p));
                expect_agreement(line);
            }
}

Test(chain, switches_of_the_layer_agree_with_the_plain_layer) {
    static const char *const lines[] = {
        "tiny/attention:tp=16,heads=16,kv=2",
        "tiny/attention:tp=2,bias=qkvo",
        "tiny/attention:tp=4,bias=qkv,qk_norm=off",
        "tiny/attention:tp=2,rot=4",
        "tiny/attention:tp=3,heads=6,kv=3",
        "tiny/ffn:tp=2,groups=4,topk_groups=2,top=3",
        "tiny/ffn:tp=4,ep=2,score=softmax,renorm=off",
        "tiny/ffn:tp=8,ep=8,shared=0",
        "param2-17b/ffn:tp=6,ep=2,experts=12,width=768,shared=24,top=5",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) expect_agreement(lines[i]);
}

/* ---- what everybody gets wrong ---- */

static bool swap_k_and_v(struct call *call, const struct layer_spec *whole, const struct layer_spec *local) {
    (void)whole, (void)local;
    if (call->op != OP_SPLIT) return false;
    const int64_t k = call->u.split.first[1];
    call->u.split.first[1] = call->u.split.first[2];
    call->u.split.first[2] = k;
    return true;
}
static bool usual_theta(struct layer_spec *spec) {
    const bool changed = spec->rope_theta != 1e4;
    spec->rope_theta = 1e4;
    return changed;
}
static bool ignore_groups(struct call *call, const struct layer_spec *whole, const struct layer_spec *local) {
    (void)whole, (void)local;
    if (call->op != OP_ROUTE || call->u.route.n_group == 1) return false;
    call->u.route.n_group = call->u.route.topk_group = 1;
    return true;
}
static bool lose_the_last_part(const struct placed *at, struct view *parts, int64_t *n_parts) {
    (void)at;
    (void)parts;
    if (*n_parts < 2) return false;
    --*n_parts;
    return true;
}
static bool exchange_caches(struct call *call, const struct layer_spec *whole,
                            const struct layer_spec *local) {
    (void)whole, (void)local;
    if (call->op != OP_KV_WRITE) return false;
    const struct view k = call->u.kv_write.k;
    call->u.kv_write.k = call->u.kv_write.v;
    call->u.kv_write.v = k;
    return true;
}

static const struct {
    struct mutant fault;
    const char *seen, *unseen; /* a case in which the chain sees it; one in which it changes nothing */
} faults[] = {
    {{.name = "k and v swapped in the split", .hooks.call = swap_k_and_v}, "tiny/attention:tp=2", NULL},
    {{.name = "theta is 1e4", .hooks.spec = usual_theta},
     "llama-3.1-8b/attention:tp=4,hidden=64,dim=16",
     NULL},
    {{.name = "groups are ignored", .hooks.call = ignore_groups},
     "tiny/ffn:tp=2,groups=4,topk_groups=2,top=3",
     "tiny/ffn:tp=2,groups=1,topk_groups=1"},
    {{.name = "the last rank's partial is not collected", .hooks.sum = lose_the_last_part},
     "tiny/attention:tp=4",
     "tiny/attention:tp=1"},
    {{.name = "k is written where v belongs", .hooks.call = exchange_caches},
     "tiny/attention:tp=2,phase=chunked",
     NULL},
};

Test(chain, a_mistake_that_the_reference_makes_too_fails_the_chain_and_no_other_edge) {
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct run_output out = run_one(faults[i].seen, (struct one_case){.fault = &faults[i].fault});
        const struct case_result *const r = &out.cases[0];
        for (int e = 0; e < EDGE_ORACLE; e++)
            cr_expect_eq(r->edge[e].state, EDGE_OK, "%s: edge %d: %s", faults[i].fault.name, e, r->where);
        cr_expect_eq(r->edge[EDGE_CHAIN].state, EDGE_FAIL, "%s was not seen", faults[i].fault.name);
        cr_expect(r->edge[EDGE_CHAIN].margin > 1e3, "%s: margin %g", faults[i].fault.name,
                  r->edge[EDGE_CHAIN].margin);
        cr_expect_eq(r->verdict, CASE_FAILED);
        cr_expect_eq(strncmp(r->where, "chain, ", 7), 0, "%s", r->where);
        cr_expect(strstr(r->first.note, "plain.c"), "%s", r->first.note);
        cr_expect_str_empty(r->likely, "%s is no mistake of the table: %s", faults[i].fault.name, r->likely);
        run_output_free(&out);
        if (!faults[i].unseen) continue;
        out = run_one(faults[i].unseen, (struct one_case){.fault = &faults[i].fault});
        cr_expect_eq(out.cases[0].verdict, CASE_PASSED, "%s in %s", faults[i].fault.name, faults[i].unseen);
        run_output_free(&out);
    }
}

/* ---- what proves nothing ---- */

/* The attention of preset tiny at tp 2 with one thing about it changed. */
static const char *edge_of_tiny(void (*change)(struct layer_spec *spec), struct edge_result *edge) {
    struct check_case c;
    struct model model;
    bool has_part;
    struct findings findings;
    *edge = (struct edge_result){0};
    cr_assert_eq(case_parse("tiny/attention:tp=2", &c, &has_part).code, STATUS_OK);
    cr_assert_eq(model_load(c.model, &model).code, STATUS_OK);
    struct layer_spec spec = case_spec(&c, &model);
    change(&spec);
    findings_init(&findings);
    return chain_edge(&spec, 0, &c, NULL, edge, &findings, likely, sizeof likely);
}

/* A score's last bit is worth more than a weight. */
static void enormous_scale(struct layer_spec *spec) { spec->attn_scale = 1e17; }
static void unknown_pairing(struct layer_spec *spec) { spec->rope_pairing = (enum rope_pairing)7; }

Test(chain, a_bound_that_could_explain_anything_is_too_loose_and_not_ok) {
    struct edge_result edge;
    cr_assert_null(edge_of_tiny(enormous_scale, &edge));
    cr_expect_eq(edge.state, EDGE_LOOSE, "state %d, margin %g", edge.state, edge.margin);
}

Test(chain, a_feature_that_plain_c_does_not_know_is_named) {
    struct edge_result edge;
    cr_expect_str_eq(edge_of_tiny(unknown_pairing, &edge), "rope_pairing");
    cr_expect_eq(edge.state, EDGE_NOT_RUN);
}

/* The table's mistakes inside kernels, made by the composition's reference. */
Test(chain, a_mistake_inside_every_kernel_is_seen_where_it_shows) {
    static const char *const names[] = {"kv-heads-tiled", "qkv-even-chunks",     "expert-twice",
                                        "group-by-max",   "experts-round-robin", "bias-every-rank"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct mutant *const m = mutant_by_name(names[i]);
        cr_expect_eq(edge_of(m->exposes, m).state, EDGE_FAIL, "%s in %s", m->name, m->exposes);
        cr_expect_eq(edge_of(m->clean, m).state, EDGE_OK, "%s in %s", m->name, m->clean);
    }
}

/* ---- whose mistake it is ---- */

static bool begins_with(const char *text, const char *name) {
    return !strncmp(text, name, strlen(name)) && text[strlen(name)] == ' ';
}

/* Made by the reference of the stages and, on its own, by plain.c: twice written down. */
Test(chain, a_mistake_of_the_layer_is_named_where_everybody_makes_it_and_only_there) {
    const struct mutant *m;
    int n = 0;
    for (int i = 0; (m = mutant_at(i)); i++) {
        if (!m->hooks.plain) continue;
        n++;
        cr_expect_eq(edge_of(m->exposes, m).state, EDGE_FAIL, "%s", m->name);
        cr_expect(begins_with(likely, m->same_as ? m->same_as : m->name), "%s: '%s'", m->name, likely);
        if (!m->clean) continue;
        const bool seen = edge_of(m->clean, m).state == EDGE_FAIL; /* its twin has tokens of its own */
        cr_expect_eq(*likely != 0, seen, "%s in %s: '%s'", m->name, m->clean, likely);
    }
    cr_expect(n >= 15, "%d", n);
}

Test(chain, a_mistake_with_another_beside_it_is_not_named) {
    static const char *const lines[] = {"tiny/attention:tp=4,tokens=5", "tiny/ffn:tp=4,tokens=9"};
    static const char *const names[] = {"scale-missing", "renorm-missing"};
    for (int i = 0; i < 2; i++) {
        struct mutant two = *mutant_by_name(names[i]);
        cr_expect_eq(edge_of(lines[i], &two).state, EDGE_FAIL);
        cr_expect(begins_with(likely, names[i]), "'%s'", likely);
        two.hooks.sum = lose_the_last_part;
        cr_expect_eq(edge_of(lines[i], &two).state, EDGE_FAIL);
        cr_expect_str_empty(likely, "%s", likely);
    }
}

Test(chain, the_report_of_a_case_names_the_mistake) {
    struct run_output out = run_one("llama-3.1-8b/attention:tp=2,hidden=64,dim=16,tokens=5",
                                    (struct one_case){.fault = mutant_by_name("scale-missing")});
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->edge[EDGE_CHAIN].state, EDGE_FAIL);
    cr_expect(begins_with(r->likely, "scale-missing") && strstr(r->likely, "plain.c"), "'%s'", r->likely);
    run_output_free(&out);
}
