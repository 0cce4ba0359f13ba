/* What was typed?  One table of options drives parsing, --help and the errors; the expansion of what was
 * asked into cases is in request.c, `list` in options_list.c. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer/choices.h"
#include "harness/cli/request.h"
#include "harness/quote.h"

enum { MAX_OPTIONS = 64 };
enum flag { FLAG_ALLOW_SKIPS, FLAG_QUIET, FLAG_VERBOSE, FLAG_HELP, FLAG_VERSION, FLAG_COUNT };

/* The command line being read. */
struct parse {
    struct options *out;
    struct request request;
    char *list[MAX_CASE_KEYS + 1]; /* copies of the lists, cut at commas; the last is --part's */
    bool flag[FLAG_COUNT];
    const char *typed[MAX_OPTIONS]; /* values, by row; NULL: not given */
    const char *unlike_probe;       /* the first option that probe does not take; NULL: none */
};

enum {
    REPEATABLE = 1,
    OF_PROBE = 2, /* probe takes it too */
    IN_REPRO = 4  /* changes what a case does without being a key of it: the repro line needs it */
};
struct option_row {
    const char *name;
    char letter; /* 0: none */
    int traits;
    const char *argument; /* NULL: a flag */
    int sets;             /* a key for apply_key, an enum flag for apply_flag; else -1 */
    struct status (*apply)(struct parse *parse, const struct option_row *row,
                           const char *value); /* a flag: NULL */
    const char *help;                          /* NULL: the key's */
};

/* Cuts "a,b,c" in place; empty and repeated values are errors. */
static struct status split_list(const char *option, const char *typed, char **copy, struct value_list *out) {
    out->typed = typed;
    *copy = strdup(typed);
    if (!*copy) return status_error("--%s: out of memory", option);
    for (char *at = *copy;; at++) {
        if (out->n == MAX_LIST) return status_error("--%s: a list has at most %d values", option, MAX_LIST);
        out->value[out->n++] = at;
        at += strcspn(at, ",");
        const bool last = !*at;
        *at = 0;
        const char *value = out->value[out->n - 1];
        if (!*value) return status_error("--%s '%.60s': a value is empty", option, typed);
        for (int i = 0; i < out->n - 1; i++)
            if (!strcmp(out->value[i], value))
                return status_error("--%s %.60s: %.40s stands there twice", option, typed, value);
        if (last) return status_ok();
    }
}

static struct status apply_key(struct parse *parse, const struct option_row *row, const char *value) {
    struct value_list *list = &parse->request.key[row->sets];
    const struct case_label label = case_label(NULL, row->sets);
    struct check_case scratch = case_defaults();
    TRY(split_list(row->name, value, &parse->list[row->sets], list));
    for (int i = 0; i < list->n; i++) TRY(case_set(&scratch, label.text, row->name, list->value[i]));
    return status_ok();
}

static struct status apply_part(struct parse *parse, const struct option_row *row, const char *value) {
    struct value_list list = {0};
    TRY(split_list(row->name, value, &parse->list[MAX_CASE_KEYS], &list));
    for (int i = 0; i < list.n; i++) {
        enum part part;
        if (!part_by_name(list.value[i], &part))
            return status_error("--part %.48s: use %s or %s", list.value[i], part_name(PART_ATTENTION),
                                part_name(PART_FFN));
        parse->request.part[part] = true;
    }
    parse->request.part_given = true;
    return status_ok();
}

static struct status apply_kernel(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    char key[96], label[112];
    struct check_case scratch = case_defaults();
    const char *equals = strchr(value, '=');
    if (!equals || equals == value || equals - value > 64)
        return status_error("--kernel %.60s: use STAGE=NAME, see shardcheck list stages and list kernels",
                            value);
    snprintf(key, sizeof key, "kernel.%.*s", (int)(equals - value), value);
    snprintf(label, sizeof label, "--kernel %.*s=", (int)(equals - value), value);
    TRY(case_set(&scratch, label, key, equals + 1));
    for (int s = 0; s < S_COUNT; s++) {
        if (!scratch.kernel[s]) continue;
        if (parse->request.kernel[s])
            return status_error("--kernel %.60s: stage %s is given twice", value, stage_table[s].name);
        parse->request.kernel[s] = scratch.kernel[s];
    }
    return status_ok();
}

static struct status apply_fixture(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->run.fixture_path = value;
    return status_ok();
}

static struct status apply_dump(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->run.dump_path = value;
    return status_ok();
}

