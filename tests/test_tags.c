/* Does a failing case say what it has read? Mistakes in wiring that stand-in kernels and mutants make,
 * and the sentence that must follow; a right kernel says nothing. */
/* SPDX-License-Identifier: MIT */
#include "fixtures/fill.h"
#include "fixtures/model.h"
#include "harness/run.h"
#include "tests/stand_in.h"
#include "tests/one_case.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Runs as long as are looked for, at their places in a tensor. */
enum { RUN = 8, RUNS = 20000 };
static double filled[RUNS + RUN];

static int compare_runs(const void *a, const void *b) {
    return memcmp(filled + *(const int *)a, filled + *(const int *)b, RUN * sizeof *filled);
}

Test(tags, no_run_of_values_stands_in_two_places) {
    static const struct {
        int stage;
        enum tensor_id id;
    } rows[] = {{S_KV_WRITE, T_K}, {S_ATTENTION, T_V_CACHE}, {S_PERMUTE, T_NORMED}, {S_DOWN, T_ACT}};
    struct model model;
    cr_assert(!model_load("param2-17b", &model).code);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        static int at[RUNS];
        const struct fill fill = {.kind = FILL_TAGS, .spec = &model.kind[0], .stage = rows[r].stage};
        fill_tensor(&fill, rows[r].id, DTYPE_F64, 0, RUNS + RUN, filled);
        for (int i = 0; i < RUNS; i++) at[i] = i;
        qsort(at, RUNS, sizeof *at, compare_runs);
        for (int i = 1; i < RUNS; i++)
            cr_assert(compare_runs(&at[i - 1], &at[i]), "%s: %d and %d", tensor_table[rows[r].id].name,
                      at[i - 1], at[i]);
    }
}

static void expect_silent(const char *line) {
    struct run_output out = run_one(line, (struct one_case){0});
    cr_expect_eq(out.cases[0].verdict, CASE_PASSED, "%s: %s %s", line, out.cases[0].where,
                 out.cases[0].reason);
    cr_expect(!out.cases[0].read[0], "%s", out.cases[0].read);
    run_output_free(&out);
}

Test(tags, right_kernels_pass_and_say_nothing) {
    expect_silent("tiny/attention:fill=tags,tp=2,phase=chunked,seqs=2");
    expect_silent("tiny/attention:fill=tags,tp=8,dtype=fp32,phase=decode,tokens=3");
    expect_silent("tiny/ffn:fill=tags,tp=4,ep=2");
}

static void expect_read(launch_fn launch, const char *kernel, const char *line, int stage,
                        const char *sentence) {
    stand_in(kernel, launch);
    struct run_output out = run_one(line, (struct one_case){.stage = stage, .kernel = &fake});
    cr_expect_eq(out.cases[0].verdict, CASE_FAILED, "%s", line);
    cr_expect(strstr(out.cases[0].read, sentence), "'%s' lacks '%s'", out.cases[0].read, sentence);
    run_output_free(&out);
}

static const char *wrong_kv_head(const struct call *call, void *scratch, void *stream) {
    struct call c = *call;
    struct attention_args *const a = &c.u.attention;
    const size_t head = (size_t)a->k_cache.stride[2] * dtype_bytes(a->k_cache.dtype);
    if (a->n_kv_heads > 1) { /* every head reads one kv head further */
        a->v_cache.data = (char *)a->v_cache.data + head;
        a->k_cache.data = (char *)a->k_cache.data + head;
    }
    return launch_honest(&c, scratch, stream);
}

/* The first row is the value of the key before the last. */
static const char *previous_value(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    const struct attention_args *const a = &call->u.attention;
    const struct view *const v = &a->v_cache;
    const int64_t page = (int64_t)dtype_load(a->page_table.data, DTYPE_I32, 39 / a->page_size);
    for (int64_t d = 0; d < a->head_dim; d++)
        dtype_store(
            a->out.data, a->out.dtype, d,
            dtype_load(v->data, v->dtype, page * v->stride[0] + 39 % a->page_size * v->stride[1] + d));
    return problem;
}

