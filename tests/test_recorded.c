/* What another run stored on its ranks: is what is right accepted, and a wrong element of any module found? */
/* SPDX-License-Identifier: MIT */
#include "tests/recorded_dump.h"

TestSuite(recorded, .init = folder_enter_with_binary, .fini = folder_leave);

/* As our kernels compute: fp32, one rounding a stage. */
#define JUDGE "judge --model model dump --contract exact"

Test(recorded, right_ranks_pass_at_every_tp) {
    static const int tps[] = {1, 2, 8};
    for (size_t i = 0; i < sizeof tps / sizeof *tps; i++) {
        cr_assert_eq(system("rm -rf model dump d.h5"), 0);
        write_recording(tps[i]);
        expect(JUDGE " -v", 0, "2 passed, 0 failed");
        cr_expect(strstr(text, "span since route"), "%s", text);
        cr_expect(strstr(text, "span since o_proj"), "%s", text);
    }
}

/* The sign of a bf16 number stands in its second byte; token 3 of 33, of rank 1. */
Test(recorded, a_wrong_element_of_any_module_is_found) {
    static const struct {
        const char *name;
        long element;
        int bytes; /* of one */
        const char *says;
    } wrong[] = {
        {"model.layers.0.input_layernorm.output.0", 3 * 64 + 5, 2, "attn_norm.normed"},
        {"model.layers.0.self_attn.qkv_proj.input.0", 3 * 64 + 5, 2, "attn_norm.normed"},
        {"model.layers.0.self_attn.qkv_proj.output.0", 3 * 128 + 5, 2,
         "rank 1 token 3 head 4 dim 5, qkv_proj.qkv"},
        {"model.layers.0.self_attn.attn.input.0", 3 * 64 + 5, 2, "rank 1 token 3 head 4 dim 5, rope.q"},
        {"model.layers.0.self_attn.attn.input.1", 3 * 32 + 5, 2, "rank 1 token 3 kv head 2 dim 5, rope.k"},
        {"model.layers.0.self_attn.attn.input.2", 3 * 32 + 5, 2,
         "rank 1 token 3 kv head 2 dim 5, qkv_split.v"},
        {"model.layers.0.self_attn.attn.output.0", 3 * 64 + 5, 2, "rank 1 token 3 head 4 dim 5, attention.o"},
        {"model.layers.0.self_attn.o_proj.output.0", 3 * 64 + 5, 2, "attn_sum.attn_out"},
        {"model.layers.0.post_attention_layernorm.output.1", 3 * 64 + 5, 2, "attn_residual.y"},
        {"model.layers.1.post_attention_layernorm.output.0", 3 * 64 + 5, 2, "ffn_norm.normed"},
        {"model.layers.1.post_attention_layernorm.output.1", 3 * 64 + 5, 2, "ffn_norm.x"},
        {"model.layers.1.mlp.gate.output.0", 3 * 16 + 5, 4, "router.logits"},
        {"model.layers.1.mlp.shared_experts.gate_up_proj.output.0", 3 * 64 + 5, 2,
         "shared_gate_up.shared_gate_up"},
        {"model.layers.1.mlp.shared_experts.act_fn.output.0", 3 * 32 + 5, 2, "shared_activation.shared_act"},
        {"model.layers.1.mlp.shared_experts.output.0", 3 * 64 + 5, 2, "shared_down.shared_part"},
        {"model.layers.1.mlp.experts.output.0", 3 * 64 + 5, 2, "ffn_sum.ffn_out"},
        {"model.norm.output.1", 3 * 64 + 5, 2, "ffn_residual.y"},
    };
    write_recording(2);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const long byte = (wrong[i].element + 1) * wrong[i].bytes - 1;
        flip(1, wrong[i].name, byte, 0x80);
        expect(JUDGE, 1, wrong[i].says);
        cr_expect(strstr(text, "token 3"), "%s", text);
        flip(1, wrong[i].name, byte, 0x80);
    }
    expect(JUDGE, 0, "2 passed");
}

/* The last bit of one rank's copy: legal by itself, but a replica. */
Test(recorded, ranks_that_should_hold_the_same_have_to) {
    write_recording(2);
    flip(1, "model.layers.0.self_attn.o_proj.output.0", 2 * (3 * 64 + 5), 0x01);
    expect(JUDGE, 1, "every rank should hold the same, and rank 0 does not");
}

