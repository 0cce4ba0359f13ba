/* Does the grid show what it is there for? Gallery and twins meet every fact and pass; they come with
 * models alone, and never beside what asks for less or for something else. */
/* SPDX-License-Identifier: MIT */
#include "harness/coverage.h"
#include "harness/grid.h"
#include "harness/cli/options.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 256 };
struct collected {
    struct grid_taker taker;
    struct check_case cases[ROOM];
    int64_t n;
};

static struct status collect(struct grid_taker *taker, const struct check_case *c,
                             const struct model *model) {
    struct collected *const all = (struct collected *)taker;
    cr_assert(all->n < ROOM);
    char line[CASE_LINE];
    struct check_case back;
    bool has_part;
    case_print(c, line, sizeof line);
    cr_expect(!case_check(c, model, NULL).code, "%s: %s", line, case_check(c, model, NULL).message);
    cr_expect(!case_parse(line, &back, &has_part).code && !memcmp(&back, c, sizeof back), "%s", line);
    all->cases[all->n++] = *c;
    return status_ok();
}

static struct collected *collected(bool with_gallery, const char *model) {
    struct collected *const all = calloc(1, sizeof *all);
    all->taker.take = collect;
    struct status s = with_gallery ? grid_gallery(&all->taker) : status_ok();
    if (!s.code && model) s = grid_twins(model, &all->taker);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    return all;
}

Test(grid, gallery_and_twins_of_the_default_model_pass_and_meet_every_fact) {
    struct collected *const all = collected(true, model_preset_names()[0]);
    const struct run_request request = {.cases = all->cases, .n_cases = all->n, .n_grid = all->n};
    struct run_output out;
    const struct status ran = run_cases(&request, &out);
    cr_assert_eq(ran.code, STATUS_OK, "%s", ran.message);
    for (int64_t i = 0; i < all->n; i++)
        cr_expect_eq(out.cases[i].verdict, CASE_PASSED, "%s: %s %s", out.cases[i].line, out.cases[i].where,
                     out.cases[i].reason);
    for (int f = 0; f < out.result.n_facts; f++)
        cr_expect(out.result.fact[f].n_cases,
                  "%s: no line of fixtures/gallery meets it; make grid proposes some",
                  out.result.fact[f].name);
    cr_expect_eq(out.result.n_grid_passed, all->n);
    run_output_free(&out);
    free(all);
}

static void expect_pair(const struct grid_pairs *p, int a, int va, int b, int vb) {
    cr_expect(p->met[a][va][b][vb] || !grid_can_meet(a, va, b, vb),
              "%s: no line with %s %s and %s %s; make grid proposes some", part_name(grid_axes[a].part),
              grid_axes[a].name, grid_axes[a].values[va], grid_axes[b].name, grid_axes[b].values[vb]);
}

static int64_t count_pairs(const struct grid_pairs *p) {
    int64_t n = 0;
    const bool *const met = (const bool *)p->met;
    for (size_t i = 0; i < sizeof p->met / sizeof *met; i++) n += met[i];
    return n;
}

Test(grid, every_two_values_of_two_axes_meet_in_some_line) {
    static struct grid_pairs pairs;
    struct collected *const all = collected(true, model_preset_names()[0]);
    int64_t n_new = 0;
    for (int64_t i = 0; i < all->n; i++) {
        struct model model;
        cr_assert(!model_load(all->cases[i].model, &model).code);
        const struct layer_spec spec = case_spec(&all->cases[i], &model);
        n_new += grid_pairs_add(&pairs, &all->cases[i], &spec);
        cr_expect_eq(grid_pairs_add(&pairs, &all->cases[i], &spec), 0, "nothing is new twice");
    }
    cr_expect_eq(count_pairs(&pairs), n_new);
    for (int a = 0; a < GRID_AXES; a++)
        for (int b = a + 1; b < GRID_AXES; b++)
            for (int va = 0; grid_axes[a].values[va]; va++)
                for (int vb = 0; grid_axes[b].values[vb]; vb++) expect_pair(&pairs, a, va, b, vb);
    free(all);
}

