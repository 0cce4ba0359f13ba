/* Does the command line mean what the help says: which cases it asks for, and which mistakes it
 * names? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fixtures/fixture.h"
#include "harness/cli/commands.h"
#include "harness/coverage.h"

enum { MAX_WORDS = 32 };

/* Splits at the spaces; `options` point into *copy, to be freed after them. */
static struct status parse(const char *command, struct options *out, char **copy) {
    char *argv[MAX_WORDS + 1] = {"shardcheck"}, *rest = NULL;
    int argc = 1;
    *copy = strdup(command);
    for (char *word = strtok_r(*copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    cr_assert(argc <= MAX_WORDS);
    return options_parse(argc, argv, out);
}

/* The command gives exactly these cases, one line each. */
static void expect_cases(const char *command, const char *lines) {
    struct options options;
    char *copy, *text = NULL, line[CASE_LINE];
    size_t size = 0;
    const struct status status = parse(command, &options, &copy);
    cr_assert_eq(status.code, STATUS_OK, "%s: %s", command, status.message);
    cr_assert_str_eq(options.command->name, "run");
    FILE *file = open_memstream(&text, &size);
    for (int64_t i = 0; i < options.run.n_cases; i++) {
        case_print(&options.run.cases[i], line, sizeof line);
        fprintf(file, "%s\n", line);
    }
    fclose(file);
    cr_expect_str_eq(text, lines, "%s gave\n%s", command, text);
    options_free(&options);
    free(text);
    free(copy);
}

static void expect_error(const char *command, const char *part) {
    struct options options;
    char *copy;
    const struct status status = parse(command, &options, &copy);
    cr_expect_neq(status.code, STATUS_OK, "%s was accepted", command);
    cr_expect(strstr(status.message, part) && !strchr(status.message, '\n'), "%s: '%s' lacks '%s'", command,
              status.message, part);
    cr_expect_null(options.run.cases);
    free(copy);
}

Test(options, the_own_cases_of_the_default_run_are_eight) {
    const char *eight = "param2-17b/attention:tp=1\nparam2-17b/attention:tp=2\nparam2-17b/attention:tp=4\n"
                        "param2-17b/attention:tp=8\nparam2-17b/ffn:tp=1\nparam2-17b/ffn:tp=2\n"
                        "param2-17b/ffn:tp=4\nparam2-17b/ffn:tp=8\n";
    expect_cases("run --no-grid", eight);
    expect_cases("run param2-17b --no-grid", eight);
    expect_cases("run --tp=1,2,4,8 --part attention,ffn", eight);
}

Test(options, every_printed_case_runs_alone) {
    struct options options, again;
    char *copy, *copy_again, line[CASE_LINE], command[CASE_LINE + 8];
    cr_assert_eq(
        parse("run tiny --phase prefill,decode --tokens 1,5 --ep 1,2 --part ffn --seed 3", &options, &copy)
            .code,
        STATUS_OK);
    cr_assert(options.run.n_cases > 8);
    for (int64_t i = 0; i < options.run.n_cases; i++) {
        case_print(&options.run.cases[i], line, sizeof line);
        snprintf(command, sizeof command, "run %s", line);
        cr_assert_eq(parse(command, &again, &copy_again).code, STATUS_OK);
        cr_assert_eq(again.run.n_cases, 1, "%s gave %d cases", command, (int)again.run.n_cases);
        char back[CASE_LINE];
        case_print(&again.run.cases[0], back, sizeof back);
        cr_assert_str_eq(line, back);
        options_free(&again);
        free(copy_again);
    }
    options_free(&options);
    free(copy);
}

Test(options, lists_multiply_with_the_ranks_innermost) {
    expect_cases("run tiny --tp 1,2 --tokens 3,4 --part attention",
                 "tiny/attention:tp=1,tokens=3\ntiny/attention:tp=2,tokens=3\n"
                 "tiny/attention:tp=1,tokens=4\ntiny/attention:tp=2,tokens=4\n");
    expect_cases("run tiny/ffn --tp 4 --phase chunked --cached 7", "tiny/ffn:tp=4,phase=chunked,cached=7\n");
    expect_cases("run tiny/ffn:tp=2 tiny/attention:tp=2 --seed 9",
                 "tiny/ffn:tp=2,seed=9\ntiny/attention:tp=2,seed=9\n");
}

Test(options, keys_of_the_layer_go_to_the_cases_of_their_part) {
    expect_cases("run tiny --heads 4,8 --experts 8 --tp 2",
                 "tiny/attention:tp=2,heads=4\ntiny/attention:tp=2,heads=8\ntiny/ffn:tp=2,experts=8\n");
    expect_cases("run tiny:hidden=32,top=2,dim=8 --tp 1",
                 "tiny/attention:tp=1,hidden=32,dim=8\ntiny/ffn:tp=1,hidden=32,top=2\n");
    expect_cases("run tiny/ffn:width=6,shared=6",
                 "tiny/ffn:tp=1,width=6,shared=6\ntiny/ffn:tp=2,width=6,shared=6\n");
    expect_error("run tiny/ffn --heads 4",
                 "--heads 4: no case checks part attention; use --part attention or leave");
    expect_error("run tiny:heads=4 --part ffn", "heads=4: is a key of part attention, the case checks ffn");
    expect_error("run tiny:heads=4 --heads 8", "--heads 8: given twice");
    expect_error("run tiny --top 17", "--top 17: 17 experts per token of only 16");
    expect_error("run tiny --experts 8 --tp 1 --dump x.h5",
                 "--dump x.h5: a file's layer is that of its config; leave");
}

Test(options, no_tp_means_every_usual_one_that_is_legal) {
    expect_cases("run tiny/ffn:ep=4", "tiny/ffn:tp=4,ep=4\ntiny/ffn:tp=8,ep=4\n");
    expect_cases("run param2-17b --part ffn --ep 16", "param2-17b/ffn:tp=16,ep=16\n");
    expect_error("run param2-17b --part ffn --ep 3", "--ep 3: param2-17b has 64 experts");
}

Test(options, experts_are_dealt_out_where_there_are_some_and_attention_runs_without) {
    static const char *const both[] = {"run tiny --ep 1,2 --tp 2", "run tiny --ep 2 --tp 2",
                                       "run tiny:ep=2 --tp 2"};
    for (int i = 0; i < 3; i++)
        expect_cases(both[i], i ? "tiny/attention:tp=2\ntiny/ffn:tp=2,ep=2\n"
                                : "tiny/attention:tp=2\ntiny/ffn:tp=2\ntiny/ffn:tp=2,ep=2\n");
    expect_cases("run tiny --ep 4", "tiny/attention:tp=1\ntiny/attention:tp=2\ntiny/attention:tp=4\n"
                                    "tiny/attention:tp=8\ntiny/ffn:tp=4,ep=4\ntiny/ffn:tp=8,ep=4\n");
    expect_error("run tiny --ep 2 --layer 0", "--ep 2: layer 0 of tiny has no routed experts; leave it out");
}

Test(options, mistakes_are_named_with_what_would_be_right) {
    static const char *const mistakes[][2] = {
        {"frob", "frob: no such command; use "},
        {"rum", "rum: no such command; use run,"},
        {"--tp 2", "--tp: no command given; use run, judge, compare, list, probe, bench, mutants, generate, "
                   "help or version "},
        {"run --help=1", "--help: takes no value"},
        {"run --tpp 2", "--tpp: run has no such option; use --tp,"},
        {"run -x", "-x: run has no such option"},
        {"run --tp", "--tp: needs a value, --tp N,..."},
        {"run --tp=", "--tp: the value is empty"},
        {"run --tp 1,,2", "a value is empty"},
        {"run --tp 1,2,1", "1 stands there twice"},
        {"run --tp 1 --tp 2", "--tp: given twice"},
        {"run --tp 3", "--tp 3: param2-17b has 32 heads and 8 kv heads; use 1, 2, 4, 8, 16 or 32"},
        {"run --tp 2x", "--tp 2x: use an integer from 1 to 128"},
        {"run --part attention --ep 2", "--ep 2: no case checks part ffn; use --part ffn or leave it out"},
        {"run --part attn", "--part attn: use attention or ffn"},
        {"run --phase deocde", "--phase deocde: use decode,"},
        {"run --device gpu", "--device gpu: use"},
        {"run --allow-skips=1", "--allow-skips: takes no value"},
        {"run -q -v", "exclude each other"},
        {"run --kernel rope", "use STAGE=NAME"},
        {"run --kernel rpoe=x", "no stage rpoe; use rope,"},
        {"run --kernel rope=none", "no such kernel for stage rope"},
        {"run --mutant none", "--mutant none: no such mutant; use "},
        {"run --report xml", "--report xml: no such format; use html, text, json, "},
        {"run --report json --report text", "two reports to standard output"},
        {"run --report json:a --report junit:a", "--report junit:a and --report json:a: one file"},
        {"run --report json:", "names no file"},
        {"run tiny:tp=2 --tp 2", "--tp 2: given twice, 'tiny:tp=2' sets it too"},
        {"run tiny/ffn --part ffn", "--part: given twice"},
        {"run tiny tiny", "tiny: given twice"},
        {"run tinny", "tinny"},
        {"run tiny/atention", "no such part; use attention or ffn"},
        {"run --cached 4", "prefill has nothing cached"},
        {"run --fixture /nowhere.h5", "/nowhere.h5"},
        {"list", "use models, kernels, stages, mutants, fills, facts, devices or tensors"},
        {"list tensors", "of which file"},
        {"list tensors a b", "list b: one thing at a time"},
        {"list kernel", "list kernel: no such list; use kernels,"},
        {"list kernels stages", "one thing at a time"},
        {"list kernels --tp 2", "--tp: list has no such option; use --help or --version"},
        {"probe --tp 2", "--tp: probe has no such option; use --help, --device"},
        {"probe --device host,cuda", "--device host,cuda: use host or cuda"},
        {"probe tiny", "probe tiny: takes no model; use probe --device NAME"},
        {"help rum", "help rum: no such command; use run,"},
        {"help run list", "help list: one command at a time"},
        {"version 2", "version 2: takes nothing"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        expect_error(mistakes[i][0], mistakes[i][1]);
}

Test(options, every_key_is_an_option_and_named_as_it_was_given) {
    for (int k = 0; case_keys[k].name; k++) {
        const char *const name = case_keys[k].name;
        char command[96], part[96];
        snprintf(command, sizeof command, "run --%s ?", name);
        snprintf(part, sizeof part, "--%s ?: use ", name);
        expect_error(command, part);
        snprintf(command, sizeof command, "run tiny:%s=?", name);
        snprintf(part, sizeof part, "%s=?: use ", name);
        expect_error(command, part);
    }
    expect_error("run tiny/attention:tp=3", "tp=3: tiny has 8 heads");
    expect_error("run tiny/ffn:ep=3 --tp 2",
                 "ep=3: tiny has 16 experts of width 32 and a shared one of width 64; "
                 "with --tp 2 use 1 or 2");
    expect_error("run tiny/attention:ep=2", "ep=2: is a key of part ffn, the case checks attention");
    expect_error("run tiny/ffn:kernel.rope=rope", "kernel.rope=rope: rope is a stage of part attention");
}

Test(options, more_cases_than_fit_are_refused) {
    char command[512] = "run tiny --phase chunked --seed 1", *end = command + strlen(command);
    for (int i = 2; i <= 64; i++) end += sprintf(end, ",%d", i);
    strcpy(end, " --cached 1,2,3,4,5,6,7,8 --tokens 1,2,3,4,5,6,7,8");
    expect_error(command, "more than 4096 cases");
}

Test(options, kernels_go_to_the_cases_of_their_part) {
    for (const struct kernel *k = kernel_table; k->name; k++) {
        if (k->op != OP_ATTENTION) continue;
        char command[128], lines[256];
        snprintf(command, sizeof command, "run tiny --tp 2 --kernel attention=%s", k->name);
        snprintf(lines, sizeof lines, "tiny/attention:tp=2,kernel.attention=%s\ntiny/ffn:tp=2\n", k->name);
        expect_cases(command, lines);
        strcat(command, " --part ffn");
        expect_error(command, "no case checks part attention");
    }
}

Test(options, a_fused_kernel_stands_beside_kernels_of_other_steps) {
    expect_cases("run tiny/ffn:layer=1 --tp 2 --kernel gate_up_act=gated_gemm_wgmma --kernel "
                 "shared_gate_up=linear_simt --kernel down=linear_simt",
                 "tiny/ffn:tp=2,layer=1,kernel.gate_up_act=gated_gemm_wgmma,kernel.down=linear_simt,"
                 "kernel.shared_gate_up=linear_simt\n");
}

Test(options, a_mutant_sets_part_and_layout) {
    const struct mutant *m;
    for (int row = 0; (m = mutant_at(row)); row++) {
        struct options options;
        char *copy, command[256];
        if (m->missing) continue;
        const bool packed = m->layouts >> LAYOUT_PACKED & 1 || !m->layouts;
        const char *const other = packed ? "contig" : "packed";
        snprintf(command, sizeof command, "run tiny --mutant %s", m->name);
        cr_assert_eq(parse(command, &options, &copy).code, STATUS_OK);
        cr_assert(options.run.mutant == m && options.run.n_cases > 0);
        for (int64_t i = 0; i < options.run.n_cases; i++)
            cr_assert(options.run.cases[i].part == m->part &&
                      options.run.cases[i].layout == (packed ? LAYOUT_PACKED : LAYOUT_CONTIG));
        options_free(&options);
        free(copy);
        snprintf(command, sizeof command, "run tiny --mutant %s --layout %s", m->name, other);
        if (m->layouts) expect_error(command, "the mistake exists in layout");
        snprintf(command, sizeof command, "run tiny --mutant %s --part %s", m->name,
                 part_name(m->part == PART_FFN ? PART_ATTENTION : PART_FFN));
        expect_error(command, "the mistake is in part");
    }
}

/* A file of model tiny with the input of layer 0's attention and of layer 1's ffn, 5 tokens
 * each. */
static void write_fixture(const char *path) {
    struct model tiny;
    cr_assert_eq(model_load("tiny", &tiny).code, STATUS_OK);
    const int64_t shape[2] = {5, tiny.kind[0].hidden};
    float *x = calloc((size_t)(shape[0] * shape[1]), sizeof *x);
    struct fixture_writer *writer;
    cr_assert_eq(fixture_create(path, path, model_preset_json("tiny"), "test", DTYPE_F32, 0, &writer).code,
                 STATUS_OK);
    cr_assert_eq(fixture_write(writer, "inputs", "hidden_states", DTYPE_F32, 2, shape, x).code, STATUS_OK);
    cr_assert_eq(fixture_write(writer, "inputs", "layers.1.ffn.x", DTYPE_F32, 2, shape, x).code, STATUS_OK);
    cr_assert_eq(fixture_finish(writer).code, STATUS_OK);
    free(x);
}

Test(options, a_fixture_brings_model_layers_and_tokens) {
    char path[64], command[256], lines[512];
    snprintf(path, sizeof path, "/tmp/shardcheck-options-%ld.h5", (long)getpid());
    write_fixture(path);
    snprintf(command, sizeof command, "run --tp 2,4 --fixture %s", path);
    snprintf(lines, sizeof lines,
             "%s/attention:tp=2,tokens=5,layer=0\n%s/attention:tp=4,tokens=5,layer=0\n"
             "%s/ffn:tp=2,tokens=5,layer=1\n%s/ffn:tp=4,tokens=5,layer=1\n",
             path, path, path, path);
    expect_cases(command, lines);
    snprintf(command, sizeof command, "run %s/ffn:tp=2,tokens=5,layer=1 --fixture %s", path, path);
    snprintf(lines, sizeof lines, "%s/ffn:tp=2,tokens=5,layer=1\n", path);
    expect_cases(command, lines);
    static const char *const mistakes[][2] = {
        {"--tokens 7", "holds 5 tokens"},
        {"--phase decode", "one prefilled sequence"},
        {"--layer 1 --part attention", "brings no input of its attention"},
        {"param2-17b", "brings its own model"},
        {"--heads 4", "a file's layer is that of its config; leave heads out"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        snprintf(command, sizeof command, "run --fixture %s %s", path, mistakes[i][0]);
        expect_error(command, mistakes[i][1]);
    }
    unlink(path);
}

Test(options, reports_and_flags_are_read) {
    struct options options;
    char *copy;
    cr_assert_eq(
        parse("run tiny -v --allow-skips --report junit:a.xml --report json:b:c", &options, &copy).code,
        STATUS_OK);
    cr_assert(options.verbosity == 1 && options.allow_skips && options.n_reports == 3);
    cr_assert_str_eq(options.report[0].path, "a.xml");
    cr_assert_str_eq(options.report[1].path, "b:c");
    cr_assert(options.report[2].format == report_formats && !options.report[2].path,
              "text still goes to stdout");
    options_free(&options);
    free(copy);
    cr_assert_eq(parse("run tiny --quiet --report json", &options, &copy).code, STATUS_OK);
    cr_assert(options.verbosity == -1 && options.n_reports == 1 &&
              !strcmp(options.report[0].format->name, "json"));
    options_free(&options);
    free(copy);
}

Test(options, the_command_is_the_first_word_and_help_is_of_it) {
    static const char *const commands[][3] = {
        /* typed, what is done, the topic of help */
        {"", "help", ""},
        {"-h", "help", ""},
        {"--help", "help", ""},
        {"--help list", "help", "list"},
        {"help", "help", ""},
        {"help probe", "help", "probe"},
        {"help help", "help", "help"},
        {"run --help", "help", "run"},
        {"run nosuchmodel -h", "help", "run"},
        {"list --help", "help", "list"},
        {"list -h --version", "help", "list"},
        {"--version", "version", ""},
        {"version", "version", ""},
        {"run --version", "version", "run"},
        {"list models", "list", ""},
        {"probe", "probe", ""},
        {"run tiny/ffn:tp=1", "run", ""},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct options options;
        char *copy;
        const struct status status = parse(commands[i][0], &options, &copy);
        cr_assert_eq(status.code, STATUS_OK, "%s: %s", commands[i][0], status.message);
        cr_expect_str_eq(options.command->name, commands[i][1], "%s", commands[i][0]);
        cr_expect_str_eq(options.topic ? options.topic->name : "", commands[i][2], "%s", commands[i][0]);
        options_free(&options);
        free(copy);
    }
}

static char *help_of(const struct command *topic) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    help_print(file, topic);
    fclose(file);
    return text;
}

static char *list_of(const char *what) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    cr_assert_eq(list_print(what, NULL, file).code, STATUS_OK);
    fclose(file);
    return text;
}

/* Each command's help has its options and those of all, and no other command's. */
Test(options, help_of_a_command_is_about_that_command) {
    char *const all = help_of(NULL);
    for (const struct command *c = command_table; c->name; c++) {
        char *const help = help_of(c);
        cr_expect(strstr(all, c->describes) && strstr(help, c->describes), "%s", c->name);
        cr_expect_eq(command_by_name(c->name), c);
        for (const struct command *other = command_table; other->name; other++) {
            struct option_row row, own;
            char text[48];
            snprintf(text, sizeof text, "shardcheck %s ", other->name);
            cr_expect_eq(strstr(help, text) != NULL, other == c, "%s in %s", other->name, c->name);
            int n_options = 0;
            for (; option_at(other, n_options, &row); n_options++) continue;
            cr_expect(n_options <= MAX_OPTIONS, "%s has %d options", other->name, n_options);
            for (int i = 0; option_at(other, i, &row); i++) {
                bool takes = false;
                for (int j = 0; option_at(c, j, &own); j++) takes |= !strcmp(own.name, row.name);
                snprintf(text, sizeof text, "--%s ", row.name);
                cr_expect_eq(strstr(help, text) != NULL, takes, "%s in the help of %s", text, c->name);
            }
        }
        free(help);
    }
    free(all);
}

Test(options, help_names_every_key_and_lists_show_every_row) {
    char *help = help_of(NULL), *models = list_of("models"), *kernels = list_of("kernels"),
         *stages = list_of("stages"), *mutants = list_of("mutants"), *fills = list_of("fills"),
         *facts = list_of("facts");
    for (int k = 0; case_keys[k].name; k++) {
        char option[48], text[240];
        snprintf(option, sizeof option, "  --%s N", case_keys[k].name);
        case_key_help(k, text, sizeof text);
        cr_expect(strstr(help, option) && strstr(help, text), "%s", option);
    }
    for (const char *const *name = model_preset_names(); *name; name++) cr_expect(strstr(models, *name));
    for (const struct kernel *k = kernel_table; k->name; k++) cr_expect(strstr(kernels, k->name));
    for (int s = 0; s < S_COUNT; s++) cr_expect(strstr(stages, stage_table[s].name));
    const struct mutant *m;
    for (int i = 0; (m = mutant_at(i)); i++) cr_expect(strstr(mutants, m->name));
    for (int f = 0; f < FILL_COUNT; f++) cr_expect(strstr(fills, fill_name((enum fill_kind)f)));
    for (int f = 0; f < coverage_count(); f++) {
        char name[48];
        coverage_name(f, name, sizeof name);
        cr_expect(strstr(facts, name), "%s", name);
    }
    char *const texts[] = {help, models, kernels, stages, mutants, fills, facts};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cr_expect_null(strchr(texts[i], '\t'), "columns are aligned with spaces");
        free(texts[i]);
    }
}
