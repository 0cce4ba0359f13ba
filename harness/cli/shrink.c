/* What is the least that still fails like this case? Key after key is set to its least value, or
 * bisected, as long as the same edge fails at the same stage; again from the first key until nothing
 * gets smaller. Every candidate is a run of its own on the pool, so that
 * crashes and hangs can be reduced, too. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/shrink.h"

#include <stdio.h>
#include <string.h>

#include "harness/cli/signals.h"
#include "harness/worker/process.h"

/* ---- how a case fails ---- */

struct failure {
    char stage[32];
    bool unsharded, crashed, hung;
    int edge; /* the first that fails at the stage; EDGE_COUNT: none, it crashed */
};

static int first_failed(const struct edge_result edge[EDGE_COUNT]) {
    int e = 0;
    while (e < EDGE_COUNT && edge[e].state != EDGE_FAIL) e++;
    return e;
}

static struct failure failure_of(const struct case_result *r) {
    struct failure f = {.crashed = r->crashed, .edge = first_failed(r->edge)};
    snprintf(f.stage, sizeof f.stage, "%s", r->first.stage);
    f.unsharded = r->first.rank < 0;
    for (int s = 0; s < r->n_stages; s++)
        if (!strcmp(r->stage[s].stage, f.stage) && first_failed(r->stage[s].edge) < EDGE_COUNT)
            f.edge = first_failed(r->stage[s].edge);
    if (r->crashed) { /* "stage attention, rank 1 of 2", and no element */
        f.edge = EDGE_COUNT;
        sscanf(r->where, "stage %31[^,]", f.stage);
        f.unsharded = strstr(r->where, ", unsharded") != NULL;
        f.hung = strstr(r->reason, "did not come back") != NULL;
    }
    return f;
}

static bool is_alike(const struct failure *a, const struct failure *b) {
    return a->edge == b->edge && a->unsharded == b->unsharded && a->crashed == b->crashed &&
           a->hung == b->hung && !strcmp(a->stage, b->stage);
}

/* ---- what can be smaller ---- */

