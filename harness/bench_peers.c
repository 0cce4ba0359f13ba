/* How is a process started, asked and heard that may lack its libraries, hang or die? */
/* SPDX-License-Identifier: MIT */
#include "harness/bench_peers.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/memory.h"
#include "layer/line.h"

extern char **environ;

enum {
    ANSWER_MS = 10 * 60 * 1000, /* a library may compile its kernels first */
    LOOK_MS = 200               /* from one look at whether to stop to the next */
};

/* ---- the process ---- */

/* "PYTHONPATH=...": the package beside the program before what the interpreter knows. */
static void python_path(char *text, size_t size) {
    char program[2048] = "";
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    char *const slash = n > 0 ? strrchr(program, '/') : NULL;
    const char *const before = getenv("PYTHONPATH");
    if (slash) *slash = 0;
    snprintf(text, size, "PYTHONPATH=%.2000s/../python%s%.2000s", program, before ? ":" : "",
             before ? before : "");
}

/* Ours but for that one. Owned; the strings are not. */
static char **environment(char *path) {
    size_t n = 0, kept = 0;
    while (environ[n]) n++;
    char **const all = memory_zeroed(n + 2, sizeof *all);
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "PYTHONPATH=", 11) != 0) all[kept++] = environ[i];
    all[kept] = path;
    return all;
}

static int spawn(struct bench_peers *p, const char *python, int in, int out) {
    char path[4200], *const argv[] = {(char *)python, "-m", "shardcheck.peers", NULL};
    posix_spawn_file_actions_t files;
    python_path(path, sizeof path);
    char **const variables = environment(path);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    const int error = posix_spawnp(&p->pid, python, &files, NULL, argv, variables);
    posix_spawn_file_actions_destroy(&files);
    free(variables);
    return error;
}

static void end(struct bench_peers *p) {
    close(p->to);
    close(p->from);
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR) continue;
    free(p->heard);
    p->pid = 0;
    p->heard = NULL;
    p->n_heard = p->room = 0;
}

void bench_peers_stop(struct bench_peers *p) {
    if (p->pid) end(p);
}

/* It is of no use any more. */
static json_t *lose(struct bench_peers *p, const char *why) {
    const size_t n = strlen(p->about);
    bench_peers_stop(p);
    snprintf(p->about + n, sizeof p->about - n, "%s%s", n ? "; then none: " : "none: ", why);
    return NULL;
}

/* ---- one question, one answer ---- */

static bool asked(const struct bench_peers *p) { return p->asked && p->asked(); }

/* Is there something to read? Not once it was said to stop, or for too long. */
static bool wait_for(const struct bench_peers *p) {
    struct pollfd wait = {.fd = p->from, .events = POLLIN};
    for (int ms = 0; ms < ANSWER_MS && !asked(p); ms += LOOK_MS) {
        const int ready = poll(&wait, 1, LOOK_MS);
        if (ready > 0 || (ready < 0 && errno != EINTR)) return ready > 0;
    }
    return false;
}

/* A line of what it says, without its end; NULL: it ended, or is not waited for any more. */
static const char *hear(struct bench_peers *p) {
    for (p->n_heard = 0;;) {
        if (p->room - p->n_heard < 2) {
            p->room = 2 * p->room + 4096;
            char *const more = realloc(p->heard, p->room);
            if (!more) return NULL;
            p->heard = more;
        }
        const ssize_t n = wait_for(p) ? read(p->from, p->heard + p->n_heard, 1) : 0;
        if (n <= 0) return NULL;
        if (p->heard[p->n_heard++] != '\n') continue;
        p->heard[p->n_heard] = 0;
        return p->heard;
    }
}

/* Takes the question over. NULL: there is no answer, and will be none. */
static json_t *ask(struct bench_peers *p, json_t *question) {
    char *const text = question ? json_dumps(question, JSON_COMPACT) : NULL;
    size_t left = text ? strlen(text) : 0, done = 0;
    bool sent = text != NULL;
    json_decref(question);
    if (sent) text[left++] = '\n'; /* in place of the zero */
    while (sent && done < left) {
        const ssize_t n = write(p->to, text + done, left - done);
        sent = n > 0 || (n < 0 && errno == EINTR);
        if (n > 0) done += (size_t)n;
    }
    free(text);
    const char *const said = sent ? hear(p) : NULL;
    json_t *const answer = said ? json_loads(said, 0, NULL) : NULL;
    return json_is_object(answer)
               ? answer
               : (json_decref(answer),
                  lose(p, asked(p) ? "interrupted" : "the process that times them died or hung"));
}

