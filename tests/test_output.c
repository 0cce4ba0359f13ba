/* Is an output whole or not there, and is nothing else touched?  Files, links, pipes and devices,
 * and what happens to them when a write fails or the process dies. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/output.h"
#include "tests/folder.h"

TestSuite(output, .init = folder_enter, .fini = folder_leave);

static void put(const char *path, const char *text) {
    FILE *const file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

static void expect_text(const char *path, const char *want) {
    char text[256];
    FILE *const file = fopen(path, "r");
    cr_assert(file, "%s is not there", path);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    cr_expect_str_eq(text, want, "%s", path);
}

static mode_t mode_of(const char *path) {
    struct stat s;
    cr_assert_eq(lstat(path, &s), 0);
    return s.st_mode;
}

static struct output *opened(const char *path) {
    struct output *o;
    const struct status s = output_open("it", path, &o);
    cr_assert(!s.code, "%s", s.message);
    return o;
}

static void replace(const char *path) {
    struct output *o = opened(path);
    fputs("new", output_file(o));
    const struct status s = output_commit(&o);
    cr_expect(!s.code && !o, "%s", s.message);
}

static void expect_refused(const char *path, const char *cause, const char *remedy) {
    struct output *o;
    const int before = files_here();
    const struct status s = output_open("it", path, &o);
    cr_expect(s.code && !o && !strncmp(s.message, "it: ", 4) && strstr(s.message, cause) &&
                  strstr(s.message, remedy),
              "%s: %s", path, s.message);
    cr_expect_eq(files_here(), before);
}

/* ---- files ---- */

Test(output, a_file_appears_whole_or_not_at_all) {
    put("old", "old");
    for (int i = 0; i < 2; i++) {
        const char *const path = i ? "old" : "new";
        struct output *o = opened(path);
        fputs("half", output_file(o));
        fflush(output_file(o));
        cr_expect(i ? files_here() == 3 : access("new", F_OK), "the half is beside it");
        output_discard(&o);
        cr_expect(!o && (i ? files_here() == 2 : files_here() == 1));
        if (i) expect_text("old", "old");
        replace(path);
        expect_text(path, "new");
    }
    cr_expect_eq(files_here(), 2);
    struct output *none = NULL;
    output_discard(&none);
    cr_expect(!output_commit(&none).code);
}

Test(output, a_mode_is_kept_and_a_new_file_has_that_of_the_umask) {
    umask(027);
    put("old", "old");
    chmod("old", 0604);
    replace("old");
    replace("new");
    cr_expect_eq(mode_of("old") & 07777, 0604);
    cr_expect_eq(mode_of("new") & 07777, 0640);
}

Test(output, nobody_elses_file_is_in_the_way) {
    put("a.tmp", "mine");
    put(".a.tmp", "mine");
    cr_assert(!symlink("target", ".a"));
    replace("a");
    expect_text("a.tmp", "mine");
    expect_text(".a.tmp", "mine");
    cr_expect(access("target", F_OK));
    struct output *const one = opened("a"), *const two = opened("a");
    cr_expect_str_neq(output_path(one), output_path(two));
    cr_expect(!strncmp(output_path(one), ".a.", 3));
}

Test(output, a_link_stays_and_what_it_leads_to_is_replaced) {
    cr_assert(!mkdir("d", 0777) && !symlink("d/target", "link") && !symlink("link", "chain"));
    cr_assert(!symlink("nowhere", "dangling") && !symlink("loop", "loop"));
    put("d/target", "old");
    replace("chain");
    expect_text("d/target", "new");
    replace("dangling");
    expect_text("nowhere", "new");
    cr_expect(S_ISLNK(mode_of("chain")) && S_ISLNK(mode_of("link")) && S_ISLNK(mode_of("dangling")));
    expect_refused("loop", "symbolic links", "writable");
}

Test(output, what_cannot_be_an_output_is_refused_before_the_work) {
    char longer[300];
    memset(longer, 'x', 299);
    longer[299] = 0;
    put("file", "");
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert(!bind(fd, (const struct sockaddr *)&(struct sockaddr_un){AF_UNIX, "sock"},
                    sizeof(struct sockaddr_un)));
    cr_assert(!mkfifo("fifo", 0666));
    expect_refused(".", "is a folder", "name a file");
    expect_refused("none/file", "No such file", "a folder that exists");
    expect_refused("none/", "No such file", "a folder that exists");
    expect_refused("file/x", "Not a directory", "writable");
    expect_refused("sock", "is a socket", "name a file");
    expect_refused("fifo", "nobody reads", "start its reader");
    expect_refused("/dev/fd/77", "not open", "name a file");
    expect_refused("/dev/stdin", "not open for writing", "name a file");
    expect_refused(longer, "name too long", "shorter");
    struct output *o[MAX_OUTPUTS];
    for (int i = 0; i < MAX_OUTPUTS; i++) o[i] = opened("many");
    expect_refused("many", "more than 16", "leave some out");
    for (int i = 0; i < MAX_OUTPUTS; i++) output_discard(&o[i]);
    cr_expect_eq(files_here(), 3);
}

/* ---- pipes and devices ---- */