static struct status apply_mutant(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    parse->out->run.mutant = mutant_by_name(value);
    if (parse->out->run.mutant) return status_ok();
    struct choices choices = {0};
    char text[300];
    for (const struct mutant *m = mutant_table; m->name; m++) choices_add(&choices, "%s", m->name);
    choices_text(&choices, value, text, sizeof text);
    return status_error("--mutant %.48s: no such mutant; use %s", value, text);
}

static struct status apply_schedules(struct parse *parse, const struct option_row *row, const char *value) {
    char *end;
    const long n = strtol(value, &end, 10);
    if (*end || end == value || n < 1 || n > MAX_SCHEDULES)
        return status_error("--%s %.40s: use an integer from 1 to %d", row->name, value, MAX_SCHEDULES);
    parse->out->run.schedules = (int)n;
    return status_ok();
}

static struct status apply_report(struct parse *parse, const struct option_row *row, const char *value) {
    (void)row;
    char name[32], text[200];
    struct options *out = parse->out;
    const char *colon = strchr(value, ':');
    snprintf(name, sizeof name, "%.*s", colon ? (int)(colon - value) : (int)strlen(value), value);
    const struct report_format *format = report_by_name(name);
    if (!format) {
        struct choices choices = {0};
        for (const struct report_format *f = report_formats; f->name; f++)
            choices_add(&choices, "%s", f->name);
        choices_text(&choices, name, text, sizeof text);
        return status_error("--report %.48s: no such format; use %s, then :FILE for a file", value, text);
    }
    if (colon && !colon[1]) return status_error("--report %s: names no file; use %s:FILE", value, name);
    const char *path = colon && strcmp(colon + 1, "-") ? colon + 1 : NULL;
    for (int i = 0; i < out->n_reports; i++) {
        const char *other = out->report[i].path;
        if (!path && !other)
            return status_error("--report %.60s: two reports to standard output; use %s:FILE", value, name);
        if (path && other && !strcmp(path, other))
            return status_error("--report %.160s: two reports to one file; use another", value);
    }
    if (out->n_reports == MAX_REPORTS - 1)
        return status_error("--report %.60s: at most %d reports", value, MAX_REPORTS - 1);
    out->report[out->n_reports++] = (struct report_target){format, path};
    return status_ok();
}

static struct status apply_flag(struct parse *parse, const struct option_row *row, const char *value) {
    (void)value;
    parse->flag[row->sets] = true;
    return status_ok();
}

/* Besides the keys of a case, which come first. */
static const struct option_row option_table[] = {
    {"part", 0, 0, "NAME,...", -1, apply_part, "attention or ffn; default both"},
    {"kernel", 0, REPEATABLE, "STAGE=NAME", -1, apply_kernel, "the kernel of one stage; repeatable"},
    {"fixture", 0, IN_REPRO, "FILE", -1, apply_fixture,
     "weights and activations of an HDF5 file; brings its own model"},
    {"dump", 0, 0, "FILE", -1, apply_dump,
     "write what the unsharded run read and stored as an HDF5 file that --fixture reads"},
    {"schedules", 0, IN_REPRO, "N", -1, apply_schedules,
     "run every launch in N orders of its threads, all with the same bits; host only; default 1"},
    {"mutant", 0, IN_REPRO, "NAME", -1, apply_mutant, "seed a known mistake and see it caught"},
    {"report", 0, REPEATABLE, "FORMAT[:FILE]", -1, apply_report,
     "repeatable; text goes to standard output unless another report does"},
    {"allow-skips", 0, 0, NULL, FLAG_ALLOW_SKIPS, apply_flag, "exit 0 although cases were skipped"},
    {"quiet", 'q', 0, NULL, FLAG_QUIET, apply_flag, "only failures and the last line"},
    {"verbose", 'v', 0, NULL, FLAG_VERBOSE, apply_flag, "a table of the stages of every case"},
    {"help", 'h', OF_PROBE, NULL, FLAG_HELP, apply_flag, "this text"},
    {"version", 0, OF_PROBE, NULL, FLAG_VERSION, apply_flag, "print the version"},
};
enum { N_OWN = sizeof option_table / sizeof *option_table };
_Static_assert((int)N_OWN + (int)MAX_CASE_KEYS <= (int)MAX_OPTIONS, "room for what was typed");

/* Option i of all; false: there are fewer. */
static bool option_at(int i, struct option_row *out) {
    int n_keys = 0;
    while (n_keys < i && case_keys[n_keys].name) n_keys++;
    if (case_keys[n_keys].name) {
        *out = (struct option_row){.name = case_keys[i].name,
                                   .traits = i == CASE_KEY(device) ? OF_PROBE : 0,
                                   .argument = case_keys[i].value ? "NAME,..." : "N,...",
                                   .sets = i,
                                   .apply = apply_key};
        return true;
    }
    if (i - n_keys >= N_OWN) return false;
    *out = option_table[i - n_keys];
    return true;
}

