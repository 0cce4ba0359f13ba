/* Is what a run says of its facts true? Tiles are those of the kernels, and a fact is met by a case
 * that shows it and not by one that lacks just that. */
/* SPDX-License-Identifier: MIT */
#include "harness/coverage.h"
#include "harness/run.h"
#include "reports/report.h"
#include "tests/one_case.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* A second saying of the same: an online softmax takes one step a tile of keys. */
Test(coverage, key_tiles_of_attention_kernels_are_the_blocks_of_their_contracts) {
    for (const struct kernel *k = kernel_table; k->name; k++) {
        if (k->op != OP_ATTENTION) continue;
        for (int64_t dim = 64; dim <= 256; dim *= 2) {
            const struct call call = {
                OP_ATTENTION,
                .u.attention = {.n_seqs = 1, .n_heads = 4, .n_kv_heads = 2, .head_dim = dim, .max_kv = 100}};
            cr_expect_eq(k->tiles(&call).of[EXTENT_KEYS].size, k->contract(&call).u.attention.block,
                         "%s at %d dims", k->name, (int)dim);
        }
    }
}

Test(coverage, facts_have_names_of_their_own_and_apply_where_their_kernel_runs) {
    char name[48], other[48];
    const int n = coverage_count();
    cr_assert(n > 100 && n <= MAX_FACTS);
    for (int f = 0; f < n; f++) {
        coverage_name(f, name, sizeof name);
        cr_expect(strlen(name) > 2 && strlen(coverage_describe(f)) > 4, "%d", f);
        cr_expect(coverage_applies(f, DEVICE_HOST), "%s: every kernel with tiles has a host build", name);
        for (int g = 0; g < f; g++) {
            coverage_name(g, other, sizeof other);
            cr_expect_neq(strcmp(name, other), 0, "%s stands there twice", name);
        }
    }
}

/* ---- single cases ---- */

static struct case_result run_line(const char *line, struct run_output *out) {
    *out = run_one(line, (struct one_case){0});
    cr_assert_eq(out->cases[0].verdict, CASE_PASSED, "%s: %s", line, out->cases[0].reason);
    return out->cases[0];
}

static int fact_by_name(const char *text) {
    char name[48];
    for (int f = 0; f < coverage_count(); f++) {
        coverage_name(f, name, sizeof name);
        if (!strcmp(name, text)) return f;
    }
    cr_assert(false, "no fact %s", text);
    return -1;
}

static void expect_fact(const char *line, const char *fact, bool met) {
    struct run_output out;
    const struct case_result r = run_line(line, &out);
    cr_expect_eq(fact_is_in(&r.facts, fact_by_name(fact)), met, "%s: %s %s", line, fact,
                 met ? "is not met" : "is met");
    run_output_free(&out);
}