#define LLAMA                                                                                                \
    ",\"config_json\":\"{\\\"model_type\\\":\\\"%s\\\",\\\"hidden_size\\\":64,\\\"intermediate_size\\\":64," \
    "\\\"num_attention_heads\\\":4,\\\"num_hidden_layers\\\":2,\\\"vocab_size\\\":99,\\\"hidden_act\\\":"    \
    "\\\"silu\\\","                                                                                          \
    "\\\"rms_norm_eps\\\":1e-6,\\\"max_position_embeddings\\\":99}\""

/* One whose config is not read says nothing. */
Test(recorded, the_folder_of_a_model_of_another_type_is_refused) {
    char config[600];
    snprintf(config, sizeof config, LLAMA, "nobody");
    recorded_more = config;
    write_recording(1);
    expect(JUDGE, 0, "2 passed");
    cr_assert_eq(system("rm -r dump model d.h5"), 0);
    snprintf(config, sizeof config, LLAMA, "llama");
    write_recording(1);
    expect(JUDGE, 2,
           "--model model: a param2moe, and dump was recorded of a llama; give that model's folder");
}

/* As of a server that was started with other ranks than it says. */
Test(recorded, tensors_of_other_shapes_than_the_model_makes_are_no_pass) {
    write_recording(2);
    cr_assert_eq(system("LC_ALL=C sed -i 's/\"tp_size\":\"2\"/\"tp_size\":\"4\"/' dump/*"), 0);
    expect(JUDGE " --layer 0", 2, "qkv_proj.output.0 is BF16");
    cr_expect(strstr(text, "other heads, tokens or ranks than the model and tp 4 make"), "%s", text);
    cr_expect(strstr(text, "4 ranks (of rank 2 is nothing)") && strstr(text, "1 skipped"), "%s", text);
    expect(JUDGE " --layer 0 --stage attn_norm", 0, "1 passed");
    expect(JUDGE " --stage attn_norm,qkv_proj,router", 2, "1 passed, 0 failed");
}

Test(recorded, modules_that_a_family_calls_otherwise_are_read) {
    static const char *const bailing[][2] = {{"self_attn.input.positions", "attention.input.position_ids"},
                                             {"self_attn.qkv_proj", "attention.query_key_value"},
                                             {"self_attn.o_proj", "attention.dense"},
                                             {"self_attn.", "attention."},
                                             {NULL, NULL}};
    recorded_words = bailing;
    write_recording(2);
    expect("judge --model model dump --contract exact --layer 0", 0, "1 passed");
    cr_expect(strstr(text, "qkv_proj, qkv_split, rope, attention with all since kv_write, "), "%s", text);
    cr_expect(!strstr(text, "not read"), "%s", text);
    flip(1, "model.layers.0.attention.query_key_value.output.0", 11, 0x80);
    expect("judge --model model dump --contract exact --layer 0", 1, "stage qkv_proj, rank 1");
}

Test(recorded, rows_may_stand_sequence_by_sequence) {
    recorded_sequences = true;
    write_recording(2);
    expect(JUDGE " --layer 0", 0, "1 passed, 0 failed, 0 skipped");
    expect(JUDGE " --layer 1 --part ffn", 0, "1 passed, 0 failed, 0 skipped");
    flip(1, "model.layers.0.self_attn.qkv_proj.output.0", 11, 0x80);
    expect(JUDGE, 1, "stage qkv_proj, rank 1");
}

/* Of o, [33, 4, 16] on each of two ranks: tokens 1 and 2. */
Test(recorded, what_attention_gives_for_padding_is_not_judged_and_said) {
    static const char o[] = "model.layers.0.self_attn.attn.output.0";
    recorded_padding = 2;
    write_recording(2);
    expect(JUDGE " --layer 0 --stage attention", 0, "2 of 33 tokens of step 0 begin behind keys");
    cr_expect(strstr(text, "or are padding") && !strstr(text, "not read"), "%s", text);
    flip(1, o, 2 * 64 + 1, 0x80);
    expect(JUDGE " --layer 0 --stage attention", 0, "1 passed");
    flip(1, o, 2 * 2 * 64 + 1, 0x80);
    expect(JUDGE " --layer 0 --stage attention", 1, "stage attention, rank 1 of 2, token 2, head 4, dim 0");
}

Test(recorded, whose_names_they_are_is_told_by_the_metadata) {
    recorded_more = ",\"producer\":\"transformers\"";
    write_recording(1);
    expect(JUDGE " --layer 0", 0, "recorded by transformers on 1 rank,");
    cr_expect(strstr(text, "judged    attn_norm, qkv_proj, attn_sum with all since qkv_split"), "%s", text);
}

