/* What was typed?  The rows of a command's options, and a row for every key of a case where it
 * takes them, drive reading, --help and the errors. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/options.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"
#include "layer/choices.h"
#include "layer/line.h"

struct status option_split(const char *option, const char *typed, char **copy, struct value_list *out) {
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
    TRY(option_split(row->name, value, &parse->list[row->sets], list));
    for (int i = 0; i < list->n; i++) TRY(case_set(&scratch, label.text, row->name, list->value[i]));
    return status_ok();
}

/* The command of the option's name, with this one as its topic. */
static struct status apply_instead(struct parse *parse, const struct option_row *row, const char *value) {
    (void)value;
    if (!parse->instead) parse->instead = command_by_name(row->name);
    return status_ok();
}

static const struct option_row common_options[] = {
    {"help", 'h', 0, NULL, -1, apply_instead, "this text", NULL},
    {"version", 0, 0, NULL, -1, apply_instead, "print the version", NULL},
    {0},
};

static struct option_row key_option(int key) {
    return (struct option_row){.name = case_keys[key].name,
                               .argument = case_keys[key].value ? "NAME,..." : "N,...",
                               .sets = key,
                               .apply = apply_key};
}

/* The next i rows of a table, if it has as many; else i less its rows. */
static const struct option_row *row_of(const struct option_row *table, int *i) {
    for (const struct option_row *row = table; row && row->name; row++)
        if ((*i)-- == 0) return row;
    return NULL;
}

bool option_at(const struct command *command, int i, struct option_row *out) {
    for (int key = 0; command->takes_keys && case_keys[key].name; key++)
        if (i-- == 0) return *out = key_option(key), true;
    const struct option_row *row = row_of(command->options, &i);
    for (const struct option_row *also = command->shares; !row && also && also->name; also++)
        if (also->traits & SHARED && i-- == 0) row = also;
    if (!row) row = row_of(common_options, &i);
    if (row) *out = *row;
    return row != NULL;
}

/* ---- reading argv ---- */

/* Returns its number; -1: no such option. */
static int option_by_text(const struct command *command, const char *text, size_t length,
                          struct option_row *row) {
    for (int i = 0; option_at(command, i, row); i++) {
        if (length == 2 && row->letter && text[1] == row->letter) return i;
        if (length > 2 && text[1] == '-' && strlen(row->name) == length - 2 &&
            !strncmp(text + 2, row->name, length - 2))
            return i;
    }
    return -1;
}

static struct status unknown_option(const struct parse *parse, const char *text, size_t length) {
    struct choices choices = {0};
    struct option_row row;
    char typed[48], valid[400];
    snprintf(typed, sizeof typed, "%.*s", (int)(length < 40 ? length : 40), text);
    if (!parse->named) {
        command_choices(NULL, valid, sizeof valid);
        return status_error("%s: no command given; use %s before it", typed, valid);
    }
    for (int i = 0; option_at(parse->command, i, &row); i++) choices_add(&choices, "--%s", row.name);
    choices_text(&choices, typed, valid, sizeof valid);
    return status_error("%s: %s has no such option; use %s", typed, parse->command->name, valid);
}

/* One option and its value; *used counts the arguments taken. */
static struct status read_option(struct parse *parse, int argc, char **argv, int *used, bool *seen) {
    const char *text = argv[0];
    const size_t length = strcspn(text, "=");
    struct option_row row;
    const int at = option_by_text(parse->command, text, length, &row);
    const char *value = text[length] ? text + length + 1 : NULL;
    *used = 1;
    if (at < 0) return unknown_option(parse, text, length);
    assert(at < MAX_OPTIONS);
    if (seen[at] && !(row.traits & REPEATABLE))
        return status_error("--%s: given twice; use %s", row.name,
                            row.argument ? "a list or one of them" : "it once");
    seen[at] = true;
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
    bool seen[MAX_OPTIONS] = {false}, only_words = false;
    for (int i = 0; i < argc;) {
        if (!only_words && !strcmp(argv[i], "--")) {
            only_words = true;
            i++;
        } else if (!only_words && argv[i][0] == '-' && argv[i][1]) {
            int used;
            TRY(read_option(parse, argc - i, argv + i, &used, seen));
            i += used;
        } else {
            parse->request.subject[parse->request.n_subjects++] = argv[i++];
        }
    }
    return status_ok();
}

