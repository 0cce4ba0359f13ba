/* main - arguments become options, and the row of the command does what they say. Exit: 0 every
 * case passed, 1 a defect was found, 2 it could not run as asked (usage, bad input, missing device,
 * a skipped case without --allow-skips). */
/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/commands.h"
#include "harness/cli/signals.h"
#include "harness/memory.h"
#include "harness/worker/process.h"
#include "harness/worker/worker.h"

/* A standard stream that is closed gets a file in which its use fails as before; else the next file
 * opened would get its number, and what was meant for the stream. */
static void occupy_standard_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

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
    memory_keep_warm();
    if (argc == 3 && !strcmp(argv[1], WORKER_OPTION)) return worker_run(WORKER_IN, WORKER_OUT, atoi(argv[2]));
    worker_program = "/proc/self/exe";
    static char whole[1 << 16]; /* a list or a help: why it cannot be written is known at its end */
    setvbuf(stdout, whole, _IOFBF, sizeof whole);
    occupy_standard_streams();
    signals_handle();
    struct status s = options_parse(argc, argv, &options);
    if (!s.code) s = options.command->run(&options, &code);
    if (!s.code) s = check_stdout();
    options_free(&options);
    if (!s.code) return code;
    fprintf(stderr, "shardcheck: %s\n", s.message);
    return EXIT_TROUBLE;
}
