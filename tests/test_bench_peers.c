/* What if the process that times the peers is not there, says nonsense, or dies? A script stands in
 * for it: it answers in the words of python/shardcheck/peers.py. */
/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/bench_peers.h"
#include "tests/shell.h"

TestSuite(bench_peers, .init = folder_enter_with_binary, .fini = folder_leave);

#define SMALL "bench decode:heads=4,kv=2,dim=32,seqs=2,keys=20 attention_simt --rounds 2 --peers ./peers"
#define HELLO "*hello*) echo '{\"peers\": \"a script\"}' ;;\n"
#define SHAPE                                                                                                \
    "*shape*) echo '{\"peers\": [{\"name\": \"steady\"}, {\"name\": \"picky\", \"refused\": \"too "          \
    "small\"}]}' ;;\n"
#define ROUND /* a launch takes a second */                                                                  \
    "*round*) n=${line#*\\\"launches\\\":}; n=${n%%,*}; t=1; while [ $n -gt 1 ]; do t=$t,1; n=$((n - 1)); "  \
    "done\n"                                                                                                 \
    "    echo \"{\\\"seconds\\\": [$t]}\" ;;\n"

/* ./peers, whose answers are the cases. */
static void stand_in_with(const char *cases) {
    FILE *const file = fopen("peers", "w");
    cr_assert(file);
    fprintf(file, "#!/bin/sh\nwhile read -r line; do\ncase $line in\n%sesac\ndone\n", cases);
    fclose(file);
    chmod("peers", 0755);
}

Test(bench_peers, a_peer_is_timed_beside_ours_and_one_that_refuses_says_so) {
    stand_in_with(HELLO SHAPE ROUND);
    expect(SMALL, 0, "peers  a script");
    cr_expect(strstr(text, "steady") && strstr(text, "1.000 s"), "%s", text);
    cr_expect(strstr(text, "refused  too small"), "%s", text);
    expect(SMALL " --report csv", 0, ",steady,2,2,"); /* the fastest peer of attention_simt */
    expect(SMALL " --report csv --cache warm", 0, "steady,peer,timed,warm,");
}

Test(bench_peers, without_them_the_run_is_the_same_and_says_so) {
    expect("bench decode:heads=4,kv=2,dim=32,seqs=2,keys=20 attention_simt --rounds 2 --peers ./nowhere", 0,
           "peers  none: ./nowhere: No such file");
    stand_in_with("*hello*) echo '{\"none\": \"no torch\"}' ;;\n");
    expect(SMALL, 0, "peers  none: no torch");
    cr_expect(strstr(text, "1 timed"), "%s", text);
    stand_in_with("*) echo 'hello?' ;;\n");
    expect(SMALL, 0, "peers  none: the process that times them died or hung");
    stand_in_with("*) exit 1 ;;\n");
    expect(SMALL, 0, "peers  none: the process that times them died or hung");
}

Test(bench_peers, one_that_dies_in_between_loses_only_its_own_times) {
    stand_in_with(HELLO SHAPE "*round*) exit 1 ;;\n");
    expect(SMALL " --report json", 0, "a script; then none: the process that times them died or hung");
    cr_expect(strstr(text, "the process that times it is no more"), "%s", text);
    stand_in_with(HELLO "*shape*) exit 1 ;;\n");
    expect(SMALL, 0, "1 timed, 0 wrong");
    stand_in_with(HELLO SHAPE "*round*) echo '{\"failed\": \"out of memory\"}' ;;\n");
    expect(SMALL, 0, "refused  out of memory");
}

Test(bench_peers, times_that_are_none_are_not_taken) {
    static const char *const answers[] = {"{\"seconds\": [0]}", "{\"seconds\": [\"nan\"]}",
                                          "{\"seconds\": []}", "{\"seconds\": [1, 1, 1, 1, 1, 1, 1]}", "{}"};
    char cases[600];
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        snprintf(cases, sizeof cases, HELLO SHAPE "*round*) echo '%s' ;;\n", answers[i]);
        stand_in_with(cases);
        expect(SMALL, 0, "refused  an answer that is none");
    }
}

/* A library may compile for minutes. */
Test(bench_peers, a_signal_ends_the_wait_and_keeps_what_was_timed) {
    static const char *const when[] = {"*shape*)", "*round*)"};
    char cases[600];
    for (size_t i = 0; i < sizeof when / sizeof *when; i++) {
        snprintf(cases, sizeof cases, HELLO "%s kill -TERM $PPID; sleep 20; touch waited; exit ;;\n%s",
                 when[i], SHAPE);
        stand_in_with(cases);
        expect(SMALL " --report json:kept.json", 2, "stopped, and nothing after it was timed: decode");
        cr_expect(strstr(text, "interrupted by SIGTERM"), "%s", text);
        cr_expect(access("waited", F_OK), "it waited for its answer");
        expect("compare kept.json kept.json", 0, "copy");
    }
}

Test(bench_peers, all_sizes_are_told) {
    struct bench_peers peers;
    struct bench_peer found[BENCH_PEERS];
    struct bench_shape shape;
    cr_assert(!bench_shape_parse("experts:tokens=3,experts=4,top=2,hidden=8,width=16", &shape).code);
    stand_in_with(HELLO "*shape*) echo \"$line\" >asked; echo '{\"peers\": []}' ;;\n");
    bench_peers_start(&peers, "./peers", DEVICE_HOST);
    cr_expect_str_eq(peers.about, "a script");
    cr_expect_eq(bench_peers_shape(&peers, &shape, found), 0);
    bench_peers_stop(&peers);
    FILE *const file = fopen("asked", "r");
    cr_assert(file && fgets(text, sizeof text, file));
    fclose(file);
    cr_expect(strstr(text, "\"tokens\":3,\"experts\":4,\"top\":2,\"hidden\":8,\"width\":16"), "%s", text);
    int rows[4];
    const char *const at = strstr(text, "\"rows_of_expert\":[");
    cr_assert(at &&
              sscanf(at, "\"rows_of_expert\":[%d,%d,%d,%d]", &rows[0], &rows[1], &rows[2], &rows[3]) == 4);
    cr_expect_eq(rows[0] + rows[1] + rows[2] + rows[3], 6);
}
