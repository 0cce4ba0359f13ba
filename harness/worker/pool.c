/* Which worker does what, and what if it does not come back? Small trunks run side by side, one
 * thread each; a large one has the machine for itself. The pool only waits, hears and watches two
 * clocks: that of a launch, and that of the reference, which has to show that it gets on. */
/* SPDX-License-Identifier: MIT */
#include "harness/worker/pool.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/memory.h"
#include "harness/work.h"
#include "harness/worker/death.h"
#include "harness/worker/limits.h"
#include "harness/worker/message.h"
#include "harness/worker/process.h"

#define SMALL_WORK 4e8 /* multiply-adds of a trunk and its cases: about a third of a second */
enum { TICK_MS = 50 };

/* Cases of one trunk that have no result yet (of all trunks, where one file takes all of them). */
struct task {
    int64_t *index; /* [n] of the request */
    int64_t n;
    double work;
    bool again; /* on a second worker: the first may have been damaged before */
};

struct slot {
    struct process process;
    struct task task; /* n = 0: idle */
    bool used;        /* the process has served an earlier task */
    int64_t settled;  /* results of the task that came in */
    struct step step, launch;
    char who[4200], launched[64];
    double since; /* clock: of the last frame */
};

struct pool {
    const struct run_request *request;
    struct pool_options options;
    struct run_output *out;
    struct task *queue; /* [n_queue] in the order in which they start */
    int64_t n_queue, next;
    struct slot slot[MAX_JOBS];
    bool *done;       /* [n_cases] the result is final */
    bool *judged;     /* [n_cases] it stands, but its worker is not done with it */
    int64_t *same;    /* [n_cases] an earlier case that does the same; -1: none, it is run */
    int64_t reported; /* results that were handed on, in order */
    bool labelled;    /* out->device_label is there */
    bool dump_lost;   /* with the worker that wrote it */
    struct status stop;
};

/* ---- tasks ---- */

static void queue_task(struct pool *p, const int64_t *index, int64_t n, double work, bool again) {
    struct task *const t = &p->queue[p->n_queue++];
    *t = (struct task){memory_zeroed((size_t)n, sizeof *t->index), n, work, again};
    memcpy(t->index, index, (size_t)n * sizeof *index);
}

static void task_free(struct task *t) {
    free(t->index);
    *t = (struct task){0};
}

/* A task a group; all of them in one where a dump is written. */
static void build_queue(struct pool *p) {
    const struct run_request *const o = p->request;
    int64_t *const index = memory_zeroed((size_t)o->n_cases, sizeof *index);
    double *const work = request_work(o);
    for (int64_t i = 0; i < o->n_cases; i++) index[i] = i;
    for (int64_t first = 0, n; first < o->n_cases; first += n) {
        n = request_group(o, first);
        const double all = work[first] * (1 + 0.5 * (double)n);
        if (o->dump_path) n = o->n_cases;
        if (p->same[first] < 0) queue_task(p, index + first, n, all, false);
    }
    free(work);
    free(index);
}

/* ---- results ---- */

static void report_in_order(struct pool *p) {
    struct watch *const w = p->request->watch;
    while (p->reported < p->request->n_cases && p->done[p->reported]) {
        if (w && w->result) w->result(w, p->reported, &p->out->cases[p->reported]);
        p->reported++;
    }
}

/* And of the cases that do the same. */
static void settle(struct pool *p, int64_t i) {
    p->done[i] = true;
    for (int64_t j = i + 1; j < p->request->n_cases; j++) {
        if (p->same[j] != i) continue;
        result_repeat(&p->out->cases[j], &p->out->cases[i]);
        p->done[j] = true;
    }
    report_in_order(p);
}

static void stop(struct pool *p, const struct status *why, bool trouble) {
    if (!p->stop.code) p->stop = *why;
    if (trouble && !p->out->trouble.code) p->out->trouble = *why;
}

/* ---- one worker ---- */

static bool busy(const struct slot *s) { return s->task.n > 0; }

static struct status begin(struct pool *p, struct slot *s, const struct task *t, int threads) {
    if (s->process.pid && t->again) process_stop(&s->process);
    s->used = s->process.pid != 0;
    if (!s->process.pid) TRY(process_start(&s->process, p->options.echo));
    s->task = *t;
    s->settled = 0;
    s->step = (struct step){.doing = DOING_REFERENCE, .case_index = 0, .stage = -1, .rank = -1, .who = ""};
    s->launch = s->step;
    s->since = clock_seconds();
    struct run_request request = *p->request;
    if (p->dump_lost) request.dump_path = NULL;
    struct message m = request_write(&request, t->index, t->n, threads);
    if (m.text) process_ask(&s->process, FRAME_RUN, m.text, m.length); /* unheard: it is dead, seen soon */
    message_free(&m);
    return status_ok();
}

