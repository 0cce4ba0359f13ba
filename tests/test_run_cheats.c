/* Can a kernel cheat? Kernels that do nothing, do too much, or are right only where it is easy
 * stand in for real ones, and each must be found out, at the right stage and rank. */
/* SPDX-License-Identifier: MIT */
#include "harness/run.h"
#include "reports/report.h"
#include "reference/reference.h"
#include "tests/kernels/simt_cases.h"
#include "tests/stand_in.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct check_case case_of(const char *line, int stage) {
    struct check_case c;
    bool has_part;
    const struct status s = case_parse(line, &c, &has_part);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    c.kernel[stage] = &fake;
    return c;
}

/* For scripts/same-reports: every result of this file as JSON, into the folder that the environment
 * names. */
static void keep_report(const struct run_result *run) {
    static int n;
    const char *const folder = getenv("SHARDCHECK_REPORTS");
    char path[4200];
    if (!folder) return;
    snprintf(path, sizeof path, "%s/%s.%d.json", folder, criterion_current_test->name, n++);
    FILE *const file = fopen(path, "w");
    cr_assert(file, "%s", path);
    report_json(file, run, 0);
    cr_assert_eq(fclose(file), 0, "%s", path);
}

static struct run_output run_case(const struct check_case *c) {
    struct check_case copy = *c;
    const struct run_request request = {.cases = &copy, .n_cases = 1};
    struct run_output out;
    const struct status s = run_cases(&request, &out);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    keep_report(&out.result);
    return out;
}

struct want {
    enum edge edge;    /* which fails */
    const char *where; /* what `where` begins with */
    const char *note;  /* part of the first finding's note; NULL: anything */
};

static void expect_failed(const struct run_output *out, struct want w) {
    const struct case_result *const r = &out->cases[0];
    cr_expect_eq(r->verdict, CASE_FAILED, "%s passed", r->line);
    cr_expect_eq(r->edge[w.edge].state, EDGE_FAIL, "%s: edge %d did not fail", r->line, w.edge);
    cr_expect_eq(strncmp(r->where, w.where, strlen(w.where)), 0, "where is '%s', not '%s'", r->where,
                 w.where);
    cr_expect(!w.note || strstr(r->first.note, w.note), "note is '%s', not '%s'", r->first.note, w.note);
    cr_expect(r->first.note[0]);
}

static void expect_found_out(const char *line, int stage, struct want w) {
    const struct check_case c = case_of(line, stage);
    struct run_output out = run_case(&c);
    expect_failed(&out, w);
    run_output_free(&out);
}

#define LINE "tiny/attention:tp=2,tokens=5"

/* ---- outputs of o_proj ---- */

static const char *write_nothing(const struct call *call, void *scratch, void *stream) {
    (void)call, (void)scratch, (void)stream;
    return NULL;
}

Test(run_cheats, a_kernel_that_writes_nothing) {
    stand_in("linear_simt", write_nothing);
    expect_found_out(LINE, S_O_PROJ, (struct want){EDGE_KERNEL, "stage o_proj", "poison: never written"});
    expect_found_out("tiny/ffn:tp=2,tokens=5", S_SHARED_DOWN,
                     (struct want){EDGE_KERNEL, "stage shared_down", "NaN: never written"});
    expect_found_out(LINE, S_QKV_PROJ, (struct want){EDGE_KERNEL, "stage qkv_proj", "never written"});
    stand_in("kv_write", write_nothing);
    expect_found_out(LINE, S_KV_WRITE, (struct want){EDGE_KERNEL, "stage kv_write", "never written"});
    stand_in("route_simt", write_nothing);
    expect_found_out("tiny/ffn:tp=2,tokens=5", S_ROUTE, (struct want){EDGE_KERNEL, "stage route", NULL});
    stand_in("permute_simt", write_nothing);
    expect_found_out("tiny/ffn:tp=2,tokens=5", S_PERMUTE, (struct want){EDGE_KERNEL, "stage permute", NULL});
}

