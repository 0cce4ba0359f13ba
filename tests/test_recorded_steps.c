/* Decode steps of a recording: whose keys does a sequence begin behind? */
/* SPDX-License-Identifier: MIT */
#include "tests/recorded_dump.h"

TestSuite(recorded_steps, .init = folder_enter_with_binary, .fini = folder_leave);

enum { SEQS = 3, TOKENS = 17, PROMPT = TOKENS - 1 };

/* The rows of a step: the prompts of all sequences, or the one token behind each. */
static void take_step(struct growing *g, const hid_t file[SEQS], const char *dataset, const char *name,
                      bool decode) {
    static struct growing all;
    const int first = decode ? PROMPT : 0, n = decode ? 1 : PROMPT;
    char path[100], shape[40];
    snprintf(path, sizeof path,
             dataset[0] == 'x' ? "inputs/layers.0.attention.%s" : "ranks/0/layers.0.attention.%s", dataset);
    for (int s = 0; s < SEQS; s++) take(&all, file[s], path, name, NULL, 0, 0);
    const size_t row = all.n / (SEQS * TOKENS);
    char *const rows = malloc(SEQS * PROMPT * row);
    for (int s = 0; s < SEQS; s++)
        memcpy(rows + (size_t)(s * n) * row, all.data + (size_t)(s * TOKENS + first) * row, (size_t)n * row);
    snprintf(shape, sizeof shape, "%d,%d", SEQS * n, (int)row / 2);
    grow(g, name, "BF16", shape, rows, (size_t)(SEQS * n) * row);
    free(rows), free(all.data);
    all = (struct growing){0};
}

/* Blocks of 8: sequence s has 7 - 2 s and 6 - 2 s, and then 20 + s. `table`: which sequence each row of the
 * block table belongs to; NULL: no table is stored. */
static void write_step(const hid_t file[SEQS], bool decode, const int *table) {
    static const struct renamed rows[] = {{"x", "model.layers.0.input_layernorm.input.0"},
                                          {"normed", "model.layers.0.input_layernorm.output.0"},
                                          {"qkv", "model.layers.0.self_attn.qkv_proj.output.0"},
                                          {"q", "model.layers.0.self_attn.attn.input.0"},
                                          {"k", "model.layers.0.self_attn.attn.input.1"},
                                          {"v", "model.layers.0.self_attn.attn.input.2"},
                                          {"o", "model.layers.0.self_attn.attn.output.0"}};
    static struct growing g;
    int64_t positions[SEQS * PROMPT], slots[SEQS * PROMPT];
    int32_t blocks[SEQS][3], start[SEQS + 1] = {0}, n = 0;
    char path[64], metadata[100], count[20];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        take_step(&g, file, rows[i].dataset, rows[i].name, decode);
    for (int s = 0; s < SEQS; s++) {
        const int of = table ? table[s] : s;
        blocks[s][0] = 7 - 2 * of, blocks[s][1] = 6 - 2 * of, blocks[s][2] = 20 + s;
        for (int p = decode ? PROMPT : 0; p < (decode ? TOKENS : PROMPT); p++, n++) {
            positions[n] = p;
            slots[n] = blocks[s][p / 8] * 8 + p % 8;
        }
        start[s + 1] = n;
    }
    snprintf(count, sizeof count, "%d", n);
    grow(&g, "model.layers.0.self_attn.input.positions", "I64", count, positions, (size_t)n * 8);
    if (table) {
        grow(&g, "batch.query_start_loc", "I32", "4", start, sizeof start);
        grow(&g, "batch.slot_mapping", "I64", count, slots, (size_t)n * 8);
        grow(&g, "batch.block_table", "I32", "3,3", blocks, sizeof blocks);
    }
    snprintf(path, sizeof path, "dump/rank0.step%d.safetensors", decode);
    snprintf(metadata, sizeof metadata, "\"tp_rank\":\"0\",\"tp_size\":\"1\",\"step\":\"%d\"", decode);
    grown(&g, path, metadata);
}

static void write_steps(const int *prefill, const int *decode) {
    cr_assert_eq(system("rm -rf dump model d.h5"), 0);
    hid_t file[SEQS];
    char arguments[120];
    for (int s = 0; s < SEQS; s++) {
        snprintf(arguments, sizeof arguments,
                 "run tiny/attention:tp=1,layer=0,tokens=%d,seed=%d --dump d.h5 --ranks", TOKENS, s + 1);
        expect(arguments, 0, "1 passed");
        cr_assert_eq(rename("d.h5", s == 0 ? "0.h5" : s == 1 ? "1.h5" : "2.h5"), 0);
        file[s] = H5Fopen(s == 0 ? "0.h5" : s == 1 ? "1.h5" : "2.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
        cr_assert(file[s] >= 0);
    }
    cr_assert(mkdir("dump", 0777) == 0 && mkdir("model", 0777) == 0);
    cr_assert_eq(system("cp \"$ROOT/fixtures/models/tiny.json\" model/config.json"), 0);
    write_step(file, false, prefill);
    write_step(file, true, decode);
    for (int s = 0; s < SEQS; s++) cr_assert(H5Fclose(file[s]) >= 0);
}

#define JUDGE "judge --model model/config.json dump --part attention --contract exact --stage attention"
static const int in_order[SEQS] = {0, 1, 2};

Test(recorded_steps, sequences_of_one_length_are_told_apart_by_their_blocks) {
    write_steps(in_order, in_order);
    expect(JUDGE, 0, "1 passed, 0 failed");
    cr_expect(!strstr(text, "may be those of several"), "%s", text);
}

Test(recorded_steps, the_keys_of_another_sequence_are_a_mistake) {
    static const int swapped[SEQS] = {0, 2, 1};
    write_steps(in_order, swapped);
    expect(JUDGE, 1, "stage attention");
}

Test(recorded_steps, without_blocks_what_may_be_several_is_not_judged_and_said) {
    write_steps(NULL, NULL);
    expect(JUDGE, 0,
           "3 of 3 tokens of step 1 begin behind keys that are not in the dump, or may be those of several");
}

/* Positions 16, 16, 16 are three sequences; the same rows under another table end elsewhere. */
Test(recorded_steps, keys_of_no_step_in_the_dump_are_not_judged_and_said) {
    static const int others[SEQS] = {3, 1, 2};
    write_steps(in_order, others);
    expect(JUDGE, 0, "1 of 3 tokens of step 1 begin behind keys that are not in the dump");
}
