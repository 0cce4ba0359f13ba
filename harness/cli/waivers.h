/* waivers - failures that are known and allowed for a time: a file of one waiver a line. What it covers
 * is counted as waived; one that is out of date, or that nothing needs any more, fails the run. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_WAIVERS_H
#define HARNESS_CLI_WAIVERS_H

#include <stddef.h>

#include "layer/status.h"
#include "reports/result.h"

struct waiver {
    int line;
    const char *pattern, *stage, *until, *reason; /* of the text below */
    bool expired;
};
struct waivers {
    const char *path; /* NULL: none */
    char *text;
    int n;
    struct waiver *of; /* [n] */
};
/* "PATTERN STAGE YYYY-MM-DD REASON..." a line, # a comment. PATTERN is one of case lines, as the shell's for
 * names (*, ?, [...]; * takes in /). STAGE is that of the failure, `chain` for that edge, `crash` for an end in
 * no stage. The date is the last day, local time. Errors name line and remedy. */
struct status waivers_read(const char *path, struct waivers *out);
/* The same of a text, taken over, with a zero behind its `length` bytes. */
struct status waivers_parse(const char *path, char *text, size_t length, struct waivers *out);
void waivers_free(struct waivers *waivers);

/* A failed case becomes a waived one if waivers that are in date cover every stage at which it failed. */
void waivers_apply(const struct waivers *waivers, struct case_result *result);
/* Lines about waivers that are out of date, or whose cases ran to their end and did not fail there; to be
 * freed with waivers_free_stale. What matches no case that ran is left alone. */
char **waivers_stale(const struct waivers *waivers, const struct run_result *run, int *n);
void waivers_free_stale(char **stale, int n);

#endif
