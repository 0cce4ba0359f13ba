/* main - arguments become options, and the row of the command does what they say. Exit: 0 every
 * case passed, 1 a defect was found, 2 it could not run as asked (usage, bad input, missing device,
 * a skipped case without --allow-skips). */
/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/commands.h"
#include "harness/output.h"

/* A standard stream that is closed gets a file in which its use fails as before; else the next file
 * opened would get its number, and what was meant for the stream. */
static void occupy_standard_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

/* ---- signals ---- */

static void die_tidily(int signal_number) {
    outputs_unlink_all();
    raise(signal_number); /* blocked until we return; then its default action */
}

/* No signal leaves a file that nobody asked for. One that is ignored stays so, as under nohup. */
static void handle_signals(void) {
    static const int fatal[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM};
    struct sigaction before, tidy = {.sa_handler = die_tidily, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        if (!sigaction(fatal[i], NULL, &before) && before.sa_handler == SIG_DFL)
            sigaction(fatal[i], &tidy, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit is an error like others */
}

/* ---- the command ---- */

/* What a command printed is its result: it must have arrived. */
static struct status check_stdout(void) {
    errno = 0;
    if (!ferror(stdout) && !fflush(stdout)) return status_ok();
    return status_error("standard output: %s; redirect it to a file that can be written",
                        errno ? strerror(errno) : "cannot be written");
}

int main(int argc, char **argv) {
    struct options options;
    enum exit_code code = EXIT_PASSED;
    occupy_standard_streams();
    handle_signals();
    struct status s = options_parse(argc, argv, &options);
    if (!s.code) s = options.command->run(&options, &code);
    if (!s.code) s = check_stdout();
    options_free(&options);
    if (!s.code) return code;
    fprintf(stderr, "shardcheck: %s\n", s.message);
    return EXIT_TROUBLE;
}
