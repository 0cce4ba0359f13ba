/* What does each case come to? Cases that share a trunk run together, stage by stage; every edge of
 * a case ends in its result. */
/* SPDX-License-Identifier: MIT */
#include "harness/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/chain.h"
#include "harness/clock.h"
#include "harness/dump.h"
#include "harness/oracle.h"
#include "harness/ranks.h"
#include "harness/recorded.h"
#include "harness/where.h"
#include "reports/report.h"

struct group { /* the cases of one trunk */
    const struct run_request *request;
    const struct model *model;
    const struct fixture *fixture;
    struct device *device;
    struct dump *dump;              /* NULL: none */
    const struct check_case *cases; /* the first one; same-trunk cases follow it */
    struct case_result *results;
    int64_t first, n; /* of the request */
    bool judged;      /* the results stand, whatever comes after them */
};

/* Which case the next steps belong to; the trunk's are said of the first. */
static void now_at(const struct group *g, int64_t i) {
    if (g->request->watch) g->request->watch->case_index = g->first + i;
}

/* The oracle edge of the case is the sum over all its steps, also those a fused kernel stands
 * for. */
static void record_stage(struct case_result *r, int stage, const struct trunk *t, const struct ranks *k,
                         const struct edge_result *oracle) {
    struct stage_result *const s = &r->stage[r->n_stages++];
    *s = (struct stage_result){.seconds_kernel = t->outcome.seconds + k->seconds_kernel,
                               .seconds_reference = t->seconds_reference + k->seconds_reference};
    snprintf(s->stage, sizeof s->stage, "%s", stage_table[stage].name);
    snprintf(s->kernel, sizeof s->kernel, "%s", t->outcome.by);
    s->edge[EDGE_KERNEL] = t->edge;
    s->edge[EDGE_PLAN] = k->edge[EDGE_PLAN];
    s->edge[EDGE_SHARD] = k->edge[EDGE_SHARD];
    for (int e = 0; e < EDGE_COUNT; e++) edge_merge(&r->edge[e], &s->edge[e]);
    s->edge[EDGE_ORACLE] = *oracle;
}

/* The trunk's failure comes first when it happened in an earlier or the same stage. */
static void conclude(struct case_result *r, const struct trunk *t, const struct ranks *k,
                     const struct findings *oracle, const struct findings *chain) {
    for (int e = 0; e < EDGE_COUNT; e++)
        if (r->edge[e].state == EDGE_FAIL) r->verdict = CASE_FAILED;
    if (r->verdict != CASE_FAILED) {
        result_skip_loose(r);
        if (r->verdict == CASE_PASSED && t->inexact[0]) {
            r->verdict = CASE_SKIPPED;
            snprintf(r->reason, sizeof r->reason, "%s", t->inexact);
        }
        return;
    }
    const struct findings *f = &k->findings;
    if (f->stage < 0 || (t->findings.stage >= 0 && t->findings.stage <= f->stage)) f = &t->findings;
    if (f->stage < 0) f = oracle;
    if (f->stage < 0) f = chain;
    const bool ranks = f == &k->findings || f == chain;
    int64_t n_ranks = ranks ? k->crew.plan.tp : 1, ep;
    if (f == oracle && f->first.rank >= 0) fixture_ranks(t->fixture, &n_ranks, &ep);
    where_describe(f, n_ranks, ranks ? &k->crew : &t->crew, r->where, sizeof r->where);
    r->first = f->first;
    r->worst = f->worst;
    heat_draw(&f->heats, &r->map);
    if (f == chain) return; /* its likely mistake is there already */
    r->likely[0] = 0;
    if (f == oracle) return;
    const bool rank = f == &k->findings;
    snprintf(r->likely, sizeof r->likely, "%s", rank ? k->likely : t->likely);
    snprintf(r->resembles, sizeof r->resembles, "%s", rank ? k->resembles : t->resembles);
    snprintf(r->read, sizeof r->read, "%s", rank ? k->read : t->read);
}

/* A fused stage that nobody asked for by name runs only when every rank of every case can take
 * it. */
