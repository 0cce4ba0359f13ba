/* Which of the cases are run? */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/selection.h"

#include <stdlib.h>
#include <string.h>

#include "harness/cli/report_file.h"
#include "harness/memory.h"
#include "harness/work.h"

/* ---- those that failed ---- */

struct status failed_read(const char *path, struct request *request, struct failed_lines *out) {
    struct report_read report;
    bool full = false;
    if (request->n_subjects)
        return status_error("--failed %.160s: names the cases; leave %.160s out", path, request->subject[0]);
    TRY(report_file_read("--failed ", path, &report));
    out->line = memory_zeroed(MAX_CASES, sizeof *out->line);
    for (int64_t i = 0; i < report.run.n_cases; i++) {
        if (report.cases[i].verdict != CASE_FAILED) continue;
        full |= out->n == MAX_CASES;
        if (!full) out->line[out->n++] = strdup(report.cases[i].line);
    }
    report_read_free(&report);
    if (full) return status_error("--failed %.200s: more than %d cases failed; name them", path, MAX_CASES);
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
