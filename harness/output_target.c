/* Which file does a name mean?  One that is open already, one at the end of links, or one that is
 * still to be made. */
/* SPDX-License-Identifier: MIT */
#include "harness/output_target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/output.h"

enum { MAX_LINKS = 40 }; /* as the kernel */

const char *target_name(const char *path) {
    const char *const slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

size_t target_folder_length(const char *path) { return (size_t)(target_name(path) - path); }

/* Files that are open already have names. By number, not by path: opening the path again would
 * start at byte 0, and a socket has none that could be opened. -1: a name of another kind. */
static int fd_of_name(const char *path) {
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    if (!path || !strcmp(path, "/dev/stdout")) return STDOUT_FILENO;
    if (!strcmp(path, "/dev/stdin")) return STDIN_FILENO;
    if (!strcmp(path, "/dev/stderr")) return STDERR_FILENO;
    for (int i = 0; i < 2; i++) {
        const size_t n = strlen(folders[i]),
                     digits = strspn(path + (strncmp(path, folders[i], n) ? 0 : n), "0123456789");
        if (!strncmp(path, folders[i], n) && digits && digits < 9 && !path[n + digits]) return atoi(path + n);
    }
    return -1;
}

/* By name, since the last link may lead to a file that is still to be made. */
static int follow_links(const char *path, char out[PATH_MAX]) {
    char link[PATH_MAX], next[2 * PATH_MAX];
    if (strlen(path) >= PATH_MAX) return ENAMETOOLONG;
    strcpy(out, path);
    for (int i = 0; i < MAX_LINKS; i++) {
        const ssize_t n = readlink(out, link, sizeof link - 1);
        if (n < 0) return errno == EINVAL || errno == ENOENT ? 0 : errno;
        link[n] = 0;
        const int folder = link[0] == '/' ? 0 : (int)target_folder_length(out);
        snprintf(next, sizeof next, "%.*s%s", folder, out, link);
        if (strlen(next) >= PATH_MAX) return ENAMETOOLONG;
        strcpy(out, next);
    }
    return ELOOP;
}

static bool one_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

int target_find(const char *path, struct target *out) {
    *out = (struct target){.fd = fd_of_name(path)};
    if (out->fd >= 0) {
        if (fstat(out->fd, &out->stat)) return errno;
        out->exists = true;
        return 0;
    }
    out->exists = stat(path, &out->stat) == 0;
    if (!out->exists && errno != ENOENT) return errno;
    if (out->exists && !S_ISREG(out->stat.st_mode)) {
        if (strlen(path) >= sizeof out->path) return ENAMETOOLONG;
        strcpy(out->path, path);
        return 0;
    }
    const int error = follow_links(path, out->path);
    if (error || !out->exists) return error;
    struct stat found; /* another file: /proc/PID/fd/N of one that was removed */
    return stat(out->path, &found) || !one_file(&found, &out->stat) ? ENOENT : 0;
}

const char *target_problem(const struct target *t) {
    if (!t->exists || t->fd >= 0) return NULL;
    if (S_ISDIR(t->stat.st_mode)) return "is a folder; name a file in it";
    if (S_ISSOCK(t->stat.st_mode)) return "is a socket; name a file or a pipe";
    if (S_ISBLK(t->stat.st_mode)) return "is a disk; name a file or a pipe";
    return NULL;
}

/* ---- one file? ---- */

/* Of a file that is still to be made: the folder, which must exist. */
static bool folder_stat(const struct target *t, struct stat *out) {
    char folder[PATH_MAX];
    const size_t n = target_folder_length(t->path);
    snprintf(folder, sizeof folder, "%.*s", n ? (int)n : 1, n ? t->path : ".");
    return stat(folder, out) == 0;
}

bool output_same(const char *a, const char *b) {
    struct target one, two;
    struct stat here, there;
    if (target_find(a, &one) || target_find(b, &two) || one.exists != two.exists) return false;
    if (one.exists) return one_file(&one.stat, &two.stat) && !S_ISCHR(one.stat.st_mode);
    return folder_stat(&one, &here) && folder_stat(&two, &there) && one_file(&here, &there) &&
           !strcmp(target_name(one.path), target_name(two.path));
}
