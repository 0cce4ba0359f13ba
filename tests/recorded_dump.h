/* recorded_dump - a run of our own as if vLLM's modules had been captured in it: a folder of one safetensors
 * file a rank, and a checkpoint, made of what `run --dump FILE --ranks` writes. */
/* SPDX-License-Identifier: MIT */
#ifndef TESTS_RECORDED_DUMP_H
#define TESTS_RECORDED_DUMP_H

#include <criterion/criterion.h>
#include <hdf5.h>
#include <stdint.h>
#include <sys/stat.h>

#include "layer/dtype.h"
#include "tests/shell.h"

enum { MOST_TENSORS = 200, MOST_BYTES = 1 << 22 };

/* A safetensors file as it grows. */
struct growing {
    char header[1 << 15];
    char *data;
    size_t n_header, n;
};

/* What another family calls its modules: pairs of theirs for ours, the first that fits; NULL: vLLM's usual names. */
static const char *const (*recorded_words)[2];

/* Rows of 33 tokens as those of 3 sequences of 11. */
static bool recorded_sequences;

static inline void in_their_words(const char *name, char *theirs, size_t size) {
    snprintf(theirs, size, "%s", name);
    for (const char *const(*w)[2] = recorded_words; w && (*w)[0]; w++) {
        const char *const at = strstr(name, (*w)[0]);
        if (!at) continue;
        snprintf(theirs, size, "%.*s%s%s", (int)(at - name), name, (*w)[1], at + strlen((*w)[0]));
        return;
    }
}

static inline void grow(struct growing *g, const char *ours, const char *dtype, const char *shape,
                        const void *bytes, size_t n) {
    char name[120], split[80];
    in_their_words(ours, name, sizeof name);
    if (recorded_sequences && !strncmp(shape, "33,", 3)) {
        snprintf(split, sizeof split, "3,11,%s", shape + 3);
        shape = split;
    }
    if (!g->data) g->data = malloc(MOST_BYTES);
    cr_assert(g->n + n <= MOST_BYTES);
    memcpy(g->data + g->n, bytes, n);
    g->n_header += (size_t)snprintf(g->header + g->n_header, sizeof g->header - g->n_header,
                                    ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                                    name, dtype, shape, g->n, g->n + n);
    cr_assert(g->n_header < sizeof g->header);
    g->n += n;
}

static inline void grown(struct growing *g, const char *path, const char *metadata) {
    char head[1000];
    const uint64_t n =
        (uint64_t)snprintf(head, sizeof head, "{\"__metadata__\":{%s}", metadata) + g->n_header + 1;
    FILE *const file = fopen(path, "wb");
    cr_assert(file && fwrite(&n, sizeof n, 1, file) == 1);
    fprintf(file, "%s%s}", head, g->header);
    cr_assert(fwrite(g->data, 1, g->n, file) == g->n && !fclose(file));
    free(g->data);
    *g = (struct growing){0};
}

/* A run of one part alone has nothing of the other. */
static inline bool is_of_no_part(hid_t file, const char *dataset) {
    static const char *const parts[][2] = {{".attention.", "inputs/layers.0.attention.x"},
                                           {".ffn.", "inputs/layers.1.ffn.x"}};
    for (int i = 0; i < 2; i++)
        if (strstr(dataset, parts[i][0]) && H5Lexists(file, parts[i][1], H5P_DEFAULT) <= 0) return true;
    return false;
}

/* One dataset, or so many of its rows from `first` on (rows 0: all), under another name, in another shape (NULL:
 * its own). */
static inline void take(struct growing *g, hid_t file, const char *dataset, const char *name, const char *as,
                        int64_t first, int64_t rows) {
    hsize_t dims[4];
    char shape[80] = "";
    if (is_of_no_part(file, dataset)) return;
    const hid_t set = H5Dopen2(file, dataset, H5P_DEFAULT);
    cr_assert(set >= 0, "%s", dataset);
    const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    const size_t size = H5Tget_size(type);
    const int n_dims = H5Sget_simple_extent_dims(space, dims, NULL);
    char *const all = malloc((size_t)H5Sget_simple_extent_npoints(space) * size);
    cr_assert(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0);
    size_t row = size;
    for (int i = 1; i < n_dims; i++) row *= dims[i];
    if (!rows) rows = (int64_t)dims[0];
    int used = snprintf(shape, sizeof shape, "%lld", (long long)rows);
    for (int i = 1; i < n_dims; i++)
        used += snprintf(shape + used, sizeof shape - (size_t)used, ",%d", (int)dims[i]);
    grow(g, name, size == 2 ? "BF16" : "F32", as ? as : shape, all + (size_t)first * row, (size_t)rows * row);
    free(all);
    cr_assert(H5Sclose(space) >= 0 && H5Tclose(type) >= 0 && H5Dclose(set) >= 0);
}

enum { MOST_TOKENS = 300 };
static int recorded_tokens = 33;

