/* What stands in a file, a JSON report above all? */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/report_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/line.h"

enum { MAX_REPORT_BYTES = 256 << 20 };

/* Doubling: pipes have no size. */
static char *read_all(FILE *file, size_t most, size_t *length) {
    size_t room = 1 << 16;
    char *text = malloc(room + 1);
    *length = 0;
    while (text) {
        *length += fread(text + *length, 1, room - *length, file);
        if (*length < room || room > most) break;
        char *const more = realloc(text, 2 * room + 1);
        if (!more) free(text);
        text = more;
        room *= 2;
    }
    if (text) text[*length] = 0;
    return text;
}

struct status file_read(const char *label, const char *path, size_t most, const char *wanted, char **text,
                        size_t *length) {
    errno = 0;
    FILE *const file = fopen(path, "re");
    *text = file ? read_all(file, most, length) : NULL;
    const bool read = *text && !ferror(file), whole = read && *length <= most;
    if (file) fclose(file);
    if (whole) return status_ok();
    free(*text);
    *text = NULL;
    if (read) return status_error("%s%.200s: is longer than %zu bytes; give %s", label, path, most, wanted);
    return status_error("%s%.200s: %s; give %s", label, path, errno ? strerror(errno) : "cannot be read",
                        wanted);
}

/* JSON can spell any character, and these are going to be shown. */
static void clean_mismatch(struct mismatch *m) {
    line_clean(m->stage), line_clean(m->tensor), line_clean(m->where), line_clean(m->note);
}

static void clean_case(struct case_result *r) {
    char *const texts[] = {r->line,      r->reason, r->waived, r->unchained, r->where, r->likely,
                           r->resembles, r->read,   r->mutant, r->repro,     r->sums};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i]) line_clean(texts[i]);
    clean_mismatch(&r->first);
    clean_mismatch(&r->worst);
    for (int i = 0; i < r->n_stages; i++) line_clean(r->stage[i].stage), line_clean(r->stage[i].kernel);
}

static void clean(struct report_read *r) {
    line_clean(r->version), line_clean(r->device), line_clean(r->command);
    for (int f = 0; f < r->run.n_facts; f++) line_clean(r->fact[f].name);
    for (int64_t i = 0; i < r->run.n_cases; i++) clean_case(&r->cases[i]);
}

struct status report_file_read(const char *label, const char *path, struct report_read *out) {
    char *text = NULL;
    size_t length = 0;
    TRY(file_read(label, path, MAX_REPORT_BYTES, "a JSON report", &text, &length));
    const char *const problem = report_read(text, length, out);
    free(text);
    if (!problem) clean(out);
    return problem ? status_error("%s%.200s: %s", label, path, problem) : status_ok();
}

/* ---- of bench ---- */

struct status bench_file_read(const char *label, const char *path, struct bench_result *out) {
    char *text = NULL;
    size_t length = 0;
    *out = (struct bench_result){0};
    TRY(file_read(label, path, MAX_REPORT_BYTES, "a JSON report of bench", &text, &length));
    const char *const problem = bench_read(text, length, out);
    free(text);
    if (problem) return status_error("%s%.200s: %s", label, path, problem);
    line_clean(out->version), line_clean(out->device), line_clean(out->speed), line_clean(out->command),
        line_clean(out->peers), line_clean(out->stopped);
    for (int64_t i = 0; i < out->n_rows; i++)
        line_clean(out->row[i].shape), line_clean(out->row[i].name), line_clean(out->row[i].note);
    return status_ok();
}

bool bench_file_is(const char *path) {
    char *text = NULL;
    size_t length = 0;
    if (file_read("", path, MAX_REPORT_BYTES, "a JSON report", &text, &length).code) return false;
    const bool is = bench_is_json(text, length);
    free(text);
    return is;
}
