/* The command `judge`: what somebody else's run stored on every rank, held against the layer. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixtures/call_log.h"
#include "harness/cli/commands.h"
#include "harness/cli/outputs.h"
#include "harness/facts.h"
#include "harness/flashinfer.h"
#include "harness/memory.h"
#include "harness/worker/pool.h"
#include "harness/worker/process.h"
#include "layer/producers.h"

/* ---- options ---- */

static struct status apply_model(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->run.judge.model = value;
    return status_ok();
}

static struct status apply_contract(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    struct producer unused;
    parse->out->run.judge.contract = value;
    const struct status s = producer_find(value, &unused);
    return s.code ? status_error("--%.470s", s.message) : s;
}

static void contract_values(struct choices *choices) {
    for (const struct producer_row *p = producer_table; p->name; p++) choices_add(choices, "%s", p->name);
}

static struct status apply_full(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row, (void)value;
    parse->out->run.judge.most_work = (double)INFINITY;
    return status_ok();
}

static struct status apply_layer(struct parse *parse, const struct option_row *row, const char *value) {
    const int key = CASE_KEY(layer);
    struct value_list *const list = &parse->request.key[key];
    struct check_case scratch = case_defaults();
    TRY(option_split(row->name, value, &parse->list[key], list));
    for (int i = 0; i < list->n; i++) TRY(case_set(&scratch, "--layer ", "layer", list->value[i]));
    return status_ok();
}

static struct status apply_group_fill(struct parse *parse, const struct option_row *row, const char *value) {
    const int key = CASE_KEY(group_fill);
    struct check_case scratch = case_defaults();
    parse->request.key[key] = (struct value_list){.typed = value, .n = 1};
    return case_set(&scratch, case_label(NULL, key).text, row->name, value);
}

static void group_fill_values(struct choices *choices) {
    const struct case_key *const row = &case_keys[CASE_KEY(group_fill)];
    for (int i = 0; i < row->n_values; i++) choices_add(choices, "%s", row->value(i));
}

static void stage_values(struct choices *choices) {
    for (int s = 0; s < S_COUNT; s++)
        if (!stage_table[s].fuses) choices_add(choices, "%s", stage_table[s].name);
}

static struct status apply_stage(struct parse *parse, const struct option_row *row, const char *value) {
    struct value_list list = {0};
    struct choices choices = {0};
    char *copy, text[300];
    struct status s = option_split(row->name, value, &copy, &list);
    for (int i = 0; i < list.n && !s.code; i++) {
        const int stage = stage_by_name(list.value[i]);
        if (stage >= 0 && !stage_table[stage].fuses) {
            parse->out->run.judge.only[stage] = true;
            continue;
        }
        stage_values(&choices);
        choices_text(&choices, list.value[i], text, sizeof text);
        s = status_error("--stage %.48s: no such stage; use %s", list.value[i], text);
    }
    free(copy);
    return s;
}

const struct option_row judge_options[] = {
    {"model", 0, 0, "DIR", -1, apply_model,
     "a Hugging Face folder: config.json and the weights; default the config that the dump carries", NULL},
    {"contract", 0, 0, "NAME[:KEY=VALUE...]", -1, apply_contract,
     "whose arithmetic it is; default by the names in the dump", contract_values},
    {"layer", 0, 0, "N,...", -1, apply_layer, "default all that the dump has something of", NULL},
    {"group_fill", 0, 0, "NAME", -1, apply_group_fill,
     "what experts of rejected groups count as; default -inf; in transformers before 5.6: 0",
     group_fill_values},
    {"full", 0, 0, NULL, -1, apply_full,
     "all tokens, also where that is much work: by default so many then as take about half a minute", NULL},
    {"stage", 0, UNLISTED, "NAME,...", -1, apply_stage, "default all (see list stages)", stage_values},
    {0},
};

void judge_explain(FILE *file) {
    fputs("DUMP is a file of one rank, or a folder of such files: what went into and came out of a layer's "
          "modules in "
          "\nvLLM or transformers (docs/judge.md); or what FlashInfer logged of its calls at level 10, which "
          "needs no "
          "\nmodel. Every stage is judged on the rank's own inputs, and every span of stages between two "
          "tensors that "
          "\nare there; what could not be judged is listed, and if nothing could, the exit status is 2.\n",
          file);
}

/* ---- which parts of which layers ---- */

