/* Does the program keep its word from outside: exit codes, reports that other programs can parse,
 * reproducers that reproduce? Runs the binary named by the environment variable SHARDCHECK through
 * sh. Its complaints are in test_cli_errors.c. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <ctype.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixtures/model.h"
#include "tests/folder.h"

static void enter(void) {
    folder_enter_with_binary();
    char path[8192];
    snprintf(path, sizeof path, "%s", getenv("SHARDCHECK"));
    char *const slash = strrchr(path, '/');
    cr_assert(slash, "SHARDCHECK must be a path");
    *slash = 0;
    strcat(path, ":");
    strncat(path, getenv("PATH"), sizeof path - strlen(path) - 1);
    setenv("PATH", path, 1);
}

TestSuite(cli, .init = enter, .fini = folder_leave);

struct answer {
    int code;
    char *out, *err;
};

static char *read_all(const char *path) {
    FILE *const file = fopen(path, "r");
    cr_assert(file, "%s is not there", path);
    char *const text = calloc(1, 1 << 20);
    text[fread(text, 1, (1 << 20) - 1, file)] = 0;
    fclose(file);
    return text;
}

/* The command's output is kept outside of the folder. */
static struct answer sh(const char *command) {
    char line[2048], out[96], err[96];
    snprintf(out, sizeof out, "%s.out", folder);
    snprintf(err, sizeof err, "%s.err", folder);
    snprintf(line, sizeof line, "{ %s\n} >%s 2>%s </dev/null", command, out, err);
    const int status = system(line);
    cr_assert(WIFEXITED(status), "%s", command);
    const struct answer a = {WEXITSTATUS(status), read_all(out), read_all(err)};
    unlink(out);
    unlink(err);
    return a;
}

static void answer_free(struct answer *a) {
    free(a->out);
    free(a->err);
}

static const char *last_line(const char *text) {
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '\n') n--;
    while (n > 0 && text[n - 1] != '\n') n--;
    return text + n;
}

static void expect_code(const char *command, int code) {
    struct answer a = sh(command);
    cr_expect_eq(a.code, code, "%s: exit %d, not %d\n%s%s", command, a.code, code, a.out, a.err);
    cr_expect(code == 2 || !*a.err, "%s: %s", command, a.err);
    answer_free(&a);
}

Test(cli, exit_codes_say_passed_defect_or_trouble) {
    expect_code("shardcheck run tiny --tokens 3", 0);
    expect_code("shardcheck run tiny/attention:tp=2,tokens=3 tiny/ffn:tp=4,ep=2,tokens=2", 0);
    expect_code("shardcheck run tiny --mutant packed-view --tp 2 --tokens 3", 1);
    expect_code("shardcheck run tiny --tp 3", 2);
    expect_code("shardcheck --help", 0);
    expect_code("shardcheck run --help", 0);
    expect_code("shardcheck help list", 0);
    expect_code("shardcheck help nosuch", 2);
    expect_code("shardcheck --version", 0);
    expect_code("shardcheck list stages", 0);
    expect_code("shardcheck list tensors \"$ROOT/fixtures/golden/tensors.pt\" | grep -qx "
                "'value  *float32  *\\[4, 3\\]  *1, 4'",
                0);
    expect_code(
        "shardcheck list tensors \"$ROOT/fixtures/golden/tensors.pt\" | grep -q 'meta.rank  *fact  *1$'", 0);
    cr_expect_eq(files_here(), 0, "nothing is written without being asked for");
}

