/* Does --shrink find the least that still fails alike, and does it keep to that? */
/* SPDX-License-Identifier: MIT */
#include "harness/cli/shrink.h"
#include "harness/mutate.h"
#include "tests/stand_in.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct check_case case_of(const char *line) {
    struct check_case c;
    bool has_part;
    const struct status s = case_parse(line, &c, &has_part);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    return c;
}

/* What is left, its verdict, and what the report shows of its tensors (free it). */
static struct shrunk shrink(const struct check_case *c, const struct mutant *mutant, struct run_output *out,
                            char **text) {
    const struct options o = {.in_process = true, .verbosity = -1};
    struct run_request request = {.cases = c, .n_cases = 1, .schedules = 1, .mutant = mutant};
    struct shrunk *const kept = malloc(sizeof *kept); /* the request points into it */
    size_t size;
    FILE *const file = open_memstream(text, &size);
    struct status s = shrink_case(&o, &request, file, kept);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    s = run_cases(&request, out);
    cr_assert_eq(s.code, STATUS_OK, "%s", s.message);
    fclose(file);
    const struct shrunk copy = *kept;
    free(kept);
    return copy;
}

static int count_lines(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

Test(shrink, a_seeded_mistake_of_a_view_needs_two_tokens_and_two_ranks_at_most) {
    const struct check_case c = case_of("tiny/attention:tp=8,tokens=33,seqs=2,fill=outliers");
    struct run_output out;
    char *text;
    const struct shrunk s = shrink(&c, mutant_by_name("packed-view"), &out, &text);
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_FAILED);
    cr_expect_str_eq(r->first.stage, "kv_write");
    cr_expect_eq(r->edge[EDGE_SHARD].state, EDGE_FAIL);
    cr_expect(s.runs <= SHRINK_RUNS);
    cr_expect(s.c.tokens == 2 && s.c.seqs == 1 && s.c.tp <= 2 && s.c.hidden == 1 && s.c.fill == FILL_RANDOM,
              "%s", r->line);
    cr_expect_eq(s.c.layout, LAYOUT_PACKED, "it needs a view to mistake");
    cr_expect(strstr(s.repro, " --mutant packed-view"));
    cr_expect(strstr(text, "stage kv_write of rank 0") && strstr(text, "expected"), "%s", text);
    cr_expect(count_lines(text) <= 90, "%d lines", count_lines(text));
    run_output_free(&out);
    free(text);
}

enum { BROKEN_ROW = 4, BROKEN_COLUMN = 5 };

static const char *one_wrong_element(const struct call *call, void *scratch, void *stream) {
    const struct linear_args *const a = &call->u.linear;
    const char *const problem = launch_honest(call, scratch, stream);
    if (a->n_rows > BROKEN_ROW && a->n_cols > BROKEN_COLUMN)
        dtype_store(a->out.data, a->out.dtype, BROKEN_ROW * a->n_cols + BROKEN_COLUMN, 1000);
    return problem;
}

Test(shrink, a_kernels_bug_keeps_the_sizes_that_it_needs_and_no_more) {
    struct check_case c = case_of("tiny/attention:tp=4,tokens=33,phase=chunked,cached=70");
    struct run_output out;
    char *text;
    stand_in("linear_simt", one_wrong_element);
    c.kernel[S_O_PROJ] = &fake;
    const struct shrunk s = shrink(&c, NULL, &out, &text);
    const struct case_result *const r = &out.cases[0];
    cr_expect_eq(r->verdict, CASE_FAILED);
    cr_expect_str_eq(r->first.stage, "o_proj");
    cr_expect(r->edge[EDGE_KERNEL].state == EDGE_FAIL && r->first.rank == -1);
    cr_expect(s.c.tokens == BROKEN_ROW + 1 && s.c.hidden == BROKEN_COLUMN + 1, "%s", r->line);
    cr_expect(s.c.tp == 1 && s.c.heads == 1 && s.c.kv == 1 && s.c.cached == 0, "%s", r->line);
    cr_expect_eq(s.c.kernel[S_O_PROJ], &fake);
    cr_expect(strstr(text, "stage o_proj of the unsharded run, by fake") && strstr(text, "1000*"), "%s",
              text);
    run_output_free(&out);
    free(text);
}

Test(shrink, a_case_that_passes_is_not_shrunk) {
    const struct check_case c = case_of("tiny/attention:tp=2,tokens=3");
    const struct options o = {.in_process = true, .verbosity = -1};
    struct run_request request = {.cases = &c, .n_cases = 1, .schedules = 1};
    struct shrunk s;
    const struct status status = shrink_case(&o, &request, stdout, &s);
    cr_expect_eq(status.code, STATUS_ERROR);
    cr_expect_str_eq(status.message, "--shrink: tiny/attention:tp=2,tokens=3 passes; nothing to shrink");
}
