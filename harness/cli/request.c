/* Which cases does a command line ask for?  One subject (a model or a case line) after the other,
 * part by part, then the keys from the outermost to the rank counts, so that cases which share a
 * trunk stand side by side. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/grid.h"
#include "harness/memory.h"
#include "harness/worker/pool.h"
#include "harness/worker/process.h"

/* What case_check accepts has its place in a result. */
_Static_assert(sizeof(((struct case_result *)0)->line) >= CASE_LINE, "room for a case line");

/* One subject on its way to cases. */
struct expansion {
    const struct request *request;
    struct run_request *out;
    struct check_case *cases; /* [MAX_CASES] out->cases */
    int order[MAX_CASE_KEYS]; /* the keys, the outermost first */
    int n_keys;
    const char *text; /* the subject as typed */
    struct case_given given;
    bool part[PART_COUNT]; /* to be checked */
    struct model model;
    struct facts *fixture; /* NULL: none */
    bool narrowed;         /* some subject says more than a model */
};

static struct status add_case(struct expansion *e, const struct check_case *c) {
    TRY(case_check(c, &e->model, &e->given));
    if (e->fixture && fill_is_local(c->fill))
        return status_error("%s%s: %.200s brings the values; leave it out",
                            case_label(&e->given, CASE_KEY(fill)).text, fill_name(c->fill),
                            e->out->fixture_path);
    if (e->out->n_cases == MAX_CASES)
        return status_error("%.200s: the lists multiply to more than %d cases; use shorter ones", e->text,
                            MAX_CASES);
    e->cases[e->out->n_cases++] = *c;
    return status_ok();
}

/* No tp given: 1, 2, 4, 8 as far as they are legal. Where none is (--ep 16), tp = ep or its
 * refusal. */
static struct status add_every_tp(struct expansion *e, struct check_case c) {
    static const int64_t usual[] = {1, 2, 4, 8};
    int64_t n = 0;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        c.tp = usual[i];
        if (case_check(&c, &e->model, &e->given).code) continue;
        TRY(add_case(e, &c));
        n++;
    }
    if (n > 0) return status_ok();
    c.tp = c.ep;
    return add_case(e, &c);
}

static bool is_given(const struct expansion *e, int key) {
    return e->request->key[key].n > 0 || e->given.key[key];
}

/* A fixture's activations are one sequence that was prefilled: the sizes of the case are those of
 * the file. */
static struct status fit_fixture(const struct expansion *e, struct check_case *c) {
    const int64_t n = e->fixture->n_tokens;
    if (n == 0) return status_ok(); /* no inputs: refused below, layer by layer */
    if (!is_given(e, CASE_KEY(tokens))) c->tokens = n;
    if (c->tokens != n)
        return status_error("%s%lld: %.200s holds %lld tokens; leave it out",
                            case_label(&e->given, CASE_KEY(tokens)).text, (long long)c->tokens,
                            e->out->fixture_path, (long long)n);
    if (c->phase != PHASE_PREFILL)
        return status_error("%s%s: %.200s holds one prefilled sequence; leave it out",
                            case_label(&e->given, CASE_KEY(phase)).text, phase_name(c->phase),
                            e->out->fixture_path);
    if (c->seqs != 1)
        return status_error("%s%lld: %.200s holds one prefilled sequence; leave it out",
                            case_label(&e->given, CASE_KEY(seqs)).text, (long long)c->seqs,
                            e->out->fixture_path);
    return status_ok();
}