/* Where input.1 is not, nothing is added: what the norm got is the sum. */
Test(recorded, a_norm_that_gets_no_residual_got_the_layers_output) {
    static const char *const alone[][2] = {{"model.norm.output.1", "model.norm.input.0"}, {NULL, NULL}};
    recorded_words = alone;
    write_recording(1);
    expect(JUDGE " --layer 1", 0, "ffn_sum with all since route, ffn_residual");
    flip(0, "model.norm.input.0", 11, 0x80);
    expect(JUDGE " --layer 1", 1, "stage ffn_residual, ");
}

Test(recorded, what_is_not_there_is_said_and_the_rest_judged) {
    write_recording(2);
    expect("judge dump", 2, "says nothing of the model; add --model DIR");
    expect("judge --model model dump --stage attention --contract exact", 0, "1 passed, 0 failed");
    cr_expect(strstr(text, "attention with all since kv_write"), "%s", text);
    expect("judge --model model dump/rank1.safetensors --contract exact", 0, "of rank 0 is not in the dump");
    expect("judge --model model dump nothing", 2, "nothing: No such file");
    expect("judge --model model dump --layer 7", 2, "--layer 7: the model has layers 0 to 1");
    expect("judge --model model dump --contract guess", 2, "no such producer; use exact");
    expect("judge --model model dump --stage atention", 2, "no such stage; use");
    expect("judge", 2, "names no dump");
    expect("judge model --model model", 2, "holds no tensor of a decoder layer");
    flip(0, "model.layers.0.self_attn.input.positions", 8 * 3 + 3, 0x80);
    expect("judge --model model dump", 2, "of token 3 is none");
}

/* Our kernels round to nearest, whatever the file says. */
Test(recorded, what_computed_decides_whether_values_are_rounded_or_cut) {
    write_recording(2);
    expect("judge --model model dump --layer 0 --stage attention", 0, "judged as vllm-bf16");
    expect("judge --model model dump --layer 0 --stage attention --contract vllm-avx2", 1, "stage attention");
    cr_assert_eq(system("rm -rf model dump d.h5"), 0);
    recorded_device = "cpu AVX2";
    write_recording(2);
    recorded_device = NULL;
    expect("judge --model model dump --layer 0 --stage attention", 1, "judged as vllm-avx2");
}

/* Equal logits leave the producer several sets of experts; what came out tells which it was, and a wrong element
 * of such a token is found all the same. */
Test(recorded, tokens_whose_experts_are_open_are_judged_by_a_legal_set) {
    write_recording_of(2, "--fill ties");
    expect(JUDGE " --part ffn", 0, "1 passed, 0 failed");
    cr_expect(strstr(text, " ambiguous)"), "%s", text);
    for (int token = 0; token < 33; token++) {
        const long byte = 2 * (token * 64 + 5) + 1;
        for (int rank = 0; rank < 2; rank++) flip(rank, "model.layers.1.mlp.experts.output.0", byte, 0x80);
        expect(JUDGE " --part ffn --stage ffn_sum", 1, "ffn_sum.ffn_out");
        for (int rank = 0; rank < 2; rank++) flip(rank, "model.layers.1.mlp.experts.output.0", byte, 0x80);
    }
}

/* A run that counted experts of rejected groups as 0: 9 of its 33 tokens have some. */
Test(recorded, what_a_run_filled_rejected_groups_with_is_said_by_who_knows) {
    cr_assert_eq(
        system("sed 's/\"n_group\": 1/\"n_group\": 4/' \"$ROOT/fixtures/models/tiny.json\" > of_4.json"), 0);
    write_recording_of_run("./of_4.json", 2, "--mutant groups-filled-with-0", false);
    cr_assert_eq(system("cp of_4.json model/config.json"), 0);
    expect(JUDGE " --part ffn", 1, "ffn_sum.ffn_out");
    expect(JUDGE " --part ffn --group_fill 0", 0, "1 passed, 0 failed");
    cr_expect(strstr(text, "group_fill=0") && strstr(text, "(9 ambiguous)"), "%s", text);
    const long byte = 2 * 5 + 1; /* token 0 is one of them */
    for (int rank = 0; rank < 2; rank++) flip(rank, "model.layers.1.mlp.experts.output.0", byte, 0x80);
    expect(JUDGE " --part ffn --group_fill 0", 1, "token 0 ");
    expect(JUDGE " --group_fill 0,-inf", 2, "use -inf or 0");
}

