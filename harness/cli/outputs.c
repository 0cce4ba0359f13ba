/* Which files does a run name, and is each of them one of its own?  A report over the config that
 * is being read, or two outputs under one name, would leave less than was asked for. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/outputs.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool names_stdout(const char *path) {
    static const char *const names[] = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(path, names[i])) return true;
    return false;
}

struct status report_split(const char *value, const struct choices *formats, int *format, const char **path) {
    char text[200];
    const size_t n = strcspn(value, ":");
    for (*format = 0; *format < formats->n; ++*format)
        if (strlen(formats->name[*format]) == n && !strncmp(formats->name[*format], value, n)) break;
    if (*format == formats->n) {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)(n < 31 ? n : 31), value);
        choices_text(formats, name, text, sizeof text);
        return status_error("--report %.48s: no such format; use %s, then :FILE for a file", value, text);
    }
    if (value[n] && !value[n + 1])
        return status_error("--report %s: names no file; use %.*s:FILE", value, (int)n, value);
    *path = value[n] && !names_stdout(value + n + 1) ? value + n + 1 : NULL;
    return status_ok();
}

/* Reports in their order, then the dump. "--report json:FILE", and its path (NULL: standard
 * output); false: there are fewer. */
static bool output_at(const struct options *o, int i, char *label, size_t size, const char **path) {
    if (i > o->n_reports || (i == o->n_reports && !o->run.dump_path)) return false;
    const bool dump = i == o->n_reports;
    *path = dump ? o->run.dump_path : o->report[i].path;
    if (dump)
        snprintf(label, size, "--dump %s", *path);
    else if (*path)
        snprintf(label, size, "--report %s:%s", o->report[i].format->name, *path);
    else
        snprintf(label, size, "standard output");
    return true;
}

/* The files of options, then the models that are files; false: there are fewer. */
static bool input_at(const struct options *o, int64_t i, const char **path) {
    enum { OPTIONS = 4 };
    const char *const options[OPTIONS] = {o->run.fixture_path, o->failed_path, o->waivers.path,
                                          o->baseline_path};
    if (i >= o->run.n_cases + OPTIONS) return false;
    *path = i < OPTIONS ? options[i] : o->run.cases[i - OPTIONS].model;
    if (i >= OPTIONS && (o->run.fixture_path || model_preset_json(*path))) *path = NULL;
    return true;
}

/* A terminal or a socket may be both read and written; of a folder it is the config.json that is named. */
static bool reads(const char *input, const char *output) {
    struct stat file;
    char config[PATH_BYTES + 16];
    if (input && model_is_folder(input)) {
        model_config_path(input, config);
        input = config;
    }
    return input && !stat(input, &file) && S_ISREG(file.st_mode) && output_same(input, output);
}

struct status outputs_check(const struct options *o) {
    char label[300], other[300];
    const char *path, *earlier, *input;
    for (int i = 0; output_at(o, i, label, sizeof label, &path); i++) {
        for (int j = 0; j < i && output_at(o, j, other, sizeof other, &earlier); j++)
            if (output_same(path, earlier))
                return status_error("%.220s and %.220s: one file; name two", label, other);
        for (int64_t j = 0; input_at(o, j, &input); j++)
            if (reads(input, path))
                return status_error("%.220s: would replace %.220s, which is read; name another file", label,
                                    input);
    }
    return status_ok();
}

struct status reports_open(const struct options *o, struct output **report) {
    char label[300];
    const char *path;
    struct status s = status_ok();
    for (int i = 0; i < o->n_reports && !s.code; i++) {
        output_at(o, i, label, sizeof label, &path);
        s = output_open(label, path, &report[i]);
    }
    for (int i = 0; i < o->n_reports && s.code; i++) output_discard(&report[i]);
    return s;
}

struct status dump_output_open(struct run_request *request, struct output **dump) {
    char label[300];
    if (!request->dump_path) return status_ok();
    snprintf(label, sizeof label, "--dump %s", request->dump_path);
    TRY(output_open(label, request->dump_path, dump));
    request->dump_name = request->dump_path;
    request->dump_path = output_path(*dump);
    if (request->dump_path) return status_ok();
    output_discard(dump);
    return status_error("%s: HDF5 cannot write into a pipe or a device; name a file", label);
}
