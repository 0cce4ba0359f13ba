/* Does a case survive being printed and parsed, and are impossible cases refused with the values
 * that would work? */
/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

/* Field by field: the padding of the struct means nothing. */
static bool same_case(const struct check_case *a, const struct check_case *b) {
    for (int k = 0; case_keys[k].name; k++)
        if (case_key_get(k, a) != case_key_get(k, b)) return false;
    return !strcmp(a->model, b->model) && a->part == b->part &&
           !memcmp(a->kernel, b->kernel, sizeof a->kernel);
}

/* A 64-bit congruential generator (Knuth); the high bits are good enough to choose with. */
static uint64_t draw(uint64_t *state, uint64_t n) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (*state >> 33) % n;
}

/* Key k at its i-th legal value: every name, or the ends of the range and what is beside them. */
static bool set_value(int k, int i, struct check_case *c) {
    const struct case_key *const row = &case_keys[k];
    const uint64_t numbers[] = {row->min, row->min + 1, row->max - 1, row->max};
    char value[32];
    if (i >= (row->value ? row->n_values : 4)) return false;
    if (row->value && !row->value(i)) return set_value(k, i + 1, c);
    snprintf(value, sizeof value, "%llu", (unsigned long long)numbers[i % 4]);
    const struct status status = case_set(c, "", row->name, row->value ? row->value(i) : value);
    cr_assert_eq(status.code, STATUS_OK, "%s: %s", row->name, status.message);
    return true;
}

static struct check_case draw_case(uint64_t *state) {
    static const char *const models[] = {"param2-17b",
                                         "dir/config.json",
                                         "/a:b/c,d=e/config.json",
                                         "x/attention",
                                         "a b",
                                         "/attention:tp=2",
                                         "./ffn:tp=2/x",
                                         "c:tp=2.json",
                                         "./c:tp=2,x/attention:tp=4/ffn",
                                         "a/ffn:/ffn::b",
                                         ":,=/:",
                                         "://ffn"};
    struct check_case c = case_defaults();
    strcpy(c.model, models[draw(state, sizeof models / sizeof *models)]);
    c.part = (enum part)draw(state, PART_COUNT);
    c.layer = (int64_t)draw(state, 4) - 1;
    c.phase = (enum phase)draw(state, PHASE_COUNT);
    if (draw(state, 2)) c.tokens = 1 + (int64_t)draw(state, 65536);
    if (c.phase != PHASE_PREFILL && draw(state, 2)) c.cached = (int64_t)draw(state, 65537);
    if (draw(state, 2)) c.seqs = 1 + (int64_t)draw(state, 256);
    c.tp = 1 + (int64_t)draw(state, 128);
    if (draw(state, 2)) c.ep = 1 + (int64_t)draw(state, 128);
    c.dtype = draw(state, 2) ? DTYPE_BF16 : DTYPE_F32;
    c.layout = (enum layout)draw(state, LAYOUT_COUNT);
    c.fill = (enum fill_kind)draw(state, FILL_COUNT);
    c.device = (enum device_kind)draw(state, DEVICE_COUNT);
    if (draw(state, 2)) c.seed = UINT64_MAX - draw(state, 3);
    for (const struct kernel *k = kernel_table; k->name; k++)
        for (int s = 0; s < S_COUNT; s++)
            if (stage_table[s].op == k->op && draw(state, 8) == 0) c.kernel[s] = k;
    for (int k = 0; case_keys[k].name; k++)
        if (case_keys[k].override && draw(state, 4) == 0) set_value(k, (int)draw(state, 4), &c);
    case_finish(&c);
    return c;
}

Test(case, every_printed_case_parses_to_itself) {
    uint64_t state = 1;
    for (int i = 0; i < 20000; i++) {
        const struct check_case c = draw_case(&state);
        struct check_case back;
        char line[CASE_LINE + 1024], again[CASE_LINE + 1024];
        bool has_part = false;
        case_print(&c, line, sizeof line);
        cr_assert_eq(strlen(line), case_line_length(&c));
        const struct status status = case_parse(line, &back, &has_part);
        cr_assert_eq(status.code, STATUS_OK, "%s: %s", line, status.message);
        case_print(&back, again, sizeof again);
        cr_assert(has_part && same_case(&c, &back), "%s came back as %s", line, again);
    }
}

