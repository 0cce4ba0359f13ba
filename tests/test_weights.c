/* Are the numbers of a checkpoint those of our tensors, in our order, under every name that its family gives
 * them?  And is a checkpoint that is not its config's refused in one line? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include "fixtures/fixture.h"
#include "fixtures/weights.h"
#include "layer/line.h"
#include "layer/plan.h"
#include "tests/checkpoint.h"
#include "tests/shell.h"

/* All of it as doubles; *found: a checkpoint has such a thing. */
static struct status weights_read(struct weights *w, int64_t layer, enum part part, enum tensor_id id,
                                  int64_t count, double *dst, bool *found) {
    *found = weights_bring(id);
    return *found ? weights_fill(w, layer, part, id, DTYPE_F64, 0, count, dst) : status_ok();
}

TestSuite(weights, .init = folder_enter, .fini = folder_leave);
TestSuite(cli_weights, .init = folder_enter_with_binary, .fini = folder_leave);

/* 4 query and 2 kv heads of 2, 3 experts of width 5 or none, layers of width 6 without. */
#define CONFIG(type, more)                                                                                   \
    "{\"model_type\": \"" type "\", \"torch_dtype\": \"float32\", \"vocab_size\": 8, \"hidden_size\": 8, "   \
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 2, "    \
    "\"max_position_embeddings\": 64, \"intermediate_size\": 6, \"rms_norm_eps\": 1e-5, \"rope_theta\": "    \
    "100, "                                                                                                  \
    "\"hidden_act\": \"silu\"" more "}"
#define EXPERTS ", \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 5"

#define L "model.layers.1."
#define NORMS L "input_layernorm.weight:8 " L "post_attention_layernorm.weight:8 "
#define QKV L "self_attn.q_proj.weight:8x8 " L "self_attn.k_proj.weight:4x8 " L "self_attn.v_proj.weight:4x8 "
#define QKV_BIAS L "self_attn.q_proj.bias:8 " L "self_attn.k_proj.bias:4 " L "self_attn.v_proj.bias:4 "
#define O L "self_attn.o_proj.weight:8x8 "
#define Q_NORM L "self_attn.q_norm.weight:2 "
#define K_NORM L "self_attn.k_norm.weight:2 "
#define GATE_UP L "mlp.gate_proj.weight:6x8 " L "mlp.up_proj.weight:6x8 "
#define DOWN L "mlp.down_proj.weight:8x6 "
#define SHARED_GATE_UP L "mlp.shared_experts.gate_proj.weight:5x8 " L "mlp.shared_experts.up_proj.weight:5x8 "
#define SHARED_DOWN L "mlp.shared_experts.down_proj.weight:8x5 "
#define EACH_GATE_UP                                                                                         \
    L "mlp.experts.0.gate_proj.weight:5x8 " L "mlp.experts.0.up_proj.weight:5x8 " L                          \
      "mlp.experts.1.gate_proj.weight:5x8 " L "mlp.experts.1.up_proj.weight:5x8 " L                          \
      "mlp.experts.2.gate_proj.weight:5x8 " L "mlp.experts.2.up_proj.weight:5x8 "
#define EACH_DOWN                                                                                            \
    L "mlp.experts.0.down_proj.weight:8x5 " L "mlp.experts.1.down_proj.weight:8x5 " L                        \
      "mlp.experts.2.down_proj.weight:8x5 "

/* Layer 1 of a checkpoint: our tensor, and the tensors of the file that it is made of, in this order. */
struct family {
    const char *what, *config;
    struct {
        enum part part;
        enum tensor_id id;
        const char *tensors;
    } rows[12];
};
#define A PART_ATTENTION
#define F PART_FFN