/* What lies behind x counts, unless it is NaN: a maximum drops that. */
static const char *max_with_what_follows(const struct call *call, void *scratch, void *stream) {
    const struct linear_args *const a = &call->u.linear;
    const char *const problem = launch_honest(call, scratch, stream);
    const int64_t last = a->n_rows * a->n_cols - 1;
    const double behind = dtype_load(a->x.data, a->x.dtype, a->n_rows * a->n_inner);
    dtype_store(a->out.data, a->out.dtype, last, fmax(dtype_load(a->out.data, a->out.dtype, last), behind));
    return problem;
}

/* Poison is a number for the unsharded run in the one stage, and for rank 0 in the other. */
Test(run_cheats, a_kernel_that_reads_too_far_and_drops_nan) {
    stand_in("linear_simt", max_with_what_follows);
    expect_found_out(LINE, S_O_PROJ,
                     (struct want){EDGE_KERNEL, "stage o_proj, token 4", "poison: never written, or read"});
    expect_found_out("tiny/ffn:tp=2,tokens=5", S_SHARED_DOWN,
                     (struct want){EDGE_SHARD, "stage shared_down, rank 0 of 2", "poison: never written"});
}

static const char *write_zeros(const struct call *call, void *scratch, void *stream) {
    (void)scratch, (void)stream;
    const struct linear_args *const a = &call->u.linear;
    memset(a->out.data, 0, (size_t)(a->n_rows * a->n_cols) * dtype_bytes(a->out.dtype));
    return NULL;
}

Test(run_cheats, a_kernel_that_writes_zeros) {
    stand_in("linear_simt", write_zeros);
    expect_found_out(LINE, S_O_PROJ, (struct want){EDGE_KERNEL, "stage o_proj", "outside"});
    expect_found_out("tiny/ffn:tp=2,tokens=5", S_DOWN, (struct want){EDGE_KERNEL, "stage down", "outside"});
}

enum { ROW = 3, COLUMN = 17 };

static const char *one_ulp_too_far(const struct call *call, void *scratch, void *stream) {
    const struct linear_args *const a = &call->u.linear;
    const struct contract contract = honest->contract(call);
    const int64_t i = ROW * a->n_cols + COLUMN;
    double *const y = calloc((size_t)a->n_cols, sizeof *y), *const e = calloc((size_t)a->n_cols, sizeof *e);
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    const char *const problem = launch_honest(call, scratch, stream);
    ref_compute(call, &contract, NULL, ROW, ROW + 1, out);
    const double top = dtype_round(a->out.dtype, y[COLUMN] + e[COLUMN]);
    double beyond = top;
    for (double step = fabs(top) * 0x1p-30 + 0x1p-100; beyond == top; step *= 2)
        beyond = dtype_round(a->out.dtype, top + step);
    if (calls++ == 2) dtype_store(a->out.data, a->out.dtype, i, beyond); /* rank 1 only */
    free(y);
    free(e);
    return problem;
}

Test(run_cheats, one_element_of_one_rank_one_ulp_beyond_its_set) {
    stand_in("linear_simt", one_ulp_too_far);
    expect_found_out(LINE, S_O_PROJ,
                     (struct want){EDGE_SHARD, "stage o_proj, rank 1 of 2, token 3, channel 17", "outside"});
    stand_in("linear_simt", one_ulp_too_far);
    expect_found_out(LINE ",dtype=fp32", S_O_PROJ,
                     (struct want){EDGE_SHARD, "stage o_proj, rank 1 of 2, token 3, channel 17", "outside"});
}

/* ---- memory that is not the kernel's ---- */

