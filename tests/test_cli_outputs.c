/* What does a command line leave on the disk and in its pipes?  Each output whole, where it was
 * asked for and nowhere else; also when a signal comes, or standard output is full or closed. Runs
 * the binary named by the environment variable SHARDCHECK through bash. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/folder.h"

static void enter(void) {
    folder_enter_with_binary();
    setenv("RUN", "run tiny --part attention --tp 1 --tokens 3", 1);
}

TestSuite(cli_outputs, .init = enter, .fini = folder_leave);

/* `words` follow the name of the binary; bash, for >(...). Standard error is in *err. */
static int run(const char *words, char err[2048]) {
    char path[96];
    snprintf(path, sizeof path, "%s.err", folder);
    char command[2048];
    snprintf(command, sizeof command, "\"$SHARDCHECK\" %s", words);
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen(path, "w", stderr)) _exit(99);
        execlp("bash", "bash", "-c", command, (char *)NULL);
        _exit(99);
    }
    int status;
    waitpid(child, &status, 0);
    FILE *const file = fopen(path, "r");
    cr_assert(file);
    err[fread(err, 1, 2047, file)] = 0;
    fclose(file);
    cr_assert(WIFEXITED(status), "%s: %x", words, status);
    return WEXITSTATUS(status);
}

static void expect_error(const char *words, const char *cause, const char *remedy) {
    char err[2048];
    const int before = files_here(), code = run(words, err);
    const size_t n = strlen(err);
    cr_expect(code == 2 && n && strchr(err, '\n') == err + n - 1 && !strncmp(err, "shardcheck: ", 12),
              "%s: exit %d '%s'", words, code, err);
    cr_expect(strstr(err, cause) && strstr(err, remedy), "%s: %s", words, err);
    cr_expect_eq(files_here(), before, "%s: left something on the disk", words);
}

static void expect_passed(const char *words) {
    char err[2048];
    const int code = run(words, err);
    cr_expect(code == 0 && !*err, "%s: exit %d '%s'", words, code, err);
}

Test(cli_outputs, an_output_is_neither_another_one_nor_what_is_read) {
    cr_assert(!system("cp \"$ROOT/fixtures/models/tiny.json\" c.json && ln -s c.json link && "
                      "cp \"$ROOT/fixtures/golden/llama.h5\" f.h5 && ln -s d.h5 free"));
    expect_error("$RUN --report json:a --report text:a", "one file", "name two");
    expect_error("$RUN --report json:b --report text:./b", "text:./b and --report json:b", "two");
    expect_error("$RUN --report json:d.h5 --dump d.h5", "--dump d.h5 and --report json:d.h5", "two");
    expect_error("$RUN --report json:d.h5 --dump free", "one file", "two");
    expect_error("$RUN --report json:/dev/stdout --report text:-", "standard output", "text:FILE");
    expect_error("run ./c.json --report json:c.json", "would replace ./c.json", "another");
    expect_error("run ./c.json --part ffn --dump link", "would replace ./c.json", "another");
    expect_error("run --fixture f.h5 --dump ./f.h5", "would replace f.h5", "another");
    expect_error("run --fixture f.h5 --report text:f.h5", "would replace f.h5", "another");
    cr_expect(!system("cmp c.json \"$ROOT/fixtures/models/tiny.json\" && "
                      "cmp f.h5 \"$ROOT/fixtures/golden/llama.h5\""));
    expect_error("$RUN --report json:log >log; r=$?; [ -s log ] && echo text; rm log; exit $r",
                 "standard output and --report json:log", "two");
    expect_passed("$RUN --report json:/dev/null --report junit:/dev/null >/dev/null");
}

Test(cli_outputs, a_dump_needs_a_file_and_a_whole_run) {
    expect_error("$RUN --dump /dev/null", "--dump /dev/null: HDF5", "name a file");
    expect_error("$RUN --dump >(cat)", "a pipe", "name a file");
    expect_error("$RUN --dump /none/d.h5", "--dump /none/d.h5", "a folder that exists");
    expect_error("$RUN --kernel attention=attention_mma --dump d.h5 --report json:/dev/null >/dev/null",
                 "--dump d.h5: not written, tiny/attention:", "was skipped: no kernel for attention");
    expect_error("$RUN --kernel attention=attention_mma --allow-skips --dump d.h5 --report json:/dev/null "
                 ">/dev/null",
                 "not written", "was skipped");
    expect_passed("$RUN --dump d.h5 >/dev/null && \"$SHARDCHECK\" run --fixture d.h5 --tp 1 >/dev/null");
    cr_expect_eq(files_here(), 1);
}

