/* output - a named output that is written whole or not at all.
 *
 * A file, or a name that is still free: the bytes go into a new file beside it, `.NAME.XXXXXX`,
 * which takes the name at output_commit; until then, and after any error, an old file is as it was.
 * Links are followed: what they point to is replaced, they stay.
 *
 * A pipe or a device, and whatever /dev/fd/N, /dev/stdout and /dev/stderr stand for: written as it
 * is; never created, cut, replaced or removed. A FIFO that nobody reads is an error at once:
 * waiting for a reader would look like a run that hangs. Folders, sockets and disks are refused.
 *
 * An output belongs to the process that opened it: what a forked child writes is dropped. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_OUTPUT_H
#define HARNESS_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

#include "layer/status.h"

enum { MAX_OUTPUTS = 16 }; /* open at a time */
struct output;

/* Before the work, so that an unwritable path is found before it. label: what errors begin with,
 * "--report json:FILE". path: NULL is standard output. */
struct status output_open(const char *label, const char *path, struct output **out);
/* For writing; closed by the output. Errors show at the latest in output_commit. fileno() is -1. */
FILE *output_file(struct output *output);
/* The new file, for a library that opens it by name; NULL: there is none to seek in. */
const char *output_path(const struct output *output);
/* Either ends the output and sets it to NULL; NULL is accepted. */
struct status output_commit(struct output **output);
void output_discard(struct output **output);

/* All bytes into a descriptor, whatever the system takes at a time. Returns 0 or errno. */
int write_whole(int fd, const char *bytes, size_t n);

/* Removes the new files of everything open. Async-signal-safe; at exit it is called anyway. */
void outputs_unlink_all(void);

/* Do two names (NULL: standard output) mean one file, or one that is still to be? Of devices: no.
 * Nothing gets lost on a terminal or /dev/null. */
bool output_same(const char *a, const char *b);

#endif
