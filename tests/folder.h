/* folder - an empty folder of a test's own, the current one while it runs. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_FOLDER_H
#define TESTS_FOLDER_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64], root[4096]; /* the current folder; the project, $ROOT of commands */

static inline void folder_enter(void) {
    cr_assert(getcwd(root, sizeof root));
    setenv("ROOT", root, 1);
    strcpy(folder, "/tmp/shardcheck-test-XXXXXX");
    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
}

/* With the binary that the environment names. */
static inline void folder_enter_with_binary(void) {
    cr_assert(getenv("SHARDCHECK"), "SHARDCHECK must name the binary");
    folder_enter();
}

/* What was put beside it goes, too: FOLDER.out, FOLDER.err. */
static inline void folder_leave(void) {
    char command[256];
    snprintf(command, sizeof command, "cd / && rm -rf '%s' '%s.out' '%s.err'", folder, folder, folder);
    cr_expect_eq(system(command), 0);
}

static inline int files_here(void) {
    int n = 0;
    DIR *const d = opendir(".");
    while (readdir(d)) n++;
    closedir(d);
    return n - 2;
}

#endif