Test(grid, values_of_axes_are_those_of_the_case) {
    static const struct {
        const char *line, *axis, *value;
    } shown[] = {{"tiny/attention:tp=8,phase=decode,tokens=2,lengths=equal", "sequences", "equal"},
                 {"tiny/attention:tp=8,phase=decode,tokens=1,lengths=equal", "sequences", "one"},
                 {"tiny/attention:tp=4", "tp", "4"},
                 {"tiny/attention:tp=1,bias=qkvo", "bias", "qkvo"},
                 {"tiny/attention:tp=1,rot=8", "partial rope", "on"},
                 {"tiny/attention:tp=1,fill=ties", "fill", "ties"},
                 {"tiny/ffn:tp=8,ep=2", "ep", "2"},
                 {"tiny/ffn:tp=1,score=softmax", "score", "softmax"},
                 {"tiny/ffn:tp=1,groups=2,topk_groups=1,top=2", "group limit", "on"},
                 {"tiny/ffn:tp=1,shared=0", "shared", "off"},
                 {"tiny/ffn:tp=1,dtype=fp32", "dtype", "fp32"},
                 {"tiny/attention:tp=1,dtype=fp16", "dtype", "fp16"}};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        struct check_case c;
        struct model model;
        bool has_part, found = false;
        cr_assert(!case_parse(shown[i].line, &c, &has_part).code && !model_load(c.model, &model).code);
        const struct layer_spec spec = case_spec(&c, &model);
        for (int a = 0; a < GRID_AXES; a++) {
            const struct grid_axis *const axis = &grid_axes[a];
            if (axis->part != c.part || strcmp(axis->name, shown[i].axis)) continue;
            found = true;
            cr_expect_str_eq(axis->values[axis->value(&c, &spec)], shown[i].value, "%s", shown[i].line);
        }
        cr_expect(found, "%s", shown[i].axis);
    }
}

/* ---- twins ---- */

Test(grid, twins_keep_the_ratios_and_flags_of_their_model) {
    for (const char *const *name = model_preset_names(); *name; name++) {
        struct collected *const all = collected(false, *name);
        struct model model;
        cr_assert(!model_load(*name, &model).code);
        int64_t with_experts = 0, ranks = 0;
        for (int64_t i = 0; i < all->n; i++) {
            const struct check_case *const c = &all->cases[i];
            const struct layer_spec whole = model_layer(&model, case_layer(c, &model)),
                                    twin = case_spec(c, &model);
            cr_expect_str_eq(c->model, *name);
            cr_expect_eq(whole.n_heads * twin.n_kv_heads, twin.n_heads * whole.n_kv_heads);
            cr_expect(twin.n_experts == whole.n_experts && twin.top_k == whole.top_k &&
                      twin.n_group == whole.n_group && twin.topk_group == whole.topk_group);
            cr_expect(twin.score == whole.score && twin.select_bias == whole.select_bias &&
                      twin.renormalise == whole.renormalise && twin.routed_scale == whole.routed_scale);
            cr_expect(twin.qk_norm == whole.qk_norm && twin.qkv_bias == whole.qkv_bias);
            cr_expect_eq(twin.shared_width > 0, whole.shared_width > 0);
            cr_expect(twin.hidden <= 64 &&
                      (c->part == PART_ATTENTION || twin.expert_width <= 32 || !twin.moe));
            with_experts += c->part == PART_FFN && twin.moe;
            ranks += c->tp > 1;
        }
        cr_expect(all->n >= 7 && all->n <= 12 && ranks >= 4, "%s: %d twins", *name, (int)all->n);
        cr_expect_eq(with_experts > 0, model_layer(&model, model.n_layers - 1).moe);
        free(all);
    }
}

/* ---- when ---- */

/* Cases of the grid; -1: refused. */
static int64_t grid_of(const char *command, char *message) {
    char text[200], *argv[16];
    struct options o;
    int argc = 0;
    snprintf(text, sizeof text, "%s", command);
    for (char *at = text, *word; (word = strsep(&at, " "));) argv[argc++] = word;
    const struct status s = options_parse(argc, argv, &o);
    snprintf(message, 200, "%.199s", s.message);
    const int64_t n = s.code ? -1 : o.run.n_grid;
    if (!s.code) options_free(&o);
    return n;
}

