/* What does a config.json mean for its model type: where keys are absent, under another type's name, and
 * inside of another config? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "tests/config_text.h"

/* The sizes of a layer, and nothing that a class has a default for. */
#define SIZES                                                                                                \
    "\"vocab_size\": 64, \"hidden_size\": 256, \"num_hidden_layers\": 3, \"num_attention_heads\": 32, "      \
    "\"max_position_embeddings\": 64, \"intermediate_size\": 48"
#define EXPERTS ", \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 16"

/* By the classes of transformers 5.17, vLLM 0.32's param2moe.py and the code published with the weights of
 * mimo, deepseek and bailing_moe. */
Test(config, keys_that_are_absent_mean_what_the_published_code_takes_them_for) {
    static const struct {
        const char *type, *more;
        double eps, theta;
        int64_t kv, dim, rot, window, shared;
        bool qk_norm, qkv_bias, o_bias, renormalise;
        const char *experts;
    } rows[] = {
        {"llama", "", 1e-6, 1e4, 32, 8, 8, 0, 48, false, false, false, true, "---"},
        {"mistral", "", 1e-6, 1e4, 8, 8, 8, 4096, 48, false, false, false, true, "---"},
        {"mistral", ", \"sliding_window\": null, \"num_key_value_heads\": null", 1e-6, 1e4, 32, 8, 8, 0, 48,
         false, false, false, true, "---"},
        {"qwen2", "", 1e-6, 1e4, 32, 8, 8, 0, 48, false, true, false, true, "---"},
        {"mimo", "", 1e-6, 1e4, 32, 8, 8, 0, 48, false, true, false, true, "---"},
        {"qwen3", "", 1e-6, 1e4, 32, 128, 128, 0, 48, true, false, false, true, "---"},
        {"qwen3_vl_text", "", 1e-6, 5e5, 32, 128, 128, 0, 48, true, false, false, true, "---"},
        {"seed_oss", "", 1e-6, 1e4, 8, 128, 128, 0, 48, false, true, false, true, "---"},
        {"phi3", "", 1e-5, 1e4, 32, 8, 8, 0, 48, false, false, false, true, "---"},
        {"mixtral", ", \"num_experts_per_tok\": 2, \"num_local_experts\": 4", 1e-5, 1e6, 8, 8, 8, 0, 0, false,
         false, false, true, "eee"},
        {"qwen3_moe", EXPERTS ", \"num_experts\": 4", 1e-6, 1e4, 4, 8, 8, 0, 0, true, false, false, false,
         "eee"},
        {"qwen3_vl_moe_text", EXPERTS ", \"num_experts\": 4", 1e-6, 5e5, 16, 8, 8, 0, 0, true, false, false,
         true, "eee"},
        {"deepseek", EXPERTS ", \"n_routed_experts\": 4, \"n_shared_experts\": 3", 1e-6, 1e4, 16, 8, 8, 0, 48,
         false, false, false, false, "eee"},
        {"bailing_moe", EXPERTS ", \"num_experts\": 4, \"num_key_value_heads\": 4, \"use_bias\": false", 1e-5,
         1e4, 4, 8, 8, 0, 0, false, false, false, true, "eee"},
        {"glm4_moe", EXPERTS ", \"n_routed_experts\": 4", 1e-5, 1e4, 8, 8, 4, 0, 16, false, false, false,
         true, "-ee"},
        {"param2moe",
         EXPERTS ", \"num_experts\": 4, \"num_key_value_heads\": 4, \"rms_norm_eps\": 0.5, \"rope_theta\": 7",
         0.5, 7, 4, 8, 8, 0, 16, false, false, false, true, "-ee"},
        {"param2moe",
         EXPERTS
         ", \"num_experts\": 4, \"num_key_value_heads\": 4, \"rms_norm_eps\": 0.5, \"rope_theta\": 7, "
         "\"num_shared_experts\": 0",
         0.5, 7, 4, 8, 8, 0, 0, false, false, false, true, "-ee"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[600];
        struct model m;
        snprintf(text, sizeof text, "{\"model_type\": \"%s\", " SIZES "%s}", rows[i].type, rows[i].more);
        const struct status status = model_parse("test.json", text, strlen(text), &m);
        cr_assert(!status.code, "%s", status.message);
        const struct layer_spec *const s = &m.kind[0];
        cr_expect(s->norm_eps == rows[i].eps && s->rope_theta == rows[i].theta, "%s: %g %g", text,
                  s->norm_eps, s->rope_theta);
        cr_expect(s->n_kv_heads == rows[i].kv && s->head_dim == rows[i].dim && s->rot_dim == rows[i].rot,
                  "%s: %d %d %d", text, (int)s->n_kv_heads, (int)s->head_dim, (int)s->rot_dim);
        cr_expect(m.window == rows[i].window && s->shared_width == rows[i].shared, "%s", text);
        cr_expect(s->qk_norm == rows[i].qk_norm && s->qkv_bias == rows[i].qkv_bias &&
                      s->o_bias == rows[i].o_bias && s->renormalise == rows[i].renormalise,
                  "%s", text);
        for (int64_t layer = 0; layer < m.n_layers; layer++)
            cr_expect_eq(model_layer(&m, layer).moe, rows[i].experts[layer] == 'e', "%s", text);
    }
}

Test(config, a_default_that_does_not_fit_is_told_with_its_source) {
    struct model m;
    must_say(parse_patched("llama-3.1-8b",
                           "{\"model_type\": \"qwen3\", \"num_attention_heads\": 12, \"head_dim\": 8}", &m),
             "num_key_value_heads", "8 does not divide");
    static const char text[] = "{\"model_type\": \"mistral\", \"num_hidden_layers\": 1, \"hidden_size\": 64, "
                               "\"num_attention_heads\": 12, \"head_dim\": 8, \"vocab_size\": 8, "
                               "\"max_position_embeddings\": 8, \"intermediate_size\": 8}";
    must_say(model_parse("test.json", text, strlen(text), &m), "num_key_value_heads",
             "8, where absent, by MistralConfig does not divide num_attention_heads 12");
}

Test(config, a_config_of_another_type_is_refused_or_is_that_types_layer) {
    static const struct {
        const char *preset;
        const char *accepted; /* the types under which all its keys are read */
    } rows[] = {
        /* all keys of a llama are those of a mistral, a phi3 or a qwen3; the others have no such bias, or
         * need experts */
        {"llama-3.1-8b", " llama mistral qwen3 qwen3_vl_text seed_oss phi3 "},
        {"param2-17b", " param2moe "},
        {"qwen3-30b-a3b", " qwen3_moe "},
        {"tiny", " param2moe "},
    };
    static const char *const types[] = {
        "param2moe", "glm4_moe", "llama",         "mistral",           "qwen2",
        "mimo",      "qwen3",    "qwen3_vl_text", "seed_oss",          "phi3",
        "qwen3_moe", "mixtral",  "deepseek",      "qwen3_vl_moe_text", "bailing_moe"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            char patch[60], word[40];
            struct model m;
            snprintf(patch, sizeof patch, "{\"model_type\": \"%s\"}", types[t]);
            snprintf(word, sizeof word, " %s ", types[t]);
            const struct status status = parse_patched(rows[i].preset, patch, &m);
            cr_expect(!status.code == (strstr(rows[i].accepted, word) != NULL), "%s as %s: %s",
                      rows[i].preset, types[t], status.message);
            if (status.code) continue;
            cr_expect_eq(m.kind[0].qk_norm, !strncmp(types[t], "qwen3", 5) || !strcmp(types[t], "param2moe"));
            cr_expect_eq(m.window, !strcmp(types[t], "mistral") ? 4096 : 0);
            cr_expect(!m.kind[0].qkv_bias);
        }
}

Test(config, a_text_model_inside_of_another_is_read_and_the_rest_known) {
    static const char whole[] =
        "{\"model_type\": \"qwen3_vl_moe\", \"architectures\": [\"Qwen3VLMoeForConditionalGeneration\"], "
        "\"torch_dtype\": \"float32\", \"vision_config\": {\"depth\": 27}, \"image_token_id\": 5, "
        "\"text_config\": {\"model_type\": \"qwen3_vl_moe_text\", \"rope_scaling\": {\"rope_type\": "
        "\"default\", \"mrope_section\": [24, 20, 20], \"mrope_interleaved\": true}, \"num_experts\": "
        "4, " SIZES EXPERTS "}}";
    static const struct {
        const char *from, *to, *first, *second;
    } wrong[] = {
        {"\"image_token_id\"", "\"residual_scale\"", "residual_scale", "unknown beside a text_config"},
        {"\"qwen3_vl_moe\"", "\"unheard_of\"", "unheard_of", "qwen3_vl_moe_text"},
        {"\"qwen3_vl_moe\"", "\"llama4\"", "llama4", "chunked attention"},
        {"\"qwen3_vl_moe_text\"", "\"mixtral\"", "qwen3_vl_moe", "mixtral"},
        {"\"mrope_section\"", "\"factor\"", "rope_scaling.factor", "unknown"},
        {"\"text_config\": {", "\"text_config\": 3, \"other\": {", "text_config", "not an object"},
    };
    struct model m;
    const struct status status = model_parse("test.json", whole, strlen(whole), &m);
    cr_assert(!status.code, "%s", status.message);
    cr_expect(m.dtype == DTYPE_F32 && m.kind[0].n_experts == 4 && m.kind[0].rope_scaling == ROPE_UNSCALED);
    cr_expect_str_eq(m.model_type, "qwen3_vl_moe_text");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[1200];
        const char *const at = strstr(whole, wrong[i].from);
        cr_assert(at, "%s", wrong[i].from);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - whole), whole, wrong[i].to,
                 at + strlen(wrong[i].from));
        must_say(model_parse("test.json", text, strlen(text), &m), wrong[i].first, wrong[i].second);
    }
}