Test(case, every_key_at_every_kind_of_value_comes_back) {
    for (int k = 0; case_keys[k].name; k++) {
        int printed = 0;
        for (int i = 0;; i++) {
            struct check_case c = case_defaults(), back;
            char line[CASE_LINE], again[CASE_LINE], item[64];
            bool has_part;
            strcpy(c.model, "m");
            if (!set_value(k, i, &c)) break;
            case_finish(&c);
            case_print(&c, line, sizeof line);
            const struct status status = case_parse(line, &back, &has_part);
            cr_assert_eq(status.code, STATUS_OK, "%s: %s", line, status.message);
            case_print(&back, again, sizeof again);
            cr_assert(same_case(&c, &back), "%s came back as %s", line, again);
            snprintf(item, sizeof item, "%s=", case_keys[k].name);
            printed += strstr(line, item) != NULL;
        }
        cr_assert(printed > 0 || case_keys[k].n_values == 1, "%s never shows", case_keys[k].name);
    }
}

/* Found by name and by field, and nothing in the row contradicts. */
Test(case, the_rows_of_the_key_table_are_sound) {
    const struct check_case defaults = case_defaults();
    for (int k = 0; case_keys[k].name; k++) {
        const struct case_key *const row = &case_keys[k];
        char help[240];
        cr_expect_eq(case_key_by_name(row->name), k);
        cr_expect_eq(case_key_at(row->offset), k);
        cr_expect_eq(case_key_get(k, &defaults), (uint64_t)row->absent, "%s", row->name);
        cr_expect(row->value ? row->n_values > 0 : row->min < row->max, "%s has no values", row->name);
        cr_expect(row->absent >= 0 || row->otherwise || row->override, "%s: what without it?", row->name);
        cr_expect(row->nest >= NEST_OUTERMOST && row->nest <= NEST_TP);
        case_key_help(k, help, sizeof help);
        cr_expect(!strstr(help, "default ") == !!row->override && strlen(help) < 100, "%s: %s", row->name,
                  help);
        cr_expect(row->scope == SCOPE_ALL || row->override || row->nest == NEST_EP,
                  "%s is no size or switch of a layer, nor its cut", row->name);
    }
}

Test(case, the_line_of_the_design_prints_as_it_was_written) {
    const char *line = "param2-17b/attention:tp=4,phase=decode,tokens=3,cached=129,seed=7";
    struct check_case c;
    char back[CASE_LINE];
    bool has_part;
    cr_assert_eq(case_parse(line, &c, &has_part).code, STATUS_OK);
    case_print(&c, back, sizeof back);
    cr_assert_str_eq(back, line);
}

Test(case, what_hangs_on_the_phase_is_filled_in) {
    struct check_case c;
    bool has_part;
    cr_assert_eq(case_parse("m:phase=decode", &c, &has_part).code, STATUS_OK);
    cr_assert(!has_part && c.cached == 129 && c.tokens == 33 && c.layer == -1);
    cr_assert_eq(case_parse("m:phase=chunked", &c, &has_part).code, STATUS_OK);
    cr_assert_eq(c.cached, 64);
    cr_assert_eq(case_parse("m/ffn", &c, &has_part).code, STATUS_OK);
    cr_assert(has_part && c.cached == 0 && c.part == PART_FFN);
}