#define A "tiny/attention:tp=1,hidden=8,"
#define F "tiny/ffn:tp=1,hidden=8,width=8,"
/* Of every fact of the table a case that shows it, and one that is next to it and does not. */
static const struct {
    const char *fact, *shows, *lacks;
} pairs[] = {
    {"group-1", A "heads=4,kv=4", A "heads=4,kv=2"},
    {"group-4", A "heads=4,kv=1", A "heads=6,kv=1"},
    {"group-6", A "heads=6,kv=1", A "heads=8,kv=1"},
    {"group-8", A "heads=8,kv=1", A "heads=7,kv=1"},
    {"group-above-16", A "heads=17,kv=1", A "heads=16,kv=1"},
    {"group-no-power", A "heads=6,kv=2", A "heads=4,kv=2"},
    {"tp-above-kv", "tiny/attention:tp=4,kv=2", "tiny/attention:tp=2,kv=2"},
    {"dims-128", A "dim=128", A "dim=64"},
    {"dims-256", A "dim=256,heads=1,kv=1", A "dim=128"},
    {"dims-odd", A "dim=20", A "dim=24"},
    {"no-qk-norm", A "qk_norm=off", A "qk_norm=on"},
    {"contiguous", A "layout=contig", A "layout=packed"},
    {"partial-rope", A "rot=8", A "rot=16"},
    {"prefill", A "tokens=5", A "phase=decode,tokens=3"},
    {"chunked", A "phase=chunked,tokens=5", A "tokens=5"},
    {"decode", A "phase=decode,tokens=3", A "tokens=5"},
    {"first-key", A "phase=decode,tokens=1,cached=0", A "phase=decode,tokens=1,cached=1"},
    {"sequences-equal", A "seqs=2,lengths=equal", A "seqs=2"},
    {"sequences-unequal", A "seqs=2", A "seqs=2,lengths=equal"},
    {"uniform-queries", A "seqs=2,lengths=equal,tokens=2", A "phase=decode,tokens=2,lengths=equal"},
    {"mixed-batch", A "phase=chunked,seqs=3,lengths=spread", A "phase=chunked,seqs=3"},
    {"cached-200", A "phase=decode,tokens=1,cached=200", A "phase=decode,tokens=1,cached=199"},
    {"cached-5000", A "heads=1,kv=1,phase=decode,tokens=1,cached=5000",
     A "heads=1,kv=1,phase=decode,tokens=1,cached=4999"},
    {"pages-over-256", A "heads=1,kv=1,phase=decode,tokens=1,cached=4080",
     A "heads=1,kv=1,phase=decode,tokens=1,cached=4060"},
    {"opens-page", A "phase=decode,tokens=1,cached=16", A "phase=decode,tokens=1,cached=15"},
    {"fills-page", A "phase=decode,tokens=1,cached=15", A "phase=decode,tokens=1,cached=16"},
    {"bias-qkv", A "bias=qkv", A "bias=none"},
    {"bias-o", A "bias=qkvo", A "bias=qkv"},
    {"fp32", A "dtype=fp32", A "dtype=bf16"},
    {"fp16", A "dtype=fp16", A "dtype=bf16"},
    {"expert-idle", F "tokens=1", F "tokens=9,experts=2,top=2"},
    {"experts-all-read", F "experts=64,top=16,tokens=33", F "experts=64,top=16,tokens=3"},
    {"rank-idle", "tiny/ffn:tp=8,ep=8,tokens=1,top=1", "tiny/ffn:tp=2,ep=2,tokens=9,experts=2,top=2"},
    {"experts-128-top-8", F "experts=128,top=8,tokens=2", F "experts=128,top=4,tokens=2"},
    {"top-1", F "top=1", F "top=2"},
    {"one-token", F "tokens=1", F "tokens=2"},
    {"softmax", F "score=softmax", F "score=sigmoid"},
    {"sigmoid", F "score=sigmoid", F "score=softmax"},
    {"raw-gates", F "renorm=off", F "renorm=on"},
    {"select-bias", F "select_bias=on", F "select_bias=off"},
    {"no-select-bias", F "select_bias=off", F "select_bias=on"},
    {"group-limit", F "groups=4,topk_groups=2", F "groups=4,topk_groups=4"},
    {"negative-choice", F "groups=4,topk_groups=2,select_bias=on",
     F "groups=4,topk_groups=2,select_bias=off"},
    {"rejected-taken", F "groups=4,topk_groups=1,score=softmax,group_fill=0",
     F "groups=4,topk_groups=1,score=softmax,group_fill=-inf"},
    {"tie", F "fill=ties", F "fill=random"},
    {"ambiguous", F "fill=ties", F "fill=random,tokens=2"},
    {"slots-over-512", F "tokens=129,top=4", F "tokens=128,top=4"},
    {"ep-above-1", "tiny/ffn:tp=2,ep=2", "tiny/ffn:tp=2"},
    {"ep-and-etp", "tiny/ffn:tp=4,ep=2", "tiny/ffn:tp=2,ep=2"},
    {"gate-below-0.1", F "top=16,renorm=on", F "top=1,renorm=on"},
    {"no-shared", F "shared=0", F "shared=64"},
    {"dense-ffn", "tiny/ffn:tp=1,layer=0", "tiny/ffn:tp=1,layer=1"},
    {"parts-8", "tiny/attention:tp=8", "tiny/attention:tp=4"},
};
enum { N_PAIRS = sizeof pairs / sizeof *pairs };