/* One row is a mixture of keys. */
static const char *mixed_keys(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    const struct attention_args *const a = &call->u.attention;
    for (int64_t d = 0; d < a->head_dim; d++) dtype_store(a->out.data, a->out.dtype, d, 64.5);
    return problem;
}

#define ATTENTION "tiny/attention:tp=1,phase=decode,tokens=3,cached=40"
Test(tags, a_wrong_key_or_head_of_attention_is_named) {
    expect_read(wrong_kv_head, "attention_simt", ATTENTION, S_ATTENTION,
                "kv head 1 of key 40 of sequence 0 for kv head 0 of key 40 of sequence 0 (");
    expect_read(previous_value, "attention_simt", ATTENTION, S_ATTENTION,
                "kv head 0 of key 39 of sequence 0 for kv head 0 of key 40 of sequence 0 (");
    expect_read(mixed_keys, "attention_simt", ATTENTION, S_ATTENTION,
                "a mixture, for kv head 0 of key 40 of sequence 0 (");
}

static const char *shifted_columns(const struct call *call, void *scratch, void *stream) {
    struct call c = *call;
    struct view *const w = &c.u.linear.w;
    w->data = (char *)w->data + 8 * (int64_t)dtype_bytes(w->dtype); /* reads w[n][k + 8] for w[n][k] */
    return launch_honest(&c, scratch, stream);
}

static const char *ranks_store_zeros(const struct call *call, void *scratch, void *stream) {
    struct call c = *call;
    const char *const problem = launch_honest(&c, scratch, stream);
    const struct linear_args *const a = &call->u.linear;
    if (calls++)
        for (int64_t i = 0; i < a->n_rows * a->n_cols; i++) dtype_store(a->out.data, a->out.dtype, i, 0);
    return problem;
}

Test(tags, a_wrong_column_of_a_product_is_named) {
    expect_read(shifted_columns, "linear_simt", "tiny/attention:tp=1,tokens=6", S_QKV_PROJ, "(-8)");
    expect_read(ranks_store_zeros, "linear_simt", "tiny/attention:tp=2,tokens=6", S_O_PROJ,
                "nothing, for column ");
}

/* ---- mistakes in wiring, each with what it makes a stage read ---- */

static void expect_mutant_reads(const char *name, const char *line, const char *sentence) {
    const struct mutant *const m = mutant_by_name(name);
    cr_assert(m, "%s", name);
    char tagged[120];
    snprintf(tagged, sizeof tagged, "%s,fill=tags", line);
    struct run_output out = run_one(tagged, (struct one_case){.mutant = m});
    cr_expect_eq(out.cases[0].verdict, CASE_FAILED, "%s", name);
    cr_expect(!strncmp(out.cases[0].read, sentence, strlen(sentence)), "%s: '%s' for '%s'", name,
              out.cases[0].read, sentence);
    run_output_free(&out);
}

