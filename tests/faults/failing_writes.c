/* failing_writes - LD_PRELOAD: what if the disk says no?  The calls of one kind on one file are
 * counted, and from a given one on they fail or do less than they were asked for.
 *
 *   FAULT_FILE  part of the file's name (of rename: the new one); other files are left alone
 *   FAULT_CALL  write, truncate, sync, close or rename; write is any of write, pwrite and writev
 *   FAULT_AT    N: the N-th call; N+: that and all later ones; 0: none
 *   FAULT_HOW   EIO or ENOSPC; short: half of the bytes
 *   FAULT_LOG   a file that gets a line for every call counted, in whichever process
 *
 * A stream of libc writes without these symbols: a program must call write itself to be tried. */
/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is(const char *variable, const char *value) {
    const char *const text = getenv(variable);
    return text && !strcmp(text, value);
}

/* By system calls: these calls are not to be counted. The lines are the count, for the calls of one
 * kind are spread over a run and its workers. */
static long log_call(const char *call) {
    const char *const path = getenv("FAULT_LOG");
    const int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT, 0666) : -1;
    char line[32];
    const int n = snprintf(line, sizeof line, "%s\n", call);
    if (fd < 0) return 0;
    syscall(SYS_write, fd, line, n);
    const long end = syscall(SYS_lseek, fd, 0, SEEK_CUR); /* of this line, whoever writes beside */
    syscall(SYS_close, fd);
    return end / n;
}

/* Is this the call that has to fail?  errno is set for it. */
static bool hit(const char *call, const char *path) {
    const char *const part = getenv("FAULT_FILE"), *const at = getenv("FAULT_AT");
    if (!part || !strstr(path, part) || !is("FAULT_CALL", call)) return false;
    const long n = log_call(call);
    char *end;
    const long from = at ? strtol(at, &end, 10) : 0;
    if (!from || n < from || (n > from && *end != '+')) return false;
    errno = is("FAULT_HOW", "ENOSPC") ? ENOSPC : EIO;
    return true;
}

static bool hit_fd(const char *call, int fd) {
    char link[64], path[4096];
    const int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    errno = before;
    return n >= 0 && hit(call, path);
}

/* How many of n bytes are written; -1: an error. */
static ssize_t allowed(int fd, size_t n) {
    if (!hit_fd("write", fd)) return (ssize_t)n;
    return is("FAULT_HOW", "short") ? (ssize_t)((n + 1) / 2) : -1;
}

ssize_t write(int fd, const void *bytes, size_t n) {
    const ssize_t some = allowed(fd, n);
    return some < 0 ? -1 : syscall(SYS_write, fd, bytes, (size_t)some);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t at) {
    const ssize_t some = allowed(fd, n);
    return some < 0 ? -1 : syscall(SYS_pwrite64, fd, bytes, (size_t)some, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return pwrite64(fd, bytes, n, at); }

/* Short: the first piece only. */
ssize_t writev(int fd, const struct iovec *piece, int n_pieces) {
    const ssize_t some = allowed(fd, 2);
    return some < 0 ? -1 : syscall(SYS_writev, fd, piece, some == 2 ? n_pieces : 1);
}

int ftruncate64(int fd, off_t size) {
    return hit_fd("truncate", fd) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fsync(int fd) { return hit_fd("sync", fd) ? -1 : (int)syscall(SYS_fsync, fd); }

/* As on a network disk: the file is closed, its bytes did not arrive. */
int close(int fd) {
    const bool fails = hit_fd("close", fd);
    const int error = errno, result = (int)syscall(SYS_close, fd);
    if (fails) errno = error;
    return fails ? -1 : result;
}

int rename(const char *from, const char *to) {
    return hit("rename", to) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
