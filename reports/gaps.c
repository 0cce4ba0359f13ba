/* What does a pass not say?  Everything that was not judged, or judged in a way that proves nothing, is
 * counted. */
/* SPDX-License-Identifier: MIT */
#include "reports/report.h"

static void count_stage(struct gaps *g, const struct stage_result *s) {
    for (int e = 0; e < EDGE_COUNT; e++) {
        const struct edge_result *const r = &s->edge[e];
        g->loose += r->state == EDGE_LOOSE;
        g->silent += r->trend.state == TREND_SILENT || r->trend.state == TREND_VAGUE;
    }
}

static bool is_invisible(const struct case_result *c) { return c->mutant[0] && c->verdict == CASE_PASSED; }

/* What another case did in its place is counted there. */
struct gaps report_count_gaps(const struct run_result *run) {
    struct gaps g = {0};
    int met, all;
    for (int64_t i = 0; i < run->n_cases; i++) {
        const struct case_result *const c = &run->cases[i];
        const struct edge_result *const plan = &c->edge[EDGE_PLAN];
        g.skipped += c->verdict == CASE_SKIPPED;
        g.unchained += c->unchained[0] != 0;
        g.invisible += is_invisible(c);
        g.oracle |= c->edge[EDGE_ORACLE].state != EDGE_NOT_RUN;
        if (c->same_as) continue;
        g.sampled += plan->sampled_rows < plan->rows;
        g.rows += plan->sampled_rows;
        g.all_rows += plan->rows;
        g.loose += c->edge[EDGE_CHAIN].state == EDGE_LOOSE;
        for (int s = 0; s < c->n_stages; s++) count_stage(&g, &c->stage[s]);
    }
    report_count_facts(run, &met, &all);
    g.unmet = all - met;
    return g;
}

static void print_count(FILE *file, int64_t n, const char *one, const char *many) {
    if (n) fprintf(file, "%lld %s; ", (long long)n, n == 1 ? one : many);
}

void report_gaps(FILE *file, const struct run_result *run) {
    const struct gaps g = report_count_gaps(run);
    print_count(file, g.skipped, "case skipped", "cases skipped");
    print_count(file, run->n_waived, "failure waived", "failures waived");
    print_count(file, run->n_stale, "stale waiver", "stale waivers");
    print_count(file, g.invisible, "case whose seeded mistake changes nothing",
                "cases whose seeded mistake changes nothing");
    if (run->fact)
        print_count(file, g.unmet, "fact of coverage not met", "facts of coverage not met");
    else
        fputs("coverage, which was not counted; ", file);
    print_count(file, g.loose, "edge too loose to prove anything", "edges too loose to prove anything");
    print_count(file, g.silent, "statistical test that says nothing", "statistical tests that say nothing");
    print_count(file, g.unchained, "case without the chain edge", "cases without the chain edge");
    if (g.sampled)
        fprintf(file, "plan edge of %lld cases, %lld of %lld rows recomputed; ", (long long)g.sampled,
                (long long)g.rows, (long long)g.all_rows);
    fputs(g.oracle ? "oracle edge: only what its file holds" : "oracle edge: no file", file);
    if (run->in_process) fputs("; no worker stood between the code under test and this report", file);
}
