/* How is a process started that may crash, hang or run wild, and how is it got rid of? It leads a
 * process group of its own, hears nothing but requests, and what it prints goes into a pipe. */
/* SPDX-License-Identifier: MIT */
#include "harness/worker/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/worker/strays.h"
#include "harness/worker/worker.h"

extern char **environ;
const char *worker_program;

struct pipes {
    int request[2], frames[2], words[2];
};

static void close_all(const struct pipes *p) {
    const int fd[] = {p->request[0], p->request[1], p->frames[0], p->frames[1], p->words[0], p->words[1]};
    for (size_t i = 0; i < sizeof fd / sizeof *fd; i++)
        if (fd[i] > 0) close(fd[i]);
}

/* Above the numbers that the worker finds its ends at: a dup2 must not close another's source. */
static bool open_pipe(int ends[2]) {
    int low[2];
    if (pipe2(low, O_CLOEXEC)) return false;
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, WORKER_OUT + 1);
        close(low[i]);
    }
    return ends[0] >= 0 && ends[1] >= 0;
}

/* A model may be called /dev/stdin; a terminal or a pipe is not for workers. */
static bool reads_a_file(void) {
    struct stat in;
    return !fstat(STDIN_FILENO, &in) && S_ISREG(in.st_mode);
}

static int spawn(struct process *p, const struct pipes *pipes) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t reset;
    char parent[16], *const argv[] = {"shardcheck", WORKER_OPTION, parent, NULL};
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    posix_spawn_file_actions_init(&files);
    if (!reads_a_file()) posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, pipes->words[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, pipes->words[1], STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&files, pipes->request[0], WORKER_IN);
    posix_spawn_file_actions_adddup2(&files, pipes->frames[1], WORKER_OUT);
    posix_spawnattr_init(&attributes);
    sigemptyset(&reset);
    for (const int *s = (const int[]){SIGINT, SIGTERM, SIGHUP, SIGPIPE, 0}; *s; s++) sigaddset(&reset, *s);
    posix_spawnattr_setsigdefault(&attributes, &reset);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
    const int error = posix_spawn(&p->pid, worker_program, &files, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return error;
}

/* Threads of OpenMP that wait by spinning slow a machine that has other work; read when it starts. */
static void prefer_passive_waiting(void) { setenv("OMP_WAIT_POLICY", "passive", 0); }

struct status process_start(struct process *p, bool echo) {
    struct pipes pipes = {0};
    *p = (struct process){.echo = echo};
    if (!open_pipe(pipes.request) || !open_pipe(pipes.frames) || !open_pipe(pipes.words)) {
        const int why = errno;
        close_all(&pipes);
        return status_error("no pipe to a worker: %s; run with --in-process", strerror(why));
    }
    prefer_passive_waiting();
    strays_expect();
    const int error = spawn(p, &pipes);
    if (error) {
        close_all(&pipes);
        p->pid = 0;
        return status_error("%.200s does not start as a worker: %s; run with --in-process", worker_program,
                            strerror(error));
    }
    strays_spare(p->pid);
    close(pipes.request[0]);
    close(pipes.frames[1]);
    close(pipes.words[1]);
    p->to = pipes.request[1];
    p->from = pipes.frames[0];
    p->said = pipes.words[0];
    fcntl(p->from, F_SETFL, O_NONBLOCK);
    fcntl(p->said, F_SETFL, O_NONBLOCK);
    return status_ok();
}

bool process_ask(struct process *p, enum frame_type type, const void *payload, size_t length) {
    struct frame_head head = {0};
    if (getrandom(&p->nonce, sizeof p->nonce, 0) != (ssize_t)sizeof p->nonce) p->nonce += 0x9e3779b97f4a7c15u;
    head.nonce = p->nonce;
    return frame_write(p->to, &head, type, payload, length);
}

/* ---- hearing ---- */

static void keep_words(struct process *p, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c == '\n') {
            p->n_words = 0; /* the next line takes its place once it begins */
        } else if (p->n_words + 1 < sizeof p->words) {
            p->words[p->n_words++] = c < ' ' || c >= 0x7f ? '?' : (char)c;
            p->words[p->n_words] = 0;
        }
    }
}

static void hear_words(struct process *p) {
    char text[4096];
    ssize_t n;
    while ((n = read(p->said, text, sizeof text)) > 0) {
        keep_words(p, text, (size_t)n);
        if (p->echo && write(STDERR_FILENO, text, (size_t)n) < 0) p->echo = false;
    }
}

void process_hear(struct process *p) {
    if (!p->ended && waitpid(p->pid, &p->wait_status, WNOHANG) == p->pid) p->ended = true;
    size_t before; /* after an end: everything that it still got out */
    bool open;
    do {
        before = p->in.used;
        open = frame_read(&p->in, p->from);
    } while (open && p->in.used > before);
    hear_words(p);
}

int process_next(struct process *p, struct frame_head *head, const char **payload) {
    const int front = frame_front(&p->in, head, payload);
    if (front <= 0) return front;
    return head->number == p->heard++ && head->pid == p->pid && head->nonce == p->nonce ? 1 : -1;
}

int64_t process_memory(const struct process *p) {
    char path[64];
    long long whole, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)p->pid);
    FILE *const file = fopen(path, "re");
    if (!file) return 0;
    if (fscanf(file, "%lld %lld", &whole, &resident) != 2) resident = 0;
    fclose(file);
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

void process_stop(struct process *p) {
    if (!p->pid) return;
    kill(-p->pid, SIGKILL);
    if (!p->ended) {
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, &p->wait_status, 0) < 0 && errno == EINTR) {
        }
    }
    strays_forget(p->pid);
    strays_end();
    close(p->to);
    close(p->from);
    close(p->said);
    frame_buffer_free(&p->in);
    *p = (struct process){0};
}
