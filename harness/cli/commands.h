/* commands - what the program can do, one row a command. The name is looked up, the options are
 * read by their rows, `parse` makes sense of both, `run` does it; help and errors print the
 * rows. */
/* SPDX-License-Identifier: MIT */
#ifndef HARNESS_CLI_COMMANDS_H
#define HARNESS_CLI_COMMANDS_H

#include <stdio.h>

#include "harness/cli/options.h"

enum exit_code {
    EXIT_PASSED,
    EXIT_DEFECT,
    EXIT_TROUBLE /* it could not run as asked: usage, bad input, no such device, a case skipped */
};

struct command {
    const char *name, *usage, *describes;        /* usage: what follows the name; NULL: nothing */
    const struct option_row *options;            /* its own; ended by {0}; NULL: none */
    const struct option_row *shares;             /* and those of this table that are SHARED; NULL: none */
    bool takes_keys;                             /* every key of a case is an option too */
    void (*words)(struct choices *choices);      /* what may follow the name; NULL: nothing that is known */
    struct status (*parse)(struct parse *parse); /* what the words and options mean together */
    struct status (*run)(const struct options *options, enum exit_code *code);
    void (*explain)(FILE *file); /* lines for help; NULL: none */
};
extern const struct command command_table[]; /* ended by {0} */
const struct command *command_by_name(const char *name);
void command_choices(const char *typed, char *text, size_t size); /* "run, list or probe" */

void help_print(FILE *file, const struct command *topic); /* NULL: all commands */

/* ---- run (check.c) ---- */
extern const struct option_row check_options[];
struct status check_parse(struct parse *parse);
struct status check_run(const struct options *options, enum exit_code *code);
void check_explain(FILE *file);
void model_values(struct choices *choices);

/* The text on standard output, where no report was asked for that goes there. */
void choose_reports(struct options *options);

/* ---- judge: what somebody else's run left behind ---- */
extern const struct option_row judge_options[];
struct status judge_parse(struct parse *parse);
struct status judge_run(const struct options *options, enum exit_code *code);
void judge_explain(FILE *file);

/* ---- compare: two files, what has changed ---- */
extern const struct option_row compare_options[];
struct status compare_parse(struct parse *parse);
struct status compare_run(const struct options *options, enum exit_code *code);
void compare_explain(FILE *file);
struct status apply_fail_on(struct parse *parse, const struct option_row *row, const char *value);

/* ---- list ---- */
struct status list_parse(struct parse *parse);
struct status list_run(const struct options *options, enum exit_code *code);
void list_explain(FILE *file);
void list_values(struct choices *choices);
struct status list_print(const char *what, const char *path, FILE *file); /* error: what can be listed */

/* ---- probe: measures the errors that contracts assume of elementary functions ---- */
extern const struct option_row probe_options[];
struct status probe_parse(struct parse *parse);
struct status probe_run(const struct options *options, enum exit_code *code);
struct status apply_device(struct parse *parse, const struct option_row *row, const char *value);
void device_values(struct choices *choices);

/* ---- bench: how fast are the kernels that are right? ---- */
extern const struct option_row bench_options[];
struct status bench_parse(struct parse *parse);
struct status bench_command(const struct options *options, enum exit_code *code);
void bench_explain(FILE *file);
void bench_words(struct choices *choices);
/* Of two JSON reports of it, for compare. */
struct status bench_compare_files(const char *a, const char *b, enum exit_code *code);

/* ---- mutants: is every known mistake caught where it shows, and nowhere else? ---- */
extern const struct option_row mutants_options[];
struct status mutants_parse(struct parse *parse);
struct status mutants_run(const struct options *options, enum exit_code *code);
void mutant_values(struct choices *choices); /* of mistakes that can be made */
/* The row of that name, of a mistake that can be made. The error begins with `label` and the name. */
struct status mutant_find(const char *label, const char *name, const struct mutant **out);

/* ---- generate: files for other programs, from the tables of commands and options ---- */
struct status generate_parse(struct parse *parse);
struct status generate_run(const struct options *options, enum exit_code *code);
void generate_explain(FILE *file);
void generate_values(struct choices *choices);

#endif
