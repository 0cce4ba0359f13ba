/* Has a verdict changed from one run to another, and is everything still judged?  Cases are paired by
 * their lines, stages by their names, facts by theirs. Verdicts come first; margins and times are told, and
 * count only where that is asked for. */
/* SPDX-License-Identifier: MIT */
#include "reports/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"

enum { SHOWN = 20, FEW = 5 }; /* lines of one kind */

/* One case of each run. */
struct pair {
    const struct case_result *a, *b;
};
struct pairs {
    FILE *file;
    struct pair *of; /* [n] those that both have, in the order of a */
    int64_t n;
    bool *in_a, *in_b; /* [n_cases] has a partner */
};

static bool pair_up(struct pairs *p, const struct run_result *a, const struct run_result *b) {
    p->of = calloc((size_t)a->n_cases + 1, sizeof *p->of);
    p->in_a = calloc((size_t)a->n_cases + 1, 1);
    p->in_b = calloc((size_t)b->n_cases + 1, 1);
    if (!p->of || !p->in_a || !p->in_b) return false;
    for (int64_t i = 0; i < a->n_cases; i++)
        for (int64_t k = 0; k < b->n_cases && !p->in_a[i]; k++) {
            if (p->in_b[k] || strcmp(a->cases[i].line, b->cases[k].line) != 0) continue;
            p->in_a[i] = p->in_b[k] = true;
            p->of[p->n++] = (struct pair){&a->cases[i], &b->cases[k]};
        }
    return true;
}

/* ---- what has changed at the stages of a pair ---- */

enum change_kind { CHANGE_FAILS, CHANGE_STAGE_GONE, CHANGE_EDGE_GONE, CHANGE_FEWER, CHANGE_UNTESTED };
struct change {
    enum change_kind kind;
    const char *stage; /* "chain" where the edge is of all stages */
    enum edge edge;
    const struct edge_result *a, *b; /* NULL: the stage is gone */
};
typedef void (*take_change)(void *context, const struct change *change);

static const struct stage_result *stage_of(const struct case_result *r, const char *name) {
    for (int i = 0; i < r->n_stages; i++)
        if (!strcmp(r->stage[i].stage, name)) return &r->stage[i];
    return NULL;
}

static void edge_changes(const char *stage, enum edge edge, const struct edge_result *a,
                         const struct edge_result *b, take_change take, void *context) {
    struct change c = {.stage = stage, .edge = edge, .a = a, .b = b};
    if (a->state == EDGE_NOT_RUN) return;
    if (b->state == EDGE_NOT_RUN)
        c.kind = CHANGE_EDGE_GONE;
    else if (b->state > a->state)
        c.kind = CHANGE_FAILS;
    else if (b->elements < a->elements)
        c.kind = CHANGE_FEWER;
    else if (a->trend.state == TREND_FINE && b->trend.state != TREND_FINE && b->trend.state != TREND_WRONG)
        c.kind = CHANGE_UNTESTED;
    else
        return;
    take(context, &c);
}

static void each_change(const struct pair *p, take_change take, void *context) {
    for (int i = 0; i < p->a->n_stages; i++) {
        const struct stage_result *const a = &p->a->stage[i], *const b = stage_of(p->b, a->stage);
        if (!b) take(context, &(struct change){.kind = CHANGE_STAGE_GONE, .stage = a->stage});
        for (int e = 0; e < EDGE_CHAIN && b; e++)
            edge_changes(a->stage, (enum edge)e, &a->edge[e], &b->edge[e], take, context);
    }
    edge_changes("chain", EDGE_CHAIN, &p->a->edge[EDGE_CHAIN], &p->b->edge[EDGE_CHAIN], take, context);
}

struct count {
    int64_t fails, less;
};

static void count_change(void *context, const struct change *c) {
    struct count *const n = context;
    if (c->kind == CHANGE_FAILS)
        n->fails++;
    else
        n->less++;
}

