/* output_target - what an output's name stands for. For output.c. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_OUTPUT_TARGET_H
#define HARNESS_OUTPUT_TARGET_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

struct target {
    char path[PATH_MAX]; /* links followed; of a pipe or device: as given */
    int fd;              /* -1: a path; else one that was open when the program started */
    bool exists;
    struct stat stat; /* where it exists */
};

/* NULL: standard output. Returns 0 or errno. */
int target_find(const char *path, struct target *out);
/* Why it cannot be written, and the remedy; NULL: nothing is known against it. */
const char *target_problem(const struct target *target);

/* "a/b.json": the length of "a/", and "b.json". */
size_t target_folder_length(const char *path);
const char *target_name(const char *path);

#endif
