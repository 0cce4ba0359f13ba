/* What does somebody get from a long run that ends early, fails, or is cut into shares? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/config_text.h"
#include "tests/shell.h"

TestSuite(cli_run, .init = folder_enter_with_binary, .fini = folder_leave);

static int count(const char *word) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word)) n++;
    return n;
}

Test(cli_run, mutants_are_scored_by_what_found_and_named_them) {
    expect("mutants packed-view qkv-even-chunks", 0,
           "killed 2 of 2, clean cases flagged 0 of 2, cause named 2; by edge shard 2\n");
    expect("mutants kv-heads-tiled --json", 0, "\"killed\": 1");
}

Test(cli_run, a_worker_and_one_process_report_the_same) {
    cr_assert_eq(run("run tiny --no-grid --report json:a.json"), 0);
    expect("run tiny --no-grid --report json:b.json --in-process", 0,
           ", in one process with the code under test\n");
    expect("run tiny --tp 2 --mutant packed-view --report json:c.json", 1, "packed-view");
    expect("run tiny --tp 2 --mutant packed-view --report json:d.json --in-process", 1, "packed-view");
    const char *const same = "for f in a b c d; do grep -v 'seconds\\|host_bytes\\|command\\|in_process' "
                             "$f.json >$f; done; cmp a b && cmp c d";
    cr_expect(!system(same));
    cr_expect(!system("grep -q '\"in_process\": true' b.json && ! grep -q in_process a.json"));
}

Test(cli_run, what_a_quantised_model_leaves_out_stands_in_the_first_line_and_in_every_report) {
    static const char said[] = "quantisation (fp8) left out: the unquantised layer is checked";
    patched_config_write("tiny", "{\"quantization_config\": {\"quant_method\": \"fp8\"}}", "q.json");
    for (int i = 0; i < 2; i++) {
        char line[200];
        snprintf(line, sizeof line,
                 "run q.json --no-grid --tp 1 --report text --report json:%d.json --report html:%d.html%s", i,
                 i, i ? " --in-process" : "");
        expect(line, 0, said);
        cr_expect(strstr(text, said) < strchr(text, '\n'), "%s", text);
    }
    for (int i = 0; i < 4; i++) {
        char search[200];
        snprintf(search, sizeof search, "grep -q '%s' %d.%s", said, i / 2, i % 2 ? "json" : "html");
        cr_expect(!system(search), "%s", search);
    }
    expect("run tiny --no-grid --tp 1", 0, "2 passed");
    cr_expect(!strstr(text, "quantisation"), "%s", text);
}

Test(cli_run, shrink_ends_with_a_small_case_that_fails_and_its_tensors) {
    expect("run tiny/attention:tp=4 --mutant packed-view --shrink -q", 1, "stage kv_write of rank 0 of ");
    cr_expect(strstr(text, "tokens=2,hidden=1,") && strstr(text, "expected"), "%s", text);
    cr_expect(count("\n") <= 100, "%d lines", count("\n"));
    expect("run tiny --no-grid --shrink", 2, "--shrink: reduces one case, these are 8; name one");
    expect("run tiny/attention:tp=1,tokens=2 --shrink", 2, "tokens=2 passes; nothing to shrink");
    expect("run tiny/ffn:tp=1 --dump x.h5 --shrink", 2, "which --dump holds on to; leave one out");
}

/* The first result is there while the others are still to come: they can be ended then. */
Test(cli_run, results_come_as_they_are_known) {
    FILE *const out =
        popen("echo $$; exec \"$SHARDCHECK\" run tiny/attention:tp=1 param2-17b/ffn:tp=1 2>&1", "r");
    char line[400];
    cr_assert(out && fgets(line, sizeof line, out));
    const pid_t pid = atoi(line);
    bool early = false, ended = false;
    while (fgets(line, sizeof line, out)) {
        if (!strncmp(line, "PASS tiny", 9)) early = !kill(pid, SIGTERM);
        ended |= !strncmp(line, "SKIP param2-17b", 15);
    }
    cr_expect_eq(WEXITSTATUS(pclose(out)), 2);
    cr_expect(early && ended);
}

Test(cli_run, fail_fast_skips_what_is_left) {
    expect("run tiny --part attention --tp 2,4 --tokens 9,10 --mutant packed-view --fail-fast --jobs 1", 1,
           "not run: --fail-fast, after ");
    cr_expect(count("FAIL tiny") >= 1, "%s", text);
    cr_expect(count("SKIP tiny") >= 2);
    cr_expect_eq(count("FAIL tiny") + count("SKIP tiny"), 4);
}

Test(cli_run, a_budget_ends_a_run_and_says_what_it_left) {
    expect("run tiny/attention:tp=1 param2-17b/ffn:tp=1,tokens=900 --time-budget 1.5", 2,
           "not run: the 1.5 s of --time-budget were over");
    cr_expect_eq(count("PASS tiny"), 1, "%s", text);
    expect("run param2-17b/ffn:tp=1,tokens=900 --time-budget 0.2 --allow-skips", 0, "1 skipped");
    expect("run tiny --time-budget 0", 2, "use a number above 0");
}