static bool all_accept(const struct group *g, const struct trunk *t, struct ranks *ranks, int stage) {
    if (!stage_table[stage].fuses || t->c.kernel[stage]) return true;
    for (int64_t i = 0; i < g->n; i++)
        if (!ranks_accept(&ranks[i], t, stage)) return false;
    return true;
}

static struct status run_stages(struct group *g, struct trunk *t, struct ranks *ranks,
                                const struct edge_result oracle[S_COUNT]) {
    for (int stage = 0; stage < S_COUNT; stage++) {
        if (!trunk_has_stage(t, stage) || !all_accept(g, t, ranks, stage)) continue;
        now_at(g, 0);
        TRY(trunk_stage(t, stage));
        TRY(device_sums_status());
        if (t->unsupported[0]) { /* nothing was stored */
            if (g->dump) dump_skip(g->dump, g->results[0].line, t->unsupported);
            break;
        }
        for (int64_t i = 0; i < g->n && !t->declined; i++) {
            if (ranks[i].unsupported[0]) continue;
            const double start = clock_seconds();
            now_at(g, i);
            TRY(watch_step(g->request->watch, DOING_REFERENCE, stage, 0, 0, ""));
            TRY(ranks_stage(&ranks[i], t, stage));
            TRY(device_sums_status());
            if (ranks[i].dump && ranks[i].unsupported[0])
                dump_skip(g->dump, g->results[i].line, ranks[i].unsupported);
            record_stage(&g->results[i], stage, t, &ranks[i], &oracle[stage]);
            g->results[i].seconds += clock_seconds() - start;
        }
        if (t->declined) continue;
        now_at(g, 0);
        if (g->dump) TRY(watch_step(g->request->watch, DOING_FILE, stage, -1, 0, g->request->dump_path));
        if (g->dump) TRY(dump_stage(g->dump, t, stage));
        trunk_stage_done(t, stage);
    }
    return status_ok();
}

static struct status run_chain(struct group *g, struct findings *findings) {
    const struct layer_spec spec = case_spec(&g->cases[0], g->model);
    const int64_t layer = case_layer(&g->cases[0], g->model);
    for (int64_t i = 0; i < g->n; i++) {
        struct case_result *const r = &g->results[i];
        now_at(g, i);
        TRY(watch_step(g->request->watch, DOING_REFERENCE, -1, -1, 0, "chain"));
        const double start = clock_seconds();
        const char *const unknown =
            chain_edge(&spec, layer, &g->cases[i], g->request->fault, &r->edge[EDGE_CHAIN], &findings[i],
                       r->likely, sizeof r->likely);
        if (unknown) snprintf(r->unchained, sizeof r->unchained, "%s", unknown);
        r->seconds += clock_seconds() - start;
    }
    return status_ok();
}

static struct status run_edges(struct group *g, struct trunk *t, struct ranks *ranks,
                               struct findings *chain) {
    struct findings oracle;
    struct edge_result oracle_edges[S_COUNT] = {0};
    findings_init(&oracle);
    const double start = clock_seconds();
    TRY(run_chain(g, chain));
    now_at(g, 0);
    if (g->fixture) TRY(oracle_edge_run(g->fixture, t, oracle_edges, &oracle, NULL));
    TRY(run_stages(g, t, ranks, oracle_edges));
    double shared = clock_seconds() - start;
    for (int64_t i = 0; i < g->n; i++) shared -= g->results[i].seconds;
    for (int64_t i = 0; i < g->n; i++) {
        struct case_result *const r = &g->results[i];
        r->seconds += shared / (double)g->n;
        for (int w = 0; w < FACT_WORDS; w++) r->facts.word[w] = t->facts.word[w] | ranks[i].facts.word[w];
        const char *const unsupported = t->unsupported[0] ? t->unsupported : ranks[i].unsupported;
        for (int stage = 0; stage < S_COUNT; stage++) edge_merge(&r->edge[EDGE_ORACLE], &oracle_edges[stage]);
        if (t->mutant) {
            snprintf(r->mutant, sizeof r->mutant, "%s", t->mutant->name);
            r->mutant_made = t->mistaken || ranks[i].mistaken;
        }
        conclude(r, t, &ranks[i], &oracle, &chain[i]);
        if (g->fixture && !r->edge[EDGE_ORACLE].elements && r->verdict == CASE_PASSED) {
            r->verdict = CASE_SKIPPED;
            snprintf(r->reason, sizeof r->reason,
                     "the file shows no activation of layer %lld's %s that the reference could be held "
                     "against; add some (docs/fixtures.md)",
                     (long long)t->layer, part_name(t->c.part));
        }
        if (unsupported[0]) { /* a defect found before that stays a defect */
            if (r->verdict != CASE_FAILED) r->verdict = CASE_SKIPPED;
            snprintf(r->reason, sizeof r->reason, "%s", unsupported);
        }
    }
    return status_ok();
}

