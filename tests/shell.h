/* shell - a command line of the binary, as a shell runs it, and what it said. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SHELL_H
#define TESTS_SHELL_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/folder.h"

static char text[1 << 16]; /* standard output and error of the last one */

/* Exit status of "shardcheck ARGUMENTS"; 128: it did not end by itself. */
static inline int run(const char *arguments) {
    char command[600];
    snprintf(command, sizeof command, "\"$SHARDCHECK\" %s 2>&1", arguments);
    FILE *const out = popen(command, "r");
    cr_assert(out);
    text[fread(text, 1, sizeof text - 1, out)] = 0;
    const int status = pclose(out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static inline void expect(const char *arguments, int status, const char *word) {
    const int got = run(arguments);
    cr_expect_eq(got, status, "%s: exit %d instead of %d\n%s", arguments, got, status, text);
    cr_expect(strstr(text, word), "%s: no '%s' in\n%s", arguments, word, text);
}

#endif