static struct status expand_keys(struct expansion *e, int depth, struct check_case c) {
    if (depth == e->n_keys) return add_case(e, &c);
    const int key = e->order[depth];
    const struct case_key *const row = &case_keys[key];
    const struct value_list *const list = &e->request->key[key];
    if (list->n && e->given.key[key])
        return status_error("--%s %.60s: given twice, '%.200s' sets it too; drop one", row->name, list->typed,
                            e->text);
    if (row->nest == NEST_EP) case_finish(&c); /* phase and cached are settled */
    if (row->nest == NEST_EP && e->fixture) TRY(fit_fixture(e, &c));
    if (!case_key_in_part(key, c.part)) return expand_keys(e, depth + 1, c);
    if (row->nest == NEST_TP && !is_given(e, key)) return add_every_tp(e, c);
    if (!list->n) return expand_keys(e, depth + 1, c);
    for (int i = 0; i < list->n; i++) {
        TRY(case_set(&c, case_label(NULL, key).text, row->name, list->value[i]));
        TRY(expand_keys(e, depth + 1, c));
    }
    return status_ok();
}

static void order_keys(struct expansion *e) {
    for (int nest = NEST_OUTERMOST; nest <= NEST_TP; nest++)
        for (int k = 0; case_keys[k].name; k++)
            if ((int)case_keys[k].nest == nest) e->order[e->n_keys++] = k;
}

/* --kernel goes to the cases of the stage's part. */
static struct status apply_kernels(const struct expansion *e, struct check_case *c) {
    for (int s = 0; s < S_COUNT; s++) {
        const struct kernel *kernel = e->request->kernel[s];
        if (!kernel) continue;
        if (e->given.kernel[s])
            return status_error("--kernel %s=%s: given twice, '%.200s' sets it too; drop one",
                                stage_table[s].name, kernel->name, e->text);
        if (stage_table[s].part == c->part) c->kernel[s] = kernel;
    }
    return status_ok();
}

/* A text without a part gives each part its own keys. Where the other part is not checked its keys
 * stay, to be refused. */
static void drop_other_keys(const struct expansion *e, struct check_case *c) {
    if (e->part[!c->part])
        for (int k = 0; case_keys[k].name; k++)
            if (!case_key_in_part(k, c->part)) case_key_reset(k, c);
}

/* The layers of the part: the one asked for, the default one, or every one the fixture brings. */
static struct status expand_part(struct expansion *e, struct check_case c, enum part part) {
    c.part = part;
    drop_other_keys(e, &c);
    TRY(apply_kernels(e, &c));
    if (!e->fixture) return expand_keys(e, 0, c);
    if (is_given(e, CASE_KEY(layer))) return expand_keys(e, 0, c);
    for (int64_t layer = 0; layer < e->model.n_layers; layer++) {
        if (!e->fixture->layer[layer][part]) continue;
        c.layer = layer;
        TRY(expand_keys(e, 0, c));
    }
    return status_ok();
}

static struct status check_fixture_layers(const struct expansion *e, int64_t first) {
    for (int64_t i = first; i < e->out->n_cases; i++) {
        const struct check_case *c = &e->out->cases[i];
        const int64_t layer = case_layer(c, &e->model);
        if (!e->fixture->layer[layer][c->part])
            return status_error("%s%lld: %.200s brings no input of its %s; leave it out to see what there is",
                                case_label(&e->given, CASE_KEY(layer)).text, (long long)layer,
                                e->out->fixture_path, part_name(c->part));
    }
    if (e->out->n_cases == first)
        return status_error(
            "--fixture %.200s: brings no layer's input for what was asked; use another --part or file",
            e->out->fixture_path);
    return status_ok();
}

/* A mutant may live in one memory layout only; that becomes the default. */
static struct status apply_layout(const struct expansion *e, struct check_case *c) {
    const struct mutant *const mutant = e->out->mutant;
    const struct value_list *const typed = &e->request->key[CASE_KEY(layout)];
    bool elsewhere = e->given.key[CASE_KEY(layout)] && !(mutant->layouts >> c->layout & 1);
    enum layout only = LAYOUT_PACKED;
    if (!mutant->layouts) return status_ok();
    while (!(mutant->layouts >> only & 1)) only++;
    for (int i = 0; i < typed->n; i++) elsewhere |= strcmp(typed->value[i], layout_name(only)) != 0;
    if (elsewhere)
        return status_error(
            "--mutant %s: the mistake exists in layout %s only; use --layout %s or leave it out",
            mutant->name, layout_name(only), layout_name(only));
    c->layout = only;
    return status_ok();
}