#define TWO_SEQUENCES "tiny/attention:tp=2,phase=chunked,seqs=2,cached=40"
Test(tags, a_mistake_in_views_heads_or_pages_is_told_by_what_it_read) {
    static const char *const rows[][3] = {
        {"packed-view", "tiny/attention:tp=8",
         "kv head 0 of token 1 for kv head 0 of token 3, in slot 3 of page 3 ("},
        {"global-head-count", "tiny/attention:tp=8,layout=contig",
         "kv head 0 of token 4 for kv head 0 of token 1, in slot 1 of page 3 ("},
        {"kv-head-zero", "tiny/attention:tp=8",
         "weights of dim 0 of kv head 0 of k (rank 0's) for dim 0 of kv head 1 of k ("},
        {"keys-are-values", TWO_SEQUENCES,
         "v: kv head 0 of token 0 for k: kv head 0 of token 0, in slot 8 of page 11 ("},
        {"pages-of-sequence-0", TWO_SEQUENCES,
         "kv head 0 of key 39 of sequence 0 for kv head 0 of key 39 of sequence 1: page 11 for page 6 ("},
        {"values-of-keys", TWO_SEQUENCES,
         "k_cache: kv head 0 of key 40 of sequence 0 for v_cache: kv head 0 of key 40 of sequence 0 ("},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_mutant_reads(rows[i][0], rows[i][1], rows[i][2]);
}

Test(tags, a_mistake_among_experts_is_told_by_token_expert_and_rank) {
    static const char *const rows[][2] = {
        {"expert-index-global", "what nobody has written, for token 2, in row 68 (expert 8) ("},
        {"rows-of-slots", "token 16 for token 4, in row 1 (expert 0) ("},
        {"gate-up-of-rank-0", "weights of expert column 0 of half 0 of expert 0 (rank 0's) for expert "
                              "column 16 of half 0 of expert 0 ("},
        {"last-choice-lost", "nothing, for row 124 (token 3, expert 15) ("},
        {"absent-rows-added", "what nobody has written, for nothing ("},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_mutant_reads(rows[i][0], "tiny/ffn:tp=4,ep=2", rows[i][1]);
}

Test(tags, what_fails_on_random_values_is_read_on_tags) {
    const struct mutant *const m = mutant_by_name("packed-view");
    struct run_output out = run_one("tiny/attention:tp=8", (struct one_case){.mutant = m});
    cr_expect_eq(out.cases[0].verdict, CASE_FAILED);
    cr_expect(
        strstr(out.cases[0].read, "kv head 0 of token 1 for kv head 0 of token 3, in slot 3 of page 3 ("),
        "%s", out.cases[0].read);
    run_output_free(&out);
}

/* The rows that come last in a group are read with the weights of the next. */
static const char *groups_end_early(const struct call *call, void *scratch, void *stream) {
    struct call c = *call;
    int32_t offsets[257];
    const int64_t n = c.u.linear.n_groups;
    for (int64_t g = 0; g <= n; g++) offsets[g] = (int32_t)dtype_load(c.u.linear.offsets.data, DTYPE_I32, g);
    for (int64_t g = 1; g < n; g++) offsets[g] -= offsets[g] > offsets[g - 1];
    c.u.linear.offsets.data = offsets;
    return launch_honest(&c, scratch, stream);
}

/* Every row of x is that before it. */
static const char *rows_before(const struct call *call, void *scratch, void *stream) {
    struct call c = *call;
    const struct view *const x = &c.u.linear.x;
    const size_t row = (size_t)c.u.linear.n_inner * dtype_bytes(x->dtype);
    char *const moved = malloc(row * (size_t)c.u.linear.n_rows);
    memcpy(moved, x->data, row);
    memcpy(moved + row, x->data, row * (size_t)(c.u.linear.n_rows - 1));
    c.u.linear.x.data = moved;
    const char *const problem = launch_honest(&c, scratch, stream);
    free(moved);
    return problem;
}

#define FUSED ",tokens=70,hidden=64,experts=4,top=2,width=64,shared=64,kernel.gate_up_act=gated_gemm_wgmma"
Test(tags, a_fused_kernel_of_gate_and_up_is_read_alike) {
    expect_silent("tiny/ffn:fill=tags,tp=4,ep=2" FUSED);
    expect_mutant_reads("gate-up-of-rank-0", "tiny/ffn:tp=4,ep=2" FUSED,
                        "weights of expert column 0 of half 1 of expert 0 (rank 0's) for expert column 32 of "
                        "half 1 of expert 0 (");
}

Test(tags, a_wrong_row_or_expert_of_a_product_is_named) {
    expect_read(groups_end_early, "linear_simt", "tiny/ffn:tp=1,tokens=9", S_GATE_UP, "weights of expert ");
    expect_read(rows_before, "linear_simt", "tiny/ffn:tp=1,tokens=9", S_GATE_UP, "row 0 (token ");
    expect_read(rows_before, "linear_simt", "tiny/attention:tp=1,tokens=9", S_QKV_PROJ,
                "token 0 for token 1 (");
}