static const struct family families[] = {
    {"llama with biases",
     CONFIG("llama", ", \"attention_bias\": true"),
     {{A, T_NORM_W, L "input_layernorm.weight:8 "},
      {A, T_W_QKV, QKV},
      {A, T_B_QKV, QKV_BIAS},
      {A, T_W_O, O},
      {A, T_B_O, L "self_attn.o_proj.bias:8 "},
      {F, T_NORM_W, L "post_attention_layernorm.weight:8 "},
      {F, T_W_SHARED_GATE_UP, GATE_UP},
      {F, T_W_SHARED_DOWN, DOWN},
      {0}}},
    {"phi3",
     CONFIG("phi3", ""),
     {{A, T_NORM_W, L "input_layernorm.weight:8 "},
      {A, T_W_QKV, L "self_attn.qkv_proj.weight:16x8 "},
      {A, T_W_O, O},
      {F, T_NORM_W, L "post_attention_layernorm.weight:8 "},
      {F, T_W_SHARED_GATE_UP, L "mlp.gate_up_proj.weight:12x8 "},
      {F, T_W_SHARED_DOWN, DOWN},
      {0}}},
    {"param2moe",
     CONFIG("param2moe", EXPERTS ", \"num_experts\": 3, \"use_qk_norm\": true, \"num_shared_experts\": 1"),
     {{A, T_NORM_W, L "input_layernorm.weight:8 "},
      {A, T_W_QKV, L "attention.query_key_value.weight:16x8 "},
      {A, T_Q_NORM_W, L "attention.query_layernorm.weight:2 "},
      {A, T_K_NORM_W, L "attention.key_layernorm.weight:2 "},
      {A, T_W_O, L "attention.dense.weight:8x8 "},
      {F, T_NORM_W, L "post_attention_layernorm.weight:8 "},
      {F, T_W_ROUTER, L "mlp.gate.weight:3x8 "},
      {F, T_SELECT_BIAS, L "mlp.gate.expert_bias:3 "},
      {F, T_W_GATE_UP, EACH_GATE_UP},
      {F, T_W_DOWN, EACH_DOWN},
      {F, T_W_SHARED_GATE_UP, SHARED_GATE_UP},
      {F, T_W_SHARED_DOWN, SHARED_DOWN}}},
    {"glm4_moe",
     CONFIG("glm4_moe",
            EXPERTS ", \"n_routed_experts\": 3, \"use_qk_norm\": true, \"partial_rotary_factor\": 1"),
     {{A, T_W_QKV, QKV},
      {A, T_Q_NORM_W, Q_NORM},
      {A, T_K_NORM_W, K_NORM},
      {A, T_W_O, O},
      {A, T_NORM_W, L "input_layernorm.weight:8 "},
      {F, T_NORM_W, L "post_attention_layernorm.weight:8 "},
      {F, T_W_ROUTER, L "mlp.gate.weight:3x8 "},
      {F, T_SELECT_BIAS, L "mlp.gate.e_score_correction_bias:3 "},
      {F, T_W_GATE_UP, EACH_GATE_UP},
      {F, T_W_DOWN, EACH_DOWN},
      {F, T_W_SHARED_GATE_UP, SHARED_GATE_UP},
      {F, T_W_SHARED_DOWN, SHARED_DOWN}}},
    {"qwen3_moe, experts stacked",
     CONFIG("qwen3_moe", EXPERTS ", \"num_experts\": 3"),
     {{A, T_W_QKV, QKV},
      {A, T_Q_NORM_W, Q_NORM},
      {A, T_K_NORM_W, K_NORM},
      {A, T_W_O, O},
      {A, T_NORM_W, L "input_layernorm.weight:8 "},
      {F, T_NORM_W, L "post_attention_layernorm.weight:8 "},
      {F, T_W_ROUTER, L "mlp.gate.weight:3x8 "},
      {F, T_W_GATE_UP, L "mlp.experts.gate_up_proj:3x10x8 "},
      {F, T_W_DOWN, L "mlp.experts.down_proj:3x8x5 "},
      {0}}},
    {"mixtral",
     CONFIG("mixtral", ", \"num_experts_per_tok\": 2, \"num_local_experts\": 2"),
     {{A, T_W_QKV, QKV},
      {A, T_W_O, O},
      {A, T_NORM_W, L "input_layernorm.weight:8 "},
      {F, T_NORM_W, L "post_attention_layernorm.weight:8 "},
      {F, T_W_ROUTER, L "block_sparse_moe.gate.weight:2x8 "},
      {F, T_W_GATE_UP,
       L "block_sparse_moe.experts.0.w1.weight:6x8 " L "block_sparse_moe.experts.0.w3.weight:6x8 " L
         "block_sparse_moe.experts.1.w1.weight:6x8 " L "block_sparse_moe.experts.1.w3.weight:6x8 "},
      {F, T_W_DOWN,
       L "block_sparse_moe.experts.0.w2.weight:8x6 " L "block_sparse_moe.experts.1.w2.weight:8x6 "},
      {0}}},
};

