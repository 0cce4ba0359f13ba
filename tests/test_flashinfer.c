/* Are calls that FlashInfer logged on an H100 right, is a wrong element in any of them found, and is what
 * cannot be judged listed with its reason? */
/* SPDX-License-Identifier: MIT */
#include "harness/flashinfer.h"
#include "tests/tensor_files.h"

static void copy_calls(void) {
    folder_enter();
    cr_assert_eq(system("cp -r \"$ROOT/fixtures/golden/flashinfer\" calls && chmod -R u+w calls"), 0);
}
TestSuite(flashinfer, .init = copy_calls, .fini = folder_leave);

static struct run_output out;

static void judge_within(double work) {
    const char *const folder_of_calls = "calls";
    run_output_free(&out);
    const struct status s = judge_flashinfer(&folder_of_calls, 1, work, NULL, &out);
    cr_assert(!s.code, "%s", s.message);
}
static void judge(void) { judge_within(FLASHINFER_WORK); }

static const struct case_result *of(const char *function) {
    for (int64_t i = 0; i < out.result.n_cases; i++)
        if (strstr(out.cases[i].line, function)) return &out.cases[i];
    cr_assert(false, "no case of %s", function);
    return NULL;
}

#define DECODE "BatchDecodeWithPagedKVCacheWrapper.run_call0001"
#define FA2 "BatchPrefillWithPagedKVCacheWrapper.run_call0001"
#define FA3 "BatchPrefillWithPagedKVCacheWrapper.run_call0002"
#define NORM "_rmsnorm_call0001"
#define SILU "silu_and_mul_call0001"
#define IN_PLACE "fused_add_rmsnorm_call0001"
static const char *const judged[] = {DECODE, FA2, FA3, "437" NORM, SILU};

static void expect_verdict(const char *function, enum case_verdict verdict, const char *reason) {
    const struct case_result *const r = of(function);
    cr_expect_eq(r->verdict, verdict, "%s: %d, %s, %s", function, (int)r->verdict, r->reason, r->where);
    cr_expect(strstr(r->reason, reason), "%s: %s", function, r->reason);
}

/* sed on the metadata of calls whose folders end so, judge, and back again. */
static void with(const char *function, const char *edit, const char *which, enum case_verdict verdict,
                 const char *reason) {
    char command[600];
    snprintf(command, sizeof command,
             "cp -r calls saved && for f in calls/*%s/metadata.jsonl; do sed -i '%s' $f && ! cmp -s $f saved/"
             "${f#calls/}; done",
             function, edit);
    cr_assert_eq(system(command), 0, "%s", edit);
    judge();
    expect_verdict(which, verdict, reason);
    cr_assert_eq(system("rm -r calls && mv saved calls"), 0);
}

/* The path of a call's file. */
static char *file_of(const char *function, const char *name) {
    static char path[300];
    snprintf(path, sizeof path, "echo calls/*%s/%s", function, name);
    FILE *const pipe = popen(path, "r");
    cr_assert(pipe && fgets(path, sizeof path, pipe));
    pclose(pipe);
    path[strcspn(path, "\n")] = 0;
    return path;
}

/* Puts bytes into element i of a tensor; returns those that stood there. */
static uint64_t put(const char *path, const char *name, int64_t i, uint64_t value) {
    static char bytes[1 << 20];
    const void *data;
    uint64_t before = 0;
    FILE *const file = fopen(path, "r+b");
    cr_assert(file, "%s", path);
    const size_t n = fread(bytes, 1, sizeof bytes, file);
    struct tensor_file *const f = opened(path);
    const struct named_tensor *const t = tensor_file_find(f, name);
    cr_assert(t && !tensor_data(f, t, &data).code && data);
    const size_t each = element_bytes(t->element);
    char *const found = memmem(bytes, n, data, (size_t)t->count * each);
    cr_assert(found && i < t->count);
    memcpy(&before, found + (size_t)i * each, each);
    fseek(file, found - bytes + i * (int64_t)each, SEEK_SET);
    cr_assert_eq(fwrite(&value, each, 1, file), 1);
    fclose(file);
    tensor_file_close(f);
    return before;
}