Test(cli, without_arguments_it_prints_the_help) {
    struct answer bare = sh("shardcheck"), help = sh("shardcheck --help"),
                  version = sh("shardcheck --version");
    cr_expect(bare.code == 0 && !*bare.err);
    cr_expect_str_eq(bare.out, help.out);
    static const char *const words[] = {"--tp",        "--mutant", "--report",  "--fixture",
                                        "exit status", "junit",    "param2-17b"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        cr_expect(strstr(help.out, words[i]), "no %s", words[i]);
    for (const char *at = help.out; *at; at += strcspn(at, "\n") + 1)
        cr_expect(strcspn(at, "\n") <= 120, "a line of %zu columns: %.60s", strcspn(at, "\n"), at);
    cr_expect_eq(strncmp(version.out, "shardcheck ", 11), 0);
    answer_free(&bare), answer_free(&help), answer_free(&version);
    struct answer option = sh("shardcheck probe --help"), word = sh("shardcheck help probe");
    cr_expect_str_eq(option.out, word.out);
    cr_expect(strstr(word.out, "--device") && !strstr(word.out, "--tp"), "%s", word.out);
    answer_free(&option), answer_free(&word);
}

Test(cli, the_last_line_counts_the_cases_and_quiet_leaves_little_else) {
    struct answer plain = sh("shardcheck run tiny --tokens 3"),
                  quiet = sh("shardcheck run tiny --tokens 3 -q"),
                  verbose = sh("shardcheck run tiny --tokens 3 -v");
    cr_expect_str_eq(last_line(plain.out), "8 passed, 0 failed, 0 skipped\n");
    cr_expect_str_eq(last_line(quiet.out), "8 passed, 0 failed, 0 skipped\n");
    cr_expect_str_eq(last_line(verbose.out), "8 passed, 0 failed, 0 skipped\n");
    cr_expect(!strstr(quiet.out, "PASS ") && strstr(plain.out, "PASS tiny/attention:tp=1,tokens=3"));
    cr_expect(strstr(verbose.out, "kv_write") && !strstr(plain.out, "kv_write"));
    cr_expect(strlen(quiet.out) < strlen(plain.out) && strlen(plain.out) < strlen(verbose.out));
    cr_expect(strstr(plain.out, "host"), "the device is named");
    answer_free(&plain), answer_free(&quiet), answer_free(&verbose);
    quiet = sh("shardcheck run tiny --tokens 3 --mutant packed-view -q --tp 1");
    cr_expect(strstr(quiet.out, "FAIL ") && strstr(quiet.out, "repro "), "quiet still shows failures");
    answer_free(&quiet);
}

/* The text after "  repro     " of the n-th failure. */
static bool repro_line(const char *text, int n, char *line, size_t size) {
    static const char label[] = "  repro     ";
    for (const char *at = text; (at = strstr(at, label)); at++) {
        if (n--) continue;
        at += sizeof label - 1;
        snprintf(line, size, "%.*s", (int)strcspn(at, "\n"), at);
        return true;
    }
    return false;
}

static void expect_repro_fails_again(const char *command, int failures) {
    struct answer first = sh(command);
    char line[1024];
    cr_assert_eq(first.code, 1, "%s: exit %d %s", command, first.code, first.err);
    for (int i = 0; i < failures; i++) {
        cr_assert(repro_line(first.out, i, line, sizeof line), "%s", first.out);
        struct answer again = sh(line);
        cr_expect_eq(again.code, 1, "%s: exit %d %s", line, again.code, again.err);
        cr_expect_str_eq(last_line(again.out), "0 passed, 1 failed, 0 skipped\n");
        char same[1024] = "";
        repro_line(again.out, 0, same, sizeof same);
        cr_expect_str_eq(same, line);
        answer_free(&again);
    }
    cr_expect_not(repro_line(first.out, failures, line, sizeof line), "more failures than expected");
    answer_free(&first);
}

Test(cli, the_repro_line_pasted_into_a_shell_fails_again) {
    /* Four fail, for one cause. */
    expect_repro_fails_again("shardcheck run tiny --mutant packed-view --tokens 3 --seed 5", 1);
    expect_repro_fails_again(
        "shardcheck run tiny --mutant global-head-count --tp 4 --phase decode --tokens 3 --dtype fp32", 1);
    expect_repro_fails_again(
        "shardcheck run tiny --mutant packed-view --tp 2 --tokens 3 --kernel attention=attention_simt", 1);
    expect_repro_fails_again(
        "shardcheck run --fixture \"$ROOT/fixtures/golden/llama.h5\" --mutant packed-view --tp 2 --layer 1",
        1);
}

Test(cli, the_repro_line_survives_spaces_and_quotes_in_paths) {
    cr_assert_eq(system("mkdir 'a b' \"it's\" && cp \"$ROOT/fixtures/golden/llama.h5\" 'a b/l.h5'"), 0);
    cr_assert_eq(
        system("cp \"$ROOT/fixtures/models/tiny.json\" 'a b/t.json' && cp 'a b/t.json' \"it's/t.json\""), 0);
    expect_repro_fails_again("shardcheck run 'a b/t.json' --mutant packed-view --tp 2 --tokens 3", 1);
    expect_repro_fails_again("shardcheck run --fixture 'a b/l.h5' --mutant packed-view --tp 2 --layer 0", 1);
    expect_repro_fails_again("shardcheck run \"it's/t.json\" --mutant packed-view --tp 2 --tokens 3", 1);
}

Test(cli, a_config_file_runs_as_a_model_from_any_folder) {
    cr_assert_eq(system("cp \"$ROOT/fixtures/models/tiny.json\" mine.json"), 0);
    expect_code("shardcheck run mine.json --tokens 2 --tp 2", 0);
    expect_code("shardcheck run ./mine.json/ffn:tp=2,tokens=2", 0);
    expect_code("cd / && shardcheck run tiny/attention:tp=1,tokens=2", 0);
    expect_code("shardcheck run --fixture \"$ROOT/fixtures/golden/qwen3_moe.h5\" --layer 1 --tp 2", 0);
    cr_expect_eq(files_here(), 1);
}

Test(cli, a_small_twin_of_every_preset_runs_green) {
    for (const char *const *name = model_preset_names(); *name; name++) {
        struct model model;
        char command[256];
        cr_assert_eq(model_load(*name, &model).code, STATUS_OK);
        snprintf(command, sizeof command,
                 "shardcheck run %s --hidden 64 --heads 4 --kv 2 --dim 16 --shared 32 %s --tokens 5 --tp 1,2",
                 *name, model.kind[0].moe ? "--experts 8 --top 2 --width 32" : "");
        struct answer a = sh(command);
        cr_expect_eq(a.code, 0, "%s: exit %d %s%s", command, a.code, a.out, a.err);
        cr_expect_str_eq(last_line(a.out), "4 passed, 0 failed, 0 skipped\n");
        cr_expect(strstr(a.out, ":tp=2,tokens=5,hidden=64,heads=4,kv=2,dim=16 "), "%s", a.out);
        answer_free(&a);
    }
}

/* ---- reports ---- */

/* What the kernel edge of the n-th case counted. */
static int64_t elements(const json_t *report, size_t n) {
    const json_t *const edges = json_object_get(json_array_get(json_object_get(report, "cases"), n), "edges");
    return json_integer_value(json_object_get(json_object_get(edges, "kernel"), "elements"));
}

Test(cli, cases_of_other_sizes_have_another_trunk) {
    struct answer a = sh("shardcheck run tiny/attention --heads 4,8 --tp 1,2 --tokens 3 --report json");
    json_t *const report = json_loads(a.out, 0, NULL);
    cr_assert(a.code == 0 && report, "%s", a.err);
    cr_expect(elements(report, 0) > 0 && elements(report, 0) == elements(report, 1));
    cr_expect(elements(report, 2) > elements(report, 0) && elements(report, 2) == elements(report, 3));
    json_decref(report);
    answer_free(&a);
}

static void expect_json(const char *path, int64_t passed, int64_t failed) {
    json_error_t error;
    json_t *const root_object = json_load_file(path, 0, &error);
    cr_assert(root_object, "%s:%d: %s", path, error.line, error.text);
    cr_expect_eq(json_integer_value(json_object_get(root_object, "passed")), passed);
    cr_expect_eq(json_integer_value(json_object_get(root_object, "failed")), failed);
    cr_expect_str_eq(json_string_value(json_object_get(root_object, "schema")), "shardcheck-result/1");
    cr_expect(json_is_string(json_object_get(root_object, "device")) &&
              json_is_string(json_object_get(root_object, "command")));
    const json_t *const cases = json_object_get(root_object, "cases");
    cr_expect_eq(json_array_size(cases), (size_t)(passed + failed));
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *const c = json_array_get(cases, i);
        const bool bad = !strcmp(json_string_value(json_object_get(c, "verdict")), "failed");
        cr_expect(json_is_string(json_object_get(c, "case")) &&
                  json_array_size(json_object_get(c, "stages")) > 5);
        cr_expect_eq(bad, json_is_string(json_object_get(c, "repro")));
        cr_expect_eq(bad, json_is_object(json_object_get(c, "first")));
        cr_expect_eq(bad, json_is_string(json_object_get(c, "likely")));
    }
    json_decref(root_object);
}

