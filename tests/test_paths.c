/* May a path hold what separates the pieces of a case line, and be as long as the system allows?
 * As a model, in a case line, as a fixture, a dump and a report. Runs the binary named by the
 * environment variable SHARDCHECK. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <jansson.h>
#include <sys/stat.h>

#include "harness/case.h"
#include "tests/binary.h"

TestSuite(cli_paths, .init = folder_enter_with_binary, .fini = folder_leave, .timeout = 300);

/* Makes the folders of "./a:tp=2,b/a:tp=2,b/.../" and fills up to `length` bytes with the name of a
 * file that ends in `end`. */
static void long_path(char *path, size_t length, const char *end) {
    static const char piece[] = "a:tp=2,seed=3/";
    strcpy(path, "./");
    while (strlen(path) + 200 < length) {
        strcat(path, piece);
        cr_assert_eq(mkdir(path, 0700), 0, "%s", path);
    }
    const size_t n = strlen(path), fill = length - n - strlen(end);
    memset(path + n, 'x', fill);
    strcpy(path + n + fill, end);
    cr_assert_eq(strlen(path), length);
}

static void copy_file(const char *from, const char *to) {
    char source[4500];
    snprintf(source, sizeof source, "%s/%s", root, from);
    cr_assert_eq(execute("cp", (const char *const[]){source, to, NULL}), 0);
}

static void expect_exit(int code, int expected, const char *what) {
    char *const out = output("out"), *const err = output("err");
    cr_expect_eq(code, expected, "%s: exit %d\n%.600s\n%.600s", what, code, out, err);
    free(out);
    free(err);
}

/* A word that sh would make of the repro line: all of it is in single quotes. */
static void expect_line_of_report(const char *report, const char *model) {
    json_t *const json = json_load_file(report, 0, NULL);
    struct check_case c;
    bool has_part;
    cr_assert(json, "%.300s", report);
    const json_t *const one = json_array_get(json_object_get(json, "cases"), 0);
    const char *const line = json_string_value(json_object_get(one, "case"));
    const char *const repro = json_string_value(json_object_get(one, "repro"));
    cr_assert(line && repro);
    cr_expect_eq(case_parse(line, &c, &has_part).code, STATUS_OK);
    cr_expect_str_eq(c.model, model);
    cr_expect(c.tp == 4 && has_part, "%s", line);
    char command[2 * CASE_LINE + PATH_BYTES];
    snprintf(command, sizeof command, "shardcheck() { '%s' \"$@\"; }; %s", getenv("SHARDCHECK"), repro);
    expect_exit(execute("sh", (const char *const[]){"-c", command, NULL}), 1, repro);
    json_decref(json);
}

static void check_path(size_t length) {
    char model[PATH_BYTES], fixture[PATH_BYTES], line[CASE_LINE];
    long_path(model, length, ":tp=2.json");
    copy_file("fixtures/models/tiny.json", model);
    expect_exit(RUN("run", model, "--tokens", "2", "--tp", "1"), 0, "a model");
    snprintf(line, sizeof line, "%s/attention:tokens=2,tp=4", model);
    expect_exit(RUN("run", line, "--mutant", "packed-view", "--report", "json:r.json"), 1, "a case line");
    expect_line_of_report("r.json", model);

    strcpy(fixture, model);
    strcpy(fixture + length - strlen(":tp=2.json"), ":tp=2,x.h5");
    copy_file("fixtures/golden/llama.h5", fixture);
    expect_exit(RUN("run", "--fixture", fixture, "--tp", "1", "--layer", "0"), 0, "a fixture");
    expect_exit(RUN("run", fixture, "--fixture", fixture, "--tp", "1", "--layer", "0"), 0, "named twice");
    snprintf(line, sizeof line, "%s/attention:tp=4,layer=0", fixture);
    expect_exit(
        RUN("run", line, "--fixture", fixture, "--mutant", "global-head-count", "--report", "json:r.json"), 1,
        "a case line of a fixture");
    expect_line_of_report("r.json", fixture);
}

Test(cli_paths, colons_commas_and_equals_signs_are_read_back) { check_path(400); }

Test(cli_paths, the_longest_path_of_the_system_is_read_back) { check_path(PATH_BYTES - 1); }

/* Both are written beside their place first, under a longer name. */
Test(cli_paths, dumps_and_reports_go_to_such_paths) {
    char path[PATH_BYTES], report[PATH_BYTES + 8];
    long_path(path, PATH_BYTES - 64, ":tp=2,x.h5");
    expect_exit(RUN("run", "tiny", "--tokens", "2", "--tp", "1", "--dump", path), 0, "a dump");
    expect_exit(RUN("run", "--fixture", path, "--tp", "2"), 0, "the dump as a fixture");
    strcpy(path + strlen(path) - 3, ".js");
    snprintf(report, sizeof report, "json:%s", path);
    expect_exit(RUN("run", "tiny", "--tokens", "2", "--tp", "1", "--report", report), 0, "a report");
    json_t *const json = json_load_file(path, 0, NULL);
    cr_expect(json);
    json_decref(json);
}

Test(cli_paths, a_longer_path_is_refused_in_one_line) {
    char path[PATH_BYTES + 20], word[PATH_BYTES + 40];
    for (size_t n = 0; n < PATH_BYTES - 1; n += 2) memcpy(path + n, "a/", 2);
    strcpy(path + PATH_BYTES - 10, "bcdef.json");
    cr_assert_eq(strlen(path), PATH_BYTES);
    snprintf(word, sizeof word, "%s/ffn:tp=2", path);
    const char *const commands[][4] = {
        {"run", path}, {"run", word}, {"run", "--fixture", path}, {"run", "tiny", "--dump", path}};
    for (int i = 0; i < 4; i++) {
        expect_exit(
            execute(getenv("SHARDCHECK"), (const char *const[]){commands[i][0], commands[i][1],
                                                                commands[i][2], commands[i][3], NULL}),
            2, "a long path");
        char *const err = output("err");
        cr_expect(strchr(err, '\n') == err + strlen(err) - 1, "%s", err);
        cr_expect(strstr(err, "4095") || strstr(err, "long") || strstr(err, "4096"), "%s", err);
        free(err);
    }
}

/* A pipe that nobody writes to, one with a config in it, a device without end. */
Test(cli_paths, what_is_no_file_is_refused_at_once) {
    static const char *const config[][2] = {{"./pipe", "is a pipe"},
                                            {"/dev/zero", "is a device"},
                                            {"./", "./config.json: No such file or directory; "}};
    char command[128];
    cr_assert_eq(mkfifo("pipe", 0600), 0);
    for (int i = 0; i < 3; i++)
        for (int fixture = 0; fixture < 2; fixture++) {
            const int code = fixture ? RUN("run", "--fixture", config[i][0]) : RUN("run", config[i][0]);
            expect_exit(code, 2, config[i][0]);
            char *const err = output("err");
            cr_expect(strstr(err, fixture && i == 2 ? "the HDF5 file in it" : config[i][1]), "%s", err);
            free(err);
        }
    strcpy(command, "cat t.json | \"$SHARDCHECK\" run /dev/stdin --tokens 2");
    copy_file("fixtures/models/tiny.json", "t.json");
    expect_exit(execute("sh", (const char *const[]){"-c", command, NULL}), 2, command);
    strcpy(command, "\"$SHARDCHECK\" run /dev/stdin --tokens 2 --tp 1 <t.json");
    expect_exit(execute("sh", (const char *const[]){"-c", command, NULL}), 0, command);
}
