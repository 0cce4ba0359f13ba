/* What may the code under test do to the process it runs in? Kernels for the residual that do it in
 * one launch and compute the right thing in every other: FAULT_RANK counts them, -1 is the unsharded
 * run, then come the ranks of the cases in their order. Those of the last kind do it where the call is
 * large enough. */
/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/kernels.h"

const char *fault_throw(void);
const char *fault_simt(void *stream, int how);
const char *residual_host(const struct call *call, void *scratch, void *stream);
struct contract residual_contract(const struct call *call);
const char *residual_unsupported(const struct call *call);

static bool is_now(void) {
    static int launches;
    const char *const rank = getenv("FAULT_RANK");
    return launches++ == (rank ? atoi(rank) : -1) + 1;
}

/* No compiler knows what it is. */
static volatile uintptr_t nowhere = 16;

/* ---- longer ones ---- */

static void forever(void) {
    for (volatile int i = 0;; i++) {
    }
}

static void take_memory(void) {
    enum { MORE = 16 << 20 };
    for (;;) {
        char *const more = mmap(NULL, MORE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more != MAP_FAILED) memset(more, 1, MORE);
        usleep(2000);
    }
}

static void overrun_heap(void) {
    char *const block = malloc(24);
    volatile char *p = block;
    for (int i = 0; i < 400; i++) p[i] = 0x55;
    free(block);
}

static __attribute__((noinline)) void smash_stack(void) {
    char small[8];
    volatile char *volatile p = small;
    for (int i = 0; i < 256; i++) p[i] = 0x41;
}

static void close_all(void) {
    for (int fd = 0; fd < 1024; fd++) close(fd);
}

static void say_garbage(void) {
    char noise[100];
    memset(noise, 'x', sizeof noise);
    if (write(4, noise, sizeof noise) < 0) abort();
}

/* What a worker may have sent before, once more; and words that look like a report. */
static void say_frames(void) {
    const unsigned head[8] = {0x73686b31u, 5, 0, 0, 0, 0, (unsigned)getpid(), 0};
    fwrite(head, 1, sizeof head, stdout);
    printf("{\"passed\": 99}\n1 passed, 0 failed, 0 skipped\n");
    fflush(stdout);
    fprintf(stderr, "</testsuite>\n\x1b[2J\n");
}

/* An empty frame of the type "done", as another process of the same trade would write it. */
static void forge_frame(void) {
    const unsigned head[8] = {0x73686b31u, 10, 0, 0, 1, 1, (unsigned)getpid(), 0};
    if (write(4, head, sizeof head) < 0) abort();
}

static void stay_behind(void) {
    if (fork() == 0)
        for (;;) pause();
}

static void leave_daemon(void) {
    const pid_t child = fork();
    if (child == 0) {
        setsid();
        if (fork() == 0) {
            for (;;) pause();
        }
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void end_now(void) { _exit(0); }

static void limit(int what, rlim_t to) {
    if (setrlimit(what, &(struct rlimit){to, to})) abort();
}

static void block_signals(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int s = 1; s < 32; s++) signal(s, SIG_IGN);
}

static void *exit_later(void *unused) {
    (void)unused;
    usleep(100);
    exit(0);
}

static void start_thread(void *(*body)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, NULL)) abort();
    pthread_detach(thread);
}

static void ruin_later(void) { start_thread(exit_later); }

static void run_other_program(void) { execl("/bin/true", "true", (char *)NULL); }

static void free_output(const struct call *call) { free(call->u.residual.out.data); }

static void unmap_output(const struct call *call) {
    const size_t page = 4096;
    char *const data = call->u.residual.out.data;
    munmap(data - (size_t)data % page, page);
}

/* ---- the table ---- */

/* RETURNS: what the launcher says in place of computing; NULL: it computes. */
#define FAULT_OR(name_, returns)                                                                             \
    static const char *name_##_launch(const struct call *call, void *scratch, void *stream) {                \
        if (is_now()) {                                                                                      \
            const char *const said = (returns);                                                              \
            if (said) return said;                                                                           \
        }                                                                                                    \
        return residual_host(call, scratch, stream);                                                         \
    }
#define FAULT(name_, ...) FAULT_OR(name_, ((void)(__VA_ARGS__), NULL))