Test(recorded, a_fill_of_groups_where_there_are_no_experts_is_refused) {
    write_recording(1);
    expect(JUDGE " --part attention --group_fill 0", 2, "--group_fill 0: none of these layers has experts");
    expect(JUDGE " --group_fill 0 -v", 0, "2 passed");
    cr_expect(strstr(text, "ffn:tp=1,layer=1,group_fill=0"), "%s", text);
}

/* Half precision is bf16 or fp16: the producer's roundings are to that. */
Test(recorded, the_dtype_of_a_run_is_that_of_its_metadata) {
    recorded_more = ",\"dtype\":\"float16\"";
    write_recording(1);
    expect(JUDGE " --stage attn_norm --part attention", 0, "judged as exact in fp16");
    cr_assert_eq(system("rm -r dump model d.h5"), 0);
    recorded_more = ",\"dtype\":\"torch.float32\"";
    write_recording(1);
    expect(JUDGE " --stage attn_norm --part attention", 0, "judged as exact in fp32");
    recorded_more = NULL;
}

/* Outputs of fp8 weights lie far outside of any set of bf16 ones. */
Test(recorded, what_was_quantised_is_not_judged_and_said) {
    recorded_more = ",\"quantised.model.layers.0.self_attn.qkv_proj\":\"fp8\"";
    write_recording(2);
    for (int rank = 0; rank < 2; rank++)
        flip(rank, "model.layers.0.self_attn.qkv_proj.output.0", 2 * (3 * 128 + 70) + 1, 0x80);
    expect(JUDGE " --part attention --stage qkv_proj,attention", 0, "qkv_proj: quantised: fp8");
}

/* One tensor into a file of its own. */
static void write_alone(hid_t file, const char *dataset, const char *name, const char *path) {
    static struct growing g;
    take(&g, file, dataset, name, NULL, 0, 0);
    grown(&g, path, "\"format\":\"pt\"");
}

static void write_positions(const char *name, const char *path) {
    static struct growing g;
    int64_t positions[33];
    for (int t = 0; t < 33; t++) positions[t] = t;
    grow(&g, name, "I64", "1,33", positions, sizeof positions);
    grown(&g, path, "\"format\":\"pt\"");
}

/* As transformers' model_addition_debugger writes: a file a tensor. */
Test(recorded, a_tree_of_files_is_read_by_the_names_of_its_files) {
    write_recording(1);
    const hid_t file = H5Fopen("d.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    cr_assert_eq(mkdir("tree", 0777), 0);
    write_alone(file, "inputs/layers.0.attention.x", "data",
                "tree/Tiny.model.layers.0.input_layernorm_inputs_args_0.safetensors");
    write_alone(file, "ranks/0/layers.0.attention.normed", "data",
                "tree/Tiny.model.layers.0.input_layernorm_outputs.safetensors");
    write_positions("data", "tree/Tiny.model.layers.0.self_attn_inputs_kwargs_position_ids.safetensors");
    expect("judge --model model tree --contract exact", 0, "1 passed, 0 failed");
    cr_expect(strstr(text, "judged    attn_norm\n"), "%s", text);
    write_alone(file, "inputs/layers.0.attention.x", "data",
                "tree/Tiny.model.layers.0.input_layernorm_outputs.safetensors");
    expect("judge --model model tree --contract exact", 1, "attn_norm.normed");
    cr_assert(H5Fclose(file) >= 0);
}

/* As SGLang's dumper writes: a file a tensor, with the name that its user gave it. */
Test(recorded, a_folder_of_dumped_values_is_read_by_the_keys_of_its_files) {
    static const char *const names[] = {"input_layernorm.input.0", "input_layernorm.output.0"};
    write_recording(2);
    const hid_t file = H5Fopen("d.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    cr_assert_eq(mkdir("values", 0777), 0);
    for (int rank = 0; rank < 2; rank++) {
        char path[160];
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path,
                     "values/step=7___rank=%d___dump_index=%d___name=%s___layer_id=0.safetensors", rank, i,
                     names[i]);
            write_alone(file, i ? "ranks/0/layers.0.attention.normed" : "inputs/layers.0.attention.x",
                        "value", path);
        }
        snprintf(path, sizeof path,
                 "values/step=7___rank=%d___name=model.layers.0.input.positions.safetensors", rank);
        write_positions("value", path);
    }
    cr_assert(H5Fclose(file) >= 0);
    expect("judge --model model values --contract exact", 0, "1 passed, 0 failed");
    cr_expect(strstr(text, "on 2 ranks") && strstr(text, "judged    attn_norm\n"), "%s", text);
}