Test(cli_outputs, a_report_goes_into_a_pipe_a_link_and_standard_output_as_named) {
    expect_passed("$RUN --report json:/dev/stdout | grep -c '\"shardcheck-result/1\"' >/dev/null");
    expect_passed("$RUN --report json:/dev/fd/1 | grep -c '^{$' >/dev/null");
    expect_passed("$RUN --report json:>(cat >piped) >/dev/null; while [ ! -s piped ]; do sleep 0.1; done; "
                  "grep -q shardcheck-result piped");
    expect_passed(
        "version >/dev/null; ln -s target link; \"$SHARDCHECK\" $RUN --report junit:link >/dev/null && "
        "[ -L link ] && grep -q testsuite target");
    expect_passed("version >/dev/null; mkfifo fifo; (cat fifo >got) & sleep 0.2; "
                  "\"$SHARDCHECK\" $RUN --report json:fifo >/dev/null && wait && [ -p fifo ] && [ -s got ]");
    expect_error("$RUN --report json:fifo", "nobody reads this pipe", "start its reader first");
    expect_error("$RUN --report json:/dev/full >/dev/null", "--report json:/dev/full: No space", "free");
    cr_expect_eq(files_here(), 5);
}

Test(cli_outputs, what_does_not_reach_standard_output_is_trouble) {
    static const char *const words[] = {
        "$RUN", "$RUN --report json", "list kernels", "help", "help list", "version", "probe", "--help"};
    char command[128];
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        snprintf(command, sizeof command, "%s >/dev/full", words[i]);
        expect_error(command, "standard output: No space left", "; ");
        snprintf(command, sizeof command, "%s >&-", words[i]);
        expect_error(command, "standard output: ", "; ");
    }
    expect_passed("list kernels | head -n 1 >/dev/null");
}

Test(cli_outputs, closed_standard_streams_lead_no_bytes_into_an_output) {
    char err[2048];
    cr_expect_eq(run("$RUN --report json:a --dump d.h5 >&- <&- 2>&-", err), 2);
    cr_expect(!*err && files_here() == 0, "%s", err);
    expect_passed("$RUN --report json:a --dump d.h5 <&- 2>&- >/dev/null");
    expect_passed("run --fixture d.h5 --tp 1 >/dev/null && [ \"$(head -c 1 a)\" = '{' ]");
    cr_expect_eq(files_here(), 2);
}

/* ---- signals ---- */

static pid_t start(bool in_process) {
    static const char *const words[] = {"run",    "param2-17b", "--report", "json:r.json", "--dump", "d.h5",
                                        "--part", "ffn",        "--tp",     "1",           NULL};
    const pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stdout) || !freopen("err", "w", stderr)) _exit(99);
        char *arguments[16] = {"shardcheck"};
        int n = 1;
        for (const int *s = (const int[]){SIGHUP, SIGINT, SIGTERM, 0}; *s; s++)
            signal(*s, SIG_DFL); /* ignored under nohup, and behind an & of sh */
        for (; words[n - 1]; n++) arguments[n] = (char *)words[n - 1];
        arguments[n] = in_process ? "--in-process" : NULL;
        execv(getenv("SHARDCHECK"), arguments);
        _exit(99);
    }
    for (int i = 0; i < 3000 && files_here() < 5; i++) /* two files beside, two that were there, err */
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    cr_expect_eq(files_here(), 5, "it is at work");
    return child;
}

static int end_of(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    return status;
}

Test(cli_outputs, a_signal_stops_a_run_with_a_whole_report_and_nothing_half_done) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    char text[300];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        cr_assert(!system("rm -f err; echo old >r.json; echo old >d.h5"));
        const pid_t child = start(false);
        kill(child, numbers[i]);
        const int status = end_of(child);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 2, "%d: %x", numbers[i], status);
        cr_expect_eq(files_here(), 3, "signal %d leaves files", numbers[i]);
        snprintf(text, sizeof text,
                 "grep -q 'not run: interrupted by SIG%s' r.json && tail -n 1 r.json | grep -qx '}'",
                 sigabbrev_np(numbers[i]));
        cr_expect(!system(text), "%s", text);
        cr_expect(!system("[ $(cat d.h5) = old ] && [ $(wc -l <err) = 1 ]"));
    }
}

Test(cli_outputs, a_second_signal_kills_and_leaves_the_old_files_only) {
    cr_assert(!system("echo old >r.json; echo old >d.h5"));
    const pid_t child = start(true);
    for (int i = 0; i < 2; i++) {
        kill(child, SIGTERM);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    const int status = end_of(child);
    cr_expect((WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) || WEXITSTATUS(status) == 2, "%x", status);
    cr_expect_eq(files_here(), 3);
    cr_expect(!system("[ $(cat d.h5) = old ]"));
}
