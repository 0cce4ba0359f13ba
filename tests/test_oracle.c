/* Does somebody else's arithmetic agree with ours, and would we notice if it did not? Golden files
 * pass stage by stage; a copy with one number changed fails at the stage that reads or makes it.
 * Four real GPU attention kernels stay inside their sets. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/options.h"
#include "reference/score.h"

#define GOLDEN(name) "fixtures/golden/" name ".h5"
static const char *const families[] = {GOLDEN("param2moe"), GOLDEN("llama"), GOLDEN("mixtral"),
                                       GOLDEN("qwen3_moe")};
enum { N_FAMILIES = sizeof families / sizeof *families };

/* `text` is cut at its spaces. */
static void run_words(char *text, struct options *o, struct run_output *out) {
    char *argv[24] = {"shardcheck", "run"}, *rest = NULL;
    int argc = 2;
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    struct status s = options_parse(argc, argv, o);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    s = run_cases(&o->run, out);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
}

static void done(struct options *o, struct run_output *out) {
    run_output_free(out);
    options_free(o);
}

/* ---- the golden files pass ---- */

static int64_t expect_family_passes(const char *path, const char *more) {
    char text[300];
    struct options o;
    struct run_output out;
    snprintf(text, sizeof text, "--fixture %s --dtype bf16,fp32 %s", path, more);
    run_words(text, &o, &out);
    for (int64_t i = 0; i < o.run.n_cases; i++) {
        const struct case_result *const r = &out.cases[i];
        cr_expect_eq(r->verdict, CASE_PASSED, "%s: %s %s", r->line, r->where, r->first.note);
        cr_expect_eq(r->edge[EDGE_ORACLE].state, EDGE_OK, "%s", r->line);
        cr_expect(r->edge[EDGE_ORACLE].margin > 0 && r->edge[EDGE_ORACLE].margin <= 1, "%s: margin %g",
                  r->line, r->edge[EDGE_ORACLE].margin);
        cr_expect(r->edge[EDGE_ORACLE].elements > 1000 && r->edge[EDGE_ORACLE].outside == 0);
    }
    const int64_t n = o.run.n_cases;
    done(&o, &out);
    return n;
}

Test(oracle, every_family_layer_and_part_agrees_at_every_tp) {
    for (int f = 0; f < N_FAMILIES; f++)
        cr_expect_eq(expect_family_passes(families[f], "--ep 1"), 2 * 2 * 4 * 2);
}

Test(oracle, moe_layers_agree_with_experts_dealt_to_two_groups) {
    cr_expect_eq(expect_family_passes(families[0], "--part ffn --layer 1 --ep 2"), 3 * 2);
    cr_expect_eq(expect_family_passes(families[2], "--part ffn --ep 2"), 2 * 3 * 2);
    cr_expect_eq(expect_family_passes(families[3], "--part ffn --ep 2"), 2 * 3 * 2);
}

/* ---- one number changed ---- */

static void copy_file(const char *from, const char *to) {
    char buffer[65536];
    FILE *const in = fopen(from, "rb"), *const out = fopen(to, "wb");
    cr_assert(in && out, "%s", from);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;) cr_assert_eq(fwrite(buffer, 1, n, out), n);
    fclose(in);
    cr_assert_eq(fclose(out), 0);
}