Test(flashinfer, every_call_with_outputs_passes) {
    judge();
    cr_expect_eq(out.result.n_cases, 6);
    cr_expect_eq(out.result.n_passed, 5);
    for (int i = 0; i < 5; i++) {
        const struct case_result *const r = of(judged[i]);
        expect_verdict(judged[i], CASE_PASSED, "");
        cr_expect(r->edge[EDGE_ORACLE].elements > 3000 && r->n_stages == 1, "%s", judged[i]);
        cr_expect(r->edge[EDGE_ORACLE].margin <= 1 &&
                  r->edge[EDGE_ORACLE].vacuous * 10 <= r->edge[EDGE_ORACLE].elements);
    }
    expect_verdict(IN_PLACE, CASE_SKIPPED, "no outputs");
    cr_expect(strstr(out.device_label, "0.6.6"), "%s", out.device_label);
}

Test(flashinfer, one_wrong_element_of_any_output_is_found) {
    for (int i = 0; i < 5; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s", file_of(judged[i], "outputs.pt"));
        judge();
        const int64_t n = of(judged[i])->edge[EDGE_ORACLE].elements, at[] = {0, n / 2 + 3, n - 1};
        for (int k = 0; k < 3; k++) {
            /* rows are exact but for the last rounding: two units off; attention: 2^-2 and more */
            const uint64_t right = put(path, "result", at[k], 0),
                           wrong = i >= 3 ? right ^ 2 : (right ^ 0x8000) | 0x3e80;
            put(path, "result", at[k], wrong);
            judge();
            expect_verdict(judged[i], CASE_FAILED, "");
            cr_expect_eq(of(judged[i])->edge[EDGE_ORACLE].outside, 1, "%s element %lld", judged[i],
                         (long long)at[k]);
            cr_expect_eq(out.result.n_failed, 1);
            put(path, "result", at[k], 0x7fc0); /* NaN */
            judge();
            expect_verdict(judged[i], CASE_FAILED, "");
            put(path, "result", at[k], right);
        }
        judge();
        expect_verdict(judged[i], CASE_PASSED, "");
    }
}

Test(flashinfer, the_place_of_a_wrong_element_is_told) {
    put(file_of(FA2, "outputs.pt"), "result", (7 * 16 + 5) * 64 + 9, 0x42c8);
    judge();
    cr_expect_str_eq(of(FA2)->first.where, "token 7 head 5 dim 9");
    cr_expect(strstr(of(FA2)->where, "stage attention"), "%s", of(FA2)->where);
    cr_expect(strstr(of(FA2)->repro, "shardcheck judge 'calls'"), "%s", of(FA2)->repro);
}

/* Rows 0-15 and 16-32 of a norm are two blocks and a last one of a single row; of 22 queries the last of each of
 * three sequences stay. */
Test(flashinfer, of_a_large_call_blocks_of_every_sequence_are_judged_and_counted) {
    judge_within(1);
    const struct edge_result *const norm = &of("437" NORM)->edge[EDGE_ORACLE], *const fa2 =
                                                                                   &of(FA2)
                                                                                        ->edge[EDGE_ORACLE];
    cr_expect(norm->sampled_rows == 17 && norm->rows == 33 && norm->elements == 17 * 256, "%lld of %lld",
              (long long)norm->sampled_rows, (long long)norm->rows);
    cr_expect_eq(fa2->elements, 22 * 16 * 64);
    put(file_of("437" NORM, "outputs.pt"), "result", 20 * 256, 0x42c8); /* in no block that is judged */
    put(file_of(SILU, "outputs.pt"), "result", 32 * 256 + 7, 0x42c8);   /* in the last */
    judge_within(1);
    expect_verdict("437" NORM, CASE_PASSED, "");
    expect_verdict(SILU, CASE_FAILED, "");
    cr_expect_str_eq(of(SILU)->first.where, "token 32 shared column 7");
    judge_within(0);
    expect_verdict("437" NORM, CASE_FAILED, "");
    cr_expect_eq(of("437" NORM)->edge[EDGE_ORACLE].rows, 0);
}

/* ---- arguments ---- */