/* a + b, rounded once: [tokens, 64]. */
static inline void take_residual(struct growing *g, hid_t file, const char *a, const char *b,
                                 const char *name) {
    static float x[MOST_TOKENS * 64], add[MOST_TOKENS * 64];
    static uint16_t y[MOST_TOKENS * 64];
    char shape[20];
    const char *const names[] = {a, b};
    float *const to[] = {x, add};
    if (is_of_no_part(file, a)) return;
    for (int i = 0; i < 2; i++) {
        const hid_t set = H5Dopen2(file, names[i], H5P_DEFAULT);
        cr_assert(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, to[i]) >= 0);
        cr_assert(H5Dclose(set) >= 0);
    }
    const int n = recorded_tokens * 64;
    for (int i = 0; i < n; i++) dtype_store(y, DTYPE_BF16, i, (double)(x[i] + add[i]));
    snprintf(shape, sizeof shape, "%d,64", recorded_tokens);
    grow(g, name, "BF16", shape, y, (size_t)n * sizeof *y);
}

struct renamed {
    const char *dataset, *name; /* after ranks/R/ or inputs/ */
};

/* model/: the checkpoint of preset tiny. */
static inline void write_checkpoint(hid_t file) {
    static const struct {
        const char *dataset, *name, *shape;
    } rows[] = {{"layers.0.attention.norm_w", "model.layers.0.input_layernorm.weight", NULL},
                {"layers.0.attention.w_qkv", "model.layers.0.attention.query_key_value.weight", "256,64"},
                {"layers.0.attention.q_norm_w", "model.layers.0.attention.query_layernorm.weight", NULL},
                {"layers.0.attention.k_norm_w", "model.layers.0.attention.key_layernorm.weight", NULL},
                {"layers.0.attention.w_o", "model.layers.0.attention.dense.weight", "64,128"},
                {"layers.1.ffn.norm_w", "model.layers.1.post_attention_layernorm.weight", NULL},
                {"layers.1.ffn.router_w", "model.layers.1.mlp.gate.weight", NULL},
                {"layers.1.ffn.select_bias", "model.layers.1.mlp.gate.expert_bias", NULL},
                {"layers.1.ffn.w_shared_down", "model.layers.1.mlp.shared_experts.down_proj.weight", NULL}};
    static struct growing g;
    char dataset[100], name[100];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(dataset, sizeof dataset, "weights/%s", rows[i].dataset);
        take(&g, file, dataset, rows[i].name, rows[i].shape, 0, 0);
    }
    /* [2, S, M] and [E, 2, F, M], [E, M, F]: gate and up one by one, expert by expert */
    for (int up = 0; up < 2; up++) {
        snprintf(name, sizeof name, "model.layers.1.mlp.shared_experts.%s_proj.weight", up ? "up" : "gate");
        take(&g, file, "weights/layers.1.ffn.w_shared_gate_up", name, "64,64", up, 1);
    }
    take(&g, file, "weights/layers.1.ffn.w_gate_up", "model.layers.1.mlp.experts.gate_up_proj", "16,64,64", 0,
         0);
    take(&g, file, "weights/layers.1.ffn.w_down", "model.layers.1.mlp.experts.down_proj", NULL, 0, 0);
    cr_assert(mkdir("model", 0777) == 0);
    grown(&g, "model/model.safetensors", "\"format\":\"pt\"");
    cr_assert_eq(system("cp \"$ROOT/fixtures/models/tiny.json\" model/config.json"), 0);
}

/* dump/rankR.safetensors. The norm of the ffn adds a residual of zeros. */
/* What the metadata say that it ran on; NULL: a usual CPU. */
static const char *recorded_device;
static const char *recorded_more; /* further metadata, a comma before it */

/* So many tokens from the first on are padding. */
static int recorded_padding;

static inline void take_mask(struct growing *g) {
    static unsigned char seen[33][33];
    for (int t = 0; t < 33; t++)
        for (int key = recorded_padding; key <= t; key++) seen[t][key] = 1;
    grow(g, "model.layers.0.self_attn.input.attention_mask", "BOOL", "1,1,33,33", seen, sizeof seen);
}