static void end_task(struct slot *s, bool retire) {
    task_free(&s->task);
    if (retire) process_stop(&s->process);
}

/* The case of the step; of the unsharded run every case that has no result yet. */
static void blame(struct pool *p, struct slot *s, const struct step *step, const char *reason) {
    int64_t *const left = memory_zeroed((size_t)s->task.n, sizeof *left);
    int64_t n_left = 0;
    const bool everybody = step->rank < 0 || step->case_index < 0 || step->case_index >= s->task.n;
    for (int64_t i = 0; i < s->task.n; i++) {
        const int64_t at = s->task.index[i];
        if (p->done[at]) continue;
        if (everybody || i == step->case_index) {
            result_blame(&p->out->cases[at], step->stage, step->rank, p->request->cases[at].tp, reason);
            settle(p, at);
        } else {
            left[n_left++] = at;
        }
    }
    if (n_left) queue_task(p, left, n_left, s->task.work, false);
    free(left);
}

/* What was judged before stands; the other cases of the task run again. False: nothing was. */
static bool keep_judged(struct pool *p, struct slot *s, const char *reason) {
    int64_t *const left = memory_zeroed((size_t)s->task.n, sizeof *left);
    int64_t n_left = 0;
    bool any = false;
    for (int64_t i = 0; i < s->task.n; i++) {
        const int64_t at = s->task.index[i];
        if (p->done[at]) continue;
        if (p->judged[at]) {
            any = true;
            if (i == s->step.case_index) result_unread(&p->out->cases[at], reason);
            settle(p, at);
        } else {
            left[n_left++] = at;
        }
    }
    if (any && n_left) queue_task(p, left, n_left, s->task.work, false);
    free(left);
    return any;
}

static void trouble(struct pool *p, struct slot *s, const char *reason) {
    const struct status why = status_error("%s", reason);
    for (int64_t i = 0; i < s->task.n && p->reported; i++) {
        const int64_t at = s->task.index[i];
        if (p->done[at]) continue;
        result_not_run(&p->out->cases[at], why.message);
        settle(p, at);
    }
    stop(p, &why, true);
}

static void lose_dump(struct pool *p, const char *why) {
    const struct run_request *const o = p->request;
    if (!o->dump_path || p->dump_lost) return;
    p->dump_lost = true;
    p->out->dump =
        status_error("--dump %.160s: not written: %.300s", o->dump_name ? o->dump_name : o->dump_path, why);
}

/* A worker that has served before may have been damaged then: the same once more on a fresh one
 * tells. */
static void bury(struct pool *p, struct slot *s, struct death death) {
    char reason[480];
    death.step = s->step;
    death.launch = s->launch;
    death.wait_status = s->process.wait_status;
    death.words = s->process.words;
    death_describe(&death, reason, sizeof reason);
    lose_dump(p, reason);
    if (keep_judged(p, s, reason)) {
        end_task(s, true);
        return;
    }
    const struct step *const guilty = s->step.doing == DOING_KERNEL ? &s->step : &s->launch;
    if (s->used && death.end == END_DIED && !s->task.again)
        queue_task(p, s->task.index, s->task.n, s->task.work, true);
    else if (death_is_kernels(&death))
        blame(p, s, guilty, reason);
    else
        trouble(p, s, reason);
    end_task(s, true);
}

/* ---- frames ---- */

static void take_label(struct pool *p, const char *text, size_t length) {
    if (p->labelled) return;
    p->labelled = true;
    char device[200];
    snprintf(device, sizeof device, "%.*s", (int)length, text);
    run_output_label(p->out, p->request, device);
}

static bool take_step(struct pool *p, struct slot *s, const char *text, size_t length) {
    if (!step_read(text, length, &s->step, s->who, sizeof s->who)) return false;
    if (s->step.doing == DOING_KERNEL) {
        snprintf(s->launched, sizeof s->launched, "%.63s", s->who);
        s->launch = s->step;
        s->launch.who = s->launched;
    }
    struct step step = s->step;
    if (step.case_index < 0 || step.case_index >= s->task.n) return false;
    step.case_index = s->task.index[step.case_index];
    struct watch *const w = p->request->watch;
    const struct status wish = w && w->step ? w->step(w, &step) : status_ok();
    if (wish.code) stop(p, &wish, false);
    return true;
}

