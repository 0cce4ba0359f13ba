/* Is every known mistake caught where it shows, and nowhere else?  Every row that can be made runs
 * the two case lines it names: in the one a defect must be found, and its cause named; the other
 * must pass. */
/* SPDX-License-Identifier: MIT */
#include <jansson.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "harness/chain.h"
#include "harness/cli/commands.h"
#include "harness/worker/pool.h"
#include "harness/worker/process.h"
#include "layer/choices.h"

void mutant_values(struct choices *choices) {
    const struct mutant *m;
    for (int i = 0; (m = mutant_at(i)); i++)
        if (!m->missing) choices_add(choices, "%s", m->name);
}

struct status mutant_find(const char *label, const char *name, const struct mutant **out) {
    struct choices choices = {0};
    char text[300];
    *out = mutant_by_name(name);
    if (*out && !(*out)->missing) return status_ok();
    if (*out)
        return status_error("%s%.48s: needs %s, which no layer here has; use one that list mutants shows "
                            "with a case",
                            label, name, (*out)->missing);
    mutant_values(&choices);
    choices_text(&choices, name, text, sizeof text);
    return status_error("%s%.48s: no such mutant; use %s", label, name, text);
}

/* ---- one mutant ---- */

enum { EXPOSES, CLEAN, LINES };

/* What became of its two cases. */
struct trial {
    const struct mutant *mutant;
    struct run_output out;
    const struct case_result *clean; /* NULL: no case hides it */
    bool made, killed, named, flagged;
    bool chained;     /* made by everybody, the reference too, it is seen by the chain edge */
    bool chain_named; /* and named there */
};

static struct status read_lines(const struct mutant *m, struct check_case cases[LINES], int64_t *n) {
    bool has_part;
    *n = m->clean ? LINES : LINES - 1;
    TRY(case_parse(m->exposes, &cases[EXPOSES], &has_part));
    return m->clean ? case_parse(m->clean, &cases[CLEAN], &has_part) : status_ok();
}

/* By its own name, or by that of a mistake that comes to the same. */
static bool names(const char *likely, const struct mutant *m) {
    const size_t n = strcspn(likely, " ");
    const char *const other = m->same_as ? m->same_as : m->name;
    return (strlen(m->name) == n && !strncmp(likely, m->name, n)) ||
           (strlen(other) == n && !strncmp(likely, other, n));
}

static struct status try_chain(const struct check_case *c, struct trial *t) {
    struct model model;
    struct edge_result edge = {0};
    struct findings findings;
    char likely[400];
    TRY(model_load(c->model, &model));
    const struct layer_spec spec = case_spec(c, &model);
    findings_init(&findings);
    chain_edge(&spec, case_layer(c, &model), c, t->mutant, &edge, &findings, likely, sizeof likely);
    t->chained = edge.state == EDGE_FAIL;
    t->chain_named = names(likely, t->mutant);
    return status_ok();
}

static struct status try_mutant(const struct mutant *m, struct trial *t) {
    static struct check_case cases[LINES];
    const struct pool_options pool = {0};
    *t = (struct trial){.mutant = m};
    int64_t n;
    TRY(read_lines(m, cases, &n));
    const struct run_request request = {.cases = cases, .n_cases = n, .mutant = m, .schedules = 1};
    TRY(worker_program ? pool_run(&request, &pool, &t->out) : run_cases(&request, &t->out));
    TRY(t->out.trouble);
    TRY(try_chain(&cases[EXPOSES], t));
    const struct case_result *const seen = &t->out.cases[EXPOSES];
    t->made = seen->mutant_made;
    t->killed = t->made && seen->verdict == CASE_FAILED && seen->edge[m->edge].state == EDGE_FAIL;
    t->named = t->killed && names(seen->likely, m);
    t->clean = n > CLEAN ? &t->out.cases[CLEAN] : NULL;
    t->flagged = t->clean && t->clean->verdict != CASE_PASSED;
    return status_ok();
}

/* ---- the score ---- */

struct score {
    int n, missing, killed, named, clean, flagged, chained, chain_named, edge[EDGE_COUNT];
};

static void count(struct score *score, const struct trial *t) {
    score->n++;
    score->killed += t->killed;
    score->named += t->named;
    score->clean += t->clean != NULL;
    score->flagged += t->flagged;
    score->chained += t->chained;
    score->chain_named += t->chain_named;
    for (int e = 0; e < EDGE_COUNT && t->killed; e++)
        score->edge[e] += t->out.cases[EXPOSES].edge[e].state == EDGE_FAIL;
}

