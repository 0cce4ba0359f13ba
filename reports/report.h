/* report - writes a run_result in one of several formats. To add one: a .c file and a row in
 * report.c. */
/* SPDX-License-Identifier: MIT */
#ifndef REPORTS_REPORT_H
#define REPORTS_REPORT_H

#include <stdio.h>

#include "reports/result.h"

/* verbosity: -1 quiet, 0, 1 -v: stages and times. */
struct report_format {
    const char *name, *describes;
    /* A format that is read while it grows: what stands before the cases (version, device and command
     * are known), and one case after the other. NULL: nothing before the end. */
    void (*begin)(FILE *file, const struct run_result *run, int verbosity);
    void (*one)(FILE *file, const struct case_result *result, int verbosity);
    void (*end)(FILE *file, const struct run_result *run, int verbosity);
};
extern const struct report_format
    report_formats[]; /* ended by a row without a name; the first is the default */
extern const struct report_format report_text_coloured; /* for terminals; nobody asks for it by name */
const struct report_format *report_by_name(const char *name);
/* All of it at once. */
void report_write(const struct report_format *format, FILE *file, const struct run_result *run,
                  int verbosity);

/* Text pieces shared by the formats. */
const char *edge_name(enum edge edge);                /* "kernel", "plan", "shard", ... */
const char *trend_state_name(enum trend_state state); /* "-", "ok", "says nothing", "not tested", "FAIL" */
const char *edge_state_name(enum edge_state state);   /* "-", "ok", "too loose", "FAIL" */
const char *verdict_name(enum case_verdict verdict);  /* "PASS", "FAIL", "SKIP" */
const char *verdict_word(enum case_verdict verdict);  /* "passed", "failed", "skipped" */
/* No kernel ran: it is of what somebody else's run left behind. */
bool report_is_recorded(const struct case_result *result);
/* The case as the text report shows it, newline at the end. */
void report_text_case(FILE *file, const struct case_result *result, int verbosity);
/* Of it what stands below the line of a failed case: edges, where, first, likely, repro. */
void report_text_failure(FILE *file, const struct case_result *result);
/* "0.42", "<0.01", "812", "inf": the margin of an edge or an element; at most 1 is right. */
void report_margin(char *text, size_t size, double margin);
/* Of the facts that apply on the device: how many were met, and how many there are. */
void report_count_facts(const struct run_result *run, int *met, int *all);
/* Its stages, as at -v. */
void report_text_stages(FILE *file, const struct case_result *result);
/* "shard FAIL (margin 812, 3 of 400 elements)"; and shorter, for a table: "FAIL 812", "<0.01", "ok". */
void report_text_edge(FILE *file, enum edge edge, const struct edge_result *result);
void report_edge_cell(char *text, size_t size, const struct edge_result *result);
/* The words of a text that begins at column `indent`, and does so again in every further line; a
 * newline ends it. A word that is too long stays whole. */
enum { REPORT_COLUMNS = 120 };
void report_wrapped(FILE *file, int indent, const char *text);
/* Text as XML and HTML want it, between tags and in attributes. */
void report_escape(FILE *file, const char *text);
/* Length in bytes of MODEL/PART, with which a case line begins. */
size_t report_head_length(const char *line);
/* Length in bytes of the UTF-8 character at `text`; 0: not UTF-8. */
int report_utf8_length(const char *text);

/* Did both fail in the same way? At the same stage, on the same side (unsharded or rank), by the same
 * mistake where it is known, else with the same pattern, relation and note: whatever the ranks and
 * the numbers in them. */
bool report_same_cause(const struct case_result *a, const struct case_result *b);
/* The failed cases by cause: crashes first, then by margin. cause [n_failed]; how many there are. */
struct failure_cause {
    const struct case_result *told; /* the first one that failed so */
    int64_t index, n_cases;         /* of `told` in the run */
};
int64_t report_causes(const struct run_result *run, struct failure_cause *cause);
/* What a pass of this run does not say, counted. */
struct gaps {
    int64_t skipped, unchained, sampled, rows, all_rows, invisible; /* cases; rows of the plan edge */
    int64_t loose, silent;                                          /* edges of stages */
    bool oracle;                                                    /* some case had one */
    int unmet;                                                      /* facts */
};
struct gaps report_count_gaps(const struct run_result *run);
/* And in one line of plain text without its end: "2 cases skipped;
 * oracle edge: no file". */
void report_gaps(FILE *file, const struct run_result *run);

/* One case as a JSON object on one line, to be freed, as the JSON report has it; NULL: no memory.
 * And back: what it says of the case, `stage` and `repro` to be freed; false: it is no such object. */
char *report_case_json(const struct case_result *result);
bool report_read_case(const char *text, size_t length, struct case_result *out);
/* A whole JSON report, to be freed. NULL, or what is wrong with the text, as the end of an error line;
 * then there is nothing to free. */
struct report_read {
    struct run_result run; /* of what follows; grid and crashes are not counted again */
    struct case_result *cases;
    struct fact_count fact[MAX_FACTS];
    char version[40], device[320], command[400];
};
const char *report_read(const char *text, size_t length, struct report_read *out);
void report_read_free(struct report_read *report);

void report_text_begin(FILE *file, const struct run_result *run, int verbosity);
void report_text_one(FILE *file, const struct case_result *result, int verbosity);
void report_text_end(FILE *file, const struct run_result *run, int verbosity);
void report_json(FILE *file, const struct run_result *run, int verbosity);
void report_junit(FILE *file, const struct run_result *run, int verbosity);
void report_html(FILE *file, const struct run_result *run, int verbosity);
void report_markdown(FILE *file, const struct run_result *run, int verbosity);
void report_github(FILE *file, const struct run_result *run, int verbosity);

#endif
