/* Is a kernel given only calls that it says it handles? What a call asks for is read off its
 * arguments, every kernel names needs of its own op, and one that leaves a need out is refused such
 * calls, and no others. */
/* SPDX-License-Identifier: MIT */
#include "harness/run.h"
#include "kernels/kernels.h"
#include "layer/ops.h"

#include <criterion/criterion.h>
#include <string.h>

static int32_t somewhere;
#define PRESENT                                                                                              \
    { .data = &somewhere }

/* Of every op that has needs the plain call, and what one more argument asks for. */
static const struct {
    struct call call;
    uint64_t needs;
} calls[] = {
    {{OP_LINEAR, .u.linear = {.n_groups = 1}}, 0},
    {{OP_LINEAR, .u.linear = {.n_groups = 1, .bias = PRESENT}}, NEED_BIAS},
    {{OP_LINEAR, .u.linear = {.n_groups = 1, .offsets = PRESENT}}, NEED_GROUPS},
    {{OP_LINEAR, .u.linear = {.n_groups = 2}}, NEED_GROUPS},
    {{OP_GATED_LINEAR, .u.gated_linear = {.n_groups = 1}}, 0},
    {{OP_GATED_LINEAR, .u.gated_linear = {.n_groups = 1, .offsets = PRESENT}}, NEED_GROUPS},
    {{OP_GATED_LINEAR, .u.gated_linear = {.n_groups = 2}}, NEED_GROUPS},
    {{OP_ROPE, .u.rope = {.head_dim = 64, .rot_dim = 64}}, 0},
    {{OP_ROPE, .u.rope = {.head_dim = 64, .rot_dim = 62}}, NEED_PARTIAL_ROPE},
    {{OP_ROPE, .u.rope = {.head_dim = 64, .rot_dim = 64, .pairing = ROPE_GPTJ}}, NEED_PAIRED_ROPE},
    {{OP_ATTENTION, .u.attention = {.causal = true}}, 0},
    {{OP_ATTENTION, .u.attention = {.causal = false}}, NEED_UNMASKED},
#define USUAL .n_group = 1, .topk_group = 1, .renormalise = true
    {{OP_ROUTE, .u.route = {USUAL, .routed_scale = 1}}, 0},
    {{OP_ROUTE, .u.route = {USUAL, .routed_scale = 2.5}}, NEED_SCALED_GATES},
    {{OP_ROUTE, .u.route = {USUAL, .routed_scale = 1, .score = SCORE_SIGMOID}}, NEED_SIGMOID},
    {{OP_ROUTE, .u.route = {USUAL, .routed_scale = 1, .bias = PRESENT}}, NEED_SELECT_BIAS},
    {{OP_ROUTE, .u.route = {USUAL, .routed_scale = 1, .group_score = GROUP_MAX}}, 0},
    {{OP_ROUTE, .u.route = {.n_group = 4, .renormalise = true, .routed_scale = 1}}, NEED_GROUP_LIMIT},
    {{OP_ROUTE, .u.route = {.n_group = 4, .renormalise = true, .routed_scale = 1, .group_score = GROUP_MAX}},
     NEED_GROUP_LIMIT | NEED_GROUP_MAX},
    {{OP_ROUTE, .u.route = {USUAL, .routed_scale = 1, .group_fill = GROUP_FILL_ZERO}}, 0},
    {{OP_ROUTE,
      .u.route = {.n_group = 4, .renormalise = true, .routed_scale = 1, .group_fill = GROUP_FILL_ZERO}},
     NEED_GROUP_LIMIT | NEED_GROUP_ZERO},
    {{OP_ROUTE, .u.route = {.n_group = 1, .routed_scale = 1}}, NEED_RAW_GATES},
    {{OP_PERMUTE, .u.permute = {.n_tokens = 3, .top_k = 2, .n_rows = 6}}, 0},
    {{OP_PERMUTE, .u.permute = {.n_tokens = 3, .top_k = 2, .n_rows = 5}}, NEED_ABSENT_EXPERTS},
    {{OP_COMBINE, .u.combine = {.n_tokens = 3, .top_k = 2, .n_rows = 6}}, 0},
    {{OP_COMBINE, .u.combine = {.n_tokens = 3, .top_k = 2, .n_rows = 5}}, NEED_ABSENT_EXPERTS},
};
enum { N_CALLS = sizeof calls / sizeof *calls };

Test(needs, are_read_off_the_arguments_of_a_call) {
    uint64_t seen[OP_COUNT] = {0};
    for (int i = 0; i < N_CALLS; i++) {
        const uint64_t needs = call_needs(&calls[i].call);
        cr_expect_eq(needs, calls[i].needs, "call %d needs %#lx, not %#lx", i, needs, calls[i].needs);
        seen[calls[i].call.op] |= needs;
    }
    for (int op = 0; op < OP_COUNT; op++)
        cr_expect_eq(seen[op], op_needs((enum op)op), "a need of %s has no call here", op_name((enum op)op));
}