/* A number of the case or of its layer; or, with `to`, a word. */
struct reduction {
    const char *key;
    size_t in_case, in_spec; /* where its value is an int64_t; the other one is NOWHERE */
    int64_t least;
    const char *to;
};
#define NOWHERE ((size_t)-1)
#define OF_CASE(field, least)                                                                                \
    { #field, offsetof(struct check_case, field), NOWHERE, least, NULL }
#define OF_SPEC(key, field, least)                                                                           \
    { #key, NOWHERE, offsetof(struct layer_spec, field), least, NULL }
#define WORD(key, to)                                                                                        \
    { #key, NOWHERE, NOWHERE, 0, to }
/* What costs most comes first. */
static const struct reduction reductions[] = {
    OF_CASE(seqs, 1),
    OF_CASE(tokens, 1),
    OF_CASE(cached, 0),
    OF_CASE(ep, 1),
    OF_CASE(tp, 1),
    OF_SPEC(groups, n_group, 1),
    OF_SPEC(topk_groups, topk_group, 1),
    OF_SPEC(top, top_k, 1),
    OF_SPEC(experts, n_experts, 1),
    OF_SPEC(width, expert_width, 1),
    OF_SPEC(shared, shared_width, 0),
    OF_SPEC(hidden, hidden, 1),
    OF_SPEC(heads, n_heads, 1),
    OF_SPEC(kv, n_kv_heads, 1),
    OF_SPEC(dim, head_dim, 1),
    OF_SPEC(rot, rot_dim, 0),
    WORD(bias, "none"),
    WORD(qk_norm, "off"),
    WORD(group_fill, "-inf"),
    WORD(select_bias, "off"),
    WORD(lengths, "ragged"),
    WORD(layout, "contig"),
    WORD(fill, "random"),
};
enum { N_REDUCTIONS = sizeof reductions / sizeof *reductions };

struct shrinking {
    const struct options *options;
    const struct run_request *request; /* as it was asked for */
    struct model model;
    struct failure failure;
    struct shrunk *best;
};

static int64_t value_of(const struct shrinking *s, const struct reduction *r, const struct check_case *c) {
    const struct layer_spec spec = case_spec(c, &s->model);
    const char *const base = r->in_case != NOWHERE ? (const char *)c : (const char *)&spec;
    int64_t value;
    memcpy(&value, base + (r->in_case != NOWHERE ? r->in_case : r->in_spec), sizeof value);
    return value;
}

/* ---- running candidates ---- */

static void describe(struct shrunk *k, const struct mutant *mutant) {
    size_t n = 0;
    k->repro[0] = 0;
    if (mutant) n = (size_t)snprintf(k->repro, sizeof k->repro, " --mutant %s", mutant->name);
    if (k->schedules > 1) snprintf(k->repro + n, sizeof k->repro - n, " --schedules %d", k->schedules);
}

static struct status run_one(const struct shrinking *s, const struct check_case *c, int schedules,
                             struct run_output *out) {
    struct run_request request = *s->request;
    struct pool_options pool = s->options->pool;
    request.cases = c;
    request.n_cases = 1;
    request.n_grid = 0;
    request.schedules = schedules;
    request.print = NULL;
    request.watch = NULL;
    return s->options->in_process || !worker_program ? run_cases(&request, out)
                                                     : pool_run(&request, &pool, out);
}

static void show_progress(const struct shrinking *s) {
    char line[CASE_LINE];
    if (s->options->verbosity < 0) return;
    case_print(&s->best->c, line, sizeof line);
    fprintf(stderr, "shrink: run %d: %s%s\n", s->best->runs, line, s->best->repro);
}

static bool is_legal(const struct shrinking *s, const struct check_case *c) {
    return !case_check(c, &s->model, NULL).code;
}

/* Kept, if it is legal and fails in the same way. */
static bool try_case(struct shrinking *s, const struct check_case *c, int schedules) {
    struct shrunk *const best = s->best;
    struct run_output out = {0};
    if (!is_legal(s, c) || best->runs >= SHRINK_RUNS || signals_asked()) return false;
    best->runs++;
    const struct status ran = run_one(s, c, schedules, &out);
    bool alike = false;
    if (!ran.code && !out.trouble.code && out.cases[0].verdict == CASE_FAILED) {
        const struct failure f = failure_of(&out.cases[0]);
        alike = is_alike(&f, &s->failure);
    }
    if (alike) {
        best->c = *c;
        best->schedules = schedules;
        best->rank = out.cases[0].first.rank;
        describe(best, s->request->mutant);
        show_progress(s);
    }
    run_output_free(&out);
    return alike;
}

static bool with_value(const struct shrinking *s, const struct reduction *r, int64_t value,
                       struct check_case *out) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    *out = s->best->c;
    return !case_set(out, "", r->key, text).code && is_legal(s, out);
}

/* A legal value between the two, as near to the middle as there is; 0: none. */
static int64_t between(const struct shrinking *s, const struct reduction *r, int64_t low, int64_t high,
                       struct check_case *out) {
    const int64_t middle = low + (high - low) / 2;
    if (high - low < 2) return 0;
    for (int64_t d = 0; middle - d > low || middle + d < high; d++) {
        if (middle - d > low && with_value(s, r, middle - d, out)) return middle - d;
        if (middle + d < high && with_value(s, r, middle + d, out)) return middle + d;
    }
    return 0;
}

/* The least value; or, by bisection, the least above those that fail no more. */
static bool reduce_number(struct shrinking *s, const struct reduction *r) {
    const int64_t before = value_of(s, r, &s->best->c);
    struct check_case c;
    if (before <= r->least) return false;
    if (with_value(s, r, r->least, &c) && try_case(s, &c, s->best->schedules)) return true;
    int64_t low = r->least, high = before;
    for (int64_t value; (value = between(s, r, low, high, &c)) > 0;)
        *(try_case(s, &c, s->best->schedules) ? &high : &low) = value;
    return high < before;
}

static bool reduce_word(struct shrinking *s, const struct reduction *r) {
    struct check_case c = s->best->c;
    const int key = case_key_by_name(r->key);
    if (case_set(&c, "", r->key, r->to).code || case_key_get(key, &c) == case_key_get(key, &s->best->c))
        return false;
    const struct layer_spec with = case_spec(&c, &s->model), without = case_spec(&s->best->c, &s->model);
    if (case_keys[key].override && !memcmp(&with, &without, sizeof with))
        return false; /* as the model says */
    return try_case(s, &c, s->best->schedules);
}

static bool in_scope(const struct shrinking *s, const struct reduction *r) {
    const struct check_case *const c = &s->best->c;
    const struct layer_spec spec = case_spec(c, &s->model);
    const enum case_scope scope = case_keys[case_key_by_name(r->key)].scope;
    return case_key_in_part(case_key_by_name(r->key), c->part) && (scope != SCOPE_EXPERTS || spec.moe);
}

static bool reduce_all(struct shrinking *s) {
    bool smaller = s->best->schedules > 1 && try_case(s, &s->best->c, s->best->schedules / 2);
    for (int i = 0; i < N_REDUCTIONS; i++)
        if (in_scope(s, &reductions[i]))
            smaller |= reductions[i].to ? reduce_word(s, &reductions[i]) : reduce_number(s, &reductions[i]);
    return smaller;
}

/* ---- the whole ---- */

/* The case as it was asked for; how it fails. */
static struct status begin(struct shrinking *s) {
    struct run_output out = {0};
    char line[CASE_LINE];
    struct status status = run_one(s, &s->best->c, s->best->schedules, &out);
    if (!status.code) status = out.trouble;
    case_print(&s->best->c, line, sizeof line);
    if (!status.code && out.cases[0].verdict != CASE_FAILED)
        status = status_error(
            "--shrink: %.160s %s%.200s; nothing to shrink", line,
            out.cases[0].verdict == CASE_PASSED ? "passes" : "is skipped: ", out.cases[0].reason);
    if (!status.code) {
        s->failure = failure_of(&out.cases[0]);
        s->best->rank = out.cases[0].first.rank;
    }
    run_output_free(&out);
    return status;
}

struct status shrink_case(const struct options *o, struct run_request *request, FILE *tensors,
                          struct shrunk *out) {
    *out = (struct shrunk){.c = request->cases[0], .schedules = request->schedules};
    struct shrinking s = {.options = o, .request = request, .best = out};
    TRY(model_load(out->c.model, &s.model));
    TRY(begin(&s));
    describe(out, request->mutant);
    while (reduce_all(&s)) {
    }
    request->cases = &out->c;
    request->schedules = out->schedules;
    request->repro = out->repro;
    out->print = (struct inspection){
        .whole = true, .stage = stage_by_name(s.failure.stage), .rank = out->rank, .file = tensors};
    if (!s.failure.crashed && out->print.stage >= 0) request->print = &out->print;
    return status_ok();
}
