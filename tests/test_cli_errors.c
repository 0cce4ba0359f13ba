/* Is every bad input one honest line?  Nothing on standard output, one line on standard error that names
 * the cause and a way out, exit 2, and nothing new on the disk. Runs the binary named by the
 * environment variable SHARDCHECK through sh. */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <dirent.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/device/device.h"
#include "tests/folder.h"

TestSuite(cli_errors, .init = folder_enter_with_binary, .fini = folder_leave);

static void read_text(const char *path, char *text, size_t size) {
    FILE *const file = fopen(path, "r");
    cr_assert(file);
    text[fread(text, 1, size - 1, file)] = 0;
    fclose(file);
    unlink(path);
}

/* `cause` and `remedy` (NULL: none to check) are parts of the line. */
static void expect_error(const char *arguments, const char *cause, const char *remedy) {
    char command[4096], out[4096], err[4096], out_path[96], err_path[96];
    const int before = files_here();
    snprintf(out_path, sizeof out_path, "%s.out", folder);
    snprintf(err_path, sizeof err_path, "%s.err", folder);
    snprintf(command, sizeof command, "\"$SHARDCHECK\" %s >%s 2>%s </dev/null", arguments, out_path,
             err_path);
    const int status = system(command);
    read_text(out_path, out, sizeof out);
    read_text(err_path, err, sizeof err);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 2, "%s: status %x\n%s", arguments, status, err);
    cr_expect_str_empty(out, "%s: printed %.200s", arguments, out);
    const size_t n = strlen(err);
    cr_expect(n > 1 && err[n - 1] == '\n' && strchr(err, '\n') == err + n - 1, "%s: not one line: '%s'",
              arguments, err);
    cr_expect_eq(strncmp(err, "shardcheck: ", 12), 0, "%s: %s", arguments, err);
    cr_expect(strstr(err, cause), "%s: no cause '%s' in: %s", arguments, cause, err);
    cr_expect(!remedy || strstr(err, remedy), "%s: no remedy '%s' in: %s", arguments, remedy, err);
    cr_expect(n < 3 || err[n - 2] != '.' || err[n - 3] == '.', "%s: ends in a full stop: %s", arguments, err);
    cr_expect_eq(files_here(), before, "%s: left something on the disk", arguments);
}

Test(cli_errors, unknown_names_are_answered_with_the_known_ones) {
    expect_error("run nosuchmodel", "nosuchmodel", "param2-17b");
    expect_error("run tinny", "tinny", "tiny");
    expect_error("run nosuch.json", "nosuch.json", NULL);
    expect_error("run ./missing/config.json", "missing/config.json", NULL);
    expect_error("run tiny --tqp 2", "--tqp", "--tp");
    expect_error("run tiny -x", "-x", NULL);
    expect_error("rum tiny", "rum", "run");
    expect_error("run tiny --kernel ropee=rope", "ropee", "rope");
    expect_error("run tiny --kernel rope=linear_simt", "linear_simt", "use rope");
    expect_error("run tiny --kernel attention=flash9", "flash9", "attention_simt");
    expect_error("run tiny --report yaml", "yaml", "json");
    expect_error("run tiny --mutant nosuch", "nosuch", "packed-view");
    expect_error("run tiny --mutant sinks-local", "needs attention sinks", "list mutants");
    expect_error("mutants packed-veiw", "no such mutant", "packed-view");
    expect_error("list nothing", "nothing", "models");
    expect_error("list", "of what", "models");
    expect_error("list tensors /dev/null", "/dev/null", "device");
    expect_error("run tiny --phase prefil", "prefil", "prefill");
    expect_error("run tiny --dtype fp8", "fp8", "bf16");
    expect_error("run tiny --part atention", "atention", "attention");
    expect_error("run tiny --device tpu", "tpu", "host");
}

