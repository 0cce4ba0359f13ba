/* Does a config.json say what we think it says, and is everything else refused in one line that
 * names the key? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/config_text.h"

Test(config, presets_reproduce_the_published_parameter_counts) {
    const struct {
        const char *name;
        double published;
    } models[] = {{"param2-17b", 17.15e9}, {"llama-3.1-8b", 8.03e9}, {"qwen3-30b-a3b", 30.53e9}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const struct model m = preset(models[i].name);
        const double ratio = (double)model_param_count(&m) / models[i].published;
        cr_expect(fabs(ratio - 1) < 0.005, "%s: %g of the published count", models[i].name, ratio);
    }
}

Test(config, tiny_has_the_parameters_counted_by_hand) {
    const struct model m = preset("tiny");
    const int64_t norms = 64 + 64 + 16 + 16;                       /* two norms, q and k norm */
    const int64_t attention = (8 + 4 + 4) * 16 * 64 + 64 * 8 * 16; /* qkv, o */
    const int64_t dense = 3 * 64 * 96;
    const int64_t moe = 16 * 64 + 16 + 16 * 3 * 64 * 32 + 3 * 64 * 64; /* router, bias, experts, shared */
    cr_expect_eq(model_param_count(&m), 256 * 64 + 64 + 2 * (norms + attention) + dense + moe);
    cr_expect_eq(model_param_count(&m), 195984);
}

Test(config, param2_comes_first_and_reads_as_published) {
    cr_assert_str_eq(model_preset_names()[0], "param2-17b");
    const struct model m = preset("param2-17b");
    const struct layer_spec moe = model_layer(&m, 1), dense = model_layer(&m, 0);
    cr_expect(moe.n_heads == 32 && moe.n_kv_heads == 8 && moe.head_dim == 64 && moe.rot_dim == 64);
    cr_expect(moe.moe && moe.n_experts == 64 && moe.top_k == 6 && moe.expert_width == 2048 &&
              moe.shared_width == 4096);
    cr_expect(moe.score == SCORE_SIGMOID && moe.select_bias && moe.renormalise && moe.routed_scale == 2.5);
    cr_expect(moe.renorm_eps == 1e-20 && moe.group_score == GROUP_TOP2_SUM && moe.qk_norm &&
              moe.rope_theta == 1e6);
    cr_expect(moe.attn_scale == 0.125 && moe.causal && !moe.qkv_bias && !moe.o_bias);
    cr_expect(!dense.moe && dense.shared_width == 9216 && dense.n_experts == 0 && !dense.select_bias);
    cr_expect(m.n_layers == 21 && m.dtype == DTYPE_BF16 && m.tied_embeddings);
    cr_expect(model_layer_has_part(&m, 20, PART_FFN) && !model_layer_has_part(&m, 21, PART_FFN));
}

Test(config, every_preset_parses_under_its_name) {
    for (const char *const *name = model_preset_names(); *name; name++)
        cr_expect_str_eq(preset(*name).name, *name);
    struct model m;
    struct status status = model_load("llama", &m);
    cr_expect(status.code && strstr(status.message, "param2-17b"), "%s", status.message);
    status = model_load("/no/such/config.json", &m);
    cr_expect(status.code && strstr(status.message, "No such file"), "%s", status.message);
}

