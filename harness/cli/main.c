/* main - arguments become options, and the row of the command does what they say. Exit: 0 every
 * case passed, 1 a defect was found, 2 it could not run as asked (usage, bad input, missing device,
 * a skipped case without --allow-skips). */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "harness/cli/commands.h"

int main(int argc, char **argv) {
    struct options options;
    enum exit_code code = EXIT_PASSED;
    struct status s = options_parse(argc, argv, &options);
    if (!s.code) s = options.command->run(&options, &code);
    options_free(&options);
    if (!s.code) return code;
    fprintf(stderr, "shardcheck: %s\n", s.message);
    return EXIT_TROUBLE;
}
