/* What do a fixture, dumps or a log of calls bring, asked of a process that may die of it? */
/* SPDX-License-Identifier: MIT */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/memory.h"
#include "harness/worker/death.h"
#include "harness/worker/limits.h"
#include "harness/worker/message.h"
#include "harness/worker/pool.h"
#include "harness/worker/process.h"

enum { OPEN_LIMIT = 60, CALLS_LIMIT = 600 }; /* seconds of silence: to read headers, to judge a call */

/* What is asked of it, and where the answer goes. */
struct inquiry {
    enum frame_type type;
    double limit;
    struct facts *facts;
    struct run_output *out;
    struct status why; /* it says why it cannot be done */
};

static void add_case(struct run_output *out, const char *text, size_t length) {
    struct run_result *const all = &out->result;
    struct case_result r;
    int64_t i;
    if (!result_read(text, length, &i, &r)) return;
    if (!(all->n_cases & (all->n_cases - 1))) { /* full at every power of two */
        const size_t room = all->n_cases ? 2 * (size_t)all->n_cases : 1;
        struct case_result *const cases = memory_zeroed(room, sizeof *cases);
        if (all->n_cases) memcpy(cases, out->cases, (size_t)all->n_cases * sizeof *cases);
        free(out->cases);
        out->cases = cases;
    }
    out->cases[all->n_cases++] = r;
    run_result_add(all, &r);
}

/* False: it was the last. */
static bool take_frame(struct inquiry *q, const struct frame_head *head, const char *payload) {
    const int length = (int)(head->length < 490 ? head->length : 490);
    switch ((enum frame_type)head->type) {
    case FRAME_TROUBLE:
    case FRAME_FAULT: q->why = status_error("%.*s", length, payload); return false;
    case FRAME_DEVICE:
        if (q->out) snprintf(q->out->device_label, sizeof q->out->device_label, "%.*s", length, payload);
        return true;
    case FRAME_CASE:
        if (q->out) add_case(q->out, payload, head->length);
        return true;
    case FRAME_FACTS:
        if (!q->facts || head->length != sizeof *q->facts) return true;
        memcpy(q->facts, payload, sizeof *q->facts);
        return true;
    default: return head->type != FRAME_DONE;
    }
}

/* 1: more to come; 0: it is here; -1: it will not come. */
static int take(struct process *p, struct inquiry *q, double *since) {
    struct frame_head head;
    const char *payload;
    int front;
    while ((front = process_next(p, &head, &payload)) > 0) {
        *since = clock_seconds();
        if (!take_frame(q, &head, payload)) return 0;
        frame_take(&p->in);
    }
    return front < 0 ? -1 : 1;
}

static struct status ask(struct process *p, const struct run_request *o, struct inquiry *q) {
    const char *const path = o->judge.n_dumps ? o->judge.dump[0] : o->fixture_path;
    double since = clock_seconds();
    struct death death = {.step = {.doing = DOING_FILE, .stage = -1, .who = path}, .launch = {.who = ""}};
    char text[480];
    int more = 1;
    struct message m = request_write(o, NULL, 0, machine_cores());
    if (m.text) process_ask(p, q->type, m.text, m.length);
    message_free(&m);
    while (more > 0 && !p->ended && clock_seconds() - since < q->limit) {
        poll(&(struct pollfd){p->from, POLLIN, 0}, 1, 50);
        process_hear(p);
        more = take(p, q, &since);
    }
    if (more == 0) return q->why;
    death.end = p->ended ? END_DIED : more < 0 ? END_GARBAGE : END_TIMEOUT;
    death.seconds = q->limit;
    death.wait_status = p->wait_status;
    death.words = p->words;
    death_describe(&death, text, sizeof text);
    return status_error("%s", text);
}

static struct status inquire(const struct run_request *request, struct inquiry *q) {
    struct process p;
    signal(SIGPIPE, SIG_IGN);
    TRY(process_start(&p, false));
    const struct status s = ask(&p, request, q);
    process_stop(&p);
    return s;
}

struct status pool_describe(const struct run_request *request, struct facts *out) {
    struct inquiry q = {.type = FRAME_DESCRIBE, .limit = OPEN_LIMIT, .facts = out};
    return inquire(request, &q);
}

struct status pool_calls(const struct run_request *request, struct run_output *out) {
    struct inquiry q = {.type = FRAME_CALLS, .limit = CALLS_LIMIT, .out = out};
    const double start = clock_seconds();
    *out = (struct run_output){0};
    const struct status s = inquire(request, &q);
    out->result.cases = out->cases;
    out->result.device = out->device_label;
    out->result.version = SHARDCHECK_VERSION;
    out->result.command = out->command;
    out->result.seconds = clock_seconds() - start;
    return s;
}
