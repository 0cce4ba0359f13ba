/* What stands in a file, a JSON report above all? */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/report_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPORT_BYTES = 256 << 20 };

/* Doubling: pipes have no size. */
static char *read_all(FILE *file, size_t most, size_t *length) {
    size_t room = 1 << 16;
    char *text = malloc(room + 1);
    *length = 0;
    while (text) {
        *length += fread(text + *length, 1, room - *length, file);
        if (*length < room || room > most) break;
        char *const more = realloc(text, 2 * room + 1);
        if (!more) free(text);
        text = more;
        room *= 2;
    }
    if (text) text[*length] = 0;
    return text;
}

struct status file_read(const char *label, const char *path, size_t most, const char *wanted, char **text,
                        size_t *length) {
    errno = 0;
    FILE *const file = fopen(path, "re");
    *text = file ? read_all(file, most, length) : NULL;
    const bool read = *text && !ferror(file), whole = read && *length <= most;
    if (file) fclose(file);
    if (whole) return status_ok();
    free(*text);
    *text = NULL;
    if (read) return status_error("%s%.200s: is longer than %zu bytes; give %s", label, path, most, wanted);
    return status_error("%s%.200s: %s; give %s", label, path, errno ? strerror(errno) : "cannot be read",
                        wanted);
}

struct status report_file_read(const char *label, const char *path, struct report_read *out) {
    char *text = NULL;
    size_t length = 0;
    TRY(file_read(label, path, MAX_REPORT_BYTES, "a JSON report", &text, &length));
    const char *const problem = report_read(text, length, out);
    free(text);
    return problem ? status_error("%s%.200s: %s", label, path, problem) : status_ok();
}