Test(flashinfer, arguments_are_read_by_name_and_by_position) {
    with("Decode*plan_call0001", "s/\"kwarg_sm_scale\": 0.125/\"kwarg_sm_scale\": 0.25/", DECODE, CASE_FAILED,
         "");
    with("Decode*plan_call0001", "s/, \"kwarg_sm_scale\": 0.125//", DECODE, CASE_PASSED, ""); /* 64^-1/2 */
    with("Prefill*plan_call0001", "s/\"kwarg_causal\": true/\"kwarg_causal\": false/", FA2, CASE_FAILED, "");
    with("Prefill*plan_call0001", "s/\"kwarg_causal\": true, //", FA2, CASE_FAILED, ""); /* default: False */
    with("437_rmsnorm_call0001", "s/\"arg_2\": 1e-06/\"kwarg_eps\": 1e-06/", "437" NORM, CASE_PASSED, "");
    with("437_rmsnorm_call0001", "s/\"arg_2\": 1e-06/\"arg_2\": 0.5/", "437" NORM, CASE_FAILED, "");
    with("Prefill*init___call0001", "s/\"kwarg_backend\": \"fa2\"/\"kwarg_backend\": \"auto\"/", FA2,
         CASE_PASSED, "");
    with("Prefill*init___call0001", "s/, \"kwarg_backend\": \"fa2\"//", FA2, CASE_PASSED, ""); /* auto */
}