static void print_change(void *context, const struct change *c) {
    FILE *const file = context;
    if (c->kind == CHANGE_STAGE_GONE) {
        fprintf(file, "  stage %s is gone\n", c->stage);
        return;
    }
    fprintf(file, "  %s: ", c->edge == EDGE_CHAIN ? "layer" : c->stage);
    if (c->kind == CHANGE_FAILS)
        fprintf(file, "%s %s -> %s\n", edge_name(c->edge), edge_state_name(c->a->state),
                edge_state_name(c->b->state));
    else if (c->kind == CHANGE_EDGE_GONE)
        fprintf(file, "%s is not judged any more\n", edge_name(c->edge));
    else if (c->kind == CHANGE_FEWER)
        fprintf(file, "%s judged %lld elements, %lld now\n", edge_name(c->edge), (long long)c->a->elements,
                (long long)c->b->elements);
    else
        fprintf(file, "%s, statistical test: %s -> %s\n", edge_name(c->edge),
                trend_state_name(c->a->trend.state), trend_state_name(c->b->trend.state));
}

/* ---- verdicts ---- */

enum pair_kind {
    PAIR_FAILS,
    PAIR_FAILS_ELSEWHERE,
    PAIR_SKIPPED,
    PAIR_LESS,
    PAIR_WAIVED,
    PAIR_BETTER,
    PAIR_SAME
};

/* A failure that nobody looks at any more is not repaired. */
static enum pair_kind kind_of(const struct pair *p) {
    struct count n = {0};
    each_change(p, count_change, &n);
    if (p->a->verdict != p->b->verdict && p->b->verdict == CASE_FAILED) return PAIR_FAILS;
    if (p->b->verdict == CASE_FAILED && (n.fails || (p->b->crashed && !p->a->crashed)))
        return PAIR_FAILS_ELSEWHERE;
    if (p->a->verdict != p->b->verdict && p->b->verdict == CASE_SKIPPED) return PAIR_SKIPPED;
    if (n.less) return PAIR_LESS;
    if (p->a->verdict != p->b->verdict && p->b->verdict == CASE_WAIVED) return PAIR_WAIVED;
    return p->a->verdict != p->b->verdict ? PAIR_BETTER : PAIR_SAME;
}

/* The case of an earlier pair that is worse in the same way. */
static const char *told_before(const struct pairs *p, int64_t i) {
    for (int64_t k = 0; k < i; k++)
        if (kind_of(&p->of[k]) <= PAIR_FAILS_ELSEWHERE && report_same_cause(p->of[k].b, p->of[i].b))
            return p->of[k].b->line;
    return NULL;
}

static void print_pair(const struct pairs *p, int64_t i, enum pair_kind kind) {
    static const char *const words[] = {"WORSE ", "WORSE ", "WORSE ", "LESS  ", "WAIVED", "BETTER"};
    const struct case_result *const a = p->of[i].a, *const b = p->of[i].b;
    fprintf(p->file, "%s %s: %s -> %s", words[kind], b->line, verdict_name(a->verdict),
            verdict_name(b->verdict));
    const char *const before = kind <= PAIR_FAILS_ELSEWHERE ? told_before(p, i) : NULL;
    if (before) fprintf(p->file, "  (same cause as %s)", before);
    if (kind == PAIR_SKIPPED) fprintf(p->file, "  %s", b->reason);
    if (kind == PAIR_WAIVED) fprintf(p->file, "  %s", b->waived);
    fputc('\n', p->file);
    if (before || kind == PAIR_SKIPPED || kind >= PAIR_WAIVED) return;
    each_change(&p->of[i], print_change, p->file);
    if (b->verdict == CASE_FAILED) report_text_failure(p->file, b);
}

/* Returns how many there are; shows the first. */
static int64_t print_pairs(const struct pairs *p, enum pair_kind kind) {
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++)
        if (kind_of(&p->of[i]) == kind && n++ < SHOWN) print_pair(p, i, kind);
    if (n > SHOWN) fprintf(p->file, "       and %lld more\n", (long long)n - SHOWN);
    return n;
}

static int64_t print_unpaired(const struct pairs *p, const char *word, const struct run_result *run,
                              const bool *paired) {
    int64_t n = 0;
    for (int64_t i = 0; i < run->n_cases; i++)
        if (!paired[i] && n++ < SHOWN)
            fprintf(p->file, "%-6s %s: %s\n", word, run->cases[i].line, verdict_name(run->cases[i].verdict));
    if (n > SHOWN) fprintf(p->file, "       and %lld more\n", (long long)n - SHOWN);
    return n;
}