static const char *write_behind(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    dtype_store(call->u.linear.out.data, call->u.linear.out.dtype, call->u.linear.out.hi + 40, 1);
    return problem;
}
static const char *write_before(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    dtype_store((char *)call->u.linear.out.data - 64, call->u.linear.out.dtype, 0, 1);
    return problem;
}
static const char *change_input(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    ((unsigned char *)call->u.linear.x.data)[6] ^= 1;
    return problem;
}
static const char *change_weight(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    ((unsigned char *)call->u.linear.w.data)[6] ^= 1;
    return problem;
}
static size_t some_scratch(const struct call *call) {
    (void)call;
    return 64;
}
static const char *write_behind_scratch(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    memset((char *)scratch + 64, 0, 64);
    return problem;
}
static const char *write_behind_input(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    dtype_store(call->u.linear.x.data, call->u.linear.x.dtype, call->u.linear.x.hi + 40, 1);
    return problem;
}

Test(run_cheats, a_kernel_that_writes_outside_its_output) {
    stand_in("linear_simt", write_behind);
    expect_found_out(LINE, S_O_PROJ, (struct want){EDGE_KERNEL, "stage o_proj", "outside its output o_part"});
    stand_in("linear_simt", write_before);
    expect_found_out(LINE, S_O_PROJ, (struct want){EDGE_KERNEL, "stage o_proj", "outside its output o_part"});
}

Test(run_cheats, a_kernel_that_writes_outside_its_scratch_or_an_input) {
    stand_in("linear_simt", write_behind_scratch);
    fake.scratch_bytes = some_scratch;
    expect_found_out(LINE, S_O_PROJ, (struct want){EDGE_KERNEL, "stage o_proj", "scratch"});
    stand_in("linear_simt", write_behind_input);
    expect_found_out(LINE, S_O_PROJ, (struct want){EDGE_KERNEL, "stage o_proj", "input o"});
}

Test(run_cheats, a_kernel_that_changes_an_input) {
    stand_in("linear_simt", change_input);
    expect_found_out(LINE, S_O_PROJ, (struct want){EDGE_KERNEL, "stage o_proj", "changed its input o"});
    stand_in("linear_simt", change_weight);
    expect_found_out(LINE, S_O_PROJ, (struct want){EDGE_KERNEL, "stage o_proj", "changed its input w_o"});
}

/* From the launch `calls_before` on. */
static int calls_before;
static const char *change_large_weight(const struct call *call, void *scratch, void *stream) {
    const struct linear_args *const a = &call->u.linear;
    if (calls++ >= calls_before) convert_host(a->x.data, (float *)a->w.data + 12345, 1, stream);
    return launch_honest(call, scratch, stream);
}

/* 64 MiB: too much to be looked at before and after; the only rank reads it where the unsharded run did. */
Test(run_cheats, a_kernel_that_changes_a_large_weight) {
    for (calls_before = 0; calls_before < 2; calls_before++) {
        stand_in("linear_simt", change_large_weight);
        expect_found_out("llama-3.1-8b/attention:tp=1,tokens=1,dtype=fp32", S_O_PROJ,
                         (struct want){calls_before ? EDGE_SHARD : EDGE_KERNEL, "stage o_proj",
                                       "write to w_o, an input: offset 49380 of 67108864 bytes"});
    }
}

/* q as a view of fused rows: what lies between its rows is k and v. */
static const char *write_between_rows(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    const struct rope_args *const a = &call->u.rope;
    dtype_store(a->q_out.data, a->q_out.dtype, a->n_heads * a->head_dim + 1, 1);
    return problem;
}

Test(run_cheats, a_kernel_that_writes_between_the_rows_of_a_view) {
    stand_in("rope", write_between_rows);
    expect_found_out(LINE, S_ROPE, (struct want){EDGE_KERNEL, "stage rope", "outside its output q"});
}

static const char *write_a_foreign_slot(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    const struct kv_write_args *const a = &call->u.kv_write;
    int64_t slot = 0;
    for (int64_t t = 0; t < a->n_tokens; t++)
        if (((const int32_t *)a->slots.data)[t] == slot) slot++, t = -1;
    dtype_store(a->v_cache.data, a->v_cache.dtype, slot * a->n_kv_heads * a->head_dim, 1);
    return problem;
}