Test(output, pipes_and_devices_are_written_and_stay_what_they_are) {
    int end[2];
    char name[32], got[32] = "";
    cr_assert(!pipe(end) && !mkfifo("fifo", 0666));
    snprintf(name, sizeof name, "/dev/fd/%d", end[1]);
    replace(name);
    cr_expect(read(end[0], got, sizeof got) == 3 && !strcmp(got, "new"), "%s", got);
    cr_expect_eq(write(end[1], "!", 1), 1, "the pipe itself stays open");
    const int reader = open("fifo", O_RDONLY | O_NONBLOCK);
    replace("fifo");
    cr_expect(read(reader, got, sizeof got) == 3 && S_ISFIFO(mode_of("fifo")));
    replace("/dev/null");
    cr_expect(S_ISCHR(mode_of("/dev/null")));
    struct output *o = opened("/dev/null");
    cr_expect_null(output_path(o), "there is nothing to seek in");
    output_discard(&o);
    cr_expect_eq(files_here(), 1);
}

Test(output, an_open_file_goes_on_where_it_is) {
    char name[32];
    const int fd = open("log", O_WRONLY | O_CREAT, 0666);
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    cr_assert_eq(write(fd, "before ", 7), 7);
    replace(name);
    cr_assert_eq(write(fd, " after", 6), 6);
    expect_text("log", "before new after");
}

Test(output, a_slow_reader_of_a_non_blocking_pipe_gets_every_byte) {
    int end[2];
    char name[32], bytes[4096];
    size_t n_read = 0;
    cr_assert(!pipe2(end, O_NONBLOCK));
    snprintf(name, sizeof name, "/dev/fd/%d", end[1]);
    const pid_t child = fork();
    if (child == 0) {
        struct output *o = opened(name);
        for (int i = 0; i < 100000; i++) fputs("0123456789", output_file(o));
        _exit(output_commit(&o).code);
    }
    close(end[1]);
    fcntl(end[0], F_SETFL, 0);
    for (ssize_t n; (n = read(end[0], bytes, sizeof bytes)) > 0;) n_read += (size_t)n;
    cr_expect_eq(n_read, 1000000);
    int status;
    waitpid(child, &status, 0);
    cr_expect_eq(status, 0);
}

/* ---- failures ---- */

Test(output, a_failed_write_is_an_error_and_leaves_the_old_file) {
    put("old", "old");
    struct output *o = opened("/dev/full");
    fputs("x", output_file(o));
    struct status s = output_commit(&o);
    cr_expect(s.code && !o, "/dev/full");
    cr_expect_str_eq(s.message, "it: No space left on device; free some space or choose another disk");
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){10000, RLIM_INFINITY});
    o = opened("old");
    for (int i = 0; i < 20000; i++) fputc('x', output_file(o));
    s = output_commit(&o);
    cr_expect(s.code && strstr(s.message, "File too large; raise the limit"), "%s", s.message);
    expect_text("old", "old");
    cr_expect_eq(files_here(), 1);
}

/* ---- the end of the process ---- */

static void tidy_and_die(int number) {
    outputs_unlink_all();
    raise(number);
}

Test(output, a_process_that_ends_in_between_leaves_nothing) {
    for (int way = 0; way < 3; way++) {
        const pid_t child = fork();
        if (child == 0) {
            struct output *const o = opened("a");
            opened("/dev/null");
            fputs("half", output_file(o));
            if (way == 0) exit(0);
            if (way == 1) outputs_unlink_all(), _exit(0);
            sigaction(SIGTERM, &(struct sigaction){.sa_handler = tidy_and_die, .sa_flags = (int)SA_RESETHAND},
                      NULL);
            raise(SIGTERM);
        }
        int status;
        waitpid(child, &status, 0);
        cr_expect(way == 2 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM : status == 0, "%x", status);
        cr_expect_eq(files_here(), 0);
    }
}

Test(output, a_forked_child_neither_writes_nor_removes_it) {
    struct output *o = opened("a");
    fputs("parent", output_file(o));
    const pid_t child = fork();
    if (child == 0) {
        fputs("child", output_file(o));
        fflush(output_file(o));
        outputs_unlink_all();
        exit(0);
    }
    waitpid(child, &(int){0}, 0);
    cr_expect(!output_commit(&o).code);
    expect_text("a", "parent");
}

/* ---- one file? ---- */

Test(output, one_file_is_known_under_all_its_names) {
    char name[32];
    cr_assert(!mkdir("d", 0777) && !symlink("d", "e") && !symlink("d/x", "l"));
    put("a", "");
    cr_assert(!link("a", "hard"));
    const int fd = open("a", O_WRONLY);
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    const char *const same[][2] = {{"a", "./a"},   {"a", "hard"},       {"a", name}, {"b", "./b"},
                                   {"d/x", "e/x"}, {"d/x", "d/../d/x"}, {"d/x", "l"}};
    const char *const apart[][2] = {
        {"a", "b"}, {"b", "c"}, {"b", "d/b"}, {"/dev/null", "/dev/null"}, {"none/x", "none/x"}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        cr_expect(output_same(same[i][0], same[i][1]) && output_same(same[i][1], same[i][0]), "%s %s",
                  same[i][0], same[i][1]);
    for (size_t i = 0; i < sizeof apart / sizeof *apart; i++)
        cr_expect(!output_same(apart[i][0], apart[i][1]), "%s %s", apart[i][0], apart[i][1]);
    dup2(fd, STDOUT_FILENO);
    cr_expect(output_same(NULL, "a") && !output_same(NULL, "b"));
}
