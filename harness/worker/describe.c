/* What do a fixture or dumps bring, asked of a process that may die of it? */
/* SPDX-License-Identifier: MIT */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "harness/clock.h"
#include "harness/worker/death.h"
#include "harness/worker/message.h"
#include "harness/worker/pool.h"
#include "harness/worker/process.h"

enum { OPEN_LIMIT = 60 }; /* seconds to read a file's headers */

/* 1: more to come; 0: it is here; -1: it will not come. */
static int take(struct process *p, struct facts *out, struct status *why) {
    struct frame_head head;
    const char *payload;
    int front;
    while ((front = process_next(p, &head, &payload)) > 0) {
        if (head.type == FRAME_FACTS && head.length == sizeof *out) {
            memcpy(out, payload, sizeof *out);
            return 0;
        }
        if (head.type == FRAME_TROUBLE)
            *why = status_error("%.*s", (int)(head.length < 490 ? head.length : 490), payload);
        if (head.type == FRAME_TROUBLE) return -1;
        frame_take(&p->in);
    }
    return front < 0 ? -1 : 1;
}

static struct status ask(struct process *p, const struct run_request *o, struct facts *out) {
    const char *const path = o->judge.n_dumps ? o->judge.dump[0] : o->fixture_path;
    const double start = clock_seconds();
    struct death death = {.step = {.doing = DOING_FILE, .stage = -1, .who = path}, .launch = {.who = ""}};
    struct status why = status_ok();
    char text[480];
    int more = 1;
    struct message m = request_write(o, NULL, 0, 1);
    if (m.text) process_ask(p, FRAME_DESCRIBE, m.text, m.length);
    message_free(&m);
    while (more > 0 && !p->ended && clock_seconds() - start < OPEN_LIMIT) {
        poll(&(struct pollfd){p->from, POLLIN, 0}, 1, 50);
        process_hear(p);
        more = take(p, out, &why);
    }
    if (more == 0 || why.code) return why;
    death.end = p->ended ? END_DIED : more < 0 ? END_GARBAGE : END_TIMEOUT;
    death.seconds = OPEN_LIMIT;
    death.wait_status = p->wait_status;
    death.words = p->words;
    death_describe(&death, text, sizeof text);
    return status_error("%s", text);
}

struct status pool_describe(const struct run_request *request, struct facts *out) {
    struct process p;
    signal(SIGPIPE, SIG_IGN);
    TRY(process_start(&p, false));
    const struct status s = ask(&p, request, out);
    process_stop(&p);
    return s;
}