/* All tensors of the checkpoint, the last layers' first. */
static void all_tensors(const struct family *f, char *tensors) {
    tensors[0] = 0;
    for (int i = 11; i >= 0; i--)
        if (f->rows[i].tensors) strcat(tensors, f->rows[i].tensors);
    strcat(tensors, "model.norm.weight:8 model.embed_tokens.weight:8x8 model.layers.0.other.weight:3 ");
}

static struct weights *open_folder(const char *name, struct model *model) {
    struct weights *w;
    struct status s = model_load(name, model);
    cr_assert(!s.code, "%s", s.message);
    s = weights_open(model, &w);
    cr_assert(!s.code, "%s", s.message);
    return w;
}

/* What the tensors hold, one after the other; returns how much. */
static int64_t expected_values(const char *tensors, double *out) {
    int64_t n = 0;
    for (const char *at = tensors; *at;) {
        char name[200];
        int n_dims;
        int64_t dims[4];
        const int64_t count = checkpoint_entry(at, name, &n_dims, dims, &at);
        for (int64_t i = 0; i < count; i++) out[n++] = checkpoint_value(name, i);
        while (*at == ' ') at++;
    }
    return n;
}

static void check_rows(struct weights *w, const struct family *f) {
    static double wanted[4096], got[4096];
    static float part_of[4096];
    for (int i = 0; i < 12 && f->rows[i].tensors; i++) {
        const int64_t n = expected_values(f->rows[i].tensors, wanted);
        bool found = false;
        struct status s = weights_read(w, 1, f->rows[i].part, f->rows[i].id, n, got, &found);
        cr_assert(!s.code && found, "%s", s.message);
        cr_expect(!memcmp(got, wanted, (size_t)n * sizeof *got), "%s: %s", f->what, f->rows[i].tensors);
        enum dtype stored = DTYPE_I32;
        s = weights_dtype(w, 1, f->rows[i].part, f->rows[i].id, &stored);
        if (!s.code) s = weights_fill(w, 1, f->rows[i].part, f->rows[i].id, stored, 0, n, got);
        cr_assert(!s.code, "%s", s.message);
        for (int64_t e = 0; e < n; e++)
            cr_assert_eq(dtype_load(got, stored, e), wanted[e], "%s: %s", f->what, f->rows[i].tensors);
        s = weights_fill(w, 1, f->rows[i].part, f->rows[i].id, DTYPE_F32, n / 3, n / 2, part_of);
        cr_assert(!s.code, "%s", s.message);
        for (int64_t k = 0; k < n / 2; k++)
            cr_assert_eq(part_of[k], wanted[n / 3 + k], "%s", f->rows[i].tensors);
    }
}