static bool get_text(const json_t *answer, const char *key, char *out, size_t size) {
    const char *const text = json_string_value(json_object_get(answer, key));
    const int n = snprintf(out, size, "%s", text ? text : "");
    line_finish(out, size, (size_t)n);
    return text != NULL;
}

void bench_peers_start(struct bench_peers *p, const char *python, enum device_kind device) {
    int in[2], out[2];
    char why[240];
    *p = (struct bench_peers){0};
    if (!python) {
        snprintf(p->about, sizeof p->about, "none are wanted");
        return;
    }
    signal(SIGPIPE, SIG_IGN); /* it may be gone when it is asked */
    if (pipe2(in, O_CLOEXEC)) return (void)lose(p, "no pipe");
    if (pipe2(out, O_CLOEXEC)) {
        close(in[0]), close(in[1]);
        return (void)lose(p, "no pipe");
    }
    const int error = spawn(p, python, in[0], out[1]);
    close(in[0]), close(out[1]);
    p->to = in[1], p->from = out[0];
    if (error) {
        close(p->to), close(p->from);
        p->pid = 0;
        snprintf(why, sizeof why, "%.100s: %s", python, strerror(error));
        return (void)lose(p, why);
    }
    json_t *const answer = ask(p, json_pack("{s:s}", "hello", device_kind_name(device)));
    if (!answer) return;
    if (get_text(answer, "none", why, sizeof why))
        lose(p, why);
    else
        get_text(answer, "peers", p->about, sizeof p->about);
    json_decref(answer);
}

/* ---- shapes and rounds ---- */

static json_t *rows_of_experts(const struct bench_shape *s) {
    json_t *const rows = json_array();
    int32_t *const offsets = memory_zeroed((size_t)s->experts + 1, sizeof *offsets);
    bench_offsets(s, offsets);
    for (int64_t e = 0; e < s->experts; e++)
        json_array_append_new(rows, json_integer(offsets[e + 1] - offsets[e]));
    free(offsets);
    return rows;
}

/* All its sizes; those of other families are 0. */
static json_t *shape_object(const struct bench_shape *s) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
                     "family", bench_family_name(s->family), "heads", (json_int_t)s->heads, "kv",
                     (json_int_t)s->kv, "dim", (json_int_t)s->dim, "seqs", (json_int_t)s->seqs, "keys",
                     (json_int_t)s->keys, "queries", (json_int_t)s->queries, "tokens", (json_int_t)s->tokens,
                     "experts", (json_int_t)s->experts, "top", (json_int_t)s->top, "hidden",
                     (json_int_t)s->hidden, "width", (json_int_t)s->width, "rows", (json_int_t)s->rows,
                     "cols", (json_int_t)s->cols, "inner", (json_int_t)s->inner, "rows_of_expert",
                     rows_of_experts(s));
}

int bench_peers_shape(struct bench_peers *p, const struct bench_shape *shape,
                      struct bench_peer out[BENCH_PEERS]) {
    int n = 0;
    json_t *const answer = p->pid ? ask(p, json_pack("{s:o}", "shape", shape_object(shape))) : NULL;
    const json_t *const found = json_object_get(answer, "peers");
    char why[240];
    if (answer && !found)
        lose(p, get_text(answer, "failed", why, sizeof why) ? why : "an answer that is none");
    for (size_t i = 0; i < json_array_size(found) && n < BENCH_PEERS; i++) {
        const json_t *const one = json_array_get(found, i);
        get_text(one, "refused", out[n].refused, sizeof out[n].refused);
        n += get_text(one, "name", out[n].name, sizeof out[n].name);
    }
    json_decref(answer);
    return n;
}

bool bench_peers_round(struct bench_peers *p, const char *name, bool cold, size_t flush_bytes, int launches,
                       double *seconds, char why[240]) {
    json_t *const answer =
        p->pid ? ask(p, json_pack("{s:s, s:s, s:i, s:I}", "round", name, "cache", cold ? "cold" : "warm",
                                  "launches", launches, "flush_bytes", (json_int_t)flush_bytes))
               : NULL;
    const json_t *const times = json_object_get(answer, "seconds");
    bool ok = answer && json_array_size(times) == (size_t)launches;
    for (int i = 0; i < launches && ok; i++) {
        seconds[i] = json_number_value(json_array_get(times, (size_t)i));
        ok = seconds[i] > 0 && seconds[i] < 1e6;
    }
    if (!ok && !(answer && get_text(answer, "failed", why, 240)))
        snprintf(why, 240, "%s", answer ? "an answer that is none" : "the process that times it is no more");
    json_decref(answer);
    return ok;
}
