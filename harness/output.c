/* How does an output get its bytes, and its name?  A stream whose writer is write(2) itself, so
 * that every error is seen; a file beside the target; fsync, close and rename, each checked. */
/* SPDX-License-Identifier: MIT */
#include "harness/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/output_target.h"

enum { N_RANDOM = 6, SIBLING_BYTES = PATH_MAX + N_RANDOM + 4 };

struct output {
    char label[300];
    struct target target;
    char beside[SIBLING_BYTES];     /* the new file */
    volatile sig_atomic_t has_file; /* 0: bytes go straight to the target */
    int fd, error;                  /* the first error of a write */
    pid_t owner;
    FILE *file;
};

/* ---- errors ---- */

static const struct {
    int error;
    const char *cause, *remedy; /* cause: NULL: the system's words */
} remedy_table[] = {
    {ENOSPC, NULL, "free some space or choose another disk"},
    {EDQUOT, NULL, "free some space or choose another disk"},
    {EFBIG, NULL, "raise the limit of file sizes, ulimit -f"},
    {EIO, NULL, "check the disk"},
    {EACCES, NULL, "choose a writable file in a writable folder"},
    {ENXIO, "nobody reads this pipe", "start its reader first"},
    {EPIPE, "its reader left", "keep it running"},
    {EBADF, "not open for writing", "open it or name a file"},
    {EBUSY, NULL, "it may be a mount of its own: name a file in a folder"},
    {ENOENT, NULL, "choose a writable path in a folder that exists"},
    {ENAMETOOLONG, NULL, "choose a shorter path"},
};

static struct status failed(const char *label, int error) {
    const char *cause = NULL, *remedy = "choose a writable path";
    for (size_t i = 0; i < sizeof remedy_table / sizeof *remedy_table; i++) {
        if (remedy_table[i].error != error) continue;
        cause = remedy_table[i].cause;
        remedy = remedy_table[i].remedy;
    }
    return status_error("%.300s: %s; %s", label, cause ? cause : strerror(error), remedy);
}

/* ---- what has to be removed when the process dies ---- */

static struct output *volatile open_outputs[MAX_OUTPUTS];

static bool register_output(struct output *o) {
    static bool at_exit;
    if (!at_exit) at_exit = atexit(outputs_unlink_all) == 0;
    for (int i = 0; i < MAX_OUTPUTS; i++) {
        if (open_outputs[i]) continue;
        open_outputs[i] = o;
        return true;
    }
    return false;
}

static void unregister_output(const struct output *o) {
    for (int i = 0; i < MAX_OUTPUTS; i++)
        if (open_outputs[i] == o) open_outputs[i] = NULL;
}

void outputs_unlink_all(void) {
    const int before = errno;
    for (int i = 0; i < MAX_OUTPUTS; i++) {
        const struct output *const o = open_outputs[i];
        if (o && o->has_file && o->owner == getpid()) unlink(o->beside);
    }
    errno = before;
}

/* ---- bytes ---- */

int write_whole(int fd, const char *bytes, size_t n) {
    while (n) {
        const ssize_t taken = write(fd, bytes, n);
        if (taken > 0) {
            bytes += taken;
            n -= (size_t)taken;
        } else if (taken < 0 && errno == EAGAIN) { /* somebody else's non-blocking pipe */
            poll(&(struct pollfd){fd, POLLOUT, 0}, 1, -1);
        } else if (taken == 0 || errno != EINTR) {
            return taken < 0 ? errno : EIO;
        }
    }
    return 0;
}

/* After an error nothing follows: no bytes behind a gap. */
static ssize_t write_cookie(void *cookie, const char *bytes, size_t n) {
    struct output *const o = cookie;
    if (getpid() != o->owner) return (ssize_t)n;
    if (!o->error) o->error = write_whole(o->fd, bytes, n);
    return o->error ? 0 : (ssize_t)n;
}

/* ---- open ---- */

static void random_letters(char letters[N_RANDOM + 1]) {
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char bytes[N_RANDOM];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) abort(); /* so few bytes always come whole */
    for (int i = 0; i < N_RANDOM; i++) letters[i] = alphabet[bytes[i] % (sizeof alphabet - 1)];
    letters[N_RANDOM] = 0;
}

/* The name is new: nothing that lies there is opened, nor followed. An old file's mode is kept, and
 * its owner as far as we may. Returns 0 or errno. */