/* And it lives in one part. */
static struct status apply_mutant(struct expansion *e, struct check_case *c) {
    const struct mutant *const mutant = e->out->mutant;
    if (!mutant) return status_ok();
    TRY(apply_layout(e, c));
    if ((e->given.part || e->request->part_given) && e->part[!mutant->part])
        return status_error("--mutant %s: the mistake is in part %s; use --part %s or leave it out",
                            mutant->name, part_name(mutant->part), part_name(mutant->part));
    for (int p = 0; p < PART_COUNT; p++) e->part[p] = p == (int)mutant->part;
    return status_ok();
}

static struct status read_subject(struct expansion *e, struct check_case *c) {
    if (!e->fixture || strcmp(e->text, e->out->fixture_path)) return case_read(e->text, c, &e->given);
    *c = case_defaults();
    e->given = (struct case_given){0};
    return case_set_model(c, e->text, strlen(e->text));
}

static struct status expand_subject(struct expansion *e) {
    struct check_case c;
    TRY(read_subject(e, &c));
    e->narrowed |= e->given.part;
    for (int k = 0; case_keys[k].name; k++) e->narrowed |= e->given.key[k];
    for (int s = 0; s < S_COUNT; s++) e->narrowed |= e->given.kernel[s];
    if (e->given.part && e->request->part_given)
        return status_error("--part: given twice, '%.200s' names one too; drop one", e->text);
    if (e->fixture) {
        if (strcmp(c.model, e->out->fixture_path))
            return status_error("--fixture %.160s: brings its own model; leave %.160s out",
                                e->out->fixture_path, c.model);
        e->model = e->fixture->model;
    } else {
        TRY(model_load(c.model, &e->model));
    }
    if (e->model.quantised[0])
        snprintf(e->out->quantised, sizeof e->out->quantised, "%s", e->model.quantised);
    for (int p = 0; p < PART_COUNT; p++)
        e->part[p] = e->given.part ? p == (int)c.part : e->request->part_given ? e->request->part[p] : true;
    TRY(apply_mutant(e, &c));
    const int64_t first = e->out->n_cases;
    for (int p = 0; p < PART_COUNT; p++)
        if (e->part[p]) TRY(expand_part(e, c, (enum part)p));
    return e->fixture ? check_fixture_layers(e, first) : status_ok();
}

/* ---- the grid ---- */

/* Cases that are asked for one by one, or for another purpose than to cover, have none. */
static bool is_narrow(const struct expansion *e) {
    const struct request *const r = e->request;
    bool narrow = e->narrowed || r->part_given || e->out->schedules > 1;
    for (int k = 0; case_keys[k].name; k++) narrow |= r->key[k].n > 0;
    for (int s = 0; s < S_COUNT; s++) narrow |= r->kernel[s] != NULL;
    return narrow;
}

/* Whoever changes what a case is made of changes it for cases that know of it. */
static const char *excludes_grid(const struct run_request *o) {
    return o->fixture_path ? "fixture"
           : o->dump_path  ? "dump"
           : o->mutant     ? "mutant"
           : o->print      ? "print"
                           : NULL;
}

struct grid_cases {
    struct grid_taker taker;
    struct expansion *e;
    enum device_kind device;
};

static struct status take_grid_case(struct grid_taker *taker, const struct check_case *c,
                                    const struct model *model) {
    struct grid_cases *const g = (struct grid_cases *)taker;
    struct check_case mine = *c;
    if (g->e->request->part_given && !g->e->request->part[c->part]) return status_ok();
    mine.device = g->device;
    g->e->model = *model;
    return add_case(g->e, &mine);
}

/* The gallery once, and the twins of every model among the first n cases. */
static struct status add_grid(struct expansion *e, int64_t n) {
    struct grid_cases g = {{take_grid_case}, e, e->cases[0].device};
    e->given = (struct case_given){0};
    TRY(grid_gallery(&g.taker));
    for (int64_t i = 0; i < n; i++) {
        int64_t before = 0;
        while (strcmp(e->cases[before].model, e->cases[i].model)) before++;
        if (before == i) TRY(grid_twins(e->cases[i].model, &g.taker));
    }
    e->out->n_grid = e->out->n_cases - n;
    return status_ok();
}

