/* What has changed from one report to another: is the worst named first, and the same called so? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/shell.h"

/* Reports that the tests share: a and again are the same run, m has a mistake seeded. */
static void enter(void) {
    folder_enter_with_binary();
    const char *const runs = "r=\"$SHARDCHECK run tiny --part attention --layout contig --tp 1,2 -q "
                             "--report\"; { $r json:a.json && "
                             "$r json:again.json && ! $r json:m.json --mutant global-head-count; } >log";
    cr_assert(!system(runs));
}

TestSuite(compare, .init = enter, .fini = folder_leave);

static void change(const char *from, const char *to, const char *python) {
    char command[1000];
    snprintf(command, sizeof command,
             "python3 -c \"import json; r = json.load(open('%s')); c = r['cases']; s = c[1]['stages']\n%s\n"
             "json.dump(r, open('%s', 'w'))\"",
             from, python, to);
    cr_assert(!system(command), "%s", command);
}

Test(compare, the_same_run_twice_is_identical) {
    expect("compare a.json again.json", 0, "identical: 2 cases, the same in all but time\n");
    cr_expect_not(strstr(text, "WORSE"), "%s", text);
    expect("compare m.json m.json", 0, "identical: 2 cases");
}

Test(compare, a_case_that_fails_now_stands_first_with_stage_edge_and_ranks) {
    expect("compare a.json m.json", 1,
           "WORSE  tiny/attention:tp=2,layout=contig: PASS -> FAIL\n  kv_write: shard ok -> FAIL\n");
    const char *const third = strchr(strchr(text, '\n') + 1, '\n') + 1;
    cr_expect(!strncmp(third, "WORSE", 5), "%s", text);
    cr_expect(strstr(text, "where     stage kv_write, ranks 0-1 of 2"), "%s", text);
    cr_expect(strstr(text, "likely    global-head-count"), "%s", text);
    cr_expect(strstr(text, "1 worse, 0 gone, 0 judged less, 0 better, 0 new"), "%s", text);
    expect("compare m.json a.json", 0, "BETTER tiny/attention:tp=2,layout=contig: FAIL -> PASS\n");
}

Test(compare, what_is_gone_is_worse_and_what_is_new_is_not) {
    change("a.json", "fewer.json", "del c[0]; r['passed'] -= 1");
    expect("compare a.json fewer.json", 1, "GONE   tiny/attention:tp=1,layout=contig: PASS\n");
    expect("compare fewer.json a.json", 0, "NEW    tiny/attention:tp=1,layout=contig: PASS\n");
    change("a.json", "stage.json", "del s[3]");
    expect("compare a.json stage.json", 1,
           "LESS   tiny/attention:tp=2,layout=contig: PASS -> PASS\n  stage qk_norm is gone\n");
    expect("compare stage.json a.json", 0, "0 judged less");
    change("a.json", "edge.json", "del s[1]['edges']['plan']");
    expect("compare a.json edge.json", 1, "  qkv_proj: plan is not judged any more\n");
    change("a.json", "rows.json", "s[6]['edges']['shard']['elements'] -= 1");
    expect("compare a.json rows.json", 1, "  attention: shard judged ");
    change("a.json", "chain.json", "del c[1]['edges']['chain']");
    expect("compare a.json chain.json", 1, "  layer: chain is not judged any more\n");
}

Test(compare, a_failure_that_is_skipped_is_not_better_and_another_stage_is_worse) {
    change("m.json", "skip.json", "c[1]['verdict'] = 'skipped'; r['failed'] -= 1; r['skipped'] += 1");
    expect("compare m.json skip.json", 1, "WORSE  tiny/attention:tp=2,layout=contig: FAIL -> SKIP");
    change("m.json", "more.json", "s[4]['edges']['shard']['state'] = 'FAIL'");
    expect("compare m.json more.json", 1,
           "WORSE  tiny/attention:tp=2,layout=contig: FAIL -> FAIL\n  rope: shard ok -> FAIL\n");
    expect("compare more.json m.json", 0, "0 worse");
}

Test(compare, lost_coverage_is_worse) {
    change("a.json", "lost.json", "[f for f in r['coverage']['facts'] if f['cases']][0]['cases'] = 0");
    expect("compare a.json lost.json", 1, "coverage lost: ");
    expect("compare lost.json a.json", 0, "coverage gained: ");
}

Test(compare, margins_and_times_count_only_where_asked_for) {
    change("a.json", "small.json", "s[1]['edges']['kernel']['margin'] = 0.1");
    change("a.json", "grown.json", "s[1]['edges']['kernel']['margin'] = 0.3; c[1]['seconds'] += 100");
    expect("compare small.json grown.json", 0, "margins  1 grew, 0 shrank\n");
    cr_expect(strstr(text, "  0.10 -> 0.30  qkv_proj, kernel of tiny/attention:tp=2,layout=contig\n"), "%s",
              text);
    expect("compare small.json grown.json --fail-on margin", 1, "1 grew, 0 shrank; 1 by more than 2 times\n");
    expect("compare small.json grown.json --fail-on margin=4", 0, "0 by more than 4 times");
    expect("compare small.json grown.json --fail-on time", 1, ", more than 2 times");
    expect("compare grown.json small.json --fail-on margin=1 --fail-on time=1", 0, ", no more than 1 times");
    expect("compare a.json a.json --fail-on speed", 2, "--fail-on speed: use margin or time, then =RATIO");
    expect("compare a.json a.json --fail-on time=0.5", 2, "use a ratio from 1 to 1000000");
}

Test(compare, what_is_no_report_of_this_format_is_refused_in_one_line) {
    change("a.json", "later.json", "r['schema'] = 'shardcheck-result/2'");
    expect("compare a.json later.json", 2, "later.json: a report of another version");
    cr_assert(!system("head -c 3000 a.json >half.json; echo '{}' >empty.json"));
    expect("compare half.json a.json", 2, "half.json: no report of shardcheck; give what");
    expect("compare a.json empty.json", 2, "no report of shardcheck");
    change("a.json", "cut.json", "del c[0]");
    expect("compare a.json cut.json", 2, "cut.json: a damaged report of shardcheck; write it again\n");
    change("a.json", "odd.json", "s[0]['edges']['kernel']['state'] = 'fine'");
    expect("compare odd.json a.json", 2, "a damaged report");
    expect("compare a.json", 2, "compare: takes two files, these are 1; use shardcheck compare A B\n");
    expect("compare a.json nowhere.json", 2,
           "nowhere.json: No such file or directory; give a JSON report or a file of tensors\n");
}