/* ---- reading argv ---- */

/* Returns its number; -1: no such option. */
static int option_by_text(const char *text, size_t length, struct option_row *row) {
    for (int i = 0; option_at(i, row); i++) {
        if (length == 2 && row->letter && text[1] == row->letter) return i;
        if (length > 2 && text[1] == '-' && strlen(row->name) == length - 2 &&
            !strncmp(text + 2, row->name, length - 2))
            return i;
    }
    return -1;
}

static struct status unknown_option(const char *text, size_t length) {
    struct choices choices = {0};
    char typed[48], valid[400];
    snprintf(typed, sizeof typed, "%.*s", (int)(length < 40 ? length : 40), text);
    struct option_row row;
    for (int i = 0; option_at(i, &row); i++) choices_add(&choices, "--%s", row.name);
    choices_text(&choices, typed, valid, sizeof valid);
    return status_error("%s: no such option; use %s", typed, valid);
}

/* One option and its value; *used counts the arguments taken. */
static struct status read_option(struct parse *parse, int argc, char **argv, int *used, bool *seen) {
    const char *text = argv[0];
    const size_t length = strcspn(text, "=");
    struct option_row row;
    const int at = option_by_text(text, length, &row);
    const char *value = text[length] ? text + length + 1 : NULL;
    *used = 1;
    if (at < 0) return unknown_option(text, length);
    if (seen[at] && !(row.traits & REPEATABLE))
        return status_error("--%s: given twice; use %s", row.name,
                            row.argument ? "a list or one of them" : "it once");
    seen[at] = true;
    if (!(row.traits & OF_PROBE) && !parse->unlike_probe) parse->unlike_probe = row.name;
    if (!row.argument && value)
        return status_error("--%s: takes no value; leave '=%.40s' out", row.name, value);
    if (row.argument && !value) {
        if (argc < 2) return status_error("--%s: needs a value, --%s %s", row.name, row.name, row.argument);
        value = argv[1];
        *used = 2;
    }
    if (value && !*value)
        return status_error("--%s: the value is empty, use --%s %s", row.name, row.name, row.argument);
    parse->typed[at] = value;
    return row.apply(parse, &row, value);
}

static struct status read_arguments(struct parse *parse, int argc, char **argv) {
    bool seen[MAX_OPTIONS] = {false}, only_subjects = false;
    for (int i = 0; i < argc;) {
        if (!only_subjects && !strcmp(argv[i], "--")) {
            only_subjects = true;
            i++;
        } else if (!only_subjects && argv[i][0] == '-' && argv[i][1]) {
            int used;
            TRY(read_option(parse, argc - i, argv + i, &used, seen));
            i += used;
        } else {
            parse->request.subject[parse->request.n_subjects++] = argv[i++];
        }
    }
    if (parse->flag[FLAG_QUIET] && parse->flag[FLAG_VERBOSE])
        return status_error("--quiet and --verbose exclude each other; use one");
    return status_ok();
}

/* A GPU orders its threads itself. */
static struct status check_schedules(struct run_request *run) {
    for (int64_t i = 0; i < run->n_cases && run->schedules; i++)
        if (run->cases[i].device != DEVICE_HOST)
            return status_error(
                "--schedules %d: only the host device runs threads in a chosen order; use --device host "
                "or leave --schedules out",
                run->schedules);
    if (!run->schedules) run->schedules = 1;
    return status_ok();
}

static bool plain_word(const char *word) {
    return !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")];
}

static void compose_repro(struct parse *parse) {
    struct options *const out = parse->out;
    const size_t size = sizeof out->repro;
    size_t n = 0;
    struct option_row row;
    for (int i = 0; option_at(i, &row) && n + 100 < size; i++) {
        const char *const value = parse->typed[i];
        if (!(row.traits & IN_REPRO) || !value) continue;
        n += (size_t)snprintf(out->repro + n, size - n, " --%s ", row.name);
        if (plain_word(value))
            n += (size_t)snprintf(out->repro + n, size - n, "%.60s", value);
        else
            n += quote_for_shell(out->repro + n, size - n, value);
    }
    out->run.repro = out->repro;
}

static struct status parse_run(struct parse *parse) {
    struct options *out = parse->out;
    bool to_stdout = false;
    out->command = COMMAND_RUN;
    out->allow_skips = parse->flag[FLAG_ALLOW_SKIPS];
    out->verbosity = parse->flag[FLAG_QUIET] ? -1 : parse->flag[FLAG_VERBOSE] ? 1 : 0;
    for (int i = 0; i < out->n_reports; i++) to_stdout |= out->report[i].path == NULL;
    if (!to_stdout) out->report[out->n_reports++] = (struct report_target){&report_formats[0], NULL};
    TRY(request_expand(&parse->request, out));
    TRY(check_schedules(&out->run));
    compose_repro(parse);
    return status_ok();
}