/* The text in front of the first '|' is parsed; the error has to contain the rest. */
Test(case, mistakes_are_named_with_what_would_be_right) {
    static const char *const mistakes[] = {
        "|starts with a model",
        "m:|expected key=value",
        "m:tp|expected key=value",
        "m:=4|expected key=value",
        "m:tp=4,|expected key=value",
        "m:tp=4,,seed=1|expected key=value",
        "m:tpp=4|tpp=4: no such key; use tp, top, ep,",
        "m:tokns=4|no such key; use tokens,",
        "m:tp=|tp=: use an integer from 1 to 128",
        "m:tp=0|use an integer from 1 to 128",
        "m:tp=129|use an integer from 1 to 128",
        "m:tp=+4|use an integer",
        "m:tp=-4|use an integer",
        "m:tp= 4|use an integer",
        "m:tp=4x|use an integer",
        "m:tp=4.0|use an integer",
        "m:tp=18446744073709551617|use an integer",
        "m:tokens=65537|from 1 to 65536",
        "m:cached=65537|from 0 to 65536",
        "m:seqs=257|from 1 to 256",
        "m:layer=-1|use an integer from 0",
        "m:seed=18446744073709551616|from 0 to 18446744073709551615",
        "m:seed=0x7|use an integer",
        "m:tp=4,tp=4|tp is given twice",
        "m:phase=deocde|phase=deocde: use decode,",
        "m:dtype=fp64|dtype=fp64: use fp32, fp16 or bf16",
        "m:dtype=int32|fp16",
        "m:layout=packd|use packed or contig",
        "m:fill=randon|use random",
        "m:device=gpu|host or cuda",
        "m:kernel.atention=x|kernel.atention=x: no stage atention; use attention,",
        "m:kernel.attention=none|no such kernel for stage attention",
        "m:kernel.=x|no stage",
        "param2-17b/atention|param2-17b/atention: no such part; use attention or ffn",
        "param2-17b/atention:tp=2|no such part",
        "a\nb|control character",
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        const char *bar = strchr(mistakes[i], '|');
        char line[128];
        struct check_case c;
        bool has_part;
        snprintf(line, sizeof line, "%.*s", (int)(bar - mistakes[i]), mistakes[i]);
        const struct status status = case_parse(line, &c, &has_part);
        cr_expect_neq(status.code, STATUS_OK, "%s was accepted", line);
        cr_expect(strstr(status.message, bar + 1) && !strchr(status.message, '\n'), "%s: '%s' lacks '%s'",
                  line, status.message, bar + 1);
    }
}

Test(case, a_kernel_of_another_op_is_refused) {
    for (const struct kernel *k = kernel_table; k->name; k++) {
        if (k->op == OP_ROPE) continue;
        char line[128];
        struct check_case c;
        bool has_part;
        snprintf(line, sizeof line, "m:kernel.rope=%s", k->name);
        const struct status status = case_parse(line, &c, &has_part);
        cr_assert(status.code && strstr(status.message, "the stage needs rope"), "%s", status.message);
    }
}

Test(case, long_names_are_refused_and_never_cut) {
    char line[2 * PATH_BYTES];
    enum { LONGEST = PATH_BYTES - 1 };
    struct check_case c;
    bool has_part;
    memset(line, 'm', sizeof line);
    line[LONGEST] = 0;
    cr_assert_eq(case_parse(line, &c, &has_part).code, STATUS_OK);
    cr_assert_eq(strlen(c.model), LONGEST);
    strcpy(line + LONGEST, "/attention:tp=2");
    cr_assert_eq(case_parse(line, &c, &has_part).code, STATUS_OK);
    cr_assert(strlen(c.model) == LONGEST && c.tp == 2);
    strcpy(line + LONGEST, "m/attention");
    cr_assert(case_parse(line, &c, &has_part).code);
    memset(line, 'm', sizeof line);
    line[sizeof line - 1] = 0;
    cr_assert(strstr(case_parse(line, &c, &has_part).message, "at most 4095"));
    snprintf(line, sizeof line, "m:seed=%0300d", 1);
    cr_assert(case_parse(line, &c, &has_part).code);
}

