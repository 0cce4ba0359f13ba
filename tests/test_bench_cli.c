/* Does the command bench do as it is told from outside, and complain in one line? */
/* SPDX-License-Identifier: MIT */
#include <unistd.h>

#include "tests/shell.h"

TestSuite(bench_cli, .init = folder_enter_with_binary, .fini = folder_leave);

#define SMALL "bench decode:heads=4,kv=2,dim=32,seqs=2,keys=20 attention_simt --rounds 2"

Test(bench_cli, a_shape_and_a_kernel_are_timed_and_reported_in_every_format) {
    expect(SMALL " --report text --report json:a.json --report csv:a.csv --report html:a.html", 0,
           "1 timed, 0 wrong, 0 refused");
    cr_expect(strstr(text, "2 of 2 rows held against the reference"), "%s", text);
    cr_expect(strstr(text, "cold") && strstr(text, "warm"), "%s", text);
    expect("compare a.json a.json", 0, "0 slower, 0 faster");
    cr_expect(!access("a.csv", F_OK) && !access("a.html", F_OK));
    expect(SMALL " --cache cold --report csv", 0, "attention_simt,ours,timed,cold");
    cr_expect(!strstr(text, "timed,warm"), "%s", text);
}

/* Every launch of a report takes so many times as long. */
static void stretch(const char *from, const char *to, const char *name, double factor) {
    FILE *const in = fopen(from, "r"), *const out = fopen(to, "w");
    char line[4096];
    bool inside = false, launches = false;
    double seconds;
    while (fgets(line, sizeof line, in)) {
        if (strstr(line, "\"name\"")) inside = strstr(line, name) != NULL;
        launches = strstr(line, "\"seconds\"") || (launches && !strchr(line, ']'));
        if (inside && launches && sscanf(line, "%lf", &seconds) == 1)
            fprintf(out, "%.17g%s", factor * seconds, strchr(line, ',') ? ",\n" : "\n");
        else
            fputs(line, out);
    }
    fclose(in), fclose(out);
}

Test(bench_cli, a_slower_kernel_is_a_defect_and_a_slower_machine_is_trouble) {
    expect("bench decode:heads=4,kv=2,dim=32,seqs=2,keys=20 attention_simt --rounds 10 --report json:a.json",
           0, "");
    stretch("a.json", "b.json", "attention_simt", 100);
    stretch("a.json", "c.json", "memcpy", 100);
    expect("compare a.json b.json", 1, "SLOWER");
    cr_expect(strstr(text, "2 slower, 0 faster"), "%s", text);
    expect("compare b.json a.json", 0, "2 faster");
    expect("compare a.json c.json", 2, "copies or dense products are not as fast as they were there");
}

Test(bench_cli, what_cannot_be_done_is_one_line) {
    static const struct {
        const char *arguments, *says;
    } rows[] = {
        {"bench attention_sim", "attention_sim: no such shape; use prefill, decode, experts or dense"},
        {"bench decode:keys=3", "says nothing of seqs"},
        {"bench --cache hot", "use cold, warm or both"},
        {"bench --rounds 0", "use an integer from 1 to 1000"},
        {"bench --report xml", "no such format; use html, csv, text or json"},
        {"bench --report json --report csv", "two reports in one place"},
        {"bench --report json:a --report csv:a", "two reports in one place"},
        {"bench --report json:a --baseline a", "would replace the baseline"},
        {"bench --baseline nothing.json", "nothing.json: No such file"},
        {"bench --device gpu", "--device gpu"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        expect(rows[i].arguments, 2, rows[i].says);
        cr_expect_eq(strchr(text, '\n'), text + strlen(text) - 1, "%s: %s", rows[i].arguments, text);
    }
}

Test(bench_cli, a_baseline_of_another_device_is_refused_before_anything_is_timed) {
    expect(SMALL " --report json:a.json", 0, "");
    cr_assert_eq(system("sed 's/SIMT executor/another executor/' a.json >b.json"), 0);
    expect(SMALL " --baseline b.json", 2, "--baseline b.json: was measured on host (another executor");
    cr_expect(!strstr(text, "cache"), "%s", text);
}

Test(bench_cli, a_run_that_was_not_timed_is_no_baseline) {
    expect("run tiny --tp 1 --no-grid --report json:run.json", 0, "");
    expect(SMALL " --baseline run.json", 2, "nothing that was timed");
    expect(SMALL " --report json:a.json", 0, "");
    expect("compare run.json a.json", 2, "nothing that was timed");
}
