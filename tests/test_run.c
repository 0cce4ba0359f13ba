/* Does a whole run say what is true? Preset tiny from the command line to the results: every legal
 * case passes, and every seeded mistake is caught where it shows, named, and invisible where it
 * cannot show. */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/options.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A shell's view of a command: words at spaces, single quotes keep them together. */
struct words {
    char text[1024], *argv[40];
    int argc;
};
static struct words split(const char *command) {
    struct words w = {.argc = 0};
    char *out = w.text;
    cr_assert(strlen(command) < sizeof w.text);
    for (const char *at = command; *at;) {
        while (*at == ' ') at++;
        if (!*at) break;
        w.argv[w.argc++] = out;
        for (bool quoted = false; *at && (quoted || *at != ' '); at++)
            if (*at == '\'')
                quoted = !quoted;
            else
                *out++ = *at;
        *out++ = 0;
    }
    return w;
}

/* The offsets survive the copy of struct words; its pointers do not. */
static struct status parse(const char *command, struct options *o) {
    static struct words kept[64];
    static int n;
    struct words *const w = &kept[n++ % 64];
    const struct words local = split(command);
    memcpy(w->text, local.text, sizeof w->text);
    w->argc = local.argc;
    for (int i = 0; i < w->argc; i++) w->argv[i] = w->text + (local.argv[i] - local.argv[0]);
    return options_parse(w->argc, w->argv, o);
}

/* options_free is the caller's, run_output_free too. */
static void run(const char *command, struct options *o, struct run_output *out) {
    struct status s = parse(command, o);
    cr_assert_eq(s.code, STATUS_OK, "%s: %s", command, s.message);
    s = run_cases(&o->run, out);
    cr_assert_eq(s.code, STATUS_OK, "%s: %s", command, s.message);
    cr_assert_eq(out->result.n_cases, o->run.n_cases);
    cr_assert_eq(out->result.n_passed + out->result.n_failed + out->result.n_skipped, o->run.n_cases);
}

static void done(struct options *o, struct run_output *out) {
    run_output_free(out);
    options_free(o);
}

/* ---- what passes ---- */

static void expect_passed(const struct case_result *r) {
    cr_expect_eq(r->verdict, CASE_PASSED, "%s: %s %s", r->line, r->where, r->first.note);
    cr_expect(r->n_stages > 0 && !r->where[0] && !r->likely[0] && !r->reason[0]);
    for (int e = 0; e < EDGE_ORACLE; e++) {
        cr_expect_eq(r->edge[e].state, EDGE_OK, "%s: edge %d", r->line, e);
        cr_expect(r->edge[e].margin <= 1 && r->edge[e].elements > 0 && r->edge[e].outside == 0, "%s",
                  r->line);
    }
    cr_expect_eq(r->edge[EDGE_ORACLE].state, EDGE_NOT_RUN);
    cr_expect_eq(r->edge[EDGE_PLAN].rows, r->edge[EDGE_PLAN].sampled_rows,
                 "tiny is small enough for every row");
    for (int s = 0; s < r->n_stages; s++) {
        const struct stage_result *const stage = &r->stage[s];
        cr_expect(stage->kernel[0] && stage_by_name(stage->stage) >= 0);
        cr_expect_eq(stage->edge[EDGE_KERNEL].state, EDGE_OK, "%s %s", r->line, stage->stage);
        cr_expect_eq(stage->edge[EDGE_SHARD].state, EDGE_OK, "%s %s", r->line, stage->stage);
    }
}

static void expect_all_pass(const char *command, int64_t n_cases) {
    struct options o;
    struct run_output out;
    run(command, &o, &out);
    cr_expect_eq(o.run.n_cases, n_cases, "%s: %lld cases", command, (long long)o.run.n_cases);
    for (int64_t i = 0; i < o.run.n_cases; i++) expect_passed(&out.cases[i]);
    done(&o, &out);
}

Test(run, attention_passes_in_every_phase_layout_and_dtype_at_every_tp) {
    expect_all_pass(
        "shardcheck run tiny --part attention --tp 1,2,4,8 --phase prefill --tokens 1,5 --seqs 1,3 "
        "--layout packed,contig --dtype bf16,fp16,fp32",
        96);
    expect_all_pass(
        "shardcheck run tiny --part attention --tp 1,2,4,8 --phase chunked,decode --tokens 1,5 --cached 0,17 "
        "--layout packed,contig --dtype bf16,fp16,fp32",
        192);
}