Test(cli_errors, a_typo_in_a_case_line_names_the_key_and_lists_the_valid_ones) {
    expect_error("run tiny/attention:tq=2", "tq", "tp");
    expect_error("run tiny/attention:tq=2", "tq", "layout");
    expect_error("run tiny/attention:tp=two", "tp=two", "1 to 128");
    expect_error("run tiny/attention:tp", "tp", "key=value");
    expect_error("run tiny/attention:tp=", "tp=", "1 to 128");
    expect_error("run tiny/attention:tp=2,tp=4", "tp", "twice");
    expect_error("run tiny/atention:tp=2", "atention", "attention");
    expect_error("run tiny/attention:phase=decod", "decod", "decode");
    expect_error("run tiny/attention:kernel.rop=rope", "rop", "rope");
    expect_error("run tiny/attention:tp=2,", "key=value", NULL);
    expect_error("run tiny/attention:=2", "key=value", NULL);
    expect_error("run ''", "model", NULL);
    expect_error("run \"$(printf 'tiny\\n/attention')\"", "control", NULL);
}

Test(cli_errors, counts_that_do_not_divide_are_answered_with_those_that_do) {
    expect_error("run param2-17b --tp 3", "32 heads and 8 kv heads", "1, 2, 4, 8, 16 or 32");
    expect_error("run tiny --tp 16 --part attention", "8 heads", "1, 2, 4 or 8");
    expect_error("run tiny --part ffn --tp 4 --ep 3", "--ep 3", "1, 2 or 4");
    expect_error("run tiny --part ffn --tp 2 --ep 4", "--ep 4", "1 or 2");
    expect_error("run tiny/attention:tp=5", ": tp=5: ", "1, 2, 4 or 8");
    expect_error("run tiny --part attention --ep 2", "--ep 2", "--part ffn");
    expect_error("run tiny --layer 2", "--layer 2", "0 to 1");
    expect_error("run tiny --tp 0", "--tp 0", "1 to 128");
    expect_error("run tiny --tp -1", "--tp -1", "1 to 128");
    expect_error("run tiny --tp 99999999999999999999", "--tp", "1 to 128");
    expect_error("run tiny --tokens 0", "--tokens 0", "1 to");
    expect_error("run tiny --tokens 65536 --seqs 256", "--seqs 256", "use at most");
    expect_error("run tiny --phase decode --tokens 65536 --cached 65536", "too many", "use at most");
    expect_error("run tiny --cached 5", "--cached 5", "chunked");
}

Test(cli_errors, options_that_contradict_are_refused) {
    expect_error("run tiny -q -v", "--quiet", "use one");
    expect_error("run tiny --tp 1 --tp 2", "twice", NULL);
    expect_error("run tiny/attention:tp=2 --tp 4", "twice", NULL);
    expect_error("run tiny --tp", "--tp", "needs a value");
    expect_error("run tiny --tp 1,,2", "empty", NULL);
    expect_error("run tiny --allow-skips=yes", "--allow-skips", "leave");
    expect_error("run tiny --mutant packed-view --layout contig", "packed", "leave it out");
    expect_error("run tiny --mutant packed-view --part ffn", "attention", NULL);
    expect_error("run tiny --part ffn --kernel gate_up_act=gated_gemm_wgmma --kernel gate_up=linear_simt",
                 "--kernel gate_up=linear_simt: never runs, gated_gemm_wgmma of stage gate_up_act",
                 "leave one");
    expect_error("run tiny/ffn:kernel.gate_up_act=gated_gemm_wgmma,kernel.activation=silu_mul",
                 "kernel.activation=silu_mul: never runs", "leave one");
    expect_error(
        "run tiny/ffn:kernel.shared_gate_up_act=gated_gemm_wgmma --kernel shared_activation=silu_mul",
        "--kernel shared_activation=silu_mul: never runs", "leave one");
    expect_error("run tiny tiny", "twice", NULL);
    expect_error("--tp 2", "no command", "run");
    expect_error("list models stages", "stages", NULL);
    expect_error("run tiny --report json --report text", "standard output", "text:FILE");
    expect_error("run tiny --report json:a --report text:a", "one file", NULL);
}

