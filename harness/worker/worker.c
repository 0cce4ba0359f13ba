/* What does a worker do with a request? It runs the cases as they are run in one process, and says
 * every step, beat and result aloud. */
/* SPDX-License-Identifier: MIT */
#include "harness/worker/worker.h"

#include <fcntl.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "harness/facts.h"
#include "harness/flashinfer.h"
#include "harness/worker/frame.h"
#include "harness/worker/message.h"
#include "kernels/simt/simt_options.h"

struct voice {
    struct watch watch;
    int out;
    struct frame_head head;
    int64_t sent; /* results */
};

static void say(struct voice *v, enum frame_type type, const void *payload, size_t length) {
    if (!frame_write(v->out, &v->head, type, payload, length)) _exit(EXIT_UNHEARD);
}

static void say_text(struct voice *v, enum frame_type type, const char *text) {
    say(v, type, text, strlen(text));
}

static void say_message(struct voice *v, enum frame_type type, struct message m) {
    if (!m.text) _exit(EXIT_UNHEARD);
    say(v, type, m.text, m.length);
    message_free(&m);
}

static void on_device(struct watch *w, const char *label) {
    say_text((struct voice *)w, FRAME_DEVICE, label);
}

static struct status on_step(struct watch *w, const struct step *step) {
    say_message((struct voice *)w, FRAME_STEP, step_write(step));
    return status_ok();
}

static struct status on_beat(struct watch *w) {
    say((struct voice *)w, FRAME_BEAT, "", 0);
    return status_ok();
}

static void on_judged(struct watch *w, int64_t i, const struct case_result *result) {
    say_message((struct voice *)w, FRAME_JUDGED, result_write(i, result));
}

static void on_result(struct watch *w, int64_t i, const struct case_result *result) {
    struct voice *const v = (struct voice *)w;
    say_message(v, FRAME_CASE, result_write(i, result));
    v->sent++;
}

/* ---- requests ---- */

static void say_end(struct voice *v, const struct status *s) {
    char count[32];
    snprintf(count, sizeof count, "%lld", (long long)v->sent);
    if (s->code)
        say_text(v, s->code == STATUS_FAULT ? FRAME_FAULT : FRAME_TROUBLE, s->message);
    else
        say_text(v, FRAME_DONE, count);
}

static struct status run(struct voice *v, const char *text, size_t length) {
    struct asked asked;
    struct run_output out = {0};
    struct status s = request_read(text, length, &asked);
    if (!s.code && !asked.run.n_cases) s = status_error("a request names no case");
    if (!s.code) {
        if (asked.threads > 0) omp_set_num_threads(asked.threads);
        simt_set_threads(asked.threads);
        asked.run.watch = &v->watch;
        v->sent = 0;
        s = run_cases(&asked.run, &out);
    }
    if (!s.code) s = out.trouble;
    if (!s.code && out.dump.code) say_text(v, FRAME_NO_DUMP, out.dump.message);
    run_output_free(&out);
    asked_free(&asked);
    return s;
}

static struct status describe(struct voice *v, const char *text, size_t length) {
    struct asked asked;
    static struct facts facts;
    struct status s = request_read(text, length, &asked);
    if (!s.code) s = facts_read(&asked.run, &facts);
    asked_free(&asked);
    TRY(s);
    say(v, FRAME_FACTS, &facts, sizeof facts);
    v->sent = 0;
    return status_ok();
}

static struct status calls(struct voice *v, const char *text, size_t length) {
    struct asked asked;
    struct run_output out = {0};
    struct status s = request_read(text, length, &asked);
    v->sent = 0;
    if (!s.code && asked.threads > 0) omp_set_num_threads(asked.threads);
    if (!s.code)
        s = judge_flashinfer(asked.run.judge.dump, asked.run.judge.n_dumps, FLASHINFER_WORK, &v->watch, &out);
    if (!s.code) on_device(&v->watch, out.device_label);
    for (int64_t i = 0; i < out.result.n_cases && !s.code; i++) on_result(&v->watch, i, &out.cases[i]);
    run_output_free(&out);
    asked_free(&asked);
    return s;
}

static void answer(struct voice *v, const struct frame_head *head, const char *payload) {
    v->head.nonce = head->nonce;
    const struct status s = head->type == FRAME_RUN        ? run(v, payload, head->length)
                            : head->type == FRAME_CALLS    ? calls(v, payload, head->length)
                            : head->type == FRAME_DESCRIBE ? describe(v, payload, head->length)
                                                           : status_error("no request a worker knows");
    say_end(v, &s);
}

/* Neither outlives its parent nor is spared where memory runs out. What the code under test starts
 * and leaves to itself becomes a child again, and is noticed (harness/traces.h). */
static bool attach(int parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, "1000", 4) < 0) (void)0;
        close(fd);
    }
    return getppid() == parent;
}

int worker_run(int in, int out, int parent) {
    struct voice v = {.watch = {.device = on_device,
                                .step = on_step,
                                .beat = on_beat,
                                .judged = on_judged,
                                .result = on_result,
                                .gives_up = true},
                      .out = out};
    struct frame_buffer buffer = {0};
    struct frame_head head;
    const char *payload;
    int front = 0;
    fcntl(in, F_SETFD, FD_CLOEXEC);
    fcntl(out, F_SETFD, FD_CLOEXEC);
    if (!attach(parent)) return EXIT_UNHEARD;
    do {
        while ((front = frame_front(&buffer, &head, &payload)) > 0) {
            answer(&v, &head, payload);
            frame_take(&buffer);
        }
    } while (front == 0 && frame_read(&buffer, in));
    frame_buffer_free(&buffer);
    return front < 0;
}