/* Tags nest, attributes are quoted and unique in place, & starts an entity, no raw control
 * characters. */
static void expect_well_formed(const char *text) {
    const char *open[32];
    int depth = 0, elements = 0;
    const char *at = strstr(text, "?>");
    cr_assert(!strncmp(text, "<?xml ", 6) && at, "no XML declaration");
    for (at += 2; *at;) {
        cr_assert(*at == '\n' || (unsigned char)*at >= ' ', "a control character");
        if (*at == '&')
            cr_assert(strspn(at + 1, "#abcdefghijklmnopqrstuvwxyz0123456789") &&
                      at[1 + strspn(at + 1, "#abcdefghijklmnopqrstuvwxyz0123456789")] == ';');
        if (*at != '<') {
            cr_assert(depth > 0 || isspace((unsigned char)*at), "text outside of the root");
            at++;
            continue;
        }
        const bool closing = at[1] == '/';
        const char *const name = at + 1 + closing;
        const size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz-");
        cr_assert(n > 0, "'<' in text: %.30s", at);
        at = name + n;
        while (*at != '>' && *at != '/') {
            at += strspn(at, " \n");
            const size_t key = strspn(at, "abcdefghijklmnopqrstuvwxyz-");
            cr_assert(key > 0 && at[key] == '=' && at[key + 1] == '"', "%.40s", at);
            const char *const end = strchr(at + key + 2, '"');
            cr_assert(end && !memchr(at + key + 2, '<', (size_t)(end - at) - key - 2));
            at = end + 1;
        }
        if (closing) {
            cr_assert(depth > 0 && !strncmp(open[depth - 1], name, n));
            depth--;
        } else if (*at != '/') {
            cr_assert(depth < 32 && (depth > 0 || elements == 0), "two roots");
            open[depth++] = name;
        }
        elements++;
        at += *at == '/' ? 2 : 1;
    }
    cr_assert(depth == 0 && elements > 3);
}

