/* What does a signal do? It never leaves a file that nobody asked for, and during a run the first one
 * lets the reports be written. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/signals.h"

#include <signal.h>
#include <stddef.h>

#include "harness/output.h"

static volatile sig_atomic_t ask_first, asked;

static void handle(int signal_number) {
    struct sigaction dead = {.sa_handler = SIG_DFL};
    if (ask_first && !asked && signal_number != SIGPIPE) {
        asked = signal_number;
        return;
    }
    outputs_unlink_all();
    sigaction(signal_number, &dead, NULL);
    raise(signal_number); /* blocked until we return; then its default action */
}

/* One that is ignored stays so, as under nohup. */
void signals_handle(void) {
    static const int fatal[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM};
    struct sigaction before, tidy = {.sa_handler = handle};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        if (!sigaction(fatal[i], NULL, &before) && before.sa_handler == SIG_DFL)
            sigaction(fatal[i], &tidy, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit is an error like others */
}

void signals_ask_first(void) { ask_first = 1; }

int signals_asked(void) { return asked; }
