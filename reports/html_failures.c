/* What is wrong, where, and how does one see it again?  One section a cause, told by the first case
 * that failed so; the others are listed. */
/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reports/html.h"

/* ---- the layer: the first stage that failed is the guilty one, what fails behind it may follow ---- */

static const struct edge_result *failed_edge(const struct edge_result *edge) {
    for (int e = 0; e < EDGE_COUNT; e++)
        if (edge[e].state == EDGE_FAIL) return &edge[e];
    return NULL;
}

static void print_box(FILE *file, const struct edge_result *edge, enum edge last, const char *name,
                      const char *implementation, bool first) {
    const struct edge_result *const failed = failed_edge(edge);
    fprintf(file, "<li class=\"%s%s\">", failed ? "f" : "a0", failed && first ? " guilty" : "");
    html_element(file, "span", NULL, name);
    html_element(file, "small", NULL, implementation);
    if (!failed) html_ticks(file, edge, last);
    for (int e = 0; failed && e < EDGE_COUNT; e++)
        if (edge[e].state == EDGE_FAIL) fprintf(file, "<b>\u2717 %s</b>", edge_name((enum edge)e));
    fputs("</li>\n", file);
}

static void print_layer(FILE *file, const struct case_result *c) {
    struct edge_result chain[EDGE_COUNT] = {{0}};
    chain[EDGE_CHAIN] = c->edge[EDGE_CHAIN];
    fputs("<ol class=\"layer\">\n", file);
    for (int s = 0; s < c->n_stages; s++)
        print_box(file, c->stage[s].edge, EDGE_ORACLE, c->stage[s].stage, c->stage[s].kernel,
                  !strcmp(c->stage[s].stage, c->first.stage));
    if (failed_edge(chain)) print_box(file, chain, EDGE_CHAIN, "all stages", "against plain.c", true);
    fputs("</ol>\n", file);
}

/* Which edge fails alone says whose fault it is. */
static const char *blamed(const struct case_result *c) {
    static const char *const alone[EDGE_COUNT] = {
        [EDGE_KERNEL] = "a kernel: already the unsharded run is wrong",
        [EDGE_PLAN] = "the slicing: no kernel is involved",
        [EDGE_SHARD] = "what a rank's kernel is called with: strides, head counts, offsets",
        [EDGE_ORACLE] = "the reference, or the file",
        [EDGE_CHAIN] =
            "the reference, an argument that kernel and reference share, or the order of the stages",
    };
    int failed = -1, n = 0;
    for (int e = 0; e < EDGE_COUNT; e++)
        if (c->edge[e].state == EDGE_FAIL) failed = e, n++;
    return n == 1 ? alone[failed] : NULL;
}

/* ---- the words ---- */

static void print_field(FILE *file, const char *name, const char *value) {
    if (!value || !value[0]) return;
    html_element(file, "dt", NULL, name);
    html_element(file, "dd", NULL, value);
    fputc('\n', file);
}

/* As the text report says it. */
static void print_edge(FILE *file, enum edge edge, const struct edge_result *r) {
    char *text = NULL;
    size_t size = 0;
    FILE *const stream = open_memstream(&text, &size);
    if (stream) report_text_edge(stream, edge, r);
    if (stream && !fclose(stream)) report_escape(file, text);
    free(text);
}

static void print_edges(FILE *file, const struct case_result *c) {
    fputs("<dt>edges</dt><dd>", file);
    for (int e = 0; e < EDGE_COUNT; e++) {
        if (c->edge[e].state == EDGE_NOT_RUN) continue;
        fputs(e ? " \u00b7 " : "", file);
        print_edge(file, (enum edge)e, &c->edge[e]);
    }
    fputs("</dd>\n", file);
}

/* What a failed statistical test measured, of the stage where it failed most clearly. */
static void print_trend(FILE *file, const struct case_result *c) {
    const struct trend *worst = NULL;
    for (int s = 0; s < c->n_stages; s++)
        for (int e = 0; e < EDGE_COUNT; e++) {
            const struct trend *const t = &c->stage[s].edge[e].trend;
            if (t->state == TREND_WRONG && (!worst || t->statistic > worst->statistic)) worst = t;
        }
    if (!worst) return;
    fprintf(file, "<dt>statistical</dt><dd>%.3g of the threshold: ", worst->statistic);
    report_escape(file, worst->about);
    fprintf(file, ", estimate %.3g, resolution %.3g</dd>\n", worst->worst.estimate, worst->worst.resolution);
}

static void print_words(FILE *file, const struct case_result *c) {
    fputs("<dl>\n", file);
    print_edges(file, c);
    print_field(file, "to blame", blamed(c));
    print_field(file, "reason", c->reason);
    print_field(file, "where", c->where);
    print_trend(file, c);
    print_field(file, "likely", c->likely);
    print_field(file, "resembles", c->resembles);
    print_field(file, "read", c->read);
    fputs("</dl>\n", file);
}

/* ---- elements ---- */