/* Line and repro are ours; a worker's copy of the line has to be the same. */
static bool take_result(struct pool *p, struct slot *s, const char *text, size_t length, bool settled) {
    struct case_result r;
    int64_t i;
    if (!result_read(text, length, &i, &r)) return false;
    const int64_t at = i >= 0 && i < s->task.n ? s->task.index[i] : -1;
    if (at < 0 || p->done[at] || strcmp(r.line, p->out->cases[at].line)) {
        free(r.stage);
        free(r.repro);
        return false;
    }
    free(r.repro);
    r.repro = p->out->cases[at].repro;
    r.of_grid = p->out->cases[at].of_grid;
    if (p->judged[at]) free(p->out->cases[at].stage);
    p->out->cases[at] = r;
    p->judged[at] = true;
    if (!settled) return true;
    s->settled++;
    settle(p, at);
    return true;
}

static bool take_end(struct pool *p, struct slot *s, const char *text, size_t length) {
    char count[32];
    snprintf(count, sizeof count, "%.*s", (int)(length < 20 ? length : 20), text);
    if (atoll(count) != s->task.n || s->settled != s->task.n) {
        bury(p, s, (struct death){.end = END_MISCOUNTED});
        return true;
    }
    bool failed = false;
    for (int64_t i = 0; i < s->task.n; i++) failed |= p->out->cases[s->task.index[i]].verdict == CASE_FAILED;
    if (s->task.again) {
        const struct status why = status_error("a worker died in %.200s and did not when that ran alone: a "
                                               "case before it damaged its memory; run "
                                               "the cases one by one",
                                               p->out->cases[s->task.index[0]].line);
        stop(p, &why, true);
    }
    end_task(s, failed);
    return true;
}

static void blame_fault(struct pool *p, struct slot *s, const char *reason) {
    lose_dump(p, reason);
    if (!keep_judged(p, s, reason)) blame(p, s, &s->launch, reason);
    end_task(s, true);
}

/* False: not what a worker says. */
static bool take_frame(struct pool *p, struct slot *s, const struct frame_head *head, const char *payload) {
    char text[500]; /* of those that are a line */
    snprintf(text, sizeof text, "%.*s", (int)(head->length < 490 ? head->length : 490), payload);
    s->since = clock_seconds();
    switch ((enum frame_type)head->type) {
    case FRAME_DEVICE: take_label(p, payload, head->length); return true;
    case FRAME_STEP: return take_step(p, s, payload, head->length);
    case FRAME_BEAT: return true;
    case FRAME_CASE: return take_result(p, s, payload, head->length, true);
    case FRAME_JUDGED: return take_result(p, s, payload, head->length, false);
    case FRAME_DONE: return take_end(p, s, payload, head->length);
    case FRAME_NO_DUMP: p->out->dump = status_error("%s", text); return true;
    case FRAME_FAULT: blame_fault(p, s, text); return true;
    case FRAME_TROUBLE: trouble(p, s, text); break;
    default: return false;
    }
    end_task(s, true);
    return true;
}

static void hear(struct pool *p, struct slot *s) {
    struct frame_head head;
    const char *payload;
    int front = 0;
    process_hear(&s->process);
    while (busy(s) && (front = process_next(&s->process, &head, &payload)) > 0) {
        const bool known = take_frame(p, s, &head, payload);
        if (s->process.pid) frame_take(&s->process.in);
        if (!known) front = -1;
        if (front < 0) break;
    }
    if (!busy(s)) return;
    if (front < 0)
        bury(p, s,
             (struct death){.end = head.magic == FRAME_MAGIC && head.pid != s->process.pid ? END_FORKED
                                                                                           : END_GARBAGE});
    else if (s->process.ended)
        bury(p, s, (struct death){.end = END_DIED});
}

static void watch_limits(struct pool *p, struct slot *s) {
    const double silent = clock_seconds() - s->since;
    const int64_t at = s->task.index[s->step.case_index < s->task.n ? s->step.case_index : 0];
    const double limit = s->step.doing != DOING_KERNEL ? reference_limit()
                         : p->options.timeout > 0      ? p->options.timeout
                                                  : launch_limit(s->step.work, p->request->cases[at].device);
    if (silent > limit)
        bury(p, s, (struct death){.end = END_TIMEOUT, .seconds = limit});
    else if (process_memory(&s->process) > p->options.memory_bytes)
        bury(p, s, (struct death){.end = END_MEMORY, .gib = (double)p->options.memory_bytes / (1 << 30)});
}