Test(coverage, every_fact_of_the_table_is_met_by_what_shows_it_and_not_by_what_lacks_it) {
    int i = 0;
    for (const struct fact *f = fact_table; f->name; f++, i++) {
        cr_assert(i < N_PAIRS && !strcmp(pairs[i].fact, f->name), "%s has no cases here", f->name);
        expect_fact(pairs[i].shows, f->name, true);
        expect_fact(pairs[i].lacks, f->name, false);
    }
    cr_assert_eq(i, N_PAIRS);
}

Test(coverage, the_ends_of_tiles_are_told_from_the_sizes_next_to_them) {
    static const struct {
        int64_t tokens; /* tiles of 64 queries and 64 keys */
        bool below, at, above, several;
    } sizes[] = {{62, 0, 0, 0, 0},  {63, 1, 0, 0, 0},  {64, 0, 1, 0, 0}, {65, 0, 0, 1, 0},
                 {66, 0, 0, 0, 0},  {127, 1, 0, 0, 0}, {1, 0, 0, 0, 0},  {129, 0, 0, 1, 1},
                 {128, 0, 1, 0, 0}, {130, 0, 0, 0, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char line[96];
        snprintf(line, sizeof line, A "heads=1,kv=1,tokens=%d", (int)sizes[i].tokens);
        expect_fact(line, "attention_simt.queries.below", sizes[i].below);
        expect_fact(line, "attention_simt.keys.at", sizes[i].at);
        expect_fact(line, "attention_simt.keys.above", sizes[i].above);
        expect_fact(line, "attention_simt.queries.several", sizes[i].several);
        expect_fact(line, "attention_simt.keys.long", false);
        expect_fact(line, "attention_mma.keys.at", false); /* another kernel took the call */
    }
}

Test(coverage, rows_of_experts_are_counted_expert_by_expert) {
    expect_fact(F "experts=2,top=2,tokens=65", "linear_simt.rows.above", true);
    expect_fact(F "experts=1,top=1,tokens=64,shared=0", "linear_simt.rows.at", true);
}

/* ---- in reports ---- */

Test(coverage, reports_count_what_was_met_and_name_what_was_not) {
    struct run_output out;
    run_line("tiny/attention:tp=2", &out);
    char *text = NULL;
    size_t size;
    int met, all, in_case = 0;
    report_count_facts(&out.result, &met, &all);
    for (int f = 0; f < MAX_FACTS; f++) in_case += fact_is_in(&out.cases[0].facts, f);
    cr_expect(met > 5 && met < all && met == in_case, "%d of %d", met, all);
    cr_expect_eq(all, coverage_count());
    FILE *file = open_memstream(&text, &size);
    report_text_end(file, &out.result, 1);
    fclose(file);
    char want[64];
    snprintf(want, sizeof want, "coverage %d of %d facts; not met: ", met, all);
    cr_expect(strstr(text, want) && strstr(text, "attention_mma.keys.at"), "%s", text);
    free(text);
    file = open_memstream(&text, &size);
    report_json(file, &out.result, 0);
    fclose(file);
    snprintf(want, sizeof want, "\"met\": %d,", met);
    cr_expect(strstr(text, want) && strstr(text, "\"fact\": \"group-above-16\""), "%s", text);
    free(text);
    file = open_memstream(&text, &size);
    report_junit(file, &out.result, 0);
    fclose(file);
    snprintf(want, sizeof want, "<property name=\"coverage\" value=\"%d of %d\"/>", met, all);
    cr_expect(strstr(text, want), "%s", text);
    free(text);
    struct case_result back;
    text = report_case_json(&out.cases[0]);
    cr_assert(report_read_case(text, strlen(text), &back));
    cr_expect(!memcmp(&back.facts, &out.cases[0].facts, sizeof back.facts), "as a worker sends them");
    free(text), free(back.stage), free(back.repro);
    static const char wrong[] = "{\"verdict\": \"passed\", \"facts\": [256]}";
    cr_expect_not(report_read_case(wrong, strlen(wrong), &back), "there is no such number");
    run_output_free(&out);
}