static inline void write_rank(hid_t file, int rank, int tp) {
    static const struct renamed inputs[] = {
        {"layers.0.attention.x", "model.layers.0.input_layernorm.input.0"},
        {"layers.1.ffn.x", "model.layers.1.post_attention_layernorm.input.0"},
        {"layers.1.ffn.x", "model.layers.1.post_attention_layernorm.output.1"}};
    static const struct renamed rows[] = {
        {"layers.0.attention.normed", "model.layers.0.input_layernorm.output.0"},
        {"layers.0.attention.normed", "model.layers.0.self_attn.qkv_proj.input.0"},
        {"layers.0.attention.qkv", "model.layers.0.self_attn.qkv_proj.output.0"},
        {"layers.0.attention.q", "model.layers.0.self_attn.attn.input.0"},
        {"layers.0.attention.k", "model.layers.0.self_attn.attn.input.1"},
        {"layers.0.attention.v", "model.layers.0.self_attn.attn.input.2"},
        {"layers.0.attention.o", "model.layers.0.self_attn.attn.output.0"},
        {"layers.1.ffn.normed", "model.layers.1.post_attention_layernorm.output.0"},
        {"layers.1.ffn.logits", "model.layers.1.mlp.gate.output.0"},
        {"layers.1.ffn.shared_gate_up", "model.layers.1.mlp.shared_experts.gate_up_proj.output.0"},
        {"layers.1.ffn.shared_act", "model.layers.1.mlp.shared_experts.act_fn.output.0"},
        {"layers.1.ffn.shared_part", "model.layers.1.mlp.shared_experts.output.0"}};
    /* The sum over the ranks, and what follows from it, rank 0 has stored. */
    static const struct renamed sums[] = {
        {"layers.0.attention.attn_out", "model.layers.0.self_attn.o_proj.output.0"},
        {"layers.1.ffn.ffn_out", "model.layers.1.mlp.experts.output.0"}};
    static struct growing g;
    static const uint16_t zeros[MOST_TOKENS * 64];
    int64_t positions[MOST_TOKENS];
    char dataset[100], path[64], metadata[800], shape[20];
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        snprintf(dataset, sizeof dataset, "inputs/%s", inputs[i].dataset);
        take(&g, file, dataset, inputs[i].name, NULL, 0, 0);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(dataset, sizeof dataset, "ranks/%d/%s", rank, rows[i].dataset);
        take(&g, file, dataset, rows[i].name, NULL, 0, 0);
    }
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        snprintf(dataset, sizeof dataset, "ranks/0/%s", sums[i].dataset);
        take(&g, file, dataset, sums[i].name, NULL, 0, 0);
    }
    take_residual(&g, file, "inputs/layers.0.attention.x", "ranks/0/layers.0.attention.attn_out",
                  "model.layers.0.post_attention_layernorm.output.1");
    take_residual(&g, file, "inputs/layers.1.ffn.x", "ranks/0/layers.1.ffn.ffn_out", "model.norm.output.1");
    snprintf(shape, sizeof shape, "%d,64", recorded_tokens);
    grow(&g, "model.layers.1.post_attention_layernorm.input.1", "BF16", shape, zeros,
         (size_t)recorded_tokens * 64 * sizeof *zeros);
    for (int t = 0; t < recorded_tokens; t++) positions[t] = t;
    snprintf(shape, sizeof shape, "%d", recorded_tokens);
    grow(&g, "model.layers.0.self_attn.input.positions", "I64", shape, positions,
         (size_t)recorded_tokens * sizeof *positions);
    if (recorded_padding) take_mask(&g);
    snprintf(path, sizeof path, "dump/rank%d.safetensors", rank);
    snprintf(metadata, sizeof metadata, "\"tp_rank\":\"%d\",\"tp_size\":\"%d\",\"device\":\"%s\"%s", rank, tp,
             recorded_device ? recorded_device : "cpu AVX512", recorded_more ? recorded_more : "");
    grown(&g, path, metadata);
}

/* In the current folder, which is empty: model/ and dump/ of a run of a model like tiny on so many
 * ranks. */
static inline void write_recording_of_run(const char *model, int tp, const char *options, bool passes) {
    char arguments[100];
    snprintf(arguments, sizeof arguments, "run %s --tp %d --tokens %d --dump d.h5 --ranks %s", model, tp,
             recorded_tokens, options);
    expect(arguments, passes ? 0 : 1, passes ? " passed, 0 failed" : " failed");
    const hid_t file = H5Fopen("d.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    cr_assert(file >= 0 && mkdir("dump", 0777) == 0);
    write_checkpoint(file);
    for (int rank = 0; rank < tp; rank++) write_rank(file, rank, tp);
    cr_assert(H5Fclose(file) >= 0);
}

static inline void write_recording_of(int tp, const char *options) {
    write_recording_of_run("tiny", tp, options, true);
}
static inline void write_recording(int tp) { write_recording_of(tp, ""); }

/* Where the tensor's bytes begin in a safetensors file; *dtype_bytes. */
static inline long tensor_offset(const char *path, const char *name) {
    char quoted[120];
    unsigned long long begin;
    uint64_t n;
    FILE *const file = fopen(path, "rb");
    cr_assert(file && fread(&n, sizeof n, 1, file) == 1);
    char *const header = calloc(n + 1, 1);
    cr_assert(fread(header, 1, n, file) == n && !fclose(file));
    snprintf(quoted, sizeof quoted, "\"%s\":{", name);
    const char *at = strstr(header, quoted);
    cr_assert(at, "%s", name);
    at = strstr(at, "data_offsets\":[");
    cr_assert(at && sscanf(at, "data_offsets\":[%llu", &begin) == 1);
    free(header);
    return (long)(8 + n + begin);
}

/* Changes one byte of a rank's file: twice, and it is as before. */
static inline void flip(int rank, const char *name, long byte, unsigned char bits) {
    char path[64];
    snprintf(path, sizeof path, "dump/rank%d.safetensors", rank);
    const long at = tensor_offset(path, name) + byte;
    FILE *const file = fopen(path, "r+b");
    cr_assert(file && fseek(file, at, SEEK_SET) == 0);
    const int c = fgetc(file);
    cr_assert(c != EOF && fseek(file, at, SEEK_SET) == 0 && fputc(c ^ bits, file) != EOF && !fclose(file));
}

#endif
