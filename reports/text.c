/* What does a person read first?  One line for every case; where something is wrong, what, where and how to
 * run it again; at -v the stages. The last line stands alone and counts the cases. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"

enum { QUIET = -1, VERBOSE = 1 };
enum { LABEL = 9 }; /* columns of the words that begin the lines of a failure */

void report_margin(char *text, size_t size, double margin) {
    if (isnan(margin))
        snprintf(text, size, "nan");
    else if (margin > 0 && margin < 0.01)
        snprintf(text, size, "<0.01");
    else
        snprintf(text, size, margin < 10 ? "%.2f" : "%.4g", margin);
}

/* Nothing is wrong but that bits differ: a margin of at most 1 beside FAIL would say nothing. */
static bool only_bits(const struct edge_result *r) { return r->other_bits && r->other_bits == r->outside; }

/* Wrong as a whole, no element by itself. */
static bool only_together(const struct edge_result *r) {
    return r->trend.state == TREND_WRONG && r->outside == 0;
}

/* "kernel 0.42", "plan ok (12 of 33 rows)", "shard FAIL (margin 812, 3 of 400 elements)" */
void report_text_edge(FILE *file, enum edge edge, const struct edge_result *r) {
    char margin[32];
    report_margin(margin, sizeof margin, r->margin);
    if (r->state == EDGE_FAIL && only_bits(r))
        fprintf(file, "%s FAIL (legal, but other bits where the same were promised, %lld of %lld elements)",
                edge_name(edge), (long long)r->outside, (long long)r->elements);
    else if (r->state == EDGE_FAIL && only_together(r))
        fprintf(file, "%s FAIL (statistical, %.3g of the threshold; every element in its set)",
                edge_name(edge), r->trend.statistic);
    else if (r->state == EDGE_FAIL)
        fprintf(file, "%s FAIL (margin %s, %lld of %lld elements)", edge_name(edge), margin,
                (long long)r->outside, (long long)r->elements);
    else if (r->state == EDGE_OK && r->margin > 0)
        fprintf(file, "%s %s", edge_name(edge), margin);
    else
        fprintf(file, "%s %s", edge_name(edge), edge_state_name(r->state));
    if (r->ambiguous) fprintf(file, " (%lld ambiguous)", (long long)r->ambiguous);
    if (r->sampled_rows < r->rows)
        fprintf(file, " (%lld of %lld rows)", (long long)r->sampled_rows, (long long)r->rows);
}

/* Oracle and chain are named where they ran; a chain that could not run says for what. */
static void print_edges(FILE *file, const struct case_result *r) {
    for (int e = 0; e < EDGE_COUNT; e++) {
        if ((e >= EDGE_ORACLE || report_is_recorded(r)) && r->edge[e].state == EDGE_NOT_RUN) continue;
        if (e && !report_is_recorded(r)) fputs(" · ", file);
        report_text_edge(file, (enum edge)e, &r->edge[e]);
    }
    if (r->unchained[0]) fprintf(file, " · chain - (%s)", r->unchained);
}

/* A seeded mistake that fails nothing: a plain PASS would read as if it had been missed. */
static void print_invisible(FILE *file, const struct case_result *r) {
    if (!r->mutant[0]) return;
    fprintf(file, "  (mutant invisible here: it changes %s)",
            r->mutant_made ? "calls, and every value stored is right all the same" : "no call");
}

static void print_rank(FILE *file, const struct mismatch *m) {
    if (m->rank < 0)
        fputs("unsharded", file);
    else if (m->to_rank > m->rank)
        fprintf(file, "ranks %d-%d added up,", m->rank, m->to_rank);
    else
        fprintf(file, "rank %d", m->rank);
}

/* "0.5", "NaN" (the sign of a NaN says nothing) */
static void print_value(FILE *file, const char *before, double value) {
    if (isnan(value))
        fprintf(file, "%sNaN", before);
    else
        fprintf(file, "%s%.9g", before, value);
}

