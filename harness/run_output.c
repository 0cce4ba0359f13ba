/* What is said of cases but their verdict? Lines, repeats, blame, and the counts of all of them: for run.c
 * and for workers' parents alike. */
/* SPDX-License-Identifier: MIT */
#include "harness/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/coverage.h"
#include "harness/memory.h"
#include "harness/quote.h"
#include "layer/line.h"
#include "reports/report.h"

/* ---- which cases go together ---- */

int64_t request_group(const struct run_request *o, int64_t first) {
    int64_t n = 1;
    while (first + n < o->n_cases && case_shares_trunk(&o->cases[first], &o->cases[first + n])) n++;
    return n;
}

/* An ffn sees tokens, not sequences and caches: its phases are one. `tokens` [n_cases]. */
static bool does_the_same(const struct run_request *o, const int64_t *tokens, int64_t a, int64_t b) {
    return tokens[a] == tokens[b] && o->cases[a].part == PART_FFN &&
           case_same_but_sequences(&o->cases[a], &o->cases[b]);
}

/* Where n earlier cases, which repeat none themselves, do the same as those from `first`, in their
 * order; -1: nowhere. */
static int64_t earlier_twin(const struct run_request *o, const int64_t *tokens, const int64_t *same,
                            int64_t first, int64_t n) {
    for (int64_t at = 0; at + n <= first; at++) {
        int64_t i = 0;
        while (i < n && same[at + i] < 0 && does_the_same(o, tokens, at + i, first + i)) i++;
        if (i == n) return at;
    }
    return -1;
}

int64_t *request_repeats(const struct run_request *o) {
    int64_t *const same = memory_zeroed((size_t)o->n_cases, sizeof *same);
    int64_t *const tokens = memory_zeroed((size_t)o->n_cases, sizeof *tokens);
    for (int64_t i = 0; i < o->n_cases; i++) tokens[i] = batch_tokens(&o->cases[i]);
    for (int64_t first = 0, n; first < o->n_cases; first += n) {
        n = request_group(o, first);
        const int64_t twin = o->dump_path ? -1 : earlier_twin(o, tokens, same, first, n);
        for (int64_t i = 0; i < n; i++) same[first + i] = twin < 0 ? -1 : twin + i;
    }
    free(tokens);
    return same;
}

/* ---- a result ---- */

void result_blame(struct case_result *r, int stage, int rank, int64_t n_ranks, const char *reason) {
    r->verdict = CASE_FAILED;
    r->crashed = true;
    snprintf(r->reason, sizeof r->reason, "%s", reason);
    if (stage < 0) return;
    const size_t n = (size_t)snprintf(r->where, sizeof r->where, "stage %s", stage_table[stage].name);
    if (rank < 0)
        snprintf(r->where + n, sizeof r->where - n, ", unsharded");
    else
        snprintf(r->where + n, sizeof r->where - n, ", rank %d of %lld", rank, (long long)n_ranks);
}

/* A bound that could explain anything proves nothing: such a case has not passed. */
void result_skip_loose(struct case_result *r) {
    for (int e = 0; e < EDGE_COUNT; e++)
        if (r->edge[e].state == EDGE_LOOSE) r->verdict = CASE_SKIPPED;
    if (r->edge[EDGE_CHAIN].state == EDGE_LOOSE)
        snprintf(
            r->reason, sizeof r->reason,
            "chain too loose: rounding in double could explain more than 1e-6 of a row; nothing is proved");
    for (int i = r->n_stages - 1; i >= 0; i--) /* the first one is said */
        for (int e = EDGE_COUNT - 1; e >= 0; e--) {
            const struct stage_result *const s = &r->stage[i];
            if (s->edge[e].state == EDGE_LOOSE)
                snprintf(r->reason, sizeof r->reason,
                         "%s too loose: stage %s by %s, %lld of %lld bounds are larger than the value "
                         "(median E/|y| %.2g); nothing is proved",
                         edge_name((enum edge)e), s->stage, s->kernel, (long long)s->edge[e].vacuous,
                         (long long)s->edge[e].elements, s->edge[e].sharpness);
        }
}

void result_unread(struct case_result *r, const char *why) {
    snprintf(r->read, sizeof r->read, "not known: in its run on fill=tags %.160s", why);
}

void result_not_run(struct case_result *r, const char *why) {
    r->verdict = CASE_SKIPPED;
    r->not_run = true;
    snprintf(r->reason, sizeof r->reason, "not run: %.480s", why);
}

void result_repeat(struct case_result *r, const struct case_result *of) {
    struct case_result copy = *of;
    memcpy(copy.line, r->line, sizeof copy.line);
    copy.repro = r->repro;
    copy.of_grid = r->of_grid;
    copy.seconds = 0;
    copy.same_as = of->line;
    copy.stage = memory_zeroed((size_t)of->n_stages, sizeof *copy.stage);
    if (of->n_stages) memcpy(copy.stage, of->stage, (size_t)of->n_stages * sizeof *copy.stage);
    free(r->stage);
    *r = copy;
}