Test(run, ffn_passes_in_every_phase_layout_and_dtype_at_every_tp_and_ep) {
    expect_all_pass(
        "shardcheck run tiny --part ffn --tp 1,2,4,8 --ep 1 --phase prefill,chunked,decode --tokens 1,5 "
        "--layout packed,contig --dtype bf16,fp16,fp32",
        144);
    expect_all_pass("shardcheck run tiny --part ffn --tp 2,4,8 --ep 2 --phase prefill,decode --tokens 1,5 "
                    "--dtype bf16,fp16,fp32",
                    36);
    expect_all_pass("shardcheck run tiny --part ffn --tp 8 --ep 4,8 --tokens 1,5", 4);
    expect_all_pass("shardcheck run tiny --part ffn --layer 0 --tp 1,2,4,8 --dtype bf16,fp16,fp32 --tokens 5",
                    12);
}

Test(run, outliers_and_ties_pass_in_every_phase_at_every_tp_and_ep) {
    expect_all_pass("shardcheck run tiny --part attention --tp 1,2,4,8 --phase prefill,chunked,decode "
                    "--tokens 5 --dtype bf16,fp16,fp32 --fill outliers,ties",
                    72);
    expect_all_pass("shardcheck run tiny --part ffn --tp 2,4,8 --ep 1,2 --phase prefill --tokens 33 "
                    "--dtype bf16,fp16,fp32 --fill outliers,ties --groups 4 --topk_groups 2",
                    36);
    expect_all_pass(
        "shardcheck run tiny --part ffn --tp 1,2,8 --tokens 33 --dtype bf16,fp32 --fill random,ties "
        "--groups 4 --topk_groups 2 --group_fill 0 --score softmax,sigmoid",
        24);
}

Test(run, another_seed_passes_and_the_same_seed_gives_the_same_margins) {
    struct options o[2];
    struct run_output out[2];
    for (int i = 0; i < 2; i++)
        run("shardcheck run tiny --tp 2 --tokens 5 --seed 3,4 --dtype fp32", &o[i], &out[i]);
    for (int64_t c = 0; c < o[0].run.n_cases; c++)
        for (int e = 0; e < EDGE_COUNT; e++)
            cr_expect_eq(out[0].cases[c].edge[e].margin, out[1].cases[c].edge[e].margin, "%s",
                         out[0].cases[c].line);
    cr_expect_neq(out[0].cases[0].edge[EDGE_KERNEL].margin, out[0].cases[1].edge[EDGE_KERNEL].margin);
    for (int i = 0; i < 2; i++) done(&o[i], &out[i]);
}

Test(run, cases_that_share_a_trunk_say_what_they_say_alone) {
    struct options together, alone;
    struct run_output all, one;
    run("shardcheck run tiny --part ffn --dtype fp32 --tokens 5", &together, &all);
    cr_assert_eq(together.run.n_cases, 4);
    for (int64_t c = 0; c < together.run.n_cases; c++) {
        run(all.cases[c].repro, &alone, &one);
        cr_assert_eq(alone.run.n_cases, 1);
        cr_expect_str_eq(one.cases[0].line, all.cases[c].line);
        for (int e = 0; e < EDGE_COUNT; e++) {
            cr_expect_eq(one.cases[0].edge[e].margin, all.cases[c].edge[e].margin, "%s edge %d",
                         all.cases[c].line, e);
            cr_expect_eq(one.cases[0].edge[e].elements, all.cases[c].edge[e].elements, "%s edge %d",
                         all.cases[c].line, e);
        }
        done(&alone, &one);
    }
    done(&together, &all);
}

/* ---- seeded mistakes ---- */

static void expect_repro_fails_again(const struct case_result *r, const char *mutant) {
    struct options o;
    struct run_output out;
    cr_assert(strstr(r->repro, mutant), "%s", r->repro);
    run(r->repro, &o, &out);
    cr_assert_eq(o.run.n_cases, 1, "%s", r->repro);
    cr_expect_str_eq(out.cases[0].line, r->line);
    cr_expect_eq(out.cases[0].verdict, CASE_FAILED);
    cr_expect_str_eq(out.cases[0].where, r->where);
    cr_expect_eq(out.cases[0].edge[EDGE_SHARD].outside, r->edge[EDGE_SHARD].outside);
    done(&o, &out);
}