Test(flashinfer, what_changes_the_result_and_is_not_read_is_not_judged) {
    static const struct {
        const char *function, *edit, *which, *reason;
    } calls[] = {
        {"Decode*plan_call0001", "s/\"arg_4\"/\"kwarg_window_left\": 128, \"arg_4\"/", DECODE,
         "window_left = 128"},
        {"Decode*plan_call0001", "s/\"NONE\"/\"ROPE_LLAMA\"/", DECODE, "pos_encoding_mode = ROPE_LLAMA"},
        {"Decode*plan_call0001", "s/\"arg_4\"/\"kwarg_logits_soft_cap\": 30.0, \"arg_4\"/", DECODE,
         "logits_soft_cap = 30"},
        {"Decode*plan_call0001", "s/\"arg_4\"/\"kwarg_new\": null, \"arg_4\"/", DECODE, "is not known"},
        {"Decode*plan_call0001", "s/\"arg_4\": 16/\"arg_4\": 8/", DECODE, "other heads"},
        {"Decode*plan_call0001", "s/\"arg_7\": 16/\"arg_7\": 0/", DECODE, "page_size of its plan is no size"},
        {"Decode*run_call0001", "s/\"arg_0\"/\"kwarg_v_scale\": 0.5, \"arg_0\"/", DECODE, "v_scale = 0.5"},
        {"Decode*init___call0001", "s/\"kwarg_use_tensor_cores\": true/\"kwarg_use_tensor_cores\": false/",
         DECODE, "use_tensor_cores = False"},
        {"Decode*init___call0001", "s/\"NHD\"/\"HND\"/", DECODE, "shape"},
        {"Prefill*init___call0001", "s/\"kwarg_backend\": \"fa2\"/\"kwarg_backend\": \"cudnn\"/", FA2,
         "backend cudnn"},
        {"Prefill*plan_call0001", "s/\"self_id\": [0-9]*/\"self_id\": 5/", FA2,
         "no call of BatchPrefillWithPagedKVCacheWrapper.plan"},
        {"Prefill*plan_call0001", "s/\"completed\"/\"inputs_saved\"/", FA2,
         "its plan: it did not come to its end"},
        {"silu_and_mul_call0001", "s/\"silu_and_mul\"/\"gelu_and_mul\"/", SILU, "gelu_and_mul is not known"},
        {"silu_and_mul_call0001", "s/\"completed\"/\"inputs_saved\"/", SILU, "did not come to its end"},
        {"silu_and_mul_call0001", "s/\"function_name\"/\"graph_capture\": true, \"function_name\"/", SILU,
         "CUDA graph"},
        {"silu_and_mul_call0001", "s/}$//", SILU, "JSON"},
        {"silu_and_mul_call0001", "s/(input/(x/", SILU, "input of silu_and_mul was not saved"},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        with(calls[i].function, calls[i].edit, calls[i].which, CASE_SKIPPED, calls[i].reason);
}

/* The last line of the metadata counts, and the last plan before a run. */
Test(flashinfer, what_was_said_last_counts) {
    with("silu_and_mul_call0001", "1{h;s/\"completed\"/\"inputs_saved\"/;p;g}", SILU, CASE_PASSED, "");
    cr_assert_eq(
        system("cd calls && cp -r *Decode*plan_call0001 20261124_114430_000_later.plan && sed -i "
               "'s/\"kwarg_sm_scale\": 0.125/\"kwarg_sm_scale\": 0.25/' 20261124_114430*/metadata.jsonl"),
        0);
    judge();
    expect_verdict(DECODE, CASE_FAILED, "");
    cr_assert_eq(system("cd calls && mv 20261124_114430* 20261124_114450_000_after.plan"), 0);
    judge();
    expect_verdict(DECODE, CASE_PASSED, "");
}

/* ---- tensors ---- */

Test(flashinfer, tables_that_do_not_fit_are_not_judged_and_wrong_pages_are_found) {
    char path[300];
    snprintf(path, sizeof path, "%s", file_of("Decode*plan_call0001", "inputs.pt"));
    const uint64_t page = put(path, "arg_2", 4, 13);
    judge();
    expect_verdict(DECODE, CASE_SKIPPED, "page 13 of sequence 1: the cache has 13 pages");
    put(path, "arg_2", 4, (page + 1) % 13);
    judge();
    expect_verdict(DECODE, CASE_FAILED, "");
    cr_expect(strstr(of(DECODE)->where, "token 1"), "%s", of(DECODE)->where);
    put(path, "arg_2", 4, page);
    put(path, "arg_3", 0, 4); /* one key of 37 is not read */
    judge();
    expect_verdict(DECODE, CASE_FAILED, "");
    cr_expect(strstr(of(DECODE)->where, "token 0"), "%s", of(DECODE)->where);
    put(path, "arg_3", 0, 17);
    judge();
    expect_verdict(DECODE, CASE_SKIPPED, "17 keys in its last page");
    put(path, "arg_3", 0, 5);
    put(path, "arg_1", 1, 50);
    judge();
    expect_verdict(DECODE, CASE_SKIPPED, "do not fit together");
}

/* The same cache in another layout, as safetensors: the permutation of [pages, k or v, slots, G, D] that it is,
 * outermost first. */
static void write_layout(const int order[5], const char *header) {
    enum { Q = 3 * 16 * 64, KV = 13 * 2 * 16 * 2 * 64 };
    static const int size[5] = {13, 2, 16, 2, 64}, stride[5] = {4096, 2048, 128, 64, 1};
    struct tensor_file *const f = opened(file_of(DECODE, "inputs.pt"));
    const void *q, *kv;
    cr_assert(!tensor_data(f, tensor_file_find(f, "arg_1"), &q).code && q);
    cr_assert(!tensor_data(f, tensor_file_find(f, "arg_2"), &kv).code && kv);
    uint16_t *const turned = malloc(KV * sizeof *turned);
    for (int i = 0; i < KV; i++) {
        int rest = i, from = 0;
        for (int d = 4; d >= 0; d--) {
            from += rest % size[order[d]] * stride[order[d]];
            rest /= size[order[d]];
        }
        turned[i] = ((const uint16_t *)kv)[from];
    }
    const uint64_t length = strlen(header);
    FILE *const file = fopen("turned", "wb");
    cr_assert(file && fwrite(&length, 8, 1, file) == 1 && fwrite(header, length, 1, file) == 1);
    cr_assert(fwrite(q, 2, Q, file) == Q && fwrite(turned, 2, KV, file) == KV && !fclose(file));
    cr_assert_eq(system("cd calls/*" DECODE " && rm inputs.pt && mv ../../turned inputs.safetensors"), 0);
    free(turned);
    tensor_file_close(f);
}
#define Q_HEADER "{\"arg_1\":{\"dtype\":\"BF16\",\"shape\":[3,16,64],\"data_offsets\":[0,6144]},"

Test(flashinfer, a_cache_with_heads_first_is_read) {
    write_layout((const int[]){0, 1, 3, 2, 4}, Q_HEADER
                 "\"arg_2\":{\"dtype\":\"BF16\",\"shape\":[13,2,2,16,64],\"data_offsets\":[6144,112640]}}");
    with("Decode*init___call0001", "s/\"NHD\"/\"HND\"/", DECODE, CASE_PASSED, "");
    with("Decode*init___call0001", "s/$/ /", DECODE, CASE_SKIPPED, "shape");
}

Test(flashinfer, a_cache_of_two_tensors_is_read_where_it_was_saved) {
    write_layout((const int[]){1, 0, 2, 3, 4}, Q_HEADER
                 "\"arg_2__0\":{\"dtype\":\"BF16\",\"shape\":[13,16,2,64],\"data_offsets\":[6144,59392]},"
                 "\"arg_2__1\":{\"dtype\":\"BF16\",\"shape\":[13,16,2,64],\"data_offsets\":[59392,112640]}}");
    judge();
    expect_verdict(DECODE, CASE_PASSED, "");
    cr_assert_eq(system("cd calls/*" DECODE " && sed -i s/arg_2__1/arg_2__9/ inputs.safetensors"), 0);
    judge();
    expect_verdict(DECODE, CASE_SKIPPED, "two tensors");
}

/* Values whose square is 1 everywhere: x / rms is x, and y = x w is exact. */
Test(flashinfer, fp16_is_judged_as_it_is_stored) {
    enum { WIDTH = 64, ROWS = 3, N = ROWS * WIDTH };
    static const char *const shapes[] = {"inputs", "outputs"};
    uint16_t x[N], w[WIDTH], y[N], wrong[N];
    for (int i = 0; i < N; i++) {
        x[i] = i * 7 % 3 ? 0x3c00 : 0xbc00; /* 1, -1 */
        w[i % WIDTH] = (uint16_t)(0x3c00 + i % WIDTH);
        y[i] = (uint16_t)(w[i % WIDTH] | (x[i] & 0x8000));
    }
    memcpy(wrong, y, sizeof y);
    wrong[70] ^= 1; /* one unit of fp16, far below one of bf16 */
    for (int k = 0; k < 2; k++) {
        cr_assert_eq(system("rm -rf calls && mkdir -p calls/1_rmsnorm"), 0);
        FILE *file = fopen("calls/1_rmsnorm/metadata.jsonl", "w");
        fputs("{\"function_name\": \"rmsnorm\", \"execution_status\": \"completed\", \"function_signature\": "
              "\"(input: torch.Tensor, weight: torch.Tensor, eps: float = 0.0)\", \"input_metadata\": {}}\n",
              file);
        fclose(file);
        for (int i = 0; i < 2; i++) {
            char path[64], header[300];
            snprintf(path, sizeof path, "calls/1_rmsnorm/%s.safetensors", shapes[i]);
            snprintf(header, sizeof header,
                     i ? "{\"result\":{\"dtype\":\"F16\",\"shape\":[%d,%d],\"data_offsets\":[0,%d]}}"
                       : "{\"arg_0\":{\"dtype\":\"F16\",\"shape\":[%d,%d],\"data_offsets\":[0,%d]},"
                         "\"arg_1\":{\"dtype\":\"F16\",\"shape\":[64],\"data_offsets\":[384,512]}}",
                     ROWS, WIDTH, 2 * N);
            const uint64_t length = strlen(header);
            file = fopen(path, "wb");
            fwrite(&length, 8, 1, file), fwrite(header, length, 1, file);
            fwrite(i ? (k ? wrong : y) : x, sizeof x, 1, file);
            if (!i) fwrite(w, sizeof w, 1, file);
            fclose(file);
        }
        judge();
        expect_verdict("1_rmsnorm", k ? CASE_FAILED : CASE_PASSED, "");
    }
    cr_expect_str_eq(of("1_rmsnorm")->first.where, "token 1 channel 6");
}

Test(flashinfer, folders_without_calls_are_refused) {
    static const char *const folders[] = {"saved", "/dev/null", "calls/absent"};
    for (int i = 0; i < 3; i++) {
        const struct status s = judge_flashinfer(&folders[i], 1, 0, NULL, &out);
        cr_expect(s.code && strstr(s.message, "metadata.jsonl") && strstr(s.message, folders[i]), "%s",
                  s.message);
    }
    cr_expect(system("rm -r calls/*plan*") == 0);
    judge();
    expect_verdict(DECODE, CASE_SKIPPED, "no call of BatchDecodeWithPagedKVCacheWrapper.plan");
    expect_verdict(SILU, CASE_PASSED, "");
}