Test(cli, reports_of_real_runs_parse) {
    expect_code("shardcheck run tiny --tokens 3 --report json:p.json --report junit:p.xml", 0);
    expect_json("p.json", 8, 0);
    expect_code("shardcheck run tiny --tokens 3 --mutant global-head-count --report json:f.json --report "
                "junit:f.xml -v",
                1);
    expect_json("f.json", 1, 3);
    char *const passed = read_all("p.xml"), *const failed = read_all("f.xml");
    expect_well_formed(passed);
    expect_well_formed(failed);
    cr_expect(strstr(passed, "tests=\"8\" failures=\"0\"") && strstr(failed, "tests=\"4\" failures=\"3\""));
    cr_expect(strstr(failed, "global-head-count") && strstr(failed, "repro"));
    cr_expect_eq(files_here(), 4, "only the reports are left");
    free(passed);
    free(failed);
}

Test(cli, verbose_lines_are_at_most_120_columns_wide) {
    struct answer a = sh("shardcheck run tiny/ffn:tp=2 tiny/attention:tp=4,fill=exact -v");
    cr_expect(strstr(a.out, "\n  counted\n") && strstr(a.out, "\n  statistical\n") &&
              strstr(a.out, "not met: "));
    for (char *line = strtok(a.out, "\n"); line; line = strtok(NULL, "\n")) {
        int columns = 0;
        for (const char *at = line; *at; at++) columns += (*at & 0xc0) != 0x80;
        cr_expect_leq(columns, 120, "%s", line);
    }
    answer_free(&a);
}

/* `script` runs its command on a terminal. */
Test(cli, a_terminal_gets_colours_unless_it_or_its_user_wants_none) {
    static const struct {
        const char *environment, *to;
        bool coloured;
    } rows[] = {{"TERM=xterm", "", true},
                {"TERM=xterm NO_COLOR=1", "", false},
                {"TERM=xterm NO_COLOR=", "", true},
                {"TERM=dumb", "", false},
                {"TERM=xterm", "| cat", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char line[400];
        snprintf(line, sizeof line, "%s script -qec 'shardcheck run tiny/ffn:tp=2,tokens=2 %s' /dev/null",
                 rows[i].environment, rows[i].to);
        struct answer a = sh(line);
        cr_expect_eq(strstr(a.out, "\033[32mPASS\033[m ") != NULL, rows[i].coloured, "%s: %s", line, a.out);
        cr_expect(strstr(a.out, "1 passed, 0 failed"));
        answer_free(&a);
    }
}

Test(cli, a_report_to_standard_output_replaces_the_text) {
    struct answer a = sh("shardcheck run tiny/ffn:tp=2,tokens=2 --report json");
    json_t *const parsed = json_loads(a.out, 0, NULL);
    cr_expect(parsed, "%.200s", a.out);
    json_decref(parsed);
    answer_free(&a);
    a = sh("shardcheck run tiny/ffn:tp=2,tokens=2 --report junit --report text:t.txt");
    expect_well_formed(a.out);
    char *const text = read_all("t.txt");
    cr_expect(strstr(text, "1 passed, 0 failed, 0 skipped"));
    free(text);
    answer_free(&a);
    a = sh("shardcheck run tiny/ffn:tp=2,tokens=2 >/dev/full");
    cr_expect(a.code == 2 && strstr(a.err, "standard output"), "exit %d %s", a.code, a.err);
    answer_free(&a);
}

Test(cli, an_old_report_stays_whole_until_the_new_one_is) {
    cr_assert_eq(system("echo old > r.json && chmod 600 r.json"), 0);
    expect_code("shardcheck run tiny --tp 3 --report json:r.json", 2);
    char *const old = read_all("r.json");
    cr_expect_str_eq(old, "old\n", "a run that did not happen leaves the report alone");
    free(old);
    expect_code("shardcheck run tiny --tp 2 --tokens 2 --report json:r.json", 0);
    expect_json("r.json", 2, 0);
    cr_expect_eq(files_here(), 1);
}