/* As SGLang writes with --debug-tensor-dump-output-folder: outputs under the modules' names, no inputs. */
Test(recorded, a_pass_of_outputs_alone_is_judged_from_one_output_to_the_next) {
    static struct growing g;
    int64_t positions[33];
    write_recording(2);
    const hid_t file = H5Fopen("d.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    for (int t = 0; t < 33; t++) positions[t] = t;
    cr_assert_eq(mkdir("pass", 0777), 0);
    for (int rank = 0; rank < 2; rank++) {
        char path[80], dataset[80];
        snprintf(path, sizeof path, "pass/TP%d_PP0_Rank%d_pid7", rank, rank);
        cr_assert_eq(mkdir(path, 0777), 0);
        strcat(path, "/Pass00000.safetensors");
        snprintf(dataset, sizeof dataset, "ranks/%d/layers.0.attention.normed", rank);
        take(&g, file, dataset, "model.layers.0.input_layernorm.0", NULL, 0, 0);
        snprintf(dataset, sizeof dataset, "ranks/%d/layers.0.attention.qkv", rank);
        take(&g, file, dataset, "model.layers.0.self_attn.qkv_proj", NULL, 0, 0);
        grow(&g, "model.forward_batch_info.positions", "I64", "33", positions, sizeof positions);
        grown(&g, path, "\"format\":\"pt\"");
    }
    cr_assert(H5Fclose(file) >= 0);
    expect("judge --model model pass --contract exact", 0, "1 passed, 0 failed");
    cr_expect(strstr(text, "on 2 ranks") && strstr(text, "judged    qkv_proj\n"), "%s", text);
}

/* Every element of a bf16 tensor of both ranks doubled. */
static void take_twice(const char *name, int64_t count) {
    for (int rank = 0; rank < 2; rank++) {
        char path[64];
        uint16_t *const values = malloc((size_t)count * sizeof *values);
        snprintf(path, sizeof path, "dump/rank%d.safetensors", rank);
        const long at = tensor_offset(path, name);
        FILE *const file = fopen(path, "r+b");
        cr_assert(file && fseek(file, at, SEEK_SET) == 0);
        cr_assert(fread(values, sizeof *values, (size_t)count, file) == (size_t)count);
        for (int64_t i = 0; i < count; i++)
            values[i] = (uint16_t)(values[i] + (values[i] & 0x7f80 ? 0x0080 : 0));
        cr_assert(fseek(file, at, SEEK_SET) == 0);
        cr_assert(fwrite(values, sizeof *values, (size_t)count, file) == (size_t)count && !fclose(file));
        free(values);
    }
}

Test(recorded, what_wrong_values_look_like_is_said) {
    write_recording(2);
    take_twice("model.layers.0.self_attn.o_proj.output.0", 33 * 64);
    expect(JUDGE " --part attention", 1, "resembles 2 x the right value (2 = tp)");
    cr_expect(strstr(text, "stage attn_sum"), "%s", text);
    expect(JUDGE " --part attention --stage attn_sum,attention --full", 1,
           "--layer 0 --part attention --stage attention,attn_sum --full");
}

/* By the command, in a worker. */
Test(recorded, calls_that_flashinfer_logged_are_judged) {
    expect("judge \"$ROOT/fixtures/golden/flashinfer\"", 0, "5 passed, 0 failed, 1 skipped");
    cr_expect(strstr(text, "calls of FlashInfer 0.6.6"), "%s", text);
    expect("judge \"$ROOT/fixtures/golden/flashinfer\" --report json", 0, "\"passed\": 5");
}

/* Two token rows read as one of twice the width: what vLLM PR #39707 repaired. */
/* Of q, [33, 3, 16] of fused rows. What rank 1 alone, or rank 3 alone, would not be named for. */
Test(recorded, a_mistake_is_named_that_reproduces_every_rank_and_no_other) {
    static const char qkv[] = "model.layers.0.self_attn.qkv_proj.output.0";
    write_recording_of_run("tiny", 8, "--mutant kv-replica-modulo", false);
    expect(JUDGE " --layer 0", 1, "likely    kv-replica-modulo");
    for (int rank = 1; rank < 4; rank += 2) {
        flip(rank, qkv, 11, 0x40);
        expect(JUDGE " --layer 0", 1, "stage qkv_proj, rank");
        cr_expect(!strstr(text, "likely"), "%s", text);
        flip(rank, qkv, 11, 0x40);
    }
}

Test(recorded, a_known_mistake_is_named) {
    expect("run tiny/attention:tp=2 --mutant rows-of-all-heads", 1, "likely    rows-of-all-heads");
}
