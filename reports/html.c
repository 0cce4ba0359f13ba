/* What does somebody see who opens the result in a browser?  One file that fetches nothing and runs
 * nothing: the verdict and what it does not cover, all cases at a glance, then every failure. */
/* SPDX-License-Identifier: MIT */
#include "reports/html.h"

const char *html_edge_class(const struct edge_result *r) {
    static const char *const inside[] = {"a0", "a1", "a2", "a3", "a4"}; /* 0, up to 1/4, 1/2, 3/4, 1 */
    static const char *const otherwise[] = {[EDGE_NOT_RUN] = "n", [EDGE_LOOSE] = "l", [EDGE_FAIL] = "f"};
    if (r->state != EDGE_OK) return otherwise[r->state];
    for (int i = 0; i < 4; i++)
        if (r->margin <= i / 4.0) return inside[i];
    return inside[4];
}

void html_ticks(FILE *file, const struct edge_result *edge, enum edge last) {
    fputs("<i>", file);
    for (int e = 0; e <= (int)last; e++) {
        const char letter = edge_name((enum edge)e)[0];
        if (edge[e].state == EDGE_FAIL)
            fprintf(file, "<b>%c</b>", letter - 'a' + 'A');
        else
            fputc(edge[e].state == EDGE_OK ? letter : edge[e].state == EDGE_LOOSE ? '~' : '-', file);
    }
    fputs("</i>", file);
}

void html_element(FILE *file, const char *tag, const char *class, const char *text) {
    fprintf(file, class ? "<%s class=\"%s\">" : "<%s>", tag, class);
    report_escape(file, text);
    fprintf(file, "</%s>", tag);
}

/* ---- the head ---- */

static void print_fact(FILE *file, const char *name, const char *value) {
    html_element(file, "dt", NULL, name);
    html_element(file, "dd", NULL, value);
    fputc('\n', file);
}

static void print_head(FILE *file, const struct run_result *run) {
    char counts[120], text[80];
    const int n = snprintf(counts, sizeof counts, "%lld passed, %lld failed, %lld skipped",
                           (long long)run->n_passed, (long long)run->n_failed, (long long)run->n_skipped);
    if (run->n_waived)
        snprintf(counts + n, sizeof counts - (size_t)n, ", %lld waived", (long long)run->n_waived);
    fprintf(file,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
            "<title>shardcheck: %s</title>\n<style>\n%s</style>\n</head>\n<body>\n",
            counts, html_style);
    fprintf(file, "<h1 class=\"%s\">%s</h1>\n",
            run->n_failed || run->n_stale ? "bad"
            : run->n_skipped              ? "part"
                                          : "good",
            counts);
    html_gaps_line(file, run);
    fputs("<dl>\n", file);
    print_fact(file, "device", run->device);
    print_fact(file, "command", run->command);
    print_fact(file, "version", run->version);
    if (run->fact) {
        int met, all;
        report_count_facts(run, &met, &all);
        snprintf(text, sizeof text, "%d of %d facts", met, all);
        print_fact(file, "coverage", text);
    }
    snprintf(text, sizeof text, "%lld in %.1f s", (long long)run->n_cases, run->seconds);
    print_fact(file, "cases", text);
    fputs("</dl>\n", file);
}

void report_html(FILE *file, const struct run_result *run, int verbosity) {
    (void)verbosity; /* the page folds what is long */
    print_head(file, run);
    html_failures(file, run);
    html_matrix(file, run);
    html_gaps(file, run);
    fputs("</body>\n</html>\n", file);
}
