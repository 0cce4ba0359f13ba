/* Which of the cases are run? */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/selection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/memory.h"
#include "harness/work.h"
#include "reports/report.h"

/* ---- those that failed ---- */

enum { MAX_REPORT_BYTES = 256 << 20 };

static void take(void *context, const char *line) {
    struct failed_lines *const f = context;
    f->full |= f->n == MAX_CASES;
    if (f->n < MAX_CASES) f->line[f->n++] = strdup(line);
}

static struct status read_whole(const char *path, char **text, size_t *length) {
    FILE *const file = fopen(path, "re");
    if (!file) return status_error("--failed %.200s: %s; give a JSON report", path, strerror(errno));
    char *const bytes = malloc(MAX_REPORT_BYTES);
    *length = bytes ? fread(bytes, 1, MAX_REPORT_BYTES, file) : 0;
    const bool ok = bytes && !ferror(file) && *length < MAX_REPORT_BYTES;
    fclose(file);
    *text = bytes;
    if (ok) return status_ok();
    free(bytes);
    *text = NULL;
    return status_error("--failed %.200s: cannot be read, or is longer than 256 MiB; give a JSON report",
                        path);
}

struct status failed_read(const char *path, struct request *request, struct failed_lines *out) {
    char *text = NULL;
    size_t length = 0;
    if (request->n_subjects)
        return status_error("--failed %.160s: names the cases; leave %.160s out", path, request->subject[0]);
    TRY(read_whole(path, &text, &length));
    out->line = memory_zeroed(MAX_CASES, sizeof *out->line);
    const bool ok = report_read_lines(text, length, CASE_FAILED, take, out);
    free(text);
    if (!ok)
        return status_error("--failed %.200s: no report of shardcheck; give what --report json:FILE wrote",
                            path);
    if (out->full)
        return status_error("--failed %.200s: more than %d cases failed; name them", path, MAX_CASES);
    if (!out->n) return status_error("--failed %.200s: no case failed there; there is nothing to run", path);
    out->typed = request->subject;
    request->subject = (const char **)out->line;
    request->n_subjects = out->n;
    return status_ok();
}

void failed_free(struct failed_lines *f, struct request *request) {
    if (f->typed) {
        request->subject = f->typed;
        request->n_subjects = 0;
    }
    for (int i = 0; i < f->n; i++) free(f->line[i]);
    free(f->line);
    *f = (struct failed_lines){0};
}

/* ---- a share ---- */

/* Where share k ends: behind the cases with which k n-ths of the work are done, with a case left for
 * every share before and behind. */
static int64_t share_end(const double *until, int64_t n_cases, int k, int n) {
    int64_t end = 0;
    while (end < n_cases && until[end] * n <= until[n_cases - 1] * k * (1 + 1e-12)) end++;
    return end < k ? k : end > n_cases - (n - k) ? n_cases - (n - k) : end;
}

struct status split_cases(struct run_request *run, int i, int n) {
    if (run->n_cases < n)
        return status_error("--split %d/%d: there are %lld cases; use at most as many shares", i, n,
                            (long long)run->n_cases);
    double *const until = request_work(run);
    for (int64_t k = 1; k < run->n_cases; k++) until[k] += until[k - 1];
    const int64_t first = share_end(until, run->n_cases, i - 1, n),
                  end = share_end(until, run->n_cases, i, n);
    free(until);
    const int64_t own = run->n_cases - run->n_grid;
    run->n_grid = end <= own ? 0 : end - (first > own ? first : own);
    memmove((void *)run->cases, run->cases + first, (size_t)(end - first) * sizeof *run->cases);
    run->n_cases = end - first;
    return status_ok();
}