/* ---- coverage ---- */

static bool is_met(const struct run_result *run, const char *fact) {
    for (int f = 0; f < run->n_facts; f++)
        if (!strcmp(run->fact[f].name, fact)) return run->fact[f].n_cases > 0;
    return false;
}

/* Facts that `a` met and `b` does not. */
static int64_t print_facts(FILE *file, const char *word, const struct run_result *a,
                           const struct run_result *b) {
    int64_t n = 0;
    for (int f = 0; f < a->n_facts; f++) {
        if (!a->fact[f].n_cases || is_met(b, a->fact[f].name)) continue;
        if (n < FEW) fprintf(file, "%s%s", n ? ", " : word, a->fact[f].name);
        n++;
    }
    if (n > FEW) fprintf(file, " and %lld more", (long long)n - FEW);
    if (n) fputc('\n', file);
    return n;
}

/* ---- margins and times ---- */

struct margin_change {
    const char *line, *stage;
    enum edge edge;
    double a, b;
};
struct margins {
    struct margin_change *of; /* [n] */
    int64_t n;
};

/* By how much; what was 0 has grown without measure. */
static double growth(double a, double b) { return a == b ? 1 : a > 0 ? b / a : INFINITY; }

static int by_growth(const void *a, const void *b) {
    const struct margin_change *const x = a, *const y = b;
    const double p = growth(x->a, x->b), q = growth(y->a, y->b);
    return p == q ? (x->b < y->b) - (x->b > y->b) : p < q ? 1 : -1;
}

/* Of edges that were right in both; what failed is told by its verdict. */
static void add_margin(struct margins *m, const char *line, const char *stage, enum edge edge,
                       const struct edge_result *a, const struct edge_result *b) {
    const bool right = a->state != EDGE_NOT_RUN && a->state != EDGE_FAIL && b->state != EDGE_NOT_RUN &&
                       b->state != EDGE_FAIL;
    if (right && a->margin != b->margin)
        m->of[m->n++] = (struct margin_change){line, stage, edge, a->margin, b->margin};
}

static bool gather_margins(const struct pairs *p, struct margins *m) {
    size_t most = 1;
    for (int64_t i = 0; i < p->n; i++) most += (size_t)p->of[i].a->n_stages * EDGE_COUNT + 1;
    m->of = calloc(most, sizeof *m->of);
    for (int64_t i = 0; i < p->n && m->of; i++) {
        const struct case_result *const a = p->of[i].a, *const b = p->of[i].b;
        for (int s = 0; s < a->n_stages; s++) {
            const struct stage_result *const other = stage_of(b, a->stage[s].stage);
            for (int e = 0; e < EDGE_CHAIN && other; e++)
                add_margin(m, a->line, a->stage[s].stage, (enum edge)e, &a->stage[s].edge[e],
                           &other->edge[e]);
        }
        add_margin(m, a->line, "layer", EDGE_CHAIN, &a->edge[EDGE_CHAIN], &b->edge[EDGE_CHAIN]);
    }
    if (m->of) qsort(m->of, (size_t)m->n, sizeof *m->of, by_growth);
    return m->of != NULL;
}

static void print_margins(FILE *file, const struct margins *m, double most, struct comparison *out) {
    for (int64_t i = 0; i < m->n; i++) {
        const double ratio = growth(m->of[i].a, m->of[i].b);
        out->n_grown += ratio > 1;
        out->n_shrunk += ratio < 1;
        out->n_beyond += most > 0 && ratio > most;
    }
    if (!m->n) return;
    fprintf(file, "margins  %lld grew, %lld shrank", (long long)out->n_grown, (long long)out->n_shrunk);
    if (most > 0) fprintf(file, "; %lld by more than %g times", (long long)out->n_beyond, most);
    fputc('\n', file);
    for (int64_t i = 0; i < m->n && i < FEW; i++) {
        char a[32], b[32];
        report_margin(a, sizeof a, m->of[i].a);
        report_margin(b, sizeof b, m->of[i].b);
        fprintf(file, "  %s -> %s  %s, %s of %s\n", a, b, m->of[i].stage, edge_name(m->of[i].edge),
                m->of[i].line);
    }
}