static int open_beside(struct output *o) {
    const struct target *const t = &o->target;
    const mode_t mode = t->exists ? t->stat.st_mode & 0777 : 0666;
    char letters[N_RANDOM + 1];
    if (t->exists && faccessat(AT_FDCWD, t->path, W_OK, AT_EACCESS)) return errno;
    for (int tries = 0; o->fd < 0 && tries < 100; tries++) {
        random_letters(letters);
        snprintf(o->beside, sizeof o->beside, "%.*s.%.200s.%s", (int)target_folder_length(t->path), t->path,
                 target_name(t->path), letters);
        o->has_file = 1; /* before it is there: a signal may come in between */
        o->fd = open(o->beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (o->fd >= 0) break;
        const int error = errno;
        o->has_file = 0;
        if (error != EEXIST) return error;
    }
    if (o->fd < 0) return EEXIST;
    if (!t->exists) return 0;
    if (fchown(o->fd, t->stat.st_uid, t->stat.st_gid)) errno = 0; /* then it is ours */
    return fchmod(o->fd, mode) ? errno : 0;
}

static int open_bytes(struct output *o) {
    const struct target *const t = &o->target;
    if (t->fd >= 0) { /* a number that was handed to us, not one of our own files */
        const int mode = fcntl(t->fd, F_GETFL), flags = fcntl(t->fd, F_GETFD);
        if (mode < 0 || (mode & O_ACCMODE) == O_RDONLY || flags & FD_CLOEXEC) return EBADF;
        o->fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 3);
    } else if (t->exists && !S_ISREG(t->stat.st_mode)) {
        o->fd = open(t->path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    } else {
        return open_beside(o);
    }
    return o->fd < 0 ? errno : 0;
}

struct status output_open(const char *label, const char *path, struct output **out) {
    *out = NULL;
    struct output *o = calloc(1, sizeof *o);
    if (!o) return status_error("%.300s: out of memory; free some", label);
    *o = (struct output){.fd = -1, .owner = getpid()};
    snprintf(o->label, sizeof o->label, "%s", label);
    if (!register_output(o)) {
        free(o);
        return status_error("%.300s: more than %d outputs; leave some out", label, MAX_OUTPUTS);
    }
    int error = target_find(path, &o->target);
    const char *const refused = error ? NULL : target_problem(&o->target);
    if (!error && !refused) error = open_bytes(o);
    if (!error && !refused) {
        o->file = fopencookie(o, "w", (cookie_io_functions_t){.write = write_cookie});
        if (!o->file) error = ENOMEM;
    }
    if (!error && !refused) {
        if (isatty(o->fd)) setvbuf(o->file, NULL, _IOLBF, BUFSIZ);
        *out = o;
        return status_ok();
    }
    output_discard(&o);
    return refused ? status_error("%.300s: %s", label, refused) : failed(label, error);
}

FILE *output_file(struct output *o) { return o->file; }

const char *output_path(const struct output *o) { return o->has_file ? o->beside : NULL; }

/* ---- the end ---- */

static void end(struct output **handle) {
    struct output *const o = *handle;
    *handle = NULL;
    unregister_output(o);
    free(o);
}

static void note(struct output *o, bool failure) {
    if (failure && !o->error) o->error = errno ? errno : EIO;
}

struct status output_commit(struct output **handle) {
    struct output *const o = *handle;
    if (!o) return status_ok();
    const bool renames = o->has_file;
    errno = 0;
    const bool unwritten = fflush(o->file) || ferror(o->file);
    note(o, unwritten);
    note(o, fclose(o->file));
    o->file = NULL;
    if (renames && !o->error) note(o, fsync(o->fd) && errno != EINVAL && errno != ENOTSUP);
    note(o, close(o->fd) && errno != EINTR);
    o->fd = -1;
    if (renames && !o->error) note(o, rename(o->beside, o->target.path));
    if (o->error) {
        const struct status s = failed(o->label, o->error);
        output_discard(handle);
        return s;
    }
    end(handle);
    return status_ok();
}

void output_discard(struct output **handle) {
    struct output *const o = *handle;
    if (!o) return;
    o->error = ECANCELED; /* what is still in the buffer stays there */
    if (o->file) fclose(o->file);
    if (o->fd >= 0) close(o->fd);
    if (o->has_file && o->owner == getpid()) unlink(o->beside);
    end(handle);
}