Test(run_cheats, a_kernel_that_writes_a_cache_slot_of_somebody_else) {
    stand_in("kv_write", write_a_foreign_slot);
    expect_found_out(LINE, S_KV_WRITE, (struct want){EDGE_KERNEL, "stage kv_write", "does not own"});
}

/* ---- right where it is easy ---- */

static void *trunk_copy;

static const char *remember_all_but_the_last_token(const struct call *call, void *scratch, void *stream) {
    const struct norm_args *const a = &call->u.norm;
    const size_t row = (size_t)a->width * dtype_bytes(a->out.dtype);
    if (calls++) {
        memcpy(a->out.data, trunk_copy, row * (size_t)(a->n_tokens - 1));
        return NULL;
    }
    const char *const problem = launch_honest(call, scratch, stream);
    trunk_copy = malloc(row * (size_t)a->n_tokens);
    memcpy(trunk_copy, a->out.data, row * (size_t)a->n_tokens);
    return problem;
}

Test(run_cheats, a_kernel_that_repeats_the_unsharded_result_without_the_last_token) {
    stand_in("rms_norm", remember_all_but_the_last_token);
    expect_found_out(
        LINE, S_ATTN_NORM,
        (struct want){EDGE_SHARD, "stage attn_norm, ranks 0-1 of 2, token 4", "never written"});
    free(trunk_copy);
}

static double o_bias[64];

/* In the unsharded run the bias is right; every rank adds it again. */
static const char *add_the_bias_on_every_rank(const struct call *call, void *scratch, void *stream) {
    const struct linear_args *const a = &call->u.linear;
    const char *const problem = launch_honest(call, scratch, stream);
    for (int64_t c = 0; c < a->n_cols && a->bias.data; c++)
        o_bias[c] = dtype_load(a->bias.data, a->bias.dtype, c);
    for (int64_t i = 0; i < a->n_rows * a->n_cols && !a->bias.data; i++)
        dtype_store(a->out.data, a->out.dtype, i,
                    dtype_load(a->out.data, a->out.dtype, i) + o_bias[i % a->n_cols]);
    return problem;
}

static const char llama_with_bias[] =
    "{\"model_type\": \"llama\", \"torch_dtype\": \"bfloat16\", \"vocab_size\": 64, \"hidden_size\": 64, "
    "\"intermediate_size\": 96, \"num_hidden_layers\": 1, \"num_attention_heads\": 8, "
    "\"num_key_value_heads\": 4, "
    "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-06, \"rope_theta\": 10000.0, \"attention_bias\": "
    "true}";

Test(run_cheats, the_output_bias_added_on_every_rank) {
    char path[] = "/tmp/shardcheck-XXXXXX.json", line[200];
    const int fd = mkstemps(path, 5);
    cr_assert(fd >= 0 &&
              write(fd, llama_with_bias, sizeof llama_with_bias - 1) == sizeof llama_with_bias - 1);
    close(fd);
    stand_in("linear_simt", launch_honest);
    snprintf(line, sizeof line, "%s/attention:tp=4,tokens=3", path);
    struct check_case c = case_of(line, S_O_PROJ);
    struct run_output out = run_case(&c);
    cr_expect_eq(out.cases[0].verdict, CASE_PASSED, "the honest kernel: %s %s", out.cases[0].where,
                 out.cases[0].first.note);
    run_output_free(&out);
    stand_in("linear_simt", add_the_bias_on_every_rank);
    expect_found_out(line, S_O_PROJ, (struct want){EDGE_SHARD, "stage o_proj, ranks 1-3 of 4", "outside"});
    unlink(path);
}

static const char *change_a_bit_within_the_set(const struct call *call, void *scratch, void *stream) {
    const char *const problem = launch_honest(call, scratch, stream);
    if (calls++) ((float *)call->u.linear.out.data)[5] = nextafterf(((float *)call->u.linear.out.data)[5], 0);
    return problem;
}