#define EACH(X)                                                                                              \
    X(exit_0, exit(0))                                                                                       \
    X(exit_1, exit(1))                                                                                       \
    X(exit_2, exit(2))                                                                                       \
    X(exit_113, exit(113))                                                                                   \
    X(exit_fast, _exit(0))                                                                                   \
    X(abort, abort())                                                                                        \
    X(throw, fault_throw())                                                                                  \
    X(sigkill, raise(SIGKILL))                                                                               \
    X(sigterm, raise(SIGTERM))                                                                               \
    X(sigstop, raise(SIGSTOP))                                                                               \
    X(kill_group, kill(0, SIGTERM))                                                                          \
    X(segfault, *(volatile int *)nowhere = 1)                                                                \
    X(hang, forever())                                                                                       \
    X(memory, take_memory())                                                                                 \
    X(heap, overrun_heap())                                                                                  \
    X(stack, smash_stack())                                                                                  \
    X(free_output, free_output(call))                                                                        \
    X(unmap_output, unmap_output(call))                                                                      \
    X(close_all, close_all())                                                                                \
    X(garbage, say_garbage())                                                                                \
    X(forged, forge_frame())                                                                                 \
    X(print, say_frames())                                                                                   \
    X(fork_back, (fork() < 0))                                                                               \
    X(fork_stay, stay_behind())                                                                              \
    X(daemon, leave_daemon())                                                                                \
    X(exec, run_other_program())                                                                             \
    X(atexit, atexit(end_now))                                                                               \
    X(atexit_hang, atexit(forever))                                                                          \
    X(thread_exits, ruin_later())                                                                            \
    X(thread_ends, pthread_exit(NULL))                                                                       \
    X(limit_memory, limit(RLIMIT_AS, 1 << 20))                                                               \
    X(limit_files, limit(RLIMIT_NOFILE, 0))                                                                  \
    X(limit_size, limit(RLIMIT_FSIZE, 0))                                                                    \
    X(limit_cpu, limit(RLIMIT_CPU, 0))                                                                       \
    X(chdir, chdir("/"))                                                                                     \
    X(umask, umask(0777))                                                                                    \
    X(signals, block_signals())                                                                              \
    X(orphan, prctl(PR_SET_PDEATHSIG, 0))                                                                    \
    X(clear_environment, clearenv())

EACH(FAULT)
FAULT_OR(simt_segfault, fault_simt(stream, 0))
FAULT_OR(simt_hang, fault_simt(stream, 1))
FAULT_OR(simt_exit, fault_simt(stream, 2))
FAULT_OR(says_nothing_clear, "two\nlines \x1b[2J and a bell \a")

/* Whatever the launch, by the size of the call: what --shrink looks for. */
#define FAULT_FROM(name_, tokens, width_, ...)                                                               \
    static const char *name_##_launch(const struct call *call, void *scratch, void *stream) {                \
        const struct residual_args *const a = &call->u.residual;                                             \
        if (a->n_tokens >= (tokens) && a->width >= (width_)) __VA_ARGS__;                                    \
        return residual_host(call, scratch, stream);                                                         \
    }
FAULT_FROM(large_segfault, 5, 3, *(volatile int *)nowhere = 1)
FAULT_FROM(large_exit, 5, 3, exit(0))
FAULT_FROM(large_hang, 5, 3, forever())
FAULT_FROM(larger_segfault, 6, 1, a->n_tokens < 9 ? forever() : (void)(*(volatile int *)nowhere = 1))

/* Stores its inputs, which is wrong, and on the whole numbers of fill=tags ends otherwise. */
#define FAULT_ON_TAGS(name_, ...)                                                                            \
    static const char *name_##_launch(const struct call *call, void *scratch, void *stream) {                \
        const struct residual_args *const a = &call->u.residual;                                             \
        struct call c = *call;                                                                               \
        const double x = dtype_load(a->x.data, a->x.dtype, 0);                                               \
        if (x == (double)(int)x) __VA_ARGS__;                                                                \
        c.u.residual.add = a->x;                                                                             \
        return residual_host(&c, scratch, stream);                                                           \
    }
FAULT_ON_TAGS(tags_segfault, *(volatile int *)nowhere = 1)
FAULT_ON_TAGS(tags_hang, forever())

#define ROW(name_, ...)                                                                                      \
    {.name = "bad_" #name_,                                                                                  \
     .op = OP_RESIDUAL,                                                                                      \
     .describes = "tests/faults",                                                                            \
     .launch = {[DEVICE_HOST] = name_##_launch},                                                             \
     .unsupported = residual_unsupported,                                                                    \
     .contract = residual_contract,                                                                          \
     .shard_invariant = true},

const struct kernel more_kernels[] = {
    EACH(ROW) ROW(simt_segfault) ROW(simt_hang) ROW(simt_exit) ROW(says_nothing_clear) ROW(large_segfault)
        ROW(large_exit) ROW(large_hang) ROW(larger_segfault) ROW(tags_segfault) ROW(tags_hang){.name = NULL}};