static void print_value(FILE *file, double value) {
    if (isnan(value))
        fputs("<td>NaN</td>", file);
    else
        fprintf(file, "<td>%.9g</td>", value);
}

static void print_element(FILE *file, const char *which, const struct mismatch *m) {
    char rank[48] = "unsharded", margin[32];
    if (m->rank >= 0 && m->to_rank > m->rank)
        snprintf(rank, sizeof rank, "ranks %d-%d added up", m->rank, m->to_rank);
    else if (m->rank >= 0)
        snprintf(rank, sizeof rank, "rank %d", m->rank);
    report_margin(margin, sizeof margin, m->margin);
    fprintf(file, "<tr><th scope=\"row\">%s</th><td>%s %s%s", which, rank, m->stage, m->tensor[0] ? "." : "");
    report_escape(file, m->tensor);
    fputc(' ', file);
    report_escape(file, m->where);
    fputs("</td>", file);
    print_value(file, m->got);
    print_value(file, m->expected);
    print_value(file, m->bound);
    html_element(file, "td", NULL, margin);
    html_element(file, "td", NULL, m->note);
    fputs("</tr>\n", file);
}

/* A damaged guard or an error of a launch has no element: its note alone. */
static void print_elements(FILE *file, const struct case_result *c) {
    const struct mismatch *const a = &c->first, *const b = &c->worst;
    if (!a->stage[0]) return;
    if (!a->tensor[0]) {
        html_element(file, "p", NULL, a->note);
        return;
    }
    fputs("<div class=\"box\"><table "
          "class=\"words\"><thead><tr><th>wrong</th><th>place</th><th>got</th><th>expected</th>"
          "<th>\u00b1 bound E</th><th>margin</th><th>note</th></tr></thead><tbody>\n",
          file);
    print_element(file, "first", a);
    if (strcmp(a->where, b->where) || a->rank != b->rank || strcmp(a->tensor, b->tensor))
        print_element(file, "worst", b);
    fputs("</tbody></table></div>\n", file);
}

/* ---- a section ---- */

static void print_title(FILE *file, const struct failure_cause *cause) {
    const struct case_result *const c = cause->told;
    fputs("<h3>\u2717 ", file);
    if (c->crashed) fputs("crashed: ", file);
    report_escape(file, c->first.stage[0] ? c->first.stage : c->crashed ? c->reason : "no stage");
    if (c->likely[0]) {
        char name[60];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(c->likely, " :"), c->likely);
        fputs(": likely ", file);
        report_escape(file, name);
    }
    fprintf(file, " (%lld case%s)</h3>\n", (long long)cause->n_cases, cause->n_cases == 1 ? "" : "s");
}

/* Each with its own command; one that is there already need not be unfolded. */
static void print_cases(FILE *file, const struct run_result *run, const struct failure_cause *cause) {
    if (cause->n_cases < 2) return;
    fprintf(file, "<details><summary>%lld more failed alike</summary>\n", (long long)cause->n_cases - 1);
    for (int64_t i = 0; i < run->n_cases; i++) {
        const struct case_result *const c = &run->cases[i];
        if (c == cause->told || !report_same_cause(cause->told, c)) continue;
        html_element(file, "pre", NULL, c->repro && c->repro[0] ? c->repro : c->line);
        fputc('\n', file);
    }
    fputs("</details>\n", file);
}

/* So many maps, those of the worst causes: the page stays small. */
enum { MAPS = 40 };

static void print_map(FILE *file, const struct case_result *c, int64_t k) {
    if (!c->map.tensor[0]) return;
    if (k < MAPS)
        html_map(file, &c->map);
    else
        fputs("<p class=\"dim\">The map of wrong elements is left out here; it is in the JSON report.</p>\n",
              file);
}

/* The k-th in the page. */
static void print_cause(FILE *file, const struct run_result *run, const struct failure_cause *cause,
                        int64_t k) {
    const struct case_result *const c = cause->told;
    fputs("<section>\n", file);
    print_title(file, cause);
    html_element(file, "p", NULL, c->line);
    fputc('\n', file);
    print_layer(file, c);
    print_words(file, c);
    print_elements(file, c);
    print_map(file, c, k);
    if (c->repro && c->repro[0]) {
        fputs("<pre>", file);
        html_element(file, "code", NULL, c->repro);
        fputs("</pre>\n", file);
    }
    print_cases(file, run, cause);
    fputs("</section>\n", file);
}

void html_failures(FILE *file, const struct run_result *run) {
    struct failure_cause *const cause = calloc((size_t)run->n_failed + 1, sizeof *cause);
    if (!run->n_failed) {
        free(cause);
        return;
    }
    fputs("<h2>What failed</h2>\n", file);
    if (!cause) {
        fputs("<p>Out of memory: the failures are missing here.</p>\n", file);
        return;
    }
    const int64_t n = report_causes(run, cause);
    for (int64_t k = 0; k < n; k++) print_cause(file, run, &cause[k], k);
    free(cause);
}