/* ---- the run ---- */

static int n_busy(const struct pool *p) {
    int n = 0;
    for (int j = 0; j < p->options.jobs; j++) n += busy(&p->slot[j]);
    return n;
}

static struct slot *idle_slot(struct pool *p) {
    for (int j = 0; j < p->options.jobs; j++)
        if (!busy(&p->slot[j])) return &p->slot[j];
    return NULL;
}

/* In the order of the queue. A large task waits until nobody else is at work, and nothing starts
 * beside it. */
static struct status start_what_fits(struct pool *p, bool *alone) {
    while (p->next < p->n_queue && !p->stop.code) {
        struct task *const t = &p->queue[p->next];
        const bool large = t->work > SMALL_WORK || p->options.jobs == 1;
        struct slot *const s = *alone ? NULL : idle_slot(p);
        if (!s || (large && n_busy(p))) return status_ok();
        TRY(begin(p, s, t, large ? machine_cores() : 1));
        *t = (struct task){0}; /* the slot's now */
        p->next++;
        *alone = large;
    }
    return status_ok();
}

static void wait_for_frames(struct pool *p) {
    struct pollfd fds[2 * MAX_JOBS];
    nfds_t n = 0;
    for (int j = 0; j < p->options.jobs; j++) {
        if (!busy(&p->slot[j])) continue;
        fds[n++] = (struct pollfd){p->slot[j].process.from, POLLIN, 0};
        fds[n++] = (struct pollfd){p->slot[j].process.said, POLLIN, 0};
    }
    poll(fds, n, TICK_MS);
}

static struct status work(struct pool *p) {
    bool alone = false;
    for (;;) {
        if (!n_busy(p)) alone = false;
        TRY(start_what_fits(p, &alone));
        if (p->stop.code || !n_busy(p)) return status_ok();
        wait_for_frames(p);
        for (int j = 0; j < p->options.jobs && !p->stop.code; j++) {
            struct slot *const s = &p->slot[j];
            if (busy(s)) hear(p, s);
            if (busy(s)) watch_limits(p, s);
        }
        watch_beat(p->request->watch);
        if (p->request->watch && p->request->watch->stop.code) stop(p, &p->request->watch->stop, false);
    }
}

static void close_pool(struct pool *p) {
    for (int j = 0; j < MAX_JOBS; j++) {
        process_stop(&p->slot[j].process);
        task_free(&p->slot[j].task);
    }
    for (int64_t i = 0; i < p->n_queue; i++) task_free(&p->queue[i]);
    free(p->queue);
    free(p->done);
    free(p->judged);
    free(p->same);
}

struct status pool_run(const struct run_request *o, const struct pool_options *options,
                       struct run_output *out) {
    const double start = clock_seconds();
    struct pool *const p = memory_zeroed(1, sizeof *p);
    signal(SIGPIPE, SIG_IGN); /* a worker that is gone is seen, not heard */
    *p = (struct pool){.request = o, .options = *options, .out = out};
    if (p->options.jobs < 1) p->options.jobs = machine_cores();
    if (p->options.jobs > MAX_JOBS) p->options.jobs = MAX_JOBS;
    if (o->dump_path || o->cases[0].device != DEVICE_HOST) p->options.jobs = 1;
    if (p->options.memory_bytes < 1) p->options.memory_bytes = memory_limit();
    p->queue = memory_zeroed((size_t)(4 * o->n_cases + 4), sizeof *p->queue); /* a death adds at most two */
    p->done = memory_zeroed((size_t)o->n_cases, sizeof *p->done);
    p->judged = memory_zeroed((size_t)o->n_cases, sizeof *p->judged);
    p->same = request_repeats(o);
    run_output_open(out, o);
    build_queue(p);
    struct status s = work(p);
    if (!s.code && !p->reported && out->trouble.code) s = out->trouble; /* nothing to report */
    if (p->stop.code) lose_dump(p, p->stop.message);
    if (!s.code && !p->labelled) take_label(p, "no device", strlen("no device"));
    for (int64_t i = 0; i < o->n_cases && !s.code; i++)
        if (!p->done[i]) {
            result_not_run(&out->cases[i], p->stop.message);
            settle(p, i);
        }
    if (!s.code) run_output_count(out, o, clock_seconds() - start);
    close_pool(p);
    out->result.host_bytes = (int64_t)memory_peak(); /* of the workers, now that they are gone */
    free(p);
    return s;
}
