/* What did every stage of a case show?  At -v: a table of the stages, then what some of them have to say
 * besides. Lines of at most REPORT_COLUMNS. */
/* SPDX-License-Identifier: MIT */
#include <stdarg.h>

#include "reports/report.h"

enum { NOTE_COLUMN = 28 }; /* where the text of a note begins */

/* ---- the table ---- */

static void print_stage(FILE *file, const struct stage_result *s) {
    char cell[EDGE_COUNT][40], sharpness[32] = "0";
    int64_t elements = 0;
    for (int e = 0; e < EDGE_CHAIN; e++) { /* the chain is of the whole layer */
        report_edge_cell(cell[e], sizeof cell[e], &s->edge[e]);
        elements += s->edge[e].elements;
    }
    const double median = s->edge[EDGE_KERNEL].sharpness;
    if (median > 0) snprintf(sharpness, sizeof sharpness, "%.1e", median);
    fprintf(file, "  %-17s %-20s %-10s %-10s %-10s %-10s %7s %10lld %7.3f %7.3f\n", s->stage, s->kernel,
            cell[EDGE_KERNEL], cell[EDGE_PLAN], cell[EDGE_SHARD], cell[EDGE_ORACLE], sharpness,
            (long long)elements, s->seconds_kernel, s->seconds_reference);
}

static void print_table(FILE *file, const struct case_result *r) {
    fprintf(file, "  %-17s %-20s %-10s %-10s %-10s %-10s %7s %10s %7s %7s\n", "stage", "implementation",
            "kernel", "plan", "shard", "oracle", "E/|y|", "elements", "kern s", "ref s");
    for (int i = 0; i < r->n_stages; i++) print_stage(file, &r->stage[i]);
}

/* ---- notes ---- */

struct note {
    char text[600];
    size_t used;
};

__attribute__((format(printf, 2, 3))) static void say(struct note *n, const char *format, ...) {
    va_list args;
    if (n->used >= sizeof n->text) return;
    va_start(args, format);
    const int added = vsnprintf(n->text + n->used, sizeof n->text - n->used, format, args);
    va_end(args);
    if (added > 0) n->used += (size_t)added;
}

/* Under a heading of its own, which the first note of a kind brings. */
static void print_note(FILE *file, const char *kind, bool *headed, const char *stage, const char *what,
                       const struct note *note) {
    if (!note->used) return;
    if (!*headed) fprintf(file, "  %s\n", kind);
    *headed = true;
    fprintf(file, "  %-17s %-7s ", stage, what);
    report_wrapped(file, NOTE_COLUMN, note->text);
}

static struct note counts_of(const struct edge_result *r) {
    struct note n = {0};
    const struct {
        int64_t count;
        const char *of;
    } rows[] = {{r->vacuous, "vacuous"}, {r->in_order, "in order"}, {r->ambiguous, "ambiguous"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].count) say(&n, "%s%lld %s", n.used ? ", " : "", (long long)rows[i].count, rows[i].of);
    if (r->sampled_rows < r->rows)
        say(&n, "%s%lld of %lld rows", n.used ? ", " : "", (long long)r->sampled_rows, (long long)r->rows);
    if (r->sets)
        say(&n, "%sexact %lld of %lld", n.used ? ", " : "", (long long)r->single, (long long)r->sets);
    return n;
}

/* "gain +3e-07 (resolution 5.2e-04)" */
static void say_figure(struct note *n, const char *name, struct figure f) {
    if (f.resolution > 0 && f.resolution < 1)
        say(n, "%s %+.1e (resolution %.1e), ", name, f.estimate, f.resolution);
}

/* Stages whose values are exact have none. */
static struct note trend_of(const struct edge_result *r) {
    const struct trend *const t = &r->trend;
    struct note n = {0};
    if (t->state == TREND_SILENT) say(&n, "not tested: %s", t->reason);
    if (t->state == TREND_NONE || t->state == TREND_SILENT) return n;
    say_figure(&n, "gain", t->gain);
    say_figure(&n, "scale", t->scale);
    say(&n, "%s%s: %.2f of the threshold (%s)", t->state == TREND_VAGUE ? "says nothing; " : "",
        t->state == TREND_WRONG ? "FAIL" : "worst", t->statistic, t->about);
    return n;
}

static struct note order_of(const struct edge_result *r) {
    struct note n = {0};
    if (r->order[0]) say(&n, "%s", r->order);
    return n;
}

void report_text_stages(FILE *file, const struct case_result *r) {
    static const struct {
        const char *heading;
        struct note (*of)(const struct edge_result *edge);
    } kinds[] = {{"counted", counts_of}, {"statistical", trend_of}, {"order of sums", order_of}};
    if (r->n_stages == 0) return;
    print_table(file, r);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        bool headed = false;
        for (int i = 0; i < r->n_stages; i++)
            for (int e = 0; e < EDGE_CHAIN; e++) {
                const struct note note = kinds[k].of(&r->stage[i].edge[e]);
                print_note(file, kinds[k].heading, &headed, r->stage[i].stage, edge_name((enum edge)e),
                           &note);
            }
    }
    if (!r->sums[0]) return;
    fprintf(file, "  %-25s ", "reference");
    report_wrapped(file, NOTE_COLUMN, r->sums);
}
