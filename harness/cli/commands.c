/* What can the program do, and how does it say so?  The table of commands, and the two that speak
 * of the program itself. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/commands.h"

#include <string.h>

#include "layer/choices.h"

static void command_values(struct choices *choices);
static struct status help_parse(struct parse *parse);
static struct status help_run(const struct options *options, enum exit_code *code);
static struct status version_parse(struct parse *parse);
static struct status version_run(const struct options *options, enum exit_code *code);

const struct command command_table[] = {
    {.name = "run",
     .usage = "[MODEL | CASE...]",
     .describes = "check; MODEL is a preset, a config.json or a Hugging Face folder",
     .options = check_options,
     .takes_keys = true,
     .words = model_values,
     .parse = check_parse,
     .run = check_run,
     .explain = check_explain},
    {.name = "judge",
     .usage = "[--model DIR] DUMP...",
     .describes = "check what another program's run stored on every rank",
     .options = judge_options,
     .shares = check_options,
     .parse = judge_parse,
     .run = judge_run,
     .explain = judge_explain},
    {.name = "compare",
     .usage = "A B",
     .describes = "what changed from one report to another; worst first",
     .options = compare_options,
     .parse = compare_parse,
     .run = compare_run,
     .explain = compare_explain},
    {.name = "list",
     .usage = "WHAT [FILE]",
     .describes = "print a table of what there is",
     .words = list_values,
     .parse = list_parse,
     .run = list_run,
     .explain = list_explain},
    {.name = "probe",
     .usage = "[--device NAME]",
     .describes = "measure the functions whose errors the kernels' contracts assume",
     .options = probe_options,
     .parse = probe_parse,
     .run = probe_run},
    {.name = "bench",
     .usage = "[SHAPE | KERNEL...]",
     .describes = "time the kernels, after they were found right",
     .options = bench_options,
     .words = bench_words,
     .parse = bench_parse,
     .run = bench_command,
     .explain = bench_explain},
    {.name = "mutants",
     .usage = "[NAME...]",
     .describes = "seed every known mistake, and see what finds it",
     .options = mutants_options,
     .words = mutant_values,
     .parse = mutants_parse,
     .run = mutants_run},
    {.name = "generate",
     .usage = "WHAT",
     .describes = "print a manual page, or what completes command lines in a shell",
     .words = generate_values,
     .parse = generate_parse,
     .run = generate_run,
     .explain = generate_explain},
    {.name = "help",
     .usage = "[COMMAND]",
     .words = command_values,
     .describes = "print this text, or that of a command",
     .parse = help_parse,
     .run = help_run},
    {.name = "version", .describes = "print the version", .parse = version_parse, .run = version_run},
    {0},
};

const struct command *command_by_name(const char *name) {
    for (const struct command *c = command_table; c->name; c++)
        if (!strcmp(c->name, name)) return c;
    return NULL;
}

static void command_values(struct choices *choices) {
    for (const struct command *c = command_table; c->name; c++) choices_add(choices, "%s", c->name);
}

void command_choices(const char *typed, char *text, size_t size) {
    struct choices choices = {0};
    command_values(&choices);
    choices_text(&choices, typed, text, size);
}

/* ---- help ---- */

static void print_usage(FILE *file, const struct command *command) {
    char left[64];
    snprintf(left, sizeof left, "shardcheck %s %s", command->name, command->usage ? command->usage : "");
    fprintf(file, "  %-34s %s\n", left, command->describes);
}

/* Of all commands: the options of the first, which is what the program is for. */
void help_print(FILE *file, const struct command *topic) {
    const struct command *const detailed = topic ? topic : command_table;
    if (!topic)
        fputs("shardcheck - does every rank of a tensor-parallel layer compute its part of the unsharded "
              "layer?\n\n",
              file);
    for (const struct command *c = command_table; c->name; c++)
        if (!topic || c == topic) print_usage(file, c);
    fputc('\n', file);
    for (const struct command *c = command_table; c->name; c++)
        if (c->explain && (!topic || c == topic)) c->explain(file);
    fprintf(file, "%soptions of %s:\n", detailed->explain ? "\n" : "", detailed->name);
    options_print(file, detailed);
    fputs("\nexit status: 0 every case passed, 1 a defect was found, 2 it could not run as asked\n", file);
}

static struct status help_parse(struct parse *parse) {
    const struct request *const words = &parse->request;
    char text[200];
    if (words->n_subjects > 1) return status_error("help %.60s: one command at a time", words->subject[1]);
    if (words->n_subjects == 0) return status_ok();
    parse->out->topic = command_by_name(words->subject[0]);
    if (parse->out->topic) return status_ok();
    command_choices(words->subject[0], text, sizeof text);
    return status_error("help %.60s: no such command; use %s", words->subject[0], text);
}

static struct status help_run(const struct options *options, enum exit_code *code) {
    (void)code;
    help_print(stdout, options->topic);
    return status_ok();
}

static struct status version_parse(struct parse *parse) {
    if (!parse->request.n_subjects) return status_ok();
    return status_error("version %.60s: takes nothing; leave it out", parse->request.subject[0]);
}

static struct status version_run(const struct options *options, enum exit_code *code) {
    (void)options, (void)code;
    printf("shardcheck %s\n", SHARDCHECK_VERSION);
    return status_ok();
}