/* The mutant's edge fails and no other; the ranks are all of them; the mistake is named. */
static void expect_caught(const struct case_result *r, const struct mutant *m, int64_t tp) {
    cr_expect_eq(r->verdict, CASE_FAILED, "%s: %s was not seen", r->line, m->name);
    for (int e = 0; e < EDGE_ORACLE; e++)
        cr_expect_eq(r->edge[e].state, e == (int)m->edge ? EDGE_FAIL : EDGE_OK, "%s edge %d", r->line, e);
    char ranks[48];
    snprintf(ranks, sizeof ranks, "ranks 0-%lld of %lld", (long long)tp - 1, (long long)tp);
    cr_expect(tp == 1 || strstr(r->where, ranks), "%s: %s", r->line, r->where);
    cr_expect_eq(strncmp(r->where, "stage kv_write", 14), 0, "%s: %s", r->line, r->where);
    cr_expect_eq(strncmp(r->likely, m->name, strlen(m->name)), 0, "%s: likely '%s'", r->line, r->likely);
    cr_expect(strstr(r->likely, m->source), "%s", r->likely);
    cr_expect(r->first.stage[0] && r->first.where[0] && r->first.note[0] && r->first.margin > 1);
}

static void run_mutant(const char *line, const struct mutant *m, bool visible) {
    char command[600];
    struct options o;
    struct run_output out;
    snprintf(command, sizeof command, "shardcheck run '%s' --mutant %s", line, m->name);
    run(command, &o, &out);
    cr_assert_eq(o.run.n_cases, 1);
    if (visible) {
        expect_caught(&out.cases[0], m, o.run.cases[0].tp);
        if (o.run.cases[0].tp == 2 || !strcmp(line, m->exposes))
            expect_repro_fails_again(&out.cases[0], m->name);
    } else {
        expect_passed(&out.cases[0]);
    }
    done(&o, &out);
}

static const struct {
    const char *sizes;
    int64_t rows;
} shapes[] = {
    {"phase=prefill,tokens=1", 1},           {"phase=prefill,tokens=2", 2},
    {"phase=prefill,tokens=1,seqs=2", 2},    {"phase=prefill,tokens=17", 17},
    {"phase=chunked,tokens=1,cached=20", 1}, {"phase=chunked,tokens=6,cached=20", 6},
    {"phase=decode,tokens=1,cached=9", 1},   {"phase=decode,tokens=2,cached=9", 2},
    {"phase=decode,tokens=5,cached=40", 5},
};

Test(run, global_head_count_shows_in_every_phase_with_more_than_one_rank_and_row) {
    const struct mutant *const m = mutant_by_name("global-head-count");
    cr_assert(m);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t tp = 1; tp <= 8; tp *= 2) {
            char line[200];
            snprintf(line, sizeof line, "tiny/attention:tp=%lld,%s,layout=contig", (long long)tp,
                     shapes[i].sizes);
            run_mutant(line, m, tp > 1 && shapes[i].rows > 1);
        }
}

Test(run, packed_view_shows_in_every_phase_with_more_than_one_row_even_on_one_rank) {
    const struct mutant *const m = mutant_by_name("packed-view");
    cr_assert(m);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int64_t tp = 1; tp <= 8; tp *= 2) {
            char line[200];
            snprintf(line, sizeof line, "tiny/attention:tp=%lld,%s", (long long)tp, shapes[i].sizes);
            run_mutant(line, m, shapes[i].rows > 1);
        }
}

Test(run, a_mutant_shows_in_fp32_too) {
    run_mutant("tiny/attention:tp=2,tokens=5,dtype=fp32,layout=contig", mutant_by_name("global-head-count"),
               true);
    run_mutant("tiny/attention:tp=2,tokens=5,dtype=fp32", mutant_by_name("packed-view"), true);
}

Test(run, only_the_mutated_run_is_blamed) {
    struct options o;
    struct run_output out;
    run("shardcheck run tiny --part attention --tp 1,2,4,8 --tokens 4 --mutant global-head-count", &o, &out);
    cr_expect_eq(out.result.n_failed, 3);
    cr_expect_eq(out.result.n_passed, 1);
    cr_expect_eq(out.cases[0].verdict, CASE_PASSED, "one rank holds the global heads");
    done(&o, &out);
}
