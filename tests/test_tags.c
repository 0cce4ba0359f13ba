/* Does a failing case say what it has read? Mistakes in wiring that stand-in kernels and mutants make,
 * and the sentence that must follow; a right kernel says nothing. */
/* SPDX-License-Identifier: MIT */
#include "fixtures/tag.h"
#include "harness/run.h"
#include "tests/stand_in.h"
#include "tests/one_case.h"

#include <criterion/criterion.h>
#include <string.h>

Test(tags, a_row_is_its_own_tag_and_nothing_else_is) {
    double row[24];
    const struct value_tag t = {5, 20000, 130};
    struct value_tag read = {0};
    for (int d = 0; d < 24; d++) row[d] = value_tag_at(&t, d);
    cr_assert(value_tag_of(row, 24, &read));
    cr_expect(read.kv_head == 5 && read.position == 20000 && read.seq == 130);
    row[17] += 1;
    cr_expect(!value_tag_of(row, 24, &read), "a mixture of two rows");
    cr_expect(!value_tag_of(row, 4, &read));
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
    const struct value_tag before = {.kv_head = 0, .position = 39, .seq = 0};
    for (int64_t d = 0; d < a->head_dim; d++)
        dtype_store(a->out.data, a->out.dtype, d, value_tag_at(&before, d));
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
    expect_read(wrong_kv_head, "attention_simt", ATTENTION, S_ATTENTION, "kv head 1 for 0");
    expect_read(previous_value, "attention_simt", ATTENTION, S_ATTENTION,
                "key 39 of sequence 0 for key 40 of sequence 0");
    expect_read(mixed_keys, "attention_simt", ATTENTION, S_ATTENTION, "no single key, for key ");
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
                "nothing for column ");
}