Test(cli_run, failed_cases_run_again_from_a_report) {
    expect(
        "run tiny --part attention --tp 1,2,4 --mutant global-head-count --report json:r.json --report text",
        1, "1 passed, 2 failed");
    expect("run --failed r.json --mutant global-head-count", 1, "0 passed, 2 failed");
    expect("run --failed r.json --report json:s.json", 0, "");
    expect("run --failed s.json", 2, "no case failed there");
    expect("run --failed r.json tiny", 2, "leave tiny out");
    expect("run --failed nowhere.json", 2, "No such file");
    expect("run --failed r.json --report json:r.json", 2, "which is read");
    cr_assert(!system("echo '{}' >e.json"));
    expect("run --failed e.json", 2, "no report of shardcheck");
}

Test(cli_run, shares_hold_every_case_once_and_none_is_empty) {
    char arguments[100];
    for (int n = 1; n <= 8; n += n < 3 ? 1 : 5) {
        int cases = 0;
        cr_assert(!system("rm -f lines"));
        for (int i = 1; i <= n; i++) {
            snprintf(arguments, sizeof arguments, "run tiny --no-grid --split %d/%d", i, n);
            cr_assert_eq(run(arguments), 0);
            const int here = count("PASS tiny");
            cr_expect(here > 0, "share %d of %d is empty", i, n);
            cases += here;
            FILE *const lines = fopen("lines", "a");
            cr_assert(lines && fputs(text, lines) >= 0 && !fclose(lines));
        }
        cr_expect_eq(cases, 8);
        cr_expect(!system("[ $(grep -o '^PASS [^ ]*' lines | sort -u | wc -l) = 8 ]"));
    }
    expect("run tiny --no-grid --split 9/9", 2, "at most as many shares");
    expect("run tiny --no-grid --split 0/2", 2, "use I/N");
    expect("run tiny --no-grid --split 3/2", 2, "use I/N");
    expect("run tiny --no-grid --split 1/2x", 2, "use I/N");
}

Test(cli_run, an_ffn_is_run_once_for_phases_that_are_the_same_to_it) {
    expect("run tiny --part ffn --tp 2 --phase prefill,chunked,decode", 0, "(same as tiny/ffn:tp=2)");
    cr_expect_eq(count("(same as "), 2, "%s", text);
    cr_expect(strstr(text, "3 passed"));
    expect("run tiny/ffn:tp=2,seqs=2 tiny/ffn:tp=2,phase=decode", 0, "2 passed");
    cr_expect_eq(count("(same as "), 0, "65 tokens are not 33\n%s", text);
    expect("run tiny --part attention --tp 2 --phase prefill,decode", 0, "2 passed");
    cr_expect_eq(count("(same as "), 0);
}

Test(cli_run, numbers_of_the_run_are_read_strictly) {
    expect("run tiny --jobs 0", 2, "an integer from 1 to 64");
    expect("run tiny --timeout x", 2, "use a number above 0");
    expect("run tiny --memory-limit -1", 2, "use a number above 0");
    expect("run tiny/attention:tp=1 --memory-limit 0.001", 2, "--memory-limit GIB allows more");
}

Test(cli_run, a_dump_holds_both_parts_and_says_what_it_lacks) {
    expect("run tiny --tp 1 --dump d.h5", 0, "2 passed");
    cr_expect_eq(count("(same as "), 0, "%s", text);
    expect("run --fixture d.h5 --tp 1", 0, "2 passed");
    cr_expect_eq(count("oracle ok") + count("oracle 0."), 2, "%s", text);
}

Test(cli_run, print_shows_an_element_with_what_it_was_made_of) {
    expect("run tiny/attention:tp=2 --print o[3,5]", 0,
           "attention.o, rank 1 of 2, by attention_simt\n  token 3 head 5 dim 0: got ");
    cr_expect_eq(count("attention.o, "), 2, "the whole and the rank that holds head 5\n%s", text);
    cr_expect_eq(count("token 3 head 5 dim "), 2 * 16 + 2, "outputs, and where the reading of q begins\n%s",
                 text);
    cr_expect_eq(count("reads q from token 3 head 5 dim 0: "), 2, "%s", text);
    expect("run tiny/attention:tp=2 --mutant packed-view --print k[1,0]", 1,
           "nan, expected -0.7421875 +- 0, margin inf");
    expect("run tiny/attention:tp=1,2 --print o", 2, "");
    expect("run tiny/attention:tp=2 --print oo", 2, "no stage stores such a tensor");
    expect("run tiny/attention:tp=2 --print o[3", 2, "use TENSOR[i,j]");
    expect("run tiny --print o[3]", 2, "shows one case");
}
