/* What did a worker die of? The step announced last is what it was doing: a kernel, a file, or the
 * reference. Damage may show later than it is done, so a crash of the reference after a launch is
 * the kernel's until the opposite is shown; running out of time or memory there is not. */
/* SPDX-License-Identifier: MIT */
#include "harness/worker/death.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "harness/worker/worker.h"
#include "layer/layer.h"

static bool crashed(const struct death *d) { return d->end == END_DIED && WIFSIGNALED(d->wait_status); }

/* No memory (harness/memory.c), no threads: exits of our own. Any other is that of a thread, a handler
 * or a limit that a kernel has left. */
static bool is_our_exit(const struct death *d) {
    static const char *const ours[] = {"shardcheck: ", "libgomp: "};
    bool said = false;
    for (size_t i = 0; i < sizeof ours / sizeof *ours && d->words; i++)
        said |= !strncmp(d->words, ours[i], strlen(ours[i]));
    return d->end == END_DIED && !crashed(d) && said;
}

bool death_is_kernels(const struct death *d) {
    if (d->step.doing == DOING_KERNEL) return true;
    if (!d->launch.who[0]) return false;
    return d->end != END_TIMEOUT && d->end != END_MEMORY && !is_our_exit(d);
}

static void place(const struct step *s, char *text, size_t size) {
    if (s->stage < 0)
        text[0] = 0;
    else if (s->rank < 0)
        snprintf(text, size, " in stage %s, unsharded", stage_table[s->stage].name);
    else
        snprintf(text, size, " in stage %s, rank %d", stage_table[s->stage].name, s->rank);
}

/* "called exit(0)", "died of SIGSEGV (Segmentation fault)" */
static void what(const struct death *d, char *text, size_t size) {
    const int signal = WIFSIGNALED(d->wait_status) ? WTERMSIG(d->wait_status) : 0;
    const char *const name = signal ? sigabbrev_np(signal) : NULL;
    switch (d->end) {
    case END_TIMEOUT: snprintf(text, size, "did not come back within %.3g s", d->seconds); return;
    case END_MEMORY: snprintf(text, size, "took more than %.1f GiB of memory", d->gib); return;
    case END_FORKED: snprintf(text, size, "made another process that went on in its place"); return;
    case END_GARBAGE: snprintf(text, size, "wrote into the descriptor of the results"); return;
    case END_MISCOUNTED: snprintf(text, size, "made results disappear"); return;
    case END_DIED: break;
    }
    if (signal)
        snprintf(text, size, "died of SIG%s (%s)", name ? name : "?", strsignal(signal));
    else if (WEXITSTATUS(d->wait_status) == EXIT_UNHEARD)
        snprintf(text, size, "closed the descriptor of the results");
    else
        snprintf(text, size, "called exit(%d)", WEXITSTATUS(d->wait_status));
}

static const char *remedy(const struct death *d) {
    return d->end == END_TIMEOUT  ? "; --timeout SECONDS allows more"
           : d->end == END_MEMORY ? "; --memory-limit GIB allows more"
                                  : "";
}

void death_describe(const struct death *d, char *text, size_t size) {
    const bool in_kernel = d->step.doing == DOING_KERNEL;
    char where[80], did[120], launched[80];
    size_t n;
    what(d, did, sizeof did);
    place(&d->step, where, sizeof where);
    place(&d->launch, launched, sizeof launched);
    if (in_kernel)
        n = (size_t)snprintf(text, size, "%.40s %s%s%s", d->step.who, did, where, remedy(d));
    else if (death_is_kernels(d))
        n = (size_t)snprintf(
            text, size,
            "after %.40s had run%s the process %s; it damaged memory that is not its own, or "
            "shardcheck has an error (--in-process under a debugger shows which)",
            d->launch.who, launched, did);
    else if (d->step.doing == DOING_FILE)
        n = (size_t)snprintf(
            text, size,
            "%.200s: the process that reads or writes it %s; the file is damaged, or HDF5 has an "
            "error; check it with h5dump",
            d->step.who, did);
    else
        n = (size_t)snprintf(text, size, "the reference %s%s%s; that is no kernel's doing", did, where,
                             remedy(d));
    if (d->words && d->words[0] && n < size) snprintf(text + n, size - n, "; it said: %.150s", d->words);
}
