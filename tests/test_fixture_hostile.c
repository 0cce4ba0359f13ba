/* Is every file that is damaged, mistyped or lying refused in one line, before memory is
 * touched? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fixtures/fixture.h"
#include "layer/plan.h"

/* HDF5 1.10 itself leaks where it refuses a damaged file. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

static char path[] = "/tmp/shardcheck-hostile-XXXXXX";

static void make_path(void) { close(mkstemp(path)); }
static void remove_path(void) { unlink(path); }

TestSuite(hdf5_hostile, .init = make_path, .fini = remove_path);

/* A file of preset tiny, layer 0, with an input of 2 tokens: open for more. */
static hid_t small_file(void) {
    struct fixture_writer *w;
    const int64_t shape[] = {2, 64};
    const float x[128] = {1};
    cr_assert(!fixture_create(path, path, model_preset_json("tiny"), "test", DTYPE_F32, 0, &w).code);
    cr_assert(!fixture_write(w, "inputs", "hidden_states", DTYPE_F32, 2, shape, x).code);
    cr_assert(!fixture_finish(w).code);
    return H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
}

static void expect_error(struct status status, const char *cause) {
    cr_expect(status.code, "accepted, expected: %s", cause);
    cr_expect(strstr(status.message, cause) && strstr(status.message, path) && !strchr(status.message, '\n'),
              "%s", status.message);
}

static void open_must_say(const char *cause) {
    struct fixture *f;
    const struct status status = fixture_open(path, &f);
    expect_error(status, cause);
    cr_expect(!f);
    fixture_close(f);
}

static void read_layer_must_say(int64_t layer, enum part part, enum tensor_id id, int64_t count,
                                const char *cause) {
    struct fixture *f;
    const struct status opened = fixture_open(path, &f);
    cr_assert(!opened.code, "%s", opened.message);
    double *dst = calloc((size_t)count, sizeof *dst);
    bool found;
    expect_error(fixture_read(f, layer, part, id, count, dst, &found), cause);
    free(dst);
    fixture_close(f);
}

static void read_must_say(enum part part, enum tensor_id id, int64_t count, const char *cause) {
    read_layer_must_say(0, part, id, count, cause);
}

static void add_dataset(hid_t file, const char *name, hid_t type, int n_dims, const hsize_t *dims, hid_t plan,
                        bool write) {
    const hid_t space = H5Screate_simple(n_dims, dims, NULL);
    const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    cr_assert(dataset >= 0, "%s", name);
    hsize_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= dims[i];
    if (write) {
        void *zeros = calloc(n, H5Tget_size(type));
        cr_assert(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros) >= 0);
        free(zeros);
    }
    H5Dclose(dataset);
    H5Sclose(space);
}

