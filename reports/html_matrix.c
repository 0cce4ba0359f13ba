/* Which case is wrong at which stage, and how near is the rest?  Rows are cases, columns the stages in
 * the order of the layer. Cases that share stages share a table; the grid has tables of its own. */
/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "reports/html.h"

enum { MAX_COLUMNS = 64, MAX_TABLES = 8 };

struct columns {
    bool grid;
    int n;
    const char *stage[MAX_COLUMNS];
};

static int column_of(const struct columns *t, const char *stage) {
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->stage[i], stage)) return i;
    return -1;
}

/* A stage that the table lacks stands where it stands in the case. */
static void merge(struct columns *t, const struct case_result *c) {
    int at = 0;
    for (int s = 0; s < c->n_stages; s++) {
        const int there = column_of(t, c->stage[s].stage);
        if (there >= 0) {
            at = there + 1;
        } else if (t->n < MAX_COLUMNS) {
            memmove(&t->stage[at + 1], &t->stage[at], (size_t)(t->n++ - at) * sizeof *t->stage);
            t->stage[at++] = c->stage[s].stage;
        }
    }
}

/* A case without stages was skipped or crashed, and fits everywhere. */
static bool shares(const struct columns *t, const struct case_result *c) {
    for (int s = 0; s < c->n_stages; s++)
        if (column_of(t, c->stage[s].stage) >= 0) return true;
    return c->n_stages == 0 || t->n == 0;
}

struct tables {
    int n;
    struct columns of[MAX_TABLES];
};

/* The table of a case; a case without stages stands in the first. */
static int table_of(const struct tables *all, const struct case_result *c) {
    for (int i = 0; i < all->n; i++)
        if (all->of[i].grid == c->of_grid && shares(&all->of[i], c)) return i;
    return -1;
}

static void sort_into(struct tables *all, const struct run_result *run) {
    for (int64_t i = 0; i < run->n_cases; i++) {
        const struct case_result *const c = &run->cases[i];
        int at = table_of(all, c);
        if (at < 0 && all->n == MAX_TABLES) at = MAX_TABLES - 1;
        if (at < 0) all->of[at = all->n++].grid = c->of_grid;
        merge(&all->of[at], c);
    }
}

/* ---- a row ---- */

/* Of the edges that compare stages; the chain is of the whole layer. */
static const struct edge_result *worst_edge(const struct edge_result *edge) {
    const struct edge_result *worst = &edge[EDGE_KERNEL];
    for (int e = EDGE_PLAN; e < EDGE_CHAIN; e++)
        if (edge[e].state > worst->state || (edge[e].state == worst->state && edge[e].margin > worst->margin))
            worst = &edge[e];
    return worst;
}

static void print_cell(FILE *file, const struct edge_result *shown) {
    char text[40];
    report_edge_cell(text, sizeof text, shown);
    const bool failed = shown->state == EDGE_FAIL;
    fprintf(file, "<td class=\"%s\">%s", html_edge_class(shown), failed ? "\u2717" : "");
    report_escape(file, failed ? text + strlen("FAIL") : text);
}

static const struct stage_result *stage_named(const struct case_result *c, const char *stage) {
    for (int s = 0; s < c->n_stages; s++)
        if (!strcmp(c->stage[s].stage, stage)) return &c->stage[s];
    return NULL;
}

static void print_name(FILE *file, const struct case_result *c) {
    static const struct {
        const char *class, *sign;
    } look[] = {[CASE_PASSED] = {"p", "\u2713"},
                [CASE_FAILED] = {"f", "\u2717"},
                [CASE_SKIPPED] = {"s", "-"},
                [CASE_WAIVED] = {"s", "~"}};
    fprintf(file, "<tr><th scope=\"row\" class=\"%s\">%s ", look[c->verdict].class, look[c->verdict].sign);
    report_escape(file, c->line);
    if (c->same_as) {
        fputs(" (same as ", file);
        report_escape(file, c->same_as);
        fputc(')', file);
    }
    fputs("</th>", file);
}

static void print_row(FILE *file, const struct columns *t, const struct case_result *c) {
    print_name(file, c);
    for (int i = 0; i < t->n; i++) {
        const struct stage_result *const s = stage_named(c, t->stage[i]);
        if (!s) {
            fputs("<td></td>", file);
            continue;
        }
        print_cell(file, worst_edge(s->edge));
        html_ticks(file, s->edge, EDGE_ORACLE);
        fputs("</td>", file);
    }
    print_cell(file, &c->edge[EDGE_CHAIN]);
    fputs("</td></tr>\n", file);
}

/* ---- a table ---- */

static void print_table(FILE *file, const struct tables *all, int at, const struct run_result *run) {
    const struct columns *const t = &all->of[at];
    fputs("<div class=\"box\"><table class=\"matrix\">\n<thead><tr><th>case</th>", file);
    for (int i = 0; i < t->n; i++) {
        fputs("<th scope=\"col\">", file);
        report_escape(file, t->stage[i]);
        fputs("</th>", file);
    }
    fputs("<th scope=\"col\">chain</th></tr></thead>\n<tbody>\n", file);
    for (int64_t i = 0; i < run->n_cases; i++)
        if (table_of(all, &run->cases[i]) == at) print_row(file, t, &run->cases[i]);
    fputs("</tbody></table></div>\n", file);
}

static const char legend[] =
    "<p class=\"dim\">A number is the worst margin of a stage, the error over its bound: at most 1 is right, "
    "<b>ok</b> is exact, \u2717 is wrong. Below it the edges: k kernel, p plan, s shard, o oracle; a capital "
    "has failed, ~ is too loose to prove anything, - was not run. The chain is of the whole layer.</p>\n";

void html_matrix(FILE *file, const struct run_result *run) {
    struct tables all = {0};
    sort_into(&all, run);
    if (!run->n_cases) return;
    fprintf(file, "<h2>Cases and stages</h2>\n%s", legend);
    for (int grid = 0; grid < 2; grid++) {
        if (grid && run->n_grid)
            fprintf(file, "<details%s><summary>The grid: %lld cases besides, %lld failed</summary>\n",
                    run->n_grid_failed ? " open=\"open\"" : "", (long long)run->n_grid,
                    (long long)run->n_grid_failed);
        for (int i = 0; i < all.n; i++)
            if (all.of[i].grid == grid) print_table(file, &all, i, run);
        if (grid && run->n_grid) fputs("</details>\n", file);
    }
}
