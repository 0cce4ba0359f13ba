/* Any lines as the words of a command line: options whose cases are read back, or one clean line.
 * Parsing reads files that are named, and writes none. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/commands.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_WORDS = 64 };

static void check_cases(const struct run_request *run) {
    static char line[CASE_LINE];
    for (int64_t i = 0; i < run->n_cases; i++) {
        struct check_case back;
        bool has_part;
        case_print(&run->cases[i], line, sizeof line);
        FUZZ_CHECK(!case_parse(line, &back, &has_part).code && !strcmp(back.model, run->cases[i].model));
    }
}

void fuzz_options(const uint8_t *data, size_t n) {
    static struct options options;
    char *const text = fuzz_text(data, n);
    char *words[MAX_WORDS + 1] = {(char[]){"shardcheck"}}, *rest = text;
    int n_words = 1;
    while (rest && n_words < MAX_WORDS) words[n_words++] = strsep(&rest, "\n");
    const struct status s = options_parse(n_words, words, &options);
    if (s.code) {
        fuzz_check_refusal(&s);
    } else {
        FUZZ_CHECK(options.command && line_is_clean(options.typed));
        FUZZ_CHECK(!options.repro || line_is_clean(options.repro));
        check_cases(&options.run);
        options_free(&options);
    }
    free(text);
}
