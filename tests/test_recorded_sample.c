/* Where a dump is much work, some of its tokens are judged: those, and which are they? */
/* SPDX-License-Identifier: MIT */
#include "fixtures/tensor_file.h"
#include "harness/cli/options.h"
#include "harness/recorded_sample.h"
#include "harness/run.h"
#include "tests/recorded_dump.h"

enum { TOKENS = 200 };

static void write_long_recording(void) {
    folder_enter_with_binary();
    recorded_tokens = TOKENS;
    write_recording(2);
}
TestSuite(recorded_sample, .init = write_long_recording, .fini = folder_leave);

/* What is judged where so many multiply-adds are much. */
static struct run_output judged(double most_work, const char *stages) {
    char *argv[] = {"shardcheck", "judge", "--model",      "model",   "dump",
                    "--contract", "exact", "--in-process", "--stage", (char *)stages};
    struct options o;
    struct run_output out;
    struct status s = options_parse(stages ? 10 : 8, argv, &o);
    cr_assert(!s.code, "%s", s.message);
    o.run.judge.most_work = most_work;
    s = run_cases(&o.run, &out);
    cr_assert(!s.code, "%s", s.message);
    options_free(&o);
    return out;
}

static int64_t elements(const struct run_output *out, const char *stage) {
    for (int64_t i = 0; i < out->result.n_cases; i++)
        for (int s = 0; s < out->cases[i].n_stages; s++)
            if (!strcmp(out->cases[i].stage[s].stage, stage))
                return out->cases[i].stage[s].edge[EDGE_ORACLE].elements;
    return 0;
}

Test(recorded_sample, honest_ranks_pass_and_the_number_of_tokens_is_said) {
    struct run_output some = judged(1, NULL), all = judged(1e12, NULL);
    cr_expect_eq(some.result.n_passed, 2);
    cr_expect_eq(all.result.n_passed, 2);
    cr_expect_eq(all.cases[0].sampled[0], 0);
    for (int i = 0; i < 2; i++) {
        long long n = 0;
        cr_assert_eq(sscanf(some.cases[i].sampled, "%lld of 200 tokens", &n), 1, "%s", some.cases[i].sampled);
        cr_expect(n >= 64 && n < 90, "%lld", n);
        cr_expect_eq(some.cases[i].n_stages, all.cases[i].n_stages);
    }
    static const char *const cheap[] = {"attn_norm", "rope", "qkv_split", "router"};
    for (size_t i = 0; i < sizeof cheap / sizeof *cheap; i++)
        cr_expect_eq(elements(&some, cheap[i]), elements(&all, cheap[i]), "%s", cheap[i]);
    static const char *const much[] = {"qkv_proj", "attention", "attn_sum", "ffn_sum", "shared_gate_up"};
    for (size_t i = 0; i < sizeof much / sizeof *much; i++)
        cr_expect(elements(&some, much[i]) < elements(&all, much[i]) && elements(&some, much[i]) > 0, "%s",
                  much[i]);
    run_output_free(&some);
    run_output_free(&all);
}

static const struct result_row {
    const char *name, *stage;
    int width;
} products[] = {{"model.layers.0.self_attn.attn.output.0", "attention", 64},
                {"model.layers.0.self_attn.qkv_proj.output.0", "qkv_proj", 128},
                {"model.layers.1.mlp.shared_experts.gate_up_proj.output.0", "shared_gate_up", 64}};

/* One element of every token is spoilt: of so many tokens as are said to be looked at it is found, the first and
 * the last among them. */
Test(recorded_sample, a_wrong_element_of_a_token_in_the_sample_is_found) {
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const struct result_row *const row = &products[i];
        long long n = 0;
        for (int t = 0; t < TOKENS; t++) flip(1, row->name, 2 * (t * row->width + 5) + 1, 0x80);
        struct run_output out = judged(1, row->stage);
        const struct case_result *c = out.cases;
        while (c->verdict != CASE_FAILED && c < out.cases + out.result.n_cases - 1) c++;
        cr_expect_eq(sscanf(c->sampled, "%lld", &n), 1);
        cr_expect_eq(c->edge[EDGE_ORACLE].outside, n, "%s: %lld found, %lld looked at", row->name,
                     (long long)c->edge[EDGE_ORACLE].outside, n);
        cr_expect(!strncmp(c->first.where, "token 0 ", 8), "%s", c->first.where);
        run_output_free(&out);
    }
}

/* A rank's file loses the name of a tensor. */
static void forget(int rank, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "dump/rank%d.safetensors", rank);
    FILE *const file = fopen(path, "r+b");
    static char header[1 << 15];
    cr_assert(file && fread(header, 1, sizeof header, file) > 0);
    for (size_t i = 8; i + strlen(name) < sizeof header; i++)
        if (!memcmp(header + i, name, strlen(name))) {
            cr_assert(!fseek(file, (long)i, SEEK_SET) && fputc('x', file) == 'x' && !fclose(file));
            return;
        }
    cr_assert(false, "%s", name);
}

/* The rows of it that nobody computed stay open, although the other rank has recorded them. */
Test(recorded_sample, what_one_rank_did_not_record_is_open_in_the_rows_left_out) {
    for (int rank = 0; rank < 2; rank++) {
        forget(rank, "model.layers.1.mlp.shared_experts.gate_up_proj.output.0");
        struct run_output out = judged(1, NULL);
        cr_expect_eq(out.result.n_failed, 0, "rank %d: %s", rank,
                     out.cases[out.result.n_cases - 1].first.where);
        run_output_free(&out);
        cr_assert_eq(system("rm -rf model dump d.h5"), 0);
        write_recording(2);
    }
}

/* Of 8 experts the sample's two tokens chose 0 and 1, the others 0, 3 and 5; 2, 4, 6, 7 nobody. */
Test(recorded_sample, every_expert_that_somebody_chose_is_met, .init = NULL, .fini = NULL) {
    int32_t ids[6][2] = {{0, 1}, {0, 3}, {3, 0}, {1, 0}, {5, 3}, {5, -1}};
    bool token[6] = {true, false, false, true, false, false};
    struct store own = {.of[T_IDS] = {.memory = {ids, sizeof ids}, .dtype = DTYPE_I32, .count = 12}};
    struct recorded_run *const r = calloc(1, sizeof *r);
    r->own = &own;
    r->sample = (struct recorded_sample){token, 2};
    r->crew.spec = (struct layer_spec){.n_experts = 8, .top_k = 2};
    recorded_sample_experts(r);
    static const bool want[6] = {true, true, false, true, true, false};
    for (int t = 0; t < 6; t++) cr_expect_eq(token[t], want[t], "token %d", t);
    cr_expect_eq(r->sample.n, 4);
    free(r);
}
