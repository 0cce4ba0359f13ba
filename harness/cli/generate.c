/* What do other programs have to know of the command line?  A manual page, and completion for bash and
 * zsh, written from the rows that also drive reading and --help. */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli/commands.h"

/* ---- completion ---- */

static void print_words(FILE *file, const struct choices *choices) {
    for (int i = 0; i < choices->n; i++) fprintf(file, "%s%s", i ? " " : "", choices->name[i]);
}

/* "bash": what may follow each option, and each command. A file or a number: nothing is proposed, and
 * the shell completes names of files. */
static void write_bash(FILE *file) {
    struct choices choices;
    struct option_row row;
    fputs("# bash completion of shardcheck, written by: shardcheck generate bash\n"
          "_shardcheck() {\n"
          "    local words= current=${COMP_WORDS[COMP_CWORD]}\n"
          "    case $COMP_CWORD:${COMP_WORDS[1]}:${COMP_WORDS[COMP_CWORD-1]} in\n"
          "    1:*) words='",
          file);
    for (const struct command *c = command_table; c->name; c++) fprintf(file, "%s ", c->name);
    fputs("--help --version' ;;\n", file);
    for (const struct command *c = command_table; c->name; c++) {
        for (int i = 0; option_at(c, i, &row); i++) {
            if (!row.argument) continue;
            option_values(&row, &choices);
            fprintf(file, "    *:%s:--%s) words='", c->name, row.name);
            print_words(file, &choices);
            fputs("' ;;\n", file);
        }
        fprintf(file, "    *:%s:*) words='", c->name);
        for (int i = 0; option_at(c, i, &row); i++) fprintf(file, "--%s ", row.name);
        choices = (struct choices){0};
        if (c->words) c->words(&choices);
        print_words(file, &choices);
        fputs("' ;;\n", file);
    }
    fputs("    esac\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
          "}\n"
          "complete -o default -F _shardcheck shardcheck\n",
          file);
}

/* In single quotes, where ':' divides a word from what it means. */
static void print_zsh_item(FILE *file, const char *before, const char *word, const char *meaning) {
    fprintf(file, " '%s%s:", before, word);
    for (const char *at = meaning; *at; at++)
        if (*at == '\'')
            fputs("'\\''", file);
        else
            fputc(*at, file);
    fputc('\'', file);
}

static void write_zsh(FILE *file) {
    struct choices choices;
    struct option_row row;
    char help[440];
    fputs("#compdef shardcheck\n"
          "# zsh completion of shardcheck, written by: shardcheck generate zsh\n"
          "_shardcheck() {\n"
          "    local -a items\n"
          "    case $CURRENT:${words[2]}:${words[CURRENT-1]} in\n"
          "    2:*) items=(",
          file);
    for (const struct command *c = command_table; c->name; c++)
        print_zsh_item(file, "", c->name, c->describes);
    fputs(")\n        _describe command items ;;\n", file);
    for (const struct command *c = command_table; c->name; c++) {
        for (int i = 0; option_at(c, i, &row); i++) {
            if (!row.argument) continue;
            option_values(&row, &choices);
            fprintf(file, "    *:%s:--%s) %s", c->name, row.name, choices.n ? "compadd -- " : "_files");
            print_words(file, &choices);
            fputs(" ;;\n", file);
        }
        fprintf(file, "    *:%s:*) items=(", c->name);
        for (int i = 0; option_at(c, i, &row); i++) {
            option_help(&row, help, sizeof help);
            print_zsh_item(file, "--", row.name, help);
        }
        fputs(")\n        _describe -o option items\n        compadd -- ", file);
        choices = (struct choices){0};
        if (c->words) c->words(&choices);
        print_words(file, &choices);
        fputs("\n        _files ;;\n", file);
    }
    fputs("    esac\n}\n"
          "if [ \"$funcstack[1]\" = _shardcheck ]; then _shardcheck \"$@\"; else compdef _shardcheck "
          "shardcheck; fi\n",
          file);
}

/* ---- the manual page ---- */