/* ---- all of them ---- */

static void describe_judge(FILE *file, const struct run_request *request, const struct check_case *c) {
    fputs("shardcheck judge", file);
    for (int i = 0; i < request->judge.n_dumps; i++) {
        fputc(' ', file);
        quote_print(file, request->judge.dump[i]);
    }
    if (request->judge.model) fputs(" --model ", file), quote_print(file, request->judge.model);
    if (request->judge.contract) fputs(" --contract ", file), quote_print(file, request->judge.contract);
    fprintf(file, " --layer %lld --part %s", (long long)c->layer, part_name(c->part));
    const char *before = " --stage ";
    for (int stage = 0; stage < S_COUNT; stage++)
        if (request->judge.only[stage]) fprintf(file, "%s%s", before, stage_table[stage].name), before = ",";
    if (isinf(request->judge.most_work)) fputs(" --full", file);
}

static void describe_repro(const struct run_request *request, const struct check_case *c,
                           struct case_result *r) {
    size_t size;
    FILE *const file = open_memstream(&r->repro, &size);
    if (!file) return;
    if (request->judge.n_dumps) {
        describe_judge(file, request, c);
    } else {
        fputs("shardcheck run ", file);
        quote_print(file, r->line);
    }
    if (request->repro) fputs(request->repro, file);
    fclose(file);
}

void run_output_open(struct run_output *out, const struct run_request *o) {
    *out = (struct run_output){.result.n_cases = o->n_cases};
    out->cases = memory_zeroed((size_t)o->n_cases, sizeof *out->cases);
    for (int64_t i = 0; i < o->n_cases; i++) {
        struct case_result *const r = &out->cases[i];
        case_print(&o->cases[i], r->line, sizeof r->line);
        describe_repro(o, &o->cases[i], r);
        r->of_grid = i >= o->n_cases - o->n_grid;
        line_clean(r->line); /* from here on it is shown only */
    }
}

void run_output_label(struct run_output *out, const struct run_request *o, const char *device) {
    char *const label = out->device_label;
    snprintf(label, sizeof out->device_label, "%.199s", device);
    if (o->quantised[0])
        snprintf(label + strlen(label), sizeof out->device_label - strlen(label),
                 ", quantisation (%s) left out: the unquantised layer is checked", o->quantised);
    line_clean(label);
    if (o->watch && o->watch->device) o->watch->device(o->watch, label);
}

static void count_facts(struct run_output *out, enum device_kind device) {
    struct run_result *const all = &out->result;
    all->fact = out->fact;
    all->n_facts = coverage_count();
    for (int f = 0; f < all->n_facts; f++) {
        struct fact_count *const count = &out->fact[f];
        *count = (struct fact_count){.applies = coverage_applies(f, device)};
        coverage_name(f, count->name, sizeof count->name);
        for (int64_t i = 0; i < all->n_cases; i++) count->n_cases += fact_is_in(&out->cases[i].facts, f);
    }
}

void run_result_add(struct run_result *all, const struct case_result *r) {
    all->n_passed += r->verdict == CASE_PASSED;
    all->n_failed += r->verdict == CASE_FAILED;
    all->n_skipped += r->verdict == CASE_SKIPPED;
}

void run_output_count(struct run_output *out, const struct run_request *request, double seconds) {
    struct run_result *const all = &out->result;
    if (!request->judge.n_dumps) count_facts(out, request->cases[0].device);
    all->n_grid = request->n_grid;
    all->unread = request->judge.unread;
    for (int64_t i = 0; i < all->n_cases; i++) {
        run_result_add(all, &out->cases[i]);
        if (out->cases[i].device_bytes > all->device_bytes) all->device_bytes = out->cases[i].device_bytes;
        all->n_crashed += out->cases[i].crashed;
        all->n_grid_passed += out->cases[i].of_grid && out->cases[i].verdict == CASE_PASSED;
        all->n_grid_failed += out->cases[i].of_grid && out->cases[i].verdict == CASE_FAILED;
        all->n_unchained += out->cases[i].unchained[0] != 0;
    }
    all->cases = out->cases;
    all->device = out->device_label;
    all->version = SHARDCHECK_VERSION;
    all->command = out->command;
    all->seconds = seconds;
    all->host_bytes = (int64_t)memory_peak();
}

void run_output_free(struct run_output *out) {
    for (int64_t i = 0; out->cases && i < out->result.n_cases; i++) {
        free(out->cases[i].stage);
        free(out->cases[i].repro);
    }
    free(out->cases);
    *out = (struct run_output){0};
}