static struct status run_group(struct group *g);

static void say_judged(struct group *g) {
    struct watch *const w = g->request->watch;
    g->judged = true;
    for (int64_t i = 0; i < g->n && w && w->judged; i++) w->judged(w, g->first + i, &g->results[i]);
}

/* The first case that failed on random values runs once more on values that say where they come
 * from. What it has read at the same stage is told; no verdict changes, and if that run kills its
 * process or its device, what was judged before stands. */
static struct status read_tags(struct group *g) {
    const double patience = 10; /* seconds */
    struct status s = status_ok();
    int64_t i = 0;
    while (i < g->n && g->results[i].verdict != CASE_FAILED) i++;
    if (i == g->n || g->cases[i].fill != FILL_RANDOM || g->fixture || g->request->fault ||
        g->results[i].seconds > patience)
        return s;
    say_judged(g);
    struct check_case c = g->cases[i];
    struct case_result *const again = memory_zeroed(1, sizeof *again);
    struct run_request request = *g->request;
    request.print = NULL;
    c.fill = FILL_TAGS;
    again->stage = memory_zeroed(S_COUNT, sizeof *again->stage);
    struct group one = {&request, g->model, NULL, g->device, NULL, &c, again, g->first + i, 1, false};
    s = run_group(&one);
    if (s.code)
        result_unread(&g->results[i], s.message);
    else if (again->read[0] && !strcmp(again->first.stage, g->results[i].first.stage))
        memcpy(g->results[i].read, again->read, sizeof again->read);
    g->results[i].seconds += again->seconds;
    free(again->stage);
    free(again);
    return s;
}

static struct status run_group(struct group *g) {
    const struct ref_summer before = ref_summer() ? *ref_summer() : (struct ref_summer){0};
    struct trunk trunk;
    struct weights *weights = NULL;
    if (case_has_weights(&g->cases[0])) TRY(weights_open(g->model, &weights));
    trunk_open(&trunk, &g->cases[0], g->model, g->fixture, g->device, g->request->fault);
    trunk_use_weights(&trunk, weights);
    trunk.kernels.schedules = g->request->schedules;
    trunk.mutant = g->request->mutant;
    trunk.print = g->request->print;
    trunk.watch = trunk.kernels.watch = g->request->watch;
    struct ranks *const ranks = memory_zeroed((size_t)g->n, sizeof *ranks);
    struct findings *const chain = memory_zeroed((size_t)g->n, sizeof *chain);
    for (int64_t i = 0; i < g->n; i++) {
        ranks_open(&ranks[i], &g->cases[i], g->request->mutant, &trunk);
        ranks[i].dump = g->request->dump_ranks ? g->dump : NULL;
        findings_init(&chain[i]);
    }
    const struct status s = run_edges(g, &trunk, ranks, chain);
    for (int64_t i = 0; i < g->n; i++) {
        device_sums_describe(&before, g->results[i].sums, sizeof g->results[i].sums);
        g->results[i].device_bytes = (int64_t)device_most_bytes(g->device);
    }
    for (int64_t i = 0; i < g->n; i++) ranks_close(&ranks[i]);
    free(ranks);
    free(chain);
    trunk_close(&trunk);
    weights_close(weights);
    return s.code ? s : read_tags(g);
}