static void join_words(int argc, char **argv, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "shardcheck");
    for (int i = 1; i < argc && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, " %s", argv[i]);
    line_finish(text, size, used);
}

/* Without a command there is help; --help and --version stand for the commands of their names. */
static struct status read_command(struct parse *parse, int argc, char **argv) {
    char text[200];
    const struct command *const named = argc > 1 ? command_by_name(argv[1]) : NULL;
    if (argc > 1 && !named && argv[1][0] != '-') {
        command_choices(argv[1], text, sizeof text);
        return status_error("%.100s: no such command; use %s, as in: shardcheck run param2-17b", argv[1],
                            text);
    }
    const int first = named ? 2 : 1;
    parse->named = named != NULL;
    parse->command = named ? named : command_by_name("help");
    if (argc > first) TRY(read_arguments(parse, argc - first, argv + first));
    parse->out->command = parse->instead ? parse->instead : parse->command;
    parse->out->topic = parse->instead ? named : NULL;
    return parse->instead && named ? status_ok() : parse->out->command->parse(parse);
}

struct status options_parse(int argc, char **argv, struct options *out) {
    *out = (struct options){0};
    struct parse parse = {.out = out};
    join_words(argc, argv, out->typed, sizeof out->typed);
    parse.request.subject = calloc((size_t)argc + 1, sizeof *parse.request.subject);
    const struct status status =
        parse.request.subject ? read_command(&parse, argc, argv) : status_error("out of memory; free some");
    free(parse.request.subject);
    for (int k = 0; k < MAX_CASE_KEYS; k++) free(parse.list[k]);
    if (status.code) options_free(out);
    return status;
}

void options_free(struct options *options) {
    free((void *)options->run.cases);
    free(options->repro);
    free(options->judged);
    waivers_free(&options->waivers);
    if (options->baseline) report_read_free(options->baseline);
    free(options->baseline);
    *options = (struct options){0};
}

/* ---- help ---- */

enum { HELP_COLUMN = 27 }; /* where what an option does begins */

void option_values(const struct option_row *row, struct choices *out) {
    *out = (struct choices){0};
    if (row->values) row->values(out);
    const struct case_key *const key = row->apply == apply_key ? &case_keys[row->sets] : NULL;
    for (int i = 0; key && key->value && i < key->n_values; i++)
        if (key->value(i)) choices_add(out, "%s", key->value(i));
}

void option_help(const struct option_row *row, char *text, size_t size) {
    struct choices choices;
    char values[200] = "";
    if (row->help)
        snprintf(text, size, "%s", row->help);
    else
        case_key_help(row->sets, text, size);
    option_values(row, &choices);
    if (row->values && !(row->traits & UNLISTED)) choices_text(&choices, NULL, values, sizeof values);
    const size_t n = strlen(text);
    if (*values) snprintf(text + n, size - n, " (%s)", values);
}

static void print_option(FILE *file, const struct option_row *row) {
    char left[48], letter[8] = "", help[440];
    if (row->letter) snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, row->name, row->argument ? " " : "",
             row->argument ? row->argument : "");
    option_help(row, help, sizeof help);
    fprintf(file, "  %-*s", HELP_COLUMN - 3, left);
    fputc(' ', file);
    report_wrapped(file, HELP_COLUMN, help);
}

static bool is_of_layer(const struct option_row *row) {
    return row->apply == apply_key && case_keys[row->sets].override;
}

void options_print(FILE *file, const struct command *command) {
    struct option_row row;
    for (int i = 0; option_at(command, i, &row); i++)
        if (!is_of_layer(&row)) print_option(file, &row);
    if (!command->takes_keys) return;
    fputs("what the layer is, instead of what its model says (a small twin of it):\n", file);
    for (int i = 0; option_at(command, i, &row); i++)
        if (is_of_layer(&row)) print_option(file, &row);
}

struct status option_count(const struct option_row *row, const char *value, int most, int *out) {
    char *end;
    const long n = strtol(value, &end, 10);
    if (*end || end == value || n < 1 || n > most)
        return status_error("--%s %.40s: use an integer from 1 to %d", row->name, value, most);
    *out = (int)n;
    return status_ok();
}
