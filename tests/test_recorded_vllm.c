/* A run of vLLM on two ranks, as it was captured: does it pass, and is a wrong element of any module found? */
/* SPDX-License-Identifier: MIT */
#include "fixtures/tensor_file.h"
#include "harness/cli/options.h"
#include "harness/run.h"
#include "tests/recorded_dump.h"
#include "tests/tensor_files.h"

static void copy_run(void) {
    folder_enter_with_binary();
    cr_assert_eq(system("cp -r \"$ROOT/fixtures/golden/vllm/\"* . && mv tp2 dump && chmod -R u+w ."), 0);
}
TestSuite(recorded_vllm, .init = copy_run, .fini = folder_leave);

#define JUDGE "judge --model model "

Test(recorded_vllm, every_stage_or_span_of_it_passes) {
    expect(JUDGE "dump -v", 0, "4 passed, 0 failed, 0 skipped");
    static const char *const spans[] = {"span since kv_write", "span since o_proj", "span since shared_down",
                                        "span since route"};
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) cr_expect(strstr(text, spans[i]), "%s", text);
    cr_expect(strstr(text, "ffn_residual: nothing of it"), "%s", text);
    cr_expect(strstr(text, "not read self_attn.rotary_emb.input.1, "), "%s", text);
    cr_expect(!strstr(text, "qkv_proj.input"), "%s", text);
}

Test(recorded_vllm, rows_mixed_in_the_attention_of_both_ranks_are_named) {
    expect(JUDGE "tp2-stride", 1, "stage attention, ranks 0-1 of 2, odd tokens (5 of 10)");
    cr_expect(strstr(text, "likely    rows-of-all-heads (vLLM PR #39707)"), "%s", text);
    cr_expect(strstr(text, "2 passed, 2 failed"), "%s", text);
}

/* Another arithmetic is not what was stored. */
Test(recorded_vllm, the_contract_of_another_producer_does_not_fit) {
    expect(JUDGE "dump --contract exact", 1, "stage attn_norm, rank");
    expect(JUDGE "dump --contract vllm-bf16:o_part=none:sum.rank=none --layer 0 --part attention", 1, "attn_sum.attn_out");
}

static int64_t failed_cases(void) {
    char *argv[] = {"shardcheck", "judge", "--model", "model", "dump", "--in-process"};
    struct options o;
    struct run_output out;
    struct status s = options_parse(6, argv, &o);
    cr_assert(!s.code, "%s", s.message);
    s = run_cases(&o.run, &out);
    cr_assert(!s.code, "%s", s.message);
    const int64_t n = out.result.n_failed;
    run_output_free(&out);
    options_free(&o);
    return n;
}

/* The rotary module is one object of all layers, and what a name of it holds is not told. */
static bool is_judged(const struct named_tensor *t) {
    return (t->element == ELEMENT_BF16 || t->element == ELEMENT_F32) && !strstr(t->name, "rotary_emb");
}

Test(recorded_vllm, a_wrong_element_of_any_tensor_in_it_is_found) {
    struct tensor_file *const file = opened("dump/rank1.safetensors");
    char names[200][100];
    long byte[200];
    int n = 0;
    for (int i = 0; i < tensor_file_count(file); i++) {
        const struct named_tensor *const t = tensor_file_at(file, i);
        if (!is_judged(t)) continue;
        cr_assert(n < 200);
        snprintf(names[n], sizeof names[n], "%s", t->name);
        byte[n++] = (long)((t->count / 2 + 4) * (int64_t)element_bytes(t->element)) - 1;
    }
    tensor_file_close(file);
    cr_assert(n > 60);
    cr_assert_eq(failed_cases(), 0);
    for (int i = 0; i < n; i++) {
        flip(1, names[i], byte[i], 0x80);
        cr_expect(failed_cases() > 0, "%s", names[i]);
        flip(1, names[i], byte[i], 0x80);
    }
}
