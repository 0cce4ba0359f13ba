/* What does somebody see who waits? */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/console.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/signals.h"
#include "harness/clock.h"
#include "harness/memory.h"
#include "harness/work.h"

/* ---- when to stop ---- */

static struct status stopped(const char *why) {
    struct status s = status_error("%s", why);
    s.code = STATUS_STOPPED;
    return s;
}

static struct status wish(const struct console *c) {
    const struct options *const o = c->options;
    char why[300];
    if (signals_asked())
        snprintf(why, sizeof why, "interrupted by SIG%s", sigabbrev_np(signals_asked()));
    else if (c->broken)
        snprintf(why, sizeof why, "a report could not be written");
    else if (o->fail_fast && c->failed[0])
        snprintf(why, sizeof why, "--fail-fast, after %s", c->failed);
    else if (o->time_budget > 0 && clock_seconds() - c->start > o->time_budget)
        snprintf(why, sizeof why, "the %g s of --time-budget were over", o->time_budget);
    else
        return status_ok();
    return stopped(why);
}

/* ---- progress ---- */

static void wipe(struct console *c) {
    if (c->drawn) fputs("\r\033[K", stderr);
    c->drawn = false;
}

/* Stages of the part, and how many of them stand before this one. */
static int stages_before(enum part part, int stage, int *all) {
    int before = 0;
    *all = 0;
    for (int s = 0; s < S_COUNT; s++) {
        if (stage_table[s].part != part) continue;
        before += s < stage;
        ++*all;
    }
    return before;
}

/* From the share of the work that is done; nothing in the first seconds. */
static void time_left(const struct console *c, double done, char *text, size_t size) {
    const double spent = clock_seconds() - c->start;
    text[0] = 0;
    if (spent < 2 || done <= 0) return;
    const double left = spent * (c->all - done) / done;
    if (left < 100)
        snprintf(text, size, ", about %.0f s left", left);
    else
        snprintf(text, size, ", about %.0f min left", left / 60);
}

static void draw(struct console *c, const struct step *step) {
    const struct check_case *const at = &c->options->run.cases[step->case_index];
    int all;
    const int before = stages_before(at->part, step->stage, &all);
    char left[48], where[64] = "chain";
    /* Cases that share the trunk go through the stages together. */
    const int64_t group = request_group(&c->options->run, step->case_index);
    time_left(c, c->settled + c->work[step->case_index] * (double)group * before / all, left, sizeof left);
    if (step->stage >= 0)
        snprintf(where, sizeof where, "%s (%d of %d)", stage_table[step->stage].name, before + 1, all);
    fprintf(stderr, "\r\033[Kcase %lld of %lld, %s%s", (long long)step->case_index + 1,
            (long long)c->options->run.n_cases, where, left);
    c->drawn = true;
}

/* ---- what the run says ---- */

/* With the first result: a run that cannot begin has no report. */
static void begin_reports(const struct console *c) {
    const struct run_result head = {.version = SHARDCHECK_VERSION,
                                    .device = c->device,
                                    .command = c->options->typed,
                                    .in_process = c->options->in_process};
    for (int i = 0; i < c->options->n_reports; i++) {
        const struct report_format *const f = c->options->report[i].format;
        if (f->begin) f->begin(output_file(c->report[i]), &head, c->options->verbosity);
    }
}

static void on_device(struct watch *w, const char *label) {
    struct console *const c = (struct console *)w;
    snprintf(c->device, sizeof c->device, "%s", label);
}

static struct status on_step(struct watch *w, const struct step *step) {
    struct console *const c = (struct console *)w;
    if (c->live) draw(c, step);
    return wish(c);
}

static struct status on_beat(struct watch *w) { return wish((struct console *)w); }

/* The line of an earlier case that failed in the same way; NULL: none did, and this is the first. */
static const char *same_cause(struct console *c, const struct case_result *r) {
    if (r->verdict != CASE_FAILED) return NULL;
    for (int64_t i = 0; i < c->n_causes; i++)
        if (report_same_cause(c->cause[i], r)) return c->cause[i]->line;
    c->cause[c->n_causes++] = r;
    return NULL;
}

static void on_result(struct watch *w, int64_t i, const struct case_result *r) {
    struct console *const c = (struct console *)w;
    wipe(c);
    if (!c->n_settled) begin_reports(c);
    struct case_result shown = *r;
    waivers_apply(&c->options->waivers, &shown);
    shown.same_cause = shown.verdict == CASE_FAILED ? same_cause(c, r) : NULL;
    for (int k = 0; k < c->options->n_reports; k++) {
        const struct report_format *const f = c->options->report[k].format;
        FILE *const file = output_file(c->report[k]);
        if (f->one) f->one(file, &shown, c->options->verbosity);
        if (f->one && fflush(file)) c->broken = true;
    }
    c->n_settled++;
    c->settled += c->work[i];
    if (!r->of_grid) c->seconds_own = clock_seconds() - c->start;
    if (shown.verdict == CASE_FAILED && !c->failed[0])
        snprintf(c->failed, sizeof c->failed, "%.190s", r->line);
}

void console_open(struct console *c, const struct options *options, struct output *const *report) {
    *c = (struct console){.watch = {on_device, on_step, on_beat, on_result},
                          .options = options,
                          .report = report,
                          .start = clock_seconds(),
                          .live = isatty(STDERR_FILENO)};
    c->work = request_work(&options->run);
    c->cause = memory_zeroed((size_t)options->run.n_cases, sizeof *c->cause);
    for (int64_t i = 0; i < options->run.n_cases; i++) c->all += c->work[i];
}

void console_close(struct console *c) {
    wipe(c);
    free(c->work);
    free(c->cause);
    *c = (struct console){0};
}