static void compare_times(const struct pairs *p, double most, struct comparison *out) {
    for (int64_t i = 0; i < p->n; i++) {
        out->seconds_a += p->of[i].a->seconds;
        out->seconds_b += p->of[i].b->seconds;
    }
    out->slower = most > 0 && out->seconds_b > most * out->seconds_a;
    if (!p->n) return;
    fprintf(p->file, "time     %.2f s -> %.2f s", out->seconds_a, out->seconds_b);
    if (most > 0) fprintf(p->file, ", %s than %g times", out->slower ? "more" : "no more", most);
    fputc('\n', p->file);
}

/* ---- is all of it the same? ---- */

/* As JSON, without what only this run knows: times, numbers of facts (they are compared by name), and
 * whose verdict was taken over. */
static char *measured(const struct case_result *r) {
    struct case_result *const c = malloc(sizeof *c);
    struct stage_result *const stage = calloc((size_t)r->n_stages + 1, sizeof *stage);
    char *text = NULL;
    if (c && stage) {
        if (r->n_stages) memcpy(stage, r->stage, (size_t)r->n_stages * sizeof *stage);
        for (int i = 0; i < r->n_stages; i++) stage[i].seconds_kernel = stage[i].seconds_reference = 0;
        *c = *r;
        c->stage = stage;
        c->seconds = 0;
        c->facts = (struct fact_set){0};
        c->same_as = NULL;
        c->of_grid = false;
        text = report_case_json(c);
    }
    free(stage);
    free(c);
    return text;
}

static bool all_measured_alike(const struct pairs *p) {
    bool alike = true;
    for (int64_t i = 0; i < p->n && alike; i++) {
        char *const a = measured(p->of[i].a), *const b = measured(p->of[i].b);
        alike = a && b && !strcmp(a, b);
        free(a);
        free(b);
    }
    return alike;
}

/* ---- the report ---- */

static void print_end(FILE *file, const struct comparison *c, int64_t n) {
    if (c->identical) {
        fprintf(file, "identical: %lld cases, the same in all but time\n", (long long)n);
        return;
    }
    if (!c->worse && !c->n_waived && !c->n_better && !c->n_new && !c->n_gained && !c->n_grown && !c->n_shrunk)
        fputs("the same verdicts and margins; other counts or texts\n", file);
    fprintf(file,
            "%lld worse, %lld gone, %lld judged less, %lld better, %lld new; %lld facts lost, %lld gained\n",
            (long long)c->n_worse, (long long)c->n_gone, (long long)c->n_less, (long long)c->n_better,
            (long long)c->n_new, (long long)c->n_lost, (long long)c->n_gained);
}

struct comparison report_compare(FILE *file, const struct run_result *a, const struct run_result *b,
                                 const struct compare_wish *wish) {
    struct pairs p = {.file = file};
    struct margins m = {0};
    struct comparison c = {0};
    if (!pair_up(&p, a, b) || !gather_margins(&p, &m)) {
        fputs("out of memory; nothing is compared\n", file);
        c.worse = true;
    } else {
        c.n_worse = print_pairs(&p, PAIR_FAILS);
        c.n_worse += print_pairs(&p, PAIR_FAILS_ELSEWHERE);
        c.n_worse += print_pairs(&p, PAIR_SKIPPED);
        c.n_gone = print_unpaired(&p, "GONE", a, p.in_a);
        c.n_less = print_pairs(&p, PAIR_LESS);
        c.n_waived = print_pairs(&p, PAIR_WAIVED);
        c.n_better = print_pairs(&p, PAIR_BETTER);
        c.n_new = print_unpaired(&p, "NEW", b, p.in_b);
        c.n_lost = print_facts(file, "coverage lost: ", a, b);
        c.n_gained = print_facts(file, "coverage gained: ", b, a);
        print_margins(file, &m, wish->margin, &c);
        compare_times(&p, wish->time, &c);
        c.worse = c.n_worse || c.n_gone || c.n_less || c.n_lost || c.n_beyond || c.slower;
        c.identical = p.n == a->n_cases && p.n == b->n_cases && !c.n_lost && !c.n_gained &&
                      all_measured_alike(&p) && !c.slower;
        print_end(file, &c, p.n);
    }
    free(p.of), free(p.in_a), free(p.in_b), free(m.of);
    return c;
}