Test(needs, say_all_that_is_missing_in_words) {
    char text[200], little[8];
    needs_describe(NEED_BIAS | NEED_GROUPS, OP_LINEAR, text, sizeof text);
    cr_expect_str_eq(text, "a bias, rows in groups");
    needs_describe(NEED_BIAS | NEED_GROUPS, OP_GATED_LINEAR, text, sizeof text);
    cr_expect_str_eq(text, "rows in groups", "only those of the op");
    needs_describe(0, OP_LINEAR, text, sizeof text);
    cr_expect_str_eq(text, "");
    needs_describe(NEED_BIAS | NEED_GROUPS, OP_LINEAR, little, sizeof little);
    cr_expect_str_eq(little, "a bias,", "cut off, not past the end");
}

Test(needs, that_a_kernel_handles_are_those_of_its_op) {
    for (const struct kernel *k = kernel_table; k->name; k++)
        cr_expect_eq(k->handles & ~op_needs(k->op), 0, "%s handles needs that no %s has", k->name,
                     op_name(k->op));
}

Test(needs, that_a_kernel_does_not_name_keep_the_call_from_it) {
    for (const struct kernel *k = kernel_table; k->name; k++)
        for (int i = 0; i < N_CALLS; i++) {
            const struct call *const c = &calls[i].call;
            struct kernel other = *k;
            char want[300] = "does not handle ";
            if (c->op != k->op || calls[i].needs & ~k->handles) continue;
            other.unsupported = NULL;
            cr_expect_null(kernel_refuses(&other, c), "%s handles call %d", k->name, i);
            other.handles &= ~calls[i].needs;
            needs_describe(calls[i].needs, k->op, want + strlen(want), sizeof want - strlen(want));
            const char *const why = kernel_refuses(&other, c);
            cr_expect(calls[i].needs ? why && !strcmp(why, want) : !why, "%s, call %d: %s", k->name, i,
                      why ? why : "taken");
        }
}

/* The router of preset tiny: sigmoid scores, a bias of the selection, scaled gates. */
static enum case_verdict verdict_of_route(uint64_t handles, char reason[500]) {
    static struct kernel route;
    struct check_case c;
    bool has_part;
    struct run_output out;
    route = *kernel_by_name("route_simt");
    route.handles = handles;
    cr_assert_eq(case_parse("tiny/ffn:tp=2,tokens=3", &c, &has_part).code, STATUS_OK);
    c.kernel[S_ROUTE] = &route;
    const struct run_request request = {.cases = &c, .n_cases = 1};
    cr_assert_eq(run_cases(&request, &out).code, STATUS_OK);
    strcpy(reason, out.cases[0].reason);
    const enum case_verdict verdict = out.cases[0].verdict;
    run_output_free(&out);
    return verdict;
}

Test(needs, that_no_kernel_handles_skip_the_case_in_words) {
    char reason[500];
    const uint64_t needs = NEED_SIGMOID | NEED_SELECT_BIAS | NEED_SCALED_GATES;
    cr_expect_eq(verdict_of_route(needs, reason), CASE_PASSED, "%s", reason);
    cr_expect_eq(verdict_of_route(needs & ~(uint64_t)NEED_SELECT_BIAS, reason), CASE_SKIPPED);
    cr_expect(strstr(reason, "does not handle a bias of the selection"), "%s", reason);
}

Test(needs, cublas_is_given_a_bias_only_where_it_rounds_once) {
    const struct kernel *const cublas = kernel_by_name("linear_cublas");
    struct call call = {OP_LINEAR, .u.linear = {.n_groups = 1,
                                                .n_rows = 4,
                                                .n_cols = 8,
                                                .n_inner = 8,
                                                .x = {.dtype = DTYPE_BF16, .stride = {8}},
                                                .w = {.dtype = DTYPE_BF16, .stride = {64, 8}},
                                                .bias = {.data = &somewhere, .dtype = DTYPE_BF16},
                                                .out = {.dtype = DTYPE_BF16, .stride = {8}}}};
    const char *why = kernel_refuses(cublas, &call);
    cr_expect(why && strstr(why, "bias"), "%s", why ? why : "not refused");
    call.u.linear.out.dtype = DTYPE_F32;
    why = kernel_refuses(cublas, &call);
    cr_expect(!why || !strstr(why, "bias"), "%s", why ? why : "");
    call.u.linear.out.dtype = DTYPE_BF16;
    call.u.linear.bias.data = NULL;
    why = kernel_refuses(cublas, &call);
    cr_expect(!why || !strstr(why, "bias"), "%s", why ? why : "");
}
