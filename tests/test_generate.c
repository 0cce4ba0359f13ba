/* Do the manual page and the completions know every command and option, and do the programs that they
 * are for accept them? Runs the binary named by the environment variable SHARDCHECK. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "harness/cli/commands.h"

/* What a command of sh prints, cut; its exit status. */
static char said[1 << 17];
static int sh(const char *command) {
    FILE *const pipe = popen(command, "r");
    cr_assert(pipe);
    said[fread(said, 1, sizeof said - 1, pipe)] = 0;
    const int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool has_program(const char *name) {
    char command[100];
    snprintf(command, sizeof command, "command -v %s >/dev/null", name);
    return sh(command) == 0;
}

TestSuite(generate);

Test(generate, all_of_them_know_every_command_and_every_option) {
    static const struct {
        const char *what, *dash;
    } rows[] = {{"man", "\\-\\-"}, {"bash", "--"}, {"zsh", "--"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char command[100], word[100];
        struct option_row row;
        snprintf(command, sizeof command, "\"$SHARDCHECK\" generate %s", rows[i].what);
        cr_assert_eq(sh(command), 0);
        for (const struct command *c = command_table; c->name; c++) {
            cr_expect(strstr(said, c->name), "%s: %s", rows[i].what, c->name);
            for (int k = 0; option_at(c, k, &row); k++) {
                size_t n = (size_t)snprintf(word, sizeof word, "%s", rows[i].dash);
                for (const char *at = row.name; *at; at++) { /* in a manual page each '-' has a backslash */
                    if (*at == '-' && i == 0) word[n++] = '\\';
                    word[n++] = *at;
                }
                word[n] = 0;
                cr_expect(strstr(said, word), "%s: %s %s", rows[i].what, c->name, word);
            }
        }
    }
}

/* The completion of the last word of a line. */
static const char *completed(const char *words, int last) {
    static char command[400];
    snprintf(command, sizeof command,
             "bash -c 'source <(\"$SHARDCHECK\" generate bash); COMP_WORDS=(%s) COMP_CWORD=%d; _shardcheck; "
             "echo \"${COMPREPLY[*]}\"'",
             words, last);
    cr_assert_eq(sh(command), 0, "%s", command);
    said[strcspn(said, "\n")] = 0;
    return said;
}

Test(generate, bash_completes_commands_options_and_their_values) {
    cr_expect_str_eq(completed("shardcheck mut", 1), "mutants");
    cr_expect_str_eq(completed("shardcheck run --phase de", 3), "decode");
    cr_expect_str_eq(completed("shardcheck run tiny --mutant packed", 4), "packed-view");
    cr_expect_str_eq(completed("shardcheck run --part \"\"", 3), "attention ffn");
    cr_expect_str_eq(completed("shardcheck run tiny --sch", 3), "--schedules");
    cr_expect_str_eq(completed("shardcheck list dev", 2), "devices");
    cr_expect_str_eq(completed("shardcheck run --fixture f", 3), "", "names of files are the shell's");
    cr_expect_str_eq(completed("shardcheck probe --ph", 2), "", "an option of another command");
}

Test(generate, what_is_written_is_accepted_by_those_who_read_it_where_they_are) {
    static const struct {
        const char *program, *command;
    } rows[] = {{"bash", "\"$SHARDCHECK\" generate bash | bash -n 2>&1"},
                {"zsh", "\"$SHARDCHECK\" generate zsh | zsh -n 2>&1"},
                {"groff", "\"$SHARDCHECK\" generate man | groff -man -ww -z 2>&1"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!has_program(rows[i].program)) {
            printf("not run: no %s\n", rows[i].program);
            continue;
        }
        cr_expect_eq(sh(rows[i].command), 0, "%s", said);
        cr_expect_str_eq(said, "", "%s", rows[i].program);
    }
}

Test(generate, nothing_else_is_written) {
    cr_expect_eq(sh("\"$SHARDCHECK\" generate fish 2>&1"), 2);
    cr_expect(strstr(said, "generate fish: no such thing; use bash, zsh or man"), "%s", said);
    cr_expect_eq(sh("\"$SHARDCHECK\" generate 2>&1"), 2);
    cr_expect(strstr(said, "generate: what? use man, bash or zsh"), "%s", said);
    cr_expect_eq(sh("\"$SHARDCHECK\" generate man bash 2>&1"), 2);
}