static struct contract in_any_order(const struct call *call) {
    struct contract c = honest->contract(call);
    c.u.linear.acc.in_order = false;
    return c;
}

Test(run_cheats,
     a_legal_value_that_is_not_the_unsharded_runs_is_an_error_only_where_a_column_cannot_see_the_shard) {
    stand_in("linear_simt", change_a_bit_within_the_set);
    expect_found_out(LINE ",dtype=fp32", S_QKV_PROJ,
                     (struct want){EDGE_SHARD, "stage qkv_proj, ranks 0-1 of 2", "not the bits"});
    stand_in("linear_simt", change_a_bit_within_the_set);
    fake.shard_invariant = false;
    fake.contract = in_any_order;
    const struct check_case c = case_of(LINE ",dtype=fp32", S_QKV_PROJ);
    struct run_output out = run_case(&c);
    cr_expect_eq(out.cases[0].verdict, CASE_PASSED, "%s", out.cases[0].first.note);
    run_output_free(&out);
}

/* ---- errors, refusals and nonsense ---- */

static const char *crash(const struct call *call, void *scratch, void *stream) {
    (void)call, (void)scratch, (void)stream;
    return "CUDA error: an illegal memory access was encountered";
}
static const char *crash_on_rank_one(const struct call *call, void *scratch, void *stream) {
    return calls++ == 2 ? crash(call, scratch, stream) : launch_honest(call, scratch, stream);
}

Test(run_cheats, a_launch_that_fails_is_a_failure_of_the_case_and_its_text_is_shown) {
    stand_in("attention_simt", crash);
    expect_found_out(LINE, S_ATTENTION,
                     (struct want){EDGE_KERNEL, "stage attention", "illegal memory access"});
    stand_in("attention_simt", crash_on_rank_one);
    expect_found_out(LINE, S_ATTENTION,
                     (struct want){EDGE_SHARD, "stage attention, rank 1 of 2", "illegal memory access"});
}

static const char *route_to_nowhere(const struct call *call, void *scratch, void *stream) {
    static const int32_t nonsense[] = {-1, 16, INT32_MIN, INT32_MAX, 3, 3};
    const char *const problem = launch_honest(call, scratch, stream);
    const struct route_args *const a = &call->u.route;
    for (int64_t i = 0; i < a->n_tokens * a->top_k; i++) ((int32_t *)a->ids.data)[i] = nonsense[i % 6];
    return problem;
}

Test(run_cheats, a_router_that_names_experts_which_do_not_exist) {
    stand_in("route_simt", route_to_nowhere);
    expect_found_out("tiny/ffn:tp=2,tokens=5", S_ROUTE, (struct want){EDGE_KERNEL, "stage route", NULL});
    expect_found_out("tiny/ffn:tp=4,ep=2,tokens=5", S_ROUTE, (struct want){EDGE_KERNEL, "stage route", NULL});
}

/* permute as atomics make it: the rows of an expert in any order, here the opposite one, but for
 * `slip`. */
enum slip { NONE, ROWS_STAY, INVERSE_STAYS, SLOT_TWICE, FOREIGN_SLOT };
static enum slip slip;
static bool of_ranks_only;

static void swap_rows(const struct permute_args *a, int64_t r, int64_t q) {
    const size_t bytes = (size_t)a->width * dtype_bytes(a->rows.dtype);
    int32_t *const row_slot = a->row_slot.data, *const slot_row = a->slot_row.data, slot = row_slot[r];
    char *const rows = a->rows.data, row[4096];
    cr_assert(bytes <= sizeof row && a->rows.stride[0] == a->width);
    row_slot[r] = row_slot[q], row_slot[q] = slot;
    if (slip != INVERSE_STAYS) slot_row[row_slot[r]] = (int32_t)r, slot_row[row_slot[q]] = (int32_t)q;
    if (slip == ROWS_STAY) return;
    memcpy(row, rows + (size_t)r * bytes, bytes);
    memcpy(rows + (size_t)r * bytes, rows + (size_t)q * bytes, bytes);
    memcpy(rows + (size_t)q * bytes, row, bytes);
}