Test(weights, names_of_every_family_give_our_tensors_from_one_file_and_from_shards) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        for (int sharded = 0; sharded < 2; sharded++) {
            char name[20], tensors[8000];
            static struct model model;
            snprintf(name, sizeof name, "m%zu-%d", i, sharded);
            all_tensors(&families[i], tensors);
            checkpoint_make(name, families[i].config, sharded ? CHECKPOINT_BF16 : CHECKPOINT_F32, tensors,
                            sharded);
            struct weights *const w = open_folder(name, &model);
            check_rows(w, &families[i]);
            weights_close(w);
        }
}

Test(weights, every_weight_of_every_stage_is_one_that_a_checkpoint_brings) {
    for (enum tensor_id id = 0; id < T_COUNT; id++)
        cr_expect_eq(weights_bring(id), tensor_table[id].role == ROLE_WEIGHT, "%s", tensor_table[id].name);
    static struct model model;
    char tensors[8000];
    double x;
    bool found = true;
    all_tensors(&families[0], tensors);
    checkpoint_make("m", families[0].config, CHECKPOINT_F32, tensors, false);
    struct weights *const w = open_folder("m", &model);
    cr_expect(!weights_read(w, 1, PART_ATTENTION, T_X, 1, &x, &found).code && !found);
    weights_close(w);
}

Test(weights, values_are_rounded_once_to_what_is_stored) {
    static const float values[8] = {1, 1.00390625f, 1.01171875f, -3, 1e-40f, 3e38f, 0.1f, 0};
    static struct model model;
    uint16_t stored[8];
    checkpoint_make("m", families[0].config, CHECKPOINT_F32, L "input_layernorm.weight:8", false);
    FILE *const file = fopen("m/model.safetensors", "r+b");
    cr_assert(file && !fseek(file, -(long)sizeof values, SEEK_END) &&
              fwrite(values, 1, sizeof values, file) == sizeof values && !fclose(file));
    struct weights *const w = open_folder("m", &model);
    const struct status s = weights_fill(w, 1, PART_ATTENTION, T_NORM_W, DTYPE_BF16, 0, 8, stored);
    cr_assert(!s.code, "%s", s.message);
    for (int i = 0; i < 8; i++)
        cr_expect_eq(dtype_load(stored, DTYPE_BF16, i), dtype_round(DTYPE_BF16, (double)values[i]), "%d", i);
    weights_close(w);
}

/* ---- what is no checkpoint of its config ---- */

/* Of the llama above with `from` as `to`; the read of that tensor, or the opening, must say so. */
static void refused_tensors(const char *from, const char *to, enum part part, enum tensor_id id,
                            const char *first, const char *second) {
    static struct model model;
    static double got[4096];
    char tensors[8000], changed[9000];
    bool found;
    all_tensors(&families[0], tensors);
    const char *const at = strstr(tensors, from);
    cr_assert(at, "%s", from);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - tensors), tensors, to, at + strlen(from));
    checkpoint_make("m", families[0].config, CHECKPOINT_F32, changed, false);
    struct weights *const w = open_folder("m", &model);
    const struct status s = weights_read(w, 1, part, id, 128, got, &found);
    cr_expect(s.code && strstr(s.message, first) && strstr(s.message, second) && line_is_clean(s.message),
              "%s -> %s: %s", from, to, s.message);
    weights_close(w);
}