/* A kernel error or a damaged guard has no element: the note alone. */
static void print_mismatch(FILE *file, const char *label, const struct mismatch *m) {
    char margin[32];
    if (!m->stage[0]) return;
    report_margin(margin, sizeof margin, m->margin);
    fprintf(file, "  %-*s ", LABEL, label);
    print_rank(file, m);
    fprintf(file, "%s%s, %s%s%s: ", m->where[0] ? " " : "", m->where, m->stage, m->tensor[0] ? "." : "",
            m->tensor);
    if (m->tensor[0]) {
        print_value(file, "got ", m->got);
        if (!isnan(m->expected) || !isnan(m->bound)) {
            print_value(file, ", expected ", m->expected);
            fprintf(file, " +- %.3g", m->bound);
        }
        fprintf(file, ", margin %s%s", margin, m->note[0] ? "; " : "");
    }
    fprintf(file, "%s\n", m->note);
}

static void print_field(FILE *file, const char *label, const char *value) {
    if (value && value[0]) fprintf(file, "  %-*s %s\n", LABEL, label, value);
}

/* Of what somebody else's run left behind: which stages could be judged, and which could not. */
static void print_judged(FILE *file, const struct case_result *r) {
    char *text = NULL;
    size_t size = 0;
    FILE *const list = open_memstream(&text, &size);
    const char *comma = "";
    if (!list) return;
    for (int i = 0; i < r->n_stages; i++) {
        const struct stage_result *const s = &r->stage[i];
        const bool span = !strncmp(s->kernel, "span ", strlen("span "));
        if (!s->edge[EDGE_ORACLE].elements || !strncmp(s->kernel, "copies", strlen("copies"))) continue;
        fprintf(list, "%s%s%s%s", comma, s->stage, span ? " with all " : "",
                span ? s->kernel + strlen("span ") : "");
        comma = ", ";
    }
    if (fclose(list)) return;
    if (size) fprintf(file, "  %-*s ", LABEL, "judged"), report_wrapped(file, LABEL + 3, text);
    free(text);
    if (r->sampled[0])
        fprintf(file, "  %-*s %s in the products and the attention; --full judges all\n", LABEL, "sampled",
                r->sampled);
    for (int i = 0; i < r->n_stages; i++)
        if (r->stage[i].unjudged[0])
            fprintf(file, "  %-*s %s: %s\n", LABEL, "not", r->stage[i].stage, r->stage[i].unjudged);
}

void report_text_failure(FILE *file, const struct case_result *r) {
    fprintf(file, "  %-*s ", LABEL, "edges");
    print_edges(file, r);
    fputc('\n', file);
    print_field(file, "reason", r->reason);
    print_field(file, "where", r->where);
    print_mismatch(file, "first", &r->first);
    if (strcmp(r->first.where, r->worst.where) || r->first.rank != r->worst.rank)
        print_mismatch(file, "worst", &r->worst);
    print_field(file, "likely", r->likely);
    print_field(file, "resembles", r->resembles);
    print_field(file, "read", r->read);
    print_field(file, "repro", r->repro);
}

void report_edge_cell(char *text, size_t size, const struct edge_result *r) {
    char margin[32];
    report_margin(margin, sizeof margin, r->margin);
    if (r->state == EDGE_FAIL)
        snprintf(text, size, "FAIL %s", only_bits(r) ? "bits" : only_together(r) ? "stat." : margin);
    else
        snprintf(text, size, "%s", r->state == EDGE_OK && r->margin > 0 ? margin : edge_state_name(r->state));
}

/* ---- the report ---- */

void report_text_case(FILE *file, const struct case_result *r, int verbosity) {
    fprintf(file, "%s %s", verdict_name(r->verdict), r->line);
    if (r->verdict == CASE_PASSED) {
        fputs("  ", file);
        print_edges(file, r);
        print_invisible(file, r);
    }
    if (r->same_as)
        fprintf(file, "  (same as %s)", r->same_as);
    else if (r->same_cause)
        fprintf(file, "  (same cause as %s)", r->same_cause);
    if (r->verdict == CASE_SKIPPED)
        fprintf(file, "  %s\n", r->reason[0] ? r->reason : "no reason given");
    else
        fprintf(file, "  %.2f s\n", r->seconds);
    if (r->verdict == CASE_WAIVED) {
        print_field(file, "waived", r->waived);
        print_field(file, "where", r->where);
    }
    if (r->verdict == CASE_FAILED && !r->same_cause) report_text_failure(file, r);
    if (verbosity > QUIET && report_is_recorded(r)) print_judged(file, r);
    if (verbosity >= VERBOSE) report_text_stages(file, r);
}