Test(config, words_of_python_are_read_over_and_never_numbers) {
    struct model m;
    static const char start[] = "{\"model_type\": \"llama\", " SIZES;
    static const struct {
        const char *more, *says; /* NULL: is read */
    } rows[] = {
        {", \"time_step_limit\": [0.0, Infinity], \"top_p\": NaN, \"prefix\": \"NaN\\\"Infinity\"}", NULL},
        {", \"rms_norm_eps\": Infinity}", "\"Infinity\" is not a positive number"},
        {", \"rope_theta\": -Infinity}", "\"-Infinity\" is not a positive number"},
        {", \"head_dim\": NaN}", "\"NaN\" is not an integer"},
        {", \"top_p\": Infinit}", "not valid JSON"},
        {", \"top_p\": NaN1}", "not valid JSON"},
        {", \"top_p\": NaN", "not valid JSON"},
        {", \"top_p\": \"NaN", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[600];
        snprintf(text, sizeof text, "%s%s", start, rows[i].more);
        const struct status status = model_parse("test.json", text, strlen(text), &m);
        if (rows[i].says)
            must_say(status, rows[i].says, "");
        else
            cr_expect(!status.code, "%s", status.message);
    }
}

Test(config, a_window_and_a_quantisation_are_remembered) {
    struct model m;
    struct status status = parse_patched(
        "qwen3-30b-a3b",
        "{\"use_sliding_window\": true, \"sliding_window\": 77, \"max_window_layers\": 1, "
        "\"num_hidden_layers\": 2, \"layer_types\": [\"full_attention\", \"sliding_attention\"], "
        "\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}}",
        &m);
    cr_expect(!status.code && m.window == 77, "%s", status.message);
    cr_expect_str_eq(m.quantised, "fp8");
    status = parse_patched("llama-3.1-8b", "{\"quantization_config\": {\"bits\": 4}}", &m);
    cr_expect(!status.code && m.quantised[0], "%s", status.message);
    m = preset("llama-3.1-8b");
    cr_expect(!m.quantised[0] && !m.window);
}