static void print_trial(FILE *file, const struct trial *t) {
    const struct case_result *const seen = &t->out.cases[EXPOSES];
    const char *const name = t->mutant->name;
    if (!t->made && seen->verdict == CASE_PASSED)
        fprintf(file, "INVISIBLE %s: changes nothing in %s\n", name, seen->line);
    else if (!t->killed)
        fprintf(file, "SURVIVED  %s: edge %s of %s does not fail%s%s%s\n", name, edge_name(t->mutant->edge),
                seen->line, *seen->where ? "; " : "", seen->where, seen->reason);
    else if (!t->named)
        fprintf(file, "UNNAMED   %s: %s, %s; likely %s\n", name, seen->line, seen->where,
                *seen->likely ? seen->likely : "nothing");
    if (t->flagged)
        fprintf(file, "FLAGGED   %s: %s %s%s\n", name, t->clean->line, t->clean->where, t->clean->reason);
    fflush(file);
}

static void print_score(FILE *file, const struct score *s) {
    fprintf(file, "killed %d of %d, clean cases flagged %d of %d, cause named %d", s->killed, s->n,
            s->flagged, s->clean, s->named);
    const char *gap = "; by edge ";
    for (int e = 0; e < EDGE_COUNT; e++) {
        if (!s->edge[e]) continue;
        fprintf(file, "%s%s %d", gap, edge_name((enum edge)e), s->edge[e]);
        gap = ", ";
    }
    fputc('\n', file);
    fprintf(file, "made by everybody, the reference too, the chain edge sees %d of %d and names %d\n",
            s->chained, s->n, s->chain_named);
    if (s->missing)
        fprintf(file, "%d more need a feature that no layer here has: list mutants\n", s->missing);
}

/* ---- the same for programs ---- */

static json_t *trial_object(const struct trial *t) {
    const struct case_result *const seen = &t->out.cases[EXPOSES];
    json_t *const edges = json_array();
    for (int e = 0; e < EDGE_COUNT; e++)
        if (seen->edge[e].state == EDGE_FAIL)
            json_array_append_new(edges, json_string(edge_name((enum edge)e)));
    return json_pack("{s:s, s:s, s:b, s:b, s:b, s:s, s:o, s:s?, s:b, s:b, s:b}", "mutant", t->mutant->name,
                     "exposes", seen->line, "made", t->made, "killed", t->killed, "named", t->named, "likely",
                     seen->likely, "edges", edges, "clean", t->clean ? t->clean->line : NULL, "flagged",
                     t->flagged, "chained", t->chained, "chain_named", t->chain_named);
}

static void print_json(FILE *file, const struct score *s, json_t *trials) {
    json_t *const all =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:O}", "schema", "shardcheck-mutants/1",
                  "mutants", s->n, "killed", s->killed, "named", s->named, "flagged", s->flagged, "chained",
                  s->chained, "chain_named", s->chain_named, "missing", s->missing, "trials", trials);
    json_dumpf(all, file, JSON_INDENT(1));
    fputc('\n', file);
    json_decref(all);
}

/* ---- the command ---- */

static struct status apply_json(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row, (void)value;
    parse->out->json = true;
    return status_ok();
}

const struct option_row mutants_options[] = {
    {"json", 0, 0, NULL, -1, apply_json, "the score and every trial as JSON", NULL},
    {0},
};

struct status mutants_parse(struct parse *parse) {
    const struct request *const words = &parse->request;
    const struct mutant *m, *wanted;
    for (int w = 0; w < words->n_subjects; w++) {
        TRY(mutant_find("mutants ", words->subject[w], &wanted));
        for (int i = 0; i < MAX_MUTANTS && (m = mutant_at(i)); i++) parse->out->only[i] |= m == wanted;
    }
    for (int i = 0; i < MAX_MUTANTS && !words->n_subjects; i++) parse->out->only[i] = true;
    return status_ok();
}

static struct status try_all(const struct options *options, struct score *score, json_t *trials) {
    const struct mutant *m;
    for (int i = 0; i < MAX_MUTANTS && (m = mutant_at(i)); i++) {
        struct trial t;
        if (!options->only[i]) continue;
        if (m->missing) {
            score->missing++;
            continue;
        }
        const struct status s = try_mutant(m, &t);
        if (!s.code) {
            count(score, &t);
            if (!options->json) print_trial(stdout, &t);
            json_array_append_new(trials, trial_object(&t));
        }
        run_output_free(&t.out);
        if (s.code) return status_error("mutant %s: %.400s", m->name, s.message);
    }
    return status_ok();
}

struct status mutants_run(const struct options *options, enum exit_code *code) {
    struct score score = {0};
    json_t *const trials = json_array();
    omp_set_num_threads(1); /* of chains, thousands of tiny calls; workers have their own */
    const struct status s = try_all(options, &score, trials);
    if (!s.code && options->json) print_json(stdout, &score, trials);
    if (!s.code && !options->json) print_score(stdout, &score);
    if (score.killed < score.n || score.flagged) *code = EXIT_DEFECT;
    json_decref(trials);
    return s;
}