Test(cli_errors, a_report_that_cannot_be_written_is_noticed_before_the_work) {
    expect_error("run tiny --tokens 2 --report json:/nonexistent/r.json", "/nonexistent/r.json", "writable");
    expect_error("run tiny --tokens 2 --report junit:.", "--report junit:.", NULL);
    expect_error("run tiny --tokens 2 --report text:/proc/r.txt", "/proc/r.txt", "writable");
    expect_error("run tiny --tokens 2 --report json:", "names no file", "json:FILE");
    expect_error("run tiny --tokens 2 --report json:ok.json --report junit:/nonexistent/r.xml",
                 "/nonexistent", "writable");
}

Test(cli_errors, a_device_that_is_not_there_is_trouble_and_no_skip) {
    struct device *device = NULL;
    const struct status s = device_open(DEVICE_CUDA, &device);
    if (s.code) expect_error("run tiny --device cuda --tokens 2", "--device cuda", "; ");
    device_close(device);
}

/* ---- config.json ---- */

static void write_config(const char *sed) {
    char command[600];
    snprintf(command, sizeof command, "sed %s \"$ROOT/fixtures/models/tiny.json\" > c.json", sed);
    cr_assert_eq(system(command), 0, "%s", command);
}

static void expect_config_error(const char *sed, const char *cause) {
    write_config(sed);
    expect_error("run c.json --tokens 2 --tp 1", cause, "c.json");
}

Test(cli_errors, a_config_that_is_broken_or_lies_is_named) {
    cr_assert_eq(system("head -c 300 \"$ROOT/fixtures/models/tiny.json\" > c.json"), 0);
    expect_error("run c.json", "c.json", NULL);
    cr_assert_eq(system("echo 'this is not JSON' > c.json"), 0);
    expect_error("run c.json", "c.json", NULL);
    cr_assert_eq(system(": > c.json"), 0);
    expect_error("run c.json", "c.json", NULL);
    cr_assert_eq(system("echo '[1, 2]' > c.json"), 0);
    expect_error("run c.json", "c.json", NULL);
    cr_assert_eq(system("head -c 100000 /dev/urandom > c.json"), 0);
    expect_error("run c.json", "c.json", NULL);
    cr_assert_eq(system("yes '[' | head -100000 > c.json"), 0);
    expect_error("run c.json", "c.json", NULL);
    expect_error("run ./", "./", NULL);
    cr_assert_eq(system("rm c.json && mkdir c.json"), 0);
    expect_error("run c.json", "c.json", NULL);
}

Test(cli_errors, sizes_and_keys_of_a_config_are_checked) {
    expect_config_error("'s/\"hidden_size\": 64/\"hidden_size\": \"64\"/'", "hidden_size");
    expect_config_error("'s/\"hidden_size\": 64/\"hidden_size\": 64.5/'", "hidden_size");
    expect_config_error("'s/\"hidden_size\": 64/\"hidden_size\": -64/'", "hidden_size");
    expect_config_error("'s/\"hidden_size\": 64/\"hidden_size\": 0/'", "hidden_size");
    expect_config_error("'s/\"hidden_size\": 64/\"hidden_size\": 99999999999999999999/'", "c.json");
    expect_config_error("'s/\"hidden_size\": 64/\"hidden_size\": 4000000000000/'", "hidden_size");
    expect_config_error("'s/\"hidden_size\": 64/\"hidden_size\": null/'", "hidden_size");
    expect_config_error("'/\"hidden_size\"/d'", "hidden_size");
    expect_config_error("'s/\"num_attention_heads\": 8/\"num_attention_heads\": 7/'", "num_attention_heads");
    expect_config_error("'s/\"num_experts\": 16/\"num_experts\": 2/'", "num_experts");
    expect_config_error("'s/\"rope_theta\": 1000000.0/\"rope_theta\": -1/'", "rope_theta");
    expect_config_error("'s/\"rms_norm_eps\": 1e-06/\"rms_norm_eps\": \"small\"/'", "rms_norm_eps");
    expect_config_error("'s/\"vocab_size\": 256/\"vocab_size\": 256, \"mystery_switch\": 1/'",
                        "mystery_switch");
    expect_config_error("'s/\"hidden_act\": \"silu\"/\"hidden_act\": \"gelu\"/'", "hidden_act");
    expect_config_error("'s/\"model_type\": \"param2moe\"/\"model_type\": \"gpt2\"/'", "gpt2");
    expect_config_error("'s/\"rope_scaling\": null/\"rope_scaling\": {\"rope_type\": \"llama3\"}/'",
                        "rope_scaling");
    expect_config_error("'s/\"n_group\": 1/\"n_group\": 3/'", "n_group");
}