/* One model file is parsed once a group; presets are cheap. */
static struct status load_model(const struct check_case *c, const struct fixture *fixture,
                                struct model *model) {
    if (fixture) {
        *model = *fixture_model(fixture);
        return status_ok();
    }
    return model_load(c->model, model);
}

/* ---- the cases of a request ---- */

/* What keeps a group from its end keeps the rest of the run from its beginning. */
static void settle_group(const struct group *g, const struct status *s, struct run_output *out) {
    struct watch *const w = g->request->watch;
    const int64_t blamed = g->request->watch ? g->request->watch->case_index : g->first;
    for (int64_t i = g->first; i < g->first + g->n && s->code && !g->judged; i++) {
        struct case_result *const r = &out->cases[i];
        if (s->code == STATUS_FAULT && (blamed == g->first || i == blamed))
            result_blame(r, -1, -1, 1, s->message);
        else
            result_not_run(r, s->message);
    }
    for (int64_t i = g->first; i < g->first + g->n && w && w->result; i++) w->result(w, i, &out->cases[i]);
}

/* An error is what kept everything from being run. */
static struct status run_all(const struct run_request *o, const int64_t *same, const struct fixture *fixture,
                             struct device *device, struct dump *dump, struct run_output *out) {
    struct status s = status_ok();
    int64_t n;
    for (int64_t first = 0; first < o->n_cases; first += n) {
        struct model model;
        n = request_group(o, first);
        struct group g = {o,     &model, fixture, device, dump, &o->cases[first], &out->cases[first],
                          first, n,      false};
        for (int64_t i = first; i < first + n; i++)
            out->cases[i].stage = memory_zeroed(S_COUNT, sizeof *out->cases[i].stage);
        if (!s.code) s = load_model(&o->cases[first], fixture, &model);
        if (!s.code && same[first] < 0) s = run_group(&g);
        for (int64_t i = first; i < first + n && same[i] >= 0; i++)
            result_repeat(&out->cases[i], &out->cases[same[i]]);
        if (s.code == STATUS_FAULT && o->watch && o->watch->gives_up) return s;
        if (first == 0 && s.code == STATUS_ERROR) return s;
        if (s.code && dump) dump_skip(dump, out->cases[first].line, s.message);
        settle_group(&g, &s, out);
    }
    if (s.code != STATUS_STOPPED) out->trouble = s;
    return status_ok();
}

static struct status check_one_device(const struct run_request *o) {
    for (int64_t i = 1; i < o->n_cases; i++)
        if (o->cases[i].device != o->cases[0].device)
            return status_error("one run uses one device; run the %s cases and the %s cases apart",
                                device_kind_name(o->cases[0].device), device_kind_name(o->cases[i].device));
    return status_ok();
}

struct status run_cases(const struct run_request *o, struct run_output *out) {
    struct fixture *fixture = NULL;
    struct device *device = NULL;
    struct dump *dump = NULL;
    struct device_sums sums = {0};
    const double start = clock_seconds();
    if (o->judge.n_dumps) return recorded_cases(o, out);
    *out = (struct run_output){0};
    TRY(check_one_device(o));
    if (o->fixture_path) TRY(fixture_open(o->fixture_path, &fixture));
    struct status s = device_open(o->cases[0].device, &device);
    if (!s.code) device_sums_open(&sums, device, o->reference);
    if (!s.code && o->dump_path) s = dump_open(o, &dump);
    if (!s.code) {
        run_output_open(out, o);
        run_output_label(out, o, device_label(device));
        int64_t *const same = request_repeats(o);
        s = run_all(o, same, fixture, device, dump, out);
        free(same);
        if (s.code || out->trouble.code)
            dump_discard(dump);
        else
            out->dump = dump_keep(dump);
        run_output_count(out, o, clock_seconds() - start);
    }
    device_sums_close(&sums);
    device_close(device);
    fixture_close(fixture);
    return s;
}
