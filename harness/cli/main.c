/* main - arguments become options, options cases, cases results, results reports. Exit: 0 every case passed, 1 a defect
 * was found, 2 it could not run as asked (usage, bad input, missing device, a skipped case without --allow-skips). */
/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/options.h"
#include "harness/cli/probe.h"
#include "harness/run.h"

enum { EXIT_PASSED = 0, EXIT_DEFECT = 1, EXIT_TROUBLE = 2 };

static int complain(const struct status *s) {
    fprintf(stderr, "shardcheck: %s\n", s->message);
    return EXIT_TROUBLE;
}

/* A report is written beside its target and renamed, so that nobody reads half a file. */
static struct status write_report(const struct report_target *target, const struct run_result *run,
                                  int verbosity) {
    char beside[4200];
    if (!target->path) {
        target->format->write(stdout, run, verbosity);
        if (fflush(stdout) || ferror(stdout)) return status_error("standard output: %s", strerror(errno));
        return status_ok();
    }
    snprintf(beside, sizeof beside, "%s.tmp", target->path);
    FILE *const file = fopen(beside, "w");
    if (!file)
        return status_error("--report %s:%s: %s; choose a writable path", target->format->name, target->path,
                            strerror(errno));
    target->format->write(file, run, verbosity);
    const bool written = !ferror(file);
    if (fclose(file) || !written || rename(beside, target->path)) {
        const int why = errno;
        unlink(beside);
        return status_error("--report %s:%s: %s", target->format->name, target->path, strerror(why));
    }
    return status_ok();
}

/* Unwritable reports are found before the work, not after it. */
static struct status probe_reports(const struct options *o) {
    for (int i = 0; i < o->n_reports; i++) {
        char beside[4200];
        if (!o->report[i].path) continue;
        if (strlen(o->report[i].path) > 4096)
            return status_error("--report: path longer than 4096 characters");
        snprintf(beside, sizeof beside, "%s.tmp", o->report[i].path);
        FILE *const file = fopen(beside, "w");
        if (!file)
            return status_error("--report %s:%s: %s; choose a writable path", o->report[i].format->name,
                                o->report[i].path, strerror(errno));
        fclose(file);
        unlink(beside);
    }
    return status_ok();
}

static void join_command(int argc, char **argv, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "shardcheck");
    for (int i = 1; i < argc && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, " %s", argv[i]);
}

static int run(const struct options *o, int argc, char **argv) {
    struct run_output out;
    struct status s = probe_reports(o);
    if (s.code) return complain(&s);
    s = run_cases(&o->run, &out);
    if (s.code) {
        run_output_free(&out);
        return complain(&s);
    }
    join_command(argc, argv, out.command, sizeof out.command);
    for (int i = 0; i < o->n_reports && !s.code; i++)
        s = write_report(&o->report[i], &out.result, o->verbosity);
    const int code = out.result.n_failed                       ? EXIT_DEFECT
                     : out.result.n_skipped && !o->allow_skips ? EXIT_TROUBLE
                                                               : EXIT_PASSED;
    run_output_free(&out);
    return s.code ? complain(&s) : code;
}

int main(int argc, char **argv) {
    struct options options;
    struct status s = options_parse(argc, argv, &options);
    if (s.code) return complain(&s);
    int code = EXIT_PASSED, exceeded = 0;
    switch (options.command) {
    case COMMAND_HELP: options_print_help(stdout); break;
    case COMMAND_VERSION: printf("shardcheck %s\n", SHARDCHECK_VERSION); break;
    case COMMAND_LIST:
        s = options_list(options.list_what, stdout);
        if (s.code) code = complain(&s);
        break;
    case COMMAND_PROBE:
        s = probe(options.device, stdout, &exceeded);
        code = s.code ? complain(&s) : exceeded ? EXIT_DEFECT : EXIT_PASSED;
        break;
    case COMMAND_RUN: code = run(&options, argc, argv); break;
    }
    options_free(&options);
    return code;
}
