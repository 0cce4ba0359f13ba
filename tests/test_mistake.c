/* What does a mistake inside a kernel put into what the kernel stored, and what does it leave? */
/* SPDX-License-Identifier: MIT */
#include "harness/mistake.h"
#include "harness/run.h"
#include "tests/one_case.h"

#include <criterion/criterion.h>
#include <string.h>

static bool in_norm(struct mistake *m) { return m->call.op == OP_NORM; }

/* Token 2 is off by one. */
static void spoil_token_2(const struct mistake *m, int64_t row0, int64_t row1, struct ref_out *out) {
    const int64_t width = m->call.u.norm.width;
    for (int64_t c = 0; c < width && row0 <= 2 && 2 < row1; c++) out->y[(2 - row0) * width + c] += 1;
}

Test(mistake, only_elements_that_it_gives_another_value_are_stored_by_it) {
    const struct mutant m = {
        .name = "m", .hooks = {.inside = in_norm, .stores = spoil_token_2}, .unsharded = true};
    struct run_output out = run_one("tiny/attention:tp=1,tokens=5", (struct one_case){.mutant = &m});
    const struct case_result *const r = &out.cases[0];
    cr_expect(r->mutant_made && r->verdict == CASE_FAILED);
    cr_expect_eq(r->edge[EDGE_KERNEL].outside, 64, "%lld elements of 64 channels",
                 (long long)r->edge[EDGE_KERNEL].outside);
    cr_expect(strstr(r->where, "stage attn_norm, token 2"), "%s", r->where);
    cr_expect_str_empty(r->likely, "no mistake of the table: %s", r->likely);
    run_output_free(&out);
}

/* Where no value changes, none was made: what the kernel stored stays, rounded as the kernel did. */
Test(mistake, one_that_stores_the_right_values_is_invisible) {
    const struct mutant m = {.name = "m", .hooks.inside = in_norm, .unsharded = true};
    struct run_output out = run_one("tiny/attention:tp=2,tokens=5", (struct one_case){.mutant = &m});
    cr_expect(!out.cases[0].mutant_made && out.cases[0].verdict == CASE_PASSED);
    run_output_free(&out);
}

Test(mistake, memory_is_refused_to_a_guess_only) {
    struct mistake m = {.guess = true};
    cr_expect_null(mistake_memory(&m, INT64_C(1) << 31, 1));
    cr_expect(mistake_memory(&m, 16, sizeof(double)));
    m.guess = false;
    cr_expect(mistake_memory(&m, INT64_C(1) << 31, 1), "zero pages cost nothing");
    for (int i = 0; i < MISTAKE_BLOCKS; i++) mistake_memory(&m, 1, 1);
    cr_expect_eq(m.n_blocks, MISTAKE_BLOCKS);
    mistake_close(&m);
}