static struct status parse_list(struct parse *parse) {
    const struct request *request = &parse->request;
    parse->out->command = COMMAND_LIST;
    if (request->n_subjects == 1) parse->out->list_what = request->subject[0];
    if (request->n_subjects <= 1) return options_list_check(parse->out->list_what);
    return status_error("list %.60s: one thing at a time", request->subject[1]);
}

static struct status parse_probe(struct parse *parse) {
    struct check_case scratch = case_defaults();
    const struct value_list *const device = &parse->request.key[CASE_KEY(device)];
    parse->out->command = COMMAND_PROBE;
    if (parse->unlike_probe)
        return status_error("--%s: probe has no such option; use --device", parse->unlike_probe);
    if (parse->request.n_subjects)
        return status_error("probe %.60s: takes no model; use probe --device NAME",
                            parse->request.subject[0]);
    if (device->n > 1)
        return status_error("--device %.60s: probe measures one device; use one name", device->typed);
    if (device->n) TRY(case_set(&scratch, "--device ", "device", device->value[0]));
    parse->out->device = scratch.device;
    return status_ok();
}

static struct status parse_command(struct parse *parse, int argc, char **argv) {
    if (argc < 2) {
        parse->out->command = COMMAND_HELP;
        return status_ok();
    }
    const bool run = !strcmp(argv[1], "run"), list = !strcmp(argv[1], "list"),
               probe = !strcmp(argv[1], "probe");
    if (!run && !list && !probe && argv[1][0] != '-')
        return status_error(
            "%.100s: no such command; use run, list or probe, as in: shardcheck run param2-17b", argv[1]);
    const int first = run || list || probe ? 2 : 1;
    TRY(read_arguments(parse, argc - first, argv + first));
    if (parse->flag[FLAG_HELP] || parse->flag[FLAG_VERSION]) {
        parse->out->command = parse->flag[FLAG_HELP] ? COMMAND_HELP : COMMAND_VERSION;
        return status_ok();
    }
    if (run) return parse_run(parse);
    if (list) return parse_list(parse);
    if (probe) return parse_probe(parse);
    return status_error("%.60s: no command given; use run, list or probe before it", argv[1]);
}

struct status options_parse(int argc, char **argv, struct options *out) {
    *out = (struct options){0};
    struct parse parse = {.out = out};
    parse.request.subject = calloc((size_t)argc + 1, sizeof *parse.request.subject);
    const struct status status =
        parse.request.subject ? parse_command(&parse, argc, argv) : status_error("out of memory; free some");
    free(parse.request.subject);
    for (int k = 0; k <= MAX_CASE_KEYS; k++) free(parse.list[k]);
    if (status.code) options_free(out);
    return status;
}

void options_free(struct options *options) {
    free((void *)options->run.cases);
    *options = (struct options){0};
}

/* ---- help ---- */

static void print_option(FILE *file, const struct option_row *row) {
    char left[48], letter[8] = "", help[240];
    if (row->letter) snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, row->name, row->argument ? " " : "",
             row->argument ? row->argument : "");
    if (row->help)
        snprintf(help, sizeof help, "%s", row->help);
    else
        case_key_help(row->sets, help, sizeof help);
    fprintf(file, "  %-24s%s", left, help);
    if (row->apply == apply_report)
        for (const struct report_format *f = report_formats; f->name; f++)
            fprintf(file, "%s%s%s", f == report_formats ? " (" : ", ", f->name, f[1].name ? "" : ")");
    fputc('\n', file);
}

void options_print_help(FILE *file) {
    fputs("shardcheck - does every rank of a tensor-parallel layer compute its part of the unsharded layer?\n"
          "\n"
          "  shardcheck run [MODEL | CASE...]   check; MODEL is a preset or a path to a config.json\n"
          "  shardcheck list WHAT               ",
          file);
    options_print_list_names(file);
    fprintf(file,
            "\n  shardcheck probe [--device NAME]   measure the functions whose errors the kernels' "
            "contracts assume\n"
            "\nCASE is MODEL[/PART][:key=value,...], as printed in every report. Without MODEL: %s.\n"
            "Lists multiply; every option that takes one is a key of the case.\n\noptions of run:\n",
            model_preset_names()[0]);
    struct option_row row;
    for (int i = 0; option_at(i, &row); i++) print_option(file, &row);
    fputs("\nexit status: 0 every case passed, 1 a defect was found, 2 it could not run as asked\n", file);
}
