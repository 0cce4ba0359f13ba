/* Is what shardcheck says one line of plain text, whatever is thrown at it? Control characters,
 * line separators, directional overrides and broken UTF-8 in arguments, files and their names must
 * reach neither the terminal nor a report. Runs the binary named by the environment variable
 * SHARDCHECK. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <hdf5.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "layer/line.h"
#include "layer/status.h"
#include "tests/binary.h"

/* ---- the texts themselves ---- */

static const struct {
    const char *text, *shown;
} texts[] = {
    {"plain, caf\xc3\xa9, \xe6\x97\xa5\xe6\x9c\xac, \xf0\x9f\x98\x80", NULL},
    {"\xc2\xa0 \xe2\x80\xa7 \xe2\x80\xaf \xe2\x81\xa5 \xe2\x81\xaa", NULL}, /* beside the ranges */
    {"a\nb\rc\td", "a?b?c?d"},
    {"\x1b[2J\x07", "?[2J?"},
    {"\x7f \xc2\x80 \xc2\x9b", "? ? ?"},                                /* DEL, the ends of C1 */
    {"\xe2\x80\xa8 \xe2\x80\xa9", "? ?"},                               /* separators */
    {"\xe2\x80\xaa \xe2\x80\xae \xe2\x81\xa6 \xe2\x81\xa9", "? ? ? ?"}, /* directions */
    {"\xff \xc3 \xe2\x80 \x80\x80 x", "? ? ? ? x"},                     /* cut and lost bytes */
    {"\xc0\xaf \xe0\x80\xaf \xed\xa0\x80 \xf4\x90\x80\x80", "? ? ? ?"}, /* overlong, too large */
};
enum { N_TEXTS = sizeof texts / sizeof *texts };

Test(one_line, what_a_line_cannot_show_becomes_a_question_mark) {
    for (int i = 0; i < N_TEXTS; i++) {
        char text[64];
        strcpy(text, texts[i].text);
        line_clean(text);
        cr_expect_str_eq(text, texts[i].shown ? texts[i].shown : texts[i].text);
        cr_expect_eq(line_is_clean(texts[i].text), !texts[i].shown, "%s", text);
        cr_expect(line_is_clean(text));
    }
}

Test(one_line, a_message_is_cut_between_two_characters) {
    char text[1200] = "";
    for (int n = 0; n < 4; n++) { /* the cut falls on every byte of a character */
        memset(text, 'x', (size_t)n);
        text[n] = 0;
        for (int i = 0; i < 250; i++) strcat(text, "\xf0\x9f\x98\x80");
        const struct status s = status_error("%s", text);
        const size_t length = strlen(s.message);
        cr_expect(length > 490 && length < sizeof s.message && !strchr(s.message, '?'), "%s", s.message);
        cr_expect(line_is_clean(s.message) && !strcmp(s.message + length - 3, "..."), "%s", s.message);
    }
    memset(text, 'x', 499);
    text[499] = 0;
    cr_expect_str_eq(status_error("%s", text).message, text, "what fits is not cut");
}

/* ---- the binary ---- */

TestSuite(cli_one_line, .init = folder_enter_with_binary, .fini = folder_leave, .timeout = 300);

static void expect_one_line(int code, const char *what) {
    char *const out = output("out"), *const err = output("err");
    const size_t n = strlen(err);
    cr_expect_eq(code, 2, "%s: exit %d", what, code);
    cr_expect_str_empty(out, "%s", what);
    cr_expect(n > 1 && err[n - 1] == '\n', "%s: '%s'", what, err);
    if (n) err[n - 1] = 0;
    cr_expect(line_is_clean(err), "%s: '%s'", what, err);
    free(out);
    free(err);
}

static void expect_clean_lines(char *text, const char *what) {
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        cr_expect(line_is_clean(line), "%s: '%s'", what, line);
}

Test(cli_one_line, arguments_cannot_break_the_line) {
    for (int i = 2; i < N_TEXTS; i++) {
        const char *const hostile = texts[i].text;
        char word[128], path[128];
        snprintf(path, sizeof path, "./%s/c.json", hostile);
        expect_one_line(RUN(hostile), "a command");
        expect_one_line(RUN("help", hostile), "a topic");
        expect_one_line(RUN("list", hostile), "a list");
        expect_one_line(RUN("run", hostile), "a model");
        expect_one_line(RUN("run", path), "a path");
        expect_one_line(RUN("run", "--fixture", path), "a fixture");
        expect_one_line(RUN("run", "tiny", "--tokens", "2", "--dump", path), "a dump");
        expect_one_line(RUN("run", "tiny", "--tokens", hostile), "a value");
        expect_one_line(RUN("run", "tiny", "--report", hostile), "a format");
        expect_one_line(RUN("run", "tiny", "--mutant", hostile), "a mutant");
        static const char *const shapes[] = {"--%s",
                                             "tiny/%s",
                                             "tiny/ffn:%s=1",
                                             "tiny/ffn:tp=%s",
                                             "--report=json:%s/r",
                                             "--kernel=%s=rope",
                                             "--kernel=rope=%s",
                                             "--part=%s"};
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            snprintf(word, sizeof word, shapes[s], hostile);
            expect_one_line(RUN("run", "tiny", word), shapes[s]);
            expect_one_line(RUN("run", word), shapes[s]);
        }
    }
}

/* ---- files ---- */