/* The device stands first in every report: green on host must not read as green on a GPU. */
void report_text_begin(FILE *file, const struct run_result *run, int verbosity) {
    (void)verbosity;
    fprintf(file, "shardcheck %s on %s%s\n", run->version, run->device,
            run->in_process ? ", in one process with the code under test" : "");
}

/* A case of the grid that passed, or that nobody got to: the cases before it say why. */
static bool counted_only(const struct case_result *r) {
    return r->of_grid && (r->verdict == CASE_PASSED || (r->verdict == CASE_SKIPPED && r->not_run));
}

void report_text_one(FILE *file, const struct case_result *result, int verbosity) {
    const bool counted = counted_only(result) && verbosity < VERBOSE;
    if ((verbosity > QUIET && !counted) || result->verdict == CASE_FAILED)
        report_text_case(file, result, verbosity);
}

static void print_grid(FILE *file, const struct run_result *run) {
    fprintf(file,
            "grid     %lld cases besides: %lld passed, %lld failed, %lld skipped; %.1f s after %.1f s\n",
            (long long)run->n_grid, (long long)run->n_grid_passed, (long long)run->n_grid_failed,
            (long long)(run->n_grid - run->n_grid_passed - run->n_grid_failed - run->n_grid_waived),
            run->seconds_grid, run->seconds - run->seconds_grid);
}

/* All at -v; else so many that a line can be read. */
static void list_unmet(FILE *file, const struct run_result *run, int verbosity) {
    enum { SHOWN = 6 };
    int met, all, shown = 0;
    report_count_facts(run, &met, &all);
    fprintf(file, "%d of %d facts", met, all);
    for (int f = 0; f < run->n_facts; f++) {
        if (!run->fact[f].applies || run->fact[f].n_cases) continue;
        if (verbosity >= VERBOSE || shown < SHOWN)
            fprintf(file, "%s%s", shown ? ", " : "; not met: ", run->fact[f].name);
        shown++;
    }
    if (verbosity < VERBOSE && shown > SHOWN) fprintf(file, " and %d more", shown - SHOWN);
}

static void print_coverage(FILE *file, const struct run_result *run, int verbosity) {
    char *text = NULL;
    size_t size = 0;
    FILE *const stream = open_memstream(&text, &size);
    if (stream) list_unmet(stream, run, verbosity);
    fputs("coverage ", file);
    report_wrapped(file, LABEL, stream && !fclose(stream) ? text : "not listed: out of memory");
    free(text);
}

static void print_bytes(FILE *file, const char *before, int64_t bytes, const char *after) {
    const double mib = 0x1p20, gib = 0x1p30, n = (double)bytes;
    if (bytes)
        fprintf(file, n < gib ? "%s%.0f MiB%s" : "%s%.1f GiB%s", before, n / (n < gib ? mib : gib), after);
}

static void print_cost(FILE *file, const struct run_result *run) {
    fprintf(file, "%.1f s", run->seconds);
    print_bytes(file, ", at most ", run->host_bytes, " of memory");
    print_bytes(file, " and ", run->device_bytes, " of the GPU's");
    fputc('\n', file);
}

void report_text_end(FILE *file, const struct run_result *run, int verbosity) {
    if (verbosity > QUIET && run->n_unchained)
        fprintf(file,
                "%lld cases without the chain edge: reference/plain.c does not know a feature of the layer\n",
                (long long)run->n_unchained);
    if (verbosity > QUIET && run->n_grid) print_grid(file, run);
    if ((verbosity >= VERBOSE || (verbosity > QUIET && run->n_grid)) && run->fact)
        print_coverage(file, run, verbosity);
    if (verbosity > QUIET && run->unread && run->unread[0]) {
        fputs("not read ", file);
        report_wrapped(file, LABEL, run->unread);
    }
    if (verbosity > QUIET) print_cost(file, run);
    for (int i = 0; i < run->n_stale; i++) fprintf(file, "stale    %s\n", run->stale[i]);
    fprintf(file, "%lld passed, %lld failed, %lld skipped", (long long)run->n_passed,
            (long long)run->n_failed, (long long)run->n_skipped);
    if (run->n_waived) fprintf(file, ", %lld waived", (long long)run->n_waived);
    fputc('\n', file);
}