static const char *permute_backwards(const struct call *call, void *scratch, void *stream) {
    const struct permute_args *const a = &call->u.permute;
    const char *const problem = launch_honest(call, scratch, stream);
    const int32_t *const offsets = a->offsets.data;
    if (!calls++ && of_ranks_only) return problem;
    for (int64_t e = 0; e < a->expert_count; e++)
        for (int64_t r = offsets[e], q = offsets[e + 1] - 1; r < q; r++, q--) swap_rows(a, r, q);
    if (slip == FOREIGN_SLOT) swap_rows(a, 0, a->n_rows - 1);
    if (slip == SLOT_TWICE) ((int32_t *)a->row_slot.data)[0] = ((int32_t *)a->row_slot.data)[1];
    return problem;
}

Test(run_cheats, rows_of_an_expert_may_stand_in_any_order_that_all_outputs_follow) {
    static const struct {
        enum slip slip;
        const char *note;
    } mistakes[] = {{ROWS_STAY, "outside"},
                    {INVERSE_STAYS, "not the row whose slot this is"},
                    {SLOT_TWICE, "not each slot of the row's expert once"},
                    {FOREIGN_SLOT, "not each slot of the row's expert once"}};
    static const char *const lines[] = {"tiny/ffn:tp=4,ep=2,tokens=9", "tiny/ffn:tp=2,tokens=9"};
    stand_in("permute_simt", permute_backwards);
    for (int i = 0; i < 4; i++) { /* trunk and ranks, or ranks alone */
        calls = 0, of_ranks_only = i / 2, slip = NONE;
        const struct check_case c = case_of(lines[i % 2], S_PERMUTE);
        struct run_output out = run_case(&c);
        cr_expect_eq(out.cases[0].verdict, CASE_PASSED, "%s: %s, %s", lines[i % 2], out.cases[0].where,
                     out.cases[0].first.note);
        run_output_free(&out);
    }
    for (int i = 0; i < 8; i++) {
        calls = 0, of_ranks_only = i % 2, slip = mistakes[i / 2].slip;
        expect_found_out(
            lines[0], S_PERMUTE,
            (struct want){i % 2 ? EDGE_SHARD : EDGE_KERNEL, "stage permute", mistakes[i / 2].note});
    }
}

static const char *never(const struct call *call) {
    (void)call;
    return "needs something else";
}
static const char *not_few_heads(const struct call *call) {
    return call->u.attention.n_heads < 8 ? "needs 8 heads" : NULL;
}

Test(run_cheats, a_kernel_that_refuses_skips_the_case_and_says_why) {
    stand_in("attention_simt", launch_honest);
    fake.unsupported = never;
    struct check_case c = case_of(LINE, S_ATTENTION);
    struct run_output out = run_case(&c);
    cr_expect_eq(out.cases[0].verdict, CASE_SKIPPED);
    cr_expect(strstr(out.cases[0].reason, "needs something else"), "%s", out.cases[0].reason);
    run_output_free(&out);
    fake.unsupported = not_few_heads;
    out = run_case(&c);
    cr_expect_eq(out.cases[0].verdict, CASE_SKIPPED);
    cr_expect(strstr(out.cases[0].reason, "needs 8 heads"), "%s", out.cases[0].reason);
    run_output_free(&out);
}

Test(run_cheats, a_defect_before_a_refusal_is_still_a_failure) {
    static struct kernel refuses;
    refuses = *kernel_by_name("attention_simt");
    refuses.unsupported = never;
    stand_in("linear_simt", write_zeros);
    struct check_case c = case_of(LINE, S_QKV_PROJ);
    c.kernel[S_ATTENTION] = &refuses;
    struct run_output out = run_case(&c);
    expect_failed(&out, (struct want){EDGE_KERNEL, "stage qkv_proj", "outside"});
    run_output_free(&out);
}