/* Written by hand, without a part. */
Test(case, a_path_is_told_from_keys) {
    static const char *const lines[][3] = {
        /* text, model, tp or part */
        {"./a:b=c/d.json", "./a:b=c/d.json", "1"},
        {"./llama:8b", "./llama:8b", "1"},
        {"./c:tp=2.json", "./c:tp=2.json", "1"},
        {"c:tp=2.json", "c:tp=2.json", "1"},
        {"./c.json:tp=2", "./c.json", "2"},
        {"./c:x.json:tp=2", "./c:x.json", "2"},
        {"/c:tp=2", "/c", "2"},
        {"/c:tp=2/ffn", "/c:tp=2", "1"},
        {"/c:tp=2/ffn:tp=4", "/c:tp=2", "4"},
        {"a/attention:b/c.json", "a/attention:b/c.json", "1"},
        {"a/attention:tp=2/c.json", "a/attention:tp=2/c.json", "1"},
        {"a/attention:tp=2/c.json:tp=4", "a/attention:tp=2/c.json", "4"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct check_case c;
        struct case_given given;
        const struct status status = case_read(lines[i][0], &c, &given);
        cr_assert_eq(status.code, STATUS_OK, "%s: %s", lines[i][0], status.message);
        cr_expect_str_eq(c.model, lines[i][1], "%s: %s", lines[i][0], c.model);
        cr_expect_eq(c.tp, atoi(lines[i][2]), "%s: tp %d", lines[i][0], (int)c.tp);
    }
}

static struct model load(const char *name) {
    struct model model;
    const struct status status = model_load(name, &model);
    cr_assert_eq(status.code, STATUS_OK, "%s", status.message);
    return model;
}

static struct status check(const char *line) {
    struct check_case c;
    struct case_given given;
    const struct status status = case_read(line, &c, &given);
    cr_assert_eq(status.code, STATUS_OK, "%s", status.message);
    const struct model model = load(c.model);
    return case_check(&c, &model, &given);
}

Test(case, a_refusal_calls_a_key_as_it_was_given) {
    struct check_case c;
    struct case_given given;
    const struct model model = load("tiny");
    cr_assert_eq(case_read("tiny/ffn:ep=2", &c, &given).code, STATUS_OK);
    cr_expect_str_eq(case_check(&c, &model, &given).message,
                     "ep=2: tiny has 16 experts of width 32 and a shared one of width 64; with --tp 1 use 1");
    cr_expect(!strncmp(case_check(&c, &model, NULL).message, "--ep 2: tiny has", 16));
    c.tp = 3;
    cr_expect(strstr(case_check(&c, &model, &given).message, "--tp 3: tiny has"), "%s",
              case_check(&c, &model, &given).message);
    given.key[CASE_KEY(tp)] = true;
    cr_expect(strstr(case_check(&c, &model, &given).message, "tp=3: tiny has"));
}

Test(case, within_a_sliding_window_attention_is_full_and_beyond_it_is_refused) {
    struct check_case c;
    struct model model = load("tiny");
    model.window = 40;
    static const struct {
        const char *line, *refused; /* NULL: legal */
    } rows[] = {
        {"tiny/attention:tokens=40", NULL},
        {"tiny/attention:tokens=41",
         "--tokens 41: the last token has 41 keys, and tiny sees the last 40 only"},
        {"tiny/attention:phase=decode,cached=39,tokens=90", NULL},
        {"tiny/attention:phase=decode,cached=40", "--cached 40: the last token has 41 keys"},
        {"tiny/attention:phase=chunked,cached=30,tokens=11", "--cached 30: the last token has 41 keys"},
        {"tiny/ffn:tokens=41", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct case_given given;
        cr_assert_eq(case_read(rows[i].line, &c, &given).code, STATUS_OK);
        const struct status status = case_check(&c, &model, NULL);
        cr_expect_eq(status.code != STATUS_OK, rows[i].refused != NULL, "%s: %s", rows[i].line,
                     status.message);
        if (rows[i].refused) cr_expect(strstr(status.message, rows[i].refused), "%s", status.message);
    }
}

Test(case, the_refusal_lists_the_legal_ranks) {
    cr_assert_str_eq(check("param2-17b/attention:tp=3").message,
                     "tp=3: param2-17b has 32 heads and 8 kv heads; use 1, 2, 4, 8, 16 or 32");
    cr_assert_str_eq(
        check("param2-17b/ffn:tp=2,ep=3").message,
        "ep=3: param2-17b has 64 experts of width 2048 and a shared one of width 4096; with tp=2 "
        "use 1 or 2");
    cr_assert(strstr(check("param2-17b/ffn:tp=3").message, "use 1, 2, 4, 8, 16, 32, 64 or 128"));
    cr_assert(strstr(check("param2-17b/ffn:layer=0,tp=5").message, "a dense ffn of width 9216"));
    cr_assert_str_eq(check("param2-17b/attention:tp=2,ep=2").message,
                     "ep=2: is a key of part ffn, the case checks attention; leave it out");
    cr_assert_str_eq(check("param2-17b/ffn:tp=2,ep=2,layer=0").message,
                     "ep=2: layer 0 of param2-17b has no routed experts; leave it out");
    cr_assert(strstr(check("param2-17b/ffn:layer=21").message, "has 21 layers; use 0 to 20"));
    cr_assert(strstr(check("param2-17b/ffn:cached=5").message, "cached=5: prefill has nothing cached"));
    cr_assert(strstr(check("param2-17b/ffn:phase=decode,seqs=2").message, "seqs=2: in decode"));
    cr_assert(strstr(check("param2-17b/ffn:tokens=65536,seqs=2").message, "at most 65536 tokens"));
    cr_assert(
        strstr(check("param2-17b/ffn:phase=decode,tokens=65536,cached=16").message, "too many; use at most"));
    cr_assert_eq(check("param2-17b/attention:tp=32").code, STATUS_OK, "tp may exceed the kv heads");
    cr_assert_eq(check("param2-17b/ffn:tp=8,ep=4").code, STATUS_OK);
    cr_assert_eq(check("param2-17b/ffn:tp=2,phase=chunked,cached=0").code, STATUS_OK);
}

/* The definition, spelled out once more for every pair of rank counts. */
Test(case, ranks_are_legal_iff_they_divide) {
    const struct model model = load("tiny");
    const struct layer_spec s = model_layer(&model, 1);
    struct check_case c = case_defaults();
    strcpy(c.model, "tiny");
    c.layer = 1;
    for (c.tp = 1; c.tp <= 128; c.tp++)
        for (c.ep = 1; c.ep <= 128; c.ep++) {
            const bool kv = s.n_kv_heads % c.tp == 0 || c.tp % s.n_kv_heads == 0;
            const bool attention = s.n_heads % c.tp == 0 && kv && c.ep == 1;
            const bool ffn = c.tp % c.ep == 0 && s.n_experts % c.ep == 0 && s.shared_width % c.tp == 0 &&
                             s.expert_width % (c.tp / c.ep) == 0;
            c.part = PART_ATTENTION;
            cr_assert_eq(case_check(&c, &model, NULL).code == STATUS_OK, attention, "tp %d ep %d", (int)c.tp,
                         (int)c.ep);
            c.part = PART_FFN;
            cr_assert_eq(case_check(&c, &model, NULL).code == STATUS_OK, ffn, "tp %d ep %d", (int)c.tp,
                         (int)c.ep);
        }
}

Test(case, the_default_layer_is_the_first_that_shows_the_part) {
    const struct model moe = load("param2-17b"), dense = load("llama-3.1-8b");
    struct check_case c = case_defaults();
    c.part = PART_ATTENTION;
    cr_assert_eq(case_layer(&c, &moe), 0);
    c.part = PART_FFN;
    cr_assert_eq(case_layer(&c, &moe), 1);
    cr_assert_eq(case_layer(&c, &dense), 0);
    c.layer = 5;
    cr_assert_eq(case_layer(&c, &moe), 5);
}

Test(case, a_kernel_for_a_stage_the_case_lacks_is_refused) {
    const struct model model = load("param2-17b");
    for (const struct kernel *k = kernel_table; k->name; k++) {
        if (k->op != OP_ATTENTION) continue;
        struct check_case c = case_defaults();
        strcpy(c.model, "param2-17b");
        c.kernel[S_ATTENTION] = k;
        cr_assert_eq(case_check(&c, &model, NULL).code, STATUS_OK);
        c.part = PART_FFN;
        cr_assert(strstr(case_check(&c, &model, NULL).message, "attention is a stage of part attention"));
    }
}