/* A '-' is to be a minus, and no line a request. */
static void print_roff(FILE *file, const char *text) {
    bool begins = true;
    for (const char *at = text; *at; at++) {
        if (begins && (*at == '.' || *at == '\'')) fputs("\\&", file);
        if (*at == '\\')
            fputs("\\e", file);
        else if (*at == '-')
            fputs("\\-", file);
        else
            fputc(*at, file);
        begins = *at == '\n';
    }
}

static void print_roff_option(FILE *file, const struct option_row *row) {
    char help[440];
    fputs(".TP\n\\fB", file);
    if (row->letter) fprintf(file, "\\-%c\\fR, \\fB", row->letter);
    fputs("\\-\\-", file);
    print_roff(file, row->name);
    fputs("\\fR", file);
    if (row->argument) fputs(" \\fI", file);
    if (row->argument) print_roff(file, row->argument);
    fputs(row->argument ? "\\fR\n" : "\n", file);
    option_help(row, help, sizeof help);
    print_roff(file, help);
    fputc('\n', file);
}

/* What a command says of itself is written to files only. */
static void print_roff_explanation(FILE *file, const struct command *command) {
    char *text = NULL;
    size_t size = 0;
    FILE *const stream = command->explain ? open_memstream(&text, &size) : NULL;
    if (stream) command->explain(stream);
    if (stream && !fclose(stream)) {
        fputs(".PP\n", file);
        print_roff(file, text);
    }
    free(text);
}

static void write_man(FILE *file) {
    struct option_row row;
    fputs(".TH SHARDCHECK 1 \"\" \"shardcheck " SHARDCHECK_VERSION "\"\n"
          ".SH NAME\nshardcheck \\- does every rank of a tensor\\-parallel layer compute its part?\n"
          ".SH SYNOPSIS\n",
          file);
    for (const struct command *c = command_table; c->name; c++) {
        fprintf(file, ".B shardcheck %s\n", c->name);
        if (c->usage) print_roff(file, c->usage);
        fputs("\n.br\n", file);
    }
    for (const struct command *c = command_table; c->name; c++) {
        fprintf(file, ".SH \"shardcheck %s\"\n", c->name);
        print_roff(file, c->describes);
        fputs(".\n", file);
        print_roff_explanation(file, c);
        for (int i = 0; option_at(c, i, &row); i++) print_roff_option(file, &row);
    }
    fputs(".SH \"EXIT STATUS\"\n0: every case passed; 1: a defect was found; 2: it could not run as asked.\n"
          ".SH ENVIRONMENT\n.TP\nNO_COLOR\nNot empty: no colours on a terminal.\n",
          file);
}

/* ---- the command ---- */

static const struct {
    const char *name, *describes;
    void (*write)(FILE *file);
} generated[] = {
    {"man", "a manual page, as in shardcheck generate man | man -l -", write_man},
    {"bash", "completion, as in source <(shardcheck generate bash)", write_bash},
    {"zsh", "completion, as in source <(shardcheck generate zsh), after compinit", write_zsh},
};
enum { N_GENERATED = sizeof generated / sizeof *generated };

void generate_values(struct choices *choices) {
    for (int i = 0; i < N_GENERATED; i++) choices_add(choices, "%s", generated[i].name);
}

void generate_explain(FILE *file) {
    for (int i = 0; i < N_GENERATED; i++)
        fprintf(file, "%s: %s.\n", generated[i].name, generated[i].describes);
}

static int generated_by_name(const char *name) {
    for (int i = 0; name && i < N_GENERATED; i++)
        if (!strcmp(generated[i].name, name)) return i;
    return -1;
}

struct status generate_parse(struct parse *parse) {
    const struct request *const words = &parse->request;
    const char *const what = words->n_subjects ? words->subject[0] : NULL;
    struct choices choices = {0};
    char text[100];
    if (words->n_subjects > 1) return status_error("generate %.60s: one thing at a time", words->subject[1]);
    parse->out->list_what = what;
    if (generated_by_name(what) >= 0) return status_ok();
    generate_values(&choices);
    choices_text(&choices, what, text, sizeof text);
    return what ? status_error("generate %.48s: no such thing; use %s", what, text)
                : status_error("generate: what? use %s", text);
}

struct status generate_run(const struct options *options, enum exit_code *code) {
    (void)code;
    generated[generated_by_name(options->list_what)].write(stdout);
    return status_ok();
}
