/* binary - runs the binary named by the environment variable SHARDCHECK, without a shell, in an
 * empty folder of its own. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_BINARY_H
#define TESTS_BINARY_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/folder.h"

static void redirect(int descriptor, const char *suffix) {
    char path[96];
    snprintf(path, sizeof path, "%s.%s", folder, suffix);
    dup2(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600), descriptor);
}

static char *output(const char *suffix) {
    char path[96];
    snprintf(path, sizeof path, "%s.%s", folder, suffix);
    FILE *const file = fopen(path, "r");
    char *const text = calloc(1, 1 << 20);
    cr_assert(file && text);
    text[fread(text, 1, (1 << 20) - 1, file)] = 0;
    fclose(file);
    return text;
}

/* The exit status of a program; its output goes to files beside the folder. */
static int execute(const char *program, const char *const *words) {
    const char *argv[16] = {program};
    for (int i = 0; i < 15 && words[i]; i++) argv[i + 1] = words[i];
    const pid_t child = fork();
    if (child == 0) {
        redirect(STDOUT_FILENO, "out");
        redirect(STDERR_FILENO, "err");
        execvp(program, (char *const *)argv);
        _exit(127);
    }
    int status;
    cr_assert(child > 0 && waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(...) execute(getenv("SHARDCHECK"), (const char *const[]){__VA_ARGS__, NULL})

#endif
