/* JUnit XML: one suite, one testcase a case; a failure carries the text report's block. */
/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "reports/report.h"

/* Text between tags: newlines stay readable. */
static void print_escaped_lines(FILE *file, const char *text) {
    while (*text) {
        char line[1024];
        size_t n = strcspn(text, "\n");
        if (n >= sizeof line) {
            n = sizeof line - 1;
            while (n > sizeof line - 4 && (text[n] & 0xc0) == 0x80) n--; /* not inside a character */
        }
        memcpy(line, text, n);
        line[n] = 0;
        report_escape(file, line);
        text += n;
        if (*text == '\n') fputc(*text++, file);
    }
}

static void print_attribute(FILE *file, const char *name, const char *value) {
    fprintf(file, " %s=\"", name);
    report_escape(file, value);
    fputc('"', file);
}

static void print_property(FILE *file, const char *indent, const char *name, const char *value) {
    fprintf(file, "%s<property", indent);
    print_attribute(file, "name", name);
    print_attribute(file, "value", value);
    fputs("/>\n", file);
}

/* What a CI page shows without a click: where, the first element, the mistake. */
static void print_message(FILE *file, const struct case_result *r) {
    char text[900];
    int n = snprintf(text, sizeof text, "%s", r->where[0] && !r->crashed ? r->where : r->reason);
    if (r->first.tensor[0] && !r->crashed)
        n += snprintf(text + n, sizeof text - (size_t)n, "; got %.9g, expected %.9g +- %.3g", r->first.got,
                      r->first.expected, r->first.bound);
    if (r->likely[0]) snprintf(text + n, sizeof text - (size_t)n, "; likely %s", r->likely);
    print_attribute(file, "message", text);
}

static void print_failure(FILE *file, const struct case_result *r, int verbosity) {
    char *block = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&block, &size);
    bool complete = false;
    if (stream) {
        report_text_case(stream, r, verbosity);
        complete = !fclose(stream);
    }
    fputs(r->crashed ? "    <error type=\"crash\"" : "    <failure type=\"defect\"", file);
    print_message(file, r);
    fputs(">", file);
    print_escaped_lines(file, complete ? block : r->where);
    fputs(r->crashed ? "</error>\n" : "</failure>\n", file);
    free(block);
}

/* How much the bounds of each stage say: median E/|y| of the kernel edge, and the sets that say
 * nothing. As output, for strict schemas allow no properties of a case (Jenkins' junit-10.xsd). */
static void print_sharpness(FILE *file, const struct case_result *r) {
    fputs("    <system-out>\n", file);
    for (int i = 0; i < r->n_stages; i++) {
        const struct edge_result *const edge = &r->stage[i].edge[EDGE_KERNEL];
        fputs("sharpness ", file);
        report_escape(file, r->stage[i].stage);
        fprintf(file, " %.2g (%lld of %lld vacuous)\n", edge->sharpness, (long long)edge->vacuous,
                (long long)edge->elements);
    }
    fputs("    </system-out>\n", file);
}

static void print_case(FILE *file, const struct case_result *r, int verbosity) {
    char head[sizeof r->line];
    snprintf(head, sizeof head, "%.*s", (int)report_head_length(r->line), r->line);
    fputs("  <testcase", file);
    print_attribute(file, "classname", head);
    print_attribute(file, "name", r->line);
    fprintf(file, " time=\"%.3f\"", r->seconds);
    if (r->verdict == CASE_PASSED && !r->n_stages) {
        fputs("/>\n", file);
        return;
    }
    fputs(">\n", file);
    if (r->verdict == CASE_FAILED) {
        print_failure(file, r, verbosity);
    } else if (r->verdict == CASE_SKIPPED) {
        fputs("    <skipped", file);
        print_attribute(file, "message", r->reason);
        fputs("/>\n", file);
    } else if (r->verdict == CASE_WAIVED) {
        char message[600];
        snprintf(message, sizeof message, "waived %s; %s", r->waived, r->where);
        fputs("    <skipped", file);
        print_attribute(file, "message", message);
        fputs("/>\n", file);
    }
    if (r->n_stages) print_sharpness(file, r);
    fputs("  </testcase>\n", file);
}

/* No case of the run, but the run fails for it. */
static void print_stale(FILE *file, int number, const char *line) {
    fprintf(file, "  <testcase classname=\"shardcheck\" name=\"stale waiver %d\" time=\"0\">\n", number);
    fputs("    <failure type=\"stale-waiver\"", file);
    print_attribute(file, "message", line);
    fputs("/>\n  </testcase>\n", file);
}

void report_junit(FILE *file, const struct run_result *run, int verbosity) {
    fprintf(file,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<testsuite name=\"shardcheck\" tests=\"%lld\" failures=\"%lld\" errors=\"%lld\" skipped=\"%lld\""
            " time=\"%.3f\">\n  <properties>\n",
            (long long)run->n_cases + run->n_stale,
            (long long)(run->n_failed - run->n_crashed) + run->n_stale, (long long)run->n_crashed,
            (long long)(run->n_skipped + run->n_waived), run->seconds);
    print_property(file, "    ", "version", run->version);
    print_property(file, "    ", "device", run->device);
    print_property(file, "    ", "command", run->command);
    if (run->fact) {
        int met, all;
        char text[32];
        report_count_facts(run, &met, &all);
        snprintf(text, sizeof text, "%d of %d", met, all);
        print_property(file, "    ", "coverage", text);
    }
    if (run->in_process) print_property(file, "    ", "in_process", "true");
    fputs("  </properties>\n", file);
    for (int64_t i = 0; i < run->n_cases; i++) print_case(file, &run->cases[i], verbosity);
    for (int i = 0; i < run->n_stale; i++) print_stale(file, i + 1, run->stale[i]);
    fputs("</testsuite>\n", file);
}
