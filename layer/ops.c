/* ops - what a call asks for beyond its plain op, read off its arguments: one table says by which
 * bit, for calls of which op, in which words and how it is told. An argument that a kernel can fail
 * to know of is a new row, and every kernel that does not name the bit is kept from such calls. */
/* SPDX-License-Identifier: MIT */
#include "layer/ops.h"

#include <stdio.h>
#include <string.h>

static bool linear_bias(const struct call *c) { return c->u.linear.bias.data; }
static bool linear_groups(const struct call *c) {
    return c->u.linear.n_groups != 1 || c->u.linear.offsets.data;
}
static bool gated_groups(const struct call *c) {
    return c->u.gated_linear.n_groups != 1 || c->u.gated_linear.offsets.data;
}
static bool partial_rope(const struct call *c) { return c->u.rope.rot_dim < c->u.rope.head_dim; }
static bool paired_rope(const struct call *c) { return c->u.rope.pairing == ROPE_GPTJ; }
static bool unmasked(const struct call *c) { return !c->u.attention.causal; }
static bool sigmoid(const struct call *c) { return c->u.route.score == SCORE_SIGMOID; }
static bool select_bias(const struct call *c) { return c->u.route.bias.data; }
static bool group_limit(const struct call *c) { return c->u.route.n_group > 1; }
static bool group_max(const struct call *c) {
    return c->u.route.n_group > 1 && c->u.route.group_score == GROUP_MAX;
}
static bool group_zero(const struct call *c) {
    return c->u.route.n_group > 1 && c->u.route.group_fill == GROUP_FILL_ZERO;
}
static bool raw_gates(const struct call *c) { return !c->u.route.renormalise; }
static bool scaled_gates(const struct call *c) { return c->u.route.routed_scale != 1; }
static bool permute_absent(const struct call *c) {
    return c->u.permute.n_rows != c->u.permute.n_tokens * c->u.permute.top_k;
}
static bool combine_absent(const struct call *c) {
    return c->u.combine.n_rows != c->u.combine.n_tokens * c->u.combine.top_k;
}

static const struct need_row {
    uint64_t bit;
    enum op op;
    const char *name; /* behind "does not handle" */
    bool (*test)(const struct call *call);
} need_table[] = {
    {NEED_BIAS, OP_LINEAR, "a bias", linear_bias},
    {NEED_GROUPS, OP_LINEAR, "rows in groups", linear_groups},
    {NEED_GROUPS, OP_GATED_LINEAR, "rows in groups", gated_groups},
    {NEED_PARTIAL_ROPE, OP_ROPE, "heads that rotate in part", partial_rope},
    {NEED_PAIRED_ROPE, OP_ROPE, "pairs of neighbouring dims (GPT-J)", paired_rope},
    {NEED_UNMASKED, OP_ATTENTION, "calls without a causal mask", unmasked},
    {NEED_SIGMOID, OP_ROUTE, "sigmoid scores", sigmoid},
    {NEED_SELECT_BIAS, OP_ROUTE, "a bias of the selection", select_bias},
    {NEED_GROUP_LIMIT, OP_ROUTE, "a limit on groups of experts", group_limit},
    {NEED_GROUP_MAX, OP_ROUTE, "groups that count by their best expert", group_max},
    {NEED_GROUP_ZERO, OP_ROUTE, "rejected groups that count as 0", group_zero},
    {NEED_RAW_GATES, OP_ROUTE, "gates that are not renormalised", raw_gates},
    {NEED_SCALED_GATES, OP_ROUTE, "scaled gates", scaled_gates},
    {NEED_ABSENT_EXPERTS, OP_PERMUTE, "experts that are elsewhere", permute_absent},
    {NEED_ABSENT_EXPERTS, OP_COMBINE, "experts that are elsewhere", combine_absent},
};
enum { N_NEEDS = sizeof need_table / sizeof *need_table };

uint64_t call_needs(const struct call *call) {
    uint64_t needs = 0;
    for (const struct need_row *row = need_table; row < need_table + N_NEEDS; row++)
        if (row->op == call->op && row->test(call)) needs |= row->bit;
    return needs;
}

uint64_t op_needs(enum op op) {
    uint64_t needs = 0;
    for (const struct need_row *row = need_table; row < need_table + N_NEEDS; row++)
        if (row->op == op) needs |= row->bit;
    return needs;
}

void needs_describe(uint64_t needs, enum op op, char *text, size_t room) {
    text[0] = 0;
    for (const struct need_row *row = need_table; row < need_table + N_NEEDS; row++) {
        const size_t used = strlen(text);
        if (row->op == op && row->bit & needs)
            snprintf(text + used, room - used, "%s%s", used ? ", " : "", row->name);
    }
}