/* ---- HDF5 files ---- */

static void fresh_fixture(void) { cr_assert_eq(system("cp \"$ROOT/fixtures/golden/llama.h5\" f.h5"), 0); }

static void set_schema(const char *value) {
    const hid_t file = H5Fopen("f.h5", H5F_ACC_RDWR, H5P_DEFAULT), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value) + 1);
    const hid_t space = H5Screate(H5S_SCALAR),
                a = H5Acreate2(file, "schema", type, space, H5P_DEFAULT, H5P_DEFAULT);
    cr_assert(file >= 0 && a >= 0 && H5Awrite(a, type, value) >= 0);
    H5Aclose(a), H5Sclose(space), H5Tclose(type), H5Fclose(file);
}

static void remove_link(const char *name) {
    const hid_t file = H5Fopen("f.h5", H5F_ACC_RDWR, H5P_DEFAULT);
    cr_assert(file >= 0 && H5Ldelete(file, name, H5P_DEFAULT) >= 0, "%s", name);
    H5Fclose(file);
}

Test(cli_errors, a_fixture_file_that_is_broken_or_incomplete_is_named) {
    expect_error("run --fixture missing.h5", "missing.h5", NULL);
    cr_assert_eq(system("echo no > f.h5"), 0);
    expect_error("run --fixture f.h5", "f.h5", "HDF5");
    cr_assert_eq(system(": > f.h5"), 0);
    expect_error("run --fixture f.h5", "f.h5", NULL);
    cr_assert_eq(system("head -c 20000 \"$ROOT/fixtures/golden/llama.h5\" > f.h5"), 0);
    expect_error("run --fixture f.h5", "f.h5", NULL);
    cr_assert_eq(system("head -c -1000 \"$ROOT/fixtures/golden/llama.h5\" > f.h5"), 0);
    expect_error("run --fixture f.h5", "f.h5", NULL);
    expect_error("run --fixture .", ".", NULL);
    expect_error("run --fixture \"$ROOT/fixtures/golden/h200_attention.h5\"", "config_json", NULL);
    fresh_fixture();
    set_schema("shardcheck/9");
    expect_error("run --fixture f.h5", "shardcheck/9", "shardcheck/1");
}

Test(cli_errors, weights_and_inputs_that_a_fixture_lacks_are_named) {
    fresh_fixture();
    remove_link("weights/model.layers.0.self_attn.o_proj.weight");
    expect_error("run --fixture f.h5 --part attention --layer 0 --tp 1", "w_o", "must bring");
    fresh_fixture();
    remove_link("weights/model.layers.0.self_attn.k_proj.weight");
    expect_error("run --fixture f.h5 --part attention --layer 0 --tp 1 --report json:r.json", "w_qkv",
                 "add it");
    fresh_fixture();
    remove_link("weights");
    expect_error("run --fixture f.h5 --part attention --layer 0 --tp 1", "f.h5", NULL);
    fresh_fixture();
    remove_link("activations");
    expect_error("run --fixture f.h5 --part ffn --layer 0 --tp 1", "f.h5", NULL);
    fresh_fixture();
    expect_error("run tiny --fixture f.h5", "f.h5", "leave tiny out");
    expect_error("run --fixture f.h5 --tokens 7", "24 tokens", "leave it out");
    expect_error("run --fixture f.h5 --phase decode", "prefilled", "leave");
    expect_error("run --fixture f.h5 --layer 5", "--layer 5", NULL);
    expect_error("run --fixture f.h5 --tp 3", "--tp 3", "1, 2, 4 or 8");
}