Test(config, keys_that_change_the_maths_must_have_the_supported_value) {
    const struct {
        const char *preset, *patch, *key, *cause;
    } cases[] = {
        {"llama-3.1-8b", "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}}",
         "rope_scaling.low_freq_factor", "missing"},
        {"llama-3.1-8b",
         "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}}",
         "rope_scaling.high_freq_factor", "not above"},
        {"llama-3.1-8b", "{\"rope_scaling\": {\"type\": \"linear\"}}", "rope_scaling.factor", "missing"},
        {"llama-3.1-8b", "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"low_freq_factor\": 1}}",
         "rope_scaling.low_freq_factor", "unknown"},
        {"llama-3.1-8b", "{\"rope_scaling\": {\"type\": \"yarn\"}}", "rope_scaling.rope_type", "yarn"},
        {"llama-3.1-8b", "{\"rope_scaling\": {\"factor\": 8.0}}", "rope_scaling.factor", "unknown"},
        {"llama-3.1-8b", "{\"rope_scaling\": 8}", "rope_scaling", "not an object"},
        {"llama-3.1-8b", "{\"rope_parameters\": {\"rope_theta\": 1.0}}", "rope_parameters.rope_theta",
         "disagrees"},
        {"tiny", "{\"rope_theta\": null}", "rope_theta", "missing"},
        {"llama-3.1-8b", "{\"rope_theta\": -1}", "rope_theta", "positive"},
        {"llama-3.1-8b", "{\"mlp_bias\": true}", "mlp_bias", "not supported"},
        {"llama-3.1-8b", "{\"hidden_act\": \"gelu\"}", "hidden_act", "\"silu\""},
        {"llama-3.1-8b", "{\"pretraining_tp\": 2}", "pretraining_tp", "2 is not supported"},
        {"llama-3.1-8b", "{\"sliding_window\": 4096}", "sliding_window", "full attention"},
        {"llama-3.1-8b", "{\"partial_rotary_factor\": 0.5}", "partial_rotary_factor", "unknown"},
        {"llama-3.1-8b", "{\"n_group\": 1}", "n_group", "unknown for model_type llama"},
        {"llama-3.1-8b", "{\"torch_dtype\": \"float8_e4m3fn\"}", "torch_dtype",
         "bfloat16, float16 or float32"},
        {"llama-3.1-8b", "{\"dtype\": \"float32\"}", "dtype", "disagrees"},
        {"llama-3.1-8b", "{\"num_key_value_heads\": 5}", "num_key_value_heads", "divide"},
        {"llama-3.1-8b", "{\"quantization_config\": \"fp8\"}", "quantization_config", "not an object"},
        {"llama-3.1-8b", "{\"layer_types\": [\"full_attention\"]}", "layer_types", "32"},
        {"llama-3.1-8b", "{\"brand\\nnew\": 1}", "brand?new", "unknown"},
        {"qwen3-30b-a3b", "{\"use_sliding_window\": true}", "sliding_window", "missing"},
        {"qwen3-30b-a3b", "{\"num_hidden_layers\": 1, \"layer_types\": [\"sliding_attention\"]}",
         "layer_types", "without a sliding window"},
        {"qwen3-30b-a3b", "{\"num_local_experts\": 64}", "num_local_experts", "disagrees with num_experts"},
        {"qwen3-30b-a3b", "{\"num_experts_per_tok\": 129}", "num_experts_per_tok", "129"},
        {"qwen3-30b-a3b", "{\"mlp_only_layers\": [48]}", "mlp_only_layers", "0 to 47"},
        {"qwen3-30b-a3b", "{\"model_type\": \"qwen3_vl_moe_text\", \"norm_topk_prob\": false}",
         "norm_topk_prob", "only true"},
        {"tiny", "{\"use_bias\": true}", "use_bias", "only false"},
        {"tiny", "{\"score_function\": \"softmax\"}", "score_function", "sigmoid"},
        {"tiny", "{\"routed_scaling_factor\": 1e308}", "routed_scaling_factor", "give one up to 1e+30"},
        {"tiny", "{\"n_group\": 3}", "n_group", "16 experts"},
        {"tiny", "{\"n_group\": 16}", "n_group", "two or more"},
        {"tiny", "{\"n_group\": 4, \"topk_group\": 5}", "topk_group", "5 of only 4"},
        {"tiny", "{\"n_group\": 8, \"topk_group\": 1}", "topk_group", "fewer than 4"},
        {"tiny", "{\"first_k_dense_replace\": 3}", "first_k_dense_replace", "only 2"},
        {"tiny", "{\"num_shared_experts\": 3}", "num_shared_experts", "64"},
        {"tiny", "{\"partial_rotary_factor\": 0.07}", "partial_rotary_factor", "even number"},
        {"tiny", "{\"partial_rotary_factor\": 1.5}", "partial_rotary_factor", "up to 1"},
        {"tiny", "{\"model_type\": \"gemma3\"}", "model_type", "not supported: norms of 1 + w"},
        {"tiny", "{\"model_type\": \"unheard_of\"}", "model_type", "\"unheard_of\" is not supported; use "},
        {"tiny", "{\"model_type\": \"qwen3moe\"}", "model_type", "use qwen3_moe, qwen3, "},
        {"tiny", "{\"model_type\": null}", "model_type",
         "missing; use param2moe, glm4_moe, llama, mistral, qwen2, "},
        {"tiny", "{\"num_hidden_layers\": 1025}", "num_hidden_layers", "from 1 to 1024"},
        {"tiny", "{\"model_type\": \"mixtral\", \"router_jitter_noise\": 0.1}", "router_jitter_noise",
         "only 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model m;
        char key[80];
        snprintf(key, sizeof key, "key \"%s\"", cases[i].key);
        must_say(parse_patched(cases[i].preset, cases[i].patch, &m), key, cases[i].cause);
    }
}

Test(config, all_refusals_come_at_once_and_none_follows_from_another) {
    struct model m;
    const struct status three =
        parse_patched("llama-3.1-8b",
                      "{\"mlp_bias\": true, \"num_key_value_heads\": 5, \"new\": 1, \"rope_scaling\": "
                      "{\"rope_type\": \"llama3\", \"factor\": -1, \"low_freq_factor\": 9, "
                      "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}}",
                      &m);
    static const char *const parts[] = {"num_key_value_heads\": 5 does", "; key \"rope_scaling.factor\": -1",
                                        "; key \"rope_scaling.high_freq_factor\": 4 is not above",
                                        "; key \"mlp_bias\": true", "; key \"new\": unknown"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) must_say(three, parts[i], "test.json: key");
    cr_expect(!strstr(three.message, " more"), "%s", three.message);

    /* 0 heads are refused; that 8 kv heads do not divide their number, that 4096 channels are no
     * multiple of it or that too many dims rotate is no news. */
    const struct status one =
        parse_patched("llama-3.1-8b", "{\"num_attention_heads\": 0, \"head_dim\": null}", &m);
    must_say(one, "num_attention_heads\": 0 is out of range", "");
    cr_expect(!strstr(one.message, "; key"), "%s", one.message);

    /* What does not fit into a line is counted, the same key twice is one. */
    char many[2000] = "{\"layer_types\": [\"a\", \"b\"], \"num_hidden_layers\": 2";
    for (int i = 0; i < 40; i++) snprintf(many + strlen(many), 30, ", \"unheard_of_%02d\": 1", i);
    strcat(many, "}");
    const struct status cut = parse_patched("llama-3.1-8b", many, &m);
    must_say(cut, "key \"layer_types\": entry 0 ", "; and ");
    int shown = 0, more = 0;
    for (const char *at = cut.message; (at = strstr(at, "key \"")); at++) shown++;
    cr_assert_eq(sscanf(strstr(cut.message, "; and "), "; and %d more", &more), 1);
    cr_expect(shown > 2 && shown + more == 41, "%s", cut.message);
}

Test(config, sizes_are_checked_one_by_one_and_as_products) {
    static const char *const keys[] = {
        "num_hidden_layers",    "vocab_size", "max_position_embeddings", "hidden_size", "num_attention_heads",
        "num_key_value_heads",  "head_dim",   "intermediate_size",       "num_experts", "num_experts_per_tok",
        "moe_intermediate_size"};
    static const char *const wrong[] = {"0",    "-1",   "16777217", "9223372036854775807", "\"64\"", "64.5",
                                        "true", "[64]", "{}"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
            char patch[100], name[100];
            struct model m;
            snprintf(patch, sizeof patch, "{\"%s\": %s}", keys[k], wrong[w]);
            snprintf(name, sizeof name, "key \"%s\"", keys[k]);
            must_say(parse_patched("tiny", patch, &m), name, "");
        }
    static const char *const required[] = {"num_hidden_layers", "hidden_size",  "num_attention_heads",
                                           "intermediate_size", "rms_norm_eps", "rope_theta"};
    for (size_t k = 0; k < sizeof required / sizeof *required; k++) {
        char patch[100];
        struct model m;
        snprintf(patch, sizeof patch, "{\"%s\": null}", required[k]);
        must_say(parse_patched("tiny", patch, &m), required[k], "missing");
    }
    struct model m;
    must_say(parse_patched("tiny", "{\"hidden_size\": 16777216, \"moe_intermediate_size\": 16777216}", &m),
             "2^40", "");
    must_say(parse_patched("tiny", "{\"num_attention_heads\": 65536, \"head_dim\": 4096}", &m), "qkv row",
             "");
    must_say(parse_patched("tiny", "{\"head_dim\": 1000000}", &m), "key \"head_dim\"", "from 1 to 4096");
    must_say(parse_patched("tiny", "{\"head_dim\": null, \"hidden_size\": 65536}", &m), "key \"head_dim\"",
             "8 heads of 8192; at most 4096");
}

/* The layers of the published configs, written out as which of them have experts. */
Test(config, every_kind_is_some_layers_and_the_map_says_whose) {
    static const struct {
        const char *preset, *patch, *experts; /* one letter a layer: e has experts, - has none */
        int n_kinds;
    } cases[] = {
        {"llama-3.1-8b", "{\"num_hidden_layers\": 4}", "----", 1},
        {"tiny", "{\"num_hidden_layers\": 5, \"first_k_dense_replace\": 2}", "--eee", 2},
        {"tiny", "{\"num_hidden_layers\": 3, \"first_k_dense_replace\": 0}", "eee", 1},
        {"tiny", "{\"num_hidden_layers\": 3, \"first_k_dense_replace\": 3}", "---", 1},
        {"qwen3-30b-a3b", "{\"num_hidden_layers\": 4}", "eeee", 1},
        {"qwen3-30b-a3b", "{\"num_hidden_layers\": 7, \"decoder_sparse_step\": 3}", "--e--e-", 2},
        {"qwen3-30b-a3b",
         "{\"num_hidden_layers\": 6, \"decoder_sparse_step\": 2, \"mlp_only_layers\": [3, 3]}", "-e---e", 2},
        {"qwen3-30b-a3b", "{\"num_hidden_layers\": 2, \"decoder_sparse_step\": 3}", "--", 1},
        {"qwen3-30b-a3b", "{\"num_hidden_layers\": 2, \"mlp_only_layers\": [1, 0]}", "--", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model m;
        const struct status status = parse_patched(cases[i].preset, cases[i].patch, &m);
        cr_assert(!status.code, "%s", status.message);
        cr_expect_eq(m.n_kinds, cases[i].n_kinds, "%s: %d kinds", cases[i].patch, m.n_kinds);
        cr_assert_eq((size_t)m.n_layers, strlen(cases[i].experts));
        for (int64_t layer = 0; layer < m.n_layers; layer++)
            cr_expect_eq(model_layer(&m, layer).moe, cases[i].experts[layer] == 'e', "%s: layer %d",
                         cases[i].patch, (int)layer);
        cr_expect_eq(m.kind[0].moe, strchr(cases[i].experts, 'e') != NULL,
                     "kind 0 has experts where any has");
    }
}

Test(config, text_that_is_no_config_is_refused) {
    static const char *const texts[] = {"",
                                        "{",
                                        "[]",
                                        "3",
                                        "null",
                                        "{\"model_type\": \"llama\"",
                                        "\x7f"
                                        "ELF",
                                        "{\"hidden_size\": 1, \"hidden_size\": 2}",
                                        "{\"a\": 1e999}",
                                        "{\"a\": 99999999999999999999}",
                                        "{\"a\": \"\xff\"}",
                                        "{} trailing"};
    struct model m;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        must_say(model_parse("test.json", texts[i], strlen(texts[i]), &m), "test.json", "; ");
    const char *const whole = model_preset_json("tiny");
    for (size_t n = 0; n + 2 < strlen(whole); n += 7)
        must_say(model_parse("test.json", whole, n, &m), "JSON", "");
    char deep[5000];
    memset(deep, '[', sizeof deep);
    must_say(model_parse("test.json", deep, sizeof deep, &m), "JSON", "");
}

Test(config, scaled_rope_and_the_biases_of_two_more_types_are_read) {
    struct model m = preset("llama-3.1-8b");
    const struct layer_spec *const s = &m.kind[0];
    cr_expect(s->rope_scaling == ROPE_LLAMA3 && s->rope_factor == 8 && s->rope_low == 1 &&
              s->rope_high == 4 && s->rope_trained == 8192);
    struct status status =
        parse_patched("llama-3.1-8b", "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}", &m);
    cr_expect(!status.code && s->rope_scaling == ROPE_LINEAR && s->rope_factor == 2, "%s", status.message);
    status = parse_patched("llama-3.1-8b",
                           "{\"model_type\": \"qwen2\", \"attention_bias\": null, \"sliding_window\": 4096, "
                           "\"use_sliding_window\": false}",
                           &m);
    cr_expect(!status.code && s->qkv_bias && !s->o_bias && !s->qk_norm, "%s", status.message);
    status = parse_patched("llama-3.1-8b", "{\"model_type\": \"mistral\", \"attention_bias\": null}", &m);
    cr_expect(!status.code && !s->qkv_bias && !s->o_bias, "%s", status.message);
}

Test(config, every_storage_dtype_goes_by_its_torch_name) {
    static const struct {
        const char *patch;
        enum dtype dtype;
    } names[] = {{"{\"torch_dtype\": \"float16\"}", DTYPE_F16},
                 {"{\"torch_dtype\": null, \"dtype\": \"float16\"}", DTYPE_F16},
                 {"{\"torch_dtype\": \"float32\"}", DTYPE_F32},
                 {"{\"torch_dtype\": \"bfloat16\"}", DTYPE_BF16}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct model m;
        const struct status status = parse_patched("llama-3.1-8b", names[i].patch, &m);
        cr_expect(!status.code && m.dtype == names[i].dtype, "%s: %s", names[i].patch, status.message);
    }
}

Test(config, null_and_spelling_variants_mean_the_same) {
    struct model m;
    struct status status =
        parse_patched("llama-3.1-8b",
                      "{\"head_dim\": null, \"num_key_value_heads\": null, \"rope_theta\": null, "
                      "\"torch_dtype\": null, \"attention_bias\": true, \"anything\": null, "
                      "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 7.0}}",
                      &m);
    cr_assert(!status.code, "%s", status.message);
    cr_expect(m.kind[0].head_dim == 128 && m.kind[0].n_kv_heads == 32 && m.kind[0].rope_theta == 7 &&
              m.dtype == DTYPE_BF16);
    cr_expect(m.kind[0].qkv_bias && m.kind[0].o_bias && !m.kind[0].moe && m.kind[0].shared_width == 14336);

    status = parse_patched("qwen3-30b-a3b",
                           "{\"sliding_window\": 4096, \"max_window_layers\": 48, \"num_experts\": null, "
                           "\"num_local_experts\": 128, \"decoder_sparse_step\": 2, "
                           "\"norm_topk_prob\": false, \"mlp_only_layers\": [3]}",
                           &m);
    cr_assert(!status.code, "%s", status.message);
    cr_expect(m.kind[0].score == SCORE_SOFTMAX && !m.kind[0].renormalise && m.kind[0].renorm_eps == 0 &&
              m.kind[0].qk_norm);
    cr_expect(!model_layer(&m, 0).moe && model_layer(&m, 1).moe && !model_layer(&m, 3).moe &&
              model_layer(&m, 5).moe);
    cr_expect_eq(model_layer(&m, 3).shared_width, 6144);
}

Test(config, glm4_moe_counts_shared_experts_and_biases_only_qkv) {
    struct model m;
    const struct status status = parse_patched(
        "tiny",
        "{\"model_type\": \"glm4_moe\", \"use_qkv_bias\": null, \"use_bias\": null, "
        "\"moe_router_enable_expert_bias\": null, \"moe_shared_expert_intermediate_size\": null, "
        "\"num_experts\": null, \"n_routed_experts\": 16, \"num_shared_experts\": null, "
        "\"n_shared_experts\": 2, \"attention_bias\": true, \"partial_rotary_factor\": 0.5, "
        "\"n_group\": 4, \"topk_group\": 2}",
        &m);
    cr_assert(!status.code, "%s", status.message);
    cr_expect(m.kind[0].shared_width == 64 && m.kind[0].qkv_bias && !m.kind[0].o_bias &&
              m.kind[0].select_bias);
    cr_expect(m.kind[0].rot_dim == 8 && m.kind[0].n_group == 4 && m.kind[0].topk_group == 2);
}
