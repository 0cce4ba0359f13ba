/* Known failures for a time, and a run held against an earlier one: does exactly what is known pass? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/shell.h"

TestSuite(waivers, .init = folder_enter_with_binary, .fini = folder_leave);

static void write_file(const char *path, const char *lines) {
    FILE *const file = fopen(path, "w");
    cr_assert(file && fputs(lines, file) >= 0 && !fclose(file));
}

static bool holds(const char *path, const char *word) {
    char command[300];
    snprintf(command, sizeof command, "grep -qF '%s' %s", word, path);
    return !system(command);
}

#define WRONG "run tiny/attention:tp=2 tiny/attention:tp=1,seed=2 --mutant packed-view --waivers w"
#define BOTH                                                                                                 \
    "# the replay of a known mistake\n*/attention:tp=* kv_write 2999-12-31 known since July\n"               \
    "\ttiny/attention:tp=?* attention 2999-12-31 follows from it  # all of this is the reason\r\n\n"

Test(waivers, a_failure_is_waived_where_every_stage_that_failed_is) {
    write_file("w", BOTH);
    expect(WRONG " --report text --report json:j --report junit:x", 0,
           "0 passed, 0 failed, 0 skipped, 2 waived\n");
    cr_expect(strstr(text, "WAIVED tiny/attention:tp=2  ") &&
                  strstr(text, "\n  waived    until 2999-12-31: known since July\n"),
              "%s", text);
    cr_expect(strstr(text, "\n  where     stage kv_write, ranks 0-1 of 2"), "%s", text);
    cr_expect(holds("j", "\"verdict\": \"waived\"") &&
              holds("j", "\"waived\": \"until 2999-12-31: known since July\"") &&
              holds("j", "\"waived\": 2") && holds("j", "\"likely\": \"packed-view"));
    cr_expect(holds("x", "failures=\"0\" errors=\"0\" skipped=\"2\"") &&
              holds("x", "<skipped message=\"waived until 2999-12-31: known since July; stage kv_write"));
    write_file("w", "*/attention:tp=* kv_write 2999-12-31 known\n");
    expect(WRONG, 1, "0 passed, 2 failed, 0 skipped\n"); /* stage attention failed, too */
    write_file("w",
               "tiny/attention:tp=2 kv_write 2999-12-31 a\ntiny/attention:tp=2 attention 2999-12-31 b\n");
    expect(WRONG " --fail-fast", 1, "0 passed, 1 failed, 0 skipped, 1 waived\n");
}

Test(waivers, what_is_out_of_date_covers_nothing_and_fails) {
    write_file("w", "tiny/attention:* kv_write 2001-01-01 a\ntiny/attention:* attention 2999-01-01 b\n");
    expect(WRONG, 1,
           "stale    w:1: waiver of tiny/attention:* at kv_write ended on 2001-01-01; repair it, or set");
    cr_expect(strstr(text, "0 passed, 2 failed, 0 skipped\n"), "%s", text);
    expect("run tiny/ffn:tp=1 --waivers w --report junit:x --report text", 1,
           "1 passed, 0 failed, 0 skipped\n");
    cr_expect(holds("x", "tests=\"2\" failures=\"1\"") &&
              holds("x", "<failure type=\"stale-waiver\" message=\"w:1: "));
}

Test(waivers, what_applies_no_longer_fails_and_what_did_not_run_does_not) {
    write_file("w", BOTH);
    expect("run tiny/attention:tp=2 --waivers w --report json:j --report text", 1,
           "stale    w:2: waiver of */attention:tp=* at kv_write applies no longer, nothing failed there; "
           "remove");
    cr_expect(strstr(text, "1 passed, 0 failed, 0 skipped\n") && holds("j", "\"stale_waivers\": ["), "%s",
              text);
    expect("run tiny/ffn:tp=1 --waivers w", 0, "1 passed"); /* matches no line */
    expect("run tiny/attention:tp=2 --kernel attention=attention_mma --waivers w", 2, "1 skipped\n");
}

Test(waivers, a_line_that_is_none_is_refused_with_its_number) {
    static const struct {
        const char *lines, *says;
    } bad[] = {
        {"# fine\na kv_write 2030-01-01\n",
         "--waivers w: line 2: incomplete; use PATTERN STAGE YYYY-MM-DD REASON\n"},
        {"a kv_wrote 2030-01-01 b\n", "line 1: no such stage: kv_wrote; use kv_write"},
        {"a kv_write 2030-02-30 b\n", "line 1: no date: 2030-02-30; use YYYY-MM-DD, the last day\n"},
        {"a chain 2030-1-1 b\n", "line 1: no date: 2030-1-1;"},
        {"a crash tomorrow b\n", "line 1: no date: tomorrow;"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file("w", bad[i].lines);
        expect("run tiny --waivers w", 2, bad[i].says);
    }
    expect("run tiny --waivers nowhere", 2, "--waivers nowhere: No such file or directory; give one with");
    write_file("w", BOTH);
    expect("run tiny --waivers w --report json:w", 2, "would replace w, which is read");
}

Test(waivers, a_run_is_held_against_its_baseline) {
    expect("run tiny --part attention --tp 1,2 --report json:a -q", 0, "");
    expect("run tiny --part attention --tp 1,2 --baseline a", 0,
           "identical: 2 cases, the same in all but time\n");
    cr_expect(strstr(text, "baseline a: shardcheck ") && strstr(text, "\n2 passed, 0 failed, 0 skipped\n"),
              "%s", text);
    expect("run tiny/attention:tp=1 --baseline a", 1, "GONE   tiny/attention:tp=2: PASS\n");
    expect("run tiny --part attention --tp 1,2 --mutant packed-view --baseline a", 1,
           "WORSE  tiny/attention:tp=2: PASS -> FAIL");
    write_file("w", BOTH);
    expect("run tiny --part attention --tp 1,2 --mutant packed-view --baseline a --waivers w", 0,
           "WAIVED tiny/attention:tp=2: PASS -> WAIVED  until 2999-12-31: known since July\n");
    expect("run tiny --part attention --tp 1,2 --baseline a --report json:/dev/stdout 2>err | python3 -m "
           "json.tool >json && cat err",
           0, "identical: 2 cases"); /* the other report stays whole */
    write_file("b", "{}");
    expect("run tiny --baseline b", 2,
           "--baseline b: no report of shardcheck; give what --report json:FILE wrote\n");
    expect("run tiny --fail-on margin", 2, "use it with --baseline FILE\n");
    expect("run tiny --baseline a --report json:a", 2, "would replace a, which is read");
}