Test(grid, comes_with_models_alone) {
    static const char *const with[] = {"",
                                       " tiny",
                                       " tiny llama-3.1-8b",
                                       " tiny -q --jobs 2 --report json:r.json",
                                       " tiny --part attention --tp 2 --grid",
                                       " tiny/ffn:tp=2 --grid",
                                       " tiny --time-budget 60 --in-process"};
    static const char *const without[] = {" --no-grid",
                                          " tiny --no-grid",
                                          " tiny --tp 2",
                                          " tiny/ffn",
                                          " tiny:seed=2",
                                          " tiny --part ffn",
                                          " tiny tiny/ffn",
                                          " tiny --schedules 2",
                                          " tiny --hidden 8",
                                          " tiny --mutant packed-view",
                                          " tiny --dump d.h5",
                                          " tiny --device host",
                                          " --kernel attention=attention_simt"};
    char command[200], message[200];
    for (size_t i = 0; i < sizeof with / sizeof *with; i++) {
        snprintf(command, sizeof command, "shardcheck run%s", with[i]);
        cr_expect_gt(grid_of(command, message), 10, "%s: %s", command, message);
    }
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        snprintf(command, sizeof command, "shardcheck run%s", without[i]);
        cr_expect_eq(grid_of(command, message), 0, "%s: %s", command, message);
    }
    cr_expect_gt(grid_of("shardcheck run tiny llama-3.1-8b", message),
                 grid_of("shardcheck run tiny", message), "twins of both");
    cr_expect_gt(grid_of("shardcheck run --grid --tp 2", message),
                 grid_of("shardcheck run --grid --tp 2 --part ffn", message), "of the part that is checked");
}

Test(grid, is_refused_beside_what_changes_the_inputs_or_the_calls) {
    static const char *const refused[] = {"--mutant packed-view", "--dump d.h5 --tp 1", "--no-grid"};
    char command[200], message[200];
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        snprintf(command, sizeof command, "shardcheck run tiny --grid %s", refused[i]);
        cr_expect_eq(grid_of(command, message), -1, "%s", command);
        cr_expect(!strncmp(message, "--grid", 6) && strstr(message, " one"), "%s: %s", command, message);
    }
}

/* ---- how it is told ---- */

Test(grid, passes_in_one_line_and_fails_like_any_other) {
    struct case_result cases[5] = {{.line = "m/ffn:tp=1"},
                                   {.line = "g/ffn:tp=1", .of_grid = true},
                                   {.line = "g/ffn:tp=2", .of_grid = true, .verdict = CASE_FAILED},
                                   {.line = "g/ffn:tp=4", .of_grid = true, .verdict = CASE_SKIPPED},
                                   {.line = "g/ffn:tp=8", .of_grid = true}};
    result_not_run(&cases[4], "the time was over");
    struct run_output out = {.result = {.n_cases = 5, .cases = cases, .n_grid = 4}, .cases = cases};
    const struct check_case c = case_defaults();
    const struct run_request request = {.cases = &c, .n_cases = 5, .n_grid = 4};
    char *text;
    size_t size;
    run_output_count(&out, &request, 3);
    out.result.seconds_grid = 1;
    FILE *const file = open_memstream(&text, &size);
    for (int i = 0; i < 5; i++) report_text_one(file, &cases[i], 0);
    report_text_end(file, &out.result, 0);
    fclose(file);
    cr_expect(strstr(text, "PASS m/ffn:tp=1") && !strstr(text, "PASS g/ffn:tp=1"), "%s", text);
    cr_expect(strstr(text, "FAIL g/ffn:tp=2") && strstr(text, "SKIP g/ffn:tp=4"), "%s", text);
    cr_expect(!strstr(text, "g/ffn:tp=8"), "what was not run is counted: %s", text);
    cr_expect(strstr(text, "grid     4 cases besides: 1 passed, 1 failed, 2 skipped; 1.0 s after 2.0 s\n"),
              "%s", text);
    cr_expect(strstr(text, "\ncoverage 0 of ") && strstr(text, " facts; not met: group-1, "), "%s", text);
    cr_expect(strstr(text, "\n2 passed, 1 failed, 2 skipped\n"), "the last line counts all: %s", text);
    free(text);
}