/* Preset tiny with `old` replaced; the text goes to c.json. */
static char *edited_config(const char *old, const char *new) {
    char path[4200], *const text = calloc(1, 8192), *const edited = calloc(1, 8192);
    snprintf(path, sizeof path, "%s/fixtures/models/tiny.json", root);
    FILE *file = fopen(path, "r");
    cr_assert(file && fread(text, 1, 8191, file));
    fclose(file);
    const char *const at = strstr(text, old);
    cr_assert(at, "%s", old);
    snprintf(edited, 8192, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    file = fopen("c.json", "w");
    cr_assert(file && fputs(edited, file) >= 0);
    fclose(file);
    free(text);
    return edited;
}

static const char *const json_texts[] = {
    "\\u001b[2J\\n", "\\u007f\\u009b31m", "\\u2028\\u202e\\u2066", "\xe2\x80\xae\xc2\x9b", "\x1b[2J", "\xff",
    "\xc3"};
enum { N_JSON_TEXTS = sizeof json_texts / sizeof *json_texts };

Test(cli_one_line, keys_and_values_of_a_config_cannot_break_the_line) {
    static const char *const places[][2] = {
        {"\"hidden_size\": 64", "\"hidden_size\": 64, \"%s\": 1"},
        {"\"hidden_size\": 64", "\"hidden_size\": \"%s\""},
        {"\"model_type\": \"param2moe\"", "\"model_type\": \"%s\""},
        {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"%s\""},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"%s\"}"},
        {"\"rope_scaling\": null", "\"rope_scaling\": {\"%s\": 1}"},
        {"{", "%s"},
    };
    for (size_t p = 0; p < sizeof places / sizeof *places; p++)
        for (int i = 0; i < N_JSON_TEXTS; i++) {
            char new[128];
            snprintf(new, sizeof new, places[p][1], json_texts[i]);
            free(edited_config(places[p][0], new));
            expect_one_line(RUN("run", "c.json"), places[p][1]);
        }
}

static void set_attribute(const char *name, const char *value) {
    const hid_t file = H5Fopen("f.h5", H5F_ACC_RDWR, H5P_DEFAULT), type = H5Tcopy(H5T_C_S1),
                space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(value) + 1);
    if (H5Aexists(file, name) > 0) H5Adelete(file, name);
    const hid_t a = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    cr_assert(a >= 0 && H5Awrite(a, type, value) >= 0);
    H5Aclose(a), H5Sclose(space), H5Tclose(type), H5Fclose(file);
}

Test(cli_one_line, attributes_of_a_fixture_cannot_break_the_line) {
    static const char *const names[] = {"schema", "dtype", "config_json"};
    char copy[4300];
    snprintf(copy, sizeof copy, "cp '%s/fixtures/golden/llama.h5' f.h5", root);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        for (int i = 2; i < N_TEXTS; i++) {
            cr_assert_eq(system(copy), 0);
            set_attribute(names[n], texts[i].text);
            expect_one_line(RUN("run", "--fixture", "f.h5"), names[n]);
        }
    cr_assert_eq(system(copy), 0);
    char *const config = edited_config("\"hidden_size\": 64", "\"hidden_size\": 64, \"\x1b[2J\n\": 1");
    set_attribute("config_json", config);
    expect_one_line(RUN("run", "--fixture", "f.h5"), "a key of config_json");
    free(config);
}

/* ---- reports ---- */

static void expect_clean_file(const char *path) {
    FILE *const file = fopen(path, "r");
    char *const text = calloc(1, 1 << 20);
    cr_assert(file && text && fread(text, 1, (1 << 20) - 1, file));
    fclose(file);
    expect_clean_lines(text, path);
    free(text);
}

/* A failing run of a config in a folder of that name: every report is clean, and the repro line
 * fails again under both shells. */
static void expect_clean_reports(const char *name) {
    char model[256], copy[4500];
    snprintf(model, sizeof model, "./%s", name);
    cr_assert_eq(mkdir(model, 0700), 0);
    snprintf(model, sizeof model, "./%s/t.json", name);
    snprintf(copy, sizeof copy, "%s/fixtures/models/tiny.json", root);
    cr_assert_eq(execute("cp", (const char *const[]){copy, model, NULL}), 0);
    const int code = RUN("run", model, "--tp", "2", "--tokens", "3", "--mutant", "packed-view", "--report",
                         "text", "--report", "json:r.json", "--report", "junit:r.xml");
    char *const out = output("out"), *const err = output("err");
    cr_expect(code == 1 && !*err, "%s: exit %d, %s", name, code, err);
    expect_clean_lines(out, name);
    expect_clean_file("r.xml");
    expect_clean_file("r.json");
    json_t *const json = json_load_file("r.json", JSON_REJECT_DUPLICATES, NULL);
    cr_assert(json, "%s", name);
    const char *const repro =
        json_string_value(json_object_get(json_array_get(json_object_get(json, "cases"), 0), "repro"));
    static const char *const shells[] = {"sh", "bash"};
    for (int s = 0; s < 2 && repro; s++) {
        char command[2048];
        snprintf(command, sizeof command, "shardcheck() { '%s' \"$@\"; }; %s", getenv("SHARDCHECK"), repro);
        const int again = execute(shells[s], (const char *const[]){"-c", command, NULL});
        char *const printed = output("out");
        cr_expect(again == 1 && strstr(printed, "1 failed"), "%s: %s: exit %d", shells[s], repro, again);
        free(printed);
    }
    cr_expect(repro && line_is_clean(repro), "%s", name);
    json_decref(json);
    free(out);
    free(err);
}

Test(cli_one_line, a_path_of_odd_bytes_has_clean_reports_and_a_repro_line_that_works) {
    expect_clean_reports("caf\xc3\xa9 %s it's \\n \"$HOME\"");
    expect_clean_reports("caf\xe9 %d it's \\n \"$HOME\" `id`7");
    expect_clean_reports("\xe2\x80\xae\xc2\x9b"
                         "31m");
    expect_clean_reports("\xed\xa0\x80-\xe2\x80\xa8");
}