static struct status add_case(struct parse *parse, const struct facts *facts, int64_t layer, enum part part) {
    struct run_request *const run = &parse->out->run;
    struct check_case *const cases = (struct check_case *)run->cases;
    struct check_case c = case_defaults();
    const struct case_given given = {0};
    const char *const fill = parse->request.key[CASE_KEY(group_fill)].typed;
    const char *const model = run->judge.model ? run->judge.model : run->judge.dump[0];
    if (!facts->layer[layer][part] || (parse->request.part_given && !parse->request.part[part]))
        return status_ok();
    TRY(case_set_model(&c, model, strlen(model)));
    c.part = part;
    c.layer = layer;
    c.tp = facts->tp;
    const bool experts = part == PART_FFN && model_layer(&facts->model, layer).moe;
    c.ep = experts ? facts->ep : 1;
    c.dtype = facts->model.dtype;
    if (facts->n_tokens) c.tokens = facts->n_tokens;
    if (fill && experts) TRY(case_set(&c, "", "group_fill", fill));
    case_finish(&c);
    TRY(case_check(&c, &facts->model, &given));
    cases[run->n_cases++] = c;
    return status_ok();
}

static struct status add_layer(struct parse *parse, const struct facts *facts, int64_t layer) {
    const int64_t before = parse->out->run.n_cases;
    if (layer >= facts->model.n_layers)
        return status_error("--layer %lld: the model has layers 0 to %lld", (long long)layer,
                            (long long)facts->model.n_layers - 1);
    for (int part = 0; part < PART_COUNT; part++) TRY(add_case(parse, facts, layer, (enum part)part));
    if (parse->request.key[CASE_KEY(layer)].n && parse->out->run.n_cases == before)
        return status_error("--layer %lld: %.200s holds nothing of it; leave it out to see what there is",
                            (long long)layer, parse->out->run.judge.dump[0]);
    return status_ok();
}

static struct status add_cases(struct parse *parse, const struct facts *facts) {
    struct run_request *const run = &parse->out->run;
    const struct value_list *const layers = &parse->request.key[CASE_KEY(layer)];
    run->cases = memory_zeroed(MAX_LAYERS * PART_COUNT, sizeof *run->cases);
    for (int i = 0; i < layers->n; i++) TRY(add_layer(parse, facts, strtoll(layers->value[i], NULL, 10)));
    for (int64_t layer = 0; layer < facts->model.n_layers && !layers->n; layer++)
        TRY(add_layer(parse, facts, layer));
    const char *const fill = parse->request.key[CASE_KEY(group_fill)].typed;
    bool used = !fill;
    for (int64_t i = 0; i < run->n_cases; i++) used |= case_key_is_set(CASE_KEY(group_fill), &run->cases[i]);
    if (!used && run->n_cases)
        return status_error("--group_fill %.60s: none of these layers has experts; leave it out", fill);
    if (run->n_cases) return status_ok();
    return status_error(
        "%.200s: holds no tensor of a decoder layer under a name that is known; see docs/judge.md",
        run->judge.dump[0]);
}

struct status judge_parse(struct parse *parse) {
    struct options *const out = parse->out;
    const struct request *const words = &parse->request;
    if (!words->n_subjects) return status_error("judge: names no dump; use shardcheck judge DUMP...");
    out->judged = memory_zeroed((size_t)words->n_subjects, sizeof *out->judged);
    memcpy(out->judged, words->subject, (size_t)words->n_subjects * sizeof *out->judged);
    out->run.judge.dump = out->judged;
    out->run.judge.n_dumps = words->n_subjects;
    choose_reports(out);
    if (call_log_recognises(out->judged[0])) return outputs_check(out);
    struct facts *const facts = memory_zeroed(1, sizeof *facts);
    struct status s =
        words->in_process || !worker_program ? facts_read(&out->run, facts) : pool_describe(&out->run, facts);
    if (!s.code) s = add_cases(parse, facts);
    memcpy(out->run.judge.unread, facts->unread, sizeof facts->unread);
    free(facts);
    TRY(s);
    return outputs_check(out);
}

/* ---- a log of calls ---- */

static struct status judge_calls(const struct options *o, enum exit_code *code) {
    struct run_output out;
    struct output *report[MAX_REPORTS] = {NULL};
    const struct judge_wish *const j = &o->run.judge;
    struct status s = o->in_process || !worker_program
                          ? judge_flashinfer(j->dump, j->n_dumps, FLASHINFER_WORK, NULL, &out)
                          : pool_calls(&o->run, &out);
    if (!s.code) s = reports_open(o, report);
    snprintf(out.command, sizeof out.command, "%s", o->typed);
    for (int i = 0; i < o->n_reports && !s.code; i++) {
        report_write(o->report[i].format, output_file(report[i]), &out.result, o->verbosity);
        s = output_commit(&report[i]);
    }
    *code = out.result.n_failed ? EXIT_DEFECT : out.result.n_passed ? EXIT_PASSED : EXIT_TROUBLE;
    for (int i = 0; i < o->n_reports; i++) output_discard(&report[i]);
    run_output_free(&out);
    return s;
}

struct status judge_run(const struct options *o, enum exit_code *code) {
    return o->run.n_cases ? check_run(o, code) : judge_calls(o, code);
}