Test(weights, what_the_config_does_not_describe_is_refused_by_name) {
    const struct {
        const char *from, *to, *first, *second;
    } cases[] = {
        {L "self_attn.k_proj.weight:4x8 ", "", L "self_attn.k_proj.weight", "download every file"},
        {L "self_attn.q_proj.weight:8x8 ", "", L "self_attn.q_proj.weight", "nor w_qkv of layer 1"},
        {L "self_attn.k_proj.weight:4x8 ", L "self_attn.k_proj.weight:8x8 ", "is [8, 8]", "makes it [4, 8]"},
        {L "self_attn.q_proj.weight:8x8 ", L "self_attn.q_proj.weight:64 ", "is [64]", "makes it [8, 8]"},
        {"model.norm.weight:8 ", L "self_attn.q_norm.weight:2 ", "self_attn.q_norm.weight",
         "a llama, computes with none"},
        {"model.norm.weight:8 ", L "mlp.experts.0.gate_proj.weight:2 ", "mlp.experts.0.gate_proj",
         "computes with none"},
        {"model.norm.weight:8 ", L "self_attn.q_proj.weight_scale_inv:1 ", "q_proj.weight_scale_inv",
         "unquantised"},
        {"model.norm.weight:8 ", L "self_attn.q_proj.qweight:1 ", "q_proj.qweight", "unquantised"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused_tensors(cases[i].from, cases[i].to, PART_ATTENTION, T_W_QKV, cases[i].first, cases[i].second);
}

/* They would be read where 2 F = M and F = M, and be wrong. */
Test(weights, experts_that_lie_the_other_way_round_are_refused) {
    static struct model model;
    static double got[240];
    bool found;
    checkpoint_make(
        "m", CONFIG("qwen3_vl_moe_text", EXPERTS ", \"num_experts\": 3"), CHECKPOINT_F32,
        L "mlp.experts.gate_up_proj:3x10x8 " L "mlp.experts.down_proj:3x8x5 " L "mlp.gate.weight:3x8", false);
    struct weights *const w = open_folder("m", &model);
    struct status s = weights_read(w, 1, PART_FFN, T_W_GATE_UP, 240, got, &found);
    cr_expect(s.code && strstr(s.message, "mlp.experts.gate_up_proj") && strstr(s.message, "[in, out]"), "%s",
              s.message);
    s = weights_read(w, 1, PART_FFN, T_W_ROUTER, 24, got, &found);
    cr_expect(!s.code && found, "%s", s.message);
    weights_close(w);
}

/* Tables of rope and other layers are none of its business. */
Test(weights, what_nothing_is_computed_with_is_left_alone) {
    static struct model model;
    char tensors[8000];
    double got[8];
    bool found;
    all_tensors(&families[0], tensors);
    strcat(tensors, L "self_attn.rotary_emb.inv_freq:1 model.layers.10.self_attn.q_norm.weight:2 ");
    checkpoint_make("m", families[0].config, CHECKPOINT_F32, tensors, false);
    struct weights *const w = open_folder("m", &model);
    const struct status s = weights_read(w, 1, PART_ATTENTION, T_NORM_W, 8, got, &found);
    cr_expect(!s.code, "%s", s.message);
    weights_close(w);
}

static void refused_folder(const char *first, const char *second) {
    static struct model model;
    struct weights *w = NULL;
    double got[64];
    bool found;
    cr_assert(!model_load("m", &model).code);
    struct status s = weights_open(&model, &w);
    if (!s.code) s = weights_read(w, 1, PART_ATTENTION, T_W_O, 64, got, &found);
    cr_expect(s.code && strstr(s.message, first) && strstr(s.message, second) && line_is_clean(s.message),
              "%s: %s", first, s.message);
    weights_close(w);
}

Test(weights, a_folder_that_lacks_files_or_lies_about_them_is_refused) {
    char tensors[8000];
    all_tensors(&families[0], tensors);
    checkpoint_make("m", families[0].config, CHECKPOINT_F32, tensors, true);
    cr_assert(!truncate("m/part-0.safetensors", 100) && !truncate("m/part-1.safetensors", 100));
    refused_folder("m/part-", "safetensors");
    cr_assert(!remove("m/part-0.safetensors") && !remove("m/part-1.safetensors"));
    refused_folder("m/part-", "No such file or directory; download every file");
    static const char *const indices[][2] = {
        {"{\"weight_map\": {\"" L "a\": \"../part-0.safetensors\"}}", "in no file of this folder"},
        {"{\"weight_map\": {\"" L "a\": 3}}", "in no file of this folder"},
        {"{\"weight_map\": {\"" L "a\": \"..\"}}", "in no file of this folder"},
        {"{\"weight_map\": 3}", "has no weight_map"},
        {"{\"weight_map\"", "line 1"},
        {"{\"weight_map\": {\"transformer.h.1.a\": \"b\"}}", "model.layers.I.NAME"},
        {"{\"weight_map\": {}}", "model.layers.I.NAME"},
    };
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        checkpoint_text("m/model.safetensors.index.json", indices[i][0]);
        refused_folder(indices[i][1], "; ");
    }
    checkpoint_text("m/model.safetensors.index.json",
                    "{\"weight_map\": {\"" L "self_attn.o_proj.weight\": \"part-0.safetensors\"}}");
    checkpoint_write("m/part-0.safetensors", CHECKPOINT_F32, "model.norm.weight:8", 0, 1);
    refused_folder("lacks tensor \"" L "self_attn.o_proj.weight\"", "index");
    cr_assert(!remove("m/model.safetensors.index.json"));
    refused_folder("m: no model.safetensors", "config.json");
}

/* ---- the command ---- */

Test(cli_weights, a_folder_is_a_model_whose_weights_go_through_the_kernels) {
    char tensors[8000];
    all_tensors(&families[0], tensors);
    checkpoint_make("m", families[0].config, CHECKPOINT_F32, tensors, true);
    expect("run m --layer 1 --tp 1,2 --no-grid", 0, "4 passed, 0 failed");
    cr_expect(strstr(text, "PASS m/attention:tp=2,layer=1"), "%s", text);
    expect("run ./m/attention:layer=1,tp=2,tokens=3", 0, "PASS ./m/attention:tp=2,tokens=3,layer=1");
    expect("run m --layer 0 --tp 1 --no-grid", 2, "model.layers.0.other.weight");
    expect("run m/config.json --layer 0 --tp 1 --no-grid", 0, "2 passed");
    expect("run m/attention:tp=2,layer=1,heads=8 m/attention:tp=1,layer=0,fill=exact", 0, "2 passed");
    expect("run m/attention:tp=2,layer=1 --mutant kv-heads-tiled --no-grid", 1,
           "repro     shardcheck run 'm/attention:tp=2,layer=1' --mutant kv-heads-tiled");
    expect("run nowhere --no-grid", 2, "nowhere: no such preset");
    cr_assert(!remove("m/config.json"));
    expect("run m --no-grid", 2, "m/config.json: No such file or directory");
}

/* What the kernels were given is what the file holds, a swapped pair too. */
Test(cli_weights, a_dump_holds_the_numbers_of_the_checkpoint) {
    static const struct {
        enum part part;
        enum tensor_id id;
    } rows[] = {{PART_ATTENTION, T_W_QKV}, {PART_ATTENTION, T_B_O}, {PART_FFN, T_W_SHARED_GATE_UP}};
    char tensors[8000];
    static double got[512], wanted[512];
    all_tensors(&families[0], tensors);
    checkpoint_make("m", families[0].config, CHECKPOINT_F32, tensors, false);
    static struct model model;
    struct weights *const w = open_folder("m", &model);
    expect("run m --layer 1 --tp 1 --dump d.h5 --no-grid", 0, "2 passed");
    struct fixture *dump;
    cr_assert(!fixture_open("d.h5", &dump).code);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool found = false, also = false;
        struct shard_plan plan;
        const struct layer_spec spec = model_layer(&model, 1);
        plan_build(&plan, &spec, 1, 1);
        const int64_t n = slice_count(&plan, rows[i].id, -1);
        cr_assert(!weights_read(w, 1, rows[i].part, rows[i].id, n, wanted, &found).code && found);
        cr_assert(!fixture_read(dump, 1, rows[i].part, rows[i].id, n, got, &also).code && also);
        cr_expect(!memcmp(got, wanted, (size_t)n * sizeof *got), "%s", tensor_table[rows[i].id].name);
    }
    fixture_close(dump);
    weights_close(w);
}