static void overwrite_string(hid_t file, const char *name, const char *value) {
    H5Adelete(file, name);
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(value) + 1);
    const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    cr_assert(H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void add_integer(hid_t file, const char *name, int value) {
    H5Adelete(file, name);
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(file, name, H5T_NATIVE_INT, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT, &value);
    H5Aclose(attribute);
    H5Sclose(space);
}

Test(hdf5_hostile, what_is_no_fixture_file_is_named) {
    open_must_say("not an HDF5 file"); /* empty */
    FILE *file = fopen(path, "w");
    fputs("{\"model_type\": \"llama\"}\n", file);
    fclose(file);
    open_must_say("not an HDF5 file");
    unlink(path);
    open_must_say("No such file");
    struct fixture *f;
    cr_expect(strstr(fixture_open("/tmp", &f).message, "is a folder"));
}

Test(hdf5_hostile, attributes_are_checked) {
    hid_t file = small_file();
    overwrite_string(file, "schema", "shardcheck/2");
    H5Fclose(file);
    open_must_say("schema \"shardcheck/2\" is not known");
    file = small_file();
    H5Adelete(file, "config_json");
    H5Fclose(file);
    open_must_say("config_json");
    file = small_file();
    overwrite_string(file, "config_json", "{\"model_type\": ");
    H5Fclose(file);
    open_must_say("not valid JSON");
    file = small_file();
    add_integer(file, "config_json", 3);
    H5Fclose(file);
    open_must_say("is not one string");
    file = small_file();
    overwrite_string(file, "dtype", "fp8");
    H5Fclose(file);
    open_must_say("bf16, fp16 or fp32");
    file = small_file();
    add_integer(file, "layer", 2);
    H5Fclose(file);
    open_must_say("no layer of the config");
    file = small_file();
    add_integer(file, "tp_size", 2);
    H5Fclose(file);
    open_must_say("one rank of several");
}

Test(hdf5_hostile, shapes_are_checked_against_the_config) {
    hid_t file = small_file();
    add_dataset(file, "weights/w_o", H5T_IEEE_F32LE, 2, (hsize_t[]){128, 64}, H5P_DEFAULT,
                true); /* transposed */
    add_dataset(file, "weights/model.layers.0.self_attn.q_proj.weight", H5T_IEEE_F32LE, 2,
                (hsize_t[]){128, 64}, H5P_DEFAULT, true);
    add_dataset(file, "weights/model.layers.0.input_layernorm.weight", H5T_IEEE_F32LE, 1, (hsize_t[]){63},
                H5P_DEFAULT, true);
    add_dataset(file, "weights/model.layers.0.mlp.down_proj.weight", H5T_IEEE_F32LE, 1, (hsize_t[]){64 * 96},
                H5P_DEFAULT, true);
    add_dataset(file, "weights/layers.1.w_down", H5T_IEEE_F32LE, 3, (hsize_t[]){16, 32, 64}, H5P_DEFAULT,
                true);
    add_dataset(file, "activations/o", H5T_IEEE_F32LE, 3, (hsize_t[]){3, 8, 16}, H5P_DEFAULT, true);
    H5Fclose(file);
    read_layer_must_say(1, PART_FFN, T_W_DOWN, 16 * 64 * 32,
                        "shape [16, 32, 64], but the config asks for [16, 64, 32]");
    read_must_say(PART_ATTENTION, T_W_O, 64 * 128, "shape [128, 64], but the config asks for [64, 8, 16]");
    read_must_say(PART_ATTENTION, T_W_QKV, 256 * 64, "k_proj.weight\": missing");
    read_must_say(PART_ATTENTION, T_NORM_W, 64, "shape [63], but the config asks for [64]");
    read_must_say(PART_FFN, T_W_SHARED_DOWN, 64 * 96, "shape [6144]");
    read_must_say(PART_ATTENTION, T_O, 2 * 128, "shape [3, 8, 16]");
    file = small_file();
    H5Ldelete(file, "inputs/hidden_states", H5P_DEFAULT);
    add_dataset(file, "inputs/hidden_states", H5T_IEEE_F32LE, 3, (hsize_t[]){2, 2, 64}, H5P_DEFAULT, true);
    H5Fclose(file);
    open_must_say("one sequence of [tokens, 64]");
}

Test(hdf5_hostile, types_other_than_floats_are_refused) {
    const hid_t file = small_file();
    add_dataset(file, "weights/norm_w", H5T_STD_I32LE, 1, (hsize_t[]){64}, H5P_DEFAULT, true);
    add_dataset(file, "weights/w_o", H5T_NATIVE_LDOUBLE, 2, (hsize_t[]){64, 128}, H5P_DEFAULT, true);
    add_dataset(file, "activations/layers.1.ids", H5T_IEEE_F32LE, 2, (hsize_t[]){2, 4}, H5P_DEFAULT, true);
    H5Gclose(H5Gcreate2(file, "weights/w_qkv", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Fclose(file);
    read_must_say(PART_ATTENTION, T_NORM_W, 64, "not a floating-point type");
    read_must_say(PART_ATTENTION, T_W_O, 64 * 128, "unusual size");
    read_layer_must_say(1, PART_FFN, T_IDS, 8, "not an integer type");
    read_must_say(PART_ATTENTION, T_W_QKV, 256 * 64, "not a readable dataset");
}

Test(hdf5_hostile, a_name_that_nobody_looks_for_is_answered_with_the_nearest) {
    static const char *const names[][2] = {
        {"weights/w_oo", "dataset \"weights/w_oo\": layer 0 has no tensor of that name; use w_o"},
        {"activations/layers.1.ffn.actt", "layer 1 has no tensor of that name; use layers.1.ffn.act"},
        {"activations/layers.0.ffn.act", "layer 0 has no tensor of that name; use layers.0.ffn."},
        {"activations/attention.gates", "layer 0 has no tensor of that name"},
        {"activations/layers.2.y", "the config has layers 0 to 1"},
        {"activations/w_o", "is not looked for there; move it to weights/"},
        {"weights/model.layers.1.mlp.gate", "is not looked for there; move it to activations/"},
        {"weights/model.layers.1.mlp.gat.weight", "use model.layers.1.mlp.gate.weight"},
        {"weights/model.layers.0.mlp.gate.weight",
         "layer 0 has no tensor of that name; use model.layers.0.mlp."},
        {"inputs/hidden_state", "use hidden_states"},
        {"activations/model.layers.01x", "has no tensor of that name"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const hid_t file = small_file();
        add_dataset(file, names[i][0], H5T_IEEE_F32LE, 1, (hsize_t[]){64}, H5P_DEFAULT, true);
        H5Fclose(file);
        open_must_say(names[i][1]);
    }
    static const char *const known[] = {"weights/lm_head.weight", "activations/model.layers.1.mlp.act_fn",
                                        "inputs/w_o", "activations/layers.0.attention.y", "inputs/positions"};
    const hid_t file = small_file();
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        add_dataset(file, known[i], H5T_IEEE_F32LE, 1, (hsize_t[]){64}, H5P_DEFAULT, true);
    H5Fclose(file);
    struct fixture *f;
    const struct status s = fixture_open(path, &f);
    cr_expect_eq(s.code, STATUS_OK, "%s", s.message);
    fixture_close(f);
}

Test(hdf5_hostile, sizes_are_checked_against_the_file) {
    hid_t file = small_file();
    const hid_t late = H5Pcreate(H5P_DATASET_CREATE), gzip = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(late, 2, (hsize_t[]){64, 64});
    H5Pset_chunk(gzip, 2, (hsize_t[]){1 << 15, 1 << 14});
    H5Pset_deflate(gzip, 9);
    H5Ldelete(file, "inputs/hidden_states", H5P_DEFAULT);
    add_dataset(file, "inputs/hidden_states", H5T_IEEE_F32LE, 2, (hsize_t[]){1 << 24, 64}, late, false);
    add_dataset(file, "weights/w_o", H5T_IEEE_F32LE, 2, (hsize_t[]){64, 128}, H5P_DEFAULT, false);
    H5Fclose(file);
    open_must_say("not written completely");
    file = small_file();
    H5Ldelete(file, "inputs/hidden_states", H5P_DEFAULT);
    add_dataset(file, "inputs/hidden_states", H5T_IEEE_F32LE, 2, (hsize_t[]){HSIZE_UNDEF / 1024, 64}, late,
                false);
    H5Fclose(file);
    open_must_say("2^40");
    file = small_file();
    H5Ldelete(file, "inputs/hidden_states", H5P_DEFAULT);
    add_dataset(file, "inputs/hidden_states", H5T_IEEE_F32LE, 2, (hsize_t[]){1 << 15, 1 << 14}, gzip, false);
    H5Fclose(file);
    open_must_say("1 GiB");
    H5Pclose(late);
    H5Pclose(gzip);
}

Test(hdf5_hostile, no_other_file_is_read) {
    hid_t file = small_file();
    const hid_t elsewhere = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(elsewhere, "/etc/passwd", 0, 256);
    add_dataset(file, "weights/norm_w", H5T_IEEE_F32LE, 1, (hsize_t[]){64}, elsewhere, false);
    H5Lcreate_external("other.h5", "/weights/w_o", file, "weights/w_o", H5P_DEFAULT, H5P_DEFAULT);
    H5Pclose(elsewhere);
    H5Fclose(file);
    read_must_say(PART_ATTENTION, T_NORM_W, 64, "in another file");
    struct fixture *f;
    cr_assert(!fixture_open(path, &f).code);
    bool found = true;
    double *dst = calloc(64 * 128, sizeof *dst);
    cr_expect(!fixture_read(f, 0, PART_ATTENTION, T_W_O, 64 * 128, dst, &found).code && !found);
    free(dst);
    fixture_close(f);
}

/* Whatever byte is lost or changed: an answer, no crash and nothing from the sanitizers. Our own
 * files have checksums in their headers; without them HDF5 1.10 itself may read beyond its
 * buffers. */
Test(hdf5_hostile, truncated_and_flipped_files_get_an_answer) {
    H5Fclose(small_file());
    FILE *file = fopen(path, "rb");
    char *whole = malloc(1 << 16);
    const size_t n = fread(whole, 1, 1 << 16, file);
    fclose(file);
    cr_assert(n > 2048 && n < 1 << 16);
    double x[128];
    for (size_t i = 0; i < n; i += 13) {
        for (int truncated = 0; truncated < 2; truncated++) {
            whole[i] = (char)~whole[i];
            file = fopen(path, "wb");
            fwrite(whole, 1, truncated ? i : n, file);
            fclose(file);
            whole[i] = (char)~whole[i];
            struct fixture *f;
            bool found;
            const struct status status = fixture_open(path, &f);
            cr_expect(!truncated || status.code, "a file of %zu of %zu bytes was accepted", i, n);
            if (!status.code) fixture_read(f, 0, PART_ATTENTION, T_X, 128, x, &found);
            fixture_close(f);
        }
    }
    free(whole);
}

/* ---- golden files: every byte is under a checksum ---- */

static uint64_t mix(uint64_t hash, const void *data, size_t n) {
    for (size_t i = 0; i < n; i++) hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3;
    return hash;
}

static bool mix_tensors(const struct fixture *f, int64_t layer, enum part part, uint64_t *hash) {
    const struct layer_spec spec = model_layer(fixture_model(f), layer);
    struct shard_plan plan;
    plan_build(&plan, &spec, 1, 1);
    plan.size[AXIS_T] = fixture_n_tokens(f);
    for (int id = 0; id < T_COUNT; id++) {
        if (!tensor_present((enum tensor_id)id, &spec)) continue;
        const int64_t count = slice_count(&plan, (enum tensor_id)id, -1);
        double *values = calloc((size_t)count + 1, sizeof *values);
        bool found;
        const bool ok = !fixture_read(f, layer, part, (enum tensor_id)id, count, values, &found).code;
        *hash = mix(mix(*hash, &found, sizeof found), values, (size_t)count * sizeof *values);
        free(values);
        if (!ok) return false;
    }
    return true;
}

/* Of all that a run reads of the file; 0: refused. */
static uint64_t hash_fixture(void) {
    struct fixture *f;
    if (fixture_open(path, &f).code) return 0;
    const struct model *const m = fixture_model(f);
    const int64_t facts[] = {m->n_layers, m->n_kinds, fixture_n_tokens(f), fixture_stored_dtype(f)};
    uint64_t hash = mix(mix(0xcbf29ce484222325, facts, sizeof facts), m->kind, sizeof m->kind);
    bool ok = true;
    for (int64_t layer = 0; layer < m->n_layers; layer++)
        for (int part = 0; part < PART_COUNT && ok; part++)
            ok = mix_tensors(f, layer, (enum part)part, &hash);
    fixture_close(f);
    return ok ? hash : 0;
}

static void write_whole(const char *bytes, size_t n) {
    FILE *const file = fopen(path, "wb");
    cr_assert(file && fwrite(bytes, 1, n, file) == n);
    fclose(file);
}

static void write_byte(size_t at, char byte) {
    const int file = open(path, O_WRONLY);
    cr_assert(pwrite(file, &byte, 1, (off_t)at) == 1);
    close(file);
}

/* 1 where a chunk of some dataset lies. */
static herr_t mark_chunks(hid_t group, const char *name, const H5L_info_t *info, void *data) {
    (void)info;
    const hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT), space = H5Dget_space(dataset);
    hsize_t n = 0, offset[H5S_MAX_RANK], size;
    unsigned mask;
    haddr_t at;
    H5Dget_num_chunks(dataset, space, &n);
    for (hsize_t i = 0; i < n; i++) {
        H5Dget_chunk_info(dataset, space, i, offset, &mask, &at, &size);
        memset((char *)data + at, 1, size);
    }
    H5Sclose(space);
    return H5Dclose(dataset);
}

static char *mark_data(size_t n) {
    static const char *const groups[] = {"inputs", "weights", "activations"};
    char *const is_data = calloc(n, 1);
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (int i = 0; i < 3; i++)
        H5Literate_by_name(file, groups[i], H5_INDEX_NAME, H5_ITER_NATIVE, NULL, mark_chunks, is_data,
                           H5P_DEFAULT);
    H5Fclose(file);
    return is_data;
}

/* From one changed byte of what describes the data to the next. Sanitized, every third: the same
 * lines run, and the plain build has asked about all. */
#ifdef __SANITIZE_ADDRESS__
enum { HEADER_STEP = 31 };
#else
enum { HEADER_STEP = 11 };
#endif

Test(hdf5_hostile, one_changed_byte_of_a_golden_file_is_an_error_or_changes_nothing, .timeout = 300) {
    char *whole = malloc(1 << 21);
    FILE *file = fopen("fixtures/golden/llama.h5", "rb");
    cr_assert(file);
    const size_t n = fread(whole, 1, 1 << 21, file);
    fclose(file);
    write_whole(whole, n);
    const uint64_t hash = hash_fixture();
    char *const is_data = mark_data(n);
    size_t n_headers = 0, n_refused = 0;
    cr_assert(hash);
    for (size_t i = 0; i < n; i += is_data[i] ? 1999 : HEADER_STEP) {
        write_byte(i, (char)(whole[i] ^ 1 << i % 8));
        const uint64_t got = hash_fixture();
        write_byte(i, whole[i]);
        cr_expect(got == 0 || got == hash, "byte %zu of %zu, data %d", i, n, is_data[i]);
        n_headers += !is_data[i];
        n_refused += !is_data[i] && got == 0;
    }
    printf("%zu bytes of headers changed, %zu refused\n", n_headers, n_refused);
    cr_expect(n_refused > n_headers / 2);
    free(is_data);
    free(whole);
}