static void scale_element(const char *path, const char *dataset, int64_t element, double factor) {
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t set = H5Dopen2(file, dataset, H5P_DEFAULT);
    cr_assert(file >= 0 && set >= 0, "%s has no %s", path, dataset);
    const hid_t space = H5Dget_space(set);
    const hssize_t n = H5Sget_simple_extent_npoints(space);
    double *const data = malloc((size_t)n * sizeof *data);
    cr_assert(element < n && H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    for (hssize_t i = 0; element < 0 && i < n; i++) data[i] *= factor; /* -1: all of them */
    if (element >= 0) cr_assert_neq(data[element], 0);
    if (element >= 0) data[element] *= factor;
    cr_assert(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    free(data);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
}

static void temporary_name(char path[40]) {
    strcpy(path, "/tmp/shardcheck-XXXXXX.h5");
    const int fd = mkstemps(path, 3);
    cr_assert(fd >= 0);
    close(fd);
}

struct change {
    const char *file, *dataset;
    int64_t element;
    const char *part;
    int layer;
    const char *stage;
};

static void expect_noticed(const struct change *c) {
    char path[40], text[200], want[48];
    struct options o;
    struct run_output out;
    temporary_name(path);
    copy_file(c->file, path);
    scale_element(path, c->dataset, c->element, 1.001);
    snprintf(text, sizeof text, "--fixture %s --part %s --layer %d --tp 2", path, c->part, c->layer);
    run_words(text, &o, &out);
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_FAILED, "%s changed and nobody noticed", c->dataset);
    cr_expect_eq(r->edge[EDGE_ORACLE].state, EDGE_FAIL, "%s", c->dataset);
    for (int e = 0; e < EDGE_ORACLE; e++)
        cr_expect_eq(r->edge[e].state, EDGE_OK, "%s: edge %d", c->dataset, e);
    snprintf(want, sizeof want, "stage %s,", c->stage);
    cr_expect_eq(strncmp(r->where, want, strlen(want)), 0, "%s: %s", c->dataset, r->where);
    cr_expect_str_eq(r->first.stage, c->stage);
    cr_expect(r->first.rank == -1 && r->first.margin > 1 && r->first.where[0]);
    done(&o, &out);
    unlink(path);
}

#define L0 "model.layers.0."
#define L1 "model.layers.1."
Test(oracle, one_changed_activation_fails_at_the_stage_that_makes_it) {
    static const struct change changes[] = {
        {GOLDEN("param2moe"), "activations/" L0 "input_layernorm", 100, "attention", 0, "attn_norm"},
        {GOLDEN("param2moe"), "activations/" L0 "self_attn.q_proj", 5, "attention", 0, "qkv_proj"},
        {GOLDEN("param2moe"), "activations/" L1 "self_attn.v_proj", 1500, "attention", 1, "qkv_proj"},
        {GOLDEN("param2moe"), "activations/" L0 "self_attn.q_norm", 700, "attention", 0, "qk_norm"},
        {GOLDEN("param2moe"), "activations/" L0 "self_attn.k_norm", 3, "attention", 0, "qk_norm"},
        {GOLDEN("llama"), "activations/" L0 "self_attn.o_proj.input", 640, "attention", 0, "attention"},
        {GOLDEN("llama"), "activations/" L1 "self_attn", 77, "attention", 1, "o_proj"},
        {GOLDEN("param2moe"), "activations/" L1 "post_attention_layernorm", 9, "ffn", 1, "ffn_norm"},
        {GOLDEN("mixtral"), "activations/" L0 "mlp.gate", 20, "ffn", 0, "router"},
        {GOLDEN("param2moe"), "activations/" L1 "mlp.gate", 20, "ffn", 1, "router"},
        {GOLDEN("param2moe"), "activations/" L1 "mlp.experts", 64, "ffn", 1, "combine"},
        {GOLDEN("param2moe"), "activations/" L1 "mlp.shared_experts.up_proj", 640, "ffn", 1,
         "shared_gate_up"},
        {GOLDEN("param2moe"), "activations/" L1 "mlp.shared_experts", 640, "ffn", 1, "shared_down"},
        {GOLDEN("llama"), "activations/" L0 "mlp.gate_proj", 11, "ffn", 0, "shared_gate_up"},
        {GOLDEN("llama"), "activations/" L1, 63, "ffn", 1, "ffn_residual"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct change c = changes[i];
        char dataset[120];
        snprintf(dataset, sizeof dataset, "%s", c.dataset);
        if (dataset[strlen(dataset) - 1] == '.') dataset[strlen(dataset) - 1] = 0; /* the layer itself */
        c.dataset = dataset;
        expect_noticed(&c);
    }
}

Test(oracle, one_changed_weight_fails_at_the_first_stage_whose_result_the_file_brings) {
    static const struct change changes[] = {
        {GOLDEN("param2moe"), "weights/" L0 "input_layernorm.weight", 7, "attention", 0, "attn_norm"},
        {GOLDEN("param2moe"), "weights/" L0 "self_attn.k_proj.weight", 1000, "attention", 0, "qkv_proj"},
        {GOLDEN("param2moe"), "weights/" L1 "self_attn.q_norm.weight", 15, "attention", 1, "qk_norm"},
        {GOLDEN("qwen3_moe"), "weights/" L0 "self_attn.o_proj.weight", 1234, "attention", 0, "o_proj"},
        {GOLDEN("llama"), "weights/" L1 "post_attention_layernorm.weight", 63, "ffn", 1, "ffn_norm"},
        {GOLDEN("param2moe"), "weights/" L1 "mlp.gate.weight", 99, "ffn", 1, "router"},
        {GOLDEN("mixtral"), "weights/" L0 "mlp.experts.gate_up_proj", 5, "ffn", 0, "combine"},
        {GOLDEN("mixtral"), "weights/" L1 "mlp.experts.down_proj", 40000, "ffn", 1, "combine"},
        {GOLDEN("param2moe"), "weights/" L1 "mlp.shared_experts.down_proj.weight", 0, "ffn", 1,
         "shared_down"},
        {GOLDEN("llama"), "weights/" L0 "mlp.up_proj.weight", 6143, "ffn", 0, "shared_gate_up"},
        {GOLDEN("llama"), "weights/" L0 "mlp.down_proj.weight", 6143, "ffn", 0, "shared_down"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) expect_noticed(&changes[i]);
}

/* ---- one activation that the file does not show ---- */

static void remove_dataset(const char *path, const char *dataset) {
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert(file >= 0 && H5Ldelete(file, dataset, H5P_DEFAULT) >= 0, "%s has no %s", path, dataset);
    H5Fclose(file);
}

/* The reference's own value takes its place, and its error is the next stage's; a change of what that
 * stage makes is noticed all the same. */
Test(oracle, a_file_that_lacks_an_activation_passes_and_its_mistakes_are_still_noticed) {
    static const struct {
        const char *file, *missing, *part;
        int layer;
        const char *changed;
    } lacks[] = {
        {GOLDEN("param2moe"), "activations/" L0 "input_layernorm", "attention", 0,
         "activations/" L0 "self_attn.q_proj"},
        {GOLDEN("param2moe"), "activations/" L1 "post_attention_layernorm", "ffn", 1,
         "activations/" L1 "mlp.gate"},
        {GOLDEN("param2moe"), "activations/" L0 "self_attn.o_proj.input", "attention", 0,
         "activations/" L0 "self_attn.o_proj"},
        {GOLDEN("llama"), "activations/" L1 "self_attn.o_proj", "attention", 1,
         "activations/" L1 "self_attn"},
        {GOLDEN("param2moe"), "activations/" L1 "mlp.experts", "ffn", 1, "activations/" L1 "mlp"},
        {GOLDEN("mixtral"), "activations/" L0 "mlp.gate", "ffn", 0, "activations/" L0 "mlp.experts"},
        {GOLDEN("llama"), "activations/" L0 "mlp.down_proj", "ffn", 0, "activations/" L0 "mlp"},
    };
    for (size_t i = 0; i < 2 * sizeof lacks / sizeof *lacks; i++) {
        const bool wrong = i % 2;
        char path[40], text[200];
        struct options o;
        struct run_output out;
        temporary_name(path);
        copy_file(lacks[i / 2].file, path);
        remove_dataset(path, lacks[i / 2].missing);
        if (wrong) scale_element(path, lacks[i / 2].changed, 33, 1.01);
        snprintf(text, sizeof text, "--fixture %s --part %s --layer %d --tp 2", path, lacks[i / 2].part,
                 lacks[i / 2].layer);
        run_words(text, &o, &out);
        const struct case_result *const r = &out.cases[0];
        cr_expect_eq(r->verdict, wrong ? CASE_FAILED : CASE_PASSED, "without %s%s: %s %s",
                     lacks[i / 2].missing, wrong ? ", one element off" : "", r->where, r->first.note);
        done(&o, &out);
        unlink(path);
    }
}

/* A router whose weights are 0 chooses anybody: what the producer's experts made cannot be judged by
 * the reference's choice, and what follows from the file's own sum can. */
Test(oracle, after_a_choice_that_the_file_leaves_open_nothing_is_judged_by_another) {
    char path[40], text[200];
    struct options o;
    struct run_output out;
    temporary_name(path);
    copy_file(GOLDEN("mixtral"), path);
    remove_dataset(path, "activations/" L0 "mlp.gate");
    scale_element(path, "weights/" L0 "mlp.gate.weight", -1, 0);
    snprintf(text, sizeof text, "--fixture %s --part ffn --layer 0 --tp 2", path);
    run_words(text, &o, &out);
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->edge[EDGE_ORACLE].state, EDGE_OK, "%s %s", r->where, r->first.note);
    for (int i = 0; i < r->n_stages; i++) {
        const bool judged = r->stage[i].edge[EDGE_ORACLE].state != EDGE_NOT_RUN;
        if (!strcmp(r->stage[i].stage, "combine")) cr_expect(!judged);
        if (!strcmp(r->stage[i].stage, "ffn_residual")) cr_expect(judged);
    }
    done(&o, &out);
    unlink(path);
}

static void expect_not_a_number_fails(const struct change *c) {
    char path[40], text[200];
    struct options o;
    struct run_output out;
    temporary_name(path);
    copy_file(c->file, path);
    scale_element(path, c->dataset, c->element, (double)NAN);
    snprintf(text, sizeof text, "--fixture %s --part %s --layer %d --tp 2", path, c->part, c->layer);
    run_words(text, &o, &out);
    cr_expect_eq(out.cases[0].verdict, CASE_FAILED, "%s", c->dataset);
    cr_expect_eq(out.cases[0].edge[EDGE_ORACLE].state, EDGE_FAIL, "%s", c->dataset);
    done(&o, &out);
    unlink(path);
}

Test(oracle, a_nan_in_the_file_is_a_failure_and_never_a_crash) {
    static const struct change changes[] = {
        {GOLDEN("mixtral"), "weights/" L0 "mlp.gate.weight", 3, "ffn", 0, ""},
        {GOLDEN("mixtral"), "activations/" L0 "mlp.gate", 3, "ffn", 0, ""},
        {GOLDEN("param2moe"), "weights/" L1 "mlp.gate.e_score_correction_bias", 3, "ffn", 1, ""},
        {GOLDEN("llama"), "weights/" L0 "self_attn.q_proj.weight", 3, "attention", 0, ""},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) expect_not_a_number_fails(&changes[i]);
}

static void dump(const char *path) {
    char text[300];
    struct options o;
    struct run_output out;
    snprintf(text, sizeof text,
             "tiny --part ffn --tp 1 --tokens 5 --kernel gate_up_act=gated_gemm_wgmma --dump %s", path);
    run_words(text, &o, &out);
    cr_assert_eq(out.result.n_passed, 1);
    done(&o, &out);
}

/* The file has act, and nothing between gate_up and act. */
Test(oracle, what_a_fused_kernel_stored_is_judged_in_one_step) {
    char path[40], text[200];
    struct options o;
    struct run_output out;
    temporary_name(path);
    snprintf(text, sizeof text, "--fixture %s --tp 1", path);
    for (int changed = 0; changed < 2; changed++) {
        char words[200];
        dump(path);
        if (changed) scale_element(path, "activations/layers.1.ffn.act", 7, 1.0625);
        strcpy(words, text);
        run_words(words, &o, &out);
        const struct case_result *const r = &out.cases[0];
        cr_expect_eq(r->verdict, changed ? CASE_FAILED : CASE_PASSED, "%s %s", r->where, r->first.note);
        for (int s = 0; s < r->n_stages; s++)
            if (!strcmp(r->stage[s].stage, "activation"))
                cr_expect(r->stage[s].edge[EDGE_ORACLE].elements == 5 * 4 * 32 &&
                          r->stage[s].edge[EDGE_ORACLE].outside == changed);
        cr_expect(!changed || !strncmp(r->where, "stage gate_up_act, expert column 7, row 0", 40), "%s",
                  r->where);
        done(&o, &out);
        unlink(path);
    }
}

Test(oracle, a_file_without_activations_does_not_pass) {
    char path[40], text[200];
    struct options o;
    struct run_output out;
    temporary_name(path);
    copy_file(families[1], path);
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert(file >= 0 && H5Ldelete(file, "activations", H5P_DEFAULT) >= 0);
    H5Fclose(file);
    snprintf(text, sizeof text, "--fixture %s --part attention --layer 0 --tp 2", path);
    run_words(text, &o, &out);
    cr_expect_eq(out.cases[0].verdict, CASE_SKIPPED);
    cr_expect(strstr(out.cases[0].reason, "no activation of layer 0's attention"), "%s", out.cases[0].reason);
    cr_expect_eq(out.cases[0].edge[EDGE_ORACLE].state, EDGE_NOT_RUN);
    cr_expect(out.cases[0].n_stages > 0, "its weights went through the kernels all the same");
    done(&o, &out);
    unlink(path);
}

/* ---- four kernels of an H200 ---- */

enum { QUERIES = 64, KEYS = 1024, PAGE = 16 };

static float *read_floats(hid_t file, const char *group, const char *name, int64_t n) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", group, name);
    const hid_t set = H5Dopen2(file, path, H5P_DEFAULT), space = H5Dget_space(set);
    cr_assert(set >= 0 && H5Sget_simple_extent_npoints(space) == n, "%s", path);
    float *const data = malloc((size_t)n * sizeof *data);
    cr_assert(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    return data;
}

static struct contract tensor_core_attention(int64_t block) {
    struct contract c = contract_exact(OP_ATTENTION);
    struct attention_contract *const a = &c.u.attention;
    a->qk = a->pv = (struct accumulator){.block = 16, .fraction = 25, .keep = 24, .order = ORDER_INTERVAL};
    a->p_unit = UNIT_BF16;
    a->block = block;
    a->l_depth = KEYS / 4 + KEYS / block;
    return c;
}

struct gpu_result {
    int64_t outside;
    double margin;
    struct score_report score;
};

/* Query row i of the file answers for row i + shift of the call: 0 is right, as a scale of 1. */
static struct gpu_result judge_gpu(hid_t file, const char *group, int64_t d, int64_t block, int64_t shift,
                                   double scale) {
    float *const q = read_floats(file, group, "q", QUERIES * d), *const k =
                                                                     read_floats(file, group, "k", KEYS * d);
    float *const v = read_floats(file, group, "v", KEYS * d), *const o =
                                                                  read_floats(file, group, "o", QUERIES * d);
    int32_t pages[KEYS / PAGE], start[2] = {0, QUERIES}, length[1] = {KEYS};
    uint16_t unused[1];
    for (int32_t p = 0; p < KEYS / PAGE; p++) pages[p] = p;
    struct call call = {.op = OP_ATTENTION};
    call.u.attention =
        (struct attention_args){.q = {q, DTYPE_F32, {d, d}, 0, QUERIES * d},
                                .out = {unused, DTYPE_BF16, {d, d}, 0, QUERIES * d},
                                .k_cache = {k, DTYPE_F32, {PAGE * d, d, d}, 0, KEYS * d},
                                .v_cache = {v, DTYPE_F32, {PAGE * d, d, d}, 0, KEYS * d},
                                .page_table = {pages, DTYPE_I32, {KEYS / PAGE}, 0, KEYS / PAGE},
                                .query_start = {start, DTYPE_I32, {1}, 0, 2},
                                .kv_len = {length, DTYPE_I32, {1}, 0, 1},
                                .n_tokens = QUERIES,
                                .n_seqs = 1,
                                .n_heads = 1,
                                .n_kv_heads = 1,
                                .head_dim = d,
                                .page_size = PAGE,
                                .n_pages = KEYS / PAGE,
                                .max_queries = QUERIES,
                                .max_kv = KEYS,
                                .scale = scale / sqrt((double)d)};
    const struct contract contract = tensor_core_attention(block);
    double *const y = malloc((size_t)(QUERIES * d) * sizeof *y), *const e = malloc((size_t)(QUERIES * d) *
                                                                                   sizeof *e);
    struct ref_out out[MAX_REF_OUT] = {{y, e, NULL}};
    struct gpu_result r = {0};
    ref_compute(&call, &contract, NULL, 0, QUERIES, out);
    for (int64_t i = 0; i < QUERIES * d; i++) {
        const int64_t at = (i + shift * d) % (QUERIES * d);
        const struct element_verdict verdict = element_judge(DTYPE_BF16, (double)o[i], y[at], e[at]);
        r.outside += verdict.kind != ELEMENT_OK;
        r.margin = fmax(r.margin, verdict.margin);
    }
    void *const stored = malloc((size_t)(QUERIES * d) * 2);
    for (int64_t i = 0; i < QUERIES * d; i++) dtype_store(stored, DTYPE_BF16, i, (double)o[i]);
    const struct score_case c = {
        .call = &call, .contract = &contract, .dtype = DTYPE_BF16, .stored = stored, .y = y, .e = e};
    ref_score(&c, &r.score);
    free(q), free(k), free(v), free(o), free(y), free(e), free(stored);
    return r;
}

Test(oracle, four_real_gpu_attention_kernels_stay_inside_their_sets) {
    static const struct {
        const char *group;
        int64_t head_dim;
    } kernels[] = {{"fa2_d64", 64}, {"fa2_d128", 128}, {"cudnn_d64", 64}, {"cudnn_d128", 128}};
    const hid_t file = H5Fopen(GOLDEN("h200_attention"), H5F_ACC_RDONLY, H5P_DEFAULT);
    cr_assert(file >= 0);
    for (size_t i = 0; i < 4; i++)
        for (int64_t block = 64; block <= 128; block *= 2) {
            const struct gpu_result r = judge_gpu(file, kernels[i].group, kernels[i].head_dim, block, 0, 1);
            cr_expect_eq(r.outside, 0, "%s block %lld: %lld elements outside, margin %g", kernels[i].group,
                         (long long)block, (long long)r.outside, r.margin);
            cr_expect(r.margin > 0.01, "%s: a margin of %g says that the bound is slack", kernels[i].group,
                      r.margin);
            const struct score_report *const s = &r.score;
            cr_expect(s->state == SCORE_FINE && s->worst.ratio < 0.5, "%s: statistic %.2f of the threshold",
                      kernels[i].group, s->worst.ratio);
            const struct gpu_result off =
                judge_gpu(file, kernels[i].group, kernels[i].head_dim, block, 0, 0.98);
            cr_expect(off.score.state == SCORE_WRONG && fabs(off.score.scale.estimate - 0.02) < 2e-3,
                      "%s: a scale that is 2 %% smaller, estimated as %g", kernels[i].group,
                      off.score.scale.estimate);
            printf(
                "%s block %lld: max margin %.3f; statistic %.2f, gain %+.1e, scale %+.1e, resolution %.1e\n",
                kernels[i].group, (long long)block, r.margin, s->worst.ratio, s->gain.estimate,
                s->scale.estimate, s->scale.resolution);
        }
    const struct gpu_result wrong = judge_gpu(file, "fa2_d64", 64, 128, 1, 1);
    cr_expect(wrong.outside > QUERIES * 64 / 2, "another query's output: only %lld elements outside",
              (long long)wrong.outside);
    H5Fclose(file);
}