static struct status expand_grid(struct expansion *e) {
    const enum grid_wish wish = e->request->grid;
    const char *const other = excludes_grid(e->out);
    if (wish == GRID_ON && other)
        return status_error("--grid: runs cases of its own, --%s is about those of the model; leave one out",
                            other);
    if (wish == GRID_OFF || other || (wish == GRID_AUTO && is_narrow(e))) return status_ok();
    return add_grid(e, e->out->n_cases);
}

static struct status expand_all(struct expansion *e) {
    const struct request *request = e->request;
    if (request->n_subjects == 0) {
        e->text = e->fixture ? e->out->fixture_path : model_preset_names()[0];
        return expand_subject(e);
    }
    for (int i = 0; i < request->n_subjects; i++) {
        for (int j = 0; j < i; j++)
            if (!strcmp(request->subject[i], request->subject[j]))
                return status_error("%.300s: given twice; drop one", request->subject[i]);
        e->text = request->subject[i];
        TRY(expand_subject(e));
    }
    return status_ok();
}

/* What no case takes would be ignored in silence. */
static struct status check_keys_used(const struct request *request, const struct run_request *out) {
    for (int k = 0; case_keys[k].name; k++) {
        const char *const part = part_name(case_key_in_part(k, PART_FFN) ? PART_FFN : PART_ATTENTION);
        bool used = request->key[k].n == 0;
        for (int64_t i = 0; i < out->n_cases && !used; i++) used = case_key_in_part(k, out->cases[i].part);
        if (!used)
            return status_error("--%s %.60s: no case checks part %s; use --part %s or leave it out",
                                case_keys[k].name, request->key[k].typed, part, part);
    }
    return status_ok();
}

/* The config that comes with weights and activations says their sizes. */
static struct status check_sizes_of_files(const struct run_request *out) {
    for (int64_t i = 0; i < out->n_cases; i++) {
        const int k = case_spec_key(&out->cases[i]);
        if (k >= 0 && (out->fixture_path || out->dump_path))
            return status_error("--%s %.200s: a file's layer is that of its config; leave %s out",
                                out->fixture_path ? "fixture" : "dump",
                                out->fixture_path ? out->fixture_path : out->dump_path, case_keys[k].name);
    }
    return status_ok();
}

static struct status check_kernels_used(const struct request *request, const struct run_request *out) {
    for (int s = 0; s < S_COUNT; s++) {
        bool used = request->kernel[s] == NULL;
        for (int64_t i = 0; i < out->n_cases && !used; i++) used = out->cases[i].part == stage_table[s].part;
        if (!used)
            return status_error("--kernel %s=%s: no case checks part %s; use --part %s or leave it out",
                                stage_table[s].name, request->kernel[s]->name, part_name(stage_table[s].part),
                                part_name(stage_table[s].part));
    }
    return status_ok();
}

struct status request_expand(const struct request *request, struct run_request *out) {
    struct expansion e = {.request = request, .out = out};
    out->cases = e.cases = calloc(MAX_CASES, sizeof *e.cases);
    order_keys(&e);
    if (!e.cases) return status_error("out of memory for %d cases; free some", MAX_CASES);
    struct facts *const facts = memory_zeroed(1, sizeof *facts);
    struct status status = status_ok();
    if (out->fixture_path) {
        e.fixture = facts;
        status = request->in_process || !worker_program ? facts_read(out, facts) : pool_describe(out, facts);
    }
    if (!status.code) status = expand_all(&e);
    if (!status.code) status = check_kernels_used(request, out);
    if (!status.code) status = check_keys_used(request, out);
    if (!status.code) status = check_sizes_of_files(out);
    if (!status.code) status = expand_grid(&e);
    free(facts);
    return status;
}
